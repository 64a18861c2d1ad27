//! Where a request goes. Registries name places in their answers (redirects, uploads, token servers), so a URL is
//! hostile input: only http and https, no user in it, and what it is relative to is known.

use std::{fmt, net::IpAddr};

use ureq::http::Uri;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub secure: bool,
    /// In lower case; an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
    /// Path and query, from its first slash on.
    pub rest: String,
}

const LONGEST: usize = 16 << 10;

impl Url {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        // What is in brackets is an address, and an address of six parts is in brackets.
        if bare.is_empty() || (bare != host || bare.contains(':')) && bare.parse::<std::net::Ipv6Addr>().is_err() {
            return None;
        }
        let port = match authority.as_str()[host.len()..].strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None if secure => 443,
            None => 80,
        };
        let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        Some(Self { secure, host: bare.to_ascii_lowercase(), port, rest })
    }

    /// What `text` is, said by what is at this one.
    #[must_use]
    pub fn join(&self, text: &str) -> Option<Self> {
        let scheme = if self.secure { "https" } else { "http" };
        if text.starts_with("//") {
            return Self::parse(&format!("{scheme}:{text}"));
        }
        if text.starts_with('/') {
            return Self::parse(&format!("{}{text}", self.origin()));
        }
        let path = self.rest.split('?').next().unwrap_or_default();
        let before_path = text.split(['/', '?', '#']).next().unwrap_or_default();
        match before_path.contains(':') {
            true => Self::parse(text),
            false if text.starts_with('?') => Self::parse(&format!("{}{path}{text}", self.origin())),
            false => {
                let above = path.rfind('/').map_or("/", |slash| &path[..=slash]);
                Self::parse(&format!("{}{above}{text}", self.origin()))
            }
        }
    }

    /// With one more parameter.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mark = if self.rest.contains('?') { '&' } else { '?' };
        Self { rest: format!("{}{mark}{}", self.rest, field(name, value)), ..self.clone() }
    }

    #[must_use]
    pub fn at(&self, rest: String) -> Self {
        Self { rest, ..self.clone() }
    }

    #[must_use]
    pub fn same_origin(&self, other: &Self) -> bool {
        (self.secure, &self.host, self.port) == (other.secure, &other.host, other.port)
    }

    fn origin(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// Host, and port where it is not the usual one.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            443 if self.secure => host,
            80 if !self.secure => host,
            port => format!("{host}:{port}"),
        }
    }

    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let by_name = self.host == "localhost" || self.host.ends_with(".localhost");
        by_name || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.rest)
    }
}

/// A parameter or a form's field: all but what never means anything is escaped.
#[must_use]
pub fn field(name: &str, value: &str) -> String {
    let mut text = format!("{name}=");
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                text.push(char::from(byte))
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_relative_stays_where_it_was_said() {
        let url = Url::parse("https://Example.com:5000/v2/a/blobs/uploads/?x=1").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("example.com", 5000));
        for (text, wanted) in [
            ("/v2/b", "https://example.com:5000/v2/b"),
            ("c", "https://example.com:5000/v2/a/blobs/uploads/c"),
            ("?y=2", "https://example.com:5000/v2/a/blobs/uploads/?y=2"),
            ("//other/d", "https://other/d"),
            ("http://[::1]:80/e", "http://[::1]/e"),
            ("https://other", "https://other/"),
        ] {
            assert_eq!(url.join(text).unwrap().to_string(), wanted);
        }
        assert_eq!(url.with("scope", "a:b c&").rest, "/v2/a/blobs/uploads/?x=1&scope=a:b%20c%26");
    }

    #[test]
    fn what_is_no_place_on_the_web_is_none() {
        let url = Url::parse("https://example.com/").unwrap();
        for text in [
            "file:///etc/passwd",
            "ftp://x/y",
            "https://user@x/",
            "https://user:pw@x/",
            "https://",
            "http://x:0/",
            "http://x:99999/",
            "http://[::1/",
            "http://a b/",
            "javascript:alert(1)",
            "gopher://x",
        ] {
            assert_eq!(url.join(text), None, "{text}");
        }
    }
}
