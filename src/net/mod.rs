//! The network of a sandbox: what it may reach, and the way there.
pub mod policy;
