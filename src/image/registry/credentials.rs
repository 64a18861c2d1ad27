//! Who we are to a registry, as `docker login` and `podman login` have written it down (containers-auth.json(5),
//! docker-login(1)). Read only once a registry asks, and only what is for that registry.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::error::RegistryError;

#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// To be exchanged for tokens (OAuth 2's refresh token).
    Identity(String),
}

/// Without what is secret of it: errors and logs show what they are given.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::Identity(_) => f.write_str("Identity"),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Option<Entry>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry")
    }
}

const LARGEST: u64 = 1 << 20;
const HUB: &str = "docker.io";
/// As `docker login` without a server writes it.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where they may be, the first that has any for the registry counts.
fn files() -> Vec<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // As with podman: who names a file means that one.
    if let Some(file) = named("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = named("HOME");
    let config = named("XDG_CONFIG_HOME").or_else(|| Some(home.clone()?.join(".config")));
    let docker = named("DOCKER_CONFIG").or_else(|| Some(home?.join(".docker")));
    let files = [
        named("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        config.map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ];
    files.into_iter().flatten().collect()
}

/// What is known for the repository of the registry.
pub fn find(registry: &str, repository: &str) -> Result<Option<Credentials>, RegistryError> {
    for path in files() {
        let bad = |why: String| RegistryError::Credentials {
            registry: registry.to_owned(),
            from: path.display().to_string(),
            why,
        };
        let mut bytes = Vec::new();
        match fs::File::open(&path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(bad(error.to_string())),
            Ok(_) => {}
        }
        match read(&bytes, registry, repository).map_err(&bad)? {
            Some(Found::Here(credentials)) => return Ok(Some(credentials)),
            Some(Found::Helper { name, server }) => {
                if let Some(credentials) = ask(&name, &server).map_err(|why| RegistryError::Credentials {
                    registry: registry.to_owned(),
                    from: format!("docker-credential-{name}"),
                    why,
                })? {
                    return Ok(Some(credentials));
                }
            }
            None => {}
        }
    }
    Ok(None)
}

/// What a file says of a registry.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Here(Credentials),
    /// A program that is to be asked, and for what.
    Helper {
        name: String,
        server: String,
    },
}

/// Reads one file's bytes.
pub fn read(bytes: &[u8], registry: &str, repository: &str) -> Result<Option<Found>, String> {
    // The position alone: what is there may be secret.
    let file: File = serde_json::from_slice(bytes)
        .map_err(|error| format!("it is no such file: line {}, column {}", error.line(), error.column()))?;
    let keys = keys(registry, repository);
    let helper = |(server, name): (&String, &String)| Found::Helper { name: name.clone(), server: server.clone() };
    if let Some(found) = keys.iter().find_map(|key| file.helpers.iter().find(|(name, _)| plain(name) == *key)) {
        return Ok(Some(helper(found)));
    }
    for key in &keys {
        for entry in file.auths.iter().filter(|(name, _)| plain(name) == *key).filter_map(|(_, entry)| entry.as_ref()) {
            if let Some(credentials) = of_entry(entry)? {
                return Ok(Some(Found::Here(credentials)));
            }
        }
    }
    let server = if registry == HUB { HUB_KEY } else { registry };
    Ok(file.store.as_ref().filter(|name| !name.is_empty()).map(|name| helper((&server.to_owned(), name))))
}

fn of_entry(entry: &Entry) -> Result<Option<Credentials>, String> {
    if let Some(token) = entry.identitytoken.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(Credentials::Identity(token.clone())));
    }
    if let (Some(user), Some(password)) = (&entry.username, &entry.password)
        && !user.is_empty()
    {
        return Ok(Some(Credentials::Password { user: user.clone(), password: password.clone() }));
    }
    let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // Docker pads with zero bytes what it has written.
    let pair = decoded.as_deref().map(|text| text.trim_end_matches('\0')).and_then(|text| text.split_once(':'));
    let (user, password) = pair.ok_or("an `auth` that is no base64 of USER:PASSWORD")?;
    Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
}

/// What an entry for it may be called, the most particular first: podman's are of repositories too.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let hosts: &[&str] = if registry == HUB {
        &[HUB, "index.docker.io", "registry-1.docker.io"]
    } else {
        std::slice::from_ref(&registry)
    };
    let mut keys = Vec::new();
    for host in hosts {
        let mut path = repository;
        while !path.is_empty() {
            keys.push(format!("{host}/{path}"));
            path = path.rfind('/').map_or("", |slash| &path[..slash]);
        }
    }
    keys.extend(hosts.iter().map(|host| (*host).to_owned()));
    keys
}

/// A key without what Docker's carry besides the host.
fn plain(key: &str) -> &str {
    match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(url) => url.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks a `docker-credential-NAME` of the user's.
fn ask(name: &str, server: &str) -> Result<Option<Credentials>, String> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err("it is no name of a program".to_owned());
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may answer without reading.
        _ = stdin.write_all(server.as_bytes());
    }
    let mut answer = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(LARGEST).read_to_end(&mut answer).map_err(|error| error.to_string())?;
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if !status.success() {
        let said = String::from_utf8_lossy(&answer).to_lowercase();
        return if said.contains("not found") { Ok(None) } else { Err(status.to_string()) };
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| "its answer is not as it should be".to_owned())?;
    Ok(match answer {
        Answer { secret, .. } if secret.is_empty() => None,
        Answer { user, secret } if user == "<token>" => Some(Credentials::Identity(secret)),
        Answer { user, secret } => Some(Credentials::Password { user, password: secret }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Found> {
        Some(Found::Here(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
    }

    #[test]
    fn each_registry_gets_its_own() {
        let auth = |text: &str| STANDARD.encode(text);
        let file = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{}"}}, "quay.io": {{"auth": "{}"}},
                "quay.io/me": {{"auth": "{}"}}, "a.example:5000": {{"username": "u", "password": "p"}},
                "b.example": {{"auth": "", "identitytoken": "t"}}, "c.example": {{}}, "d.example": {{"auth": "%"}},
                "https://e.example/v2/": {{"auth": "{}"}}}},
               "credHelpers": {{"f.example": "x"}}}}"#,
            auth("hub:one:two"),
            auth("all:q\0"),
            auth("me:m"),
            auth("e:e"),
        );
        let found = |registry, repository| read(file.as_bytes(), registry, repository);
        assert_eq!(found("docker.io", "library/python").unwrap(), password("hub", "one:two"));
        assert_eq!(found("quay.io", "other/x").unwrap(), password("all", "q"));
        assert_eq!(found("quay.io", "me/x").unwrap(), password("me", "m"));
        assert_eq!(found("quay.io", "mean/x").unwrap(), password("all", "q"));
        assert_eq!(found("a.example:5000", "x").unwrap(), password("u", "p"));
        assert_eq!(found("b.example", "x").unwrap(), Some(Found::Here(Credentials::Identity("t".to_owned()))));
        assert_eq!(found("e.example", "x").unwrap(), password("e", "e"));
        let helper = Found::Helper { name: "x".to_owned(), server: "f.example".to_owned() };
        assert_eq!(found("f.example", "x").unwrap(), Some(helper));
        for other in ["a.example", "c.example", "index.docker.io.example", "io", "example"] {
            assert_eq!(found(other, "x").unwrap(), None, "{other}");
        }
        assert!(found("d.example", "x").is_err());
        assert!(!format!("{:?}", found("quay.io", "x")).contains("q\""), "secrets are not shown");
    }

    #[test]
    fn a_store_is_asked_for_what_the_file_has_not() {
        let file = br#"{"auths": {"a.example": {}}, "credsStore": "pass"}"#;
        let server = |registry| match read(file, registry, "x").unwrap() {
            Some(Found::Helper { name, server }) if name == "pass" => server,
            other => panic!("{other:?}"),
        };
        assert_eq!((server("a.example"), server("docker.io")), ("a.example".to_owned(), HUB_KEY.to_owned()));
        assert!(read(b"{\"auths\": 1}", "a", "b").unwrap_err().contains("line 1"));
        assert!(ask("../x", "a").is_err() && ask("", "a").is_err());
    }
}
