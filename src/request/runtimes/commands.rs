//! From templates to the words that are executed.

use super::table::Variant;
use crate::request::limits::Bytes;

/// What to execute, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    pub compile: Option<Vec<String>>,
    pub run: Vec<String>,
    /// For both steps.
    pub env: Vec<(String, String)>,
}

/// The values of all placeholders of one run.
pub(super) struct Values<'a> {
    pub(super) programs: &'a [(&'a str, String)],
    pub(super) file: &'a str,
    pub(super) memory: Bytes,
    pub(super) cpus: f64,
}

impl Variant {
    pub(super) fn commands(&self, args: &[String], values: &Values<'_>) -> Commands {
        let out = without_extension(values.file);
        let memory_mb = (values.memory.get() >> 20).max(1).to_string();
        let cpus = (values.cpus.ceil().max(1.0) as u64).to_string();
        let mut places = vec![("file", values.file), ("out", &out), ("memory_mb", &memory_mb), ("cpus", &cpus)];
        places.extend(values.programs.iter().map(|(name, path)| (*name, path.as_str())));

        let fill_all = |argv: &[String]| argv.iter().map(|word| fill(word, &places)).collect::<Vec<_>>();
        let mut run = fill_all(&self.run);
        if !args.is_empty() && self.compile.is_none() {
            run.truncate(1);
            run.extend_from_slice(args);
            run.push(values.file.to_owned());
        }
        Commands {
            compile: self.compile.as_ref().map(|compile| fill_all(&compile.argv)),
            run,
            env: self.env.iter().map(|(name, value)| (name.clone(), fill(value, &places))).collect(),
        }
    }
}

/// `/sandbox/main.c` → `/sandbox/main`; never the file itself.
fn without_extension(file: &str) -> String {
    match file.rsplit_once('.') {
        Some((stem, extension)) if !extension.contains('/') && !stem.is_empty() && !stem.ends_with('/') => {
            stem.to_owned()
        }
        _ => format!("{file}.out"),
    }
}

/// Replaces each `{name}` once, from left to right: what was put in is not looked at again.
fn fill(template: &str, places: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let place = after
            .split_once('}')
            .and_then(|(name, tail)| places.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value, tail)));
        rest = match place {
            Some((value, tail)) => {
                filled.push_str(value);
                tail
            }
            None => {
                filled.push('{');
                after
            }
        };
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_once() {
        assert_eq!(fill("{a}{b}-{c}{", &[("a", "{b}"), ("b", "1")]), "{b}1-{c}{");
        assert_eq!(without_extension("/sandbox/a.b.c"), "/sandbox/a.b");
        assert_eq!(without_extension("/sandbox.d/tool"), "/sandbox.d/tool.out");
        assert_eq!(without_extension("/sandbox/.c"), "/sandbox/.c.out");
    }
}
