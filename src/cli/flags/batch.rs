//! The options of `batch` alone.

use std::num::NonZeroUsize;

use fumehood::{
    Error,
    batch::Format,
    request::{Bytes, limits},
};

use super::{BOUNDED, Flag, Of, Section, switch, value};

const FORMATS: &[&str] = &["jsonl", "csv"];
/// Each has three processes.
const MOST_WORKERS: u64 = 100_000;

pub static BATCH: &[Flag] = &[
    value("output", "FILE", Of::File, Section::Batch, "Where results go, one a line [default: standard output].", |low, given| {
        low.batch.output = Some(given.path());
        Ok(())
    })
    .short('o'),
    value(
        "jobs",
        "NUMBER|auto",
        Of::Text,
        Section::Batch,
        "How many run at once, as far as their memory limits fit into --max-memory [default: auto, as many as there are CPUs \
         to use and as --max-memory has room for jobs with the default limit, and one at least].",
        |low, given| {
            low.batch.workers = match given.raw.to_str() {
                Some("auto") => None,
                _ => NonZeroUsize::new(given.limit("auto is as many as CPUs and memory allow", |text| {
                    limits::parse_count(text, 1, MOST_WORKERS)
                })? as usize),
            };
            Ok(())
        },
    )
    .short('j'),
    value(
        "max-memory",
        "SIZE|none",
        Of::Text,
        Section::Batch,
        "What all that runs at once may have of memory together: their limits come to no more, and, where there are \
         cgroups, one around all of them holds them to it; `none` is no bound [default: what is available at the start, on the host and in the group that fumehood is in].",
        |low, given| {
            low.batch.memory = Some(match given.raw.to_str() {
                Some("none") => Bytes::new(u64::MAX),
                _ => given.limit("`--max-memory none` is no bound", Bytes::parse)?,
            });
            Ok(())
        },
    ),
    value(
        "max-cpus",
        "NUMBER|none",
        Of::Text,
        Section::Batch,
        "What all that runs at once may have of CPU time together, such as 1.5 CPUs; takes a cgroup [default: none, no bound].",
        |low, given| {
            low.batch.cpus = match given.raw.to_str() {
                Some("none") => None,
                _ => Some(given.limit("`--max-cpus none` is no bound", limits::parse_cpus)?),
            };
            Ok(())
        },
    ),
    value("rate", "NUMBER[/s]", Of::Text, Section::Batch, "Begin no more than so many in a second.", |low, given| {
        let text = given.text()?;
        let number = text.strip_suffix("/s").unwrap_or(&text).parse::<f64>().ok();
        let rate = number.filter(|rate| (1e-3..=1e6).contains(rate));
        low.batch.rate = Some(rate.ok_or_else(|| {
            Error::new(format!("--rate: `{text}` is no rate")).with_hint("a number of jobs in a second, such as 50 or 0.5/s")
        })?);
        Ok(())
    }),
    value(
        "format",
        "NAME",
        Of::Any(FORMATS),
        Section::Batch,
        "How jobs are written: jsonl, an object a line, or csv, a table with names in its first row [default: by the \
         extension, else jsonl].",
        |low, given| {
            low.batch.format = Some(match given.text()?.as_str() {
                "jsonl" | "ndjson" => Format::Jsonl,
                "csv" => Format::Csv,
                other => return Err(Error::new(format!("--format: there is no `{other}`")).with_hint("there are jsonl and csv")),
            });
            Ok(())
        },
    ),
    value(
        "defaults",
        "FILE",
        Of::File,
        Section::Batch,
        "What jobs leave out: a job without an id, in TOML or JSON. It stands over options, and each job over it.",
        |low, given| {
            low.batch.defaults = Some(given.read()?);
            Ok(())
        },
    ),
    switch("unordered", Section::Batch, "Write results as they come, not in the order of their jobs.", |low| {
        low.batch.unordered = true;
    }),
    switch(
        "resume",
        Section::Batch,
        "Go on where an earlier run has ended, however it did: what has its result in --output is not run again.",
        |low| low.batch.resume = true,
    ),
    switch("force", Section::Batch, "Replace an --output that is there.", |low| low.batch.force = true),
    switch("fail-fast", Section::Batch, "Begin nothing after the first job that is not good.", |low| {
        low.batch.fail_fast = true;
    }),
    value(
        "retries",
        "NUMBER",
        Of::Text,
        Section::Batch,
        "How often a job is run again that ended with setup_error; no other verdict is tried again [default: 0].",
        |low, given| {
            low.batch.retries = given.limit(BOUNDED, |text| limits::parse_count(text, 0, 100))? as u32;
            Ok(())
        },
    ),
    value(
        "pool",
        "auto|off|NUMBER",
        Of::Text,
        Section::Batch,
        "How many sandboxes wait that were made ahead, for jobs like those before: each is used once, with its \
         interpreter started already [default: auto, the number of CPUs].",
        |low, given| {
            low.batch.pool = match given.raw.to_str() {
                Some("auto") => None,
                Some("off") => Some(0),
                _ => Some(given.limit("auto, off or a number", |text| limits::parse_count(text, 0, 1000))? as usize),
            };
            Ok(())
        },
    ),
    value(
        "preload",
        "NAMES",
        Of::Text,
        Section::Batch,
        "Modules, with commas between, that interpreters started ahead have imported, beside those of their own.",
        |low, given| {
            let text = given.text()?;
            low.batch.preload.extend(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned));
            Ok(())
        },
    ),
    value(
        "artifacts",
        "DIR",
        Of::Dir,
        Section::Batch,
        "Write what each job prints, and the files that it has in `get`, to a directory of its own in DIR.",
        |low, given| {
            low.batch.artifacts = Some(given.path());
            Ok(())
        },
    ),
    value("summary", "FILE", Of::File, Section::Batch, "Write the summary as JSON.", |low, given| {
        low.batch.summary = Some(given.path());
        Ok(())
    }),
    switch("dry-run", Section::Batch, "Look at all jobs, tell what is wrong with each, and run none.", |low| {
        low.batch.dry_run = true;
    }),
];
