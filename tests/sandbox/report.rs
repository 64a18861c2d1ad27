//! The result object, and the events on the way to it.

use serde_json::Value;

use crate::{
    both,
    common::{Run, Who},
};

/// DESIGN.md §4's, in its order.
const KEYS: [&str; 18] = [
    "id",
    "runtime",
    "isolation",
    "verdict",
    "exit_code",
    "signal",
    "stdout",
    "stderr",
    "stdout_truncated",
    "stderr_truncated",
    "duration_ms",
    "setup_ms",
    "usage",
    "limits",
    "controls",
    "denials",
    "files",
    "error",
];

#[track_caller]
fn assert_has_keys(object: &Value, keys: &[&str]) {
    for key in keys {
        assert!(object.get(key).is_some(), "no {key} in {object}");
    }
}

both! {
    fn every_key_is_there_whatever_happened(who: Who) {
        for run in [
            Run::new(who).python("print(1)"),
            Run::new(who).cmd("exit 3"),
            Run::new(who).cmd("kill -9 $$"),
            Run::new(who).args(["--timeout", "100"]).cmd("sleep 100"),
            Run::new(who).program_args(["no-such-program"]),
            Run::new(who).args(["--rootfs", "/no/such/root"]).cmd("true"),
            Run::new(who).args(["-r", "no-such-runtime", "-e", "x"]),
        ] {
            let done = run.json_result().done();
            let json = done.json();
            assert_has_keys(&json, &KEYS);
            let text = done.out();
            let places: Vec<_> = KEYS.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap()).collect();
            assert!(places.is_sorted(), "in DESIGN.md's order: {text}");
            assert_has_keys(&json["usage"], &["cpu_ms", "peak_memory_bytes"]);
            assert_has_keys(&json["limits"], &["memory_bytes", "cpus", "pids", "timeout_ms", "output_bytes"]);
            assert_has_keys(&json["controls"], &["user_namespace", "seccomp", "landlock_abi", "cgroup", "memory", "network"]);
            // What never stood held nothing back; that is not the same as holding nothing back.
            let stood = json["verdict"] != "setup_error" || json["error"]["kind"] == "not_found";
            let controls = json["controls"].as_object().unwrap();
            assert_eq!(stood, controls["user_namespace"] == true, "{json}");
            assert!(stood || controls.values().all(Value::is_null), "{json}");
            assert_eq!(json["error"].is_null(), json["verdict"] != "setup_error", "{json}");
            assert!(done.err().is_empty(), "--json says it all: {done}");
        }
    }

    fn what_it_says_is_so(who: Who) {
        let run = Run::new(who).args(["--memory", "300m", "--pids-limit", "50", "--timeout", "20s", "--max-output", "64k"]);
        let done = run.json_result().python("import sys; print('out'); print('err', file=sys.stderr)").done();
        let json = done.json();
        assert_eq!(json["id"], done.run.name.as_str());
        assert_eq!((&json["runtime"], &json["isolation"], &json["verdict"]), (&"python".into(), &"native".into(), &"ok".into()));
        assert_eq!((&json["exit_code"], &json["stdout"], &json["stderr"]), (&0.into(), &"out\n".into(), &"err\n".into()));
        assert_eq!(json["limits"]["memory_bytes"], 300 << 20);
        assert_eq!(json["limits"]["pids"], 50);
        assert_eq!(json["limits"]["timeout_ms"], 20_000);
        assert_eq!(json["limits"]["output_bytes"], 65_536);
        assert_eq!(json["controls"]["user_namespace"], true);
        assert_eq!(json["controls"]["seccomp"], "default");
        assert_eq!(json["controls"]["network"], "none");
        assert_eq!(json["controls"]["capabilities"], "none");
        assert_eq!(json["controls"]["no_new_privs"], true);
        for time in [&json["duration_ms"], &json["setup_ms"], &json["usage"]["cpu_ms"]] {
            assert!(time.as_f64().is_some_and(|ms| ms > 0.0), "{json}");
        }
        assert!(json["usage"]["peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{json}");
    }

    fn output_that_is_no_text_is_exact_in_base64(who: Who) {
        let json = Run::new(who).json_result().cmd("printf 'a\\377b'").done().json();
        assert_eq!((&json["stdout"], &json["stdout_base64"]), (&"a\u{FFFD}b".into(), &"Yf9i".into()), "{json}");
        assert!(json.get("stderr_base64").is_none(), "{json}");
        let json = Run::new(who).json_result().cmd("echo text").done().json();
        assert!(json.get("stdout_base64").is_none(), "{json}");
    }

    fn refused_calls_are_told_with_what_would_allow_them(who: Who) {
        let code = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfor _ in range(3): libc.ptrace(0, 0, 0, 0)\nprint(ctypes.get_errno())";
        let json = Run::new(who).json_result().python(code).done().expect_verdict("ok").json();
        assert_eq!(json["stdout"], "1\n", "{json}");
        let denials = json["denials"].as_array().unwrap();
        let ptrace = denials.iter().find(|denial| denial["target"] == "ptrace").unwrap_or_else(|| panic!("{json}"));
        assert_eq!((&ptrace["kind"], &ptrace["count"]), (&"syscall".into(), &3.into()), "{json}");
        assert!(ptrace["hint"].as_str().is_some_and(|hint| hint.contains("--")), "{json}");
    }

    fn events_come_in_order(who: Who) {
        let done = Run::new(who).arg("--events").python("import sys, ctypes\nprint('out', flush=True)\nprint('err', file=sys.stderr)\nctypes.CDLL(None).ptrace(0,0,0,0)").done().expect_code(0);
        let events: Vec<Value> = done.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!((kinds.first(), kinds.last()), (Some(&"start"), Some(&"exit")), "{done}");
        for kind in ["stdout", "stderr", "denial"] {
            assert!(kinds.contains(&kind), "no {kind}: {done}");
        }
        let times: Vec<_> = events.iter().map(|event| event["time_ms"].as_f64().unwrap()).collect();
        assert!(times.is_sorted(), "{done}");
        assert_has_keys(events.last().unwrap(), &KEYS);
        assert_eq!(events[0]["id"], done.run.name.as_str());
    }

    /// What the program does may be heard of before the init has told of its start.
    fn the_start_is_first_however_soon_the_program_acts(who: Who) {
        for _ in 0..15 {
            for (run, second) in [
                (Run::new(who).program_args(["/bin/echo", "at once"]), "stdout"),
                (Run::new(who).probe().program_args(["./probe", "calls", &format!("ptrace:{},0,0,0,0", libc::SYS_ptrace)]), "denial"),
            ] {
                let done = run.arg("--events").done().expect_code(0);
                let events: Vec<Value> = done.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                assert_eq!((&events[0]["event"], &events[1]["event"]), (&"start".into(), &second.into()), "{done}");
            }
        }
    }

    fn without_json_there_is_only_the_programs_output(who: Who) {
        let done = Run::new(who).cmd("echo out; echo err >&2; exit 4").done().expect_code(4).expect_out("out\n");
        assert_eq!(done.err(), "err\n", "{done}");
    }
}
