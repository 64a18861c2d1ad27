//! CRIU's RPC, as far as it is spoken here: `images/rpc.proto` of its sources, whose numbers these are.
//!
//! What is not asked for is left out, so that an older CRIU is not told of what it does not know.

use prost::Message;

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub options: Option<Options>,
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
    #[prost(message, optional, tag = "5")]
    pub features: Option<Features>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
pub enum Kind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Response {
    #[prost(int32, required, tag = "1")]
    pub kind: i32,
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    #[prost(message, optional, tag = "4")]
    pub restore: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    pub notify: Option<Notification>,
    #[prost(int32, optional, tag = "7")]
    pub errno: Option<i32>,
    #[prost(message, optional, tag = "8")]
    pub features: Option<Features>,
    #[prost(string, optional, tag = "9")]
    pub error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Restored {
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Notification {
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Features {
    #[prost(bool, optional, tag = "1")]
    pub memory_tracking: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    pub lazy_pages: Option<bool>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Options {
    /// A descriptor of ours, which it opens by way of our /proc.
    #[prost(int32, required, tag = "1")]
    pub images: i32,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub outside_sockets: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    pub evasive_devices: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    #[prost(message, optional, tag = "11")]
    pub page_server: Option<PageServer>,
    #[prost(bool, optional, tag = "12")]
    pub notify: Option<bool>,
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub parent: Option<String>,
    #[prost(bool, optional, tag = "15")]
    pub track_memory: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    /// As `images`.
    #[prost(int32, optional, tag = "17")]
    pub work: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    #[prost(message, repeated, tag = "23")]
    pub external_mounts: Vec<ExternalMount>,
    #[prost(bool, optional, tag = "24")]
    pub manage_cgroups: Option<bool>,
    #[prost(message, repeated, tag = "25")]
    pub cgroup_roots: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = "26")]
    pub restore_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub inherited: Vec<InheritedFd>,
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub cgroup_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    /// CLONE_NEW*: made, and what was in it not brought back.
    #[prost(uint32, optional, tag = "38")]
    pub empty_namespaces: Option<u32>,
    #[prost(message, repeated, tag = "39")]
    pub joined: Vec<JoinedNamespace>,
    #[prost(string, optional, tag = "44")]
    pub freezer: Option<String>,
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    #[prost(bool, optional, tag = "50")]
    pub orphan_terminal: Option<bool>,
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    #[prost(bool, optional, tag = "52")]
    pub tcp_close: Option<bool>,
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct PageServer {
    #[prost(string, optional, tag = "1")]
    pub address: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub port: Option<i32>,
}

/// When saving, what is mounted at `key` is called `value`; when restoring, what is called `key` is mounted from the
/// host's path `value`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ExternalMount {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(string, required, tag = "2")]
    pub value: String,
}

/// Where what was in the saved container's group is now.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CgroupRoot {
    #[prost(string, optional, tag = "1")]
    pub controller: Option<String>,
    #[prost(string, required, tag = "2")]
    pub path: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct InheritedFd {
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// A descriptor of criu's.
    #[prost(int32, required, tag = "2")]
    pub number: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct JoinedNamespace {
    #[prost(string, required, tag = "1")]
    pub kind: String,
    #[prost(string, required, tag = "2")]
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
pub enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
    Default = 6,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that protoc makes of rpc.proto.
    #[test]
    fn messages_have_crius_form() {
        let options = Options {
            images: 5,
            pid: Some(300),
            leave_running: Some(true),
            external_mounts: vec![ExternalMount { key: "/a".to_owned(), value: "b".to_owned() }],
            cgroup_mode: Some(CgroupMode::Soft as i32),
            ..Options::default()
        };
        let request = Request { kind: Kind::Dump as i32, options: Some(options), ..Request::default() };
        let wanted = b"\x08\x01\x12\x14\x08\x05\x10\xac\x02\x18\x01\xba\x01\x07\x0a\x02/a\x12\x01b\x90\x02\x03";
        assert_eq!(request.encode_to_vec(), wanted);
        // Fields of a newer one are passed over.
        let response = b"\x08\x06\x10\x01\x2a\x0d\x0a\x09post-dump\x10\x07\xf8\x07\x01";
        let response = Response::decode(&response[..]).unwrap();
        assert!(response.success && response.kind == Kind::Notify as i32);
        assert_eq!(response.notify.unwrap().script.as_deref(), Some("post-dump"));
    }
}
