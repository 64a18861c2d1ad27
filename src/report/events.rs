//! `--events`: what happens while it happens, one JSON object a line (NDJSON).
//!
//! Every line begins with `event` and `time_ms`, goes out in one write, and holds no newline but its
//! last byte, whatever the program printed. Output that is text stays text: a character cut by a
//! chunk's end waits for the rest of it.

use std::{
    io::{self, Write},
    time::Instant,
};

use serde::Serialize;

use super::{
    controls::Controls,
    denials::Denial,
    json::{Base64, ControlsObject, LimitsObject, Millis},
    outcome::Outcome,
    text::unfinished,
};
use crate::{
    net::{Contact, Policy, publish::Publish},
    request::{id::SandboxId, limits::Limits},
};

/// Writes the events of one run. Every method fails as `out` does.
#[derive(Debug)]
pub struct Events<W> {
    out: W,
    began: Instant,
    line: Vec<u8>,
    /// The beginning of a character, by [`Stream`].
    waiting: [Vec<u8>; 2],
}

/// Which of the program's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl<W: Write> Events<W> {
    /// `time_ms` counts from `began`.
    pub fn new(out: W, began: Instant) -> Self {
        Self { out, began, line: Vec::new(), waiting: Default::default() }
    }

    /// The program was started; `pid` is the host's name for it.
    pub fn start(
        &mut self,
        id: &SandboxId,
        runtime: Option<&str>,
        pid: Option<u32>,
        limits: &Limits,
        controls: &Controls,
        ports: &[Publish],
    ) -> io::Result<()> {
        self.write(
            "start",
            Start { id, runtime, pid, limits: LimitsObject(limits), controls: ControlsObject(Some(controls)), ports },
        )
    }

    /// The program wrote `chunk`, already masked and capped.
    pub fn output(&mut self, stream: Stream, chunk: &[u8]) -> io::Result<()> {
        let mut joined = std::mem::take(&mut self.waiting[stream as usize]);
        let bytes = if joined.is_empty() {
            chunk
        } else {
            joined.extend_from_slice(chunk);
            &joined
        };
        let (whole, rest) = bytes.split_at(bytes.len() - unfinished(bytes));
        self.waiting[stream as usize] = rest.to_vec();
        self.data(stream, whole)
    }

    pub fn denial(&mut self, denial: &Denial) -> io::Result<()> {
        self.write("denial", denial)
    }

    pub fn contact(&mut self, contact: &Contact) -> io::Result<()> {
        self.write("network", contact)
    }

    /// The network has another policy from now on.
    pub fn policy(&mut self, policy: &Policy) -> io::Result<()> {
        self.write("policy", Changed { policy })
    }

    /// The end, with the whole result. What was waiting for the rest of a character goes out before.
    pub fn exit(&mut self, outcome: &Outcome) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.waiting[stream as usize]);
            self.data(stream, &rest)?;
        }
        self.write("exit", outcome)?;
        self.out.flush()
    }

    fn data(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(bytes) {
            Ok("") => Ok(()),
            Ok(data) => self.write(stream.name(), Data::Text { data }),
            Err(_) => self.write(stream.name(), Data::Binary { data_base64: Base64(bytes) }),
        }
    }

    fn write(&mut self, event: &'static str, body: impl Serialize) -> io::Result<()> {
        self.line.clear();
        let time_ms = Millis(self.began.elapsed());
        serde_json::to_writer(&mut self.line, &Event { event, time_ms, body })?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }
}

#[derive(Serialize)]
struct Event<T> {
    event: &'static str,
    time_ms: Millis,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct Changed<'a> {
    policy: &'a Policy,
}

#[derive(Serialize)]
struct Start<'a> {
    id: &'a SandboxId,
    runtime: Option<&'a str>,
    pid: Option<u32>,
    limits: LimitsObject<'a>,
    controls: ControlsObject<'a>,
    ports: &'a [Publish],
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Text { data: &'a str },
    Binary { data_base64: Base64<'a> },
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde_json::Value;

    use super::super::{
        json::tests::{controls, outcome},
        mask::tests::Random,
    };
    use super::*;

    /// The lines, each split into its event, the rest of its text after the time, and its value.
    fn lines(write: impl FnOnce(&mut Events<&mut Vec<u8>>)) -> Vec<(String, String, Value)> {
        let mut out = Vec::new();
        write(&mut Events::new(&mut out, Instant::now()));
        let text = String::from_utf8(out).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let parse = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap();
            assert!(value["time_ms"].as_f64().unwrap() >= 0.0);
            let event = value["event"].as_str().unwrap().to_owned();
            let head = format!(r#"{{"event":"{event}","time_ms":{},"#, value["time_ms"]);
            (event, line.strip_prefix(&head).unwrap().to_owned(), value)
        };
        text.lines().map(parse).collect()
    }

    fn data(write: impl FnOnce(&mut Events<&mut Vec<u8>>)) -> Vec<(String, String)> {
        lines(write).into_iter().map(|(event, rest, _)| (event, rest)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn a_run_from_start_to_exit() {
        let outcome = outcome();
        let lines = lines(|events| {
            events.start(&outcome.id, Some("python"), Some(7), &outcome.limits, &controls(), &[]).unwrap();
            events.output(Stream::Stdout, b"4\n2\r\n").unwrap();
            events.denial(&outcome.denials.as_slice()[0]).unwrap();
            events.exit(&outcome).unwrap();
        });
        let events: Vec<_> = lines.iter().map(|(event, ..)| event.as_str()).collect();
        assert_eq!(events, ["start", "stdout", "denial", "exit"]);
        assert!(lines[0].1.starts_with(r#""id":"s1","runtime":"python","pid":7,"limits":{"memory_bytes":"#));
        assert!(lines[0].1.contains(r#""nofile":1024},"controls":{"user_namespace":true,"#));
        assert_eq!(lines[1].1, r#""data":"4\n2\r\n"}"#);
        assert!(lines[2].1.starts_with(r#""kind":"network","target":"example.com:443","#));
        // The result itself, in its own order.
        assert_eq!(format!("{{{}", lines[3].1), serde_json::to_string(&outcome).unwrap());
    }

    #[test]
    fn a_character_over_two_chunks_stays_text() {
        let got = data(|events| {
            let bytes = "a🧪".as_bytes();
            events.output(Stream::Stdout, &bytes[..2]).unwrap();
            events.output(Stream::Stderr, b"e").unwrap();
            events.output(Stream::Stdout, &bytes[2..4]).unwrap();
            events.output(Stream::Stdout, b"").unwrap();
            events.output(Stream::Stdout, &[bytes[4], b'b']).unwrap();
        });
        let expected = [("stdout", r#""data":"a"}"#), ("stderr", r#""data":"e"}"#), ("stdout", r#""data":"🧪b"}"#)];
        assert_eq!(got, pairs(&expected));
    }

    #[test]
    fn what_is_no_text_is_base64_and_nothing_is_lost_at_the_end() {
        let got = data(|events| {
            events.output(Stream::Stdout, b"\xffa\xc3").unwrap();
            events.output(Stream::Stdout, b"\xa9").unwrap();
            events.output(Stream::Stderr, b"\xe2\x82").unwrap();
            events.exit(&outcome()).unwrap();
        });
        let expected = [
            ("stdout", r#""data_base64":"/2E="}"#),
            ("stdout", r#""data":"é"}"#),
            ("stderr", r#""data_base64":"4oI="}"#),
        ];
        assert_eq!(got[..3], pairs(&expected));
        assert_eq!((got.len(), got[3].0.as_str()), (4, "exit"));
    }

    #[test]
    fn any_split_keeps_every_byte_and_all_text_as_text() {
        let mut random = Random(3);
        for case in 0..2_000 {
            let text: String = (0..random.below(20)).map(|_| ['a', 'é', '€', '🧪', '\n'][random.below(5)]).collect();
            let binary = random.bytes(b"a\xc3\xa9\xe2\x82\xff", 20);
            let bytes = if case % 2 == 0 { text.as_bytes() } else { &binary };
            let lines = lines(|events| {
                for piece in random.split(bytes) {
                    events.output(Stream::Stdout, piece).unwrap();
                }
                events.exit(&outcome()).unwrap();
            });
            let mut joined = Vec::new();
            for (_, _, value) in lines.iter().filter(|(event, ..)| event == "stdout") {
                match (value["data"].as_str(), value["data_base64"].as_str()) {
                    (Some(data), None) => joined.extend_from_slice(data.as_bytes()),
                    (None, Some(data)) if case % 2 == 1 => joined.extend(STANDARD.decode(data).unwrap()),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(joined, bytes);
        }
    }
}
