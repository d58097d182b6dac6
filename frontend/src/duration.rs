//! Go's durations, read and written: `1m30s`, `500ms`.

/// Units, largest first, in nanoseconds.
const UNITS: [(&str, i64); 8] = [
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ns", 1),
    ("s", 1_000_000_000),
];

/// Reads a duration as nanoseconds; `None` when it isn't one or is out of range.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (number, after) = rest.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (unit, scale) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*scale)?)?;
        let mut place = *scale;
        for digit in fraction.bytes() {
            place /= 10;
            total = total.checked_add(i64::from(digit - b'0').checked_mul(place)?)?;
        }
        rest = &after[unit.len()..];
    }
    Some(sign * total)
}

/// Writes nanoseconds as Go's `time.Duration` prints them.
pub(crate) fn format(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    let decimal = |value: u64, scale: u64| {
        let fraction = format!("{:0width$}", value % scale, width = scale.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() || scale == 1 {
            ""
        } else {
            "."
        };
        format!("{}{dot}{}", value / scale, if scale == 1 { "" } else { fraction })
    };
    let text = match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(ns, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(ns, 1_000_000)),
        _ => {
            let (minutes, rest) = (ns / 60_000_000_000, ns % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, ns, printed) in [
            ("0", 0, "0s"),
            ("1s", 1_000_000_000, "1s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("500ms", 500_000_000, "500ms"),
            ("0.5ms", 500_000, "500µs"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("-1s", -1_000_000_000, "-1s"),
            ("15ns", 15, "15ns"),
        ] {
            assert_eq!(parse(text), Some(ns), "{text}");
            assert_eq!(format(ns), printed, "{text}");
        }
        for bad in ["", "1", "s", "1x", "1..5s", ".s", "99999999999h", "1s2", "-"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
