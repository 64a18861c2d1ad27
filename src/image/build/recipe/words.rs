//! What stands in a recipe as one text: each is checked when it is read.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    image::{Reference, manifest::Wanted},
    packages::names_user,
    request::mounts::inside_path,
};

/// Text that a command line or an environment can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain(pub String);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let fine = !text.contains('\0');
        fine.then_some(Self(text)).ok_or_else(|| D::Error::custom("it has a NUL"))
    }
}

/// A package as its manager takes it: no option, and no URL with a user in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package(pub String);

impl Package {
    /// `None` for what is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fine = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '@')
            && !text.contains(|c: char| c.is_control() || c.is_whitespace())
            && !names_user(text);
        fine.then(|| Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Package {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::new(&text).ok_or_else(|| D::Error::custom(format!("`{text}` names no package")))
    }
}

/// `NAME`, `NAME:ARCHITECTURE`, `NAME=VERSION`: not a pattern, a file or a list, as apt would take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfDebian(pub String);

impl<'de> Deserialize<'de> for OfDebian {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let fine = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.:=~".contains(&byte));
        fine.then(|| Self(text.clone())).ok_or_else(|| D::Error::custom(format!("`{text}` names no package of Debian")))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variable(pub String);

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let fine = !text.is_empty() && !text.contains(['=', '\0']);
        fine.then(|| Self(text.clone())).ok_or_else(|| D::Error::custom(format!("`{text}` is no variable's name")))
    }
}

/// An absolute path in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside(pub PathBuf);

impl<'de> Deserialize<'de> for Inside {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let path = inside_path(Path::new(&text));
        path.map(Self).ok_or_else(|| D::Error::custom(format!("`{text}` is no absolute path without `..`")))
    }
}

/// `8080` or `8080/udp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port(pub String);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u16),
            Text(String),
        }
        let text = match Written::deserialize(from) {
            Ok(Written::Number(number)) => number.to_string(),
            Ok(Written::Text(text)) => text,
            Err(_) => return Err(D::Error::custom("a port is 8080 or \"8080/udp\"")),
        };
        let (number, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        match number.parse::<u16>() {
            Ok(number) if number > 0 && ["tcp", "udp", "sctp"].contains(&protocol) => {
                Ok(Self(format!("{number}/{protocol}")))
            }
            _ => Err(D::Error::custom(format!("port `{text}` is none: write 8080 or \"8080/udp\""))),
        }
    }
}

/// `linux/amd64`.
#[derive(Debug)]
pub struct Platform(pub Wanted);

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wanted = Wanted::parse(&text).filter(|wanted| wanted.os == "linux");
        wanted.map(Self).ok_or_else(|| D::Error::custom(format!("platform `{text}` is none: write linux/amd64")))
    }
}

/// The name of an image.
#[derive(Debug, Clone)]
pub struct Name(pub Reference);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map(Self).map_err(D::Error::custom)
    }
}
