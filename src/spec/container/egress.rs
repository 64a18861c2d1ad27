//! `io.fumehood.egress` and `--egress`: the policy of a container's network and the ports that are open in it, as one word
//! of text.

use super::controls::text as text_of;
use crate::{
    error::Hint,
    net::{
        Policy,
        policy::{LISTS, Mode, Rule, port},
    },
};

/// Before the name of a list that comes with fumehood.
const LIST: char = '@';

/// Each is a socket of the host's.
const MOST_PORTS: usize = 64;

/// What of a network is open.
#[derive(Debug, Clone)]
pub struct Open {
    /// To the outside.
    pub policy: Box<Policy>,
    /// From there: ports of TCP that are the container's.
    pub publish: Vec<u16>,
}

/// A mode, rules over it and ports, separated by commas: `packages,allow=example.com,deny=*.example.net,publish=80`; or, as
/// `--net @FILE` takes it, JSON; or the absolute path of a file with either.
///
/// # Errors
/// What is not understood, and what a container's proxy does not do.
pub fn parse(text: &str) -> Result<Open, String> {
    let text = text_of(text)?;
    let open = match text.trim_start().starts_with('{') {
        true => Open { policy: Box::new(Policy::from_json(text.as_bytes()).map_err(said)?), publish: Vec::new() },
        false => words(&text)?,
    };
    match open.policy.inspects_any() {
        true => Err(
            "rules about requests (methods, paths, headers) are for `fumehood run` alone: a container does not know \
                     the authority that they take"
                .to_owned(),
        ),
        false => Ok(open),
    }
}

fn words(text: &str) -> Result<Open, String> {
    let mut words = text.split(',').map(str::trim).peekable();
    let first = words.peek().copied().unwrap_or_default();
    let mode = match (first, first.parse::<Mode>()) {
        // Nothing passes.
        ("none", _) => Mode::Filtered,
        (_, Ok(mode)) => mode,
        _ if first.contains('=') => Mode::Filtered,
        _ => return Err(unknown(first)),
    };
    if !first.contains('=') {
        words.next();
    }
    let mut policy = Policy::new(mode).map_err(said)?;
    let mut publish = Vec::new();
    for word in words {
        if first == "none" && !word.starts_with("publish=") {
            return Err("after `none` come ports at most: `filtered` is what rules are over".to_owned());
        }
        match word.split_once('=') {
            Some(("allow", rule)) => {
                rules(rule)?.into_iter().try_for_each(|rule| policy.allow(rule)).map_err(said)?;
            }
            Some(("deny", rule)) => rules(rule)?.into_iter().try_for_each(|rule| policy.deny(rule)).map_err(said)?,
            Some(("allow-private", place)) => policy.allow_private(place.parse().map_err(said)?),
            Some(("publish", number)) => {
                let port = port(number).ok_or_else(|| format!("publish=`{number}`: it is no port of TCP"))?;
                if !publish.contains(&port) {
                    publish.push(port);
                }
                if publish.len() > MOST_PORTS {
                    return Err(format!("more than {MOST_PORTS} ports are published"));
                }
            }
            _ => return Err(unknown(word)),
        }
    }
    Ok(Open { policy: Box::new(policy), publish })
}

fn rules(text: &str) -> Result<Vec<Rule>, String> {
    match text.strip_prefix(LIST).map(|name| LISTS.iter().find(|(list, _)| *list == name).ok_or(name)) {
        None => Ok(vec![text.parse().map_err(said)?]),
        Some(Ok((_, list))) => Rule::list(list).map_err(said),
        Some(Err(name)) => Err(format!("there is no list called `{name}`: there is {}", LISTS[0].0)),
    }
}

fn unknown(word: &str) -> String {
    let modes = Mode::ALL.map(Mode::as_str).join(", ");
    format!(
        "`{word}` is not understood: it is none or one of {modes}, then allow=RULE, deny=RULE, allow-private=HOST:PORT \
         and publish=PORT, all separated by commas; or JSON, as --net @FILE of `fumehood run` takes it"
    )
}

fn said(error: impl Hint) -> String {
    let error = error.into_error();
    error.hint().map_or_else(|| error.message().to_owned(), |hint| format!("{} ({hint})", error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        serde_json::to_string(&parse(text).unwrap_or_else(|why| panic!("{text}: {why}")).policy).unwrap()
    }

    #[test]
    fn a_word_is_a_mode_and_rules_over_it() {
        assert_eq!(json("none"), r#"{"mode":"filtered"}"#);
        assert_eq!(json("web"), r#"{"mode":"web"}"#);
        assert_eq!(json("allow=example.com:443"), r#"{"mode":"filtered","allow":["example.com:443"]}"#);
        assert_eq!(
            json("packages, allow=*.example.org,deny=x.example.org,allow-private=10.1.2.3:5432"),
            r#"{"mode":"packages","allow":["*.example.org"],"deny":["x.example.org"],"allow_private":["10.1.2.3:5432"]}"#
        );
        assert_eq!(json(r#" {"mode":"web","deny":["a.example"]}"#), r#"{"mode":"web","deny":["a.example"]}"#);
        assert!(json("allow=@packages").len() > json("allow=a.example").len() + 500);
    }

    #[test]
    fn ports_are_named_one_by_one() {
        for (text, ports) in [
            ("web", &[][..]),
            ("publish=80", &[80]),
            ("none,publish=80", &[80]),
            ("web,publish=443,deny=a.example,publish=80,publish=443", &[443, 80]),
        ] {
            assert_eq!(parse(text).unwrap().publish, ports, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (text, why) in [
            ("", "is not understood"),
            ("host", "is not understood"),
            ("example.com", "is not understood"),
            ("web,example.com", "is not understood"),
            ("web,packages", "is not understood"),
            ("none,allow=example.com", "`none`"),
            ("none,publish=80,deny=a.example", "`none`"),
            ("publish=0", "no port"),
            ("publish=8080:80", "no port"),
            ("publish=", "no port"),
            (&(0..65).map(|port| format!("publish={},", port + 1)).collect::<String>(), "more than 64 ports"),
            ("allow=*.com", "*.com"),
            ("allow=@nope", "nope"),
            ("allow=", "rule"),
            ("allow-private=example.com", "example.com"),
            ("allow=GET https://example.com/x", "requests"),
            (r#"{"mode":"host"}"#, "host"),
            (r#"{"mode":"web""#, "EOF"),
            (r#"{"allow":[{"host":"a.example","methods":["GET"]}]}"#, "requests"),
        ] {
            let said = parse(text).expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
