//! As many at once as anybody wants.

use crate::{both, common::Who, owner::Owner};

both! {
    fn a_thousand_sandboxes_live_at_once(who: Who) {
        const MANY: usize = 1000;
        let mut owner = Owner::start(who, MANY, "sleep 1000", false);
        owner.wait_for_sandboxes(MANY);
        owner.kill_owner();
        owner.leaves_nothing();
    }
}
