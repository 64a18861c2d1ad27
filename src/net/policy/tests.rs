use super::*;

fn policy(mode: Mode, allow: &[&str], deny: &[&str], private: &[&str]) -> Policy {
    let mut policy = Policy::new(mode).unwrap();
    for rule in allow {
        policy.allow(rule.parse().unwrap()).unwrap();
    }
    for rule in deny {
        policy.deny(rule.parse().unwrap()).unwrap();
    }
    for host in private {
        policy.allow_private(host.parse().unwrap());
    }
    policy
}

fn host(text: &str) -> Host {
    Host::from_wire(text.as_bytes()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn allows(policy: &Policy, target: &str, port: u16) -> bool {
    policy.check(&host(target), port).is_ok()
}

const PUBLIC: &str = "93.184.215.14";

#[test]
fn bypass_01_a_rule_by_name_opens_no_address() {
    let policy = policy(Mode::Filtered, &["example.com", "8.8.8.0/24:53"], &[], &[]);
    assert!(allows(&policy, "example.com", 443));
    assert!(!allows(&policy, PUBLIC, 443));
    assert!(allows(&policy, "8.8.8.8", 53));
    assert!(!allows(&policy, "8.8.8.8", 443));
    let refusal = policy.check(&host(PUBLIC), 443).unwrap_err();
    assert_eq!(refusal, Refusal { rule: "--net filtered".into(), hint: Some(format!("--allow {PUBLIC}")) });
    let refusal = policy.check(&host("8.8.8.8"), 443).unwrap_err();
    assert_eq!(refusal.hint.as_deref(), Some("--allow 8.8.8.8:443"));
}

#[test]
fn bypass_10_a_name_that_turns_private_stays_shut() {
    let policy = policy(Mode::Public, &["example.com", "0.0.0.0/0"], &[], &["db.corp.example:5432"]);
    for address in ["10.0.0.1", "127.0.0.1", "192.168.1.1", "::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::10.0.0.1"] {
        let refusal = policy.check_address(&host("example.com"), 443, ip(address), false).unwrap_err();
        assert_eq!(refusal.hint.is_some(), Special::opens_by_name(address::special(ip(address)).unwrap()));
        assert!(policy.check_address(&host("db.corp.example"), 443, ip(address), false).is_err(), "{address}");
    }
    assert!(policy.check_address(&host("example.com"), 443, ip(PUBLIC), false).is_ok());
    let own = policy.check_address(&host("example.com"), 443, ip(PUBLIC), true).unwrap_err();
    assert_eq!(own.rule, "the host's own addresses");
    assert!(policy.check_address(&host(PUBLIC), 443, ip(PUBLIC), true).is_err());
    assert!(policy.check_address(&host("db.corp.example"), 5432, ip("10.0.0.1"), false).is_ok());
}

#[test]
fn bypass_11_metadata_is_shut_in_every_mode_and_under_every_allow() {
    const METADATA: [&str; 5] =
        ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "[fd00:ec2::254]"];
    for mode in Mode::ALL {
        let policy = policy(
            mode,
            &["0.0.0.0/0", "::/0", "metadata.google.internal", "0.0.0.0/0:80"],
            &[],
            &["metadata.google.internal:80"],
        );
        for address in METADATA {
            let target = host(address);
            assert!(policy.check(&target, 80).is_err(), "{mode} {address}");
            let Host::Address(address) = target else { panic!("{target}") };
            // Not even by a name that may be private.
            let refusal = policy.check_address(&host("metadata.google.internal"), 80, address, false).unwrap_err();
            assert_eq!(refusal, Refusal::new("cloud metadata addresses"));
        }
    }
    let named = policy(Mode::Filtered, &[], &[], &["169.254.169.254:80"]);
    assert!(allows(&named, "169.254.169.254", 80));
    assert!(named.check_address(&host("169.254.169.254"), 80, ip("169.254.169.254"), false).is_ok());
    assert!(!allows(&named, "169.254.169.254", 81));
}

/// Row 28: not under an allow of everything, only where a rule names the port.
#[test]
fn bypass_28_mail_is_shut_unless_its_port_is_named() {
    for mode in Mode::ALL {
        let policy = policy(mode, &["0.0.0.0/0", "mail.example.com", "smtp.example.com:587"], &[], &[]);
        for port in [25, 465, 587] {
            assert!(!allows(&policy, "mail.example.com", port), "{mode} {port}");
            assert!(!allows(&policy, PUBLIC, port), "{mode} {port}");
        }
        assert!(allows(&policy, "smtp.example.com", 587));
        let refusal = policy.check(&host("mail.example.com"), 25).unwrap_err();
        assert_eq!(refusal.hint.as_deref(), Some("--allow mail.example.com:25"));
    }
}

#[test]
fn modes_allow_what_they_say() {
    let of = |mode| policy(mode, &[], &[], &[]);
    let (filtered, packages, web, public) = (of(Mode::Filtered), of(Mode::Packages), of(Mode::Web), of(Mode::Public));
    for (target, port, allowed) in [
        ("pypi.org", 443, [false, true, true, true]),
        ("evil.example", 443, [false, false, true, true]),
        ("evil.example", 80, [false, false, true, true]),
        ("evil.example", 22, [false, false, false, true]),
        (PUBLIC, 443, [false, false, true, true]),
        (PUBLIC, 22, [false, false, false, true]),
        ("10.0.0.1", 443, [false; 4]),
        ("198.18.0.1", 443, [false; 4]),
    ] {
        let got = [&filtered, &packages, &web, &public].map(|policy| allows(policy, target, port));
        assert_eq!(got, allowed, "{target}:{port}");
    }
    for mode in Mode::ALL {
        assert_eq!(mode.as_str().parse(), Ok(mode));
    }
}

#[test]
fn deny_wins() {
    let policy = policy(
        Mode::Public,
        &["evil.example", "8.8.8.8"],
        &["*.evil.example", "evil.example:80", "8.8.8.0/24", "/ad[0-9]*\\.example/"],
        &["8.8.8.8:80", "x.evil.example:80"],
    );
    assert!(!allows(&policy, "x.evil.example", 80));
    assert!(!allows(&policy, "ad1.example", 443));
    assert!(!allows(&policy, "evil.example", 80));
    assert!(allows(&policy, "evil.example", 443));
    assert!(!allows(&policy, "8.8.8.8", 80));
    assert_eq!(policy.check(&host("ad1.example"), 1).unwrap_err(), Refusal::new("--deny /ad[0-9]*\\.example/"));
    assert!(policy.check_address(&host("fine.example"), 443, ip("8.8.8.8"), false).is_err());
    let Host::Name(name) = host("evil.example") else { panic!() };
    assert!(policy.check_name(&name).is_ok(), "it is open on another port");
    let Host::Name(name) = host("x.evil.example") else { panic!() };
    assert!(policy.check_name(&name).is_err());
}

#[test]
fn a_name_is_known_if_any_port_is_open() {
    let policy = policy(Mode::Filtered, &["a.example:8443", "8.8.8.8"], &[], &["db.example:5432", "localhost:80"]);
    let known = |text: &str| policy.check_name(&text.parse().unwrap());
    assert!(known("a.example").is_ok());
    assert!(known("db.example").is_ok());
    assert!(known(HOST_NAME).is_ok());
    let refusal = Refusal { rule: "--net filtered".into(), hint: Some("--allow b.example".into()) };
    assert_eq!(known("b.example"), Err(refusal));
}

#[test]
fn the_host_is_reached_where_it_was_named() {
    for private in ["localhost:5432", "127.0.0.1:5432"] {
        let policy = policy(Mode::Filtered, &[], &[], &[private]);
        assert!(allows(&policy, HOST_NAME, 5432));
        assert!(policy.check_address(&host(HOST_NAME), 5432, ip("127.0.0.1"), true).is_ok());
        assert!(!allows(&policy, HOST_NAME, 5433));
        assert!(policy.check_address(&host(HOST_NAME), 5433, ip("127.0.0.1"), true).is_err());
        // Another service may be there.
        let sixth = policy.check_address(&host(HOST_NAME), 5432, ip("::1"), true);
        assert_eq!(sixth.is_ok(), private == "localhost:5432");
    }
}

#[test]
fn a_policy_is_json_too() {
    let text =
        r#"{"mode":"web","allow":["*.example.com:8443"],"deny":["evil.example"],"allow_private":["localhost:80"]}"#;
    let read: Policy = serde_json::from_str(text).unwrap();
    assert_eq!(read, policy(Mode::Web, &["*.example.com:8443"], &["evil.example"], &["localhost:80"]));
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), policy(Mode::Filtered, &[], &[], &[]));
    for none in [
        r#"{"alow":[]}"#,
        r#"{"mode":"all"}"#,
        r#"{"mode":"none"}"#,
        r#"{"allow":["*.com"]}"#,
        r#"{"allow":["10.0.0.0/8"]}"#,
        r#"{"allow":"x.com"}"#,
        r#"{"allow_private":["10.0.0.0/8:1"]}"#,
    ] {
        assert!(serde_json::from_str::<Policy>(none).is_err(), "{none}");
    }
}

#[test]
fn bypass_25_what_is_limited_by_name_is_not_asked_for_by_address() {
    let mut policy = Policy::new(Mode::Open).unwrap();
    policy.allow("GET https://x.com/a".parse().unwrap()).unwrap();
    let (x, y): (Name, Name) = ("x.com".parse().unwrap(), "y.com".parse().unwrap());
    assert!(policy.denies_names(443) && !policy.denies_names(80));
    assert!(policy.check_asked(&x, 443).is_err());
    assert_eq!((policy.check_asked(&y, 443), policy.check_asked(&x, 80)), (Ok(()), Ok(())));
    let address = Host::Address("93.184.215.14".parse().unwrap());
    assert!(policy.check_udp(&address, 443).is_err() && policy.check_udp(&Host::Name(x), 443).is_err());
    assert_eq!((policy.check_udp(&address, 80), policy.check_udp(&Host::Name(y), 443)), (Ok(()), Ok(())));
}

#[test]
fn hints_have_nothing_for_a_shell() {
    let mut policy = Policy::new(Mode::Filtered).unwrap();
    policy.allow("GET https://x.com/a".parse().unwrap()).unwrap();
    let hint = |method: &str, target: &str| {
        policy.check_request(&"x.com".parse().unwrap(), 443, true, method, target).unwrap_err().hint
    };
    assert_eq!(hint("PUT", "/b?c").as_deref(), Some("--allow 'PUT https://x.com:443/b'"));
    assert_eq!((hint("PUT", "/b';id;'"), hint("P'UT", "/b")), (None, None));
}
