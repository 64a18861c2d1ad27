//! Network devices of the host's that a container gets: moved into its network namespace, under the name that they are
//! to have there, with the addresses that were meant to last (runtime-spec `config-linux.md`, "Network Devices").
//!
//! They are not brought back: they end with the namespace, or the kernel takes them home. A device is moved and renamed
//! in one step, and what would be in its way is looked for before.

use std::{fs::File, os::fd::AsFd};

use nix::sys::socket::SockProtocol;

use super::program::failed;
use crate::{
    plan::container::NetDevice,
    sys::{
        Errno, namespace,
        netlink::{ACK, CREATE, DUMP, EXCLUSIVE, Netlink, attribute, attributes, message},
    },
};

// linux/rtnetlink.h
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;

// linux/if_link.h
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE: u16 = 28;

/// Gives `devices` to the network namespace of the process `pid`, a child of ours.
pub fn give(devices: &[NetDevice], pid: i32) -> Result<(), String> {
    if devices.is_empty() {
        return Ok(());
    }
    let namespace =
        File::open(format!("/proc/{pid}/ns/net")).map_err(|error| format!("open network namespace: {error}"))?;
    let here = Routes::here().map_err(failed("open a netlink socket"))?;
    let there = Routes::within(&namespace)?;
    for device in devices {
        let at = format!("linux.netDevices.{}", device.name);
        move_one(device, &namespace, &here, &there).map_err(|why| format!("{at}: {why}"))?;
    }
    Ok(())
}

/// The numbers of all devices in a network namespace.
pub(super) fn indices(namespace: &File) -> Result<Vec<u32>, String> {
    let routes = Routes::within(namespace)?;
    routes.indices().map_err(failed("list the devices of a network namespace"))
}

fn move_one(device: &NetDevice, namespace: &File, here: &Routes, there: &Routes) -> Result<(), String> {
    use std::os::fd::AsRawFd;
    let index = match here.index(&device.name).map_err(failed("look for the device"))? {
        Some(index) => index,
        None => return Err("the host has no such network device".to_owned()),
    };
    let template = device.inside.contains('%');
    if !template && there.index(&device.inside).map_err(failed("look for its name inside"))?.is_some() {
        return Err(format!("a device called `{}` is in the container's network namespace already", device.inside));
    }
    let addresses = here.lasting_addresses(index).map_err(failed("read its addresses"))?;
    let before = there.indices().map_err(failed("list the devices inside"))?;
    let name = attribute(LINK_NAME, &[device.inside.as_bytes(), b"\0"].concat());
    let to = attribute(LINK_NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
    here.set_link(index, 0, &[name, to].concat()).map_err(failed("move it into the network namespace"))?;
    let moved = match template {
        false => there.index(&device.inside).map_err(failed("look for it inside"))?,
        true => {
            let after = there.indices().map_err(failed("list the devices inside"))?;
            let new: Vec<u32> = after.into_iter().filter(|index| !before.contains(index)).collect();
            if let [index] = new[..] { Some(index) } else { None }
        }
    };
    let moved = moved.ok_or("it is not found inside after it was moved")?;
    for address in addresses {
        there.add_address(moved, &address).map_err(failed("set an address of its own inside"))?;
    }
    there.set_link(moved, libc::IFF_UP as u32, &[]).map_err(failed("bring it up"))
}

/// The devices and addresses of one network namespace.
struct Routes(Netlink);

/// An address as the kernel tells it and takes it: family and length of the prefix, and its attributes.
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<u8>,
}

impl Routes {
    fn here() -> Result<Self, Errno> {
        Netlink::open(SockProtocol::NetlinkRoute).map(Self)
    }

    /// On a thread of its own, which ends there: this one stays where it is.
    fn within(namespace: &File) -> Result<Self, String> {
        let enter = || {
            namespace::enter(namespace.as_fd(), libc::CLONE_NEWNET)
                .map_err(failed("enter the container's network namespace"))?;
            Self::here().map_err(failed("open a netlink socket"))
        };
        let joined = std::thread::scope(|scope| scope.spawn(enter).join());
        joined.unwrap_or_else(|_| Err("enter the container's network namespace".to_owned()))
    }

    fn index(&self, name: &str) -> Result<Option<u32>, Errno> {
        let wanted = [link(0, 0), attribute(LINK_NAME, &[name.as_bytes(), b"\0"].concat())].concat();
        match self.0.ask(&message(GET_LINK, ACK, 1, &wanted)) {
            Ok(found) => Ok(found.first().and_then(|link| index_of(link))),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn indices(&self) -> Result<Vec<u32>, Errno> {
        let found = self.0.ask(&message(GET_LINK, DUMP, 1, &link(0, 0)))?;
        Ok(found.iter().filter_map(|link| index_of(link)).collect())
    }

    /// `flags`: what is to be on.
    fn set_link(&self, index: u32, flags: u32, attributes: &[u8]) -> Result<(), Errno> {
        let wanted = [link(index, flags), attributes.to_vec()].concat();
        self.0.transact(&[message(NEW_LINK, ACK, 1, &wanted)], 1)
    }

    /// Those that somebody set, for anywhere: others are the host's, or found again by themselves.
    fn lasting_addresses(&self, index: u32) -> Result<Vec<Address>, Errno> {
        let found = self.0.ask(&message(GET_ADDRESS, DUMP, 1, &[0; 8]))?;
        Ok(found.iter().filter_map(|address| lasting(address, index)).collect())
    }

    fn add_address(&self, index: u32, address: &Address) -> Result<(), Errno> {
        let head = [address.family, address.prefix, 0, libc::RT_SCOPE_UNIVERSE];
        let wanted = [&head, &index.to_ne_bytes()[..], &address.attributes].concat();
        self.0.transact(&[message(NEW_ADDRESS, ACK | CREATE | EXCLUSIVE, 1, &wanted)], 1)
    }
}

/// `struct ifinfomsg`
fn link(index: u32, flags: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

fn index_of(link: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(link.get(4..8)?.try_into().ok()?))
}

/// Of a `struct ifaddrmsg` with its attributes: what of it is to be had elsewhere, if it is to last.
fn lasting(told: &[u8], device: u32) -> Option<Address> {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    const BROADCAST: u16 = 4;
    const FLAGS: u16 = 8;
    const PRIORITY: u16 = 9;
    // How it came to be there, and what is made with it.
    const KEPT: u32 = libc::IFA_F_NODAD | libc::IFA_F_NOPREFIXROUTE | libc::IFA_F_MANAGETEMPADDR;
    let [family, prefix, old_flags, scope, index @ ..] = told.first_chunk::<8>()?;
    let told: Vec<_> = attributes(&told[8..]).collect();
    let flags = told.iter().find(|(kind, _)| *kind == FLAGS);
    let flags = flags.and_then(|(_, value)| Some(u32::from_ne_bytes((*value).try_into().ok()?)));
    let flags = flags.unwrap_or(u32::from(*old_flags));
    if u32::from_ne_bytes(*index) != device || *scope != libc::RT_SCOPE_UNIVERSE || flags & libc::IFA_F_PERMANENT == 0 {
        return None;
    }
    let kept = told.iter().filter(|(kind, _)| matches!(*kind, ADDRESS | LOCAL | BROADCAST | PRIORITY));
    let mut kept: Vec<u8> = kept.flat_map(|(kind, value)| attribute(*kind, value)).collect();
    kept.extend(attribute(FLAGS, &(flags & KEPT).to_ne_bytes()));
    Some(Address { family: *family, prefix: *prefix, attributes: kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel tells an address: `struct ifaddrmsg`, then attributes.
    fn told(scope: u8, flags: u8, index: u32, more: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = [&[2, 24, flags, scope][..], &index.to_ne_bytes()].concat();
        bytes.extend(more.iter().flat_map(|(kind, value)| attribute(*kind, value)));
        bytes
    }

    #[test]
    fn addresses_that_are_set_for_anywhere_last() {
        let local = [10, 0, 0, 1];
        let more: [(u16, &[u8]); 4] = [(1, &local), (2, &local), (3, b"eth0\0"), (8, &(0x80u32 | 0x200).to_ne_bytes())];
        let found = lasting(&told(0, 0x80, 7, &more), 7).unwrap();
        assert_eq!((found.family, found.prefix), (2, 24));
        let kept: Vec<_> = attributes(&found.attributes).collect();
        // The label is the host's name of the device; that it is permanent is the kernel's to say.
        assert_eq!(kept, [(1, &local[..]), (2, &local), (8, &0x200u32.to_ne_bytes())]);
        for (why, other) in [
            ("another device's", told(0, 0x80, 8, &more)),
            ("of the link", told(253, 0x80, 7, &more)),
            ("dynamic", told(0, 0, 7, &more[..3])),
            ("cut short", told(0, 0x80, 7, &[])[..7].to_vec()),
        ] {
            assert!(lasting(&other, 7).is_none(), "{why}");
        }
    }
}
