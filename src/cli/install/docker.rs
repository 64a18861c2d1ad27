//! Docker: `runtimes` in daemon.json.

use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstObject, CstRootNode},
};
use serde_json::Value;

use super::{Names, Wanted};

const DEFAULT: &str = "default-runtime";
const RUNTIMES: &str = "runtimes";

pub(super) fn edit(text: &str, names: Names, wanted: Option<Wanted<'_>>) -> Result<String, String> {
    // The editor takes more than dockerd does.
    if !text.trim().is_empty() {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
        if !value.is_object() {
            return Err("it is no JSON object".to_owned());
        }
    } else if wanted.is_none() {
        return Ok(text.to_owned());
    }
    let root = CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| format!("it is no JSON: {error}"))?;
    let object = root.object_value_or_set();
    match wanted {
        Some(wanted) => add(&object, names, wanted)?,
        None if !remove(&object, names) => return Ok(text.to_owned()),
        None if object.properties().is_empty() => return Ok(String::new()),
        None => {}
    }
    let mut text = root.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn add(object: &CstObject, names: Names, wanted: Wanted<'_>) -> Result<(), String> {
    let runtimes = object.object_value_or_create(RUNTIMES).ok_or("`runtimes` is no object")?;
    match runtimes.object_value(names.entry) {
        // Arguments that somebody added stay.
        Some(own) => match own.get("path") {
            Some(path) if is_text(path.value(), wanted.runtime) => {}
            Some(path) => path.set_value(text_of(wanted.runtime)),
            None => _ = own.append("path", text_of(wanted.runtime)),
        },
        None => {
            if let Some(other) = runtimes.get(names.entry) {
                other.remove();
            }
            runtimes.append(names.entry, CstInputValue::Object(vec![("path".to_owned(), text_of(wanted.runtime))]));
        }
    }
    if wanted.default {
        match object.get(DEFAULT) {
            Some(default) if is_text(default.value(), names.entry) => {}
            Some(default) => default.set_value(text_of(names.entry)),
            None => _ = object.append(DEFAULT, text_of(names.entry)),
        }
    }
    Ok(())
}

/// Whether there was anything of ours.
fn remove(object: &CstObject, names: Names) -> bool {
    let mut removed = false;
    if let Some(runtimes) = object.object_value(RUNTIMES)
        && let Some(own) = runtimes.get(names.entry)
    {
        own.remove();
        removed = true;
        if runtimes.properties().is_empty()
            && let Some(property) = object.get(RUNTIMES)
        {
            property.remove();
        }
    }
    if let Some(default) = object.get(DEFAULT).filter(|default| is_text(default.value(), names.entry)) {
        default.remove();
        removed = true;
    }
    removed
}

fn is_text(value: Option<jsonc_parser::cst::CstNode>, text: &str) -> bool {
    value.and_then(|value| value.as_string_lit()?.decoded_value().ok()).is_some_and(|value| value == text)
}

fn text_of(text: &str) -> CstInputValue {
    CstInputValue::String(text.to_owned())
}
