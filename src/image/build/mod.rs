//! Images from recipes.
//!
//! A recipe is a chain of steps, each a layer: the base, files, packages, a setup script. A layer is known by all that
//! went into it and into those below it, so what was made before is taken from the store; and it is written so that the
//! same entries are the same bytes. What runs to make one runs in a sandbox, mmdebstrap apart.

mod apt;
pub mod builtin;
mod contents;
mod debian;
mod error;
mod host;
mod mirror;
pub mod recipe;
mod setup;

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use serde_json::json;

use super::{
    Image, Reference,
    append::{self, Changes, Story, append},
    digest::Digest,
    epoch::source_date_epoch,
    manifest::Wanted,
    pack::{Compression, NewLayer, keep},
    ready::Ready,
    store::Store,
};
use crate::{
    packages::{Index, Job, Manager, Shape},
    sys,
};
use contents::{Contents, Kind, Node, Taken};
pub use error::{BuildError, Result};
pub use mirror::{Mirror, MirrorError};
pub use recipe::Recipe;
use recipe::{Access, Base, Given, What};
use setup::Script;

/// Goes into what every layer is known by: changed when the same recipe would make another layer.
const FORMAT: u32 = 1;
/// The time of all files, unless SOURCE_DATE_EPOCH says otherwise: the beginning of 2025. At 0 zip archives cannot be
/// made of them.
const EPOCH: i64 = 1_735_689_600;

/// How it is built.
#[derive(Debug)]
pub struct Build<'a> {
    pub recipe: &'a Recipe,
    /// What its files are relative to; a recipe that is built in has none.
    pub dir: Option<&'a Path>,
    /// In place of the recipe's own name.
    pub tags: &'a [Reference],
    /// Makes every layer anew.
    pub again: bool,
    /// In place of the recipe's own.
    pub mirror: Option<&'a Mirror>,
    /// In place of where this host's package managers look.
    pub index: Option<&'a Index>,
    /// Of all files, in seconds since 1970.
    pub epoch: i64,
}

/// Who is told how it goes on.
pub trait Watch: Sync {
    /// A layer is begun, or was there.
    fn step(&self, _what: &str, _there: bool) {}
    /// What makes it has the host's network.
    fn network(&self, _what: &str) {}
    /// What it says.
    fn output(&self, _text: &str) {}
    /// More bytes of what is being made.
    fn bytes(&self, _count: u64) {}
}

/// An image that was built, or was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    pub digest: Digest,
    pub names: Vec<String>,
    /// Nothing had to be made.
    pub unchanged: bool,
    pub steps: Vec<Step>,
}

/// A layer of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub what: String,
    pub digest: Digest,
    pub packed_bytes: u64,
    pub unchanged: bool,
}

/// The time that files get: $SOURCE_DATE_EPOCH, or always the same.
pub fn epoch() -> Result<i64> {
    Ok(source_date_epoch()?.unwrap_or(EPOCH))
}

pub fn build(store: &Store, build: &Build<'_>, watch: &dyn Watch) -> Result<Done> {
    let recipe = build.recipe;
    let own = recipe.name.iter().map(|name| &name.0);
    let names: Vec<String> = match build.tags {
        [] => own.map(ToString::to_string).collect(),
        tags => tags.iter().map(ToString::to_string).collect(),
    };
    if names.is_empty() {
        return Err(BuildError::Nameless);
    }
    let mut building = Building::begin(store, build, watch)?;
    let host: Vec<_> = recipe.host().collect();
    if !host.is_empty() {
        let contents = host::take(host.into_iter())?;
        building.contents("host", contents)?;
    }
    let apt = recipe.apt();
    if matches!(recipe.base, Base::Image(_)) && !apt.is_empty() {
        building.apt(&apt)?;
    }
    if !recipe.files.is_empty() {
        building.files()?;
    }
    building.packages(Manager::Pip, &recipe.pip())?;
    building.packages(Manager::Npm, &recipe.npm())?;
    if let Some((script, network)) = recipe.setup() {
        building.setup(script, network)?;
    }
    let what = format!("recipe {}", names[0]);
    let digest = append(store, &building.base(), None, &changes(recipe), &building.story(&what))?.digest;
    let before = names.iter().all(|name| matches!(store.name(name), Ok(Some(named)) if named.manifest == digest));
    for name in names.iter().filter(|_| !before) {
        store.set_name(name, &digest)?;
    }
    let unchanged = before && building.steps.iter().all(|step| step.unchanged);
    Ok(Done { digest, names, unchanged, steps: building.steps })
}

struct Building<'a> {
    store: &'a Store,
    build: &'a Build<'a>,
    watch: &'a dyn Watch,
    platform: Wanted,
    /// As far as it is made.
    image: Option<Image>,
    /// What the next layer stands on.
    chain: Digest,
    steps: Vec<Step>,
}

impl<'a> Building<'a> {
    fn begin(store: &'a Store, build: &'a Build<'a>, watch: &'a dyn Watch) -> Result<Self> {
        let platform = build.recipe.platform().unwrap_or_else(Wanted::here);
        let image = match &build.recipe.base {
            Base::Image(name) => Some(Image::find(store, name)?),
            Base::Scratch | Base::Debian { .. } => None,
        };
        // The whole image and not its layers alone: setup runs with its variables and volumes.
        let below = image.as_ref().map_or_else(|| platform.to_string(), |image| image.digest.to_string());
        let chain = Digest::of(json!([FORMAT, build.epoch, below]).to_string().as_bytes());
        let debian = build.recipe.debian(build.mirror, &platform.architecture);
        let mut building = Self { store, build, watch, platform, image, chain, steps: Vec::new() };
        if let Some(debian) = debian {
            let what = format!("debian:{}", debian.suite);
            let make = |_: &Building<'_>| debian::make(store, &debian, build.epoch, &|bytes| watch.bytes(bytes));
            building.layer(&what, &json!({ "debian": debian }), make)?;
        }
        Ok(building)
    }

    /// The layer that `of` makes here: as it was made before, or made now.
    fn layer(&mut self, what: &str, of: &serde_json::Value, make: impl FnOnce(&Self) -> Result<NewLayer>) -> Result {
        let key = Digest::of(json!([self.chain, of]).to_string().as_bytes());
        let known = if self.build.again { None } else { self.store.built(&key)? };
        self.watch.step(what, known.is_some());
        let unchanged = known.is_some();
        let built = match known {
            Some(built) => built,
            None => {
                let built = make(self)?;
                self.store.set_built(&key, &built)?;
                built
            }
        };
        let done = append(self.store, &self.base(), Some(&built), &Changes::default(), &self.story(what))?;
        self.image = Some(done);
        // Not what it was to be made of: packages may be others today.
        self.chain = Digest::of(json!([self.chain, built.diff_id]).to_string().as_bytes());
        self.steps.push(Step { what: what.to_owned(), digest: built.digest, packed_bytes: built.size, unchanged });
        Ok(())
    }

    fn contents(&mut self, what: &str, contents: Contents) -> Result {
        let of = json!({ "contents": contents.digest() });
        self.layer(what, &of, |building| building.pack(&contents))
    }

    fn base(&self) -> append::Base<'_> {
        self.image.as_ref().map_or_else(|| append::Base::Scratch(self.platform.clone()), append::Base::Image)
    }

    fn story(&self, what: &str) -> Story {
        Story { created: self.build.epoch, by: format!("fumehood image build: {what}"), ..Story::default() }
    }

    fn pack(&self, contents: &Contents) -> Result<NewLayer> {
        Ok(keep(self.store, Compression::Gzip, |to| contents.write(to, self.build.epoch.unsigned_abs()))?.0)
    }

    /// What is there so far, unpacked; nothing, where nothing is.
    fn root(&self) -> Result<Option<Ready>> {
        let ready = |image: &Image| Ready::of(self.store, image, &|bytes| self.watch.bytes(bytes));
        Ok(self.image.as_ref().map(ready).transpose()?)
    }

    /// Installed on the host's side of the tree, into a directory of their own: the tree below is only read.
    fn packages(&mut self, manager: Manager, packages: &[String]) -> Result {
        if packages.is_empty() {
            return Ok(());
        }
        let index = self.build.index.map(|index| match index {
            Index::Url(url) => url.clone(),
            Index::Dir(dir) => dir.display().to_string(),
        });
        let what = format!("{} {}", manager.name(), packages.join(" "));
        let of = json!({"manager": manager, "packages": packages, "index": index});
        self.layer(&what, &of, |building| {
            let root = building.root()?.map(Arc::new);
            let workshop = building.store.workshop()?;
            let dir = |name: &str| {
                let path = workshop.path().join(name);
                std::fs::create_dir(&path).map_err(BuildError::io("make", path.clone())).map(|()| path)
            };
            let (into, scratch) = (dir("out")?, dir("scratch")?);
            let job = Job {
                manager,
                program: None,
                packages,
                index: building.build.index,
                image: root.clone(),
                shape: Shape::System,
                into: &into,
                scratch: &scratch,
            };
            job.run(&mut |text| building.watch.output(text))?;
            let mut found = Contents::default();
            found.take_inside(&into, Taken::CLEAN)?;
            let mut all = Contents::default();
            all.settle(found, root.as_deref(), false)?;
            building.pack(&all)
        })
    }

    fn setup(&mut self, script: &str, network: Access) -> Result {
        let env: Vec<_> = self.build.recipe.env.iter().map(|(name, value)| (&name.0, &value.0)).collect();
        let of = json!({"setup": script, "network": network, "env": env});
        self.layer("setup", &of, |building| {
            let root = building.root()?.ok_or(BuildError::NothingToSetUp)?;
            if network == Access::Host {
                building.watch.network("setup");
            }
            let env = &building.build.recipe.env;
            let script = Script { what: "setup", text: script, network, installs: false, env };
            setup::run(building.store, Arc::new(root), building.build, script, building.watch)
        })
    }

    /// By the image's own apt, in a sandbox; of `debian:SUITE` they are of the base.
    fn apt(&mut self, packages: &[String]) -> Result {
        let mirror = self.build.recipe.mirror(self.build.mirror);
        let of = json!({"apt": packages, "mirror": mirror});
        let packages = packages.join(" ");
        self.layer(&format!("apt {packages}"), &of, |building| {
            let root = building.root()?.filter(|root| root.has_program("apt-get"));
            let root = root.ok_or_else(|| BuildError::NoApt { packages: packages.clone() })?;
            let text = apt::script(&packages, mirror);
            let env = BTreeMap::new();
            let script = Script { what: "apt", text: &text, network: Access::Packages, installs: true, env: &env };
            setup::run(building.store, Arc::new(root), building.build, script, building.watch)
        })
    }

    fn files(&mut self) -> Result {
        let mut given = Vec::new();
        for file in &self.build.recipe.files {
            given.push((file, self.given(file)?));
        }
        let parts: Vec<_> = given.iter().map(|(file, contents)| json!([file.to, contents.digest()])).collect();
        self.layer("files", &json!({ "files": parts }), |building| {
            let root = building.root()?;
            let mut all = Contents::default();
            for (file, contents) in given {
                // A directory that is named stays as it is described; one that comes with what is in it is that of
                // the base.
                all.settle(contents, root.as_ref(), file.what == What::Dir)?;
            }
            building.pack(&all)
        })
    }

    fn given(&self, file: &Given) -> Result<Contents> {
        let mut contents = Contents::default();
        let node = |mode: u32, kind: Kind| Node { mode: file.mode.unwrap_or(mode), owner: file.owner, kind };
        match &file.what {
            What::Host(path) => {
                let dir = self.build.dir.ok_or_else(|| BuildError::NoFiles { path: path.clone() })?;
                let found = beneath(dir, path)?;
                let taken = Taken { mode: file.mode, owner: file.owner, clean: false };
                contents.take(&found, &file.to, taken)?;
            }
            What::Text(text) => contents.add(&file.to, node(0o644, Kind::Bytes(text.clone().into_bytes())))?,
            What::Link(to) => contents.add(&file.to, Node { mode: 0o777, ..node(0, Kind::Link(to.clone())) })?,
            What::Dir => contents.add(&file.to, node(0o755, Kind::Dir))?,
        }
        Ok(contents)
    }
}

/// Where `path` leads, which is nowhere but in the recipe's directory: a recipe may come from anywhere, as the tree around
/// it does, and what it takes can be sent away by its setup script.
fn beneath(dir: &Path, path: &Path) -> Result<PathBuf> {
    let shown = dir.join(path);
    let failed = |errno: sys::Errno| BuildError::io("find", shown.clone())(errno.into());
    let opened = File::open(dir).map_err(BuildError::io("open", dir))?;
    let named = CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(sys::Errno::EINVAL))?;
    let found = sys::fs::open_in(opened.as_fd(), &named, libc::O_PATH, 0, sys::fs::LINKS_BENEATH);
    let found = found.map_err(|errno| match errno {
        sys::Errno::EXDEV => BuildError::Outside { path: path.to_owned(), dir: dir.to_owned() },
        errno => failed(errno),
    })?;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(BuildError::io("find", shown.clone()))
}

/// What the recipe says of how it is run.
fn changes(recipe: &Recipe) -> Changes {
    Changes {
        env: recipe.env.iter().map(|(name, value)| (name.0.clone(), value.0.clone())).collect(),
        entrypoint: recipe.entrypoint.clone(),
        cmd: recipe.cmd.clone(),
        workdir: recipe.workdir.as_ref().map(|dir| dir.0.display().to_string()),
        user: recipe.user.as_ref().map(|user| user.0.clone()),
        labels: recipe.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        exposed_ports: recipe.expose.iter().map(|port| port.0.clone()).collect(),
        volumes: recipe.volumes.iter().map(|volume| volume.0.display().to_string()).collect(),
        stop_signal: recipe.stop_signal.as_ref().map(|signal| signal.0.clone()),
    }
}
