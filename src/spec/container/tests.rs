use serde_json::{Value, json};

use super::*;

/// A document that has something of everything that specification 1.3 has for Linux.
fn whole() -> Value {
    serde_json::from_str(include_str!("../../../fuzz/seeds/container/whole")).unwrap()
}

fn read_value(document: &Value) -> Result<Container, String> {
    parse(serde_json::to_vec(document).unwrap().into()).map_err(|error| error.to_string())
}

/// [`whole`] with one place of it changed; `None` takes it out.
fn with(pointer: &str, value: Option<Value>) -> Result<Container, String> {
    let mut document = whole();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    match (parent, value) {
        (Value::Object(object), Some(value)) => _ = object.insert(name.replace("~1", "/"), value),
        (Value::Object(object), None) => assert!(object.remove(name).is_some(), "{pointer}"),
        (Value::Array(array), Some(value)) if name == "-" => array.push(value),
        (Value::Array(array), Some(value)) => array[name.parse::<usize>().unwrap()] = value,
        (parent, _) => panic!("{pointer}: {parent}"),
    }
    read_value(&document)
}

#[test]
fn a_document_with_something_of_everything_is_read() {
    let container = read_value(&whole()).unwrap();
    assert_eq!(container.warnings, [""; 0]);
    assert_eq!(container.spec.process().as_ref().unwrap().user().uid(), 1000);
    assert_eq!(container.controls.profile.unwrap().name, "strict");
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    for pointer in [
        "/process",
        "/mounts",
        "/hooks",
        "/annotations",
        "/hostname",
        "/linux/resources",
        "/linux/seccomp",
        "/process/env",
        "/process/user",
        "/process/capabilities",
        "/process/rlimits",
        "/process/user/umask",
        "/root/readonly",
    ] {
        with(pointer, None).unwrap_or_else(|error| panic!("without {pointer}: {error}"));
    }
    let least = json!({ "ociVersion": "1.0.0", "root": { "path": "r" } });
    let read = read_value(&least).unwrap();
    // As `"linux": {}`, and not what some library thinks usual.
    let linux = read.spec.linux().as_ref().unwrap();
    assert!(linux.namespaces().is_none() && linux.masked_paths().is_none() && linux.resources().is_none());
}

#[test]
fn known_versions_are_taken_and_others_are_not() {
    for version in ["1.0.0", "1.0.0-rc5", "1.0.2-dev", "1.1.0+dev", "1.2.1", "1.3.0", "1.3", "1.0"] {
        with("/ociVersion", Some(version.into())).unwrap_or_else(|error| panic!("{version}: {error}"));
    }
    for version in ["", "1", "0.9.0", "1.4.0", "1.30.0", "2.0.0", "1.x", "v1.0.0", "1.", "1.-1", "1.99999999999"] {
        let error = with("/ociVersion", Some(version.into())).unwrap_err();
        assert!(error.starts_with("ociVersion: "), "{version}: {error}");
    }
    assert!(with("/ociVersion", None).unwrap_err().starts_with("ociVersion: it is missing"));
}

/// Each rule: what is changed, to what, and the path that the error begins with.
#[test]
fn an_error_says_where_in_the_document_it_is() {
    let rules = [
        // Wrong types, by the type's own words.
        ("/ociVersion", json!(1), "ociVersion: "),
        ("/root", json!("rootfs"), "root: "),
        ("/root", json!(["rootfs", true]), "root: it is a list"),
        ("/process/user", json!([0, 0]), "process.user: it is a list"),
        ("/linux/namespaces/0", json!(["pid"]), "linux.namespaces[0]: it is a list"),
        ("/process/user/uid", json!("root"), "process.user.uid: "),
        ("/process/user/uid", json!(-1), "process.user.uid: "),
        ("/process/user/uid", json!(4_294_967_296_u64), "process.user.uid: "),
        ("/process/args", json!("sh"), "process.args: "),
        ("/process/args/1", json!(7), "process.args[1]: "),
        ("/process/rlimits/0/type", json!("RLIMIT_FOO"), "process.rlimits[0].type: "),
        ("/process/rlimits/0/hard", json!(-1), "process.rlimits[0].hard: "),
        ("/process/execCPUAffinity/initial", json!("a"), "process.execCPUAffinity.initial: "),
        ("/mounts/0/destination", json!(["/"]), "mounts[0].destination: "),
        ("/mounts/0/options", json!("ro"), "mounts[0].options: "),
        ("/hooks/prestart", json!({}), "hooks.prestart: "),
        ("/annotations/a", json!(1), "annotations.a: "),
        ("/linux/namespaces/0/type", json!("net"), "linux.namespaces[0].type: "),
        ("/linux/seccomp/defaultAction", json!("ALLOW"), "linux.seccomp.defaultAction: "),
        ("/linux/seccomp/architectures/0", json!("X86"), "linux.seccomp.architectures[0]: "),
        ("/linux/resources/memory/limit", json!("1g"), "linux.resources.memory.limit: "),
        ("/linux/resources/pids/limit", json!(1.5), "linux.resources.pids.limit: "),
        ("/linux/personality/domain", json!("BSD"), "linux.personality.domain: "),
        ("/linux/memoryPolicy/mode", json!("MPOL_X"), "linux.memoryPolicy.mode: "),
        // Values that no container can have.
        ("/root/path", json!(""), "root.path: it is empty"),
        ("/root/path", json!("a\0b"), "root.path: it contains a NUL"),
        ("/hostname", json!("a".repeat(65)), "hostname: "),
        ("/domainname", json!("a\0"), "domainname: "),
        ("/process/args", json!([]), "process.args: args must not be empty"),
        ("/process/args", json!(null), "process.args: args must not be empty"),
        ("/process/args/2", json!("a\0b"), "process.args[2]: "),
        ("/process/env/0", json!("PATH"), "process.env[0]: `PATH` has no `=`"),
        ("/process/env/1", json!("=x"), "process.env[1]: "),
        ("/process/env/1", json!("A=\0"), "process.env[1]: "),
        ("/process/cwd", json!(""), "process.cwd: Cwd property must not be empty"),
        ("/process/cwd", json!("tmp"), "process.cwd: Cwd must be an absolute path"),
        ("/process/user/uid", json!(4_294_967_295_u32), "process.user.uid: "),
        ("/process/user/gid", json!(4_294_967_295_u32), "process.user.gid: "),
        ("/process/user/additionalGids/1", json!(4_294_967_295_u32), "process.user.additionalGids[1]: "),
        ("/process/user/umask", json!(0o1000), "process.user.umask: "),
        ("/process/consoleSize/width", json!(65536), "process.consoleSize.width: "),
        ("/process/rlimits/0/soft", json!(1025), "process.rlimits[0].soft: "),
        ("/process/rlimits/1/type", json!("RLIMIT_NOFILE"), "process.rlimits[1].type: "),
        ("/process/capabilities/permitted", json!([]), "process.capabilities.effective: CAP_KILL "),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: "),
        ("/process/apparmorProfile", json!("a\nb"), "process.apparmorProfile: "),
        ("/process/selinuxLabel", json!("a\0"), "process.selinuxLabel: "),
        ("/process/scheduler/priority", json!(3), "process.scheduler.priority: "),
        ("/process/scheduler/policy", json!("SCHED_OTHER"), "process.scheduler.runtime: "),
        ("/process/scheduler", json!({ "policy": "SCHED_FIFO", "priority": 100 }), "process.scheduler.priority: "),
        ("/process/scheduler", json!({ "policy": "SCHED_RR" }), "process.scheduler.priority: "),
        ("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 20 }), "process.scheduler.nice: "),
        ("/process/ioPriority/priority", json!(8), "process.ioPriority.priority: "),
        ("/hooks/createRuntime/0/path", json!("a"), "hooks.createRuntime[0].path: "),
        ("/hooks/prestart/0/timeout", json!(0), "hooks.prestart[0].timeout: "),
        ("/hooks/prestart/0/env/0", json!("A"), "hooks.prestart[0].env[0]: "),
        ("/hooks/prestart/0/args/1", json!("\0"), "hooks.prestart[0].args[1]: "),
        ("/mounts/1/destination", json!(""), "mounts[1].destination: "),
        ("/mounts/1/source", json!("/\0"), "mounts[1].source: "),
        ("/mounts/1/options/0", json!("ro\0"), "mounts[1].options[0]: "),
        ("/mounts/1/uidMappings", json!([]), "mounts[1].uidMappings: it is missing"),
        ("/mounts/1/gidMappings/0/size", json!(0), "mounts[1].gidMappings[0].size: "),
        ("/linux/namespaces/-", json!({ "type": "pid" }), "linux.namespaces[8].type: duplicated"),
        ("/linux/namespaces/1/path", json!("proc/1"), "linux.namespaces[1].path: "),
        ("/linux/uidMappings", json!([]), "linux.uidMappings: a new user namespace needs mappings"),
        ("/linux/gidMappings/0/hostID", json!(4_294_967_000_u32), "linux.gidMappings[0].hostID: "),
        (
            "/linux/uidMappings/-",
            json!({ "containerID": 65535, "hostID": 0, "size": 2 }),
            "linux.uidMappings[1].containerID: it lies over another",
        ),
        ("/linux/timeOffsets/realtime", json!({}), "linux.timeOffsets.realtime: "),
        ("/linux/timeOffsets/monotonic/nanosecs", json!(1_000_000_000), "linux.timeOffsets.monotonic.nanosecs: "),
        ("/linux/namespaces/7", json!({ "type": "time", "path": "/proc/1/ns/time" }), "linux.timeOffsets: "),
        ("/linux/sysctl/kernel.panic", json!("1"), "linux.sysctl.kernel.panic: "),
        ("/linux/sysctl/vm.swappiness", json!("1"), "linux.sysctl.vm.swappiness: "),
        ("/linux/sysctl/kernel.hostname", json!("x"), "linux.sysctl.kernel.hostname: "),
        ("/linux/sysctl/kernel~1shm_rmid_forced", json!("1+\n"), "linux.sysctl.kernel/shm_rmid_forced: its value"),
        ("/linux/sysctl/net.a b", json!("1"), "linux.sysctl.net.a b: "),
        ("/linux/sysctl/net.~1..~1..~1kernel", json!("1"), "linux.sysctl.net./../../kernel: "),
        ("/linux/netDevices/a b", json!({}), "linux.netDevices.a b: "),
        ("/linux/netDevices/eth9", json!({ "name": "x".repeat(16) }), "linux.netDevices.eth9.name: "),
        ("/linux/netDevices/eth9", json!({ "name": "eth%s" }), "linux.netDevices.eth9.name: "),
        ("/linux/netDevices/eth9", json!({ "name": "%d%d" }), "linux.netDevices.eth9.name: "),
        ("/linux/devices/0/path", json!("dev/x"), "linux.devices[0].path: "),
        ("/linux/devices/0/type", json!("a"), "linux.devices[0].type: "),
        ("/linux/devices/0/type", json!("x"), "linux.devices[0].type: "),
        ("/linux/devices/0/major", json!(4096), "linux.devices[0].major: "),
        ("/linux/devices/0/minor", json!(-1), "linux.devices[0].minor: "),
        ("/linux/devices/0/fileMode", json!(0o200_000), "linux.devices[0].fileMode: "),
        ("/linux/rootfsPropagation", json!("open"), "linux.rootfsPropagation: "),
        ("/linux/maskedPaths/0", json!("kcore"), "linux.maskedPaths[0]: "),
        ("/linux/readonlyPaths/0", json!("/a\0"), "linux.readonlyPaths[0]: "),
        ("/linux/cgroupsPath", json!("/a\0"), "linux.cgroupsPath: "),
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"), "linux.seccomp.default"),
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_ALLOW"), "linux.seccomp.defaultErrnoRet: "),
        ("/linux/seccomp/syscalls/0/names", json!([]), "linux.seccomp.syscalls[0].names: "),
        ("/linux/seccomp/syscalls/0/errnoRet", json!(1), "linux.seccomp.syscalls[0].errnoRet: "),
        ("/linux/seccomp/syscalls/0/args/0/index", json!(6), "linux.seccomp.syscalls[0].args[0].index: "),
        ("/linux/seccomp/syscalls/1/names/0", json!("write"), "linux.seccomp.syscalls[1].action: "),
        ("/linux/seccomp/listenerPath", json!(""), "linux.seccomp.listenerPath: "),
        ("/linux/resources/devices/1/access", json!("rx"), "linux.resources.devices[1].access: "),
        ("/linux/resources/devices/1/access", json!(""), "linux.resources.devices[1].access: "),
        ("/linux/resources/devices/1/type", json!("p"), "linux.resources.devices[1].type: "),
        ("/linux/resources/devices/1/major", json!(-2), "linux.resources.devices[1].major: "),
        ("/linux/resources/memory/swap", json!(99), "linux.resources.memory.swap: "),
        ("/linux/resources/memory/limit", json!(-2), "linux.resources.memory.limit: "),
        ("/linux/resources/memory/swappiness", json!(201), "linux.resources.memory.swappiness: "),
        ("/linux/resources/cpu/idle", json!(2), "linux.resources.cpu.idle: "),
        ("/linux/resources/cpu/cpus", json!("0\n"), "linux.resources.cpu.cpus: "),
        ("/linux/resources/pids/limit", json!(-2), "linux.resources.pids.limit: "),
        ("/linux/resources/blockIO/weight", json!(9), "linux.resources.blockIO.weight: "),
        (
            "/linux/resources/blockIO/weightDevice/0/weight",
            json!(1001),
            "linux.resources.blockIO.weightDevice[0].weight: ",
        ),
        ("/linux/resources/hugepageLimits/0/pageSize", json!("2"), "linux.resources.hugepageLimits[0].pageSize: "),
        ("/linux/resources/hugepageLimits/1/pageSize", json!("2MB"), "linux.resources.hugepageLimits[1].pageSize: "),
        ("/linux/resources/unified/a~1b", json!("1"), "linux.resources.unified.a/b: "),
        ("/linux/resources/unified/..", json!("1"), "linux.resources.unified..."),
        ("/linux/resources/rdma/a b", json!({}), "linux.resources.rdma.a b: "),
        ("/linux/intelRdt/closID", json!("../x"), "linux.intelRdt.closID: "),
        ("/linux/intelRdt/memBwSchema", json!("L3:0=1"), "linux.intelRdt.memBwSchema: "),
        ("/linux/intelRdt/memBwSchema", json!("MB:0=1\nMB:1=1"), "linux.intelRdt.memBwSchema: "),
        ("/linux/intelRdt/schemata", json!(["a\n"]), "linux.intelRdt.schemata[0]: "),
        ("/linux/memoryPolicy/nodes", json!("a"), "linux.memoryPolicy.nodes: "),
        ("/linux/memoryPolicy/mode", json!("MPOL_LOCAL"), "linux.memoryPolicy.nodes: "),
        ("/linux/memoryPolicy/flags/-", json!("MPOL_F_RELATIVE_NODES"), "linux.memoryPolicy.flags: "),
        ("/annotations/io.fumehood.profil", json!("x"), "annotations.io.fumehood.profil: "),
    ];
    for (pointer, value, at) in rules {
        match with(pointer, Some(value.clone())) {
            Ok(_) => panic!("{pointer} = {value} is taken"),
            Err(error) => assert!(error.starts_with(at), "{pointer} = {value}: {error}"),
        }
    }
}

#[test]
fn what_needs_a_namespace_is_refused_without_it() {
    let without = |kind: &str| {
        let mut document = whole();
        let namespaces = document.pointer_mut("/linux/namespaces").unwrap().as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        read_value(&document).unwrap_err()
    };
    assert_eq!(without("uts"), "hostname: unable to set hostname without a private UTS namespace");
    assert!(without("mount").starts_with("linux.maskedPaths: "));
    assert!(without("user").starts_with("linux.uidMappings: "));
    assert!(without("time").starts_with("linux.timeOffsets: "));
    assert!(without("ipc").starts_with("linux.sysctl.kernel.sem: "));
    assert!(without("network").starts_with("linux."));
}

#[test]
fn a_map_that_is_too_long_is_refused_before_it_is_written_anywhere() {
    let map: Vec<Value> = (0..5000).map(|n| json!({ "containerID": n, "hostID": 100_000 + n, "size": 1 })).collect();
    let error = with("/linux/uidMappings", Some(map.into())).unwrap_err();
    assert_eq!(error, "linux.uidMappings: there are 5000, and the kernel takes 340");
}

#[test]
fn what_is_not_known_of_capabilities_is_left_out_and_said() {
    let container = with("/process/capabilities/bounding", Some(json!(["CAP_KILL", "CAP_TELEPORT"]))).unwrap();
    assert_eq!(
        container.spec.process().as_ref().unwrap().capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(),
        1
    );
    assert_eq!(container.warnings, [r#"process.capabilities.bounding: "CAP_TELEPORT" is not known and is left out"#]);
    assert!(
        with("/process/capabilities/bounding", Some(json!([1])))
            .unwrap_err()
            .starts_with("process.capabilities.bounding[0]: ")
    );
    with("/process/scheduler/flags", Some(json!(["SCHED_FLAG_DL_OVERRUN", "SCHED_RESET_ON_FORK"]))).unwrap();
}

#[test]
fn what_is_deprecated_is_taken_with_a_warning() {
    let container = with("/mounts/0/destination", Some(json!("proc"))).unwrap();
    assert!(container.warnings[0].starts_with("mounts[0].destination: "), "{:?}", container.warnings);
}

#[test]
fn documents_that_are_none_are_refused() {
    let error = |text: &[u8]| parse(text.into()).map(drop).unwrap_err().to_string();
    for text in ["", "{", "[]", "null", "true", "\"x\"", "{}x", "\0", "{\"ociVersion\":\"1.0.0\",}"] {
        let error = error(text.as_bytes());
        assert!(error.contains(": "), "{text}: {error}");
    }
    for text in [&b"{\"ociVersion\":\"1.0.0\xff\"}"[..], b"{\"ociVersion\":\"1.0.0\",\"x\":\"\xff\"}"] {
        assert!(error(text).starts_with("config.json: invalid utf-8"), "{}", error(text));
    }
    let whole = serde_json::to_vec(&whole()).unwrap();
    for length in (0..whole.len()).step_by(7) {
        assert!(parse(whole[..length].into()).is_err(), "cut off at {length}");
    }
    let huge = vec![b' '; LARGEST.get() as usize + 1];
    assert_eq!(error(&huge), "config.json: it is larger than 4m");
    let deep = |name: &str, depth: usize| {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!("{{\"ociVersion\":\"1.0.0\",\"root\":{{\"path\":\"r\"}},\"{name}\":{nested}}}")
    };
    for depth in [200, 100_000] {
        assert!(error(deep("unknown", depth).as_bytes()).contains("nested deeper than 128"), "{depth}");
        error(deep("linux", depth).as_bytes());
    }
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let error = |text: &str| parse(text.as_bytes().into()).map(drop).unwrap_err().to_string();
    let document = |middle: &str| format!(r#"{{"ociVersion":"1.0.0","root":{{"path":"r"}},{middle}}}"#);
    assert_eq!(error(&document(r#""root":{"path":"s"}"#)), "root: it is there twice");
    let error_of = |middle: &str| error(&document(middle));
    assert_eq!(error_of(r#""annotations":{"a":"1","a":"2"}"#), "annotations.a: it is there twice");
    assert_eq!(error_of(r#""linux":{"sysctl":{"net.a":"1","net.a":"2"}}"#), "linux.sysctl.net.a: it is there twice");
    assert_eq!(error_of(r#""x":[{"y":1,"y":1}]"#), "x[0].y: it is there twice");
    assert_eq!(error_of(r#""process":{"cwd":"/","cwd":"/"}"#), "process.cwd: it is there twice");
}

#[test]
fn a_process_alone_is_held_to_the_same_rules() {
    let mut warnings = Vec::new();
    let process = json!({ "args": ["x"], "cwd": "/", "user": { "uid": 1, "gid": 2 },
                          "capabilities": { "bounding": ["CAP_NEW"] } });
    let process = parse_process(&serde_json::to_vec(&process).unwrap(), &mut warnings).unwrap();
    assert_eq!((process.user().uid(), process.user().gid(), warnings.len()), (1, 2, 1));
    let error = |text: &str| parse_process(text.as_bytes(), &mut Vec::new()).unwrap_err().to_string();
    assert!(error(r#"{"args":["x"],"cwd":"x","user":{}}"#).starts_with("process.cwd: "));
    assert!(error(r#"{"args":["x"],"cwd":"/","user":{},"user":{}}"#).contains("twice"));
    assert!(error("[]").starts_with("process: "));
}

#[test]
fn the_root_is_looked_for() {
    let bundle = tempfile::tempdir().unwrap();
    let container = read_value(&whole()).unwrap();
    let missing = container.rootfs(bundle.path()).unwrap_err().to_string();
    assert!(missing.starts_with("root.path: `") && missing.contains("No such file or directory"), "{missing}");
    std::fs::write(bundle.path().join("rootfs"), "").unwrap();
    assert!(container.rootfs(bundle.path()).unwrap_err().to_string().contains("Not a directory"));
    std::fs::remove_file(bundle.path().join("rootfs")).unwrap();
    std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
    assert!(container.rootfs(bundle.path()).unwrap().is_absolute());
}

#[test]
fn files_that_are_no_documents_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| load(path).map(drop).unwrap_err().to_string();
    assert!(error(&dir.path().join("config.json")).contains("No such file or directory"));
    assert!(error(dir.path()).contains("it is a directory"));
    assert!(error(Path::new("/dev/zero")).contains("it is not a regular file"));
}

#[test]
fn a_joined_network_that_is_the_hosts_has_no_sysctls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let mut document = whole();
    document["linux"]["namespaces"][1]["path"] = "/proc/self/ns/net".into();
    std::fs::write(&path, document.to_string()).unwrap();
    let error = load(&path).map(drop).unwrap_err().to_string();
    assert!(error.contains("not allowed in host network namespace"), "{error}");
    document["linux"]["namespaces"][1]["path"] = "/no/such".into();
    std::fs::write(&path, document.to_string()).unwrap();
    assert!(load(&path).map(drop).unwrap_err().to_string().contains("invalid netns path"));
}
