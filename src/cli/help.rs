//! `fumehood run --help` and `fumehood explain --help`, from the table of options.

use super::{
    flags::{FLAGS, Flag, Kind, Section},
    low::Verb,
};

const WIDTH: usize = 100;
/// Where the sentences begin.
const COLUMN: usize = 30;

const RUN: &str = "\
Run code in a sandbox of its own: without network, without your files, in milliseconds.

Usage: fumehood run [OPTIONS] [FILE|-] [-- ARGS...]
       fumehood run [OPTIONS] -- COMMAND [ARGS...]

FILE is source code; its language is found by its #! line or extension. `-`, or nothing where
something is piped in, is code from standard input. Without a source, what follows `--` is a
program of this host, or of --rootfs.

Examples:
  fumehood run script.py                      run a script
  fumehood run script.py -- --verbose 3       with arguments
  fumehood run -e 'print(6 * 7)'              run code
  fumehood run -r js -e 'console.log(42)'     in another language
  fumehood run -- ls -l /                     run a program
  fumehood run --cmd 'sort words | uniq -c' --file words
  fumehood run --get 'plots/*.png:out/' plot.py
  fumehood run --memory 1g --timeout 2m --json train.py
  fumehood run -t -- bash                     look around inside
";

const EXPLAIN: &str = "\
Say what `fumehood run` would do with the same options, step by step and why, and do nothing.

Usage: fumehood explain [OPTIONS] [FILE|-] [-- ARGS...]

Examples:
  fumehood explain                            a sandbox as it is by default
  fumehood explain --mount ~/data:/data script.py
  fumehood explain --json -- ls               the plan as data
  fumehood explain --spec -- ls               as an OCI runtime specification

--json prints the plan. The other options are those of `fumehood run`.
";

const STATUS: &str = "
Exit status:
  the program's own, or
  124    out of time (--timeout, --cpu-time)
  125    an error of fumehood's own, or wrong usage
  126    the program cannot be executed
  127    the program is not there
  128+n  ended by signal n; 137 also when out of memory or over --max-output

SIZE is such as 512m or 2g (powers of 1024).
";

pub fn text(verb: Verb) -> String {
    let mut text = String::from(match verb {
        Verb::Run => RUN,
        Verb::Explain => EXPLAIN,
    });
    for section in Section::ALL {
        text.push_str(&format!("\n{section:?}:\n"));
        for flag in FLAGS.iter().filter(|flag| flag.section == section && verb.takes(flag)) {
            push(&mut text, flag);
        }
    }
    if verb == Verb::Run {
        text.push_str(STATUS);
    }
    text
}

fn push(text: &mut String, flag: &Flag) {
    let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let value = match flag.kind {
        Kind::Switch(_) => String::new(),
        Kind::Value { name, .. } => format!(" {name}"),
    };
    let mut line = format!("  {short}--{}{value}", flag.long);
    if line.len() + 2 > COLUMN {
        text.push_str(&line);
        text.push('\n');
        line.clear();
    }
    let more = if flag.repeatable { " Repeatable." } else { "" };
    for word in flag.doc.split(' ').chain(more.split_terminator(' ').skip(1)) {
        if line.len() < COLUMN {
            line = format!("{line:COLUMN$}");
        } else if line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = " ".repeat(COLUMN);
        } else {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_told_within_the_width() {
        for verb in [Verb::Run, Verb::Explain] {
            let text = text(verb);
            for flag in FLAGS.iter().filter(|flag| verb.takes(flag)) {
                assert!(text.contains(&format!("--{}", flag.long)), "{}", flag.long);
            }
            assert_eq!(text.lines().find(|line| line.chars().count() > WIDTH), None);
            assert_eq!(text.lines().find(|line| line.ends_with(' ')), None);
        }
        assert!(text(Verb::Explain).contains("--spec"));
        assert!(!text(Verb::Run).contains("--spec"));
    }
}
