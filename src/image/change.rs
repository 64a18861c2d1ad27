//! `--change 'CMD ["a"]'`: the instructions of a Dockerfile that say something of an image and make no layer
//! (docs.docker.com/reference/dockerfile, docker-commit(1)).

use super::{ImageError, append::Changes};

type Result<T, E = String> = std::result::Result<T, E>;

const KNOWN: &str = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR are known";
/// What a command line of one string is run by.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Reads the instructions in their order. `env` and `workdir` are the image's: variables and relative directories
/// are those of what came before.
pub fn parse(texts: &[String], env: &[String], workdir: Option<&str>) -> std::result::Result<Changes, ImageError> {
    let mut changes = Changes::default();
    let mut state = State {
        env: env.iter().filter_map(|one| one.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        workdir: workdir.unwrap_or("/").to_owned(),
    };
    for text in texts {
        state.one(text, &mut changes).map_err(|why| ImageError::Change { text: text.clone(), why })?;
    }
    Ok(changes)
}

struct State {
    env: Vec<(String, String)>,
    workdir: String,
}

impl State {
    fn one(&mut self, text: &str, changes: &mut Changes) -> Result<()> {
        let text = text.trim();
        let (instruction, rest) = match text.split_once(|c: char| c.is_whitespace()) {
            Some((instruction, rest)) => (instruction, rest.trim()),
            None => (text, ""),
        };
        let instruction = instruction.to_ascii_uppercase();
        if rest.is_empty() && !matches!(instruction.as_str(), "CMD" | "ENTRYPOINT") {
            return Err(if instruction.is_empty() { KNOWN.to_owned() } else { "it says nothing".to_owned() });
        }
        match instruction.as_str() {
            "CMD" => changes.cmd = Some(command(rest)?),
            "ENTRYPOINT" => changes.entrypoint = Some(command(rest)?),
            "ENV" => {
                for (name, value) in self.pairs(rest)? {
                    set(&mut self.env, &name, &value);
                    set(&mut changes.env, &name, &value);
                }
            }
            "LABEL" => {
                for (name, value) in self.pairs(rest)? {
                    set(&mut changes.labels, &name, &value);
                }
            }
            "USER" => changes.user = Some(self.word(rest)?),
            "STOPSIGNAL" => changes.stop_signal = Some(self.word(rest)?),
            "WORKDIR" => {
                let dir = self.word(rest)?;
                self.workdir = match dir.starts_with('/') {
                    true => dir,
                    false => format!("{}/{dir}", self.workdir.trim_end_matches('/')),
                };
                changes.workdir = Some(self.workdir.clone());
            }
            "EXPOSE" => {
                for word in self.words(rest)? {
                    changes.exposed_ports.push(port(&word)?);
                }
            }
            "VOLUME" => {
                let volumes = if rest.starts_with('[') { list(rest)? } else { self.words(rest)? };
                if volumes.iter().any(String::is_empty) {
                    return Err("a volume without a name".to_owned());
                }
                changes.volumes.extend(volumes);
            }
            _ => return Err(KNOWN.to_owned()),
        }
        Ok(())
    }

    /// `A=1 B="two words"`, or `A one value to the end of the line`.
    fn pairs(&self, rest: &str) -> Result<Vec<(String, String)>> {
        let first = rest.split(|c: char| c.is_whitespace()).next().unwrap_or_default();
        if !first.contains('=') {
            let (name, value) = rest.split_once(|c: char| c.is_whitespace()).ok_or("NAME=VALUE is wanted")?;
            return Ok(vec![(self.one_word(name)?, self.word(value.trim())?)]);
        }
        let pair = |word: &String| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("`{word}` is not NAME=VALUE")),
        };
        self.words(rest)?.iter().map(pair).collect()
    }

    fn one_word(&self, text: &str) -> Result<String> {
        match self.words(text)?.as_slice() {
            [one] => Ok(one.clone()),
            _ => Err("one word is wanted".to_owned()),
        }
    }

    /// All of the text as one, with its blanks.
    fn word(&self, text: &str) -> Result<String> {
        self.split(text, false).map(|words| words.concat())
    }

    fn words(&self, text: &str) -> Result<Vec<String>> {
        self.split(text, true)
    }

    /// As a Dockerfile is read: quotes hold words together, and within single ones nothing has a meaning.
    fn split(&self, text: &str, at_blanks: bool) -> Result<Vec<String>> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match (c, quote) {
                (c, Some(open)) if c == open => quote = None,
                (c, Some('\'')) => word.get_or_insert_default().push(c),
                ('\'' | '"', None) => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                ('\\', None) => word.get_or_insert_default().extend(chars.next()),
                ('\\', Some(_)) => match chars.next_if(|c| matches!(c, '"' | '\\' | '$')) {
                    Some(c) => word.get_or_insert_default().push(c),
                    None => word.get_or_insert_default().push('\\'),
                },
                ('$', _) => {
                    let value = self.variable(&mut chars)?;
                    word.get_or_insert_default().push_str(&value);
                }
                (c, None) if at_blanks && c.is_whitespace() => words.extend(word.take()),
                (c, _) => word.get_or_insert_default().push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".to_owned());
        }
        words.extend(word);
        Ok(words)
    }

    /// After the `$`: of `$NAME` or `${NAME}` its value, empty for none; any other `$` is one.
    fn variable(&self, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String> {
        let braced = chars.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        if braced && (name.is_empty() || chars.next_if_eq(&'}').is_none()) {
            return Err("${NAME} is the only form of variables that is known".to_owned());
        }
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(self.env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone()).unwrap_or_default())
    }
}

/// A list of words as JSON, or a line for the shell.
fn command(rest: &str) -> Result<Vec<String>> {
    match rest {
        "" => Ok(Vec::new()),
        _ if rest.starts_with('[') => list(rest),
        _ => Ok(SHELL.into_iter().chain([rest]).map(str::to_owned).collect()),
    }
}

fn list(rest: &str) -> Result<Vec<String>> {
    serde_json::from_str(rest).map_err(|error| format!("it begins as a JSON list of words and is none: {error}"))
}

fn port(word: &str) -> Result<String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last && matches!(protocol.as_str(), "tcp" | "udp" | "sctp") => {
            Ok(if first == last { format!("{first}/{protocol}") } else { format!("{first}-{last}/{protocol}") })
        }
        _ => Err(format!("`{word}` is no port")),
    }
}

fn set(pairs: &mut Vec<(String, String)>, name: &str, value: &str) {
    match pairs.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value.to_owned(),
        None => pairs.push((name.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(texts: &[&str]) -> std::result::Result<Changes, String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        parse(&texts, &["PATH=/bin".to_owned()], Some("/srv")).map_err(|error| error.to_string())
    }

    #[test]
    fn instructions_say_what_they_say_in_a_dockerfile() {
        let made = changes(&[
            r#"CMD ["a", "b c"]"#,
            "entrypoint echo $HOME",
            r#"ENV A=1 B="two  words" C=it\ is 'D=$A' PATH=/opt/bin:$PATH"#,
            "ENV old form with blanks",
            "ENV E ${A}2",
            "LABEL version=1 \"org.name\"=x",
            "USER 7:8",
            "WORKDIR sub",
            "WORKDIR dir",
            "EXPOSE 80 53/UDP 8000-8010",
            r#"VOLUME ["/a b", "/c"]"#,
            "VOLUME /d /e",
            "STOPSIGNAL SIGINT",
        ])
        .unwrap();
        assert_eq!(made.cmd.unwrap(), ["a", "b c"]);
        assert_eq!(made.entrypoint.unwrap(), ["/bin/sh", "-c", "echo $HOME"]);
        let env: Vec<_> = made.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = ["A=1", "B=two  words", "C=it is", "D=$A", "PATH=/opt/bin:/bin", "old=form with blanks", "E=12"];
        assert_eq!(env, expected);
        assert_eq!(made.labels, [("version", "1"), ("org.name", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!((made.user.unwrap(), made.workdir.unwrap()), ("7:8".to_owned(), "/srv/sub/dir".to_owned()));
        assert_eq!(made.exposed_ports, ["80/tcp", "53/udp", "8000-8010/tcp"]);
        assert_eq!(made.volumes, ["/a b", "/c", "/d", "/e"]);
        assert_eq!(made.stop_signal.unwrap(), "SIGINT");
        assert_eq!(changes(&["CMD"]).unwrap().cmd.unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "RUN x",
            "FROM x",
            "ENV",
            "ENV A",
            "ENV =1",
            "ENV A=1 B",
            "ENV A='x",
            "ENV A=${x:-y}",
            "EXPOSE 0",
            "EXPOSE 70000",
            "EXPOSE 9-8",
            "EXPOSE 80/icmp",
            "CMD [\"a\"",
            "CMD [1]",
            "VOLUME [\"\"]",
            "WORKDIR",
        ] {
            let error = changes(&[text]).unwrap_err();
            assert!(error.starts_with(&format!("--change `{text}`: ")), "{error}");
        }
    }
}
