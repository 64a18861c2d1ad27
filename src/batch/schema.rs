//! What a job and a result may be, as JSON Schema (draft 2020-12).

pub const JOB: &str = include_str!("schema/job.json");
pub const RESULT: &str = include_str!("schema/result.json");
