//! What a registry says when it does not do what it was asked (distribution-spec, "Error Codes").

use std::{
    io::Read,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use ureq::{
    Body,
    http::{HeaderMap, Response, header},
};

use super::error::RegistryError;

/// Of an error's body: what is more is no error.
const MOST: u64 = 64 << 10;
const LONGEST: usize = 300;
/// Nobody waits longer, whoever asks for it.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    code: Option<String>,
    message: Option<String>,
}

/// The error that an answer is.
pub fn error(registry: &str, repository: &str, what: &str, response: Response<Body>) -> RegistryError {
    let status = response.status().as_u16();
    let after = retry_after(response.headers());
    let kind = header(response.headers(), header::CONTENT_TYPE.as_str());
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut body = Vec::new();
    // What cannot be read of it is not told.
    _ = response.into_body().into_reader().take(MOST).read_to_end(&mut body);
    let said = said(&body);
    let (registry, repository, what) = (registry.to_owned(), repository.to_owned(), what.to_owned());
    match said {
        None if kind == "text/html" => {
            RegistryError::NoRegistry { registry, repository, what, status, kind: "a web page".to_owned() }
        }
        said => {
            let said = said.map_or_else(String::new, |said| format!(" ({said})"));
            RegistryError::Status { registry, repository, what, status, said, after }
        }
    }
}

/// The registry's own words, on one line: `CODE: message`.
#[must_use]
pub fn said(body: &[u8]) -> Option<String> {
    let errors: Errors = serde_json::from_slice(body).ok()?;
    let first = errors.errors.into_iter().next()?;
    let parts: Vec<String> =
        [first.code, first.message].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    let text: String = parts.join(": ").chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    (!text.is_empty()).then_some(text)
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header(headers, header::RETRY_AFTER.as_str());
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let stamp = rfc_1123(&text)?;
            stamp.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// `Wed, 21 Oct 2015 07:28:00 GMT`
fn rfc_1123(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.strip_suffix(" GMT")?.split(", ").nth(1)?.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

/// A header's text; empty where there is none or it is no text.
#[must_use]
pub fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_words_are_told_on_one_line() {
        let body = br#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest\nunknown", "detail": {}}]}"#;
        assert_eq!(said(body).as_deref(), Some("MANIFEST_UNKNOWN: manifest unknown"));
        for body in [&b""[..], b"<html>", b"{}", br#"{"errors": []}"#, br#"{"errors": [{}]}"#, br#"{"errors": "x"}"#] {
            assert_eq!(said(body), None);
        }
    }

    #[test]
    fn how_long_to_wait_is_bounded() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("99999999999"), Some(LONGEST_WAIT));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("Wed, 21 Oct 2199 07:28:00 GMT"), Some(LONGEST_WAIT));
        assert_eq!(after("soon"), None);
    }
}
