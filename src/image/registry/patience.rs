//! Trying again what may pass.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use super::{answer::LONGEST_WAIT, error::RegistryError};
use crate::image::ImageError;

const FIRST_WAIT: Duration = Duration::from_millis(500);

/// How often one more try is in order.
#[derive(Debug)]
pub struct Patience {
    retries: u32,
    left: u32,
}

impl Patience {
    #[must_use]
    pub fn new(retries: u32) -> Self {
        Self { retries, left: retries }
    }

    /// It went on in between.
    pub fn renew(&mut self) {
        self.left = self.retries;
    }

    /// Waits for the next try, or says that there is none.
    pub fn wait(&mut self, error: ImageError) -> Result<(), ImageError> {
        let again = match &error {
            ImageError::Registry(error) if error.may_pass() && self.left > 0 => error.after(),
            _ => return Err(error),
        };
        let doubled = FIRST_WAIT * 2_u32.saturating_pow((self.retries - self.left).min(10));
        self.left -= 1;
        // Many that were thrown out at once do not come back at once.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let jitter = Duration::from_millis(u64::from(now.subsec_nanos() % 250));
        thread::sleep((again.unwrap_or(doubled) + jitter).min(LONGEST_WAIT));
        Ok(())
    }
}

/// Does it until it is done or must be given up.
pub fn patiently<T, E: Into<ImageError>>(
    retries: u32,
    mut work: impl FnMut() -> Result<T, E>,
) -> Result<T, ImageError> {
    let mut patience = Patience::new(retries);
    loop {
        match work() {
            Ok(done) => return Ok(done),
            Err(error) => patience.wait(error.into())?,
        }
    }
}

impl From<RegistryError> for ImageError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}
