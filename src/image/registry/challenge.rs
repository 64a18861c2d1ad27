//! What a registry asks for before it answers: `WWW-Authenticate` (RFC 9110 §11.6.1; distribution's token
//! authentication).

use http_auth::ChallengeParser;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// No registry needs more to say where its tokens are.
const LONGEST: usize = 8 << 10;

/// The first challenge that can be answered, Bearer before Basic. Headers that are none say nothing.
#[must_use]
pub fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers.into_iter().filter(|header| header.len() <= LONGEST) {
        for challenge in ChallengeParser::new(header).map_while(Result::ok) {
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
            if !challenge.scheme.eq_ignore_ascii_case("bearer") {
                continue;
            }
            let value = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
            };
            if let Some(realm) = value("realm") {
                return Some(Challenge::Bearer { realm, service: value("service"), scope: value("scope") });
            }
        }
    }
    basic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_can_be_answered_is_chosen() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let wanted = Challenge::Bearer {
            realm: "https://auth.docker.io/token".to_owned(),
            service: Some("registry.docker.io".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(choose([hub]), Some(wanted.clone()));
        assert_eq!(choose(["Basic realm=\"x\"", hub]), Some(wanted.clone()));
        assert_eq!(choose([format!("Basic realm=\"x\", {hub}").as_str()]), Some(wanted));
        assert_eq!(choose(["basic realm=x"]), Some(Challenge::Basic));
        for text in ["", "Bearer", "Bearer service=\"x\"", "Negotiate", "Digest realm=\"x\"", "\"", "Bearer realm=\""] {
            assert_eq!(choose([text]), None, "{text}");
        }
    }
}
