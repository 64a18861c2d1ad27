//! What of HTTP an allow is for, where it is not for all: methods and paths, and headers that the proxy adds.
//!
//! A header's value is a secret: nothing prints it, it is not serialized, and its memory is overwritten at the end.

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt, sync::Arc};

use zeroize::Zeroizing;

use super::path::Pattern;

/// Of one allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// Within TLS, in plain text, or both.
    pub secure: Option<bool>,
    /// Any where there is none.
    pub methods: Vec<Box<str>>,
    /// Any where there is none.
    pub paths: Vec<Pattern>,
    pub add: Vec<Header>,
}

/// A request, as far as a rule is about it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Within TLS, whose other end was found to be the name's.
    pub secure: bool,
    pub method: &'a str,
    /// As it was sent.
    pub target: &'a str,
    /// Canonical; `None`: it has more than one reading.
    pub path: Option<&'a str>,
}

impl Requests {
    #[must_use]
    pub fn fit(&self, asked: &Asked<'_>) -> bool {
        // What is added must not be read on the way.
        let secure = self.secure.or((!self.add.is_empty()).then_some(true));
        secure.is_none_or(|secure| secure == asked.secure)
            && (self.methods.is_empty() || self.methods.iter().any(|method| **method == *asked.method))
            && (self.paths.is_empty()
                || asked.path.is_some_and(|path| self.paths.iter().any(|pattern| pattern.fits(path))))
    }

    /// `GET,HEAD`
    pub fn methods(text: &str) -> Result<Vec<Box<str>>, &'static str> {
        text.split(',').map(method).collect()
    }
}

/// Methods are told apart by case, and those that there are, are upper.
pub fn method(text: &str) -> Result<Box<str>, &'static str> {
    match text {
        "CONNECT" => Err("a tunnel is no request that a rule is for"),
        _ if !text.is_empty()
            && text.len() <= 32
            && text.bytes().all(|b| b.is_ascii_uppercase() || b"-_".contains(&b)) =>
        {
            Ok(text.into())
        }
        _ => Err("methods are words in capitals with commas between them, as in GET,HEAD"),
    }
}

/// What the proxy adds to a request, in place of what the client says there.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    name: Box<str>,
    value: Arc<Zeroizing<Vec<u8>>>,
    /// What of the value must not come back.
    secrets: Arc<[Zeroizing<Vec<u8>>]>,
}

/// A header that cannot be added. Its value is not quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("header `{}`: {why}", name.escape_debug())]
    Name { name: String, why: &'static str },
    #[error("header `{name}`: {why}")]
    Value { name: String, why: String },
}

/// Headers that say where a request goes, or where it ends.
const NEVER: [&str; 14] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "accept-encoding",
    "http2-settings",
    "sec-websocket-key",
    "proxy-connection",
    "proxy-authorization",
];

/// Shorter ones would be found everywhere.
const SHORTEST: usize = 4;
/// Of one word among others: longer than what says what a value is (`Bearer`, `Digest`).
const SHORTEST_WORD: usize = 8;

/// Those of a value that has several.
fn words(value: &[u8]) -> impl Iterator<Item = Secret> {
    let words = value.split(|byte| b" ,;=\"\t".contains(byte));
    words
        .filter(|word| word.len() >= SHORTEST_WORD && word.len() < value.len())
        .map(|word| Zeroizing::new(word.to_vec()))
}

impl Header {
    /// `value` may name variables of the environment, as `$NAME` or `${NAME}`; `$$` is a dollar sign.
    pub fn new(name: &str, value: &str, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, HeaderError> {
        let bad_name = |why| HeaderError::Name { name: name.chars().take(64).collect(), why };
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        {
            return Err(bad_name("its name has letters, digits, `-` and `_`"));
        }
        if NEVER.iter().any(|never| name.eq_ignore_ascii_case(never)) {
            return Err(bad_name("it says where a request goes or ends, and is not added"));
        }
        let bad_value = |why: String| HeaderError::Value { name: name.to_owned(), why };
        let (value, mut secrets) = expand(value, env).map_err(bad_value)?;
        if value.iter().any(|&byte| byte < 0x20 || byte == 0x7f) || value.trim_ascii() != &value[..] {
            return Err(bad_value("its value is one line, and neither begins nor ends with a blank".to_owned()));
        }
        if secrets.is_empty() {
            // Behind the word that says what it is: `Bearer `, `Basic `, `token `.
            let at = value.iter().rposition(|&byte| byte == b' ').map_or(0, |at| at + 1);
            secrets.push(Zeroizing::new(value[at..].to_vec()));
            if at > 0 {
                secrets.push(value.clone());
            }
        }
        let words: Vec<_> = secrets.iter().flat_map(|secret| words(secret)).collect();
        secrets.extend(words);
        secrets.sort_by(|one, other| one[..].cmp(&other[..]));
        secrets.dedup();
        if secrets.iter().any(|secret| secret.len() < SHORTEST) {
            return Err(bad_value("it is too short to be told apart in what servers answer".to_owned()));
        }
        Ok(Self { name: name.into(), value: Arc::new(value), secrets: secrets.into() })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    #[must_use]
    pub fn secrets(&self) -> &[Zeroizing<Vec<u8>>] {
        &self.secrets
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ***", self.name)
    }
}

type Secret = Zeroizing<Vec<u8>>;

/// The value, and those of the variables in it.
fn expand(text: &str, env: impl Fn(&str) -> Option<OsString>) -> Result<(Secret, Vec<Secret>), String> {
    // With room for all of it, so that no part stays behind when it grows.
    let (mut value, mut secrets) = (Zeroizing::new(Vec::with_capacity(64 << 10)), Vec::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        value.extend_from_slice(before.as_bytes());
        if let Some(after) = after.strip_prefix('$') {
            value.push(b'$');
            rest = after;
            continue;
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, after) = match after.strip_prefix('{') {
            Some(after) => after.split_once('}').ok_or("`${` without `}`")?,
            None => after.split_at(after.find(|c| !is_word(c)).unwrap_or(after.len())),
        };
        if name.is_empty() || !name.chars().all(is_word) {
            return Err("after `$` comes a variable's name; `$$` is a dollar sign".to_owned());
        }
        let found = env(name).ok_or_else(|| format!("${name} is not set in the environment"))?;
        let found = Zeroizing::new(found.into_vec());
        if found.len() > 32 << 10 {
            return Err(format!("${name} is too long for a header"));
        }
        value.extend_from_slice(&found);
        secrets.push(found);
        rest = after;
        if value.len() > 32 << 10 {
            return Err("it is too long for a header".to_owned());
        }
    }
    if rest.len() > 32 << 10 {
        return Err("it is too long for a header".to_owned());
    }
    value.extend_from_slice(rest.as_bytes());
    Ok((value, secrets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> Result<Header, HeaderError> {
        Header::new("Authorization", value, |name| match name {
            "KEY" => Some("sk-hunter2".into()),
            "BROKEN" => Some("sk\r\nX: y".into()),
            "SHORT" => Some("a".into()),
            "TWO" => Some("hunter2-hunter2 end1".into()),
            _ => None,
        })
    }

    #[test]
    fn a_value_names_variables() {
        for (text, value, secret) in [
            ("Bearer $KEY", "Bearer sk-hunter2", &["sk-hunter2"][..]),
            ("Bearer ${KEY}", "Bearer sk-hunter2", &["sk-hunter2"]),
            ("a$KEY.b$$KEY", "ask-hunter2.b$KEY", &["sk-hunter2"]),
            ("Basic dXNlcjpwYXNz", "Basic dXNlcjpwYXNz", &["Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"]),
            ("hunter2", "hunter2", &["hunter2"]),
            (
                "Key id=1234567, key=hunter2-hunter2 end1",
                "Key id=1234567, key=hunter2-hunter2 end1",
                &["Key id=1234567, key=hunter2-hunter2 end1", "end1", "hunter2-hunter2"],
            ),
            ("X $TWO", "X hunter2-hunter2 end1", &["hunter2-hunter2", "hunter2-hunter2 end1"]),
        ] {
            let header = header(text).unwrap();
            assert_eq!(header.value(), value.as_bytes());
            let secrets: Vec<_> = header.secrets().iter().map(|s| std::str::from_utf8(s).unwrap()).collect();
            assert_eq!(secrets, secret);
        }
        for none in ["$NONE", "$", "$-", "${KEY", "${}", "${K-}", "$BROKEN", "a\nb", " a", "a ", "", "$SHORT"] {
            assert!(header(none).is_err(), "{none}");
        }
    }

    #[test]
    fn nothing_shows_a_value() {
        let shown = format!("{:?}", header("Bearer $KEY"));
        assert!(shown.contains("Authorization") && !shown.contains("hunter2"), "{shown}");
        let error = header("$BROKEN").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("sk"));
    }

    #[test]
    fn headers_that_steer_are_not_added() {
        for none in ["Host", "content-length", "Connection", "X Y", "", "X:", "X\r"] {
            assert!(Header::new(none, "value", |_| None).is_err(), "{none:?}");
        }
    }

    #[test]
    fn methods_are_words_in_capitals() {
        assert_eq!(Requests::methods("GET,HEAD").unwrap(), ["GET".into(), "HEAD".into()]);
        for none in ["", "get", "GET,", "GET HEAD", "CONNECT", "G\0"] {
            assert!(Requests::methods(none).is_err(), "{none:?}");
        }
    }
}
