//! `run --image`.
