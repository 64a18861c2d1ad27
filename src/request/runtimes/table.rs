//! The table of runtimes, and the ways to pick one from it.

use std::{collections::BTreeMap, path::Path, sync::OnceLock, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{RuntimeError, shebang::Shebang};
use crate::request::limits::{Bytes, parse_duration};

/// The runtimes of `profiles/runtimes.toml`, in its order.
///
/// A run needs one of them, and parsing all takes a good part of a launch. So the text is cut into its
/// `[[runtime]]` sections, and a section is parsed when it may hold what is looked for: that can only
/// be where the word itself stands, in quotes.
#[derive(Debug)]
pub struct Table {
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    text: &'static str,
    parsed: OnceLock<Result<Runtime, RuntimeError>>,
}

/// A section as a TOML document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    runtime: [Runtime; 1],
}

/// One language.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    extensions: Vec<String>,
    main: String,
    get: String,
    #[serde(rename = "variant")]
    pub(super) variants: Vec<Variant>,
}

/// One way to run a language, by the programs it takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variant {
    pub(super) programs: BTreeMap<String, Vec<String>>,
    pub(super) compile: Option<Compile>,
    pub(super) run: Vec<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) etc: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Compile {
    pub(super) argv: Vec<String>,
    pub(super) limits: CompileLimits,
}

/// What a compiler may use, whatever the limits of the program it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompileLimits {
    #[serde(deserialize_with = "size")]
    pub memory: Bytes,
    pub pids: u32,
    #[serde(deserialize_with = "time")]
    pub timeout: Duration,
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    Bytes::parse(&String::deserialize(from)?).map_err(D::Error::custom)
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// The table that is compiled in.
#[must_use]
pub fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::new(include_str!("../../../profiles/runtimes.toml")))
}

impl Section {
    fn runtime(&self) -> Result<&Runtime, RuntimeError> {
        let parse = || match toml::from_str(self.text) {
            Ok(Document { runtime: [runtime] }) => Ok(runtime),
            Err(e) => Err(RuntimeError::Table(e.message().to_owned())),
        };
        self.parsed.get_or_init(parse).as_ref().map_err(Clone::clone)
    }
}

impl Table {
    fn new(text: &'static str) -> Self {
        const HEADER: &str = "[[runtime]]\n";
        let starts: Vec<_> = text.match_indices(HEADER).map(|(start, _)| start).collect();
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let section = |(start, end)| Section { text: &text[start..end], parsed: OnceLock::new() };
        Self { sections: starts.iter().copied().zip(ends).map(section).collect() }
    }

    pub fn runtimes(&self) -> Result<Vec<&Runtime>, RuntimeError> {
        self.sections.iter().map(Section::runtime).collect()
    }

    /// A runtime by its name or an alias in any case, or by one of its programs, with or without a
    /// version: `python3.11`, `lua5.3`, `gcc-12`. A program that is named is the only one that will do.
    pub fn by_name(&self, name: &str) -> Result<Choice<'_>, RuntimeError> {
        if let Some(choice) = self.find(name)? {
            return Ok(choice);
        }
        let runtimes = self.runtimes()?;
        let lower = name.to_ascii_lowercase();
        let nearest = runtimes
            .iter()
            .flat_map(|runtime| runtime.called())
            .map(|known| (strsim::osa_distance(&lower, known), known))
            .filter(|(distance, known)| *distance <= 2 && *distance < known.len())
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, known)| known.clone());
        let names = runtimes.iter().map(|runtime| runtime.name.clone()).collect();
        Err(RuntimeError::Unknown { name: name.to_owned(), nearest, names })
    }

    pub fn by_extension(&self, file: &Path) -> Result<Option<Choice<'_>>, RuntimeError> {
        let Some(extension) = file.extension().and_then(|e| e.to_str()) else { return Ok(None) };
        let runtime = self.first(extension, |runtime| runtime.extensions.iter().any(|e| e == extension))?;
        Ok(runtime.map(Choice::any))
    }

    /// By a file's `#!` line, with the arguments it gives the interpreter. Takes any bytes; the first
    /// 256 are enough.
    pub fn by_shebang(&self, first_bytes: &[u8]) -> Result<Option<Choice<'_>>, RuntimeError> {
        let Some(shebang) = Shebang::parse(first_bytes) else { return Ok(None) };
        let args = shebang.args.iter().map(|arg| (*arg).to_owned()).collect();
        Ok(self.find(shebang.interpreter)?.map(|choice| Choice { args, ..choice }))
    }

    /// What a file says of itself in its `#!` line, else by its extension.
    pub fn detect(&self, file: &Path, first_bytes: &[u8]) -> Result<Choice<'_>, RuntimeError> {
        if let Some(choice) = self.by_shebang(first_bytes)? {
            return Ok(choice);
        }
        if let Some(choice) = self.by_extension(file)? {
            return Ok(choice);
        }
        let extensions = self.runtimes()?.iter().flat_map(|r| &r.extensions).map(|e| format!(".{e}")).collect();
        Err(RuntimeError::Undetected { file: file.to_owned(), extensions })
    }

    /// The name a source has in the sandbox: its own where that has an extension the table knows, as
    /// compilers go by it; the runtime's main file otherwise, and for code without a file.
    pub fn file_name(&self, runtime: &Runtime, file: Option<&Path>) -> Result<String, RuntimeError> {
        let own = match file {
            Some(file) if self.by_extension(file)?.is_some() => file.file_name().and_then(|name| name.to_str()),
            _ => None,
        };
        Ok(own.unwrap_or(&runtime.main).to_owned())
    }

    fn find(&self, name: &str) -> Result<Option<Choice<'_>>, RuntimeError> {
        let lower = name.to_ascii_lowercase();
        if let Some(runtime) = self.first(&lower, |runtime| runtime.called().any(|known| *known == lower))? {
            return Ok(Some(Choice::any(runtime)));
        }
        let has_program = |runtime: &Runtime| runtime.variants.iter().any(|variant| variant.takes(name));
        let runtime = match self.first(name, has_program)? {
            None => self.first(unversioned(name), has_program)?,
            found => found,
        };
        Ok(runtime.map(|runtime| Choice { pin: Some(name.to_owned()), ..Choice::any(runtime) }))
    }

    /// The first runtime that is so, of those whose section has the string `word`.
    fn first(&self, word: &str, so: impl Fn(&Runtime) -> bool) -> Result<Option<&Runtime>, RuntimeError> {
        let quoted = format!("\"{word}\"");
        for section in self.sections.iter().filter(|section| section.text.contains(&quoted)) {
            let runtime = section.runtime()?;
            if so(runtime) {
                return Ok(Some(runtime));
            }
        }
        Ok(None)
    }
}

impl Runtime {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    #[must_use]
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// Its name and its aliases.
    fn called(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.name).chain(&self.aliases)
    }

    /// How to come by it on Debian: a command or a short sentence.
    #[must_use]
    pub fn how_to_get(&self) -> &str {
        &self.get
    }
}

impl Variant {
    /// The placeholder of the program it is known by: the first word of its first step.
    pub(super) fn primary(&self) -> &str {
        let argv = self.compile.as_ref().map_or(&self.run, |compile| &compile.argv);
        argv.first().map_or("", |word| word.trim_matches(['{', '}']))
    }

    /// Whether `name` is its program, or is one of that program's versions (`python3.11`, `gcc-12`).
    pub(super) fn takes(&self, name: &str) -> bool {
        let names = self.programs.get(self.primary()).map_or(&[][..], Vec::as_slice);
        names.iter().any(|known| known == name || known == unversioned(name))
    }
}

/// `python3.11` → `python`, `gcc-12` → `gcc`.
fn unversioned(program: &str) -> &str {
    program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').trim_end_matches('-')
}

/// A runtime that was picked, with what the pick says beyond it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice<'t> {
    pub runtime: &'t Runtime,
    /// The one program that will do, where one was named.
    pub(super) pin: Option<String>,
    /// What a `#!` line puts between program and file, in place of the table's own arguments.
    pub(super) args: Vec<String>,
}

impl<'t> Choice<'t> {
    pub(super) fn any(runtime: &'t Runtime) -> Self {
        Self { runtime, pin: None, args: Vec::new() }
    }
}

/// Runtimes are the same when they are one entry of the table.
impl PartialEq for Runtime {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Runtime {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::commands::Values, *};

    fn name_and_pin(choice: &Choice<'_>) -> (String, Option<String>) {
        (choice.runtime.name.clone(), choice.pin.clone())
    }

    #[test]
    fn the_table_is_consistent() {
        let table = table();
        let (mut names, mut extensions) = (HashSet::new(), HashSet::new());
        for runtime in table.runtimes().unwrap() {
            for name in runtime.called() {
                assert!(names.insert(name), "{name} twice");
                assert_eq!(*name, name.to_lowercase());
            }
            for extension in &runtime.extensions {
                assert!(extensions.insert(extension), ".{extension} twice");
            }
            assert!(table.by_name(&runtime.name).is_ok());
            assert!(!runtime.variants.is_empty() && !runtime.get.is_empty(), "{}", runtime.name);
            for variant in &runtime.variants {
                assert!(
                    !variant.run.is_empty() && variant.programs.contains_key(variant.primary()),
                    "{}",
                    runtime.name
                );
                assert!(variant.etc.iter().all(|path| path.starts_with("/etc/")), "{}", runtime.name);
                let argv = variant.compile.iter().flat_map(|compile| &compile.argv);
                let words: Vec<_> = argv.chain(&variant.run).chain(variant.env.values()).collect();
                for program in variant.programs.keys() {
                    assert!(words.iter().any(|word| word.contains(&format!("{{{program}}}"))), "{program} is not used");
                }
                let programs: Vec<_> = variant.programs.keys().map(|name| (name.as_str(), name.clone())).collect();
                let values = Values { programs: &programs, file: "/sandbox/x.y", memory: Bytes::mib(1), cpus: 1.0 };
                let commands = variant.commands(&[], &values);
                let env = commands.env.iter().map(|(_, value)| value);
                for word in commands.compile.iter().flatten().chain(&commands.run).chain(env) {
                    assert!(!word.contains(['{', '}']), "{}: {word}", runtime.name);
                }
            }
        }
    }

    #[test]
    fn a_broken_table_is_an_error() {
        let parse =
            |text: &str| Table::new(text.to_owned().leak()).by_name("x").map(|choice| choice.runtime.name.clone());
        let good = "[[runtime]]\nname = \"x\"\nmain = 'x'\nget = 'x'\n[[runtime.variant]]\nprograms = {x=[\"x\"]}\nrun = ['{x}']\n";
        assert!(parse(good).is_ok());
        assert!(parse(&good.replace("main", "mian")).is_err());
        let compile = "compile = { argv = ['{x}'], limits = { pids = 1, memory = '1g', timeout = '1s' } }\n";
        assert!(parse(&format!("{good}{compile}")).is_ok());
        for (from, to) in [("1g", "1q"), ("1s", "1d"), ("pids = 1", "pids = -1"), ("timeout", "time"), ("argv", "args")]
        {
            let error = parse(&format!("{good}{}", compile.replace(from, to))).unwrap_err();
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn names_aliases_and_programs() {
        let table = table();
        for (name, runtime, pin) in [
            ("python", "python", None),
            ("Py", "python", None),
            ("python3", "python", Some("python3")),
            ("python3.11", "python", Some("python3.11")),
            ("nodejs", "node", None),
            ("bun", "bun", None),
            ("tsc", "typescript", Some("tsc")),
            ("lua5.3", "lua", Some("lua5.3")),
            ("clang", "c", Some("clang")),
            ("gcc-12", "c", Some("gcc-12")),
            ("g++-12", "c++", Some("g++-12")),
            ("C++", "c++", None),
            ("R", "r", None),
            ("sh", "sh", None),
        ] {
            let choice = table.by_name(name).unwrap();
            assert_eq!(name_and_pin(&choice), (runtime.to_owned(), pin.map(str::to_owned)), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        use crate::error::Hint;
        let hint = |name| table().by_name(name).unwrap_err().hint().unwrap();
        assert_eq!(hint("pyhton"), "did you mean `python`?");
        assert_eq!(hint("rubby"), "did you mean `ruby`?");
        assert!(hint("fortran").starts_with("the runtimes are python, node, "));
        for name in ["", "python/../x", "../python3", "python3\0", "3.11", "é"] {
            assert!(table().by_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_first_line_before_its_extension() {
        let table = table();
        let detect =
            |file: &str, bytes: &[u8]| table.detect(Path::new(file), bytes).map(|choice| choice.runtime.name.clone());
        assert_eq!(detect("a.py", b"print(1)"), Ok("python".into()));
        assert_eq!(detect("a.sh", b"echo"), Ok("bash".into()));
        assert_eq!(detect("a.sh", b"#!/bin/sh\n"), Ok("sh".into()));
        assert_eq!(detect("tool", b"#!/usr/bin/env ruby\n"), Ok("ruby".into()));
        assert_eq!(detect("a.py", b"#!/usr/bin/env -S uv run --script\n"), Ok("python".into()));
        assert!(detect("a.txt", b"").is_err() && detect("py", b"").is_err() && detect(".py", b"\xff").is_err());
    }

    #[test]
    fn sources_keep_a_name_that_compilers_understand() {
        let table = table();
        let name = |runtime: &str, file: Option<&str>| {
            table.file_name(table.by_name(runtime).unwrap().runtime, file.map(Path::new)).unwrap()
        };
        assert_eq!(name("python", None), "main.py");
        assert_eq!(name("python", Some("/x/job.py")), "job.py");
        assert_eq!(name("bun", Some("app.tsx")), "app.tsx");
        assert_eq!(name("java", Some("/x/code.txt")), "Main.java");
        assert_eq!(name("bash", Some("/x/..")), "main.sh");
    }
}
