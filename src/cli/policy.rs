//! The words of a network's policy, as `run` and `net set` take them: a mode or a JSON file, rules or lists of them.

use std::path::Path;

use fumehood::{
    Error, Result,
    error::Hint,
    net::policy::{Injection, LISTS, Mode, Policy, Private, Rule, RuleError},
    request::{Bytes, Network, files},
};

use super::usage::UsageError;

/// What a file of rules may hold.
const LARGEST: Bytes = Bytes::mib(4);

/// Before the name of a file, or of a list that comes with fumehood.
const FILE: char = '@';

/// How much network was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    None,
    Gateway(Box<Policy>),
    Host,
}

impl NetworkMode {
    /// A mode, or `@FILE` with a whole policy.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix(FILE) {
            return document(Path::new(path)).map(|policy| Self::Gateway(Box::new(policy)));
        }
        match (text, text.parse::<Mode>()) {
            ("none", _) => Ok(Self::None),
            ("host", _) => Ok(Self::Host),
            (_, Ok(mode)) => Policy::new(mode).map(|policy| Self::Gateway(Box::new(policy))).map_err(Hint::into_error),
            _ => Err(UsageError::Network { mode: text.to_owned() }.into_error()),
        }
    }
}

/// A rule, or those of `@FILE` or `@LIST`.
pub fn rules(text: &str) -> Result<Vec<Rule>> {
    let Some(name) = text.strip_prefix(FILE) else {
        return text.parse().map(|rule| vec![rule]).map_err(|error: RuleError| error.into_error());
    };
    if let Some((_, list)) = LISTS.iter().find(|(list, _)| *list == name) {
        return Rule::list(list).map_err(Hint::into_error);
    }
    let path = Path::new(name);
    Rule::list(&read(path)?).map_err(|error| in_file(path, &error.into_error()))
}

/// What rules are given, over what a mode allows.
#[derive(Debug, Default)]
pub struct Words {
    pub mode: Option<NetworkMode>,
    pub allow: Vec<Rule>,
    pub deny: Vec<Rule>,
    pub allow_private: Vec<Private>,
    pub inject: Vec<Injection>,
}

impl Words {
    /// Rules are for a gateway, which need not be asked for besides.
    pub fn network(self) -> Result<Network, UsageError> {
        let ruled = [
            ("allow", !self.allow.is_empty()),
            ("deny", !self.deny.is_empty()),
            ("allow-private", !self.allow_private.is_empty()),
            ("inject", !self.inject.is_empty()),
        ];
        let ruled = ruled.into_iter().find_map(|(flag, given)| given.then_some(flag));
        let mut policy = match (self.mode, ruled) {
            (None | Some(NetworkMode::None), None) => return Ok(Network::None),
            (Some(NetworkMode::Host), None) => return Ok(Network::Host),
            (Some(NetworkMode::None), Some(flag)) => return Err(UsageError::NeedsGateway { flag, mode: "none" }),
            (Some(NetworkMode::Host), Some(flag)) => return Err(UsageError::NeedsGateway { flag, mode: "host" }),
            (Some(NetworkMode::Gateway(policy)), _) => policy,
            (None, Some(_)) => Box::new(Policy::new(Mode::Filtered)?),
        };
        self.allow.into_iter().try_for_each(|rule| policy.allow(rule))?;
        self.deny.into_iter().try_for_each(|rule| policy.deny(rule))?;
        self.allow_private.into_iter().for_each(|private| policy.allow_private(private));
        self.inject.into_iter().try_for_each(|injection| policy.inject(injection))?;
        Ok(Network::Gateway(policy))
    }
}

fn document(path: &Path) -> Result<Policy> {
    let text = read(path)?;
    Policy::from_json(text.as_bytes()).map_err(|error| in_file(path, &error.into_error()))
}

fn read(path: &Path) -> Result<String> {
    let (bytes, _) = files::read(path, LARGEST).map_err(|error| match error.into_error() {
        error if error.hint().is_none() && !path.exists() => error.with_hint(format!(
            "after {FILE} comes a file, or for --allow and --deny one of the lists: {}",
            LISTS.map(|(name, _)| name).join(", ")
        )),
        error => error,
    })?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::new(format!("`{}` is not text", path.display())))
}

fn in_file(path: &Path, error: &Error) -> Error {
    let named = Error::new(format!("`{}`: {}", path.display(), error.message()));
    match error.hint() {
        Some(hint) => named.with_hint(hint),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_comes_along_is_named_as_a_file_is() {
        assert!(rules("@packages").unwrap().len() > 40);
        assert_eq!(rules("a.example").unwrap().len(), 1);
        let error = rules("@nonexistent").unwrap_err();
        assert!(error.message().contains("nonexistent") && error.hint().unwrap().contains("packages"), "{error:?}");
    }

    #[test]
    fn rules_are_over_what_a_file_says() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"mode": "web", "allow": ["a.example:22"]}"#).unwrap();
        let mode = NetworkMode::parse(&format!("@{}", file.path().display())).unwrap();
        let words = Words { mode: Some(mode), deny: rules("b.example").unwrap(), ..Words::default() };
        let Network::Gateway(policy) = words.network().unwrap() else { panic!() };
        let text = r#"{"mode":"web","allow":["a.example:22"],"deny":["b.example"]}"#;
        assert_eq!(serde_json::to_string(&policy).unwrap(), text);
        for (bad, why) in [("", "EOF"), (r#"{"mode":"host"}"#, "host"), (r#"{"allow":["*.com"]}"#, "*.com")] {
            std::fs::write(file.path(), bad).unwrap();
            let error = NetworkMode::parse(&format!("@{}", file.path().display())).unwrap_err();
            assert!(error.message().contains(why) && error.hint().is_some(), "{error:?}");
        }
    }
}
