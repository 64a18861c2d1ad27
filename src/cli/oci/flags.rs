//! Options as Go programs read them: one dash or two, `--name value` or `--name=value`, switches that may be given
//! `=false`; and, as crun reads them, one-letter switches in one word.
//!
//! Engines send single-dash long options (`-no-subreaper`), which a common parser takes for seven letters. There is
//! no table to build and nothing is looked up twice: `create`, `start`, `state`, `kill` and `delete` are on the way of
//! every container.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use fumehood::{Error, Result};

use super::contract;

/// An option of a verb, or of all.
#[derive(Debug)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<u8>,
    /// What its value is called in the help; a switch has none.
    pub value: Option<&'static str>,
    /// Empty: taken, and not told of.
    pub about: &'static str,
}

pub const fn switch(long: &'static str, about: &'static str) -> Flag {
    Flag { long, short: None, value: None, about }
}

pub const fn value(long: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { long, short: None, value: Some(value), about }
}

impl Flag {
    pub const fn short(mut self, letter: u8) -> Self {
        self.short = Some(letter);
        self
    }
}

/// Where options end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At the first word that is none; it is left.
    FirstWord,
    /// Behind it: what follows belongs to another program (`exec`, `ps`).
    BehindFirstWord,
    /// They may stand anywhere before `--`.
    TheEnd,
}

/// What was given, in its order.
#[derive(Debug, Default)]
pub struct Given {
    values: Vec<(&'static str, OsString)>,
    pub words: Vec<OsString>,
}

const HELP: Flag = switch("help", "show help").short(b'h');

/// Reads the words from the front of `words`, and takes them away.
pub fn parse(flags: &'static [Flag], words: &mut std::vec::IntoIter<OsString>, until: Until) -> Result<Given> {
    let mut given = Given::default();
    while let Some(word) = words.as_slice().first() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            words.next();
            if until != Until::FirstWord {
                given.words.extend(words);
            }
            break;
        }
        // A dash alone is a word: standard input.
        if bytes.first() != Some(&b'-') || bytes.len() == 1 {
            match until {
                Until::FirstWord => break,
                Until::BehindFirstWord => {
                    given.words.extend(words);
                    break;
                }
                Until::TheEnd => given.words.extend(words.next()),
            }
            continue;
        }
        let word = words.next().unwrap_or_default();
        given.option(flags, word.as_bytes(), words)?;
    }
    Ok(given)
}

fn find(flags: &'static [Flag], name: &[u8]) -> Option<&'static Flag> {
    let is = |flag: &&Flag| match name {
        [letter] => flag.short == Some(*letter),
        _ => flag.long.as_bytes() == name,
    };
    flags.iter().find(is).or_else(|| Some(&HELP).filter(is))
}

impl Given {
    fn option(&mut self, flags: &'static [Flag], word: &[u8], words: &mut std::vec::IntoIter<OsString>) -> Result<()> {
        let bare = word.strip_prefix(b"--").or_else(|| word.strip_prefix(b"-")).unwrap_or(word);
        let (name, inline) = match bare.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bare[..at], Some(&bare[at + 1..])),
            None => (bare, None),
        };
        let Some(flag) = find(flags, name) else {
            return self.letters(flags, word, words);
        };
        let text = match (flag.value, inline) {
            (None, None) => OsString::from("true"),
            (None, Some(text)) => match boolean(text) {
                Some(on) => OsString::from(if on { "true" } else { "false" }),
                None => return Err(contract::not_boolean(&lossy(text), &lossy(name))),
            },
            (Some(_), Some(text)) => OsString::from_vec(text.to_vec()),
            (Some(_), None) => words.next().ok_or_else(|| contract::needs_argument(&lossy(name)))?,
        };
        self.values.push((flag.long, text));
        Ok(())
    }

    /// `-it`: letters of switches, the last of which may take a value, the rest of the word or the next.
    fn letters(&mut self, flags: &'static [Flag], word: &[u8], words: &mut std::vec::IntoIter<OsString>) -> Result<()> {
        let unknown = || contract::unknown_flag(&lossy(word.strip_prefix(b"--").unwrap_or(&word[1..])));
        if word.starts_with(b"--") || word.contains(&b'=') {
            return Err(unknown());
        }
        let mut found = Vec::new();
        for at in 1..word.len() {
            let flag = find(flags, &word[at..=at]).ok_or_else(unknown)?;
            if flag.value.is_some() {
                let rest = &word[at + 1..];
                let text = match rest {
                    [] => words.next().ok_or_else(|| contract::needs_argument(flag.long))?,
                    // `-u1000`; but `-bundl` is a slip of the pen.
                    [b'0'..=b'9' | b'/' | b'.', ..] => OsString::from_vec(rest.to_vec()),
                    _ => return Err(unknown()),
                };
                found.push((flag.long, text));
                break;
            }
            found.push((flag.long, OsString::from("true")));
        }
        self.values.append(&mut found);
        Ok(())
    }

    /// The last that was given of this name.
    pub fn value(&self, long: &str) -> Option<&OsStr> {
        self.values.iter().rfind(|(name, _)| *name == long).map(|(_, text)| text.as_os_str())
    }

    /// A switch; left out, it is off.
    pub fn is_on(&self, long: &str) -> bool {
        self.value(long).is_some_and(|text| text == "true")
    }

    /// A value that is not empty: engines give empty ones for none.
    pub fn path(&self, long: &str) -> Option<PathBuf> {
        self.value(long).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    pub fn text(&self, long: &str) -> Result<Option<&str>> {
        self.value(long).map(|text| utf8(text, long)).transpose()
    }

    /// All that were given of this name.
    pub fn texts(&self, long: &str) -> Result<Vec<&str>> {
        self.values.iter().filter(|(name, _)| *name == long).map(|(_, text)| utf8(text, long)).collect()
    }

    pub fn number<T: std::str::FromStr>(&self, long: &str) -> Result<Option<T>> {
        let Some(text) = self.text(long)? else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::new(format!("invalid value {text:?} for flag -{long}: it is no number in its range"))),
        }
    }
}

fn utf8<'a>(text: &'a OsStr, long: &str) -> Result<&'a str> {
    text.to_str().ok_or_else(|| Error::new(format!("--{long}: `{}` is not UTF-8", text.display())))
}

/// Go's strconv.ParseBool.
pub fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    static FLAGS: [Flag; 6] = [
        switch("force", "f").short(b'f'),
        switch("tty", "t").short(b't'),
        value("bundle", "DIR", "b").short(b'b'),
        value("env", "NAME", "e").short(b'e'),
        switch("no-subreaper", ""),
        value("preserve-fds", "N", "p"),
    ];

    fn read(line: &[&str], until: Until) -> Result<(Given, Vec<OsString>)> {
        let words: Vec<OsString> = line.iter().map(Into::into).collect();
        let mut words = words.into_iter();
        let given = parse(&FLAGS, &mut words, until)?;
        Ok((given, words.collect()))
    }

    fn given(line: &[&str]) -> Given {
        read(line, Until::TheEnd).unwrap_or_else(|error| panic!("{line:?}: {error}")).0
    }

    fn error(line: &[&str]) -> String {
        read(line, Until::TheEnd).expect_err(&format!("{line:?}")).to_string()
    }

    #[test]
    fn one_dash_and_two_and_the_value_in_each_way_it_is_written() {
        for line in [
            &["--bundle", "b", "id"][..],
            &["--bundle=b", "id"],
            &["-bundle", "b", "id"],
            &["-bundle=b", "id"],
            &["-b", "b", "id"],
            &["-b=b", "id"],
            &["--b", "b", "id"],
            &["id", "--bundle", "b"],
            &["id", "-b=b"],
            &["--bundle", "x", "--bundle", "b", "id"],
            &["--bundle", "b", "--", "id"],
        ] {
            let given = given(line);
            assert_eq!((given.path("bundle"), given.words), (Some("b".into()), vec!["id".into()]), "{line:?}");
        }
        assert_eq!(given(&["--bundle", "--force"]).path("bundle"), Some("--force".into()));
        assert_eq!(given(&["--bundle=a=b"]).path("bundle"), Some("a=b".into()));
        assert_eq!(given(&["--bundle="]).path("bundle"), None);
        assert_eq!(given(&["-b/x"]).path("bundle"), Some("/x".into()));
    }

    #[test]
    fn switches_are_given_in_one_word_or_with_a_truth() {
        for line in [&["-f"][..], &["--force"], &["-force"], &["--force=true"], &["-f=1"], &["-tf"], &["-f=0", "-f"]] {
            assert!(given(line).is_on("force"), "{line:?}");
        }
        for line in [&[][..], &["--force=false"], &["-f", "-f=F"], &["--", "-f"]] {
            assert!(!given(line).is_on("force"), "{line:?}");
        }
        assert_eq!(given(&["-tfe", "A=1"]).value("env"), Some(OsStr::new("A=1")));
        assert!(given(&["-no-subreaper", "id"]).is_on("no-subreaper"));
        assert!(given(&["-h"]).is_on("help") && given(&["--help"]).is_on("help"));
    }

    #[test]
    fn a_list_keeps_all_and_its_order() {
        let given = given(&["-e", "A=1", "id", "--env", "B=2,3", "-e", "C"]);
        assert_eq!(given.texts("env").unwrap(), ["A=1", "B=2,3", "C"]);
    }

    #[test]
    fn what_is_wrong_is_said_as_go_says_it() {
        assert_eq!(error(&["--bogus"]), "flag provided but not defined: -bogus");
        assert_eq!(error(&["-bogus"]), "flag provided but not defined: -bogus");
        assert_eq!(error(&["-fx"]), "flag provided but not defined: -fx");
        assert_eq!(error(&["--preserve-fds"]), "flag needs an argument: -preserve-fds");
        assert_eq!(error(&["id", "-b"]), "flag needs an argument: -b");
        assert_eq!(error(&["--force=maybe"]), "invalid boolean value \"maybe\" for -force: parse error");
        let error = given(&["--preserve-fds", "-1"]).number::<u32>("preserve-fds").unwrap_err().to_string();
        assert_eq!(error, "invalid value \"-1\" for flag -preserve-fds: it is no number in its range");
        assert_eq!(given(&["--preserve-fds", "3"]).number::<u32>("preserve-fds"), Ok(Some(3)));
    }

    #[test]
    fn options_end_where_the_words_of_another_program_begin() {
        let (given, rest) = read(&["--force", "id", "-f", "--", "x"], Until::BehindFirstWord).unwrap();
        assert_eq!((given.words.len(), rest.len()), (4, 0));
        let (given, rest) = read(&["--force", "kill", "-f", "id"], Until::FirstWord).unwrap();
        assert!(given.is_on("force") && given.words.is_empty());
        assert_eq!(rest, ["kill", "-f", "id"]);
        assert_eq!(read(&["-", "id"], Until::TheEnd).unwrap().0.words, ["-", "id"]);
    }
}
