//! `run --install`.

use std::{fs, process::Command, thread};

use crate::{
    both,
    build::shop::{Shop, has, index, module, wheel},
    common::Who,
    registry::liar::{Liar, ok, status},
};

const PIP: [(&str, &str); 2] = [("/usr/bin/python3", "python3"), ("/usr/lib/python3/dist-packages/pip", "python3-pip")];
const NPM: [(&str, &str); 2] = [("/usr/bin/node", "nodejs"), ("/usr/bin/npm", "npm")];

both! {
    fn packages_of_pip_are_there_for_the_run(who: Who) {
        if !has("packages_of_pip", &PIP) {
            return;
        }
        let shop = Shop::new(who);
        wheel(&shop.place, "wheels", "toy", 42);
        let run = |code: &str| {
            let run = shop.run().args(["--install", "toy", "--index-url"]).arg(shop.place.join("wheels"));
            run.args(["-e", code]).done()
        };
        let first = run("import toy; print(toy.NUMBER)").expect_code(0).expect_out("42\n");
        assert_eq!(first.err(), "fumehood: pip installs toy\n", "without the network");
        // At once, and without a word, the next time; nothing is written to them, and there is no network by them.
        let code = "import toy, socket\ntry: open(toy.__file__, 'a')\nexcept OSError as error: print(error.strerror)\n\
                    print(toy.NUMBER, [name for _, name in socket.if_nameindex()])";
        let again = run(code).expect_code(0).expect_out("Read-only file system\n42 ['lo']\n");
        assert_eq!(again.err(), "");
        // What is in the directory now is what counts.
        wheel(&shop.place, "wheels", "toy", 43);
        // What somebody has left who was killed goes with it.
        shop.place.write("store/making/dead/scratch/x", "");
        run("import toy; print(toy.NUMBER)").expect_code(0).expect_out("43\n");
        assert!(!shop.store().join("making/dead").exists());
        let explained = shop.run_verb("explain").args(["--install", "toy", "--index-url"]).arg(shop.place.join("wheels"));
        assert!(explained.args(["-e", "1"]).done().expect_code(0).out().contains("/fumehood/packages"));
        // Nobody uses them now.
        assert_eq!(fs::read_dir(shop.store().join("packages")).unwrap().count(), 2);
        shop.call(&["image", "prune"]);
        assert_eq!(fs::read_dir(shop.store().join("packages")).unwrap().count(), 0);
    }

    fn an_index_on_loopback_is_asked(who: Who) {
        if !has("an_index_on_loopback", &PIP) {
            return;
        }
        let shop = Shop::new(who);
        wheel(&shop.place, "wheels", "toy", 42);
        let served = index(shop.place.join("wheels"));
        let url = format!("http://127.0.0.1:{}/simple", served.port);
        let run = |package: &str| {
            shop.run().args(["--install", package, "--index-url", &url, "-e", "import toy; print(toy.NUMBER)"]).done()
        };
        let first = run("toy").expect_code(0).expect_out("42\n");
        assert_eq!(first.err(), "fumehood: pip installs toy\n");
        let asked = served.asked().len();
        run("toy").expect_code(0).expect_out("42\n");
        assert_eq!(served.asked().len(), asked, "it is kept");
        // Why it cannot be is pip's to say.
        let failed = run("toy==2.0").expect_code(125);
        let err = failed.err();
        assert!(err.contains("No matching distribution found for toy==2.0"), "{err}");
        assert!(err.contains("error: pip could not install toy==2.0"), "{err}");
        let left: Vec<_> = fs::read_dir(shop.store().join("making")).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// What a package runs when it is installed gets no further either: it is the same sandbox's.
    fn an_index_leads_to_nobody_else_on_this_host(who: Who) {
        if !has("an_index_leads_to_nobody_else", &PIP) {
            return;
        }
        let shop = Shop::new(who);
        wheel(&shop.place, "wheels", "toy", 42);
        let other = index(shop.place.join("wheels"));
        let link = format!("<a href=\"http://127.0.0.1:{}/files/toy-1.0-py3-none-any.whl\">toy-1.0-py3-none-any.whl</a>", other.port);
        let liar = Liar::start(move |_| ok("Content-Type: text/html\r\n", link.as_bytes()));
        let url = format!("http://localhost:{}/simple", liar.port);
        let failed = shop.run().args(["--install", "toy", "--index-url", &url, "-e", "import toy"]).done().expect_code(125);
        let wanted = format!("fumehood: denied: connection to 127.0.0.1:{} (loopback addresses)", other.port);
        assert!(failed.err().contains(&wanted), "{failed}");
        assert!(!liar.asked().is_empty() && other.asked().is_empty());
    }

    fn a_proxy_of_the_hosts_is_asked(who: Who) {
        if !has("a_proxy_of_the_hosts", &PIP) {
            return;
        }
        let shop = Shop::new(who);
        let proxy = Liar::start(|_| status(403, "", b""));
        let run = shop.run().args(["--install", "toy", "-e", "1"]).env("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port));
        run.env("PIP_INDEX_URL", "https://pypi.org/simple").env("PIP_RETRIES", "0").done().expect_code(125);
        let asked = proxy.asked();
        assert!(!asked.is_empty() && asked.iter().all(|asked| asked.method == "CONNECT" && asked.path == "pypi.org:443"), "{asked:?}");
    }

    fn no_password_is_passed_on(who: Who) {
        if !has("no_password_is_passed_on", &PIP) {
            return;
        }
        let shop = Shop::new(who);
        wheel(&shop.place, "wheels", "toy", 42);
        let served = index(shop.place.join("wheels"));
        let url = format!("http://me:secret@127.0.0.1:{}/simple", served.port);
        let run = || shop.run().args(["--install", "toy", "-e", "import toy; print(toy.NUMBER)"]);
        let err = run().env("PIP_INDEX_URL", &url).done().expect_code(0).expect_out("42\n").err();
        assert!(err.contains("fumehood: PIP_INDEX_URL: without the user and password") && !err.contains("secret"), "{err}");
        let asked = served.asked();
        assert!(!asked.is_empty() && asked.iter().all(|asked| !asked.headers.contains_key("authorization")), "{asked:?}");
        let done = run().args(["--index-url", &url]).done().expect_error("the index has a user or a password in its URL");
        assert!(!done.err().contains("secret"));
    }

    fn of_many_at_once_one_installs(who: Who) {
        if !has("of_many_at_once", &PIP) {
            return;
        }
        let shop = Shop::new(who);
        wheel(&shop.place, "wheels", "toy", 42);
        let served = index(shop.place.join("wheels"));
        let url = format!("http://127.0.0.1:{}/simple", served.port);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let run = shop.run().args(["--install", "toy", "--index-url", &url]);
                    let done = run.args(["-e", "import toy; print(toy.NUMBER)"]);
                    // Others' sandboxes are there meanwhile.
                    let command = done.command();
                    done.finish(command).expect_code(0).expect_out("42\n");
                });
            }
        });
        let fetched = served.asked().iter().filter(|asked| asked.path.starts_with("/files/")).count();
        assert_eq!(fetched, 1);
    }

    fn packages_of_npm_are_imported_either_way(who: Who) {
        if !has("packages_of_npm", &NPM) {
            return;
        }
        let shop = Shop::new(who);
        shop.place.write("modules/toy-1.0.0.tgz", module("toy", 42));
        shop.place.write("modules/s-other-1.0.0.tgz", module("@s/other", 1));
        let run = shop.run().args(["--install", "toy", "--install", "@s/other", "--index-url"]).arg(shop.place.join("modules"));
        let code = "const t = require('toy'); import('@s/other').then(o => console.log(t.number, o.number ?? o.default.number))";
        run.args(["-r", "js", "-e", code]).done().expect_code(0).expect_out("42 1\n");
        let run = shop.run().args(["--quiet", "--install", "gone", "--index-url"]).arg(shop.place.join("modules"));
        run.args(["-r", "js", "-e", "1"]).done().expect_error("no gone in ");
        let served = index(shop.place.join("modules"));
        let run = shop.run().args(["--install", "toy", "--index-url", &format!("http://127.0.0.1:{}", served.port)]);
        run.args(["-r", "js", "-e", "console.log(require('toy').number)"]).done().expect_code(0).expect_out("42\n");
    }

    fn a_gem_is_there_for_the_run(who: Who) {
        if !has("a_gem", &[("/usr/bin/gem", "ruby")]) {
            return;
        }
        let shop = Shop::new(who);
        let about = "Gem::Specification.new do |s|\n s.name = 'toy'\n s.version = '1.0.0'\n s.summary = 'x'\n s.authors = ['x']\n s.files = ['lib/toy.rb']\nend\n";
        shop.place.write("gems/toy.gemspec", about);
        shop.place.write("gems/lib/toy.rb", "module Toy; NUMBER = 42; end\n");
        let mut made = Command::new("/usr/bin/gem");
        made.args(["build", "--quiet", "toy.gemspec"]).current_dir(shop.place.join("gems")).env("HOME", shop.place.path());
        assert!(made.output().unwrap().status.success());
        let run = shop.run().args(["--install", "toy", "--index-url"]).arg(shop.place.join("gems"));
        run.args(["-r", "ruby", "-e", "require 'toy'; require 'json'; puts Toy::NUMBER"]).done().expect_code(0).expect_out("42\n");
        let served = index(shop.place.join("gems"));
        let run = shop.run().args(["--install", "toy", "--index-url", &format!("http://127.0.0.1:{}", served.port)]);
        run.args(["-r", "ruby", "-e", "1"]).done().expect_code(125);
        assert!(!served.asked().is_empty(), "it is reached, and has no gems");
    }

    fn what_cannot_be_installed_is_an_error(who: Who) {
        let shop = Shop::new(who);
        let run = || shop.run();
        run().args(["--install", "--upgrade", "-e", "1"]).done().expect_error("names no package");
        run().args(["--install", "a b", "-e", "1"]).done().expect_error("names no package");
        run().args(["--install", "x", "-r", "bash", "-e", "true"]).done().expect_error("bash has no packages that fumehood installs");
        run().args(["--install", "x", "--cmd", "true"]).done().expect_error("--install");
        run().args(["--index-url", "/usr", "-e", "1"]).done().expect_error("none is named");
        run().args(["--install", "x", "--index-url", "/no/such", "-e", "1"]).done().expect_error("neither a URL nor a directory");
        shop.run_verb("explain").args(["--install", "x", "-e", "1"]).done().expect_error("an explanation installs nothing");
    }
}

impl Shop {
    fn run_verb(&self, verb: &'static str) -> crate::common::Run {
        crate::common::Run::verb(self.who, verb).env("FUMEHOOD_STORE", self.store())
    }
}
