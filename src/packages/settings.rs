//! What of this host's configuration package managers are told: where the index is, and how it is reached. No
//! credentials, be they of configuration files or in a URL: what a package runs could read them.

use std::{env, fs, path::PathBuf};

use super::{Index, Manager, PackagesError, Result, bare::bare};

/// Its name and its value.
pub type Variable = (String, String);

const PROXIES: [&str; 8] =
    ["http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];
const PIP: [&str; 6] = ["INDEX_URL", "EXTRA_INDEX_URL", "TRUSTED_HOST", "PROXY", "DEFAULT_TIMEOUT", "RETRIES"];
/// Bundles of the authorities that are trusted, as they are called on all distributions.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Variables that tell the manager where its index is.
pub fn find(manager: Manager, index: Option<&Index>) -> Vec<Variable> {
    match (manager, index) {
        // An index that was named is the only one.
        (Manager::Pip, Some(Index::Url(url))) => vec![("PIP_INDEX_URL".to_owned(), url.clone())],
        (Manager::Npm, Some(Index::Url(url))) => vec![("npm_config_registry".to_owned(), url.clone())],
        (Manager::Pip, _) => PIP.iter().filter_map(|name| Some((format!("PIP_{name}"), pip(name)?))).collect(),
        (Manager::Npm, _) => registry().map(|url| ("npm_config_registry".to_owned(), url)).into_iter().collect(),
        (Manager::Gem, _) => Vec::new(),
    }
}

pub fn proxies() -> Vec<Variable> {
    PROXIES.into_iter().filter_map(|name| Some((name.to_owned(), env::var(name).ok()?))).collect()
}

/// Whether its value is a proxy.
pub fn is_proxy(name: &str) -> bool {
    name == "PIP_PROXY" || (PROXIES.contains(&name) && !name.eq_ignore_ascii_case("no_proxy"))
}

/// The same without users and passwords, and what it was that had any.
pub fn public(settings: Vec<Variable>) -> Result<(Vec<Variable>, Vec<String>)> {
    let (mut fine, mut had) = (Vec::new(), Vec::new());
    for (name, value) in settings {
        // Not left out: packages would come from another index then.
        let Some(told) = bare(&value) else { return Err(PackagesError::Credentials { name }) };
        if told != value {
            had.push(name.clone());
        }
        fine.push((name, told));
    }
    Ok((fine, had))
}

/// The authorities that this host trusts.
pub fn certificates() -> Option<PathBuf> {
    let named = ["PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];
    let named = named.into_iter().filter_map(|name| env::var(name).ok());
    named.chain(BUNDLES.map(str::to_owned)).find_map(|path| real(&path))
}

/// The file that a path leads to, if there is one.
pub fn real(path: &str) -> Option<PathBuf> {
    fs::canonicalize(path).ok().filter(|path| path.is_file())
}

/// The host's own pip, as a directory that any Python can load.
pub fn host_pip() -> Option<PathBuf> {
    let mut dirs = vec![PathBuf::from("/usr/lib/python3/dist-packages")];
    for above in ["/usr/local/lib", "/usr/lib"] {
        let versions = fs::read_dir(above).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut versions: Vec<_> = versions
            .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"python3.")))
            .collect();
        versions.sort_unstable();
        dirs.extend(versions.iter().rev().flat_map(|dir| [dir.join("dist-packages"), dir.join("site-packages")]));
    }
    let pips = dirs.into_iter().map(|dir| dir.join("pip"));
    pips.filter(|pip| pip.join("__main__.py").is_file()).find_map(|pip| fs::canonicalize(pip).ok())
}

/// Where packages would come from, as far as the host's configuration says.
pub fn named_index(manager: Manager) -> Vec<String> {
    match manager {
        Manager::Pip => ["INDEX_URL", "EXTRA_INDEX_URL"].into_iter().filter_map(pip).collect(),
        Manager::Npm => registry().into_iter().collect(),
        Manager::Gem => Vec::new(),
    }
}

/// The variable, or what pip's files say: the user's own over the host's (pip, "Configuration Files").
fn pip(name: &str) -> Option<String> {
    if let Ok(value) = env::var(format!("PIP_{name}")) {
        return Some(value);
    }
    let key = name.to_lowercase().replace('_', "-");
    let home = env::var_os("HOME").map(PathBuf::from);
    let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home.clone()?.join(".config")));
    let files = [
        config.map(|dir| dir.join("pip/pip.conf")),
        home.map(|dir| dir.join(".pip/pip.conf")),
        Some("/etc/pip.conf".into()),
    ];
    files.into_iter().flatten().find_map(|file| value(&fs::read_to_string(file).ok()?, &key))
}

fn registry() -> Option<String> {
    let named = ["npm_config_registry", "NPM_CONFIG_REGISTRY"].into_iter().find_map(|name| env::var(name).ok());
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".npmrc"));
    let files = home.into_iter().chain(["/etc/npmrc".into(), "/usr/local/etc/npmrc".into()]);
    named.or_else(|| files.into_iter().find_map(|file| value(&fs::read_to_string(file).ok()?, "registry")))
}

/// `key = value`, of whatever section: pip reads `[global]` and `[install]` alike.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (found.trim().replace('_', "-") == key && !value.is_empty()).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn users_are_left_out_and_told() {
        let public =
            |value: &str| super::public(vec![("A".to_owned(), value.to_owned()), ("B".to_owned(), "b".to_owned())]);
        let (fine, had) = public("http://u:p@h/").unwrap();
        let wanted = [("A", "http://h/"), ("B", "b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!((fine.as_slice(), had), (wanted.as_slice(), vec!["A".to_owned()]));
        assert!(public("http://h/").unwrap().1.is_empty());
        let error = public("http://u:secret/x@h/").unwrap_err().to_string();
        assert!(error.contains("`A`") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_value_of_a_file() {
        let text = "[global]\n# index-url = no\nindex_url = https://a/simple\n[install]\ntrusted-host=\n";
        assert_eq!(super::value(text, "index-url").as_deref(), Some("https://a/simple"));
        assert_eq!(super::value(text, "trusted-host"), None);
        assert_eq!(super::value("registry=\"http://r/\"\n", "registry").as_deref(), Some("http://r/"));
    }
}
