//! The setup script: run in a sandbox on what is there so far, as root of its own, and what it changed is the layer. What
//! it writes is on the disk, beside the store, until it is packed.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use super::{Build, BuildError, Result, Watch, recipe::Access};
use crate::{
    Observer, Sandbox, Verdict,
    error::Hint,
    image::{
        Ready,
        pack::{Compression, NewLayer, Options, Source, keep},
        store::Store,
    },
    packages::{self, Registries},
    report::Stream,
    request::{Mount, Rootfs, User},
};

/// Where Debian's packages come from unless a mirror is named.
const DEBIAN: [&str; 2] = ["http://deb.debian.org", "http://security.debian.org"];
/// In the sandbox, on no layer.
const SCRIPT: &str = "/fumehood/setup";
/// What is written there goes with the sandbox.
const CACHE: &str = "/tmp/cache";

pub fn run(
    store: &Store,
    root: Arc<Ready>,
    build: &Build<'_>,
    (script, network): (&str, Access),
    watch: &dyn Watch,
) -> Result<NewLayer> {
    let workshop = store.workshop()?;
    let (disk, file) = (workshop.path().join("disk"), workshop.path().join("script"));
    fs::create_dir(&disk).map_err(BuildError::io("make", &disk))?;
    fs::write(&file, script).map_err(BuildError::io("write", &file))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).map_err(BuildError::io("write", &file))?;

    let mut sandbox = match script.starts_with("#!") {
        true => Sandbox::command(SCRIPT),
        false => Sandbox::command("/bin/sh"),
    };
    if !script.starts_with("#!") {
        sandbox.args(["-eu", SCRIPT]);
    }
    let epoch = build.epoch.to_string();
    for (name, value) in [("SOURCE_DATE_EPOCH", epoch.as_str()), ("XDG_CACHE_HOME", CACHE), ("npm_config_cache", CACHE)]
    {
        sandbox.env(name, value);
    }
    sandbox.env("PIP_NO_CACHE_DIR", "1").env("PYTHONDONTWRITEBYTECODE", "1").env("DEBIAN_FRONTEND", "noninteractive");
    for (name, value) in &build.recipe.env {
        sandbox.env(&name.0, &value.0);
    }
    let user = User { uid: 0, gid: 0, asked: true };
    sandbox.rootfs(Rootfs::Image(root)).entrypoint(Vec::<String>::new()).user(user).workdir("/");
    sandbox.limits(packages::limits()).writable_on_disk(&disk);
    let script = Mount::new(&file, Path::new(SCRIPT), false).map_err(crate::packages::PackagesError::from)?;
    sandbox.mount(script.given());
    match network {
        Access::None => {}
        Access::Packages => {
            let mut registries = Registries::all();
            registries.add(build.recipe.mirror(build.mirror).into_iter().chain(DEBIAN));
            packages::connect(&mut sandbox, registries, &mut |text| watch.output(text))?;
        }
        Access::Host => packages::connect_to_host(&mut sandbox, &mut |text| watch.output(text))?,
    }

    let options = Options { newest: Some(build.epoch), ..Options::new(Source::Overlay) };
    let mut layer = None;
    let done = sandbox.run_kept(None, &mut Telling(watch), |upper| {
        let packed = keep(store, Compression::Gzip, |to| {
            upper.pack(&options, to).map(drop).map_err(crate::image::pack::KeepError::from)
        });
        layer = Some(packed.map_err(Hint::into_error)?.0);
        Ok(())
    });
    let failed = |why: String, hint: Option<String>| BuildError::Setup { why, hint };
    let done = done.map_err(|error| failed(error.message().to_owned(), error.hint().map(str::to_owned)))?;
    if let Some(error) = done.error {
        return Err(failed(error.message, error.hint));
    }
    match (done.verdict, layer) {
        (Verdict::Ok, Some(layer)) => Ok(layer),
        (Verdict::Ok, None) => Err(failed("what it wrote was not kept".to_owned(), None)),
        (Verdict::Failed, _) => Err(failed(format!("it failed with status {}", done.exit_code.unwrap_or(0)), None)),
        (verdict, _) => Err(failed(format!("{verdict:?}").to_lowercase(), None)),
    }
}

struct Telling<'a>(&'a dyn Watch);

impl Observer for Telling<'_> {
    fn output(&mut self, _stream: Stream, bytes: &[u8]) -> io::Result<()> {
        self.0.output(&packages::harmless(bytes));
        Ok(())
    }
}
