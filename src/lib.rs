pub mod error;
#[allow(unsafe_code)]
pub mod sys;
