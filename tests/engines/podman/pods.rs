//! Pods, and what Kubernetes would make of them.

use super::{CONMON_GROUP, Podman};
use crate::{
    both,
    common::{Who, host::eventually},
};

both! {
    fn puts_containers_of_a_pod_into_the_same_namespaces(who: Who) {
        let Some(podman) = Podman::new("podman pod", who) else { return };
        podman.call(&["pod", "create", "--name", "p", "--hostname", "ph", "--network", "none"]).ok();
        let member = |args: &[&str]| podman.call(&[&["run", "--rm", "--pod", "p"], args].concat()).ok();
        let show = "for kind in net ipc uts; do readlink /proc/self/ns/$kind; done; hostname";
        let first = member(&["box", "sh", "-c", show]);
        let second = member(&["box", "sh", "-c", show]);
        assert_eq!(first, second);
        assert_eq!((first.lines().count(), first.lines().last()), (4, Some("ph")));
        podman.call(&["pod", "stop", "p"]).ok();
        podman.call(&["pod", "start", "p"]).ok();
        assert_eq!(member(&["box", "hostname"]), "ph\n");
    }

    fn becomes_what_kubernetes_reads_and_back(who: Who) {
        let Some(podman) = Podman::new("podman kube", who) else { return };
        let call = |args: &[&str]| podman.call(args).ok();
        call(&["pod", "create", "--name", "p", "--network", "none"]);
        let begin = ["run", "--detach", "--pod", "p", "--name", "first", "--env", "A=b", "--user", "1000"];
        call(&[&begin[..], &["box", "sh", "-c", "echo $A; id -u; exec sleep 1000"]].concat());
        let kube = call(&["generate", "kube", "p"]);
        assert!(kube.contains("kind: Pod"), "{kube}");
        podman.remove_pods();
        let file = podman.place.write("pod.yaml", kube);
        let file = file.to_str().unwrap();
        call(&["play", "kube", "--network", "none", file]);
        let mut logs = String::new();
        assert!(eventually(|| { logs = call(&["logs", "p-first"]); logs.lines().count() == 2 }));
        assert_eq!(logs, "b\n1000\n");
        assert_eq!(podman.field("p-first", "OCIRuntime"), "fumehood");
        let down = podman.call(&["play", "kube", "--down", file]);
        assert!(down.code == 0 || down.err.contains(CONMON_GROUP), "{down:?}");
        podman.remove_pods();
        assert_eq!(call(&["ps", "--all", "--quiet"]), "");
    }
}
