//! What reads a sandbox's bytes and a person's rules, for the fuzz targets: each asserts what must hold for any bytes.

use std::{net::Ipv4Addr, time::Instant};

pub use super::proxy::fuzzing::{head, hello, socks};
use super::{
    asking, dns,
    policy::{
        Host, Injection, Name, Policy, Private, Rule,
        path::{Pattern, normal},
    },
    pool::{Pool, is_fake},
};

/// Any message: an answer is to that question, short, and has made-up addresses in it alone.
pub fn dns(message: &[u8]) {
    let Ok(policy) = serde_json::from_str::<Policy>(r#"{"mode":"public","deny":["*.evil.example"]}"#) else { return };
    let mut pool = Pool::default();
    let Some((answer, refused)) = dns::answer(message, &policy, &mut pool, Instant::now()) else { return };
    assert!(answer.len() <= 512 + 32 && answer[..2] == message[..2] && answer[2] & 0x80 != 0);
    let (code, answers, kind_a) = (answer[3] & 0xf, answer[7], [0xc0, 12, 0, 1]);
    assert!(refused.is_none() || (code == 3 && answers == 0));
    assert!(answers == 0 || code == 0);
    if answers == 1
        && let Some(at) = answer.windows(4).rposition(|window| window == kind_a)
        && let Some(address) = answer.get(at + 12..at + 16)
        && let Ok(address) = <[u8; 4]>::try_from(address)
    {
        assert!(is_fake(Ipv4Addr::from(address)), "{address:?}");
    }
}

/// What comes after the question in a name server's answer, behind how many records it says it has.
pub fn addresses(records: &[u8]) {
    let (Ok(name), Some((count, records))) = ("db".parse(), records.split_at_checked(2)) else { return };
    let question = asking::question(&name, 0);
    let answer = [&question[..2], &[0x81, 0x80, 0, 1], count, &[0; 4], &question[12..], records].concat();
    _ = asking::addresses(&answer, &question);
}

/// A rule, a host that may be private, a name: what is read is read back as it is printed, and a name is none of an
/// address's spellings.
pub fn rule(text: &str) {
    if let Ok(rule) = text.parse::<Rule>() {
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }
    if let Ok(private) = text.parse::<Private>() {
        assert_eq!(private.to_string().parse(), Ok(private));
    }
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(Name::from_wire(name.as_str().as_bytes()), Ok(name.clone()));
        assert!(!name.as_str().rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())));
    }
    if let Ok(host) = Host::from_wire(text.as_bytes()) {
        assert_eq!(Host::from_wire(host.to_string().as_bytes()), Ok(host));
    }
    _ = Rule::list(text);
    _ = Injection::parse(text, |_| Some("variable".into()));
    if let Ok(policy) = serde_json::from_str::<Policy>(text)
        && !policy.has_secrets()
    {
        // Of a rule about requests it says the same in other words.
        let printed = serde_json::to_string(&policy).ok();
        let again = printed.as_deref().and_then(|printed| serde_json::from_str::<Policy>(printed).ok());
        assert!(
            printed.is_some() && again.and_then(|policy| serde_json::to_string(&policy).ok()) == printed,
            "{policy:?}"
        );
    }
}

/// A request's path, and a pattern with it: what is canonical stays so, holds nothing that a server could take for another
/// way, and is met by itself.
pub fn path(text: &str) {
    let (pattern, target) = text.split_once('\n').unwrap_or((text, text));
    let Ok(path) = normal(target) else { return };
    assert_eq!(normal(&path).as_deref(), Ok(&*path));
    assert!(path.starts_with('/') && path.bytes().all(|byte| (0x21..0x7f).contains(&byte)));
    let lower = path.to_ascii_lowercase();
    for trick in ["//", "%2f", "%2e", "%5c", "%25", "%00", "\\", "#", "?"] {
        assert!(!lower.contains(trick), "{path}");
    }
    assert!(!path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | ".."))), "{path}");
    if let Ok(own) = Pattern::new(&path)
        && !path.contains('*')
    {
        assert!(own.fits(&path));
    }
    if let Ok(pattern) = Pattern::new(pattern)
        && pattern.fits(&path)
    {
        // What is before the first star is what the path begins with.
        assert!(path.starts_with(pattern.as_str().split('*').next().unwrap_or_default()), "{path}");
    }
}
