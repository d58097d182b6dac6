//! Sizes and durations for people, with docker's words and roundings, because scripts read them too.

/// Returns a size with a decimal unit and three significant digits: `0B`, `7.8MB`, `1.23GB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    // A thousandth of a unit is enough for three digits; rounding up to 1000 goes to the next unit.
    let mut milli = u128::from(bytes) * 1000;
    loop {
        let step = match milli {
            0..10_000 => 10,
            10_000..100_000 => 100,
            _ => 1000,
        };
        let rounded = (milli + step / 2) / step * step;
        if rounded < 1_000_000 || unit + 1 == UNITS.len() {
            let text = format!("{}.{:03}", rounded / 1000, rounded % 1000);
            return format!(
                "{}{}",
                text.trim_end_matches('0').trim_end_matches('.'),
                UNITS[unit]
            );
        }
        milli /= 1000;
        unit += 1;
    }
}

/// Returns a number of things: `1 layer`, `2 layers`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// Returns how long ago something was, as docker rounds it: `About an hour ago`, `3 weeks ago`.
pub(crate) fn ago(then_unix: i64, now_unix: i64) -> String {
    let seconds = now_unix.saturating_sub(then_unix).max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let text = match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    };
    format!("{text} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_look_like_dockers() {
        for (bytes, expected) in [
            (0, "0B"),
            (7, "7B"),
            (999, "999B"),
            (1000, "1kB"),
            (1005, "1.01kB"),
            (1234, "1.23kB"),
            (12_345, "12.3kB"),
            (187_300_000, "187MB"),
            (7_800_000, "7.8MB"),
            (999_600, "1MB"),
            (999_499, "999kB"),
            (1_230_000_000, "1.23GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn durations_look_like_dockers() {
        const HOUR: i64 = 3600;
        for (seconds, expected) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (HOUR, "About an hour"),
            (2 * HOUR, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (800 * 24 * HOUR, "2 years"),
        ] {
            assert_eq!(
                ago(1_000, 1_000 + seconds),
                format!("{expected} ago"),
                "{seconds}"
            );
        }
    }
}
