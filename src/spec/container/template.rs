//! The config.json to begin with, byte for byte as runc writes its own, and what becomes of it for whom.

use super::TEMPLATE as SPEC;

/// As runc writes it for hosts with v1 trees.
#[must_use]
pub fn without_cgroup_namespace(text: &str) -> String {
    text.replace(",\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}", "")
}

/// What an ordinary user can have: one id, the host's network and /sys, no control group.
#[must_use]
pub fn rootless(uid: u32, gid: u32) -> String {
    let part = |from: &str, to: &str| {
        let start = SPEC.find(from).unwrap_or_default();
        let length = SPEC[start..].find(to).map_or(0, |at| at + to.len());
        &SPEC[start..start + length]
    };
    let mapping = |host: u32| {
        format!(
            "[\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {host},\n\t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t]"
        )
    };
    let maps =
        format!("\"linux\": {{\n\t\t\"uidMappings\": {},\n\t\t\"gidMappings\": {},\n", mapping(uid), mapping(gid));
    let sys = part("\"destination\": \"/sys\",", "\t\t}");
    let bound = "\"destination\": \"/sys\",\n\t\t\t\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": \
                 [\n\t\t\t\t\"rbind\",\n\t\t\t\t\"nosuid\",\n\t\t\t\t\"noexec\",\n\t\t\t\t\"nodev\",\n\t\t\t\t\"ro\"\
                 \n\t\t\t]\n\t\t}";
    SPEC.replace(part("\t\t\"resources\": {", "\n\t\t},\n"), "")
        .replace("\"linux\": {\n", &maps)
        .replace("\"type\": \"network\"", "\"type\": \"user\"")
        .replace("\"mode=0620\",\n\t\t\t\t\"gid=5\"", "\"mode=0620\"")
        .replace(sys, bound)
}
