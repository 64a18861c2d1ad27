//! The made-up addresses of one sandbox: each stands for one name.
//!
//! They lie in 198.18.0.0/15, which is set aside for benchmarks and routed nowhere, so one that gets out by any mistake
//! reaches nobody. How many there are at once is bounded: a program may ask for names as long as it likes.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::policy::Name;

pub const FAKE_FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 0);
pub const FAKE_LAST: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 255);

/// How long clients may keep one without asking again.
pub(super) const TTL: Duration = Duration::from_secs(60);
/// How long an unused one is kept when others want its place: some clients ignore the TTL for a while.
const KEPT: Duration = TTL.saturating_mul(5);
/// Names at once.
const MOST: usize = 16_384;
/// Slots looked at for one that may be taken over.
const TRIES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Pool {
    slots: Vec<Slot>,
    by_name: HashMap<Name, usize>,
    /// Where the search for an old one goes on.
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    name: Name,
    used: Instant,
}

impl Pool {
    /// The address that stands for `name`; `None` when there are too many names.
    pub fn address(&mut self, name: &Name, now: Instant) -> Option<Ipv4Addr> {
        if let Some(&slot) = self.by_name.get(name) {
            self.slots[slot].used = now;
            return Some(address(slot));
        }
        let fresh = Slot { name: name.clone(), used: now };
        let slot = if self.slots.len() < MOST {
            self.slots.push(fresh);
            self.slots.len() - 1
        } else {
            let old = |slot: &usize| now.saturating_duration_since(self.slots[*slot].used) > KEPT;
            let hand = self.hand;
            self.hand = (hand + TRIES) % MOST;
            let slot = (hand..hand + TRIES).map(|slot| slot % MOST).find(old)?;
            self.hand = (slot + 1) % MOST;
            let before = std::mem::replace(&mut self.slots[slot], fresh);
            self.by_name.remove(&before.name);
            slot
        };
        self.by_name.insert(name.clone(), slot);
        Some(address(slot))
    }

    /// The name that `address` stands for.
    pub fn name(&mut self, address: Ipv4Addr, now: Instant) -> Option<&Name> {
        let slot = usize::try_from(address.to_bits().checked_sub(FAKE_FIRST.to_bits())?).ok()?;
        let slot = self.slots.get_mut(slot)?;
        slot.used = now;
        Some(&slot.name)
    }
}

/// Whether it is one of those that are made up.
pub(super) fn is_fake(address: Ipv4Addr) -> bool {
    (FAKE_FIRST..=FAKE_LAST).contains(&address)
}

fn address(slot: usize) -> Ipv4Addr {
    // `MOST` slots end long before the range.
    Ipv4Addr::from_bits(FAKE_FIRST.to_bits() + slot as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Name {
        format!("n{number}.example").parse().unwrap()
    }

    #[test]
    fn a_name_keeps_its_address() {
        let (mut pool, now) = (Pool::default(), Instant::now());
        let first = pool.address(&name(0), now).unwrap();
        assert_eq!(first, FAKE_FIRST);
        let second = pool.address(&name(1), now).unwrap();
        assert_ne!(first, second);
        assert_eq!(pool.address(&name(0), now), Some(first));
        assert_eq!(pool.name(second, now), Some(&name(1)));
        for none in [Ipv4Addr::new(198, 18, 1, 2), FAKE_LAST, Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(0, 0, 0, 0)] {
            assert_eq!(pool.name(none, now), None, "{none}");
        }
    }

    #[test]
    fn it_is_bounded_and_takes_over_what_is_old_alone() {
        let (mut pool, start) = (Pool::default(), Instant::now());
        for number in 0..MOST {
            assert!(pool.address(&name(number), start).is_some());
        }
        assert!(is_fake(pool.address(&name(MOST - 1), start).unwrap()));
        assert_eq!(pool.address(&name(MOST), start), None);
        let later = start + KEPT + Duration::from_secs(1);
        let kept = pool.address(&name(TRIES), later).unwrap();
        let taken = pool.address(&name(MOST), later).unwrap();
        assert_ne!(taken, kept);
        assert_eq!(pool.name(taken, later), Some(&name(MOST)));
        assert_eq!(pool.name(kept, later), Some(&name(TRIES)));
        assert_eq!(pool.slots.len(), MOST);
        assert_eq!(pool.by_name.len(), MOST);
    }
}
