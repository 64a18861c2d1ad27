//! Many at once.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    Batch, assert_nothing_left, both,
    common::{Who, host},
};

fn count() -> usize {
    if std::env::var_os("FUMEHOOD_LONG").is_some() { 1000 } else { 200 }
}

both! {
    fn all_of_them_are_alive_at_once(who: Who) {
        let count = count();
        let jobs: Vec<_> = (0..count).map(|_| json!({"cmd": "exec sleep 54321", "limits": {"timeout": "none"}})).collect();
        let args = ["-j".to_owned(), count.to_string(), "--memory=8m".into(), "-q".into(), "-o".into(), "out".into()];
        let batch = Batch::of(who, &jobs).args(args);
        let child = batch.start();
        let pid = child.id();
        // With the programs' environment the tests have nothing to do.
        let mine = format!("b{pid}-");
        let alive = || {
            let records = host::left_of(&mine, &batch.0.place).iter().filter(|left| left.contains("/fumehood/") && left.starts_with('/')).count();
            records >= count
        };
        assert!(host::eventually(alive), "{:?}", host::left_of(&mine, &batch.0.place).len());
        for _ in 0..2 {
            kill(Pid::from_raw(pid as i32), Signal::SIGINT).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let done = batch.0.wait_for(child);
        assert_nothing_left(&done, pid);
        done.expect_code(130);
    }
}
