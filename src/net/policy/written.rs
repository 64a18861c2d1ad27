//! Rules about requests as they are written: `GET https://name/path/*` on a command line, an object in a document.

use std::{collections::BTreeMap, env, ffi::OsString, fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use zeroize::Zeroizing;

use super::{
    name::Name,
    path::Pattern,
    requests::{Header, Requests, method},
    rule::{Rule, RuleError, port},
};

/// A rule in a document.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Written {
    Text(String),
    Object(Object),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object {
    host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheme: Option<Scheme>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    /// Headers with their values, which are read and never written.
    #[serde(default, skip_serializing)]
    inject: BTreeMap<String, Zeroizing<String>>,
    #[serde(skip_deserializing, rename(serialize = "inject"), skip_serializing_if = "Vec::is_empty")]
    injected: Vec<String>,
}

#[derive(Deserialize, Serialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Http,
    Https,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rule: a string, or an object with a host")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
                Object::deserialize(MapAccessDeserializer::new(map)).map(Written::Object)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl TryFrom<Written> for Rule {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Text(text) => text.parse().map_err(|error: RuleError| error.to_string()),
            Written::Object(object) => rule(object),
        }
    }
}

fn rule(object: Object) -> Result<Rule, String> {
    let Object { host, scheme, methods, paths, inject, .. } = object;
    let whom: Rule = host.parse().map_err(|error: RuleError| error.to_string())?;
    if whom.requests().is_some() {
        return Err(format!("rule `{host}`: a host has no scheme and no path here: those are `scheme` and `paths`"));
    }
    let bad = |why: &str| format!("rule `{host}`: {why}");
    let secure = scheme.map(|scheme| matches!(scheme, Scheme::Https));
    let methods = methods.iter().map(|text| method(text)).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let paths = paths.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let add = inject.iter().map(|(name, value)| Header::new(name, value, |name| env::var_os(name)));
    let add: Vec<Header> = add.collect::<Result<_, _>>().map_err(|error| bad(&error.to_string()))?;
    let requests = Requests { secure, methods, paths, add };
    if requests == Requests::default() {
        return Ok(whom);
    }
    let shown = shown(&requests, &host);
    Ok(whom.limited(requests, shown))
}

/// For denials.
fn shown(requests: &Requests, host: &str) -> String {
    let scheme = match requests.secure {
        Some(true) => "https://",
        Some(false) => "http://",
        None => "",
    };
    let methods = requests.methods.join(",") + if requests.methods.is_empty() { "" } else { " " };
    let paths: Vec<_> = requests.paths.iter().map(Pattern::as_str).collect();
    format!("{methods}{scheme}{host}{}", paths.join(","))
}

impl From<Rule> for Written {
    fn from(rule: Rule) -> Self {
        let Some(requests) = rule.requests() else { return Self::Text(rule.text().to_owned()) };
        let scheme = requests.secure.map(|secure| if secure { Scheme::Https } else { Scheme::Http });
        let names: Vec<_> = requests.add.iter().map(|header| header.name().to_owned()).collect();
        Self::Object(Object {
            host: rule.whom(),
            scheme,
            methods: requests.methods.iter().map(|method| method.to_string()).collect(),
            paths: requests.paths.iter().map(|path| path.as_str().to_owned()).collect(),
            inject: BTreeMap::new(),
            injected: names,
        })
    }
}

/// `[METHODS ]http[s]://name[:port][/path]`
pub(super) fn url(text: &str) -> Result<Rule, RuleError> {
    let syntax = |why: &str| RuleError::Syntax { text: text.to_owned(), why: why.to_owned() };
    let (methods, url) = match text.split_once(' ') {
        Some((methods, url)) => (Requests::methods(methods).map_err(syntax)?, url),
        None => (Vec::new(), text),
    };
    let (secure, rest) = match url.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return Err(syntax("a URL begins with https:// or http://")),
    };
    let (host, paths) = match rest.find('/') {
        Some(at) => (&rest[..at], vec![Pattern::new(&rest[at..]).map_err(syntax)?]),
        None => (rest, Vec::new()),
    };
    let default = if secure { 443 } else { 80 };
    let whom = if host.contains(':') { host.to_owned() } else { format!("{host}:{default}") };
    let rule: Rule = whom.parse()?;
    if !rule.is_by_name() {
        return Err(syntax("requests are looked into where a name is connected to, not an address"));
    }
    Ok(rule.limited(Requests { secure: Some(secure), methods, paths, add: Vec::new() }, text.to_owned()))
}

/// A header that requests to one name are given: `NAME[:PORT]:HEADER=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    pub(super) name: Name,
    pub(super) port: u16,
    pub(super) header: Header,
}

impl Injection {
    /// `env`, as a rule [`std::env::var_os`], has the variables that the value names.
    pub fn parse(text: &str, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, RuleError> {
        // The value is nobody's to see.
        let shown = text.split_once('=').map_or("", |(before, _)| before);
        let syntax = |why: &str| RuleError::Inject { text: shown.to_owned(), why: why.to_owned() };
        let (before, value) = text.split_once('=').ok_or_else(|| syntax("there is no `=` and no value"))?;
        let (whom, header) = before.rsplit_once(':').ok_or_else(|| syntax("there is no header"))?;
        let (name, port) = match whom.split_once(':') {
            Some((name, after)) => {
                (name, port(after).ok_or_else(|| syntax("after the name comes a port or a header"))?)
            }
            None => (whom, 443),
        };
        let name = Name::from_str(name).map_err(|error| syntax(&error.to_string()))?;
        Ok(Self { name, port, header: Header::new(header, value, env)? })
    }

    /// The requests that it is about, as an allow.
    pub(super) fn rule(&self) -> Result<Rule, RuleError> {
        let whom = format!("{}:{}", self.name, self.port);
        let rule: Rule = whom.parse()?;
        Ok(rule.limited(Requests { secure: Some(true), ..Requests::default() }, format!("https://{whom}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn a_url_is_a_name_a_port_and_what_is_asked() {
        for (text, whom, methods, paths) in [
            ("https://x.com", "x.com:443", &[][..], &[][..]),
            ("http://x.com/", "x.com:80", &[], &["/"]),
            ("GET,HEAD https://*.x.com:8443/a/*", "*.x.com:8443", &["GET", "HEAD"], &["/a/*"]),
        ] {
            let rule = rule(text);
            let requests = rule.requests().unwrap();
            assert_eq!((rule.text(), rule.whom()), (text, whom.to_owned()));
            assert_eq!(requests.methods.iter().map(|m| &**m).collect::<Vec<_>>(), methods);
            assert_eq!(requests.paths.iter().map(Pattern::as_str).collect::<Vec<_>>(), paths);
        }
        for none in [
            "ftp://x.com",
            "https://",
            "https:///a",
            "get https://x.com",
            "GET  https://x.com",
            "https://x.com/a?b",
            "https://x.com/../a",
            "https://1.2.3.4/",
            "https://u@x.com/",
            "https://x.com:0/",
            "CONNECT https://x.com",
            "GET x.com",
        ] {
            assert!(none.parse::<Rule>().is_err(), "{none}");
        }
        assert!(matches!(rule("https://*.co.uk").check_allow(), Err(RuleError::PublicSuffix { .. })));
    }

    #[test]
    fn a_document_has_objects_and_never_shows_a_value() {
        let text =
            r#"{"host":"x.com:8443","methods":["GET"],"paths":["/a/*","/b"],"inject":{"X-Key":"hunter2hunter2"}}"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(rule.text(), "GET x.com:8443/a/*,/b");
        assert_eq!(rule.requests().unwrap().add[0].value(), b"hunter2hunter2");
        let printed = serde_json::to_string(&rule).unwrap();
        assert!(!printed.contains("hunter2") && printed.contains(r#""inject":["X-Key"]"#), "{printed}");
        assert!(!format!("{rule:?}").contains("hunter2"));
        // What was left out is missed, not forgotten.
        assert!(serde_json::from_str::<Rule>(&printed).is_err());
        for none in [
            r#"{"host":"x.com","path":"/"}"#,
            r#"{"methods":["GET"]}"#,
            r#"{"host":"GET https://x.com/"}"#,
            r#"{"host":"x.com","paths":["a"]}"#,
            r#"{"host":"x.com","inject":{"Host":"hunter2"}}"#,
            r#"{"host":"x.com","inject":{"A":"$NO_SUCH_VARIABLE_"}}"#,
        ] {
            let error = serde_json::from_str::<Rule>(none).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let plain = r#"{"host":"x.com"}"#;
        assert_eq!(serde_json::from_str::<Rule>(plain).unwrap(), self::rule("x.com"));
    }

    #[test]
    fn an_injection_names_whom_what_and_a_value() {
        let parse = |text: &str| Injection::parse(text, |name| (name == "KEY").then(|| "hunter2".into()));
        let found = parse("api.x.com:Authorization=Bearer $KEY").unwrap();
        assert_eq!((found.name.as_str(), found.port, found.header.value()), ("api.x.com", 443, &b"Bearer hunter2"[..]));
        assert_eq!(parse("api.x.com:8443:X-Key=$KEY").unwrap().port, 8443);
        for none in [
            "api.x.com:Authorization",
            "api.x.com=hunter2",
            "*.x.com:A=hunter2",
            "1.2.3.4:A=hunter2",
            "x.com:0:A=hunter2",
            "x.com:1:2:A=hunter2",
            "x.com:A B=hunter2",
            "x.com:A=hun\nter2",
            "x.com:Host=hunter2",
            "x.com:A=$NONE",
        ] {
            let error = parse(none).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{none:?}: {error}");
        }
    }
}
