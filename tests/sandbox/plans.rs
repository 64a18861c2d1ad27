//! Golden plans: what a few fixed requests come to, step by step. `FUMEHOOD_BLESS=1` writes them anew.
//!
//! What differs from host to host (its /etc and /opt, its kernel's Landlock, ids) is taken out before they are compared.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::common::{Run, Who};
