//! What a batch came to: counts and times, in bounded memory however many jobs there are.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    expect::{verdict_number, verdict_of},
    together::Together,
};
use crate::Verdict;

/// A day; what takes longer is counted as that.
const LONGEST: u64 = 86_400_000_000;

#[derive(Debug, Clone)]
pub struct Summary {
    counts: [u64; 11],
    /// With an expectation that was met, and that was not.
    pub passed: u64,
    pub unmet: u64,
    /// Passed, or, where nothing was expected, ended with `ok`.
    pub good: u64,
    /// Done by an earlier run.
    pub resumed: u64,
    /// Microseconds from request to end; none if there is no memory for it.
    times: Option<Histogram<u64>>,
    began: Instant,
    wall: Option<Duration>,
    /// The signal that ended it before its time.
    pub interrupted: Option<i32>,
    /// Whether it ended at the first job that was not good.
    pub stopped: bool,
    /// What its jobs could use together; none where there was nothing to run yet.
    pub together: Option<Together>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            counts: [0; 11],
            passed: 0,
            unmet: 0,
            good: 0,
            resumed: 0,
            times: Histogram::new_with_bounds(1, LONGEST, 2).ok(),
            began: Instant::now(),
            wall: None,
            interrupted: None,
            stopped: false,
            together: None,
        }
    }
}

impl Summary {
    pub(super) fn add(&mut self, verdict: Verdict, passed: Option<bool>, good: bool, took: Duration) {
        self.counts[usize::from(verdict_number(verdict))] += 1;
        match passed {
            Some(true) => self.passed += 1,
            Some(false) => self.unmet += 1,
            None => {}
        }
        self.good += u64::from(good);
        if let Some(times) = &mut self.times {
            times.saturating_record(took.as_micros().try_into().unwrap_or(LONGEST));
        }
    }

    pub(super) fn end(&mut self) {
        self.wall = Some(self.began.elapsed());
    }

    /// All results, those of an earlier run among them.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        self.counts.iter().sum()
    }

    #[must_use]
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.counts[usize::from(verdict_number(verdict))]
    }

    /// Verdicts that came, and how often.
    pub fn verdicts(&self) -> impl Iterator<Item = (Verdict, u64)> + '_ {
        (0..).zip(self.counts).filter(|(_, count)| *count > 0).map(|(number, count)| (verdict_of(number), count))
    }

    /// Whether all jobs were done, and were good.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.good == self.jobs() && self.interrupted.is_none()
    }

    #[must_use]
    pub fn wall(&self) -> Duration {
        self.wall.unwrap_or_else(|| self.began.elapsed())
    }

    /// Jobs that this run did in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        (self.jobs() - self.resumed) as f64 / self.wall().as_secs_f64().max(1e-6)
    }

    /// The time that this share of the jobs (0 to 1) took at most, from request to end.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let times = self.times.as_ref().filter(|times| !times.is_empty())?;
        Some(Duration::from_micros(times.value_at_quantile(share)))
    }
}

struct Counts<'a>(&'a Summary);

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.counts.len()))?;
        for (number, count) in (0..).zip(self.0.counts) {
            map.serialize_entry(verdict_of(number).as_str(), &count)?;
        }
        map.end()
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = |share| self.quantile(share).map(|time| time.as_micros() as f64 / 1000.0);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("jobs", &self.jobs())?;
        map.serialize_entry("verdicts", &Counts(self))?;
        map.serialize_entry("passed", &self.passed)?;
        map.serialize_entry("not_passed", &self.unmet)?;
        map.serialize_entry("good", &self.good)?;
        map.serialize_entry("resumed", &self.resumed)?;
        map.serialize_entry("p50_ms", &millis(0.5))?;
        map.serialize_entry("p95_ms", &millis(0.95))?;
        map.serialize_entry("p99_ms", &millis(0.99))?;
        map.serialize_entry("per_second", &((self.per_second() * 1000.0).round() / 1000.0))?;
        map.serialize_entry("wall_ms", &(self.wall().as_micros() as f64 / 1000.0))?;
        map.serialize_entry("interrupted", &self.interrupted)?;
        map.serialize_entry("stopped", &self.stopped)?;
        map.serialize_entry("together", &self.together)?;
        map.end()
    }
}
