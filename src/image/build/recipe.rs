//! A recipe: what an image is made of, as a person writes it (TOML). Parsing is construction: what is a [`Recipe`] can be
//! begun with, and what is none is told with its line.

mod words;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use toml::Spanned;

pub use self::words::{Inside, Name, Package, Plain, Port, Variable};
use self::words::{OfDebian, Platform};
use super::Mirror;
use crate::{
    error::Hint,
    image::{Reference, manifest::Wanted},
    request::mounts::inside_path,
};

/// What can be made is all in here; whatever else is written is an error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// What the image is called, unless `--tag` says otherwise.
    pub name: Option<Name>,
    pub description: Option<String>,
    pub base: Base,
    platform: Option<Platform>,
    /// Of debian:SUITE.
    variant: Option<Spanned<Variant>>,
    mirror: Option<Spanned<Mirror>>,
    docs: Option<Spanned<bool>>,
    /// Of scratch: programs of this host by name, and absolute paths.
    host: Option<Spanned<Vec<Plain>>>,
    #[serde(default)]
    packages: Packages,
    #[serde(default)]
    pub files: Vec<Given>,
    setup: Option<String>,
    network: Option<Spanned<Access>>,
    #[serde(default)]
    pub env: BTreeMap<Variable, Plain>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub workdir: Option<Inside>,
    pub user: Option<Plain>,
    #[serde(default)]
    pub volumes: Vec<Inside>,
    #[serde(default)]
    pub expose: Vec<Port>,
    pub stop_signal: Option<Plain>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Packages {
    apt: Option<Spanned<Vec<OfDebian>>>,
    #[serde(default)]
    pip: Vec<Package>,
    #[serde(default)]
    npm: Vec<Package>,
}

/// What everything else is put on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Base {
    Scratch,
    Debian { suite: String },
    Image(String),
}

/// How much of Debian (mmdebstrap(1), `--variant`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    Extract,
    Custom,
    Essential,
    Apt,
    #[default]
    Minbase,
    Important,
    Standard,
}

/// What network the setup script has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    #[default]
    None,
    /// That of registries of packages.
    Packages,
    Host,
}

/// One `[[files]]`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Given {
    pub what: What,
    /// Absolute.
    pub to: PathBuf,
    /// As is usual, if it is not said.
    pub mode: Option<u32>,
    pub owner: (u32, u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file or a directory of the host, relative to the recipe.
    Host(PathBuf),
    Text(String),
    Link(PathBuf),
    Dir,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    from: Option<PathBuf>,
    text: Option<String>,
    link: Option<PathBuf>,
    to: PathBuf,
    mode: Option<String>,
    owner: Option<String>,
}

/// A part of debian:SUITE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Debian {
    pub suite: String,
    /// As images call it.
    pub architecture: String,
    pub variant: Variant,
    pub mirror: Option<String>,
    pub include: Vec<String>,
    pub docs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}:{line}: {why}")]
pub struct RecipeError {
    pub what: String,
    pub line: usize,
    pub why: String,
}

impl Hint for RecipeError {}

impl Recipe {
    /// `what` is the file's name, for errors.
    pub fn parse(text: &str, what: &str) -> Result<Self, RecipeError> {
        let failed = |at: Option<std::ops::Range<usize>>, why: String| {
            let before = text.get(..at.map_or(0, |span| span.start)).unwrap_or(text);
            RecipeError { what: what.to_owned(), line: 1 + before.matches('\n').count(), why }
        };
        let recipe: Self = toml::from_str(text)
            .map_err(|error| failed(error.span(), error.message().trim_end().replace('\n', ", ")))?;
        let (at, why) = match recipe.contradiction() {
            None => return Ok(recipe),
            Some(found) => found,
        };
        Err(failed(Some(at), why))
    }

    /// What is said of another base than the recipe's.
    fn contradiction(&self) -> Option<(std::ops::Range<usize>, String)> {
        let debian = matches!(self.base, Base::Debian { .. });
        let scratch = self.base == Base::Scratch;
        let spans = [
            ("variant", "debian:SUITE", debian, self.variant.as_ref().map(Spanned::span)),
            ("docs", "debian:SUITE", debian, self.docs.as_ref().map(Spanned::span)),
            ("host", "scratch", scratch, self.host.as_ref().map(Spanned::span)),
        ];
        for (key, base, fits, span) in spans {
            if let Some(span) = span.filter(|_| !fits) {
                return Some((span, format!("`{key}` is for base = \"{base}\" alone")));
            }
        }
        for (key, span) in [
            ("mirror", self.mirror.as_ref().map(Spanned::span)),
            ("packages.apt", self.packages.apt.as_ref().map(Spanned::span)),
        ] {
            if let Some(span) = span.filter(|_| scratch) {
                return Some((span, format!("`{key}` is for a base that has apt: debian:SUITE, or an image")));
            }
        }
        match &self.network {
            Some(network) if self.setup.is_none() => {
                Some((network.span(), "`network` is the setup script's, and there is none".to_owned()))
            }
            _ => None,
        }
    }

    #[must_use]
    pub fn debian(&self, mirror: Option<&Mirror>, architecture: &str) -> Option<Debian> {
        let Base::Debian { suite } = &self.base else { return None };
        Some(Debian {
            suite: suite.clone(),
            architecture: architecture.to_owned(),
            variant: self.variant.as_ref().map_or_else(Variant::default, |variant| *variant.get_ref()),
            mirror: self.mirror(mirror).map(str::to_owned),
            include: self.apt(),
            docs: self.docs.as_ref().is_some_and(|docs| *docs.get_ref()),
        })
    }

    /// `mirror` stands over the recipe's own.
    #[must_use]
    pub fn mirror<'a>(&'a self, mirror: Option<&'a Mirror>) -> Option<&'a str> {
        mirror.or(self.mirror.as_ref().map(Spanned::get_ref)).map(Mirror::as_str)
    }

    #[must_use]
    pub fn apt(&self) -> Vec<String> {
        let apt = self.packages.apt.iter().flat_map(|apt| apt.get_ref());
        let mut all: Vec<_> = apt.map(|package| package.0.clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[must_use]
    pub fn platform(&self) -> Option<Wanted> {
        self.platform.as_ref().map(|platform| platform.0.clone())
    }

    pub fn host(&self) -> impl Iterator<Item = &str> {
        self.host.iter().flat_map(|host| host.get_ref()).map(|plain| plain.0.as_str())
    }

    #[must_use]
    pub fn pip(&self) -> Vec<String> {
        words(&self.packages.pip)
    }

    #[must_use]
    pub fn npm(&self) -> Vec<String> {
        words(&self.packages.npm)
    }

    #[must_use]
    pub fn setup(&self) -> Option<(&str, Access)> {
        let network = self.network.as_ref().map_or_else(Access::default, |access| *access.get_ref());
        self.setup.as_deref().map(|script| (script, network))
    }
}

fn words(packages: &[Package]) -> Vec<String> {
    packages.iter().map(|package| package.0.clone()).collect()
}

impl TryFrom<String> for Base {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        match text.split_once(':') {
            _ if text == "scratch" => Ok(Self::Scratch),
            // Both are what images of registries are called, too: those have their registry before them.
            Some(("debian", suite)) if plain(suite) => Ok(Self::Debian { suite: suite.to_owned() }),
            Some(("debian", suite)) => Err(format!("`{suite}` is no suite of Debian, such as bookworm")),
            _ if text.parse::<Reference>().is_ok() => Ok(Self::Image(text)),
            _ => Err(format!("base `{text}` is neither scratch, debian:SUITE nor the name of an image")),
        }
    }
}

impl TryFrom<Written> for Given {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { from, text, link, to, mode, owner } = written;
        let shown = to.display().to_string();
        let what = match (from, text, link) {
            (Some(from), None, None) => What::Host(from),
            (None, Some(text), None) => What::Text(text),
            (None, None, Some(to)) => What::Link(to),
            (None, None, None) => What::Dir,
            _ => return Err(format!("`{shown}` has more than one of from, text and link")),
        };
        let path = inside_path(&to).filter(|to| to != Path::new("/"));
        let to = match (path, &what) {
            // A slash at its end says that it is a directory to put it in.
            (Some(dir), What::Host(from)) if shown.ends_with('/') => {
                let name = from.file_name().ok_or_else(|| format!("`{}` has no name of its own", from.display()))?;
                dir.join(name)
            }
            (None, What::Host(from)) if shown == "/" && from.file_name().is_some() => {
                Path::new("/").join(from.file_name().unwrap_or_default())
            }
            (Some(path), _) => path,
            (None, _) => return Err(format!("`{shown}` is no absolute path without `..`")),
        };
        let mode = match mode {
            None => None,
            Some(mode) => match u32::from_str_radix(mode.trim_start_matches("0o"), 8) {
                Ok(bits) if bits <= 0o7777 => Some(bits),
                _ => return Err(format!("mode `{mode}` is none: write it as \"755\"")),
            },
        };
        let owner = match &owner {
            None => (0, 0),
            Some(owner) => {
                let (user, group) = owner.split_once(':').unwrap_or((owner, owner));
                match (user.parse(), group.parse()) {
                    (Ok(user), Ok(group)) => (user, group),
                    _ => return Err(format!("owner `{owner}` is none: write it as \"1000:1000\"")),
                }
            }
        };
        Ok(Self { what, to, mode, owner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Recipe::parse(text, "r.toml").expect_err(text).to_string()
    }

    #[test]
    fn what_a_recipe_says() {
        let text = "name = \"mine:1\"\nbase = \"debian:bookworm\"\nvariant = \"essential\"\nsetup = \"true\"\n\
                    network = \"host\"\nexpose = [80, \"53/udp\"]\nvolumes = [\"/data\"]\n[packages]\napt = [\"b\", \"a\", \"b\"]\n\
                    pip = [\"httpx[http2]>=0.2\"]\nnpm = [\"@a/b@1\"]\n[env]\nA = \"1\"\n[[files]]\nfrom = \"x/y\"\nto = \"/etc/\"\n\
                    mode = \"600\"\nowner = \"1:2\"\n[[files]]\nto = \"/var/x\"\n[[files]]\nlink = \"../a\"\nto = \"/b/c\"\n";
        let recipe = Recipe::parse(text, "r").unwrap();
        assert_eq!(recipe.name.as_ref().unwrap().0.to_string(), "docker.io/library/mine:1");
        let debian = recipe.debian(Some(&Mirror::parse("http://m/").unwrap()), "amd64").unwrap();
        assert_eq!((debian.suite.as_str(), debian.variant, debian.docs), ("bookworm", Variant::Essential, false));
        assert_eq!(
            (debian.include, debian.mirror.as_deref()),
            (vec!["a".to_owned(), "b".to_owned()], Some("http://m/"))
        );
        assert_eq!(recipe.setup(), Some(("true", Access::Host)));
        assert_eq!((recipe.pip(), recipe.npm()), (vec!["httpx[http2]>=0.2".to_owned()], vec!["@a/b@1".to_owned()]));
        assert_eq!(recipe.expose, [Port("80/tcp".to_owned()), Port("53/udp".to_owned())]);
        let [file, dir, link] = recipe.files.as_slice() else { panic!("{:?}", recipe.files) };
        assert_eq!((file.to.as_path(), file.mode, file.owner), (Path::new("/etc/y"), Some(0o600), (1, 2)));
        assert_eq!((&dir.what, &link.what), (&What::Dir, &What::Link("../a".into())));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, part) in [
            ("base = \"scratch\"\nbsae = 1\n", 2, "unknown field `bsae`"),
            ("\n\nname = \"a b\"\nbase = \"scratch\"", 3, "a b"),
            ("name = \"a\"\n", 1, "missing field `base`"),
            ("base = \"debian:\"\n", 1, "no suite"),
            ("base = \"debian:Bookworm/x\"\n", 1, "no suite"),
            ("base = \"debian:--x\"\n", 1, "no suite"),
            ("base = \"debian:sid\"\nmirror = \"--setup-hook=id\"\n", 2, "no http://"),
            ("base = \"debian:sid\"\nmirror = \"file:///srv\"\n", 2, "no http://"),
            ("base = \"debian:sid\"\nmirror = \"http://u:p@m/\"\n", 2, "has a user"),
            ("base = \"debian:sid\"\n[packages]\napt = [\"a,b\"]\n", 3, "no package of Debian"),
            ("base = \"debian:sid\"\n[packages]\napt = [\"tmp/x.deb\"]\n", 3, "no package of Debian"),
            ("base = \"debian:sid\"\n[packages]\napt = [\"-o\"]\n", 3, "no package of Debian"),
            ("base = \"debian:sid\"\nplatform = \"linux/amd64,x\"\n", 2, "platform"),
            ("base = \"A B\"\n", 1, "neither scratch"),
            ("base = \"scratch\"\nvariant = \"apt\"\n", 2, "`variant` is for base = \"debian:SUITE\" alone"),
            ("base = \"scratch\"\n[packages]\napt = [\"a\"]\n", 3, "`packages.apt` is for"),
            ("base = \"scratch\"\n[packages]\npip = [\"a\",\n\"--index-url=x\"]\n", 3, "names no package"),
            ("base = \"scratch\"\n[packages]\nnpm = [\"https://u:p@h/x.tgz\"]\n", 3, "names no package"),
            ("base = \"debian:sid\"\nhost = [\"sh\"]\n", 2, "`host` is for base = \"scratch\" alone"),
            ("base = \"debian:sid\"\nvariant = \"tiny\"\n", 2, "unknown variant `tiny`"),
            ("base = \"scratch\"\nnetwork = \"host\"\n", 2, "`network` is the setup script's"),
            ("base = \"scratch\"\n[[files]]\nto = \"a\"\n", 2, "`a` is no absolute path"),
            ("base = \"scratch\"\n[[files]]\nto = \"/a/../b\"\n", 2, "no absolute path"),
            ("base = \"scratch\"\n[[files]]\nto = \"/a\"\nfrom = \"b\"\ntext = \"c\"\n", 2, "more than one"),
            ("base = \"scratch\"\n[[files]]\nto = \"/a\"\nmode = \"999\"\n", 2, "mode `999`"),
            ("base = \"scratch\"\nexpose = [0]\n", 2, "port `0`"),
            ("base = \"scratch\"\nworkdir = \"x\"\n", 2, "no absolute path"),
            ("base = \"scratch\"\n[env]\n\"A=B\" = \"\"\n", 3, "no variable's name"),
            ("base = \"scratch\"\nbase = \"scratch\"\n", 2, "duplicate key"),
            ("base = scratch\n", 1, ""),
        ] {
            let error = error(text);
            assert!(error.starts_with(&format!("r.toml:{line}: ")) && error.contains(part), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
