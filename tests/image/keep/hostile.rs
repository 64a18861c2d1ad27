//! Programs that want more of being kept than a layer.

use std::fs;

use super::{Kept, probed};
use crate::{both, common::Who};

both! {
    fn names_that_would_remove_other_files(who: Who) {
        let Some(kept) = Kept::new(who, "names_that_would_remove_other_files") else { return };
        for (number, name) in ["/.wh.etc", "/lower/.wh..wh..opq", "/srv/.wh.", "/.wh..wh.plnk"].into_iter().enumerate() {
            let run = kept.keep(&format!("wh-{number}")).json_result();
            let done = run.cmd(&format!("touch {name}; echo ran")).done().expect_code(125);
            let json = done.json();
            // The program ran, and its result is told.
            assert_eq!((&json["verdict"], &json["stdout"], &json["kept"]), (&"ok".into(), &"ran\n".into(), &serde_json::Value::Null));
            assert_eq!(json["error"]["kind"], "keep");
            let message = json["error"]["message"].as_str().unwrap();
            assert!(message.contains(&name[1..]) && message.contains("removed"), "{message}");
        }
        let done = kept.keep("wh").cmd("mkdir -p /a/.wh.b/c").done().expect_error("not kept");
        assert!(done.err().contains("a/.wh.b"), "{done}");
        assert_eq!(fs::read_dir(kept.made.store().join("runs")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(kept.made.store().join("making")).unwrap().count(), 0);
    }

    fn links_are_kept_and_never_followed(who: Who) {
        let Some(kept) = Kept::new(who, "links_are_kept_and_never_followed") else { return };
        let marker = kept.made.place.text("marker");
        let line = format!(
            "rm -r /lower /srv; B=/bin/busybox; $B ln -s {marker} /out; $B ln -s / /lower; $B ln -s /proc/self/fd/4 /fd; \
             $B ln -s {} /srv; $B ln -s loop /loop; $B ln -s /proc/1/root /root/up; $B ln -s ../../../../../../../../..{marker} /rel",
            kept.made.place.path().display()
        );
        kept.keep("links").cmd(&line).done().expect_code(0);
        assert_eq!(kept.call(&["diff", "@links"]), "A /fd\nA /loop\nC /lower\nA /out\nA /rel\nC /root\nA /root/up\nC /srv\n");
        kept.call(&["commit", "@links", "links"]);
        let done = kept.of("links").args(["--user", "0"]).cmd("for l in out lower fd srv; do readlink /$l; done; cat /out").done();
        assert!(done.out().starts_with(&format!("{marker}\n/\n/proc/self/fd/4\n")), "{done}");
        assert_ne!(done.code, 0, "nothing of the host is behind it: {done}");
        kept.call(&["unpack", "links", "bundle"]);
        assert_eq!(fs::read_link(kept.made.place.join("bundle/rootfs/out")).unwrap().to_str().unwrap(), marker);
        assert_eq!(kept.made.place.read("marker"), "untouched");
    }

    fn there_is_an_end_to_what_is_kept(who: Who) {
        let Some(kept) = Kept::new(who, "there_is_an_end_to_what_is_kept") else { return };
        let line = "/bin/busybox dd if=/dev/null of=/sparse bs=1 seek=1000000000000";
        let done = kept.keep("sparse").args(["--sandbox-size", "8m"]).cmd(line).done().expect_code(125);
        assert!(done.err().contains("`sparse`") && done.err().contains("bytes of files"), "{done}");
        // Deeper than a path can be.
        let line = "d=$(printf 'x%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20); i=0; cd /; \
                    while [ $i -lt 300 ]; do mkdir $d || break; cd $d || break; i=$((i+1)); done";
        let done = kept.keep("deep").cmd(line).done().expect_code(125);
        assert!(done.err().contains("bytes of a path"), "{done}");
        // As many names as there is room for.
        let line = "mkdir /many; i=0; while [ $i -lt 3000 ]; do echo -n > /many/$i || break; i=$((i+1)); done 2>/dev/null; echo $i";
        let done = kept.keep("many").args(["--sandbox-size", "4m"]).cmd(line).done();
        let made: usize = done.out().trim().parse().unwrap();
        assert!(made > 500 && made < 3000, "{done}");
        assert_eq!(kept.call(&["diff", "@many"]).lines().count(), made + 1, "{done}");
        assert_eq!(fs::read_dir(kept.made.store().join("making")).unwrap().count(), 0);
    }

    fn overlayfs_is_not_spoken_to(who: Who) {
        let Some(kept) = Kept::new(who, "overlayfs_is_not_spoken_to") else { return };
        // Neither can a program make a whiteout, nor does what it says in overlayfs' words count.
        let line = "B=/bin/busybox; $B mknod /white c 0 0 && exit 9; mkdir /own; : > /own/f; \
                    for word in opaque whiteout redirect metacopy; do for at in /lower /own /own/f; do \
                    /sandbox/probe calls SET$at,@user.overlay.$word,@y,1,0; done; done >/dev/null; true";
        kept.keep("words").cmd(&probed(line)).done().expect_code(0);
        kept.call(&["commit", "@words", "words"]);
        kept.of("words").args(["--user", "0"]).cmd("cat /lower/a; ls /own").done().expect_code(0).expect_out("af\n");
    }
}
