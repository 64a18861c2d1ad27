//! Packages of Debian on an image that has apt: a script for a sandbox in which root is that of a user namespace alone, with
//! the capabilities to give files away and a gateway for a network.

/// Where apt fetches to and writes of what it did: none of it is of the image.
const PLACE: &str = "/var/cache/fumehood";

/// Installs `packages`, which are names alone; from `mirror`, or as the image's own sources say.
pub fn script(packages: &str, mirror: Option<&str>) -> String {
    let sources = mirror.map_or_else(String::new, |mirror| {
        format!(
            r#"suite=$(. /etc/os-release && echo "${{VERSION_CODENAME:-}}")
if [ -z "$suite" ]; then echo "/etc/os-release names no VERSION_CODENAME, for which the mirror has packages" >&2; exit 1; fi
echo "deb {mirror} $suite main" > {PLACE}/sources.list
set -- "$@" -o Dir::Etc::SourceList={PLACE}/sources.list -o Dir::Etc::SourceParts=/dev/null
"#
        )
    });
    format!(
        r#"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
rm -rf {PLACE}
mkdir -p -m 755 {PLACE} {PLACE}/lists {PLACE}/archives {PLACE}/log
set -- -qq -o Dir::State::Lists={PLACE}/lists -o Dir::Cache={PLACE} -o Dir::Log={PLACE}/log \
    -o DPkg::Options::=--log={PLACE}/log/dpkg -o Acquire::Languages=none -o APT::Install-Recommends=false \
    -o DPkg::Use-Pty=0
if [ -e /fumehood/certificates.pem ]; then set -- "$@" -o Acquire::https::CAInfo=/fumehood/certificates.pem; fi
{sources}# Nothing is there that a service could serve.
policy=
if ! [ -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
fi
apt-get "$@" update
apt-get "$@" --yes install -- {packages}
# What is of the moment, or a copy.
rm -rf {PLACE} $policy /var/cache/ldconfig /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/alternatives.log
"#
    )
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn a_mirror_stands_in_place_of_the_images_sources() {
        let own = script("a b", None);
        assert!(own.contains("--yes install -- a b\n") && !own.contains("SourceList"), "{own}");
        let other = script("a", Some("http://m.example/debian"));
        assert!(other.contains("\necho \"deb http://m.example/debian $suite main\" > /var/cache/fumehood/"), "{other}");
        assert!(other.contains("-o Dir::Etc::SourceParts=/dev/null\n# Nothing"), "{other}");
    }
}
