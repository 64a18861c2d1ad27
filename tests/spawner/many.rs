//! As many at once as anybody wants.

use std::sync::{Mutex, PoisonError};

use crate::{both, common::Who, owner::Owner};

/// As root and as a user at once is for larger machines.
static ALONE: Mutex<()> = Mutex::new(());

both! {
    fn many_sandboxes_live_at_once(who: Who) {
        // Who has no cgroup has supervisors that look at their sandboxes fifty times a second: a thousand of those want
        // more processors than a test has.
        let most = if std::env::var_os("FUMEHOOD_LONG").is_some() { 1000 } else { 300 };
        let many = if who.has_cgroup() { most } else { 100 };
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut owner = Owner::start(who, many, "sleep 1000", false);
        owner.wait_for_sandboxes(many);
        owner.kill_owner();
        owner.leaves_nothing();
    }
}
