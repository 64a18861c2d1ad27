//! `spec`: a config.json to begin with.

use std::{fs::File, io::Write, path::PathBuf, process::ExitCode};

use fumehood::{
    Error, Result,
    spec::container::{
        TEMPLATE as SPEC,
        template::{rootless, without_cgroup_namespace},
    },
};

use super::{Context, flags::Given};

const NAME: &str = "config.json";

pub fn run(_: &Context, given: &Given) -> Result<ExitCode> {
    let v2 = fumehood::cgroup::container::Layout::detect().is_v2();
    let path = given.path("bundle").unwrap_or_else(|| PathBuf::from(".")).join(NAME);
    let text = match given.is_on("rootless") {
        true => rootless(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
        false => SPEC.to_owned(),
    };
    let text = if v2 { text } else { without_cgroup_namespace(&text) };
    let written =
        File::options().write(true).create_new(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::new(format!("File {} exists. Remove it first", path.display())))
        }
        Err(error) => Err(Error::new(format!("write {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use fumehood::spec::container::parse;

    use super::*;

    #[test]
    fn both_are_sound() {
        let spec = parse(SPEC.as_bytes().into()).unwrap();
        assert_eq!(spec.warnings, [""; 0]);
        assert_eq!(spec.spec.version(), super::super::SPEC_VERSION);
        let kinds = |text: &str| {
            let spec = parse(text.as_bytes().into()).unwrap_or_else(|error| panic!("{error}: {text}")).spec;
            let linux = spec.linux().as_ref().unwrap();
            linux.namespaces().iter().flatten().map(|n| n.typ().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&without_cgroup_namespace(SPEC)), ["pid", "net", "ipc", "uts", "mnt"]);
        let text = rootless(1000, 1001);
        let spec = parse(text.as_bytes().into()).unwrap_or_else(|error| panic!("{error}: {text}")).spec;
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.resources().is_none());
        let map = |maps: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| maps.as_ref().unwrap()[0].host_id();
        assert_eq!((map(linux.uid_mappings()), map(linux.gid_mappings())), (1000, 1001));
        assert_eq!(kinds(&text), ["pid", "user", "ipc", "uts", "mnt", "cgroup"]);
        assert_eq!(kinds(&without_cgroup_namespace(&text)), ["pid", "user", "ipc", "uts", "mnt"]);
        let mounts = spec.mounts().as_ref().unwrap();
        let sys = mounts.iter().find(|mount| mount.destination() == std::path::Path::new("/sys")).unwrap();
        assert_eq!(sys.options().as_ref().unwrap()[0], "rbind");
        assert_eq!(mounts.len(), 7);
        assert!(!text.contains("gid=5"));
    }
}
