//! The driver against a real message bus, and a manager that does to a v2 tree what systemd would. The driver itself
//! runs in a process of its own, as it finds the bus by a variable of the environment. Whether systemd agrees with
//! the manager here is for the tests on a machine that runs it to say.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{Driver, Group, Layout, Place, Want},
    bus::Connection,
    wire::{Body, Head, Kind, Message, Reader, Value, message},
    *,
};

#[test]
fn slices_lie_within_each_other() {
    let path = |slice: &str| expand(slice).map(|parts| parts.join("/"));
    assert_eq!(path("system.slice").as_deref(), Some("system.slice"));
    assert_eq!(path("a-b-c.slice").as_deref(), Some("a.slice/a-b.slice/a-b-c.slice"));
    assert_eq!(path("-.slice").as_deref(), Some(""));
    for wrong in ["", ".slice", "a", "-a.slice", "a-.slice", "a--b.slice", "a/b.slice", "...slice", "a-...slice"] {
        assert_eq!(path(wrong), None, "{wrong}");
    }
}

#[test]
fn a_path_names_a_unit() {
    let place = |path: Option<&str>| place(path.map(Path::new), "id", false);
    let (unit, below) = place(Some("machine.slice:libpod:abc")).unwrap();
    assert_eq!((unit.name.as_str(), unit.slice.as_str()), ("libpod-abc.scope", "machine.slice"));
    assert_eq!(below, Path::new("machine.slice/libpod-abc.scope"));
    let (_, below) = place(Some(":docker:1234")).unwrap();
    assert_eq!(below, Path::new("system.slice/docker-1234.scope"));
    let (_, below) = place(None).unwrap();
    assert_eq!(below, Path::new("system.slice/fumehood-id.scope"));
    let (unit, below) = place(Some("a-b.slice:x:pod-1.slice")).unwrap();
    assert_eq!((unit.name.as_str(), below), ("pod-1.slice", "a.slice/a-b.slice/pod-1.slice".into()));
    for wrong in ["/docker/abc", "a.slice:b", "a:b:c:d", "a:b:c", "a.slice:b:../c"] {
        assert!(matches!(place(Some(wrong)), Err(ContainerCgroupError::BadPath { .. })), "{wrong}");
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ADDRESS: &str = "DBUS_SYSTEM_BUS_ADDRESS";

#[test]
fn a_scope_is_started_changed_and_stopped() {
    if !nix::unistd::getuid().is_root() || Command::new("dbus-daemon").arg("--version").output().is_err() {
        eprintln!("skipped: needs root and dbus-daemon");
        return;
    }
    if env::var_os("FUMEHOOD_TEST_DRIVER").is_some() {
        return drive();
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let config = format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
            "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
        <busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
        <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
        </busconfig>"#,
        socket.display()
    );
    fs::write(dir.path().join("config"), config).unwrap();
    let mut bus = Command::new("dbus-daemon");
    bus.arg("--config-file").arg(dir.path().join("config")).args(["--nofork", "--nopidfile"]).stdin(Stdio::null());
    let _bus = Killed(bus.spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(20);
    while !socket.exists() {
        assert!(Instant::now() < end, "no bus");
        thread::sleep(Duration::from_millis(5));
    }
    let test = thread::current().name().unwrap().to_owned();
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(ADDRESS, format!("unix:path={}", socket.display()))
        .env("FUMEHOOD_TEST_DRIVER", "1")
        .status();
    assert!(status.unwrap().success());
}

/// In the process that knows the bus, with a v2 tree mounted for it.
fn drive() {
    use nix::sched::{CloneFlags, unshare};
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let mount = |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
    mount(&["--make-rprivate", "/"]);
    let point = tempfile::tempdir().unwrap();
    mount(&["-t", "cgroup2", "none", point.path().to_str().unwrap()]);
    // The mounting thread's children see it; so does the manager, which is a thread made from here.
    let manager = Manager::start(point.path());

    let layout = Layout::v2_at(point.path(), "/");
    let slice = format!("fumehoodtest{}.slice", std::process::id());
    let path = format!("{slice}:test:one");
    let driver = Driver::Systemd { user: false };
    let place = Place::decide(&layout, driver, Some(Path::new(&path)), "id", false).unwrap();
    assert_eq!(place.record().unit(), Some("test-one.scope"));
    let annotations = [("org.systemd.property.TimeoutStopUSec".to_owned(), "uint64 5000000".to_owned())];
    let annotations = annotations.into_iter().collect();
    let resources = serde_json::from_str(r#"{"unified": {"cgroup.max.depth": "7"}, "devices": []}"#).unwrap();
    let want = Want { resources: Some(&resources), annotations: Some(&annotations), ..Want::default() };
    let mut group = Group::create(&place, &want).unwrap();
    assert!(group.needs_process() && !group.exists() && group.clone_into().is_none());

    let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
    let pid = sleeper.id().cast_signed();
    group.adopt(pid).unwrap();
    assert!(!group.needs_process() && group.exists());
    assert_eq!(group.pids().unwrap(), [pid]);
    let dir = point.path().join(&slice).join("test-one.scope");
    assert_eq!(fs::read_to_string(dir.join("cgroup.max.depth")).unwrap(), "7\n");
    let told = manager.told();
    for property in ["Slice=s", "Delegate=b", "PIDs=au", "TimeoutStopUSec=t", "DeviceAllow=a(ss)", "DevicePolicy=s"] {
        assert!(told.contains(&format!("StartTransientUnit test-one.scope {property}")), "{property}: {told:?}");
    }

    // Somebody else's unit of that name is not touched.
    let mut second = Group::create(&place, &want).unwrap();
    let error = second.adopt(std::process::id().cast_signed()).unwrap_err();
    assert!(error.to_string().contains("unable to start unit test-one.scope: Unit exists"), "{error}");
    assert_eq!(group.pids().unwrap(), [pid]);

    drop((group, second));
    let group = Group::open(place.record()).unwrap();
    group
        .update(&serde_json::from_str(r#"{"unified": {"cgroup.max.depth": "9", "pids.max": "max"}}"#).unwrap())
        .unwrap_err();
    assert!(manager.told().contains(&"SetUnitProperties test-one.scope TasksMax=t".to_owned()));
    assert!(group.clone_into().is_some());

    let stopping = thread::spawn(move || group.remove().unwrap());
    assert!(!sleeper.wait().unwrap().success());
    stopping.join().unwrap();
    assert!(!dir.exists());
    // Again, as after a runtime that was killed in between.
    Group::open(place.record()).unwrap().remove().unwrap();
    fs::remove_dir(point.path().join(&slice)).unwrap();
    assert!(Command::new("umount").arg(point.path()).status().unwrap().success());
}

/// Answers as systemd does, in the five calls that there are.
struct Manager {
    told: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Manager {
    fn start(tree: &Path) -> Self {
        let told = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
        let mut connection = Connection::open(false).unwrap();
        let name = Body::default().with(&Value::text("org.freedesktop.systemd1")).with(&Value::U32(0));
        connection.ask("RequestName", &name).unwrap().unwrap();
        let (log, tree) = (told.clone(), tree.to_owned());
        thread::spawn(move || {
            loop {
                connection.end = Instant::now() + Duration::from_secs(600);
                let Ok(call) = connection.next() else { return };
                if call.kind == Kind::Call {
                    answer(&mut connection, &call, &tree, &mut log.lock().unwrap());
                }
            }
        });
        Self { told }
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

fn answer(connection: &mut Connection, call: &Message, tree: &Path, log: &mut Vec<String>) {
    let back = |kind, error: &str| {
        let head = Head {
            reply_to: call.serial,
            destination: call.head.sender.clone(),
            error: error.to_owned(),
            ..Head::default()
        };
        (kind, head)
    };
    let mut reader = call.reader();
    let member = call.head.member.as_str();
    let mut respond = |(kind, head): (Kind, Head), body: Body| {
        connection.serial += 1;
        connection.send(&message(kind, connection.serial, &head, &body)).unwrap();
    };
    let job = |unit: &str, result: &str| {
        let head = Head {
            path: "/org/freedesktop/systemd1".to_owned(),
            interface: "org.freedesktop.systemd1.Manager".to_owned(),
            member: "JobRemoved".to_owned(),
            ..Head::default()
        };
        let body = Body::default().with(&Value::U32(1)).with_path("/job/1").with(&Value::text(unit));
        ((Kind::Signal, head), body.with(&Value::text(result)))
    };
    let done = |body| (back(Kind::Reply, ""), body);
    match member {
        "Get" => {
            let (_, property) = (reader.string().unwrap(), reader.string().unwrap());
            let value = if property == "Version" { "252.39-1~deb12u1" } else { "/" };
            let (to, body) = done(Body::default().with_variant(value));
            respond(to, body);
        }
        "StartTransientUnit" => {
            let (unit, mode) = (reader.string().unwrap().to_owned(), reader.string().unwrap());
            assert_eq!(mode, "replace");
            let mut found = Vec::new();
            let (mut slice, mut pids) = (String::new(), Vec::new());
            each_property(&mut reader, |name, signature, reader| {
                found.push(format!("{member} {unit} {name}={signature}"));
                match name {
                    "Slice" => slice = reader.string().unwrap().to_owned(),
                    "PIDs" => {
                        let count = reader.u32().unwrap() / 4;
                        pids = (0..count).map(|_| reader.u32().unwrap()).collect();
                    }
                    _ => skip(signature, reader),
                }
            });
            assert_eq!(reader.u32(), Some(0));
            let dir = tree.join(&slice).join(&unit);
            if fs::create_dir_all(dir.parent().unwrap()).and_then(|()| fs::create_dir(&dir)).is_err() {
                respond(
                    back(Kind::Error, "org.freedesktop.systemd1.UnitExists"),
                    Body::default().with(&Value::text("Unit exists")),
                );
                return;
            }
            log.extend(found);
            pids.iter().for_each(|pid: &u32| fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap());
            // The end of a job may be told before the answer that names it.
            let (to, body) = job(&unit, "done");
            respond(to, body);
            respond(back(Kind::Reply, ""), Body::default().with_path("/job/1"));
        }
        "SetUnitProperties" => {
            let unit = reader.string().unwrap().to_owned();
            assert_eq!(reader.u32(), Some(1));
            each_property(&mut reader, |name, signature, reader| {
                log.push(format!("{member} {unit} {name}={signature}"));
                skip(signature, reader);
            });
            respond(back(Kind::Reply, ""), Body::default());
        }
        "StopUnit" => {
            let unit = reader.string().unwrap().to_owned();
            let found =
                fs::read_dir(tree).unwrap().flatten().map(|entry| entry.path().join(&unit)).find(|path| path.exists());
            let Some(dir) = found else {
                respond(
                    back(Kind::Error, "org.freedesktop.systemd1.NoSuchUnit"),
                    Body::default().with(&Value::text("not loaded")),
                );
                return;
            };
            respond(back(Kind::Reply, ""), Body::default().with_path("/job/1"));
            fs::write(dir.join("cgroup.kill"), "1").unwrap();
            let (to, body) = job("another.scope", "done");
            respond(to, body);
            let (to, body) = job(&unit, "done");
            respond(to, body);
        }
        _ => respond(back(Kind::Reply, ""), Body::default()),
    }
}

fn each_property(reader: &mut Reader<'_>, mut each: impl FnMut(&str, &str, &mut Reader<'_>)) {
    let length = reader.u32().unwrap() as usize;
    reader.pad(8);
    let end = reader.at() + length;
    while reader.at() < end {
        reader.pad(8);
        let name = reader.string().unwrap().to_owned();
        let signature = reader.short_string().unwrap().to_owned();
        each(&name, &signature, reader);
    }
}

fn skip(signature: &str, reader: &mut Reader<'_>) {
    match signature {
        "s" => _ = reader.string().unwrap(),
        "b" | "u" | "i" => _ = reader.u32().unwrap(),
        "t" => {
            reader.pad(8);
            reader.u32().unwrap();
            reader.u32().unwrap();
        }
        "a(ss)" => {
            let length = reader.u32().unwrap() as usize;
            reader.pad(8);
            let end = reader.at() + length;
            while reader.at() < end {
                reader.pad(8);
                let (path, access) = (reader.string().unwrap(), reader.string().unwrap());
                assert!(!path.is_empty() && access.bytes().all(|byte| b"rwm".contains(&byte)));
            }
        }
        other => panic!("{other}"),
    }
}
