//! Sockets of the host's that have no file: reachable where the network namespace is shared, if nothing else forbids it.

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixListener},
};

use crate::{
    both,
    common::{Run, Who},
};

fn connects(who: Who, args: &[&str]) -> (String, String) {
    let run = Run::new(who);
    let name = format!("fumehood-test-{}", run.name);
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let code = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ntry: s.connect(b'\\0{name}'); print('connected')\nexcept OSError as e: print(e.errno)"
    );
    let done = run.args(args).json_result().python(&code).done().expect_verdict("ok");
    let json = done.json();
    (json["stdout"].as_str().unwrap().to_owned(), json["controls"]["landlock_scopes"].to_string())
}

both! {
    fn cve_2020_15257_abstract_sockets(who: Who) {
        assert_eq!(connects(who, &[]).0, "111\n");
    }

    fn cve_2020_15257_abstract_sockets_with_the_hosts_network(who: Who) {
        let (answer, scopes) = connects(who, &["--net", "host"]);
        // A kernel without the scope (Landlock ABI under 6) can't hold it, and the result says so.
        if scopes.contains("abstract_unix_socket") {
            assert_eq!(answer, "1\n");
        } else {
            assert_eq!((answer.as_str(), scopes.as_str()), ("connected\n", "[]"));
        }
    }

    fn sockets_that_have_a_file_are_not_seen(who: Who) {
        let run = Run::new(who);
        let path = run.place.join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let code = format!("import socket\ns = socket.socket(socket.AF_UNIX)\ntry: s.connect('{}'); print('connected')\nexcept OSError as e: print(e.errno)", path.display());
        run.python(&code).done().expect_out("2\n");
    }

    fn system_v_and_posix_ipc_is_its_own(who: Who) {
        let segments = || std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default().lines().count();
        let before = segments();
        Run::new(who).cmd("ipcmk -M 4096 >/dev/null; ipcs -m | grep -c 0x").done().expect_out("1\n");
        assert_eq!(segments(), before);
        assert!(!std::path::Path::new("/dev/shm/fumehood-was-here").exists());
        Run::new(who).cmd("touch /dev/shm/fumehood-was-here && ls /dev/shm").done().expect_out("fumehood-was-here\n");
        assert!(!std::path::Path::new("/dev/shm/fumehood-was-here").exists());
    }

    /// Vouching for who one is: the ids that arrive are those outside.
    fn the_hosts_loopback_is_not_reached(who: Who) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let code = format!("import socket\nfor host in ('127.0.0.1', '::1', '0.0.0.0', '::ffff:127.0.0.1', '169.254.169.254', '10.0.0.1', '8.8.8.8'):\n  try: socket.create_connection((host, {port}), 1); print('connected', host)\n  except OSError: pass");
        Run::new(who).python(&code).done().expect_out("");
    }
}
