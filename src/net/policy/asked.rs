//! What a policy says of requests: which may be made, what they are given, and what must not come back.

use zeroize::Zeroizing;

use super::{Asked, Granted, Header, Host, Injection, Name, Policy, Refusal, Rule, RuleError, path};

impl Policy {
    /// Adds a header to requests, and allows them where no rule does: to be called after all rules.
    pub fn inject(&mut self, injection: Injection) -> Result<(), RuleError> {
        if !self.allow.iter().any(|rule| rule.is_about(&injection.name) && rule.is_on(injection.port)) {
            self.allow(injection.rule()?)?;
        }
        self.inject.push(injection);
        Ok(())
    }

    /// Whether there are headers with values that are not written.
    #[cfg(feature = "fuzzing")]
    pub(in crate::net) fn has_secrets(&self) -> bool {
        self.allow.iter().filter_map(Rule::requests).any(|requests| !requests.add.is_empty())
    }

    /// Whether there is a name whose requests are looked into.
    #[must_use]
    pub fn inspects_any(&self) -> bool {
        !self.inject.is_empty() || self.allow.iter().any(|rule| rule.requests().is_some())
    }

    /// Whether requests to this name are looked into: there is a rule that is for some of them, or adds to them. It then
    /// holds also where a wider rule or the mode allows all of them.
    #[must_use]
    pub fn inspects(&self, host: &Host, port: u16) -> bool {
        let Host::Name(name) = host else { return false };
        self.limited(name, port).next().is_some() || self.injected(name, port).next().is_some()
    }

    /// Whether a request may be made; what it is given, and its path as it is to be sent.
    pub fn check_request(
        &self,
        name: &Name,
        port: u16,
        secure: bool,
        method: &str,
        target: &str,
    ) -> Result<Granted, Refusal> {
        let limited = || self.limited(name, port).filter_map(|rule| Some((rule, rule.requests()?)));
        let path = if limited().any(|(_, requests)| !requests.paths.is_empty()) {
            Some(path::normal(target).map_err(Refusal::new)?)
        } else {
            None
        };
        let asked = Asked { secure, method, target, path: path.as_deref() };
        let fitting = || limited().filter(|(_, requests)| requests.fit(&asked));
        if fitting().next().is_none() && limited().next().is_some() {
            let scheme = if secure { "https" } else { "http" };
            let shown: String = target.split('?').next().unwrap_or_default().chars().take(200).collect();
            return Err(Refusal {
                rule: format!("only --allow {}", limited().map(|(rule, _)| rule.text()).collect::<Vec<_>>().join(", ")),
                hint: may_be_quoted(method, &shown)
                    .then(|| format!("--allow '{method} {scheme}://{name}:{port}{shown}'")),
            });
        }
        let mut add: Vec<Header> = fitting().flat_map(|(_, requests)| requests.add.iter().cloned()).collect();
        if secure {
            add.extend(self.injected(name, port).cloned());
        }
        let by_method = limited().any(|(_, requests)| !requests.methods.is_empty());
        let target = path.map(|path| match target.split_once('?') {
            Some((_, query)) => format!("{path}?{query}"),
            None => path,
        });
        Ok(Granted { add, target, by_method })
    }

    /// What must not come back from `name`, whatever was asked.
    pub(in crate::net) fn secrets(&self, name: &Name) -> Vec<Zeroizing<Vec<u8>>> {
        let by_rule = self.allow.iter().filter(|rule| rule.is_about(name)).filter_map(Rule::requests);
        let by_name = self.inject.iter().filter(|injection| injection.name == *name);
        let headers = by_rule.flat_map(|requests| &requests.add).chain(by_name.map(|injection| &injection.header));
        headers.flat_map(Header::secrets).cloned().collect()
    }

    pub(super) fn limited(&self, name: &Name, port: u16) -> impl Iterator<Item = &Rule> {
        let limits = move |rule: &&Rule| rule.requests().is_some() && rule.is_on(port) && rule.is_about(name);
        self.allow.iter().filter(limits)
    }

    fn injected(&self, name: &Name, port: u16) -> impl Iterator<Item = &Header> {
        let about = move |injection: &&Injection| injection.port == port && injection.name == *name;
        self.inject.iter().filter(about).map(|injection| &injection.header)
    }
}

/// Whether a person may copy it to a shell: both are what the program says.
fn may_be_quoted(method: &str, path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._~%-".contains(&byte);
    method.bytes().chain(path.bytes()).all(plain)
}
