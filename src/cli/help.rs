//! `fumehood run --help`, and those of `explain` and `batch`, from the table of options.

use super::{
    flags::{Flag, Kind, Section},
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

const BATCH: &str = "\
Run many jobs, each in a sandbox of its own: a line in, a line out.

Usage: fumehood batch [OPTIONS] JOBS [-- ARGS...]

JOBS is a file with a job a line, as JSON (`fumehood schema job`) or as the row of a table; a
directory of scripts, which are a job each; `-`, what arrives on standard input; or unix:PATH, a
socket that is made there, on which each who connects gets the results of what they send. Each
result is a line of JSON: the object of `fumehood run --json`, and with it the job's id, whether it
passed, and its metadata (`fumehood schema result`). Options say what jobs leave out.

Examples:
  fumehood batch jobs.jsonl -o results.jsonl
  fumehood batch jobs.jsonl -o results.jsonl --resume         go on after any end
  fumehood batch scripts/ -j 8 --timeout 5s --memory 128m
  fumehood batch tests.csv -r python --summary summary.json
  echo '{\"code\": \"print(6 * 7)\", \"expect\": {\"stdout\": \"42\\n\"}}' | fumehood batch -
  fumehood batch --dry-run jobs.jsonl                         what is wrong with which line
";

const BATCH_STATUS: &str = "
Exit status:
  0      all jobs passed; one that expects nothing passes with the verdict `ok`
  1      some did not
  125    an error of fumehood's own, or wrong usage; a job that cannot be run is a result, not that
  128+n  ended by signal n: 130 after Ctrl-C, which lets what runs end; a second one kills it

SIZE is such as 512m or 2g (powers of 1024).
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
        Verb::Batch => BATCH,
    });
    for section in Section::ALL {
        let mut flags = verb.flags().filter(|flag| flag.section == section).peekable();
        if flags.peek().is_some() {
            text.push_str(&format!("\n{section:?}:\n"));
        }
        flags.for_each(|flag| push(&mut text, flag));
    }
    match verb {
        Verb::Run => text.push_str(STATUS),
        Verb::Explain => {}
        Verb::Batch => text.push_str(BATCH_STATUS),
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
        for verb in [Verb::Run, Verb::Explain, Verb::Batch] {
            let text = text(verb);
            for flag in verb.flags() {
                assert!(text.contains(&format!("--{}", flag.long)), "{}", flag.long);
            }
            assert_eq!(text.lines().find(|line| line.chars().count() > WIDTH), None);
            assert_eq!(text.lines().find(|line| line.ends_with(' ')), None);
        }
        assert!(text(Verb::Explain).contains("--spec"));
        assert!(!text(Verb::Run).contains("--spec"));
        assert!(!text(Verb::Run).contains("--resume"));
        assert!(!text(Verb::Batch).contains("--tty"));
    }
}
