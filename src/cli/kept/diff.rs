//! `fumehood diff`.

use std::{path::PathBuf, process::ExitCode};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fumehood::{
    Result,
    error::Hint,
    image::diff::{self, Changes, Kind},
};
use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use super::super::message;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name, or as much of it as no other begins with
    #[arg(value_name = "RUN")]
    run: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where images are kept, instead of /var/lib/fumehood or ~/.local/share/fumehood
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Row {
    kind: Kind,
    path: String,
    /// For a name that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

pub fn run(args: &Args) -> ExitCode {
    told(args).unwrap_or_else(|error| message::fail(&error))
}

fn told(args: &Args) -> Result<ExitCode> {
    let store = super::open(args.store.as_deref())?;
    let run = super::find(&store, &args.run)?;
    let changes = diff::diff(&store, &run).map_err(Hint::into_error)?;
    if args.json {
        return Ok(message::stream_json(&Rows(&changes)));
    }
    Ok(message::stream(|out| changes.each(&mut |kind, path| writeln!(out, "{} {}", kind.letter(), shown(path)))))
}

/// Written as they are told: together they may be far more than what they were made of.
struct Rows<'a>(&'a Changes);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut all = to.serialize_seq(None)?;
        self.0.each(&mut |kind, path| all.serialize_element(&row(kind, path)))?;
        all.end()
    }
}

fn row(kind: Kind, path: &[u8]) -> Row {
    let text = std::str::from_utf8(path);
    Row {
        kind,
        path: String::from_utf8_lossy(path).into_owned(),
        path_base64: text.is_err().then(|| BASE64.encode(path)),
    }
}

/// On one line, and nothing that a terminal would obey: the names are the program's.
fn shown(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_path_is_one_line() {
        assert_eq!(shown("/a b/é".as_bytes()), "/a b/é");
        assert_eq!(shown(b"/n\new\x1b[0m\xff\\"), "/n\\new\\u{1b}[0m\\xff\\\\");
    }
}
