//! The moment that what is made is said to be made at, so that making it again gives the same
//! (reproducible-builds.org, `SOURCE_DATE_EPOCH`).

use super::ImageError;

/// Of the environment, in seconds since 1970. One that is no number is an error: nobody sets it by accident.
pub fn source_date_epoch() -> Result<Option<i64>, ImageError> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty()) else { return Ok(None) };
    let seconds = value.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds >= 0);
    seconds.map(Some).ok_or_else(|| ImageError::Import {
        what: "SOURCE_DATE_EPOCH".to_owned(),
        why: "it is to be a number of seconds since 1970".to_owned(),
    })
}

/// Now, in seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_secs().cast_signed()
}
