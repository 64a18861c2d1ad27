//! A bar on standard error for what takes longer than a second, where somebody looks: on a terminal.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bytes on their way. It may be told of them from any thread.
#[derive(Debug)]
pub struct Progress(ProgressBar);

const EVERY: Duration = Duration::from_millis(100);

const TOTAL_KNOWN: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

impl Progress {
    /// `total` where it is known.
    #[must_use]
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let style = match total {
            Some(_) => TOTAL_KNOWN,
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(EVERY);
        Self(bar)
    }

    /// How many there will be, once that is known.
    pub fn total(&self, bytes: u64) {
        self.0.set_length(bytes);
        if let Ok(style) = ProgressStyle::with_template(TOTAL_KNOWN) {
            self.0.set_style(style);
        }
    }

    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
