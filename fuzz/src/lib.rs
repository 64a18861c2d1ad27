//! What every parser of outside bytes must hold for any bytes: no panic, and what each function asserts besides.
//!
//! The functions are the bodies of the fuzz targets (`scripts/fuzz`) and are run over the seeds and thousands of
//! mutations of them by `cargo test`, so the properties are tested where no fuzzer is.

use std::{
    cell::RefCell,
    ffi::OsStr,
    fs,
    io::{BufReader, Read, Write},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Component, Path},
    time::{Duration, Instant},
};

use fumehood::{
    Sandbox,
    batch::{Columns, Job},
    cgroup::container::fuzzing as bus,
    host::KernelVersion,
    image::{
        Reference,
        digest::Digest,
        manifest::{self, Document, Wanted},
        registry::fuzzing as from_registry,
        unpack::{Archive, open_packed},
    },
    launch::fuzzing,
    net::fuzzing as from_sandbox,
    plan::{landlock::Policy, seccomp},
    report::{Capture, Events, Mask, Stream, Tail},
    request::{
        Bytes, Fetch, Mount, SandboxId, Secret, User, files,
        limits::{parse_count, parse_cpus, parse_duration},
        mounts::inside_path,
        runtimes,
    },
    spec::container,
    state::root::ContainerId,
};

/// A name, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 24] = [
    ("quantities", quantities),
    ("names", names),
    ("paths", paths),
    ("runtime", runtime),
    ("secret", secret),
    ("output", output),
    ("seccomp", seccomp),
    ("landlock", landlock),
    ("config", config),
    ("container", container),
    ("record", record),
    ("fetch", fetch),
    ("bus", bus),
    ("registry", registry),
    ("layer", layer),
    ("image", image),
    ("dns", from_sandbox::dns),
    ("hello", from_sandbox::hello),
    ("head", from_sandbox::head),
    ("socks", from_sandbox::socks),
    ("rule", rule),
    ("request-path", request_path),
    ("job", job),
    ("table", table),
];

/// A job as a line: one that is understood is written as one that means the same.
pub fn job(data: &[u8]) {
    let Ok(job) = Job::parse(data) else { return };
    let text = serde_json::to_vec(&job).unwrap();
    assert!(!text.contains(&b'\n'));
    assert_eq!(Job::parse(&text).unwrap(), job);
    assert_eq!(Job::default().over(&job).over(&job), Job { id: None, ..job });
}

/// A job as the row of a table: the first line names the columns.
pub fn table(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(names), Some(row)) = (parts.next(), parts.next()) else { return };
    let Ok(columns) = Columns::parse(names) else { return };
    if let Ok(job) = columns.job(row) {
        let text = serde_json::to_vec(&job).unwrap();
        assert_eq!(Job::parse(&text).unwrap(), job);
    }
}

/// Sizes, times, CPUs, counts: within their bounds, and a size is read back as it is printed.
pub fn quantities(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(size) = Bytes::parse(text) {
        assert!((1..=1 << 53).contains(&size.get()));
        assert_eq!(Bytes::parse(&size.to_string()).ok(), Some(size));
    }
    if let Ok(time) = parse_duration(text) {
        assert!(!time.is_zero() && time <= Duration::from_secs(366 * 86400));
    }
    if let Ok(cpus) = parse_cpus(text) {
        assert!((0.01..=8192.0).contains(&cpus));
    }
    if let Ok(count) = parse_count(text, 3, 500) {
        assert!((3..=500).contains(&count));
    }
}

/// Sandbox ids, users, kernel releases. An id is one plain path component; a user is never another than was written.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = SandboxId::parse(text) {
        let parts: Vec<_> = Path::new(id.as_str()).components().collect();
        assert_eq!(parts, [Component::Normal(OsStr::new(text))]);
    }
    if let Ok(user) = User::parse(text) {
        assert!(user.uid <= 65_534 && user.gid <= 65_534);
        let zero = |part: &str| part == "root" || part.bytes().all(|digit| digit == b'0');
        assert_eq!(user.uid == 0, zero(text.split(':').next().unwrap_or_default()));
    }
    _ = KernelVersion::parse(text);
}

/// `--mount`, `--file`, `--dir`, `--get`: whatever is said, it stays where it may be.
pub fn paths(data: &[u8]) {
    let stays_inside = |path: &Path| {
        assert!(path.is_absolute() && !path.as_os_str().as_bytes().contains(&0));
        assert!(path.components().all(|part| !matches!(part, Component::ParentDir)));
    };
    if let Some(path) = inside_path(Path::new(OsStr::from_bytes(data))) {
        stays_inside(&path);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(mount) = Mount::parse(text) {
        stays_inside(&mount.target);
        assert!(!mount.target.starts_with("/proc") && !mount.target.starts_with("/dev"));
        assert!(!mount.writable || text.ends_with(":rw"));
    }
    if let Ok((host, inside)) = files::parse_pair(text)
        && let Ok(path) = files::place(&host, inside.as_deref())
    {
        stays_inside(&path);
        assert!(path.starts_with("/sandbox"));
    }
    if let Ok(fetch) = Fetch::parse(text) {
        assert!(!Path::new(&fetch.pattern).components().any(|part| part == Component::ParentDir));
    }
}

/// A file name, a newline, and the first bytes of the file.
pub fn runtime(data: &[u8]) {
    let (name, first_bytes) = split(data, b'\n');
    if name.contains(&0) {
        return; // No file is called so.
    }
    let path = Path::new(OsStr::from_bytes(name));
    let table = runtimes::table();
    if let Ok(choice) = table.detect(path, first_bytes) {
        // How the file will be called inside must be a name and no path.
        if let Ok(name) = table.file_name(choice.runtime, Some(path)) {
            assert_eq!(Path::new(&name).components().count(), 1);
            assert!(files::place(Path::new(&name), None).is_ok(), "{name:?}");
        }
    }
    if let Ok(text) = std::str::from_utf8(name) {
        _ = table.by_name(text);
    }
}

/// `--secret`: what is wrong with one is told without its value.
pub fn secret(data: &[u8]) {
    let text = OsStr::from_bytes(data);
    match Secret::parse(text, |_| Some("from the environment".into())) {
        Ok(secret) => assert!(!secret.value().as_bytes().is_empty() && !secret.name().contains('=')),
        Err(error) => {
            let (name, value) = split(data, b'=');
            let tells = |text: &[u8]| text.windows(value.len().max(1)).any(|window| window == value);
            // The words of the message have no digit, and the name may be told.
            if value.iter().any(u8::is_ascii_digit) && !tells(name) {
                assert!(!tells(error.to_string().as_bytes()));
            }
        }
    }
}

/// The length of a secret, the length of a chunk, the cap, and then a stream that begins with the secret. However it
/// is cut up, the same comes out of it, without the secret, and as JSON lines.
pub fn output(data: &[u8]) {
    let [length, chunk, cap, stream @ ..] = data else { return };
    let value = &stream[..usize::from(*length).min(stream.len())];
    let Ok(secret) = Secret::new("S", value) else { return };
    let mask = Mask::new(&[secret]);
    let cap = Bytes::new(u64::from(*cap) * 4);
    let captured = |chunk: usize| {
        let mut capture = Capture::new(&mask, cap);
        let mut live = Vec::new();
        let mut events = Events::new(Vec::new(), Instant::now());
        for piece in stream.chunks(chunk) {
            let shown = capture.push(piece);
            live.extend_from_slice(shown);
            assert!(events.output(Stream::Stdout, shown).is_ok());
        }
        let (captured, rest) = capture.finish(Tail::Whole);
        live.extend(rest);
        assert!(live.starts_with(&captured.bytes));
        captured
    };
    let whole = captured(stream.len().max(1));
    assert_eq!(whole, captured(usize::from(*chunk).max(1)));
    assert!(whole.bytes.len() as u64 <= cap.get());
    let is_there = whole.bytes.windows(value.len()).any(|window| window == value);
    assert!(!is_there || value.contains(&b'*'));
    let mut lines = Vec::new();
    assert!(Events::new(&mut lines, Instant::now()).output(Stream::Stderr, stream).is_ok());
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        assert!(serde_json::from_slice::<serde_json::Value>(line).is_ok());
    }
}

/// A seccomp profile: parsed, compiled for every architecture, and asked. An x32 call is never let by.
pub fn seccomp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(profile) = seccomp::Profile::parse(text) else { return };
    for arch in [seccomp::Arch::X86_64, seccomp::Arch::Aarch64] {
        for kernel in [seccomp::KernelVersion(0, 0), seccomp::KernelVersion(6, 12)] {
            let Ok(filter) = seccomp::compile(&profile, seccomp::Target { arch, kernel }) else { continue };
            assert!(filter.quiet().len() <= 4096);
            for number in 0..512 {
                let args = [number.into(); 6];
                if let seccomp::Action::Errno(errno) = filter.decide(number, &args) {
                    assert_eq!(filter.errno(number, &args), errno);
                }
            }
            if arch == seccomp::Arch::X86_64 {
                assert!(!filter.decide(0x4000_0000, &[0; 6]).permits());
                assert!(!filter.decide(0x4000_0209, &[u64::MAX; 6]).permits());
            }
        }
    }
}

/// A Landlock policy: what it says is in its layer, or is an error.
pub fn landlock(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(policy) = Policy::parse(text) else { return };
    for abi in 0..=8 {
        if let Ok(layer) = policy.layer(abi) {
            let says_something = policy.tcp == Some(false) || !policy.paths.is_empty();
            assert_eq!(layer.is_some(), says_something);
            assert_eq!(layer.map_or(0, |layer| layer.rules.len()), policy.paths.len());
        }
    }
}

/// A bundle's config.json, all the way to its plan.
pub fn config(data: &[u8]) {
    thread_local! {
        static BUNDLE: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    BUNDLE.with_borrow_mut(|bundle| {
        let bundle = bundle.get_or_insert_with(|| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            fs::create_dir_all(dir.path().join("rootfs/proc")).expect("a root");
            dir
        });
        fs::write(bundle.path().join("config.json"), data).expect("a config.json");
        if let Ok(plan) = Sandbox::bundle(bundle.path()).plan() {
            assert!(!plan.steps.is_empty() && plan.namespaces.len() >= 6);
            assert!(serde_json::to_string(&plan).is_ok());
        }
    });
}

/// A container's specification: what is taken is taken again as it is written out, and an error is one line that
/// begins with where it is.
pub fn container(data: &[u8]) {
    match container::parse(data.into()) {
        Ok(read) => {
            let text = serde_json::to_vec(&read.spec).expect("a specification can be written");
            let again = container::parse(text.into()).expect("and read again");
            assert_eq!(again.spec, read.spec);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(": ") && !text.chars().any(char::is_control), "{text:?}");
        }
    }
    _ = container::parse_process(data, &mut Vec::new());
    _ = container::parse_resources(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(ranges) = container::number_list(text)
    {
        assert!(!ranges.is_empty() && ranges.iter().all(|range| range.start() <= range.end()));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(id) = ContainerId::parse(text)
    {
        assert_eq!(Path::new("/root").join(&id).components().count(), 3);
    }
}

/// A record on the socket between init and supervisor.
pub fn record(data: &[u8]) {
    fuzzing::record(data);
}

/// A `--get`, a newline, and names that the program left in its directory: files, links to a file of the host, links
/// to a directory of the host, in turn. Only what the files hold comes out, and only to where it was asked to go.
pub fn fetch(data: &[u8]) {
    let (wanted, names) = split(data, b'\n');
    let Ok(Ok(wanted)) = std::str::from_utf8(wanted).map(Fetch::parse) else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [root, host, out] = ["root", "host", "out"].map(|name| dir.path().join(name));
    fs::create_dir_all(root.join("sandbox")).expect("a root");
    fs::create_dir_all(&host).expect("a host");
    fs::create_dir_all(&out).expect("a target");
    fs::write(host.join("marker"), "host").expect("a marker");
    for (number, name) in names.split(|byte| *byte == b'\n').take(6).enumerate() {
        let path = root.join("sandbox").join(OsStr::from_bytes(name));
        // A name that no file can have is no news.
        let odd = name.is_empty() || name.len() > 40 || name.contains(&0) || name.contains(&b'/');
        if odd || name == b"." || name == b".." {
            continue;
        }
        _ = match number % 3 {
            0 => fs::File::create_new(path).and_then(|mut file| file.write_all(b"inside")),
            1 => symlink(host.join("marker"), path),
            _ => symlink(&host, path),
        };
    }
    let root = fs::File::open(&root).expect("the root");
    let wanted = Fetch { pattern: wanted.pattern, to: Some(out.clone()), how: wanted.how };
    let (files, _) = fuzzing::fetch(&root, &wanted, Bytes::new(20));
    assert!(files.iter().map(|file| file.bytes).sum::<u64>() <= 20);
    assert_eq!(fs::read(host.join("marker")).expect("the marker"), b"host");
    assert_eq!(fs::read_dir(&host).expect("the host").count(), 1);
    assert_eq!(fs::read_dir(dir.path()).expect("all").count(), 3);
    assert_holds_only_inside(&out);
}

fn assert_holds_only_inside(dir: &Path) {
    for entry in fs::read_dir(dir).expect("the target").flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            assert_holds_only_inside(&entry.path());
        } else {
            assert!(kind.is_file());
            assert_eq!(fs::read(entry.path()).expect("a file"), b"inside");
        }
    }
}

fn split(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == at) {
        Some(place) => (&data[..place], &data[place + 1..]),
        None => (data, &[]),
    }
}

/// What comes from a message bus, and the values of properties in annotations: a message is as long as it says, and
/// neither makes the driver panic.
pub fn bus(data: &[u8]) {
    if let Some(length) = bus::message(data) {
        assert_eq!(length, data.len());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        bus::property(text);
    }
}

/// What a registry answers: challenges, places, errors, ranges; and files of credentials. A place is none of a user's,
/// and is read back as it is printed.
pub fn registry(data: &[u8]) {
    from_registry::credentials(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    from_registry::answer(text);
    for base in ["https://registry.example/v2/a/blobs/uploads/", "http://[::1]:5000/v2/?x=1"] {
        from_registry::challenge(base, text);
        from_registry::place(base, text);
    }
}

/// A layer, packed or not: what its entries say can be acted on, and there is an end to it.
pub fn layer(data: &[u8]) {
    const MOST: u64 = 4 << 20;
    // A mutation spoils a header's sum, and what it has else would not be looked at.
    let mut data = data.to_vec();
    for header in data.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let Ok(content) = open_packed(&data[..]) else { return };
    let mut archive = Archive::new(BufReader::new(content.take(MOST)));
    for _ in 0..10_000 {
        let Ok(Some(entry)) = archive.next_entry() else { return };
        assert!(!entry.path.contains(&0) && !entry.link.contains(&0));
        assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.gid != u32::MAX);
        assert!((0..1_000_000_000).contains(&entry.mtime.nanos));
        let mut at = 0;
        for (offset, length) in entry.pieces.iter().flatten() {
            assert!(*offset >= at && offset + length <= entry.size);
            at = offset + length;
        }
        let wanted = entry.pieces.as_ref().map_or(entry.size, |pieces| pieces.iter().map(|(_, length)| length).sum());
        let mut came = 0;
        match archive.data(u64::MAX, |chunk| {
            came += chunk.len() as u64;
            Ok(())
        }) {
            Ok(said) => assert_eq!(said, came),
            Err(_) => return,
        }
        if entry.kind == fumehood::image::unpack::Kind::File {
            assert_eq!(came, wanted);
        }
    }
}

/// Manifests, indexes, configurations and names of images: a document is one thing, and a name is read back as it is
/// printed.
pub fn image(data: &[u8]) {
    match manifest::read(data, None) {
        Ok(Document::Manifest(found)) => {
            assert!(manifest::digest_of(found.config()).is_ok());
            assert!(found.layers().iter().all(|layer| manifest::digest_of(layer).is_ok()));
            assert!(manifest::read(data, Some(manifest::OCI_INDEX)).is_err());
        }
        Ok(Document::Index(index)) => {
            _ = manifest::choose(&index, &Wanted::here());
            assert!(manifest::read(data, Some(manifest::OCI_MANIFEST)).is_err());
        }
        Err(_) => {}
    }
    for layers in 0..3 {
        if let Ok((_, diff_ids)) = manifest::read_config(data, layers) {
            assert_eq!(diff_ids.len(), layers);
            _ = manifest::chain_id(&diff_ids);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let printed = reference.to_string();
        assert_eq!(printed.parse::<Reference>().ok().as_ref(), Some(&reference));
        assert!(!printed.contains(|c: char| c.is_control() || c.is_whitespace()));
        assert!(printed.split('/').all(|part| !matches!(part, "" | "." | "..")), "{printed}");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Some(wanted) = Wanted::parse(text) {
        assert!(wanted.to_string().matches('/').count() <= 2);
    }
}

/// Paths of requests, and patterns for them.
pub fn request_path(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        from_sandbox::path(text);
    }
}

/// Rules, names and policies as a person writes them.
pub fn rule(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        from_sandbox::rule(text);
    }
}
