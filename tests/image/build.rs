//! `image build`: recipes, what they become, and when nothing is made anew.

pub mod shop;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, sync::OnceLock};

use serde_json::json;

use crate::{
    both,
    common::{Who, granted_ids, skip},
};
use shop::{Shop, has, index, module, text, wheel};

const BUSYBOX: (&str, &str) = ("/usr/bin/busybox", "busybox-static");
const PYTHON: (&str, &str) = ("/usr/bin/python3", "python3");
const PIP: (&str, &str) = ("/usr/lib/python3/dist-packages/pip", "python3-pip");
const NPM: (&str, &str) = ("/usr/bin/npm", "npm");

/// A recipe of busybox alone, and what is added.
fn small(more: &str) -> String {
    let shell = "[[files]]\nlink = \"/usr/bin/busybox\"\nto = \"/bin/sh\"\n";
    format!("name = \"small\"\nbase = \"scratch\"\nhost = [\"/usr/bin/busybox\"]\n{more}\n{shell}")
}

/// The host's Python, with all that it needs.
fn python() -> String {
    let asked = ["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"];
    let library = Command::new("/usr/bin/python3").args(asked).output().unwrap();
    format!("name = \"py\"\nbase = \"scratch\"\nhost = [\"/usr/bin/python3\", {:?}]\n", text(&library.stdout).trim())
}

both! {
    fn programs_of_the_host_come_with_what_they_need(who: Who) {
        if !has("programs_of_the_host", &[BUSYBOX]) {
            return;
        }
        let shop = Shop::new(who);
        // A program with libraries, one without, a script with what runs it.
        shop.build("name = \"some\"\nbase = \"scratch\"\nhost = [\"bash\", \"busybox\", \"ldd\", \"sort\"]\n", &[]);
        let out = shop.run_image("some").program_args(["bash", "-c", "echo a | sort; ldd --version >/dev/null && echo b"]);
        out.done().expect_code(0).expect_out("a\nb\n");
        // Links are links, and what is not of root here is inside.
        let line = "for f in /usr/bin/*; do set -- $(busybox stat -c '%u %a' $f); echo $1 $2; done | busybox sort -u; busybox ls /usr/bin | busybox wc -l";
        let out = shop.run_image("some").program_args(["bash", "-c", line]).done().expect_code(0).out();
        assert!(out.lines().all(|line| ["0 755", "0 777", "4"].contains(&line) || who == Who::User), "{out}");
        let says = shop.says("some");
        assert_eq!(says["created"], "2025-01-01T00:00:00Z", "{says}");
        let error = shop.error_of("base = \"scratch\"\nname = \"x\"\nhost = [\"no-such-program\"]\n");
        assert!(error.contains("no program called `no-such-program` on this host"), "{error}");
    }

    fn files_and_words_are_the_recipes(who: Who) {
        if !has("files_and_words", &[BUSYBOX]) {
            return;
        }
        let shop = Shop::new(who);
        shop.place.write("app/run", "#!/bin/sh\necho ran $A\n");
        fs::set_permissions(shop.place.join("app/run"), fs::Permissions::from_mode(0o700)).unwrap();
        shop.place.write("app/data/x", "data\n");
        std::os::unix::fs::symlink("data/x", shop.place.join("app/link")).unwrap();
        let recipe = small(
            "entrypoint = [\"/app/run\"]\ncmd = [\"x\"]\nworkdir = \"/app/data\"\nuser = \"7:8\"\nvolumes = [\"/vol\"]\n\
             expose = [80, \"53/udp\"]\nstop-signal = \"SIGINT\"\n[env]\nA = \"one two\"\n[labels]\n\"org.x\" = \"y\"\n\
             [[files]]\nfrom = \"app\"\nto = \"/\"\n[[files]]\ntext = \"told\\n\"\nto = \"/etc/told\"\nmode = \"600\"\nowner = \"7:8\"\n\
             [[files]]\nto = \"/srv/empty\"\nmode = \"1777\"\n[[files]]\nfrom = \"app/data/x\"\nto = \"/etc/\"",
        );
        let built = shop.build(&recipe, &[]);
        let image = shop.says("small");
        let says = &image["config"];
        let wanted = json!({"Entrypoint": ["/app/run"], "Cmd": ["x"], "WorkingDir": "/app/data", "User": "7:8",
            "Volumes": {"/vol": {}}, "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "StopSignal": "SIGINT",
            "Env": ["A=one two"], "Labels": {"org.x": "y"}});
        assert_eq!(says, &wanted, "{image}");
        assert_eq!((&image["digest"], &built["names"]), (&built["digest"], &json!(["docker.io/library/small:latest"])));
        shop.run_image("small").done().expect_code(0).expect_out("ran one two\n");
        let line = "cd /; busybox stat -c '%n %a %u:%g' app app/run app/data/x etc/told srv/empty etc/x; busybox readlink app/link; busybox cat etc/told";
        let out = shop.run_image("small").args(["--entrypoint", "sh"]).program_args(["-c", line]).done().expect_code(0).out();
        let other = if who == Who::Root { "0:0" } else { "7:8" };
        let lines = ["app 755", "app/run 755", "app/data/x 644", "etc/told 600", "srv/empty 1777", "etc/x 644"];
        let wanted: String =
            lines.iter().map(|line| format!("{line} {}\n", if line.starts_with("etc/told") { "7:8" } else { other })).collect();
        assert_eq!(out, wanted + "data/x\ntold\n");
    }

    fn what_has_not_changed_is_not_made_again(who: Who) {
        if !has("what_has_not_changed", &[BUSYBOX]) {
            return;
        }
        let (shop, other) = (Shop::new(who), Shop::new(who));
        let recipe = small("setup = \"\"\"echo made > /made; mkdir /d; echo x > /d/b; echo x > /d/a; rm /f/gone\"\"\"\n[[files]]\nfrom = \"f\"\nto = \"/f\"");
        let cached = |built: &serde_json::Value| -> Vec<bool> {
            built["steps"].as_array().unwrap().iter().map(|step| step["unchanged"].as_bool().unwrap()).collect()
        };
        for shop in [&shop, &other] {
            shop.place.write("f/x", "one");
            shop.place.write("f/gone", "");
        }
        // Times and a umask of one's own show nowhere.
        fs::set_permissions(other.place.join("f/x"), fs::Permissions::from_mode(0o600)).unwrap();
        let (first, elsewhere) = (shop.build(&recipe, &[]), other.build(&recipe, &[]));
        assert_eq!(first["digest"], elsewhere["digest"]);
        assert_eq!((cached(&first), &first["unchanged"]), (vec![false; 3], &json!(false)));
        let again = shop.call(&["image", "build", "./recipe.toml"]);
        let said = text(&again.stderr);
        let digest = first["digest"].as_str().unwrap();
        assert!(said.contains(&format!("unchanged: {digest}")) && said.contains("setup: unchanged"), "{said}");
        let forced = shop.build(&recipe, &["--no-cache"]);
        assert_eq!((&forced["digest"], cached(&forced)), (&first["digest"], vec![false; 3]));
        shop.place.write("f/x", "two");
        let changed = shop.build(&recipe, &["-t", "mine:2", "-t", "other"]);
        assert_eq!(cached(&changed), [true, false, false], "what stands on it is another");
        assert_ne!(changed["digest"], first["digest"]);
        assert_eq!(changed["names"], json!(["docker.io/library/mine:2", "docker.io/library/other:latest"]));
        shop.run_image("mine:2").cmd("busybox cat /f/x /made; busybox ls /f /d").done().expect_code(0)
            .expect_out("twomade\n/d:\na\nb\n\n/f:\nx\n");
        // Pruned, it is made again, and the same.
        shop.call(&["image", "rm", "--all"]);
        shop.place.write("f/x", "one");
        let anew = shop.build(&recipe, &[]);
        assert_eq!((&anew["digest"], cached(&anew)), (&first["digest"], vec![false; 3]));
    }

    fn a_base_that_is_run_otherwise_is_another(who: Who) {
        if !has("a_base_that_is_run_otherwise", &[BUSYBOX]) {
            return;
        }
        let shop = Shop::new(who);
        let base = |value: &str| shop.build(&small(&format!("[env]\nA = \"{value}\"")), &["-t", "base"]);
        let top = "name = \"top\"\nbase = \"base\"\nsetup = \"echo $A > /a\"\n";
        for value in ["one", "two"] {
            base(value);
            shop.build(top, &[]);
            shop.run_image("top").cmd("busybox cat /a").done().expect_code(0).expect_out(&format!("{value}\n"));
        }
        assert_eq!(shop.build(top, &[])["unchanged"], true);
    }

    fn files_are_below_the_recipe(who: Who) {
        let shop = Shop::new(who);
        shop.place.write("secret", "s");
        shop.place.write("in/data/x", "x");
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, shop.place.join(at)).unwrap();
        link("../secret", "in/out");
        link("..", "in/up");
        link("data/x", "in/fine");
        let said = |from: &str| {
            let recipe = format!("name = \"x\"\nbase = \"scratch\"\n[[files]]\nfrom = \"{from}\"\nto = \"/x\"\n");
            shop.place.write("in/recipe.toml", recipe);
            shop.try_call(&["image", "build", "in/recipe.toml", "--quiet"])
        };
        for from in ["/etc/passwd", "../secret", "out", "up/secret", "data/../../secret", "/proc/self/root/etc/passwd"] {
            let (output, wanted) = (said(from), format!("error: `{from}` leads out of the recipe's directory `in`"));
            let error = text(&output.stderr);
            assert!(output.status.code() == Some(125) && error.contains(&wanted) && error.contains("hint: "), "{error}");
        }
        for from in ["fine", "data/x", "data/../data/x", "data", "."] {
            let output = said(from);
            assert!(output.status.success(), "{from}: {}", text(&output.stderr));
        }
        // What would remove something of the base is no file.
        shop.place.write("in/data/.wh.etc", "");
        let error = text(&said("data").stderr);
        assert!(error.contains("error: `x/.wh.etc` has a name that would remove another file"), "{error}");
    }

    fn files_come_to_lie_where_links_of_the_base_lead(who: Who) {
        let shop = Shop::new(who);
        let base = "[[files]]\nto = \"/etc\"\n[[files]]\nto = \"/real/bin\"\nmode = \"700\"\n[[files]]\nlink = \"real/bin\"\nto = \"/bin\"\n[[files]]\nlink = \"/../../../../etc\"\nto = \"/out\"\n";
        shop.build(&format!("name = \"base\"\nbase = \"scratch\"\nhost = [\"/usr/bin/busybox\"]\n[env]\nA = \"base\"\nB = \"base\"\n{base}"), &[]);
        shop.place.write("tree/x", "");
        let recipe = "name = \"top\"\nbase = \"base\"\n[env]\nB = \"top\"\n[[files]]\ntext = \"x\"\nto = \"/bin/x\"\n[[files]]\ntext = \"x\"\nto = \"/out/planted\"\n[[files]]\nfrom = \"tree\"\nto = \"/real/bin\"\n";
        shop.build(recipe, &[]);
        let line = "readlink /bin; stat -c %a /real/bin; ls /real/bin /etc; echo $A $B";
        let applets = "busybox mkdir -p /tmp/a && busybox --install -s /tmp/a; PATH=/tmp/a; ";
        let out = shop.run_image("top").args(["--user", "0"]).program_args(["/usr/bin/busybox", "sh", "-c", &(applets.replace("busybox", "/usr/bin/busybox") + line)]);
        out.done().expect_code(0).expect_out("real/bin\n700\n/etc:\nplanted\n\n/real/bin:\nx\nbase top\n");
        assert!(!Path::new("/etc/planted").exists());
    }

    fn a_setup_script_is_root_of_its_own_alone(who: Who) {
        if !has("a_setup_script", &[BUSYBOX]) {
            return;
        }
        let shop = Shop::new(who);
        let marker = shop.place.text("marker");
        let recipe = small(&format!(
            "setup = \"\"\"\nbusybox id -u > /who\nbusybox ip link | busybox grep -c UP > /links || true\n\
             busybox cat {marker} > /seen 2>/dev/null || echo closed > /seen\necho $A > /said\necho gone > /tmp/gone\n\"\"\"\n[env]\nA = \"b\""
        ));
        shop.build(&recipe, &[]);
        shop.run_image("small").cmd("busybox cat /who /seen /said; busybox ls /tmp /fumehood 2>/dev/null").done().out()
            .lines().eq(["0", "closed", "b", "/tmp:"]).then_some(()).expect("what the script saw");
        // What it says is seen, and a failure is one.
        shop.place.write("recipe.toml", small("setup = \"echo before; nosuchcommand; echo after\"").replace("small", "bad"));
        let error = shop.error(&["image", "build", "./recipe.toml"]);
        assert!(error.contains("before") && !error.contains("after") && error.contains("error: setup: it failed with status 127"), "{error}");
        assert!(!text(&shop.call(&["image", "list"]).stdout).contains("bad"));
        let left: Vec<_> = fs::read_dir(shop.store().join("making")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        // That of registries is a gateway's.
        let (known, other) = (index(shop.place.path().to_owned()), index(shop.place.path().to_owned()));
        let reach = |port: u16| {
            format!(
                r"exec 3<>/dev/tcp/198.18.0.1/3128
printf 'GET http://127.0.0.1:{port}/gone HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n' >&3
busybox head -n 1 <&3 >> /reached
"
            )
        };
        let script = format!(
            "#!/usr/bin/bash\nbusybox ip -o link | busybox wc -l > /reached\n{}{}",
            reach(known.port),
            reach(other.port)
        );
        let recipe = small(&format!("network = \"packages\"\nsetup = '''{script}'''"));
        shop.place.write("recipe.toml", recipe.replace("[\"/usr/bin/busybox\"]", "[\"/usr/bin/busybox\", \"/usr/bin/bash\"]"));
        let said = text(&shop.call(&["image", "build", "./recipe.toml", "-t", "reach", "--mirror", &format!("http://127.0.0.1:{}/", known.port)]).stderr);
        assert!(said.contains(&format!("fumehood: denied: connection to 127.0.0.1:{}", other.port)), "{said}");
        let reached = shop.run_image("reach").cmd("busybox cat /reached; busybox ls /etc/resolv.conf").done().out();
        assert!(reached.starts_with("2\n") && reached.contains("404") && reached.contains("403") && !reached.contains("resolv"), "{reached}");
        assert_eq!((known.asked().len(), other.asked().len()), (1, 0));
        // What a recipe names itself is not reached next door.
        let own = format!("name = \"own\"\nbase = \"reach\"\nmirror = \"http://127.0.0.1:{}/\"\nnetwork = \"packages\"\nsetup = '''{script}'''\n", known.port);
        shop.place.write("recipe.toml", own);
        shop.try_call(&["image", "build", "./recipe.toml"]);
        assert_eq!((known.asked().len(), other.asked().len()), (1, 0));
        // With a line that says so it is any script, and it has the host's network only when it asks.
        let script = "setup = \"#!/usr/bin/busybox sh\\nbusybox ip -o link > /links\\n\"";
        shop.build(&small(&format!("{script}\nnetwork = \"host\"")), &["-t", "wide"]);
        shop.build(&small(script), &["-t", "narrow"]);
        let links = |image: &str| {
            shop.run_image(image).cmd("busybox wc -l < /links").done().expect_code(0).out().trim().parse::<usize>().unwrap()
        };
        let here = fs::read_dir("/sys/class/net").unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
        let (narrow, wide) = (links("narrow"), links("wide"));
        // Others of the host may come and go.
        assert!(narrow == 1 && (here == 1 || wide > 1), "{narrow} {wide} {here}");
        shop.place.write("recipe.toml", small(&format!("{script}\nnetwork = \"host\"")));
        let said = text(&shop.call(&["image", "build", "./recipe.toml", "--no-cache"]).stderr);
        assert!(said.contains("setup: this step shares this host's network"), "{said}");
    }

    fn a_setup_script_can_give_files_away_and_no_more(who: Who) {
        let test = "a_setup_script_can_give_files_away";
        if !has(test, &[BUSYBOX]) || (who == Who::User && granted_ids(who, test).is_none()) {
            return;
        }
        let shop = Shop::new(who);
        let script = "busybox grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status > /status\n\
                      echo x > /given; busybox chown 7:8 /given; busybox chmod 6755 /given\n\
                      for try in 'mknod /dev/x c 1 3' 'mknod /y b 7 0' 'mount -t tmpfs x /tmp' 'chroot / busybox true' 'hostname x' 'unshare -m busybox true'; do\n\
                      if busybox $try 2>/dev/null; then echo $try >> /status; fi; done";
        shop.build(&small(&format!("setup = \"\"\"\n{script}\n\"\"\"")), &[]);
        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID.
        let some = "00000000000000db";
        let none = "0000000000000000";
        let wanted = format!("CapInh:\t{none}\nCapPrm:\t{some}\nCapEff:\t{some}\nCapBnd:\t{some}\nCapAmb:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2\n");
        let run = shop.run_image("small").args(["--user", "0"]).cmd("busybox cat /status; busybox stat -c '%a %u:%g' /given");
        let whose = if who == Who::Root { "7:8" } else { "0:0" };
        run.done().expect_code(0).expect_out(&format!("{wanted}6755 {whose}\n"));
    }

    fn apt_puts_packages_on_an_image(who: Who) {
        let test = "apt_puts_packages_on_an_image";
        if !has(test, &[BUSYBOX, ("/usr/bin/mmdebstrap", "mmdebstrap")]) || (who == Who::User && granted_ids(who, test).is_none()) {
            return;
        }
        let mirror = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mirror")).output();
        let Ok(mirror) = mirror.map(|output| text(&output.stdout).trim().to_owned()) else { return skip(test, "scripts/mirror does not run") };
        let shop = Shop::new(who);
        let base = debian_with_apt(who, &mirror);
        shop.place.write("base.tar", base);
        shop.call(&["image", "import", "base.tar", "--name", "debian-with-apt"]);
        // One with a group of its own and a file that is its own, and one more.
        let recipe = "name = \"more\"\nbase = \"debian-with-apt\"\n[packages]\napt = [\"hello\", \"openssh-client\"]\n";
        let built = shop.build(recipe, &[]);
        let again = shop.build(recipe, &["--no-cache"]);
        assert_eq!((&built["digest"], &again["unchanged"]), (&again["digest"], &json!(false)));
        assert_eq!(shop.build(recipe, &[])["unchanged"], true);
        let line = "hello; stat -c '%a %U:%G' /usr/bin/ssh-agent; dpkg -s hello | grep ^Status; ls /usr/sbin/policy-rc.d /var/cache/fumehood /etc/resolv.conf /var/log/apt /var/log/dpkg.log 2>/dev/null";
        let whose = if who == Who::Root { "root:_ssh" } else { "root:root" };
        let wanted = format!("Hello, world!\n2755 {whose}\nStatus: install ok installed\n");
        shop.run_image("more").args(["--user", "0"]).program_args(["/bin/sh", "-c", line]).done().expect_out(&wanted);
        // A mirror stands in place of what the image says.
        let error = { shop.place.write("recipe.toml", recipe); shop.error(&["image", "build", "./recipe.toml", "--mirror", "http://127.0.0.1:1/debian"]) };
        assert!(error.contains("http://127.0.0.1:1/debian") && error.contains("error: apt: it failed with status 100"), "{error}");
        shop.place.write("recipe.toml", recipe.replace("hello", "no-such-package"));
        let error = shop.error(&["image", "build", "./recipe.toml"]);
        assert!(error.contains("Unable to locate package no-such-package"), "{error}");
    }

    fn a_base_without_apt_is_told(who: Who) {
        if !has("a_base_without_apt", &[BUSYBOX]) {
            return;
        }
        let shop = Shop::new(who);
        shop.build(&small(""), &[]);
        let error = shop.error_of("name = \"x\"\nbase = \"small\"\n[packages]\napt = [\"hello\"]\n");
        assert!(error.contains("error: the base has no apt-get, which is to install hello") && error.contains("hint: "), "{error}");
    }

    fn what_is_no_recipe_is_told(who: Who) {
        let shop = Shop::new(who);
        let error = shop.error_of("name = \"x\"\nbase = \"scratch\"\n\n[packages]\nyum = [\"a\"]\n");
        assert!(error.starts_with("error: ./recipe.toml:5: unknown field `yum`"), "{error}");
        let error = shop.error_of("base = \"scratch\"\n");
        assert!(error.contains("gives no name") && error.contains("hint: "), "{error}");
        let error = shop.error_of("name = \"x\"\nbase = \"not-there:1\"\n");
        assert!(error.contains("no image called `not-there:1`"), "{error}");
        let error = shop.error_of("name = \"x\"\nbase = \"scratch\"\n[[files]]\nfrom = \"gone\"\nto = \"/x\"\n");
        assert!(error.contains("cannot find ./gone: No such file"), "{error}");
        let error = shop.error_of("name = \"x\"\nbase = \"scratch\"\nsetup = \"true\"\n");
        assert!(error.contains("needs something that can run it"), "{error}");
        let error = shop.error(&["image", "build", "pyhton"]);
        assert!(error.contains("did you mean `python`?"), "{error}");
        let error = shop.error(&["image", "build", "./gone.toml"]);
        assert!(error.contains("recipe `./gone.toml`: No such file"), "{error}");
        let error = shop.error(&["image", "build", "bash", "--index-url", "gopher://x"]);
        assert!(error.contains("neither a URL nor a directory"), "{error}");
        for mirror in ["--setup-hook=touch /x", "file:///", "http://u:p@127.0.0.1/", "http://127.0.0.1/ x"] {
            let error = shop.error(&["image", "build", "bash", &format!("--mirror={mirror}")]);
            assert!(error.contains(&format!("mirror `{mirror}` ")), "{error}");
        }
        // Nothing of a recipe is an option of a program of the host's.
        let marker = shop.place.join("marked");
        let recipe = format!("name = \"x\"\nbase = \"debian:bookworm\"\nmirror = \"--setup-hook=touch {}\"\n", marker.display());
        let error = shop.error_of(&recipe);
        assert!(error.contains("recipe.toml:3: mirror `--setup-hook"), "{error}");
        assert!(!marker.exists());
        let listed = text(&shop.call(&["image", "build", "--list"]).stdout);
        assert!(["bash", "python-data", "agent"].iter().all(|name| listed.contains(name)), "{listed}");
        assert!(text(&shop.call(&["image", "list"]).stdout).lines().count() <= 1, "nothing was made");
    }

    fn pip_puts_packages_into_an_image(who: Who) {
        if !has("pip_puts_packages", &[PYTHON, PIP]) {
            return;
        }
        let shop = Shop::new(who);
        wheel(&shop.place, "wheels", "toy", 41);
        let recipe = format!("{}entrypoint = [\"python3\"]\n[packages]\npip = [\"toy==1.0\"]\n", python());
        let (first, again) = (shop.build(&recipe, &["--index-url", "wheels"]), shop.build(&recipe, &["--index-url", "wheels"]));
        assert_eq!((&first["digest"], &again["unchanged"]), (&again["digest"], &json!(true)));
        assert_eq!(shop.build(&recipe, &["--index-url", "wheels", "--no-cache"])["digest"], first["digest"]);
        let code = "import toy, sys; print(toy.NUMBER, toy.__file__.startswith('/usr'), sys.flags.isolated)";
        shop.run_image("py").program_args(["-c", code]).done().expect_code(0).expect_out("41 True 0\n");
        // Packages for one run stand beside the image's.
        wheel(&shop.place, "more", "extra", 1);
        let code = "import toy, extra; print(toy.NUMBER + extra.NUMBER)";
        let run = shop.run_image("py").args(["--install", "extra", "--index-url"]).arg(shop.place.join("more"));
        run.args(["-r", "python", "-e", code]).done().expect_code(0).expect_out("42\n");
        // What pip says of a failure is seen.
        let bad = recipe.replace("toy==1.0", "toy==9.0");
        shop.place.write("recipe.toml", bad);
        let error = shop.error(&["image", "build", "./recipe.toml", "--index-url", "wheels"]);
        assert!(error.contains("No matching distribution found for toy==9.0") && error.contains("error: pip could not install"), "{error}");
    }

    fn npm_puts_packages_into_an_image_from_an_index(who: Who) {
        if !has("npm_puts_packages", &[BUSYBOX, NPM]) {
            return;
        }
        let shop = Shop::new(who);
        shop.place.write("modules/toy-1.0.0.tgz", module("toy", 42));
        let served = index(shop.place.join("modules"));
        let recipe = small("[packages]\nnpm = [\"toy\"]");
        let url = format!("http://127.0.0.1:{}/", served.port);
        shop.place.write("recipe.toml", &recipe);
        let output = shop.call(&["image", "build", "./recipe.toml", "--index-url", &url, "--json"]);
        assert!(!text(&output.stderr).contains("network"), "{}", text(&output.stderr));
        let from_url: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let line = "busybox cat /usr/local/lib/node_modules/toy/index.js";
        shop.run_image("small").cmd(line).done().expect_code(0).expect_out("exports.number = 42;\n");
        assert!(served.asked().iter().any(|asked| asked.path == "/toy"));
        // From a directory it is the same, and needs nobody.
        let asked = served.asked().len();
        shop.build(&recipe, &["--index-url", "modules"]);
        shop.run_image("small").cmd(line).done().expect_code(0).expect_out("exports.number = 42;\n");
        assert_eq!(served.asked().len(), asked);
        assert_eq!(shop.build(&recipe, &["--index-url", &url, "--no-cache"])["digest"], from_url["digest"]);
    }

    fn debian_is_made_by_mmdebstrap(who: Who) {
        let test = "debian_is_made_by_mmdebstrap";
        if !has(test, &[("/usr/bin/mmdebstrap", "mmdebstrap")]) || (who == Who::User && granted_ids(who, test).is_none()) {
            return;
        }
        let mirror = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mirror")).output();
        let Ok(mirror) = mirror.map(|output| text(&output.stdout).trim().to_owned()) else { return skip(test, "scripts/mirror does not run") };
        let shop = Shop::new(who);
        // Root makes a whole small system, which takes the longer; either makes the same of what is only unpacked.
        let extract = "name = \"deb\"\nbase = \"debian:bookworm\"\nvariant = \"extract\"\n[packages]\napt = [\"busybox-static\"]\n";
        let built = shop.build(extract, &["--mirror", &mirror]);
        shop.run_image("deb").program_args(["/bin/busybox", "echo", "a"]).done().expect_code(0).expect_out("a\n");
        assert!(shop.build(extract, &["--mirror", &mirror])["unchanged"] == true);
        if who == Who::Root {
            let other = Shop::new(Who::Root);
            assert_eq!(other.build(extract, &["--mirror", &mirror])["digest"], built["digest"]);
        }
        shop.place.write("recipe.toml", "name = \"x\"\nbase = \"debian:nosuchsuite\"\n");
        let error = shop.error(&["image", "build", "./recipe.toml", "--mirror", &mirror]);
        assert!(error.contains("error: mmdebstrap: "), "{error}");
    }
}

/// The smallest Debian that has apt, as an archive: made once for all tests.
fn debian_with_apt(who: Who, mirror: &str) -> &'static [u8] {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    MADE.get_or_init(|| {
        let shop = Shop::new(who);
        shop.build("name = \"base\"\nbase = \"debian:bookworm\"\nvariant = \"apt\"\n", &["--mirror", mirror]);
        shop.call(&["image", "export", "base", "base.tar"]);
        fs::read(shop.place.join("base.tar")).unwrap()
    })
}

impl Shop {
    /// What building `recipe.toml` of this content fails with.
    #[track_caller]
    fn error_of(&self, recipe: &str) -> String {
        self.place.write("recipe.toml", recipe);
        let error = self.error(&["image", "build", "./recipe.toml", "--quiet"]);
        assert!(error.starts_with("error: ") && error.lines().count() <= 2, "{error}");
        error
    }
}
