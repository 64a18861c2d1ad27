//! The network of what installs packages: a gateway's, to the registries that are known, and to the one that the caller or
//! the host's configuration names in their place, wherever that is. What a package runs gets no further than its manager.

use std::{
    net::{IpAddr, ToSocketAddrs},
    path::Path,
};

use super::{
    Manager, PackagesError, Result,
    settings::{self, Variable},
};
use crate::{
    Sandbox,
    image::registry::url::Url,
    net::{
        Policy,
        gateway::{EXPLICIT_PORT, GATEWAY},
        policy::{
            HOST_NAME, Mode,
            address::{Special, special},
        },
    },
    request::{Mount, Network},
};

const CERTIFICATES: &str = "/fumehood/certificates.pem";

impl Manager {
    /// Where it looks unless somebody says otherwise.
    const fn registries(self) -> &'static [&'static str] {
        match self {
            Self::Pip => &["https://pypi.org", "https://files.pythonhosted.org"],
            Self::Npm => &["https://registry.npmjs.org"],
            Self::Gem => &["https://rubygems.org", "https://index.rubygems.org"],
        }
    }
}

/// What is reached, beside what is known to be a registry.
#[derive(Debug, Default)]
pub struct Registries {
    /// Variables that tell a manager where its index is.
    settings: Vec<Variable>,
    /// Of this host's configuration and of who calls: reached wherever they are.
    urls: Vec<String>,
    /// Of a recipe, which may come from anywhere: not reached next door.
    public: Vec<String>,
}

impl Registries {
    /// What any manager would use.
    #[must_use]
    pub fn all() -> Self {
        let mut all = Self::default();
        for manager in [Manager::Pip, Manager::Npm, Manager::Gem] {
            all.add(manager.registries().iter().copied());
            all.urls.extend(settings::named_index(manager));
        }
        all
    }

    pub(super) fn of(manager: Manager, settings: Vec<Variable>, packages: &[String]) -> Self {
        let mut of = Self::default();
        of.add(manager.registries().iter().copied());
        let indexes = settings.iter().filter(|(name, _)| name.ends_with("INDEX_URL") || name.ends_with("_registry"));
        of.urls.extend(indexes.flat_map(|(_, value)| value.split_whitespace()).map(str::to_owned));
        // `NAME@https://…`, `git+https://…`
        let places = packages.iter().filter_map(|package| package.find("http").map(|at| &package[at..]));
        of.add_public(places);
        of.settings = settings;
        of
    }

    pub fn add_public<'a>(&mut self, urls: impl Iterator<Item = &'a str>) {
        self.public.extend(urls.map(str::to_owned));
    }

    pub fn add<'a>(&mut self, urls: impl Iterator<Item = &'a str>) {
        self.urls.extend(urls.map(str::to_owned));
    }
}

/// Gives a sandbox a gateway to registries, and tells it how they are reached. `tell` is told what was left out.
pub fn connect(sandbox: &mut Sandbox, registries: Registries, tell: &mut dyn FnMut(&str)) -> Result {
    let mut policy = Policy::new(Mode::Packages).map_err(|source| PackagesError::Place { source })?;
    let mut local = false;
    for url in without_users(registries.urls.into_iter().map(|url| (String::new(), url)).collect(), &mut |_| {})? {
        let place = Place::of_url(&url.1).ok_or_else(|| PackagesError::Index { text: url.1.clone() })?;
        for named in place.named() {
            policy.allow_private(parse(&named)?);
        }
        local |= place.is_loopback();
    }
    for place in registries.public.iter().filter_map(|url| Place::of_url(url)) {
        // One that no rule opens is refused when it is asked for.
        _ = format!("{}:{}", place.written, place.port).parse().and_then(|rule| policy.allow(rule));
    }
    let (proxies, mut settings): (Vec<_>, Vec<_>) =
        registries.settings.into_iter().chain(settings::proxies()).partition(|(name, _)| settings::is_proxy(name));
    if local {
        // Its URL holds inside too: the gateway is asked for it, and not the sandbox's own loopback.
        let gateway = gateway();
        let names = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];
        settings.extend(names.map(|name| (name.to_owned(), gateway.clone())));
        settings.retain(|(name, _)| !name.eq_ignore_ascii_case("no_proxy"));
    }
    sandbox.network(Network::None);
    let mut settings = without_users(settings, tell)?;
    for (name, value) in without_users(if local { Vec::new() } else { proxies }, tell)? {
        let Some(place) = Place::of_proxy(&value) else { continue };
        for named in place.named() {
            policy.allow_proxy(parse(&named)?);
        }
        let value = if place.is_loopback() { value.replacen(&place.written, HOST_NAME, 1) } else { value };
        settings.push((name, value));
    }
    for (name, value) in settings {
        sandbox.env(name, value);
    }
    sandbox.network(Network::Gateway(Box::new(policy)));
    certificates(sandbox)
}

/// The proxy by which a URL on loopback is reached.
pub(super) fn way_to(url: &str) -> Option<String> {
    Place::of_url(url).is_some_and(|place| place.is_loopback()).then(gateway)
}

fn gateway() -> String {
    format!("http://{GATEWAY}:{EXPLICIT_PORT}")
}

/// Gives a sandbox the host's network with what it needs to use it: how names are looked up and whom to trust are the
/// host's business, and no image's.
pub fn connect_to_host(sandbox: &mut Sandbox, tell: &mut dyn FnMut(&str)) -> Result {
    sandbox.network(Network::Host);
    for (name, value) in without_users(settings::proxies(), tell)? {
        sandbox.env(name, value);
    }
    for path in ["/etc/resolv.conf", "/etc/hosts"] {
        if let Some(source) = settings::real(path) {
            sandbox.mount(Mount::new(&source, Path::new(path), false)?);
        }
    }
    certificates(sandbox)
}

fn certificates(sandbox: &mut Sandbox) -> Result {
    let Some(path) = settings::certificates() else { return Ok(()) };
    sandbox.mount(Mount::new(&path, Path::new(CERTIFICATES), false)?);
    for name in ["PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
        sandbox.env(name, CERTIFICATES);
    }
    Ok(())
}

fn without_users(settings: Vec<Variable>, tell: &mut dyn FnMut(&str)) -> Result<Vec<Variable>> {
    let (settings, had) = settings::public(settings)?;
    if !had.is_empty() {
        let names = had.join(", ");
        tell(&format!("fumehood: {names}: without the user and password in it, which what is run could read\n"));
    }
    Ok(settings)
}

fn parse(named: &str) -> Result<crate::net::policy::Private> {
    named.parse().map_err(|source| PackagesError::Place { source })
}

/// A host and a port of the configuration.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    /// The host as it stands in its URL.
    written: String,
}

impl Place {
    fn of_url(url: &str) -> Option<Self> {
        let url = Url::parse(url)?;
        let written = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
        Some(Self { host: url.host, port: url.port, written })
    }

    /// `http://host:port`, `socks5h://host`, `host:port`.
    fn of_proxy(value: &str) -> Option<Self> {
        let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
        let secure = if scheme == "https" { "https" } else { "http" };
        let mut place = Self::of_url(&format!("{secure}://{rest}"))?;
        if scheme.starts_with("socks") && !rest.contains(&format!(":{}", place.port)) {
            place.port = 1080;
        }
        Some(place)
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// As rules name it: by its name, and by addresses that no name opens. It was named by who configures this host, and
    /// its resolver may say of a public name that it is next door.
    fn named(&self) -> Vec<String> {
        let mut all = vec![format!("{}:{}", self.written, self.port)];
        if self.is_loopback() {
            return all;
        }
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        for address in found.into_iter().flatten() {
            if special(address.ip()).is_some_and(|what| what == Special::Reserved) {
                all.push(address.to_string());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_urls_and_of_proxies() {
        let place =
            |host: &str, port, written: &str| Some(Place { host: host.to_owned(), port, written: written.to_owned() });
        assert_eq!(Place::of_url("https://a.example/simple"), place("a.example", 443, "a.example"));
        assert_eq!(Place::of_url("http://[::1]:8080/"), place("::1", 8080, "[::1]"));
        assert_eq!(Place::of_url("git@a:b"), None);
        assert_eq!(Place::of_proxy("proxy:3128"), place("proxy", 3128, "proxy"));
        assert_eq!(Place::of_proxy("socks5h://proxy"), place("proxy", 1080, "proxy"));
        assert_eq!(Place::of_proxy("socks5://127.0.0.1:9050"), place("127.0.0.1", 9050, "127.0.0.1"));
        assert_eq!(Place::of_proxy(""), None);
        let loopback = |url| Place::of_url(url).unwrap().is_loopback();
        assert!(loopback("http://127.0.0.2/") && loopback("http://localhost:1/") && loopback("http://[::1]/"));
        assert!(!loopback("http://localhost.example/") && !loopback("http://10.0.0.1/"));
    }

    #[test]
    fn packages_named_by_a_url_bring_their_host() {
        let packages = ["a@https://a.example/a.whl", "git+https://b.example:8443/x@main", "httpx", "c"];
        let packages: Vec<_> = packages.map(str::to_owned).into();
        let registries =
            Registries::of(Manager::Npm, vec![("npm_config_registry".into(), "http://r/".into())], &packages);
        assert_eq!(registries.urls, ["https://registry.npmjs.org", "http://r/"]);
        let public: Vec<_> =
            registries.public.iter().filter_map(|url| Place::of_url(url)).map(|place| place.host).collect();
        assert_eq!(public, ["a.example", "b.example"]);
    }
}
