//! What a sandbox may reach: a mode, and rules over it.
//!
//! Deny wins over allow, and what is no public host is denied before either unless it was named with its port. Nothing
//! here asks the network: the proxy asks the policy about a name and port, resolves, and asks again about each
//! address. A refusal carries the rule it stands on and the flag that would allow it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

pub mod address;
mod asked;
mod mode;
mod name;
pub(super) mod path;
mod preset;
mod requests;
mod rule;
mod written;

use self::{address::Special, mode::MAIL, preset::packages};
pub use self::{
    mode::Mode,
    name::{Name, NameError},
    preset::{LISTS, PACKAGES},
    requests::{Asked, Header, HeaderError, Requests},
    rule::{Host, Private, Rule, RuleError, port},
    written::Injection,
};
use super::authority::Authority;

/// The name by which a sandbox finds the host, whose `localhost` inside is its own: opened as `localhost:PORT` is.
pub const HOST_NAME: &str = "host.fumehood.internal";
pub const LOCALHOST: &str = "localhost";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub struct Policy {
    mode: Mode,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    private: Vec<Private>,
    /// Of those, the ones that are asked for other hosts. No document has them.
    proxies: Vec<Private>,
    /// Not in a document, where they are part of a rule.
    inject: Vec<Injection>,
    preset: &'static [Rule],
    /// By which the sandbox knows the proxy for the names that it looks into.
    authority: Option<Arc<Authority>>,
}

/// A policy as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    mode: Mode,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deny: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow_private: Vec<Private>,
}

/// Why something may not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What refused it.
    pub rule: String,
    /// The flag that would allow it.
    pub hint: Option<String>,
}

/// What a request that may be made is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    pub add: Vec<Header>,
    /// In place of what was asked for, where rules are about paths.
    pub target: Option<String>,
    /// Whether rules are about methods, so that it must not name another one somewhere else.
    pub by_method: bool,
}

impl Refusal {
    #[must_use]
    pub fn new(rule: impl Into<String>) -> Self {
        Self { rule: rule.into(), hint: None }
    }
}

impl Policy {
    pub fn new(mode: Mode) -> Result<Self, RuleError> {
        let preset = if mode == Mode::Packages { packages()? } else { &[] };
        Ok(Self {
            mode,
            allow: Vec::new(),
            deny: Vec::new(),
            private: Vec::new(),
            proxies: Vec::new(),
            inject: Vec::new(),
            preset,
            authority: None,
        })
    }

    /// From JSON, as it is serialized.
    pub fn from_json(text: &[u8]) -> Result<Self, RuleError> {
        serde_json::from_slice(text).map_err(|error| RuleError::Document { why: error.to_string() })
    }

    /// Refuses a rule that would open what anybody can register, or that could never open anything.
    pub fn allow(&mut self, rule: Rule) -> Result<(), RuleError> {
        rule.check_allow()?;
        self.allow.push(rule);
        Ok(())
    }

    pub fn deny(&mut self, rule: Rule) -> Result<(), RuleError> {
        rule.check_deny()?;
        self.deny.push(rule);
        Ok(())
    }

    /// Opens one host and port that may be private, the host itself among them.
    pub fn allow_private(&mut self, private: Private) {
        self.private.push(private);
    }

    /// As `allow_private`, for a proxy of the host's own configuration: what it is asked for is its to decide.
    pub fn allow_proxy(&mut self, proxy: Private) {
        self.private.push(proxy.clone());
        self.proxies.push(proxy);
    }

    /// Whether what is there may be asked for other hosts than itself.
    #[must_use]
    pub fn is_proxy(&self, host: &Host, port: u16) -> bool {
        self.proxies.iter().any(|proxy| proxy.is_at(host, port))
    }

    /// The authority of the sandbox that the policy is for, made now if requests are looked into; so they may be while
    /// it is set up.
    pub fn take_authority(&mut self, setup: Option<&mut Self>) -> Result<Option<&Arc<Authority>>, super::NetError> {
        let inspects = self.inspects_any() || setup.as_ref().is_some_and(|setup| setup.inspects_any());
        if self.authority.is_none() && inspects {
            self.authority = Some(Arc::new(Authority::new()?));
        }
        if let Some(setup) = setup {
            setup.authority.clone_from(&self.authority);
        }
        Ok(self.authority.as_ref())
    }

    pub(super) fn authority(&self) -> Option<&Arc<Authority>> {
        self.authority.as_ref()
    }

    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether a program may know that `name` exists: whether there is a port on which it may be reached.
    pub fn check_name(&self, name: &Name) -> Result<(), Refusal> {
        if let Some(rule) = self.deny.iter().find(|rule| rule.port().is_none() && rule.is_about(name)) {
            return Err(denied(rule));
        }
        let listed = self.allowing().any(|rule| rule.is_about(name))
            || self.private.iter().any(|private| private.is(name, private.port));
        if listed || self.mode.allows_any() {
            return Ok(());
        }
        Err(self.not_allowed(format!("--allow {name}")))
    }

    /// Whether `host` may be reached on `port`, as far as can be told before it is resolved.
    pub fn check(&self, host: &Host, port: u16) -> Result<(), Refusal> {
        let about = |rule: &&Rule| match host {
            Host::Name(name) => rule.is_about(name),
            Host::Address(address) => rule.covers(*address),
        };
        let on_port = |rule: &Rule| rule.is_on(port);
        if let Some(rule) = self.deny.iter().filter(about).find(|rule| on_port(rule)) {
            return Err(denied(rule));
        }
        if self.opens_private(host, port) {
            return Ok(());
        }
        if let Host::Address(address) = host
            && let Some(what) = address::special(*address)
        {
            return Err(special(what, Some(format!("{host}:{port}"))));
        }
        let named = |rule: &Rule| rule.port() == Some(port) || (rule.port().is_none() && !MAIL.contains(&port));
        let mut rules = self.allowing().filter(about);
        if self.mode.allows(port) || rules.any(named) {
            return Ok(());
        }
        let other_ports = self.mode.allows_any() || self.allowing().any(|rule| about(&rule));
        let hint = match host {
            _ if other_ports || MAIL.contains(&port) => format!("--allow {host}:{port}"),
            Host::Address(address) => format!("--allow {address}"),
            Host::Name(name) => format!("--allow {name}"),
        };
        Err(self.not_allowed(hint))
    }

    /// What it is that lets `host` be reached on `port`, or its name be known.
    pub fn allowed_by(&self, host: &Host, port: Option<u16>) -> String {
        let about = |rule: &&Rule| match host {
            Host::Name(name) => rule.is_about(name),
            Host::Address(address) => rule.covers(*address),
        };
        let on_port = |rule: &&Rule| port.is_none() || rule.port().is_none_or(|own| Some(own) == port);
        if let Some(rule) = self.allow.iter().filter(about).find(on_port) {
            return format!("--allow {rule}");
        }
        let opens = |private: &&Private| match host {
            Host::Name(name) => private.is(name, port.unwrap_or(private.port)),
            Host::Address(_) => private.host == *host && port.is_none_or(|port| port == private.port),
        };
        match self.private.iter().find(opens) {
            Some(private) => format!("--allow-private {private}"),
            None => format!("--net {}", self.mode),
        }
    }

    /// Whether `address`, to which `host` resolved, may be dialled. `own`: it is one of the host's.
    pub fn check_address(&self, host: &Host, port: u16, address: IpAddr, own: bool) -> Result<(), Refusal> {
        let on_port = |rule: &&Rule| rule.is_on(port);
        if let Some(rule) = self.deny.iter().filter(on_port).find(|rule| rule.covers(address)) {
            return Err(denied(rule));
        }
        let Some(what) = address::special(address).or(own.then_some(Special::Own)) else { return Ok(()) };
        let by_address = Host::Address(address);
        let opened = match host {
            // `localhost` is all of the host's loopback addresses; one that was named is that one, as below.
            Host::Name(name) => what.opens_by_name() && self.private.iter().any(|private| private.is_named(name, port)),
            Host::Address(_) => false,
        };
        if opened || self.opens_private(&by_address, port) {
            return Ok(());
        }
        Err(special(
            what,
            match host {
                Host::Name(name) if what.opens_by_name() => Some(format!("{name}:{port}")),
                Host::Name(_) => None,
                Host::Address(_) => Some(format!("{by_address}:{port}")),
            },
        ))
    }

    /// Whether UDP gets out at all.
    #[must_use]
    pub fn passes_udp(&self) -> bool {
        self.mode == Mode::Open
    }

    /// Whether `host` may be sent UDP: as by TCP, but for what is looked into there. Nobody reads here which name a server
    /// is asked for.
    pub fn check_udp(&self, host: &Host, port: u16) -> Result<(), Refusal> {
        self.check(host, port)?;
        if !self.passes_udp() {
            return Err(Refusal { rule: format!("--net {}: no UDP", self.mode), hint: Some("--net open".to_owned()) });
        }
        if self.denies_by_name(port) {
            return Err(Refusal::new("a --deny is about names, and in UDP none is read"));
        }
        if matches!(host, Host::Address(_)) && self.denies_names(port) {
            return Err(Refusal::new("rules are about requests to a name, and in UDP none is read"));
        }
        if let Host::Name(name) = host
            && (self.allow.iter().any(|rule| rule.requests().is_some() && rule.is_about(name))
                || self.inject.iter().any(|injection| injection.name == *name))
        {
            return Err(Refusal::new("rules are about its requests, and in UDP none is read"));
        }
        Ok(())
    }

    /// Whether there is a name that the server at some address must not be asked for on `port`.
    pub fn denies_names(&self, port: u16) -> bool {
        let limits = |rule: &Rule| rule.requests().is_some() && rule.is_on(port);
        self.denies_by_name(port) || self.allow.iter().any(limits)
    }

    fn denies_by_name(&self, port: u16) -> bool {
        self.deny.iter().any(|rule| rule.is_by_name() && rule.is_on(port))
    }

    /// Whether the server at an address may be asked for `name`.
    pub fn check_asked(&self, name: &Name, port: u16) -> Result<(), Refusal> {
        let on_port = |rule: &&Rule| rule.is_on(port);
        match self.deny.iter().filter(on_port).find(|rule| rule.is_about(name)) {
            Some(rule) => Err(denied(rule)),
            None if self.limited(name, port).next().is_some() => {
                Err(Refusal::new("rules are about requests to that name, and it was not connected to by name"))
            }
            None => Ok(()),
        }
    }

    fn allowing(&self) -> impl Iterator<Item = &Rule> {
        self.allow.iter().chain(self.preset)
    }

    fn opens_private(&self, host: &Host, port: u16) -> bool {
        self.private.iter().any(|private| private.is_at(host, port))
    }

    fn not_allowed(&self, hint: String) -> Refusal {
        Refusal { rule: format!("--net {}", self.mode), hint: Some(hint) }
    }
}

impl Private {
    fn is_at(&self, host: &Host, port: u16) -> bool {
        match host {
            Host::Name(name) => self.is(name, port),
            Host::Address(_) => self.port == port && self.host == *host,
        }
    }

    fn is(&self, name: &Name, port: u16) -> bool {
        // 127.0.0.1:5432 of the host, by the name that the host has inside.
        let by_address = self.host == Host::Address(Ipv4Addr::LOCALHOST.into()) && name.as_str() == HOST_NAME;
        self.is_named(name, port) || (self.port == port && by_address)
    }

    fn is_named(&self, name: &Name, port: u16) -> bool {
        let Host::Name(own) = &self.host else { return false };
        self.port == port && (own == name || (own.as_str() == LOCALHOST && name.as_str() == HOST_NAME))
    }
}

fn denied(rule: &Rule) -> Refusal {
    Refusal::new(format!("--deny {rule}"))
}

fn special(what: Special, opens: Option<String>) -> Refusal {
    Refusal { rule: what.to_string(), hint: opens.map(|target| format!("--allow-private {target}")) }
}

impl TryFrom<Document> for Policy {
    type Error = RuleError;

    fn try_from(document: Document) -> Result<Self, RuleError> {
        let mut policy = Self::new(document.mode)?;
        for rule in document.allow {
            policy.allow(rule)?;
        }
        document.deny.into_iter().try_for_each(|rule| policy.deny(rule))?;
        policy.private = document.allow_private;
        Ok(policy)
    }
}

impl From<Policy> for Document {
    fn from(policy: Policy) -> Self {
        Self { mode: policy.mode, allow: policy.allow, deny: policy.deny, allow_private: policy.private }
    }
}

#[cfg(test)]
mod tests;
