//! OCI images: fetched, kept, unpacked, made (image-spec 1.1). All of an image is hostile, its names too.

pub mod bundle;
pub mod digest;
mod error;
pub mod export;
pub mod import;
mod kept;
pub mod manifest;
mod ready;
pub mod reference;
pub mod registry;
pub mod store;
pub mod unpack;
mod users;

pub use error::ImageError;
pub use kept::{Image, prune};
pub use ready::{Ready, resolve};
pub use reference::Reference;
pub use store::Store;
