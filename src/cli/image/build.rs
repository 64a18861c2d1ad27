//! `image build`.

use std::{
    io::{IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
};

use fumehood::{
    Error, Result,
    error::Hint,
    image::{
        Reference,
        build::{
            self, Build, Mirror, Recipe, Watch,
            builtin::{self, Builtin},
        },
    },
    packages::Index,
};

use super::{
    super::{message, progress::Progress},
    table::{self, Align},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file, - for standard input, or the name of a recipe that is built in
    #[arg(value_name = "RECIPE", required_unless_present = "list")]
    recipe: Option<String>,
    /// What to call it, instead of the recipe's own name; repeatable
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Make every layer anew, also where nothing of the recipe has changed: what packages are now
    #[arg(long)]
    no_cache: bool,
    /// Where packages of pip and npm come from: a URL, or a directory, which needs no network
    #[arg(long, value_name = "URL|DIR")]
    index_url: Option<String>,
    /// Where Debian's packages come from
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// List the recipes that are built in
    #[arg(long, conflicts_with = "recipe")]
    list: bool,
    /// Say nothing on the way
    #[arg(short, long)]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let Some(word) = args.recipe.as_deref() else { return list(args.json) };
    let (recipe, dir) = read(word)?;
    let index = args.index_url.as_deref().map(Index::parse).transpose().map_err(Hint::into_error)?;
    let tags = args.tag.iter().map(|tag| tag.parse::<Reference>().map_err(Hint::into_error));
    let tags = tags.collect::<Result<Vec<_>>>()?;
    let mirror = args.mirror.as_deref().map(Mirror::parse).transpose().map_err(Hint::into_error)?;
    let store = super::open(store)?;
    // What a build that was killed has left is in nobody's way but the disk's.
    store.sweep().map_err(Hint::into_error)?;
    let build = Build {
        recipe: &recipe,
        dir: dir.as_deref(),
        tags: &tags,
        again: args.no_cache,
        mirror: mirror.as_ref(),
        index: index.as_ref(),
        epoch: build::epoch().map_err(Hint::into_error)?,
    };
    let view = View { quiet: args.quiet, bar: Mutex::new(None) };
    let done = build::build(&store, &build, &view);
    view.end();
    let done = done.map_err(Hint::into_error)?;
    if args.json {
        return Ok(message::print_json(&done));
    }
    if done.unchanged && !args.quiet {
        message::note(&format!("unchanged: {}", done.digest));
    }
    Ok(message::print(&done.names.iter().map(|name| format!("{name}\n")).collect::<String>()))
}

/// The recipe, and the directory that its files are relative to.
fn read(word: &str) -> Result<(Recipe, Option<PathBuf>)> {
    let text = match word {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().lock().read_to_string(&mut text);
            read.map_err(|error| Error::new(format!("standard input: {error}")))?;
            text
        }
        // A name and no path: a file of that name is ./NAME.
        _ if !word.contains(['/', '.']) => {
            let recipe = Builtin::find(word).and_then(|builtin| builtin.recipe()).map_err(Hint::into_error)?;
            return Ok((recipe, None));
        }
        path => std::fs::read_to_string(path).map_err(|error| {
            Error::new(format!("recipe `{path}`: {error}"))
                .with_hint("`fumehood image build --list` shows those that are built in")
        })?,
    };
    let (what, dir) = match word {
        "-" => ("standard input", None),
        path => (path, Path::new(path).parent().filter(|dir| !dir.as_os_str().is_empty())),
    };
    let recipe = Recipe::parse(&text, what).map_err(Hint::into_error)?;
    Ok((recipe, Some(dir.unwrap_or(Path::new(".")).to_owned())))
}

#[derive(serde::Serialize)]
struct Row {
    name: &'static str,
    description: String,
}

fn list(json: bool) -> Result<ExitCode> {
    let row = |builtin: &Builtin| {
        let recipe = builtin.recipe().map_err(Hint::into_error)?;
        Ok(Row { name: builtin.name, description: recipe.description.unwrap_or_default() })
    };
    let rows = builtin::ALL.iter().map(row).collect::<Result<Vec<_>>>()?;
    if json {
        return Ok(message::print_json(&rows));
    }
    let head = [("NAME", Align::Left), ("WHAT", Align::Left)];
    Ok(message::print(&table::text(head, rows.iter().map(|row| [row.name.to_owned(), row.description.clone()]))))
}

/// Tells on standard error how it goes on; a bar shows only on a terminal.
struct View {
    quiet: bool,
    bar: Mutex<Option<Progress>>,
}

impl View {
    fn end(&self) {
        if let Ok(mut bar) = self.bar.lock()
            && let Some(bar) = bar.take()
        {
            bar.finish();
        }
    }
}

impl Watch for View {
    fn step(&self, what: &str, there: bool) {
        self.end();
        if !self.quiet {
            message::note(&format!("{what}{}", if there { ": unchanged" } else { "" }));
        }
    }

    fn network(&self, what: &str) {
        self.end();
        if !self.quiet {
            message::note(&format!("{what}: this step shares this host's network"));
        }
    }

    fn output(&self, text: &str) {
        self.end();
        _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn bytes(&self, count: u64) {
        if self.quiet || !std::io::stderr().is_terminal() {
            return;
        }
        if let Ok(mut bar) = self.bar.lock() {
            bar.get_or_insert_with(|| Progress::new("building", None)).add(count);
        }
    }
}
