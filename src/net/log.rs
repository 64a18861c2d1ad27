//! What a sandbox asked of its network, for who wants to read it afterwards: one entry a connection and a question.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{Denied, Protocol};

/// A connection that has ended, or a question that was answered. Its JSON is one line of the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contact {
    /// When it began.
    #[serde(serialize_with = "as_text")]
    pub time: SystemTime,
    pub verdict: Allowed,
    pub protocol: Protocol,
    /// As the program named it.
    pub host: String,
    pub port: Option<u16>,
    /// Where it led.
    pub address: Option<IpAddr>,
    /// What allowed or refused it.
    pub rule: String,
    /// Why it came to nothing although it was allowed.
    pub error: Option<String>,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    #[serde(rename = "duration_ms", serialize_with = "as_milliseconds")]
    pub duration: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    Allowed,
    Denied,
}

impl Contact {
    /// One that came to nothing.
    #[must_use]
    pub fn denied(denied: &Denied) -> Self {
        let parted = denied.target.rsplit_once(':').filter(|_| denied.protocol != Protocol::Dns);
        let parted = parted.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parted.map_or((denied.target.as_str(), None), |(host, port)| (host, Some(port)));
        Self { verdict: Allowed::Denied, port, ..Self::new(denied.protocol, host.to_owned(), denied.rule.clone()) }
    }

    #[must_use]
    pub fn new(protocol: Protocol, host: String, rule: String) -> Self {
        Self {
            time: SystemTime::now(),
            verdict: Allowed::Allowed,
            protocol,
            host,
            port: None,
            address: None,
            rule,
            error: None,
            sent_bytes: 0,
            received_bytes: 0,
            duration: Duration::ZERO,
        }
    }
}

fn as_text<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn as_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_asked_for() {
        let denied = |protocol, target: &str| {
            let rule = "--net filtered".to_owned();
            let contact = Contact::denied(&Denied { protocol, target: target.to_owned(), rule, hint: None });
            serde_json::to_string(&Contact { time: SystemTime::UNIX_EPOCH, ..contact }).unwrap()
        };
        assert_eq!(
            denied(Protocol::Tls, "[2001:db8::1]:443"),
            r#"{"time":"1970-01-01T00:00:00.000Z","verdict":"denied","protocol":"tls","host":"[2001:db8::1]","port":443,"#
                .to_owned()
                + r#""address":null,"rule":"--net filtered","error":null,"sent_bytes":0,"received_bytes":0,"duration_ms":0}"#
        );
        assert!(denied(Protocol::Dns, "a.example").contains(r#""host":"a.example","port":null"#));
    }
}
