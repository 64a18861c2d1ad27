//! OCI images: fetched, kept, unpacked, made (image-spec 1.1). All of an image is hostile, its names too.

pub mod append;
pub mod build;
pub mod bundle;
pub mod change;
pub mod diff;
pub mod digest;
pub mod epoch;
mod error;
pub mod export;
pub mod import;
mod kept;
mod made;
pub mod manifest;
pub mod pack;
mod ready;
pub mod reference;
pub mod registry;
pub mod runs;
pub mod store;
pub mod unpack;
mod users;

pub use error::ImageError;
pub use kept::{Image, prune, unreadable};
pub use ready::{Ready, resolve};
pub use reference::Reference;
pub use store::Store;
