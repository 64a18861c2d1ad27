//! What happened, as typed data, and as the JSON that DESIGN.md §4 fixes.
//!
//! Everything here is pure but for [`Events`], which writes to what it is given. All bytes that come
//! from inside are hostile: they are capped ([`Capture`], [`Denials`]), rid of secrets ([`Mask`]), and
//! reach a line of JSON only through the serialiser. The last stage: `launch` fills it in, the command
//! line and the library's callers read it.

mod controls;
mod denials;
mod events;
pub(crate) mod json;
mod mask;
mod outcome;
mod stream;
mod text;
mod verdict;

pub use controls::{Capabilities, Cgroup, Controls, IdMap, LandlockScope, Means, Network, Rootfs};
pub use denials::{Denial, DenialKind, Denials};
pub use events::{Events, Stream};
pub use mask::{Mask, Tail};
pub use outcome::{Compile, Failure, FailureKind, Isolation, Kept, Outcome, ProducedFile, Usage};
pub use stream::{Capture, Captured};
pub use verdict::{Ending, Reason, Verdict, WaitStatus};
