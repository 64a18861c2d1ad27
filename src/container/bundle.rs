//! What a container is made from, for `create` and `restore`: read whole, and its place made.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::runtime as oci;

use super::{
    Driver, Egress, Undo, die_at,
    guest::{self, Isolation},
    io,
};
use crate::{
    Result,
    cgroup::container::{Group, Layout, Place, Want, resctrl},
    error::Hint,
    host::Host,
    plan::{
        container::{self as plan, CgroupTree, Circumstances},
        seccomp::KernelVersion,
    },
    spec::container as spec,
    state::{
        container::{Record, now},
        root::{ContainerId, Lock, StateRoot},
    },
};

/// A bundle, with all that follows from it on this host; nothing is made yet.
pub(super) struct Bundle {
    path: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) spec: oci::Spec,
    bytes: Arc<[u8]>,
    pub(super) controls: spec::Controls,
    pub(super) plan: plan::Plan,
    pub(super) host: Host,
    layout: Layout,
    warnings: Vec<String>,
}

impl Bundle {
    pub(super) fn read(
        path: &Path,
        config: Option<&Path>,
        pivot: bool,
        egress: &Egress,
        (id, isolation): (&ContainerId, Isolation),
    ) -> Result<Self> {
        let path = std::fs::canonicalize(path).map_err(io("open bundle", path))?;
        let config = config.map_or_else(|| path.join("config.json"), Path::to_owned);
        let container = spec::load(&config).map_err(Hint::into_error)?;
        let rootfs = container.rootfs(&path).map_err(Hint::into_error)?;
        let spec::Container { spec, bytes, mut controls, warnings } = container;
        egress.hold_for(&mut controls)?;
        let (host, layout) = (Host::probe(), Layout::detect());
        let gvisor = guest::find(&controls, isolation)?;
        let around = Circumstances {
            gvisor: gvisor.as_ref().map(|gvisor| plan::gvisor::Wanted { gvisor, id: id.as_str() }),
            ..circumstances(&path, &host, &layout, pivot)
        };
        let plan = plan::make(&spec, &controls, &around).map_err(Hint::into_error)?;
        Ok(Self { path, rootfs, spec, bytes, controls, plan, host, layout, warnings })
    }

    /// What the specification wants passed over, and said.
    pub(super) fn warn(&self, warn: fn(&str)) {
        self.warnings.iter().for_each(|warning| warn(warning));
    }

    fn linux(&self) -> Result<&oci::Linux> {
        plan::linux(&self.spec).map_err(Hint::into_error)
    }

    pub(super) fn place(&self, driver: Driver, id: &ContainerId, rootless: bool) -> Result<Place> {
        let path = self.linux()?.cgroups_path().as_deref();
        Place::decide(&self.layout, driver, path, id.as_str(), rootless).map_err(Hint::into_error)
    }

    /// Its shares of cache and memory bandwidth.
    pub(super) fn shares(&self, id: &ContainerId) -> Result<Option<resctrl::Wanted>> {
        let rdt = self.linux()?.intel_rdt().as_ref();
        rdt.map(|rdt| resctrl::Wanted::decide(rdt, id.as_str())).transpose().map_err(Hint::into_error)
    }

    pub(super) fn record(&self, id: &ContainerId, place: &Place, rootless: bool, keyring: bool) -> Record {
        Record {
            oci_version: self.spec.version().clone(),
            id: id.to_string(),
            rootfs: self.rootfs.clone(),
            bundle: self.path.clone(),
            created: now(),
            owner: nix::unistd::geteuid().as_raw(),
            annotations: self.spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            init: None,
            started: false,
            cgroup: Some(place.record().clone()),
            resctrl: None,
            egress: None,
            pid_namespace_own: self.plan.namespaces.new & libc::CLONE_NEWPID != 0,
            user_namespace: self.plan.namespaces.has(libc::CLONE_NEWUSER),
            rootless,
            keyring,
            gvisor: self.plan.gvisor.as_ref().map(|guest| guest.name.clone()),
        }
    }

    /// Makes the state directory and the groups, each recorded before it is made; [`Self::complete`] does the rest.
    pub(super) fn establish(
        &self,
        root: &StateRoot,
        id: &ContainerId,
        place: &Place,
        shares: Option<&resctrl::Wanted>,
        record: &Record,
    ) -> Result<(Undo<'_>, Lock)> {
        let dir = root.create(id).map_err(Hint::into_error)?;
        let mut undo = Undo {
            dir: Some(dir),
            group: RefCell::new(None),
            resctrl: None,
            hooks: self.plan.hooks.poststop().as_ref(),
            record: None,
        };
        let dir = undo.dir()?;
        let lock = dir.lock().map_err(Hint::into_error)?;
        die_at("named");
        dir.save(record).map_err(Hint::into_error)?;
        die_at("announced");
        let want = Want {
            resources: self.linux()?.resources().as_ref(),
            owner: plan::cgroup_owner(&self.spec, &self.plan.namespaces, self.plan.ids.as_ref()),
            annotations: self.spec.annotations().as_ref(),
            devices_later: true,
            ..Want::default()
        };
        let group = Group::create(place, &want).map_err(Hint::into_error)?;
        undo.group.replace(Some(group));
        if let Some(shares) = shares {
            shares.make().map_err(Hint::into_error)?;
            undo.resctrl = Some(shares.place().clone());
        }
        die_at("grouped");
        undo.record = Some(record.clone());
        Ok((undo, lock))
    }

    /// What has to be there before its program runs and can be made while the container is.
    pub(super) fn complete(&self, undo: &Undo<'_>) -> Result<()> {
        undo.dir()?.write_config(&self.bytes).map_err(Hint::into_error)?;
        undo.group.borrow().as_ref().map_or(Ok(()), Group::guard_devices).map_err(Hint::into_error)
    }
}

/// What a plan follows from, beside the bundle.
pub(super) fn circumstances<'a>(bundle: &'a Path, host: &Host, layout: &Layout, pivot: bool) -> Circumstances<'a> {
    Circumstances {
        bundle,
        kernel: KernelVersion(host.kernel.major, host.kernel.minor),
        landlock_abi: host.landlock_abi,
        rootless: !host.privileged,
        nested_users: !host.initial_user_namespace,
        cgroup: match (layout.is_v2(), layout.is_v1()) {
            (true, _) => CgroupTree::V2,
            (_, true) => CgroupTree::V1,
            _ => CgroupTree::None,
        },
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        pivot,
        gvisor: None,
    }
}
