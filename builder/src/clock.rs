//! Dates as image configs have them, and the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use cache::layer::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Returns a time as RFC 3339 in UTC. Times that it can't say become the epoch.
pub(crate) fn rfc3339(unix: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// Reads a date of an image config. `None` when there is none, or nothing that RFC 3339 knows.
pub(crate) fn unix_seconds(date: &str) -> Option<i64> {
    OffsetDateTime::parse(date, &Rfc3339)
        .ok()
        .map(OffsetDateTime::unix_timestamp)
}

/// Returns the time now.
pub(crate) fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        nanos: now.subsec_nanos(),
    }
}

/// Returns the time now, in seconds since the Unix epoch.
pub(crate) fn now_unix() -> i64 {
    now().seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written() {
        assert_eq!(unix_seconds("1970-01-01T00:00:07Z"), Some(7));
        assert_eq!(unix_seconds("1970-01-01T01:00:07.5+01:00"), Some(7));
        assert_eq!(unix_seconds(""), None);
        assert_eq!(rfc3339(7), "1970-01-01T00:00:07Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z");
    }
}
