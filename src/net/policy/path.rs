//! A request's path in its one canonical spelling, and the patterns that rules have for it.
//!
//! As with names, every trick with paths lives on two places reading one differently. So a path has one reading or is
//! refused: nothing that a server may take for another way (`..`, `//`, `%2f`, `\`, what is encoded twice), and what is
//! sent on is what was held against the rule.

/// `/a/b` of `/a/b?c`, canonical; or why it has more than one reading.
pub fn normal(target: &str) -> Result<String, &'static str> {
    let path = target.split('?').next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err("its target is no path");
    }
    let mut normal = String::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                    return Err("its path has a % without two digits");
                };
                match (high << 4 | low) as u8 {
                    // A letter is itself, however it is written.
                    plain if plain.is_ascii_alphanumeric() || b"-_~".contains(&plain) => normal.push(plain.into()),
                    b'/' | b'.' | b'\\' => return Err("its path has an encoded slash or dot"),
                    // One server may take it for what ends a segment, and the next for a part of it.
                    b';' => return Err("its path has an encoded semicolon"),
                    b'%' => return Err("its path is encoded twice"),
                    0..=0x1f | 0x7f => return Err("its path has a control character"),
                    // Such as a dot in more bytes than it needs.
                    0xc0 | 0xc1 | 0xf5..=0xff => return Err("its path has bytes of no character"),
                    _ => normal.extend(['%', upper(high), upper(low)]),
                }
            }
            b'\\' => return Err("its path has a backslash"),
            b'#' => return Err("its path has a #"),
            0x21..=0x7e => normal.push(byte.into()),
            _ => return Err("its path has a character that belongs encoded"),
        }
    }
    if normal.contains("//") {
        return Err("its path has two slashes in a row");
    }
    // Some servers take `..;x` for `..`.
    let up = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if normal.split('/').any(up) {
        return Err("its path has . or .. in it");
    }
    Ok(normal)
}

fn upper(digit: u32) -> char {
    char::from_digit(digit, 16).unwrap_or('0').to_ascii_uppercase()
}

/// `/repos/*`: at the end `*` stands for all that follows, elsewhere for what is between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.contains('?') {
            return Err("a path has no query here: rules don't look at it");
        }
        // It would never be met in another spelling.
        if normal(text)? != text {
            return Err("its path is not in its plainest spelling");
        }
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for `path`, which is canonical.
    #[must_use]
    pub fn fits(&self, path: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => {
                // Segment by segment up to where the rest is free.
                let depth = start.matches('/').count();
                let Some((at, _)) = path.match_indices('/').nth(depth.saturating_sub(1)) else { return false };
                let (before, last) = start.rsplit_once('/').unwrap_or_default();
                let (above, below) = (&path[..at], &path[at + 1..]);
                segments(before, above) && begins(last, below)
            }
            None => segments(&self.0, path),
        }
    }
}

fn segments(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if segment(wanted, found) => {}
            _ => return false,
        }
    }
}

/// One segment, in which each `*` is anything.
fn segment(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

/// Whether `text` begins as `pattern` says, whatever follows.
fn begins(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut text) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    // What is before a later `*` stays within its segment.
    for part in parts {
        let own = text.split('/').next().unwrap_or_default();
        let Some(at) = own.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bypass_25_a_path_has_one_reading_or_none() {
        for (text, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b?c=../d", "/a/b"),
            ("/%61%7e/%2a%C3%a9", "/a~/%2A%C3%A9"),
            ("/a;b=1/...", "/a;b=1/..."),
            ("/*", "/*"),
        ] {
            assert_eq!(normal(text).as_deref(), Ok(expected), "{text}");
            assert_eq!(normal(expected).as_deref(), Ok(expected));
        }
        for none in [
            "",
            "a",
            "*",
            "?/a",
            "//",
            "/a//b",
            "/./a",
            "/a/..",
            "/../a",
            "/a/../b",
            "/a/..;x/b",
            "/a/..%3Bx/b",
            "/a/%c0%ae%c0%ae/b",
            "/.;/a",
            "/a%2fb",
            "/a%2Fb",
            "/%2e%2e/a",
            "/.%2E/a",
            "/a%5cb",
            "/a\\b",
            "/%252e%252e/a",
            "/%25",
            "/a%00b",
            "/a\0b",
            "/a%0d%0ab",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "/a#b",
            "/a b",
            "/\u{e9}",
            "/a\x7f",
        ] {
            assert!(normal(none).is_err(), "{none:?}");
        }
    }

    #[test]
    fn a_star_at_the_end_is_all_that_follows_and_elsewhere_a_segment() {
        let fits = |pattern: &str, path: &str| Pattern::new(pattern).unwrap().fits(path);
        for (pattern, path) in [
            ("/*", "/"),
            ("/*", "/a/b"),
            ("/repos/*", "/repos/"),
            ("/repos/*", "/repos/a/b"),
            ("/repos/a*", "/repos/ab/c"),
            ("/repos/*/issues", "/repos/a/issues"),
            ("/repos/*/issues/*", "/repos/a/issues/1/comments"),
            ("/v*/a", "/v1/a"),
            ("/a*b*c/d", "/aXbXc/d"),
            ("/a*b*", "/aXb/c"),
            ("/a", "/a"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/repos/*", "/repos"),
            ("/repos/*", "/reposx/a"),
            ("/repos/*", "/x/repos/a"),
            ("/repos/*/issues", "/repos/a/b/issues"),
            ("/repos/*/issues", "/repos/a/issues/1"),
            ("/repos/*/issues/*", "/repos/a/b/issues/1"),
            ("/a*b*", "/aX/b"),
            ("/a*a/b", "/a/b"),
            ("/a", "/a/"),
            ("/a", "/A"),
        ] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
        for none in ["", "a", "*", "/a/../b", "/a?b", "/%61", "/a//*"] {
            assert!(Pattern::new(none).is_err(), "{none}");
        }
    }
}
