//! Podman: `[engine.runtimes]` in containers.conf, and that our errors are read as those of other runtimes are.

use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::{Names, Wanted};

/// The runtimes whose JSON logs Podman reads by default; to name another is to name them all
/// (containers-common, pkg/config/default.go).
const READ_BY_DEFAULT: [&str; 7] = ["crun", "crun-vm", "runc", "kata", "runsc", "youki", "krun"];
const RUNTIMES: &str = "runtimes";
const READ: &str = "runtime_supports_json";

pub(super) fn edit(text: &str, names: Names, wanted: Option<Wanted<'_>>) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| plain(&error))?;
    match wanted {
        Some(wanted) => add(&mut document, names, wanted)?,
        None => remove(&mut document, names),
    }
    Ok(document.to_string())
}

/// On one line.
pub(super) fn plain(error: &toml_edit::TomlError) -> String {
    format!("it is no TOML: {}", error.message().replace('\n', " "))
}

/// The table of this name, made where it is not.
pub(super) fn table<'a>(parent: &'a mut Table, name: &str) -> Result<&'a mut Table, String> {
    let item = parent.entry(name).or_insert_with(|| {
        let mut table = Table::new();
        // Its own heading is written only where it has something of its own.
        table.set_implicit(true);
        Item::Table(table)
    });
    item.as_table_mut().ok_or_else(|| format!("`{name}` is no table"))
}

fn add(document: &mut DocumentMut, names: Names, wanted: Wanted<'_>) -> Result<(), String> {
    let engine = table(document.as_table_mut(), "engine")?;
    match engine.get_mut(READ).map(|item| item.as_array_mut().ok_or(READ)) {
        Some(Err(name)) => return Err(format!("`engine.{name}` is no list")),
        Some(Ok(list)) => {
            for name in names.each() {
                if !list.iter().any(|known| known.as_str() == Some(name)) {
                    list.push(name);
                }
            }
        }
        None => {
            let all: Array = READ_BY_DEFAULT.into_iter().chain(names.each()).collect();
            engine.insert(READ, value(all));
        }
    }
    if wanted.default && engine.get("runtime").and_then(Item::as_str) != Some(names.entry) {
        engine.insert("runtime", value(names.entry));
    }
    let runtimes = table(engine, RUNTIMES)?;
    let registered = runtimes.get(names.entry).and_then(Item::as_array);
    if registered.and_then(|list| list.get(0)?.as_str()) != Some(wanted.runtime) {
        runtimes.insert(names.entry, value(Array::from_iter([wanted.runtime])));
    }
    Ok(())
}

fn remove(document: &mut DocumentMut, names: Names) {
    let Some(engine) = document.get_mut("engine").and_then(Item::as_table_mut) else { return };
    if let Some(list) = engine.get_mut(READ).and_then(Item::as_array_mut) {
        list.retain(|name| ![Some(names.entry), Some(names.program)].contains(&name.as_str()));
        // As it is by default: it was we who wrote it down.
        if list.iter().filter_map(toml_edit::Value::as_str).eq(READ_BY_DEFAULT) {
            engine.remove(READ);
        }
    }
    if engine.get("runtime").and_then(Item::as_str) == Some(names.entry) {
        engine.remove("runtime");
    }
    if let Some(runtimes) = engine.get_mut(RUNTIMES).and_then(Item::as_table_mut)
        && runtimes.remove(names.entry).is_some()
        && runtimes.is_empty()
    {
        engine.remove(RUNTIMES);
    }
    if engine.is_empty() {
        document.remove("engine");
    } else if engine.iter().all(|(_, item)| item.is_table()) {
        // A heading over nothing was made by us, if nobody wrote a word to it.
        let commented = engine.decor().prefix().and_then(|text| text.as_str()).is_some_and(|text| text.contains('#'));
        engine.set_implicit(!commented);
    }
}
