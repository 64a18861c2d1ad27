//! One line of a policy: `name`, `*.name`, `name:port`, `CIDR`, `CIDR:port`, `/regex/`, `/regex/:port`; of an allow also
//! `GET,HEAD https://name/path/*`.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::{
    address::{Cidr, Special, literal},
    name::{Name, NameError},
    requests::{HeaderError, Requests},
    written::Written,
};
use crate::error::Hint;

/// Compiled, so that a rule of a few bytes doesn't take what it likes.
const REGEX_BYTES: usize = 1 << 20;

/// Who a rule speaks of, and on which port; `None` is every port but those of mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Rule {
    who: Who,
    port: Option<u16>,
    /// As it was written, for denials.
    text: Box<str>,
    /// What it is for, where it is not for all that can be said there; and whom it is about, as it was written.
    requests: Option<Arc<(Requests, Box<str>)>>,
}

#[derive(Debug, Clone)]
enum Who {
    Name(Name),
    Below(Name),
    Matching(Regex),
    Range(Cidr),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("rule `{text}`: {source}")]
    Name { text: String, source: NameError },
    #[error("rule `{text}`: {why}")]
    Syntax { text: String, why: String },
    #[error("rule `{text}`: anybody can have a name below `{suffix}`")]
    PublicSuffix { text: String, suffix: Name },
    #[error("rule `{text}`: {what} are not opened by a range")]
    NeverAllowed { text: String, what: Special },
    #[error("it is no policy: {why}")]
    Document { why: String },
    /// The value is not quoted.
    #[error("header to add `{text}=…`: {why}")]
    Inject { text: String, why: String },
    #[error(transparent)]
    Header(#[from] HeaderError),
}

impl Hint for RuleError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name { source, .. } => return source.hint(),
            Self::Syntax { .. } => {
                "rules are example.com, *.example.com, example.com:8443, 203.0.113.0/24, [2001:db8::/32]:443, \
                 /api[0-9]+\\.example\\.com/ or 'GET,HEAD https://example.com/path/*'"
                    .to_owned()
            }
            Self::PublicSuffix { .. } => "name the hosts, or write a /regex/ if everybody's are meant".to_owned(),
            Self::Document { .. } => {
                "a policy is such as {\"mode\": \"web\", \"allow\": [\"example.com:22\"], \"deny\": [], \"allow_private\": []}"
                    .to_owned()
            }
            Self::NeverAllowed { .. } => "name each host and port with --allow-private HOST:PORT".to_owned(),
            Self::Header(_) | Self::Inject { .. } => {
                "write it as NAME[:PORT]:HEADER=VALUE, as in 'api.example.com:Authorization=Bearer $KEY'".to_owned()
            }
        })
    }
}

impl Rule {
    /// The rules of a file: one a line, blank lines and what follows `#` left out.
    pub fn list(text: &str) -> Result<Vec<Self>, RuleError> {
        let lines = text.lines().map(|line| match line.split_once('#') {
            Some((before, _)) if !before.trim_start().starts_with('/') => before.trim(),
            _ => line.trim(),
        });
        lines.filter(|line| !line.is_empty()).map(str::parse).collect()
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether it is about that port, or about all.
    #[must_use]
    pub fn is_on(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }

    /// Whether it is about `name`, whatever the port.
    #[must_use]
    pub fn is_about(&self, name: &Name) -> bool {
        match &self.who {
            Who::Name(own) => own == name,
            Who::Below(parent) => name.is_below(parent),
            Who::Matching(regex) => regex.is_match(name.as_str()),
            Who::Range(_) => false,
        }
    }

    /// What of HTTP it is for, if not for everything.
    #[must_use]
    pub fn requests(&self) -> Option<&Requests> {
        self.requests.as_deref().map(|(requests, _)| requests)
    }

    /// `name:port`
    pub(super) fn whom(&self) -> String {
        self.requests.as_deref().map_or(&self.text, |(_, whom)| whom).to_string()
    }

    /// Whether it is about names rather than addresses.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        !matches!(self.who, Who::Range(_))
    }

    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        matches!(self.who, Who::Range(range) if range.contains(address))
    }

    /// Refuses what only an allow can be: the requests that are not denied would have to be allowed.
    pub(super) fn check_deny(&self) -> Result<(), RuleError> {
        match self.requests {
            Some(_) => {
                let why = "a deny is for all that a name is asked; allow the requests that are meant".to_owned();
                Err(RuleError::Syntax { text: self.text.to_string(), why })
            }
            None => Ok(()),
        }
    }

    /// Refuses what an allow must not be: far too wide, or without effect.
    pub(super) fn check_allow(&self) -> Result<(), RuleError> {
        let text = || self.text.to_string();
        if self.requests.is_some() && !self.is_by_name() {
            let why = "requests are looked into where a name is connected to, not an address".to_owned();
            return Err(RuleError::Syntax { text: text(), why });
        }
        match &self.who {
            Who::Below(suffix) if suffix.is_public_suffix() => {
                Err(RuleError::PublicSuffix { text: text(), suffix: suffix.clone() })
            }
            Who::Range(range) => match range.all_special() {
                Some(what) => Err(RuleError::NeverAllowed { text: text(), what }),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let syntax = |why: &str| RuleError::Syntax { text: text.to_owned(), why: why.to_owned() };
        if text.contains("://") && !text.starts_with('/') {
            return super::written::url(text).map_err(|error| match error {
                RuleError::Syntax { why, .. } => syntax(&why),
                other => other,
            });
        }
        let made = |who, port| Self { who, port, text: text.into(), requests: None };
        if let Some(rest) = text.strip_prefix('/') {
            let (pattern, after) = rest.rsplit_once('/').ok_or_else(|| syntax("a regular expression ends with `/`"))?;
            let port = match after.strip_prefix(':') {
                Some(after) => Some(port(after).ok_or_else(|| syntax("after `:` comes a port"))?),
                None if after.is_empty() => None,
                None => return Err(syntax("after a regular expression comes `:` and a port, or nothing")),
            };
            return Ok(made(Who::Matching(anchored(pattern).map_err(|why| syntax(&why))?), port));
        }
        if let Some((range, port)) = range(text).map_err(syntax)? {
            return Ok(made(Who::Range(range), port));
        }
        let (name, port) = match text.split_once(':') {
            Some((name, after)) => (name, Some(port(after).ok_or_else(|| syntax("after `:` comes a port"))?)),
            None => (text, None),
        };
        let named = |name: &str| name.parse().map_err(|source| RuleError::Name { text: text.to_owned(), source });
        match name.strip_prefix("*.") {
            Some(parent) => Ok(made(Who::Below(named(parent)?), port)),
            None if name.contains('*') => Err(syntax("`*` stands only at the beginning, as in *.example.com")),
            None => Ok(made(Who::Name(named(name)?), port)),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.requests == other.requests
    }
}

impl Eq for Rule {}

impl Rule {
    /// The same, for these requests alone; `text` is how it is shown.
    pub(super) fn limited(self, requests: Requests, text: String) -> Self {
        let whom = self.text;
        Self { requests: Some(Arc::new((requests, whom))), text: text.into(), ..self }
    }
}

/// A host and a port that may be private: `localhost:5432`, `10.0.0.5:80`, `[fd00::1]:80`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Private {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// A host as it is named to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Name(Name),
    Address(IpAddr),
}

impl Host {
    /// As programs write it in a URL or ask a proxy for it.
    pub fn from_wire(text: &[u8]) -> Result<Self, NameError> {
        match std::str::from_utf8(text).ok().and_then(literal) {
            Some(address) => Ok(Self::Address(address)),
            None => Name::from_wire(text).map(Self::Name),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address @ IpAddr::V4(_)) => address.fmt(f),
            Self::Address(address @ IpAddr::V6(_)) => write!(f, "[{address}]"),
        }
    }
}

impl FromStr for Private {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let syntax = |why: &str| RuleError::Syntax { text: text.to_owned(), why: why.to_owned() };
        let (host, after) = text.rsplit_once(':').ok_or_else(|| syntax("it needs a port, as in localhost:5432"))?;
        let port = port(after).ok_or_else(|| syntax("after `:` comes a port"))?;
        let host = match literal(host) {
            Some(address) => Host::Address(address),
            None => Host::Name(host.parse().map_err(|source| RuleError::Name { text: text.to_owned(), source })?),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl TryFrom<String> for Private {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error: RuleError| error.to_string())
    }
}

impl From<Private> for String {
    fn from(private: Private) -> Self {
        private.to_string()
    }
}

/// 1 to 65535, in digits alone.
pub fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|port| *port != 0)
}

/// A range, if `text` looks like one: an address, `/bits`, `[v6]:port` or `v4:port`.
fn range(text: &str) -> Result<Option<(Cidr, Option<u16>)>, &'static str> {
    let (range, after) = if let Some(rest) = text.strip_prefix('[') {
        let (range, after) = rest.split_once(']').ok_or("`[` without `]`")?;
        match after.strip_prefix(':') {
            Some(after) => (range, Some(after)),
            None if after.is_empty() => (range, None),
            None => return Err("after `]` comes `:` and a port, or nothing"),
        }
    } else if text.matches(':').count() == 1 {
        text.split_once(':').map(|(range, after)| (range, Some(after))).unwrap_or((text, None))
    } else {
        (text, None)
    };
    let looks = text.starts_with('[') || range.contains([':', '/']) || range.parse::<IpAddr>().is_ok();
    if !looks {
        return Ok(None);
    }
    let port = after.map(|after| port(after).ok_or("after `:` comes a port")).transpose()?;
    range.parse().map(|range| Some((range, port)))
}

/// Matches whole names alone.
fn anchored(pattern: &str) -> Result<Regex, String> {
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build();
    let why = |error: regex::Error| error.to_string().replace('\n', " ");
    // By itself first: `a)|(b` would get out of the brackets.
    build(pattern).map_err(why)?;
    build(&format!(r"\A(?:{pattern})\z")).map_err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    fn about(text: &str, name: &str) -> bool {
        rule(text).is_about(&name.parse().unwrap())
    }

    fn covers(text: &str, address: &str) -> bool {
        rule(text).covers(address.parse().unwrap())
    }

    #[test]
    fn bypass_08_wildcards_are_at_a_dot_and_without_the_apex() {
        assert!(about("*.x.com", "a.x.com"));
        for none in ["evilx.com", "x.com", "a.x.com.evil.org", "xx.com"] {
            assert!(!about("*.x.com", none), "{none}");
        }
        assert!(about("X.com.", "x.com"));
        assert!(!about("x.com", "a.x.com"));
        for wide in ["*.com", "*.co.uk", "*.github.io", "*.internal", "*.uk:443"] {
            assert!(matches!(rule(wide).check_allow(), Err(RuleError::PublicSuffix { .. })), "{wide}");
        }
        for none in ["*", "*com", "a.*.com", "*.*.com", "**.x.com", "*.", "x.*"] {
            assert!(none.parse::<Rule>().is_err(), "{none}");
        }
    }

    #[test]
    fn a_regex_is_held_against_the_whole_name() {
        assert!(about("/api[0-9]+\\.x\\.com/", "api12.x.com"));
        for none in ["api12.x.com.evil.org", "evilapi12.x.com", "api.x.com"] {
            assert!(!about("/api[0-9]+\\.x\\.com/", none), "{none}");
        }
        assert!(!about("/a.com|b.com/", "b.com.evil.org"));
        assert!(!about("/(?m)^a\\.com$/", "b.a.com"));
        assert_eq!(rule("/a/:80").port(), Some(80));
        for none in ["/a", "/a)|(b/", "/[/", "/(?x)a #/", "/a/80", "/a/:", "/(a{9999}){9999}/"] {
            assert!(none.parse::<Rule>().is_err(), "{none}");
        }
    }

    #[test]
    fn ranges_are_read_strictly() {
        assert!(covers("8.8.8.0/24", "8.8.8.8"));
        assert!(covers("8.8.8.8", "8.8.8.8"));
        assert!(covers("[2606:4700::/32]:443", "2606:4700::1"));
        assert!(covers("2606:4700::/32", "2606:4700::1"));
        assert_eq!(rule("8.8.8.0/24:53").port(), Some(53));
        assert_eq!(rule("[2606::1]:53").port(), Some(53));
        assert_eq!(rule("2606::53").port(), None);
        assert!(!about("8.8.8.8", "example.com"));
        for none in [
            "8.8.8.8/24",
            "8.8.8.8:",
            "8.8.8.8:0",
            "8.8.8.8:65536",
            "8.8.8.8:+1",
            "[8.8.8.8",
            "[a]",
            "8.8/16",
            "0x8.8",
            "127.1",
            "2130706433",
            "[::1]x",
            "a/8",
            "1.2.3.4:80:80",
        ] {
            assert!(none.parse::<Rule>().is_err(), "{none}");
        }
    }

    #[test]
    fn a_range_that_can_never_allow_is_refused() {
        for none in ["10.0.0.0/8", "10.1.2.3", "127.0.0.1:5432", "169.254.0.0/16", "fd00::/8", "[::1]:80"] {
            assert!(matches!(rule(none).check_allow(), Err(RuleError::NeverAllowed { .. })), "{none}");
        }
        assert_eq!(rule("0.0.0.0/0").check_allow(), Ok(()));
    }

    #[test]
    fn names_with_ports_are_read_strictly() {
        assert_eq!(rule("x.com:8443").port(), Some(8443));
        for none in ["", "x.com:", "x.com:0", "x.com:http", "x.com:1:2", " x.com", "https:x.com", "x.com/a", "x\0.com"]
        {
            assert!(none.parse::<Rule>().is_err(), "{none:?}");
        }
    }

    #[test]
    fn a_file_has_one_rule_a_line() {
        let rules = Rule::list("# registries\n\npypi.org # the index\n  *.example.com:443\n/a#b/\n").unwrap();
        assert_eq!(rules.iter().map(Rule::text).collect::<Vec<_>>(), ["pypi.org", "*.example.com:443", "/a#b/"]);
        assert!(Rule::list("pypi.org\n*\n").is_err());
    }

    #[test]
    fn a_private_host_is_named_with_its_port() {
        for text in ["localhost:5432", "10.0.0.5:80", "[::1]:80"] {
            assert_eq!(text.parse::<Private>().unwrap().to_string(), text);
        }
        for none in ["localhost", "10.0.0.0/8:80", "*.corp:80", "127.1:80", "::1:80", "localhost:0", ":80"] {
            assert!(none.parse::<Private>().is_err(), "{none}");
        }
    }
}
