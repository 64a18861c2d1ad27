//! What a sandbox may reach before any rule is looked at.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Ports by which mail is sent: open only where a rule names them.
pub(super) const MAIL: [u16; 3] = [25, 465, 587];
const WEB: [u16; 2] = [80, 443];

/// What is allowed before any rule is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing but what rules allow.
    #[default]
    Filtered,
    /// Also what [`super::PACKAGES`] lists.
    Packages,
    /// Any public host on ports 80 and 443.
    Web,
    /// Any public host, any port but those of mail.
    Public,
    /// As `Public`, and UDP.
    Open,
}

impl Mode {
    pub const ALL: [Self; 5] = [Self::Filtered, Self::Packages, Self::Web, Self::Public, Self::Open];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Packages => "packages",
            Self::Web => "web",
            Self::Public => "public",
            Self::Open => "open",
        }
    }

    /// Whether it alone lets a public host be reached there.
    pub(super) fn allows(self, port: u16) -> bool {
        match self {
            Self::Filtered | Self::Packages => false,
            Self::Web => WEB.contains(&port),
            Self::Public | Self::Open => !MAIL.contains(&port),
        }
    }

    pub(super) fn allows_any(self) -> bool {
        matches!(self, Self::Web | Self::Public | Self::Open)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(())
    }
}
