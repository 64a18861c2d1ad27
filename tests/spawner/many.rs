//! As many at once as anybody wants.

use std::sync::{Mutex, PoisonError};

use crate::{both, common::Who, owner::Owner};

/// Two thousand are for larger machines.
static ALONE: Mutex<()> = Mutex::new(());

both! {
    fn a_thousand_sandboxes_live_at_once(who: Who) {
        // Who has no cgroup has supervisors that look at their sandboxes fifty times a second: a thousand of those want
        // more processors than a test has.
        let many = if who.has_cgroup() { 1000 } else { 100 };
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut owner = Owner::start(who, many, "sleep 1000", false);
        owner.wait_for_sandboxes(many);
        owner.kill_owner();
        owner.leaves_nothing();
    }
}
