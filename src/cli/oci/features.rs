//! `features`: what this runtime can do, in the specification's form (features.md). dockerd believes what it says of
//! idmapped mounts, so it says what is so.

use std::process::ExitCode;

use fumehood::{
    Result,
    criu::Criu,
    host::Host,
    plan::container::{options, process::CAPABILITIES},
    spec::container::CONTROLS_PREFIX,
};
use serde_json::{Value, json};

use super::{Context, SPEC_VERSION, flags::Given, print_json};

const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
/// Every one that a filter may name; those that this machine has not are passed over. `SCMP_ARCH_NATIVE`, which it may
/// name too, is none of the schema's.
const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];
const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];
/// Each with the kernel that has it.
const FILTER_FLAGS: [(&str, (u32, u32)); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", (4, 14)),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", (4, 17)),
    ("SECCOMP_FILTER_FLAG_TSYNC", (3, 17)),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", (5, 19)),
];
const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];
/// Those of our own annotations that are carried out.
const CONTROLS: &str = "egress,isolation,landlock,profile,seccomp,timeout";

pub fn run(context: &Context, _: &Given) -> Result<ExitCode> {
    let host = Host::probe();
    // Whoever cannot run it with the host's rights has no use for it.
    let root = host.privileged && host.initial_user_namespace;
    let criu = root && Criu::find(context.criu.as_deref()).and_then(Criu::check).is_ok();
    print_json(&features(&host, criu), true)
}

fn features(host: &Host, criu: bool) -> Value {
    let mut mount_options: Vec<&str> = options::names().collect();
    mount_options.sort_unstable();
    mount_options.dedup();
    let mut capabilities: Vec<String> = CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    capabilities.sort_unstable();
    let kernel = (host.kernel.major, host.kernel.minor);
    let has = |since: (u32, u32)| kernel >= since;
    let flags = FILTER_FLAGS.map(|(name, _)| name);
    let supported: Vec<&str> = FILTER_FLAGS.iter().filter(|(_, since)| has(*since)).map(|(name, _)| *name).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": HOOKS,
        "mountOptions": mount_options,
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": ARCHITECTURES,
                "knownFlags": flags,
                "supportedFlags": supported,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": MEMORY_MODES, "flags": MEMORY_FLAGS },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "io.fumehood.version": env!("CARGO_PKG_VERSION"),
            "io.fumehood.controls": CONTROLS,
            "org.opencontainers.runc.checkpoint.enabled": criu.to_string(),
        },
        "potentiallyUnsafeConfigAnnotations": [CONTROLS_PREFIX, "org.systemd.property."],
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime as oci;

    use super::*;

    /// A document that uses what is listed is taken: the lists are no wishes.
    #[test]
    fn what_is_listed_is_taken_from_a_specification() {
        fn all<T: serde::de::DeserializeOwned>(names: &[&str]) {
            for name in names {
                serde_json::from_value::<T>(Value::from(*name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
        all::<oci::LinuxNamespaceType>(&NAMESPACES);
        all::<oci::LinuxSeccompAction>(&ACTIONS);
        all::<oci::Arch>(&ARCHITECTURES);
        all::<oci::LinuxSeccompOperator>(&OPERATORS);
        all::<oci::LinuxSeccompFilterFlag>(&FILTER_FLAGS.map(|(name, _)| name));
        all::<oci::MemoryPolicyModeType>(&MEMORY_MODES);
        all::<oci::MemoryPolicyFlagType>(&MEMORY_FLAGS);
        let capabilities: Vec<String> = CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
        all::<oci::Capability>(&capabilities.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn it_is_a_document_of_the_specification() {
        let features = features(&Host::probe(), false);
        let read: oci::Features = serde_json::from_value(features.clone()).unwrap();
        assert_eq!(read.oci_version_min(), "1.0.0");
        assert_eq!(read.hooks().as_ref().unwrap().len(), 6);
        // What dockerd asks before it lets an idmapped mount through.
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        let options = features["mountOptions"].as_array().unwrap();
        assert!(
            ["ro", "rro", "rbind", "nosymfollow", "tmpcopyup", "idmap"].iter().all(|o| options.contains(&json!(o)))
        );
    }
}
