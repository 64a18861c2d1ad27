//! What a reader by types alone lets through and a specification must not: a name that an object has twice, of which
//! each reader takes the one it likes; a list in the place of an object, whose fields would be filled in by order; and
//! depth without bound, in the parts that nobody reads.
//!
//! Run over bytes that are known to be JSON, so it only has to tell strings from what is around them. It costs a
//! small part of what reading the document does.

use std::{borrow::Cow, fmt::Write};

/// serde_json's own bound, which holds only for what it keeps.
const DEEPEST: usize = 128;

/// What is specified, of a whole config.json: below any other name, everything may be.
const SPECIFIED: [&[u8]; 5] = [b"root", b"process", b"mounts", b"hooks", b"linux"];
/// What is an object wherever it is specified.
const OBJECTS: [&[u8]; 24] = [
    b"root",
    b"process",
    b"consoleSize",
    b"user",
    b"capabilities",
    b"scheduler",
    b"ioPriority",
    b"execCPUAffinity",
    b"hooks",
    b"linux",
    b"resources",
    b"memory",
    b"cpu",
    b"pids",
    b"blockIO",
    b"network",
    b"seccomp",
    b"intelRdt",
    b"memoryPolicy",
    b"personality",
    b"timeOffsets",
    b"netDevices",
    b"rdma",
    b"sysctl",
];
/// Whose every value is an object.
const OF_OBJECTS: [&[u8]; 3] = [b"timeOffsets", b"netDevices", b"rdma"];

/// What document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Config,
    /// A `process` or `resources` alone.
    Part,
}

/// Where in the document, and what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: String,
    pub(super) why: String,
}

enum Frame<'a> {
    /// The names so far, as written, escapes and all.
    Object { names: Vec<&'a [u8]>, name_next: bool },
    /// How many values have ended.
    Array(usize),
}

pub(super) fn check(json: &[u8], kind: Kind) -> Result<(), Found> {
    let mut frames: Vec<Frame<'_>> = Vec::new();
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let start = at;
                at = end_of_string(json, at);
                if let Some(Frame::Object { names, name_next: name_next @ true }) = frames.last_mut() {
                    names.push(json.get(start..at.saturating_sub(1)).unwrap_or_default());
                    *name_next = false;
                }
            }
            b'{' => frames.push(Frame::Object { names: Vec::new(), name_next: true }),
            b'[' => {
                if is_to_be_object(&frames, kind) {
                    return Err(Found { at: path(&frames), why: "it is a list, and is to be an object".to_owned() });
                }
                frames.push(Frame::Array(0));
            }
            b',' => match frames.last_mut() {
                Some(Frame::Object { name_next, .. }) => *name_next = true,
                Some(Frame::Array(ended)) => *ended += 1,
                None => {}
            },
            b'}' | b']' => {
                if let Some(Frame::Object { names, .. }) = frames.pop()
                    && let Some(twice) = twice(names)
                {
                    let name = unescaped(twice).into_owned();
                    let mut path = path(&frames);
                    push_name(&mut path, &name);
                    return Err(Found { at: path, why: "it is there twice".to_owned() });
                }
            }
            _ => {}
        }
        if frames.len() > DEEPEST {
            frames.truncate(4);
            return Err(Found { at: path(&frames), why: format!("it is nested deeper than {DEEPEST} levels") });
        }
    }
    Ok(())
}

/// Whether the value that begins now is specified as an object.
fn is_to_be_object(frames: &[Frame<'_>], kind: Kind) -> bool {
    let Some((inner, outer)) = frames.split_last() else { return true };
    if kind == Kind::Config && !frames.first().and_then(name).is_some_and(|name| SPECIFIED.contains(&name)) {
        return false;
    }
    match inner {
        // There are no lists of lists.
        Frame::Array(_) => true,
        Frame::Object { .. } => {
            name(inner).is_some_and(|name| OBJECTS.contains(&name))
                || outer.last().and_then(name).is_some_and(|name| OF_OBJECTS.contains(&name))
        }
    }
}

fn name<'a>(frame: &Frame<'a>) -> Option<&'a [u8]> {
    match frame {
        Frame::Object { names, .. } => names.last().copied(),
        Frame::Array(_) => None,
    }
}

/// Past the closing quote.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => return at,
            b'\\' => at += 1,
            _ => {}
        }
    }
    json.len()
}

fn twice(mut names: Vec<&[u8]>) -> Option<&[u8]> {
    // Names are written without escapes as a rule; with them, one name can be written in several ways.
    if names.iter().any(|name| name.contains(&b'\\')) {
        let mut texts: Vec<_> = names.iter().map(|name| (unescaped(name), *name)).collect();
        texts.sort();
        return texts.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1);
    }
    // Sorting a handful is as dear as this.
    const FEW: usize = 12;
    if names.len() <= FEW {
        return names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)).map(|(_, name)| *name);
    }
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[1])
}

fn unescaped(name: &[u8]) -> Cow<'_, str> {
    if name.contains(&b'\\') {
        let quoted = [b"\"", name, b"\""].concat();
        if let Ok(text) = serde_json::from_slice::<String>(&quoted) {
            return Cow::Owned(text);
        }
    }
    String::from_utf8_lossy(name)
}

fn path(frames: &[Frame<'_>]) -> String {
    let mut path = String::new();
    for frame in frames {
        match frame {
            Frame::Object { names, .. } => {
                if let Some(name) = names.last() {
                    push_name(&mut path, &unescaped(name));
                }
            }
            Frame::Array(index) => _ = write!(path, "[{index}]"),
        }
    }
    path
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.extend(name.chars().take(100).map(|c| if c.is_control() { '\u{fffd}' } else { c }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str) -> Option<(String, String)> {
        check(json.as_bytes(), Kind::Config).err().map(|found| (found.at, found.why))
    }

    #[test]
    fn a_name_that_is_there_twice_is_found_wherever_it_is() {
        let twice = |at: &str| Some((at.to_owned(), "it is there twice".to_owned()));
        assert_eq!(found(r#"{"a":1,"b":{"a":2},"c":[{"a":1},{"a":1}]}"#), None);
        assert_eq!(found(r#"{"a":1,"b":"}","a":2}"#), twice("a"));
        assert_eq!(found(r#"{"x":[0,{"y":{"n":[],"n":{}}}]}"#), twice("x[1].y.n"));
        assert_eq!(found(r#"{"a\u0062":1,"ab":2}"#), twice("ab"));
        assert_eq!(found(r#"{"a\"":1,"a":2,"\\":3}"#), None);
        assert_eq!(found(r#"{"a":"b","b":"a"}"#), None, "values are no names");
        let many = (0..40).map(|n| format!("\"k{n}\":0,")).collect::<String>();
        assert_eq!(found(&format!("{{{many}\"k7\":1}}")), twice("k7"));
        assert_eq!(found(&format!("{{{many}\"k40\":1}}")), None);
    }

    #[test]
    fn a_list_is_no_object() {
        let list = |at: &str| Some((at.to_owned(), "it is a list, and is to be an object".to_owned()));
        assert_eq!(found("[]"), list(""));
        assert_eq!(found(r#"{"root":["rootfs",true]}"#), list("root"));
        assert_eq!(found(r#"{"process":{"args":["a"],"user":[0,0]}}"#), list("process.user"));
        assert_eq!(found(r#"{"mounts":[{},["/"]]}"#), list("mounts[1]"));
        assert_eq!(found(r#"{"linux":{"timeOffsets":{"boottime":[1,2]}}}"#), list("linux.timeOffsets.boottime"));
        assert_eq!(found(r#"{"linux":{"namespaces":[{}],"devices":[]},"x":[[]],"y":{"user":[]}}"#), None);
        assert_eq!(check(br#"{"user":[]}"#, Kind::Part).unwrap_err().at, "user");
    }

    #[test]
    fn depth_has_a_bound() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(found(&nested(DEEPEST - 1)), None);
        assert_eq!(
            found(&nested(DEEPEST)),
            Some(("a[0][0][0]".to_owned(), "it is nested deeper than 128 levels".to_owned()))
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for bytes in [&b"\""[..], b"\"\\", b"}", b"{]}", b"{\"", b"{\"a\\", b",,", b"\xff{\"\xff\":1,\"\xff\":1}"] {
            _ = check(bytes, Kind::Part);
        }
    }
}
