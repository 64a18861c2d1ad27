//! The base `debian:SUITE`, which mmdebstrap(1) makes: it checks the archive's signature, and runs what the packages want
//! run in a root of their own.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
};

use super::{
    BuildError, Result,
    recipe::{Debian, Variant},
};
use crate::image::{
    pack::{Compression, NewLayer, keep},
    store::Store,
};

/// What of an installed system is of the host's, of the moment, or a copy.
const CLEAN: &str = concat!(
    r#"rm -rf "$1/etc/resolv.conf" "$1/etc/hostname" "$1/var/cache/ldconfig" "$1"/var/cache/debconf/*-old "#,
    r#""$1"/var/lib/dpkg/*-old "$1"/var/log/*.log "$1/var/log/apt"; "#,
    r#"if [ -e "$1/etc/machine-id" ]; then : >"$1/etc/machine-id"; fi"#
);
/// What nobody reads in a sandbox; that something may be passed on is told in a package's copyright.
const DOCS: [&str; 7] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
];
/// Makes /bin a link to /usr/bin from the start on, as in all suites that want it.
const MERGED_USR: &str = "/usr/share/mmdebstrap/hooks/maybe-merged-usr";
/// Of what it says, as much as explains why it failed.
const TOLD: usize = 40;

pub fn make(store: &Store, debian: &Debian, epoch: i64, progress: &dyn Fn(u64)) -> Result<NewLayer> {
    let mut child = start(debian, epoch)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let listening = thread::spawn(move || last_lines(err));
    let packed = keep(store, Compression::Gzip, |to| pack(out, to, progress));
    if packed.is_err() {
        _ = child.kill();
    }
    let status = child.wait().map_err(BuildError::io("wait for", "mmdebstrap"))?;
    let said = listening.join().unwrap_or_default();
    // What it says is why there was nothing to pack.
    if !status.success() {
        return Err(failure(&said));
    }
    packed.map(|(layer, ())| layer)
}

fn start(debian: &Debian, epoch: i64) -> Result<Child> {
    // Ended with us, however we end; and it leaves nothing when it is.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]);
    if nix::unistd::geteuid().is_root() {
        // What it mounts is in nobody's sight, and gone with it.
        command.args(["unshare", "--mount", "--propagation=private", "--", "mmdebstrap"]);
    } else {
        command.args(["mmdebstrap", "--mode=unshare"]);
    }
    command.args(["--quiet", "--format=tar", "--skip=output/dev", "--aptopt=Acquire::Languages \"none\""]);
    command.arg(format!("--variant={}", variant(debian)));
    // Nothing is customized where nothing is installed.
    let hook = if debian.variant == Variant::Extract { "extract" } else { "customize" };
    command.arg(format!("--{hook}-hook={CLEAN}"));
    command.arg(format!("--architectures={}", architecture(&debian.architecture)));
    // Else a package is installed that does the same when it is installed, and needs Perl for it.
    if std::path::Path::new(MERGED_USR).is_dir() && debian.variant != Variant::Extract {
        command.arg(format!("--hook-dir={MERGED_USR}"));
    }
    if !debian.include.is_empty() {
        command.arg(format!("--include={}", debian.include.join(",")));
        command.arg("--aptopt=APT::Install-Recommends \"false\"");
    }
    if !debian.docs {
        // Some link to pages there, and fail where not even the directory is.
        if debian.variant != Variant::Extract {
            command.arg(r#"--essential-hook=mkdir -p "$1/usr/share/man/man1""#);
        }
        command.args(DOCS.map(|option| format!("--dpkgopt={option}")));
    }
    // What comes after it is no option, whatever it looks like.
    command.args(["--", debian.suite.as_str(), "-"]).args(&debian.mirror);
    command
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive");
    // It and what it runs are told of no descriptor but these, and of no directory of the caller's.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|error| BuildError::Debian {
        why: format!("it cannot be run: {error}"),
        hint: Some("apt install util-linux mmdebstrap"),
    })
}

/// As Debian calls it.
fn architecture(name: &str) -> &str {
    match name {
        "386" => "i386",
        "arm" => "armhf",
        "ppc64le" => "ppc64el",
        other => other,
    }
}

fn variant(debian: &Debian) -> String {
    format!("{:?}", debian.variant).to_lowercase()
}

fn pack(out: Option<impl Read>, to: &mut dyn Write, progress: &dyn Fn(u64)) -> Result {
    let mut from = out.ok_or_else(|| BuildError::Debian { why: "it has no output".to_owned(), hint: None })?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => {
                let read = read.map_err(BuildError::io("read from", "mmdebstrap"))?;
                to.write_all(&buffer[..read]).map_err(BuildError::io("pack", "base"))?;
                progress(read as u64);
            }
        }
    }
}

fn last_lines(from: Option<ChildStderr>) -> Vec<String> {
    let mut lines = std::collections::VecDeque::new();
    for line in from.into_iter().flat_map(|from| BufReader::new(from).split(b'\n')) {
        let Ok(line) = line else { break };
        lines.push_back(String::from_utf8_lossy(&line).trim().to_owned());
        if lines.len() > TOLD {
            lines.pop_front();
        }
    }
    lines.into()
}

fn failure(said: &[String]) -> BuildError {
    let all = said.join(" ");
    let hint = if all.contains("failed to execute") {
        Some("apt install mmdebstrap")
    } else if all.contains("NO_PUBKEY") || all.contains("no keyring") || all.contains("cannot be verified") {
        Some("apt install debian-archive-keyring")
    } else if all.contains("subuid") || all.contains("newuidmap") || all.contains("uidmap") {
        Some("an ordinary user needs subordinate ids and newuidmap: apt install uidmap; usermod --add-subuids …")
    } else if all.contains("Unable to locate package") {
        Some("packages.apt has names of Debian's packages in that suite")
    } else if all.contains("Could not resolve")
        || all.contains("Failed to fetch")
        || all.contains("does not have a Release")
    {
        Some("is there such a suite, and does the mirror answer? --mirror URL names another")
    } else {
        None
    };
    let marks = ["E: ", "Err: ", "dpkg: error"];
    let told: Vec<&str> =
        said.iter().map(String::as_str).filter(|line| marks.iter().any(|m| line.starts_with(m))).collect();
    let why = match told.as_slice() {
        [] => said.iter().rev().find(|line| !line.is_empty()).cloned().unwrap_or_else(|| "it failed".to_owned()),
        told => told.iter().map(|line| line.trim_start_matches("E: ")).take(3).collect::<Vec<_>>().join("; "),
    };
    BuildError::Debian { why, hint }
}
