//! Containers whose network is filtered, on a host whose network the test has made.

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    both,
    bundle::Container,
    common::{Who, host},
    world::{ALLOWED, OTHER, OUTCOME, REBOUND, TRY, World, ip, run},
};

/// By the proxy that programs may know of, which resolves for itself.
const ASK: &str = "http_proxy=http://198.18.0.1:3128 busybox wget -q -O - http://allowed.example.org/";
const ANSWER: &str = "/ of allowed.example.org\n";

/// What reached the servers of such a container, and came from `own`.
#[track_caller]
fn assert_only_allowed(world: &World, own: [u8; 4]) {
    let reached: Vec<_> = world.reached().into_iter().filter(|line| line != "ready").collect();
    assert_eq!(reached, ["93.184.215.14 connected", "93.184.215.14 /a allowed.example.org"]);
    assert_packets(world, own);
}

#[track_caller]
fn assert_packets(world: &World, own: [u8; 4]) {
    let mut packets = world.packets();
    packets.sort();
    packets.dedup();
    assert_eq!(packets, [format!("{own:?} protocol 6"), "[93, 184, 215, 14] protocol 6".to_owned()]);
}

const HOST: [u8; 4] = [5, 5, 5, 1];
const ENGINE: [u8; 4] = [7, 7, 7, 1];

/// With two names allowed, one of which leads to a private address.
fn container(test: &str, who: Who) -> Option<Container> {
    let container = Container::new(test, who)?;
    container.place.write("bundle/rootfs/etc/resolv.conf", "nameserver 8.8.8.8\n");
    let policy = format!("allow={ALLOWED},allow={REBOUND}");
    Some(container.set("/annotations", json!({ "io.fumehood.egress": policy })))
}

/// Where `Container::config` has the network.
const NETWORK: &str = "/linux/namespaces/1";

/// A network namespace as engines make them, with a way out of its own; the host has none any more.
struct Engine(Child);

impl Engine {
    fn new(world: &World) -> Self {
        let holder = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let engine = Self(holder);
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert!(host::eventually(|| fs::read_link(engine.path()).is_ok_and(|found| found != own)));
        connect(world, &engine.path());
        engine
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn within(&self, words: &str) -> String {
        let output = Command::new("nsenter").arg(format!("--net={}", self.path())).args(words.split(' ')).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Puts a way to the servers into a network namespace, and takes away the host's.
fn connect(world: &World, namespace: &str) {
    ip(&format!("link add eth0 netns {namespace} type veth peer name engine0 netns {}", world.namespace()));
    let mut beyond = world.within("ip");
    beyond.args("addr add 7.7.7.2/24 dev engine0".split(' '));
    run(beyond);
    let mut beyond = world.within("ip");
    beyond.args("link set engine0 up".split(' '));
    run(beyond);
    for words in ["link set lo up", "addr add 7.7.7.1/24 dev eth0", "link set eth0 up", "route add default via 7.7.7.2"]
    {
        let mut within = Command::new("nsenter");
        within.arg(format!("--net={namespace}")).arg("ip").args(words.split(' '));
        run(within);
    }
    ip("route del default");
}

fn proxy_of(container: &Container) -> Option<i32> {
    let text =
        fs::read_to_string(container.place.join("runtime-dir/oci").join(&container.id).join("state.json")).ok()?;
    let state: Value = serde_json::from_str(&text).unwrap();
    state["egress"]["proxy"]["pid"].as_i64().map(|pid| pid as i32)
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

both! {
    fn gets_out_to_what_is_allowed_by_the_hosts_network(who: Who) {
        let Some(world) = World::new("egress of a container") else { return };
        let Some(mut container) = container("egress of a container", who) else { return };
        container.globals.push("--egress-from-host".to_owned());
        let container = container.shell(TRY);
        assert_eq!(container.run().ok(), OUTCOME);
        assert_only_allowed(&world, HOST);
    }

    fn nothing_passes_when_the_proxy_is_killed(who: Who) {
        let Some(world) = World::new("killed proxy of a container") else { return };
        let Some(mut container) = container("killed proxy of a container", who) else { return };
        container.globals.push("--egress-from-host".to_owned());
        let container = container.shell(&format!("exec > /out; {ASK}; until test -e /go; do sleep 0.1; done; {TRY}"));
        // Of one that waits.
        container.create();
        kill(proxy_of(&container).unwrap());
        container.call("start", &[]).fails("filters the container's network has ended");
        container.call("delete", &["--force"]).ok();
        // Of one that runs.
        container.create();
        container.start();
        let out = container.rootfs("out");
        assert!(host::eventually(|| fs::read_to_string(&out).is_ok_and(|text| text == ANSWER)));
        kill(proxy_of(&container).unwrap());
        let left = world.reached().len();
        world.packets();
        container.place.write("bundle/rootfs/go", "");
        container.becomes("stopped");
        assert_eq!(world.reached().len(), left);
        assert_eq!(fs::read_to_string(&out).unwrap(), format!("{ANSWER}{}", OUTCOME.replace("/a of", "not")));
        // What the servers still had to say.
        let packets = world.packets();
        assert!(packets.iter().all(|packet| packet.starts_with("[5, 5, 5, 1]")), "{packets:?}");
        container.call("delete", &[]).ok();
    }

    /// Where there is no engine, on this host and nowhere else.
    fn open_ports_are_the_hosts_where_its_network_is(who: Who) {
        let Some(world) = World::new("ports of a container") else { return };
        let Some(mut container) = container("ports of a container", who) else { return };
        container.globals.push("--egress-from-host".to_owned());
        // An image's word is not enough for that.
        container.config["annotations"] = json!({ "io.fumehood.egress": "none,publish=8080" });
        container.run().fails("would open a port of the host's");
        container.config["annotations"] = json!({});
        container.globals.extend(["--egress".to_owned(), "none,publish=8080".to_owned()]);
        let container = container.shell(&SERVE.replace("80 81 82", "8080 8081"));
        container.create();
        container.start();
        assert!(host::eventually(|| container.rootfs("serving").exists()));
        let here = |at: &str| fetch(Command::new("env"), at);
        assert_eq!((here("127.0.0.1:8080"), here("127.0.0.1:8081")), ("here\n".to_owned(), String::new()));
        assert_eq!(fetch(world.within("env"), "5.5.5.1:8080"), "");
        // Who ends the container ends them.
        container.call_on("kill", &["KILL"]).ok();
        container.becomes("stopped");
        container.call("delete", &[]).ok();
        let left = || host::left_of(&container.id, &container.place);
        assert!(host::eventually(|| left().is_empty()), "{:?}", left());
        assert_eq!(here("127.0.0.1:8080"), "");
    }

    fn nothing_is_left_of_it(who: Who) {
        let Some(_world) = World::new("what is left of a container") else { return };
        let Some(mut container) = container("what is left of a container", who) else { return };
        container.globals.push("--egress-from-host".to_owned());
        let container = container.args(&["sleep", "1000"]);
        let gone = |how: &str| {
            let left = || host::left_of(&container.id, &container.place);
            assert!(host::eventually(|| left().is_empty()), "{how}: {:?}", left());
        };
        container.create();
        assert!(host::processes(&container.id).len() >= 2);
        container.call("delete", &["--force"]).ok();
        gone("deleted before it ran");
        container.create();
        container.start();
        container.call_on("kill", &["KILL"]).ok();
        container.becomes("stopped");
        container.call("delete", &[]).ok();
        gone("deleted when it had ended");
        container.create();
        container.start();
        kill(container.place.read("pid").parse().unwrap());
        // Nobody told it.
        let proxy = proxy_of(&container).unwrap();
        assert!(host::eventually(|| !fs::exists(format!("/proc/{proxy}/ns/net")).unwrap()));
        container.call("delete", &["--force"]).ok();
        gone("killed");
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_runtime_that_is_killed_leaves_no_proxy() {
    let Some(who) = Who::Root.find("egress and a killed runtime") else { return };
    let Some(_world) = World::new("egress and a killed runtime") else { return };
    let Some(container) = container("egress and a killed runtime", who) else { return };
    let container = container.args(&["sleep", "1000"]);
    for point in ["grouped", "ready", "recorded"] {
        let mut command = container.command("create", &[&container.id]);
        command.env("FUMEHOOD_DIE_AT", point);
        assert_eq!(container.output(command).code, -1, "{point}");
        let none = || host::processes(&container.id).is_empty();
        assert!(host::eventually(none), "{point}: {:?}", host::processes(&container.id));
        container.call("delete", &["--force"]).ok();
        assert!(host::left_of(&container.id, &container.place).is_empty(), "{point}");
    }
}

/// The network that the engine has made is where the proxy is, and the container is not.
#[test]
fn the_engines_network_is_reached_through_the_filter_alone() {
    let Some(who) = Who::Root.find("egress by an engine's network") else { return };
    let Some(world) = World::new("egress by an engine's network") else { return };
    let engine = Engine::new(&world);
    let Some(container) = container("egress by an engine's network", who) else { return };
    let names = "cat /proc/net/dev | grep -c :; ip -o -4 address show dev eth0";
    let container = container
        .set(NETWORK, json!({ "type": "network", "path": engine.path() }))
        .capabilities(&["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"])
        .shell(&format!("{names}; {TRY}"));
    let said = container.run().ok();
    assert!(said.contains("2\n") && said.contains("198.18.0.2/30") && said.ends_with(OUTCOME), "{said}");
    assert_only_allowed(&world, ENGINE);
    // And it is as it was.
    assert!(engine.within("ip -o -4 address show dev eth0").contains("7.7.7.1/24"));
    assert_eq!(engine.within("nft list ruleset"), "");
}

/// Programs that answer who connects, and one that listens where nothing is open.
const SERVE: &str = "mkdir -p /www; echo here > /www/here
     for port in 80 81 82; do busybox httpd -p $port -h /www; done; : > /serving; sleep 1000";

/// As many as there are places for, and more.
const CROWD: &str = "
import socket, time
def come():
    end = socket.create_connection(('7.7.7.1', 81))
    end.settimeout(0.2)
    return end
ends, away = [], 0
for _ in range(300):
    try: ends.append(come())
    # Turned away before it knew that it had been let in.
    except OSError: away += 1
time.sleep(0.5)
def gone(end):
    try: return end.recv(1) == b''
    except TimeoutError: return False
    except OSError: return True
away += gone(ends[-1])
if away and not gone(ends[0]): print('some were turned away', flush=True)
for end in ends: end.close()
for _ in range(50):
    try:
        end = come()
        end.sendall(b'GET /here HTTP/1.0\\r\\n\\r\\n')
        end.settimeout(5)
        text = b''.join(iter(lambda: end.recv(999), b''))
        if text: break
    except OSError: pass
    time.sleep(0.2)
print(text.decode().splitlines()[-1])
";

/// What is answered to who comes by `client`.
fn fetch(mut client: Command, at: &str) -> String {
    client.args(["busybox", "timeout", "3", "busybox", "wget", "-q", "-O", "-", &format!("http://{at}/here")]);
    String::from_utf8(client.output().unwrap().stdout).unwrap()
}

/// Who comes to where the engine has the container gets in by the ports that are open, whoever filters what goes out.
#[test]
fn open_ports_are_reached_by_the_engines_network() {
    let Some(who) = Who::Root.find("ports of an engine's network") else { return };
    let Some(world) = World::new("ports of an engine's network") else { return };
    let engine = Engine::new(&world);
    let Some(mut container) = container("ports of an engine's network", who) else { return };
    let log = container.place.text("log");
    container.globals.extend(["--egress-log".to_owned(), log.clone()]);
    let container = container
        .set(NETWORK, json!({ "type": "network", "path": engine.path() }))
        .set("/annotations", json!({ "io.fumehood.egress": "none,publish=80,publish=81" }))
        .capabilities(&["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"])
        .shell(SERVE);
    container.create();
    container.start();
    assert!(host::eventually(|| container.rootfs("serving").exists()));
    let beyond = |at: &str| fetch(world.within("env"), at);
    for _ in 0..3 {
        assert_eq!((beyond("7.7.7.1"), beyond("7.7.7.1:81")), ("here\n".to_owned(), "here\n".to_owned()));
    }
    assert_eq!(beyond("7.7.7.1:82"), "");
    // Who comes from outside takes no place of what goes out: all of theirs are taken here, and closed again.
    let mut crowd = world.within("python3");
    let crowd = crowd.args(["-c", CROWD]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&crowd.stdout), "some were turned away\nhere\n", "{crowd:?}");
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("connections from outside at once") && log.contains("\"host\":\"7.7.7.2\""), "{log}");
    // Without the link to it, the gateway is not taken for the container.
    container.call_on("exec", &["sh", "-c", "ip link del eth0"]).ok();
    assert_eq!(beyond("7.7.7.1"), "");
    container.call_on("egress", &["web,publish=82"]).fails("its ports cannot be changed");
    // Nobody else takes what another has.
    let other = Container::new("a port that is taken", Who::Root).unwrap();
    let other = other
        .set(NETWORK, json!({ "type": "network", "path": engine.path() }))
        .set("/annotations", json!({ "io.fumehood.egress": "none,publish=80" }))
        .args(&["true"]);
    other.run().fails("cannot publish port 80");
    // They end with the proxy.
    kill(proxy_of(&container).unwrap());
    assert!(host::eventually(|| !host::processes(&container.id).iter().any(|line| line.contains("fumehood-"))));
    assert_eq!(beyond("7.7.7.1"), "");
    container.call("delete", &["--force"]).ok();
    let left = || host::left_of(&container.id, &container.place);
    assert!(host::eventually(|| left().is_empty()), "{:?}", left());
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Of other containers, whose names the engine's server has: on the bridge that leads out, as with Podman.
#[test]
fn names_that_the_engine_knows_lead_to_what_is_opened_by_them() {
    const SERVER: &str = "
import socket, sys
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(('7.7.7.2', 53))
print('ready', flush=True)
while True:
    question, client = names.recvfrom(512)
    found = {b'\\2db\\0': b'\\x0a\\x09\\x09\\x09', b'\\4host\\0': b'\\x7f\\0\\0\\1', b'\\x09localhost\\0': b'\\x0a\\x09\\x09\\x09'}.get(question[12:-4])
    count = b'\\0\\1' if found else b'\\0\\0'
    record = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\5\\0\\4' + found if found else b''
    code = b'\\x81\\x80' if found else b'\\x81\\x83'
    names.sendto(question[:2] + code + b'\\0\\1' + count + b'\\0' * 4 + question[12:] + record, client)
";
    let Some(who) = Who::Root.find("names of an engine's") else { return };
    let Some(world) = World::new("names of an engine's") else { return };
    let engine = Engine::new(&world);
    let mut names = world.within("python3");
    let mut names = Server(names.args(["-c", SERVER]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut ready = [0; 5];
    names.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let fetch = |policy: &str, at: &str| {
        let line = format!("busybox timeout 5 busybox wget -q -O - http://{at}/here; true");
        let container = container("names of an engine's", who).unwrap();
        let container = container.set("/annotations", json!({ "io.fumehood.egress": policy }));
        let container = container.set(NETWORK, json!({ "type": "network", "path": engine.path() }));
        container.shell(&line).run().ok()
    };
    assert_eq!(fetch("allow-private=db:80", "db"), "/here of db\n");
    assert_eq!(fetch("allow-private=db:81", "db"), "");
    assert_eq!(fetch("allow=db", "db"), "");
    // Who knows the name but no address is believed, and nobody's word is taken for what `localhost` is.
    assert_eq!(fetch("allow-private=rebound:80", "rebound"), "");
    assert_eq!(fetch("allow-private=localhost:80", "localhost"), "");
    // Nobody's word makes this host's loopback a container's.
    assert_eq!(fetch("web,allow=host", "host"), "");
}

/// As Docker does it: a hook, or the engine between create and start, puts a device where the process is seen.
#[test]
fn what_an_engine_puts_in_later_is_the_proxys_too() {
    let Some(who) = Who::Root.find("egress by a network made later") else { return };
    let Some(world) = World::new("egress by a network made later") else { return };
    let Some(container) = container("egress by a network made later", who) else { return };
    let container = container
        .capabilities(&["CAP_NET_ADMIN", "CAP_NET_RAW"])
        .shell(&format!("exec > /out; grep -c : /proc/net/dev; {TRY}"));
    container.create();
    let pid = container.place.read("pid");
    // Nobody else gets there meanwhile.
    container.call_on("exec", &["true"]).fails("before it is started");
    connect(&world, &format!("/proc/{pid}/ns/net"));
    container.start();
    container.becomes("stopped");
    assert_eq!(fs::read_to_string(container.rootfs("out")).unwrap(), format!("2\n{OUTCOME}"));
    assert_only_allowed(&world, ENGINE);
    container.call("delete", &[]).ok();
}

/// The same with a user namespace, whose root has all capabilities, and over the network, too.
#[test]
fn root_of_a_user_namespace_is_held() {
    let Some(who) = Who::Root.find("egress and a user namespace") else { return };
    let Some(world) = World::new("egress and a user namespace") else { return };
    let Some(mut container) = container("egress and a user namespace", who) else { return };
    let ids = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    container.config["linux"]["uidMappings"] = ids.clone();
    container.config["linux"]["gidMappings"] = ids;
    container.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let hook = container.place.write_executable(
        "hook",
        "#!/bin/sh\npid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')\nexec nsenter --net=/proc/$pid/ns/net ip link add late0 type veth peer name late1\n",
    );
    let container = container
        .capabilities(&["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"])
        .set("/hooks", json!({ "prestart": [{ "path": hook, "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] }] }))
        .shell(&format!("exec > /tmp/out; grep -c : /proc/net/dev; {TRY}"));
    let tmp = container.rootfs("tmp");
    fs::set_permissions(&tmp, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    container.create();
    let pid = container.place.read("pid");
    connect(&world, &format!("/proc/{pid}/ns/net"));
    container.start();
    container.becomes("stopped");
    assert_eq!(fs::read_to_string(tmp.join("out")).unwrap(), format!("2\n{OUTCOME}"));
    assert_only_allowed(&world, ENGINE);
    container.call("delete", &[]).ok();
}

/// Where all is let out, so is UDP, by the engine's network.
#[test]
fn udp_goes_out_by_the_engines_network() {
    let Some(who) = Who::Root.find("egress of UDP") else { return };
    let Some(world) = World::new("egress of UDP") else { return };
    let engine = Engine::new(&world);
    let Some(container) = container("egress of UDP", who) else { return };
    let container = container
        .set("/annotations", json!({ "io.fumehood.egress": "open,deny=93.184.215.0/24" }))
        .set(NETWORK, json!({ "type": "network", "path": engine.path() }))
        .shell(
            "for to in 93.184.215.14 10.9.9.9 1.1.1.1; do
                 busybox timeout 3 busybox tftp -g -r x -l /dev/null $to 9999 2>/dev/null
             done; true",
        );
    assert_eq!(container.run().ok(), "");
    let reached: Vec<_> = world.reached().into_iter().filter(|line| line != "ready").collect();
    assert!(!reached.is_empty() && reached.iter().all(|line| line.starts_with("1.1.1.1:9999 udp")), "{reached:?}");
}

#[test]
fn who_rules_the_containers_network_rules_nothing_else() {
    let Some(who) = Who::Root.find("egress and CAP_NET_ADMIN") else { return };
    let Some(world) = World::new("egress and CAP_NET_ADMIN") else { return };
    let engine = Engine::new(&world);
    let Some(container) = container("egress and CAP_NET_ADMIN", who) else { return };
    let container = container
        .set(NETWORK, json!({ "type": "network", "path": engine.path() }))
        .capabilities(&["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"])
        .shell(&format!(
            "ip address add 7.7.7.9/24 dev eth0; ip address add 5.5.5.1/24 dev eth0; ip route add 1.1.1.1 dev eth0
             ip link add name way type veth peer name out; ip link set way up; ip link set out netns 1 2>/dev/null
             ip link set eth0 down; ip address flush dev eth0; ip address add 198.18.0.2/30 dev eth0
             ip link set eth0 address 02:00:00:00:00:02; ip link set eth0 up; ip route add default via 198.18.0.1
             {TRY}"
        ));
    let said = container.run().ok();
    assert!(said.ends_with(&OUTCOME[OUTCOME.find("not").unwrap()..]), "{said}");
    let reached = world.reached();
    assert!(reached.iter().all(|line| line == "ready" || line.starts_with("93.184.215.14 ")), "{reached:?}");
    assert_packets(&world, ENGINE);
}

#[test]
fn a_network_with_no_way_out_gets_none() {
    let Some(who) = Who::Root.find("egress and no network") else { return };
    let Some(world) = World::new("egress and no network") else { return };
    let Some(container) = container("egress and no network", who) else { return };
    let container = container.shell(TRY);
    assert_eq!(container.run().ok(), OUTCOME.replace("/a of", "not"));
    world.assert_untouched();
}

#[test]
fn a_policy_is_shown_changed_and_its_connections_written_down() {
    let Some(who) = Who::Root.find("egress of a runtime") else { return };
    let Some(world) = World::new("egress of a runtime") else { return };
    let Some(mut container) = Container::new("egress of a runtime", who) else { return };
    // Docker's own, of networks that have names.
    container.place.write("bundle/rootfs/etc/resolv.conf", "nameserver 127.0.0.11\n");
    let log = container.place.text("log");
    for word in ["--egress", &format!("allow={OTHER}"), "--egress-from-host", "--egress-log", &log] {
        container.globals.push(word.to_owned());
    }
    let container = container.args(&["sleep", "1000"]);
    container.create();
    container.start();
    let ask = |name: &str| {
        let find = "busybox awk '/^Name:/ { found = 1 } found && /^Address/ { print $2 }'";
        let line = format!(
            "set -e; a=$(busybox nslookup -type=a {name} 2>&1 | {find}); test -n \"$a\"
             busybox wget -q -O - --header 'Host: {name}' http://$a/ 2>&1"
        );
        container.call_on("exec", &["sh", "-c", &line])
    };
    assert_eq!(ask(OTHER).ok(), format!("/ of {OTHER}\n"));
    ask(ALLOWED).fails("");
    let shown: Value = serde_json::from_str(&container.call_on("egress", &[]).ok()).unwrap();
    assert_eq!(shown, json!({ "mode": "filtered", "allow": [OTHER] }));
    container.call_on("egress", &[&format!("web,deny={OTHER}")]).ok();
    assert_eq!(ask(ALLOWED).ok(), format!("/ of {ALLOWED}\n"));
    ask(OTHER).fails("");
    container.call_on("egress", &["nonsense"]).fails("`nonsense` is not understood");
    let lines = || fs::read_to_string(&log).unwrap();
    assert!(
        host::eventually(|| lines().matches("\"verdict\":\"allowed\",\"protocol\":\"http\"").count() == 2),
        "{}",
        lines()
    );
    let first: Value = serde_json::from_str(lines().lines().next().unwrap()).unwrap();
    assert_eq!((&first["id"], &first["host"]), (&json!(container.id), &json!(OTHER)));
    drop(world);
}

#[test]
fn what_cannot_be_filtered_is_not_made() {
    let Some(who) = Who::Root.find("egress that cannot be") else { return };
    let Some(mut container) = container("egress that cannot be", who) else { return };
    let original = container.config.clone();
    let mut refused = |pointer: &str, value: Value, words: &str| {
        *container.config.pointer_mut(pointer).unwrap() = value;
        container.run().fails(words);
        container.call("state", &[]).fails("does not exist");
        container.config = original.clone();
    };
    refused(
        "/annotations",
        json!({ "io.fumehood.egress": "everything" }),
        "annotations.io.fumehood.egress: `everything`",
    );
    refused("/annotations", json!({ "io.fumehood.egress": "{" }), "annotations.io.fumehood.egress: ");
    refused("/annotations", json!({ "io.fumehood.egress": "allow=GET https://x.org/" }), "requests");
    refused(NETWORK, json!({ "type": "network", "path": "/proc/self/ns/net" }), "is the host's");
    refused(NETWORK, json!({ "type": "time" }), "in the host's network");
    for name in ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_BOOT"] {
        refused("/process/capabilities", json!({ "bounding": [name] }), name);
    }
    // Of a process that is seen, its user may take the sockets.
    refused("/linux/namespaces/0", json!({ "type": "time" }), "sees processes of others");
    refused("/linux/namespaces/0", json!({ "type": "pid", "path": "/proc/self/ns/pid" }), "sees processes of others");
    refused(NETWORK, json!({ "type": "network", "path": "/proc/self/ns/mnt" }), "of another kind: mnt");
    // And give itself devices on the networks of others by their numbers, with a user namespace, too.
    let ids = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    container.config["linux"]["uidMappings"] = ids.clone();
    container.config["linux"]["gidMappings"] = ids;
    container.config["linux"]["namespaces"] =
        json!([{ "type": "network" }, { "type": "mount" }, { "type": "uts" }, { "type": "user" }]);
    container.run().fails("sees processes of others");
    container.config.clone_from(&original);
    let all = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
    container.config["linux"]["resources"] = all;
    container.config["process"]["capabilities"] = json!({ "bounding": ["CAP_MKNOD"] });
    container.run().fails("CAP_MKNOD");
    container.config.clone_from(&original);
    container.config["linux"]["netDevices"] = json!({ "lo": {} });
    container.run().fails("linux.netDevices");
    container.config = original;
    container.globals.extend(["--egress".to_owned(), "web".to_owned()]);
    container.run().fails("the runtime was given --egress");
    container.globals[1] = "nope".to_owned();
    container.run().fails("--egress: `nope` is not understood");
    container.globals.clear();
    // What CRIU would bring back without.
    let container = container.args(&["sleep", "1000"]);
    container.create();
    container.start();
    container.call("checkpoint", &["--image-path", &container.place.text("image")]).fails("whose network is filtered");
    let more = container.command("exec", &["--cap", "CAP_SYS_ADMIN", &container.id, "true"]);
    container.output(more).fails("CAP_SYS_ADMIN");
}

/// A user namespace that is another container's, too: who is root in it may trace what is there.
#[test]
fn a_joined_user_namespace_is_nobodys_own() {
    let Some(who) = Who::Root.find("egress and a joined user namespace") else { return };
    let Some(mut container) = container("egress and a joined user namespace", who) else { return };
    let other = Command::new("unshare").args(["--user", "--map-root-user", "sleep", "1000"]).spawn();
    let mut other = other.unwrap();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", other.id());
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    assert!(host::eventually(|| fs::read_link(path("user")).is_ok_and(|found| found != own)));
    let namespaces = container.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "user", "path": path("user") }));
    container.capabilities(&["CAP_SYS_ADMIN"]).run().fails("CAP_SYS_ADMIN");
    other.kill().unwrap();
    other.wait().unwrap();
}

/// Each is of the host's network, and could be connected again, or tells of its devices.
#[test]
fn sockets_that_are_handed_in_are_no_way_out() {
    let Some(who) = Who::Root.find("egress and sockets") else { return };
    let Some(container) = container("egress and sockets", who) else { return };
    let tcp = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = || std::os::unix::net::UnixStream::pair().unwrap().0;
    let run = |container: &Container, stdin: std::os::fd::OwnedFd| {
        container.output_with(container.command("run", &[&container.id]), stdin)
    };
    run(&container, tcp().into()).fails("descriptor 0 is a socket of another network");
    run(&container, std::os::unix::net::UnixDatagram::pair().unwrap().0.into()).fails("descriptor 0 is a socket");
    run(&container, unix().into()).ok();
    let admin = container.capabilities(&["CAP_NET_ADMIN"]).args(&["sleep", "1000"]);
    run(&admin, unix().into()).fails("descriptor 0 is a socket of another network");
    admin.create();
    admin.start();
    let exec = admin.command("exec", &[&admin.id, "true"]);
    admin.output_with(exec, std::os::fd::OwnedFd::from(unix())).fails("descriptor 0 is a socket of another network");
    admin.call_on("exec", &["true"]).ok();
}

/// What a file says when the container is made holds to its end; who asks before it is started is answered at once.
#[test]
fn a_policy_of_a_file_is_what_it_was() {
    let Some(who) = Who::Root.find("egress by a file") else { return };
    let Some(container) = container("egress by a file", who) else { return };
    container.place.write("policy", format!("allow={ALLOWED}\n"));
    let file = container.place.text("policy");
    let gone = container.place.text("gone");
    let container = container
        .set("/annotations", json!({ "io.fumehood.egress": file }))
        .set("/hooks", json!({ "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat >/dev/null; touch {gone}")] }] }))
        .args(&["sleep", "1000"]);
    container.create();
    fs::remove_file(container.place.join("policy")).unwrap();
    container.call_on("egress", &[]).fails("it is not started yet");
    container.call_on("egress", &["open"]).fails("it is not started yet");
    container.start();
    let shown: Value = serde_json::from_str(&container.call_on("egress", &[]).ok()).unwrap();
    assert_eq!(shown, json!({ "mode": "filtered", "allow": [ALLOWED] }));
    container.call_on("exec", &["true"]).ok();
    container.place.write("other", "web");
    container.call_on("egress", &[&container.place.text("other")]).ok();
    assert!(container.call_on("egress", &[]).ok().contains("web"));
    container.call("delete", &["--force"]).ok();
    assert!(fs::exists(gone).unwrap(), "the hooks were not run");
}

#[test]
fn a_log_that_nobody_reads_is_refused() {
    let Some(who) = Who::Root.find("egress and a pipe as its log") else { return };
    let Some(mut container) = container("egress and a pipe as its log", who) else { return };
    let pipe = container.place.text("pipe");
    nix::unistd::mkfifo(pipe.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    container.globals.extend(["--egress-log".to_owned(), pipe]);
    container.run().fails("--egress-log");
}

#[test]
fn an_ordinary_user_has_no_network_to_filter() {
    let Some(who) = Who::User.find("egress of a user") else { return };
    let Some(container) = container("egress of a user", who) else { return };
    container.run().fails("--egress-from-host");
}
