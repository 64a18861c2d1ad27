//! URLs without the user and password in them: what a package runs when it is installed could read those, and send them
//! away.

/// A value of one or more URLs, or what stands in their place (`host:port` is a proxy, too), without users. `None` where
/// it cannot be told what of it is a password: one that is not encoded may have any character.
pub fn bare(value: &str) -> Option<String> {
    // Most have none, and are told as they are.
    if !value.contains('@') {
        return Some(value.to_owned());
    }
    let words = value.split_whitespace().map(without_user).collect::<Option<Vec<_>>>()?;
    Some(words.join(" "))
}

fn without_user(word: &str) -> Option<String> {
    let (scheme, rest) = word.find("://").map_or(("", word), |at| word.split_at(at + 3));
    let (authority, path) = rest.split_at(rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    (!path.contains('@')).then(|| format!("{scheme}{host}{path}"))
}

/// Whether a package is named by a URL with a user in it: it would be in the image's history, too. That of Git's hosts is
/// the same for all.
pub fn names_user(package: &str) -> bool {
    package.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user != "git")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_is_passed_on() {
        for (value, wanted) in [
            ("https://u:p@host:1/simple", Some("https://host:1/simple")),
            ("https://token@host", Some("https://host")),
            ("https://u:p@w@host/x", Some("https://host/x")),
            ("u:p@proxy:3128", Some("proxy:3128")),
            ("socks5h://u:p@proxy", Some("socks5h://proxy")),
            ("http:u:p@proxy", Some("proxy")),
            ("https://a/  https://u:p@b/?x", Some("https://a/ https://b/?x")),
            ("https://a/simple", Some("https://a/simple")),
            ("a, b", Some("a, b")),
            ("https://u:p/w@host/", None),
            ("https://u:p#w@host/", None),
            ("https:/u:p@host/", None),
            ("https://u:p@h/@w", None),
        ] {
            assert_eq!(bare(value).as_deref(), wanted, "{value}");
        }
    }

    #[test]
    fn a_package_with_a_user() {
        for bad in ["x@https://u:p@h/x.whl", "git+https://token@h/x", "https://u:@h/x", "git+ssh://git:p@h/x"] {
            assert!(names_user(bad), "{bad}");
        }
        for fine in ["@s/x@1.0", "x[y]==1", "git+ssh://git@h/x", "git+https://h/x@main", "x@https://h/x.whl"] {
            assert!(!names_user(fine), "{fine}");
        }
    }
}
