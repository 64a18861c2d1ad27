//! containerd: a runtime of the CRI plugin, with our program as the `BinaryName` of runc's shim.

use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::{
    Names, Wanted,
    podman::{plain, table},
};

/// Annotations of a pod that are passed on: they can only tighten.
const ANNOTATIONS: &str = "io.fumehood.*";

pub(super) fn edit(text: &str, names: Names, wanted: Option<Wanted<'_>>) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| plain(&error))?;
    let version = match document.get("version").map(Item::as_integer) {
        Some(Some(version)) => version,
        None if document.is_empty() => 2,
        _ => 1,
    };
    let plugin = match version {
        2 => "io.containerd.grpc.v1.cri",
        3.. => "io.containerd.cri.v1.runtime",
        _ => return Err("it is in containerd's old form: `version = 2` begins the one that is known".to_owned()),
    };
    match wanted {
        Some(wanted) => {
            if document.is_empty() {
                document.insert("version", value(version));
            }
            add(document.as_table_mut(), plugin, names, wanted)?;
        }
        None => remove(document.as_table_mut(), plugin, names),
    }
    let alone =
        document.len() == 1 && document.contains_key("version") && wanted.is_none() && document.to_string() != text;
    Ok(if alone { String::new() } else { document.to_string() })
}

fn add(document: &mut Table, plugin: &str, names: Names, wanted: Wanted<'_>) -> Result<(), String> {
    let containerd = table(table(table(document, "plugins")?, plugin)?, "containerd")?;
    if wanted.default && containerd.get("default_runtime_name").and_then(Item::as_str) != Some(names.entry) {
        containerd.insert("default_runtime_name", value(names.entry));
    }
    let runtimes = table(containerd, "runtimes")?;
    // The kubelet's driver of control groups is the node's, whatever the runtime.
    let systemd = runtimes
        .get("runc")
        .and_then(|runc| runc.get("options")?.get("SystemdCgroup")?.as_bool())
        .filter(|systemd| *systemd);
    let own = table(runtimes, names.entry)?;
    set(own, "runtime_type", "io.containerd.runc.v2".into());
    match own.get_mut("pod_annotations").map(Item::as_array_mut) {
        Some(Some(list)) if list.iter().any(|name| name.as_str() == Some(ANNOTATIONS)) => {}
        Some(Some(list)) => list.push(ANNOTATIONS),
        Some(None) => return Err(format!("`pod_annotations` of {} is no list", names.entry)),
        None => _ = own.insert("pod_annotations", value(Array::from_iter([ANNOTATIONS]))),
    }
    let options = table(own, "options")?;
    set(options, "BinaryName", wanted.runtime.into());
    if let Some(systemd) = systemd {
        set(options, "SystemdCgroup", systemd.into());
    }
    Ok(())
}

/// What is so already is left as it is written.
fn set(table: &mut Table, name: &str, wanted: toml_edit::Value) {
    let is_so = table.get(name).and_then(Item::as_value).is_some_and(|found| match (found, &wanted) {
        (toml_edit::Value::String(a), toml_edit::Value::String(b)) => a.value() == b.value(),
        (toml_edit::Value::Boolean(a), toml_edit::Value::Boolean(b)) => a.value() == b.value(),
        _ => false,
    });
    if !is_so {
        table.insert(name, Item::Value(wanted));
    }
}

/// Takes ours out, and what is empty without it.
fn remove(document: &mut Table, plugin: &str, names: Names) {
    let containerd = document.get("plugins").and_then(|plugins| plugins.get(plugin)?.get("containerd"));
    let default = containerd.and_then(|containerd| containerd.get("default_runtime_name")?.as_str());
    if default == Some(names.entry) {
        prune(document, &["plugins", plugin, "containerd", "default_runtime_name"]);
    }
    prune(document, &["plugins", plugin, "containerd", "runtimes", names.entry]);
}

fn prune(table: &mut Table, path: &[&str]) -> bool {
    let Some((name, rest)) = path.split_first() else { return false };
    if rest.is_empty() {
        return table.remove(name).is_some();
    }
    let Some(inner) = table.get_mut(name).and_then(Item::as_table_mut) else { return false };
    let removed = prune(inner, rest);
    if removed && inner.is_empty() {
        table.remove(name);
    }
    removed
}
