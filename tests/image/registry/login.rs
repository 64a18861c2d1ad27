//! TLS with an authority of one's own, and passwords from where Docker and Podman keep them.

use super::{Puller, call, made::Made, served::Served};
use crate::{both, common::Who};

/// `anna:secret` in base64.
const AUTH: &str = "YW5uYTpzZWNyZXQ=";

both! {
    fn who_asks_and_who_answers_is_known(who: Who) {
        let Some(served) = Served::guarded("registry::login") else { return };
        let made = Made::image(60, &[2000]);
        served.put(&made, "private/it:1");
        let puller = Puller::new(who);
        let (name, host) = (served.name("private/it:1"), format!("127.0.0.1:{}", served.port));
        let authority = served.authority();
        call(puller.pull(&name)).expect_error("of an authority that is not known here").expect_hint();
        let pull = || puller.pull(&name).arg("--tls-ca").arg(&authority);
        call(pull()).expect_error("wants to know who asks").expect_hint();
        let none = puller.place.write("empty.crt", "nothing");
        call(puller.pull(&name).arg("--tls-ca").arg(none)).expect_error("there is no certificate in it");

        // Each that has the password, in a file of its own.
        let right = format!(r#"{{"auths": {{"{host}": {{"auth": "{AUTH}"}}}}}}"#);
        let files = |path: &str, content: &str| puller.place.write(path, content);
        let none = |path: &str| files(path, "{}");
        puller.check(&[]);
        for path in ["docker/config.json", ".config/containers/auth.json", "run/containers/auth.json"] {
            files(path, &right);
            call(pull().env("XDG_RUNTIME_DIR", puller.place.join("run"))).expect_code(0);
            none(path);
        }
        let file = files("auth.json", &right);
        call(pull().env("REGISTRY_AUTH_FILE", &file)).expect_code(0);
        // Another's password is not sent, and a file that is broken is told.
        files("auth.json", &right.replace("127.0.0.1:", "127.0.0.2:"));
        call(pull().env("REGISTRY_AUTH_FILE", &file)).expect_error("there are no credentials for it");
        files("auth.json", &right.replace("}}", "}"));
        call(pull().env("REGISTRY_AUTH_FILE", &file)).expect_error("it is no such file: line 1");
        files("auth.json", &right.replace(AUTH, "YW5uYTpmYWxzZQ=="));
        call(pull().env("REGISTRY_AUTH_FILE", &file)).expect_error("does not take the credentials");

        // A helper is asked for this registry, and its answer is taken; one that is missing is told.
        let config = format!(r#"{{"credHelpers": {{"{host}": "fumehood-test"}}}}"#);
        files("docker/config.json", &config);
        call(pull()).expect_error("docker-credential-fumehood-test: No such file");
        let script = format!(
            "#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {host}' ] && \
             echo '{{\"ServerURL\": \"\", \"Username\": \"anna\", \"Secret\": \"secret\"}}'\n"
        );
        let helper = puller.place.write_executable("bin/docker-credential-fumehood-test", script);
        let path = format!("{}:/usr/bin:/bin", helper.parent().unwrap().display());
        call(pull().env("PATH", path)).expect_code(0);
        puller.check(&[&name]);

        // The authority by the environment, and pushing.
        files("docker/config.json", &right);
        let push = puller.image("push").args([name.clone(), served.name("private/other:1")]);
        call(push.env("SSL_CERT_FILE", &authority)).expect_code(0);
        assert_eq!(served.layers("private/other:1"), made.layers);
        let insecure = puller.image("push").args([name, served.name("private/third:1")]).arg("--insecure");
        call(insecure).expect_code(0);
    }
}
