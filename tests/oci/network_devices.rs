//! Network devices of the host's that a container gets: ends of virtual cables, made by the tests.

use std::process::Command;

use serde_json::json;

use crate::{bundle::Container, common::Who};

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).status().is_ok_and(|status| status.success())
}

fn is_on_host(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

/// On the host until it is moved, and never afterwards. The other end goes with it.
struct Device(String);

impl Device {
    /// `None`, said aloud, where none can be made.
    fn new(letter: char) -> Option<Self> {
        let name = format!("fh{}{letter}", std::process::id());
        if !ip(&["link", "add", &name, "type", "veth", "peer", "name", &format!("{name}-")]) {
            crate::common::skip("network devices", "apt install iproute2, and a kernel with veth");
            return None;
        }
        Some(Self(name))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if is_on_host(&self.0) {
            ip(&["link", "delete", &self.0]);
        }
    }
}

/// The line of `ip -o link` about a device.
#[track_caller]
fn line<'a>(links: &'a str, name: &str) -> &'a str {
    let is = |line: &&str| [":", "@"].iter().any(|end| line.contains(&format!(" {name}{end}")));
    links.lines().find(is).unwrap_or_else(|| panic!("no {name} in {links}"))
}

fn root(test: &str) -> Option<Container> {
    Container::new(test, Who::Root.find(test)?)
}

#[test]
fn devices_keep_their_addresses_and_are_up() {
    let Some(container) = root("network devices") else { return };
    let (Some(kept), Some(renamed)) = (Device::new('a'), Device::new('b')) else { return };
    for (device, addresses) in [(&kept, ["10.99.7.1/24", "fd99:7::1/64"]), (&renamed, ["10.99.8.1/32", "10.99.8.2/32"])]
    {
        for address in addresses {
            assert!(ip(&["address", "add", address, "dev", &device.0]));
        }
        assert!(ip(&["link", "set", &device.0, "up", "mtu", "1400"]));
    }
    // Of the link, and so the host's own.
    assert!(ip(&["address", "add", "169.254.7.7/16", "scope", "link", "dev", &kept.0]));
    let container = container
        .set("/linux/netDevices", json!({ &kept.0: {}, &renamed.0: { "name": "inside0" } }))
        .set("/linux/sysctl", json!({ "net.ipv4.conf.inside0.forwarding": "1" }))
        .shell("ip -o address; echo --; ip -o link; cat /proc/sys/net/ipv4/conf/inside0/forwarding");
    let out = container.run().ok();
    for expected in ["inet 10.99.7.1/24 ", "inet6 fd99:7::1/64 ", "inet 10.99.8.1/32 ", "inet 10.99.8.2/32 "] {
        assert!(out.contains(expected), "no {expected:?} in {out}");
    }
    assert!(!out.contains("169.254.7.7"), "{out}");
    for name in [&kept.0, "inside0"] {
        let link = line(out.split("--\n").last().unwrap(), name);
        assert!(link.contains(",UP") && link.contains("mtu 1400"), "{link}");
    }
    assert!(!out.contains(&renamed.0) && out.ends_with("\n1\n"), "{out}");
    // They ended with their namespace.
    assert!(crate::common::host::eventually(|| !is_on_host(&kept.0) && !is_on_host("inside0")));
}

#[test]
fn a_template_gets_a_free_number() {
    let Some(container) = root("network devices") else { return };
    let (Some(one), Some(two)) = (Device::new('c'), Device::new('d')) else { return };
    assert!(ip(&["address", "add", "10.99.9.1/24", "dev", &one.0]));
    let container = container
        .set("/linux/netDevices", json!({ &one.0: { "name": "data%d" }, &two.0: { "name": "data%d" } }))
        .shell("ip -o link; ip -o address show dev data0");
    let out = container.run().ok();
    assert!(line(&out, "data0") != line(&out, "data1") && out.contains("inet 10.99.9.1/24 "), "{out}");
}

#[test]
fn a_device_goes_into_the_namespace_of_another() {
    let Some(container) = root("network devices") else { return };
    let Some(device) = Device::new('e') else { return };
    let mut other = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
    let path = format!("/proc/{}/ns/net", other.id());
    let namespace = |path: &str| std::fs::read_link(path).unwrap();
    assert!(crate::common::host::eventually(|| namespace(&path) != namespace("/proc/self/ns/net")));
    let container = container
        .set("/linux/namespaces/1", json!({ "type": "network", "path": path }))
        .set("/linux/netDevices", json!({ &device.0: { "name": "lo" } }));
    let refused = container.run();
    let container = container.set("/linux/netDevices", json!({ &device.0: {} })).shell("ip -o link");
    let (still_there, moved) = (is_on_host(&device.0), container.run());
    let after = Command::new("nsenter").args([&format!("--net={path}"), "ip", "-o", "link"]).output().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    refused
        .fails(&format!("linux.netDevices.{}: a device called `lo` is in the container's network namespace", device.0));
    assert!(still_there, "a device that cannot be moved stays where it is");
    line(&moved.ok(), &device.0);
    // The namespace is not ours, nor what is in it.
    line(&String::from_utf8_lossy(&after.stdout), &device.0);
}

#[test]
fn what_cannot_be_moved_is_an_error() {
    let Some(container) = root("network devices") else { return };
    let container = container.set("/linux/netDevices", json!({ "no-such-dev": {} }));
    container.run().fails("linux.netDevices.no-such-dev: the host has no such network device");
    container.call("state", &[]).fails("does not exist");
    let container = container.set("/linux/namespaces/1", json!({ "type": "network", "path": "/proc/self/ns/net" }));
    container.run().fails("linux.netDevices: the network namespace to be joined is the host's");
    let Some(who) = Who::User.find("network devices") else { return };
    let Some(user) = Container::new("network devices", who) else { return };
    user.set("/linux/netDevices", json!({ "lo": {} })).run().fails("linux.netDevices: ");
}
