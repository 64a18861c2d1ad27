//! Registries that lie, break off, stall and lead elsewhere: each is a clear error or is got over, and nothing has a
//! name that it should not have.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fumehood::image::manifest::{DOCKER_MANIFEST, OCI_INDEX};

use super::{
    Puller, call,
    liar::{self, Asked, Liar, Reply, head, ok, part, start, status},
    made::Made,
    secure::Secure,
};
use crate::{both, common::Who};

/// Of one layer, and its digest.
fn one() -> (Made, String) {
    let made = Made::image(70, &[200_000]);
    let layer = made.layers[0].clone();
    (made, layer)
}

fn is_blob(asked: &Asked, digest: &str) -> bool {
    asked.path.ends_with(&format!("/blobs/{digest}"))
}

fn is_manifest(asked: &Asked) -> bool {
    asked.path.contains("/manifests/")
}

/// The error of a pull from it, and that nothing came of it.
#[track_caller]
fn fails(who: Who, liar: &Liar, options: &[&str], error: &str) {
    let puller = Puller::new(who);
    let retry: &[&str] = if options.contains(&"--retry") { &[] } else { &["--retry", "0"] };
    call(puller.pull(&liar.name("a/b:1")).args(options).args(retry)).expect_error(error);
    puller.check(&[]);
}

/// A pull from it that is right in the end.
#[track_caller]
fn succeeds(who: Who, liar: &Liar, made: &Made, options: &[&str]) {
    let puller = Puller::new(who);
    let name = liar.name("a/b:1");
    call(puller.pull(&name).args(options)).expect_code(0).expect_out(&format!("{name}\n"));
    puller.check(&[&name]);
    puller.check_has(made);
}

both! {
    fn layers_that_are_not_what_they_are_said_to_be(who: Who) {
        let (made, layer) = one();
        let bytes = made.blobs[&layer].clone();
        let mut changed = bytes.clone();
        changed[777] ^= 1;
        let chunked = |bytes: &[u8]| {
            let body = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat();
            head(200, "Transfer-Encoding: chunked\r\n", &body)
        };
        let longer = [&bytes[..], b"more"].concat();
        let lies = [
            (ok("", &changed), "what came for"),
            (ok("", &longer), "bytes to come by its manifest, and the registry sends"),
            (ok("", &bytes[..1000]), "bytes to come by its manifest, and the registry sends 1000"),
            (chunked(&longer), "was said to have"),
            (head(200, "", &longer), "was said to have"),
            (head(200, "", &bytes[..1000]), "ended after 1000 of"),
            (ok("Content-Encoding: gzip\r\n", &bytes), "comes encoded"),
            (part(&bytes, 0), "answers 206"),
            (status(204, "", b""), "answers 204"),
            (status(404, "", b"{}"), "answers 404 to the request for layer"),
            (status(500, "", b"<html>"), "answers 500"),
        ];
        for (lie, error) in lies {
            let digest = layer.clone();
            // However the rest is asked for, it is the same.
            let liar = Liar::of(made.clone(), move |asked| is_blob(asked, &digest).then(|| lie.clone()));
            fails(who, &liar, &[], error);
        }
    }

    fn a_broken_layer_is_gone_on_with(who: Who) {
        let (made, layer) = one();
        let bytes = made.blobs[&layer].clone();
        let broken = head(200, &format!("Content-Length: {}\r\n", bytes.len()), &bytes[..50_000]);

        // It goes on where it ended.
        let (digest, first) = (layer.clone(), broken.clone());
        let liar = Liar::of(made.clone(), move |asked| (is_blob(asked, &digest) && asked.before == 0).then(|| first.clone()));
        succeeds(who, &liar, &made, &[]);
        let starts: Vec<_> = liar.asked().iter().filter(|asked| is_blob(asked, &layer)).map(start).collect();
        assert_eq!(starts, [None, Some(50_000)]);

        // One that knows no ranges sends all of it again, and one that says there is nothing there is asked anew.
        for again in [ok("", &bytes), status(416, "", b"")] {
            let (digest, first) = (layer.clone(), broken.clone());
            let liar = Liar::of(made.clone(), move |asked| match asked.before {
                0 if is_blob(asked, &digest) => Some(first.clone()),
                1 if is_blob(asked, &digest) => Some(again.clone()),
                _ => None,
            });
            succeeds(who, &liar, &made, &[]);
        }

        // A rest that is another's is an error.
        for (rest, error) in [
            (part(&bytes, 49_999), "asked from byte 50000 on, it sends `bytes 49999-"),
            (status(206, "", &bytes[50_000..]), "it sends ``"),
            (status(206, "Content-Range: bytes 50000-60000/60001\r\n", &bytes[..10_001]), "it sends `bytes 50000-60000"),
        ] {
            let (digest, first) = (layer.clone(), broken.clone());
            let liar = Liar::of(made.clone(), move |asked| match asked.before {
                0 if is_blob(asked, &digest) => Some(first.clone()),
                _ if is_blob(asked, &digest) => Some(rest.clone()),
                _ => None,
            });
            fails(who, &liar, &["--retry", "1"], error);
        }
    }

    /// What a liar left of a layer does not keep an honest registry from bringing it.
    fn what_is_left_of_a_lie_is_thrown_away(who: Who) {
        let (made, layer) = one();
        let bytes = made.blobs[&layer].clone();
        let mut changed = bytes.clone();
        changed[10] ^= 1;
        let half = head(200, &format!("Content-Length: {}\r\n", bytes.len()), &changed[..100_000]);
        let digest = layer.clone();
        let liar = Liar::of(made.clone(), move |asked| is_blob(asked, &digest).then(|| half.clone()));
        let puller = Puller::new(who);
        call(puller.pull(&liar.name("a:1")).args(["--retry", "0"])).expect_code(125);
        puller.check(&[]);
        let honest = Liar::of(made.clone(), |_| None);
        let name = honest.name("a:1");
        call(puller.pull(&name)).expect_code(0);
        puller.check(&[&name]);
        puller.check_has(&made);
        let starts: Vec<_> = honest.asked().iter().filter(|asked| is_blob(asked, &layer)).map(start).collect();
        assert_eq!(starts, [Some(100_000), None], "the part was taken up, found wrong, and all was fetched anew");
    }

    fn silence_is_not_waited_for_without_end(who: Who) {
        let (made, layer) = one();
        let bytes = made.blobs[&layer].clone();
        let stall = ["--stall-timeout", "1s", "--retry", "0"];
        let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        let (digest, part) = (layer.clone(), [begun.as_bytes(), &bytes[..5000]].concat());
        let liar = Liar::of(made.clone(), move |asked| is_blob(asked, &digest).then(|| Reply::Silence(part.clone())));
        fails(who, &liar, &stall, "nothing came from it for too long");
        let liar = Liar::of(made, |asked| is_manifest(asked).then(|| Reply::Silence(Vec::new())));
        fails(who, &liar, &stall, "nothing came from it for too long");
    }

    fn manifests_that_are_not_what_they_are_said_to_be(who: Who) {
        let (made, layer) = one();
        let manifest = made.blobs[&made.root].clone();
        let text = String::from_utf8(manifest.clone()).unwrap();
        let typed = |kind: &str, body: &[u8]| ok(&format!("Content-Type: {kind}\r\n"), body);
        let oci = made.kind;
        let digest = format!("Docker-Content-Digest: {layer}\r\n");
        let large = vec![b' '; (4 << 20) + 1];
        let both = text.replacen('{', "{\"manifests\": [],", 1);
        let artifact = text.replace("vnd.oci.image.config.v1+json", "vnd.cncf.helm.config.v1+json");
        let lies = [
            (typed("text/html; charset=utf-8", b"<html>Sign in</html>"), "with a web page (status 200), as no registry does"),
            (status(502, "Content-Type: text/html\r\n", b"<html>"), "with a web page (status 502)"),
            (typed(oci, b"\0\xff garbage"), "manifest 1 of 127.0.0.1"),
            (typed(oci, b""), "manifest 1 of 127.0.0.1"),
            (ok(&digest, &manifest), "its digest is to be sha256:"),
            (typed(OCI_INDEX, &manifest), "it is said to be"),
            (typed(DOCKER_MANIFEST, &manifest), "it is said to be"),
            (typed(oci, both.as_bytes()), "could be read as either"),
            (typed(oci, artifact.as_bytes()), "it is no image but application/vnd.cncf.helm"),
            (typed(oci, &large), "it has more than 4194304 bytes"),
            (head(200, &format!("Content-Type: {oci}\r\n"), &large), "it has more than 4194304 bytes"),
            (
                status(403, "", br#"{"errors": [{"code": "DENIED", "message": "not\u001b[2J for you"}]}"#),
                "answers 403 (DENIED: not [2J for you) to the request for manifest 1",
            ),
            (Reply::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()), "its answer is no HTTP"),
        ];
        for (lie, error) in lies {
            let liar = Liar::of(made.clone(), move |asked| is_manifest(asked).then(|| lie.clone()));
            fails(who, &liar, &[], error);
        }
        // The size of a layer, of the configuration.
        let shorter = made.with_manifest(|manifest| manifest["layers"][0]["size"] = 5.into());
        fails(who, &Liar::of(shorter, |_| None), &[], "bytes to come by its manifest");
        let endless = made.with_manifest(|manifest| manifest["config"]["size"] = (5 << 20).into());
        fails(who, &Liar::of(endless, |_| None), &[], "a configuration of 5242880 bytes");
        // What is asked for by digest is that.
        let liar = Liar::of(made.clone(), move |asked| is_manifest(asked).then(|| typed(oci, text.replace("[", "[ ").as_bytes())));
        let puller = Puller::new(who);
        let pinned = liar.name(&format!("a@{}", made.root));
        call(puller.pull(&pinned)).expect_error(&format!("its digest is to be {} and is", made.root));
        puller.check(&[]);
    }

    fn redirects_lead_nowhere_inside(who: Who) {
        let (made, layer) = one();
        for (to, error) in [
            ("http://169.254.169.254/latest/meta-data/", "a link-local address, where the registry is not"),
            ("http://10.0.0.1/", "a private address"),
            ("http://[fd00::1]:5000/x", "a private address"),
            ("http://[::ffff:192.168.0.1]/x", "a private address"),
            ("ftp://127.0.0.1/x", "that is no place on the web"),
            ("file:///etc/passwd", "that is no place on the web"),
            ("http://a:b@127.0.0.1/x", "that is no place on the web"),
            ("", "it does not say where"),
            ("/v2/around/blobs/again", "that is one redirect too many"),
        ] {
            let location = format!("Location: {to}\r\n");
            let (digest, again) = (layer.clone(), to == "/v2/around/blobs/again");
            let liar = Liar::of(made.clone(), move |asked| {
                let is = is_blob(asked, &digest) || again && asked.path.contains("/around/");
                is.then(|| status(307, &location, b""))
            });
            fails(who, &liar, &[], error);
        }
    }

    /// What was asked for in secret is not answered in the open, by whomever.
    fn a_redirect_does_not_lead_from_https_to_http(who: Who) {
        let (made, layer) = one();
        let open = Liar::of(made.clone(), |_| None);
        let honest = Liar::of(made, |_| None);
        for (only, error) in [("", "from HTTPS to plain HTTP"), (layer.as_str(), "from HTTPS to plain HTTP")] {
            let Some(secure) = Secure::start(&honest, &open, only) else { return };
            let puller = Puller::new(who);
            let name = format!("127.0.0.1:{}/a/b:1", secure.port);
            let trusting = puller.pull(&name).env("SSL_CERT_FILE", secure.authority()).args(["--retry", "0"]);
            call(trusting).expect_error(error);
            puller.check(&[]);
        }
        assert!(open.asked().is_empty(), "{:?}", open.asked());
        // Without a lie it is an image like any other.
        let Some(secure) = Secure::start(&honest, &open, "nothing") else { return };
        let puller = Puller::new(who);
        let name = format!("127.0.0.1:{}/a/b:1", secure.port);
        call(puller.pull(&name).env("SSL_CERT_FILE", secure.authority())).expect_code(0);
        puller.check(&[&name]);
    }

    fn credentials_stay_with_whom_they_are_for(who: Who) {
        let (made, layer) = one();
        let bytes = made.blobs[&layer].clone();
        let other = Liar::start(move |_| ok("", &bytes));
        // To where the layers are, it leads; who asks is to be told to itself alone.
        let (digest, location) = (layer.clone(), format!("Location: http://{}\r\n", other.name("blob")));
        let liar = Liar::of(made.clone(), move |asked| {
            let known = asked.headers.get("authorization").is_some_and(|value| value == "Basic YW5uYTpzZWNyZXQ=");
            match asked.path.as_str() {
                "/v2/" => None,
                _ if !known => Some(status(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b"")),
                _ if is_blob(asked, &digest) => Some(status(302, &location, b"")),
                _ => None,
            }
        });
        let puller = Puller::new(who);
        let login = |port: u16| {
            let auths = format!(r#"{{"auths": {{"127.0.0.1:{port}": {{"auth": "YW5uYTpzZWNyZXQ="}}}}}}"#);
            puller.place.write("docker/config.json", auths);
        };
        login(liar.port);
        let name = liar.name("a:1");
        call(puller.pull(&name)).expect_code(0);
        puller.check_has(&made);
        let asked = other.asked();
        assert!(!asked.is_empty() && asked.iter().all(|asked| !asked.headers.contains_key("authorization")), "{asked:?}");

        // A server for tokens on another host gets them by HTTPS or not at all; a token without them is anybody's.
        let tokens = Liar::start(|_| ok("", br#"{"token": "t0ken"}"#));
        let realm = format!("http://{}", tokens.name("token"));
        let bearer = |realm: &str| format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n");
        let guarded = |challenge: String| {
            Liar::of(made.clone(), move |asked| {
                let known = asked.headers.get("authorization").is_some_and(|value| value == "Bearer t0ken");
                (asked.path != "/v2/" && !known).then(|| status(401, &challenge, b""))
            })
        };
        let liar = guarded(bearer(&realm));
        login(liar.port);
        call(puller.pull(&liar.name("b:1"))).expect_error("credentials are sent to another host only by HTTPS");
        assert!(tokens.asked().is_empty());
        login(1);
        call(puller.pull(&liar.name("b:1"))).expect_code(0);
        let asked = tokens.asked();
        assert!(asked.iter().all(|asked| asked.path == "/token?service=s&scope=repository:b:pull"), "{asked:?}");
        for (realm, error) in [
            ("http://169.254.169.254/token", "a link-local address"),
            ("gopher://x/", "that is no place for tokens"),
        ] {
            fails(who, &guarded(bearer(realm)), &[], error);
        }
        fails(who, &guarded("WWW-Authenticate: Negotiate\r\n".to_owned()), &[], "does not say how it is to be told");
    }

    fn what_passes_is_tried_again(who: Who) {
        let (made, _) = one();
        let busy = status(429, "Retry-After: 0\r\n", br#"{"errors": [{"code": "TOOMANYREQUESTS"}]}"#);
        for first in [busy.clone(), status(503, "", b""), Reply::Bytes(Vec::new())] {
            let count = Arc::new(AtomicUsize::new(0));
            let liar = Liar::of(made.clone(), move |asked| {
                (is_manifest(asked) && count.fetch_add(1, Ordering::Relaxed) < 2).then(|| first.clone())
            });
            succeeds(who, &liar, &made, &[]);
        }
        let liar = Liar::of(made.clone(), move |asked| is_manifest(asked).then(|| busy.clone()));
        fails(who, &liar, &["--retry", "2"], "answers 429 (TOOMANYREQUESTS)");
        assert_eq!(liar.asked().iter().filter(|asked| is_manifest(asked)).count(), 3);
    }

    fn a_registry_that_changes_what_it_was_sent(who: Who) {
        let (made, layer) = one();
        let honest = Liar::of(made.clone(), |_| None);
        let puller = Puller::new(who);
        let name = honest.name("a:1");
        call(puller.pull(&name)).expect_code(0);
        let push = |liar: &Liar, error: &str| {
            call(puller.image("push").args([name.as_str(), &liar.name("b:1"), "--retry", "0"])).expect_error(error);
        };
        let wrong = format!("Docker-Content-Digest: sha256:{}\r\n", "1".repeat(64));
        let (digest, location) = (layer, "Location: /v2/b/blobs/uploads/1\r\n".to_owned());
        let upload = move |asked: &Asked, blob: Reply, manifest: Reply| match asked.method.as_str() {
            "HEAD" => status(404, "", b""),
            "POST" => status(202, &location, b""),
            "PUT" if is_manifest(asked) => manifest,
            "PUT" => blob,
            _ => ok("", b"{}"),
        };
        let (created, lie) = (status(201, "", b""), status(201, &wrong, b""));
        for (blob, manifest, error) in [
            (lie.clone(), created.clone(), "and is kept as sha256:1111"),
            (created.clone(), lie, "and is kept as sha256:1111"),
            (status(413, "", br#"{"errors": [{"code": "SIZE_INVALID"}]}"#), created.clone(), "answers 413 (SIZE_INVALID)"),
            (created.clone(), status(400, "Content-Type: text/html\r\n", b"<p>"), "with a web page (status 400)"),
        ] {
            let upload = upload.clone();
            push(&Liar::start(move |asked| upload(asked, blob.clone(), manifest.clone())), error);
        }
        let inside = Liar::start(|asked| match asked.method.as_str() {
            "HEAD" => status(404, "", b""),
            "POST" => status(202, "Location: http://192.168.0.1/upload\r\n", b""),
            _ => ok("", b"{}"),
        });
        push(&inside, "a private address, where the registry is not");
        // One that takes it is told all of it.
        let liar = Liar::start(move |asked| upload(asked, created.clone(), created.clone()));
        call(puller.image("push").args([name.as_str(), &liar.name("b:1")])).expect_code(0);
        let sent: Vec<_> = liar.asked().into_iter().filter(|asked| asked.method == "PUT").collect();
        assert!(sent.iter().any(|asked| asked.path == format!("/v2/b/blobs/uploads/1?digest={digest}")), "{sent:?}");
        assert_eq!(sent.last().unwrap().headers["content-type"], made.kind);
    }

    fn a_mirror_stands_in_for_docker_io_alone(who: Who) {
        let (made, _) = one();
        let (mirror, broken) = (Liar::of(made.clone(), |_| None), Liar::start(|_| status(500, "", b"")));
        let host = |liar: &Liar| format!("127.0.0.1:{}", liar.port);
        let puller = Puller::new(who);
        let mirrors = [host(&broken), host(&mirror)];
        let mirrored = |run: crate::common::Run| run.args(["--mirror", &mirrors[0], "--mirror", &mirrors[1], "--retry", "0"]);
        call(mirrored(puller.pull("some/thing:1"))).expect_code(0).expect_out("docker.io/some/thing:1\n");
        puller.check(&["some/thing:1"]);
        puller.check_has(&made);
        let run = puller.pull("official:2").args(["--retry", "0"]).env("FUMEHOOD_REGISTRY_MIRROR", mirrors.join(","));
        call(run).expect_code(0);
        assert!(mirror.asked().iter().any(|asked| asked.path == "/v2/library/official/manifests/2"));
        let before = mirror.asked().len();
        let elsewhere = Liar::of(made, |asked| is_manifest(asked).then(|| liar::status(404, "", b"")));
        call(mirrored(puller.pull(&elsewhere.name("x:1")))).expect_error("answers 404");
        assert_eq!(mirror.asked().len(), before);
        call(puller.pull("x:1").args(["--mirror", "http://a/b"])).expect_error("`http://a/b` is no host of a registry");
    }
}
