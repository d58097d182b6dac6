//! PAX records: `LENGTH KEY=VALUE\n`, where the value may be any bytes. Spec: POSIX.1-2017, pax, "Extended header".

use super::number;
use crate::error::Problem;
use crate::layer::Timestamp;

/// Keys and values, in the order of the header.
pub(super) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Parses a whole extended header.
pub(super) fn parse(mut data: &[u8]) -> Result<Records, Problem> {
    let mut records = Records::new();
    while !data.is_empty() {
        let space = data
            .iter()
            .take(20)
            .position(|&byte| byte == b' ')
            .ok_or(Problem::Pax)?;
        let length = number::decimal(&data[..space], "PAX length").map_err(|_| Problem::Pax)?;
        let length = usize::try_from(length).map_err(|_| Problem::Pax)?;
        if length > data.len() || length < space + 3 {
            return Err(Problem::Pax);
        }
        let (record, rest) = data.split_at(length);
        let body = record[space + 1..].strip_suffix(b"\n").ok_or(Problem::Pax)?;
        let equals = body.iter().position(|&byte| byte == b'=').ok_or(Problem::Pax)?;
        let (key, value) = (&body[..equals], &body[equals + 1..]);
        let is_name = matches!(
            key,
            b"path" | b"linkpath" | b"uname" | b"gname" | b"GNU.sparse.name"
        );
        if key.is_empty() || key.contains(&0) || is_name && value.contains(&0) {
            return Err(Problem::Pax);
        }
        records.push((key.to_vec(), value.to_vec()));
        data = rest;
    }
    Ok(records)
}

/// Appends one record.
pub(super) fn write(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Reads seconds with an optional fraction; digits beyond nanoseconds round towards the past.
pub(super) fn parse_time(text: &[u8]) -> Result<Timestamp, Problem> {
    const NAME: &str = "mtime";
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let whole = number::decimal(whole, NAME)?;
    let whole = i64::try_from(whole).map_err(|_| Problem::Number(NAME))?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(Problem::Number(NAME));
    }
    let digit = |position: usize| fraction.get(position).map_or(0, |digit| u32::from(digit - b'0'));
    let nanos = (0..9).fold(0, |value, position| value * 10 + digit(position));
    let more = fraction.iter().skip(9).any(|&digit| digit != b'0');
    Ok(match (negative, nanos + u32::from(negative && more)) {
        (false, nanos) => Timestamp {
            seconds: whole,
            nanos,
        },
        (true, 0) => Timestamp {
            seconds: -whole,
            nanos: 0,
        },
        (true, nanos) => Timestamp {
            seconds: -whole - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

/// Writes what [`parse_time`] reads.
pub(super) fn format_time(time: Timestamp) -> String {
    let (sign, whole, nanos) = match (time.seconds < 0, time.nanos) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", time.seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
    };
    match nanos {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{nanos:09}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_any_bytes() {
        let mut data = Vec::new();
        write(&mut data, b"SCHILY.xattr.user.a", b"x\ny=\0z");
        write(&mut data, b"path", &[b'p'; 91]);
        assert!(
            data.windows(4).any(|window| window == b"101 "),
            "the length counts its own digits"
        );
        let records = parse(&data).unwrap();
        assert_eq!(
            records[0],
            (b"SCHILY.xattr.user.a".to_vec(), b"x\ny=\0z".to_vec())
        );
        assert_eq!(records[1].1.len(), 91);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"7 a=b\n"[..],
            b"6 a=b ",
            b"6 a:b\n",
            b"5 =b\n",
            b"x a=b\n",
            b"9 path=\0\n",
            b"99999999999999999999999 a=b\n",
            b"0 a=b\n",
            b" 6 a=b\n",
            b"6",
            b"6 a=b\n\0\0",
        ] {
            assert_eq!(parse(bad), Err(Problem::Pax), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times_go_both_ways() {
        for (text, seconds, nanos) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("-1", -1, 0),
            ("-0.5", -1, 500_000_000),
            ("-4.75", -5, 250_000_000),
            ("1.000000001", 1, 1),
            ("-9223372036854775807.5", i64::MIN, 500_000_000),
        ] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(parse_time(text.as_bytes()), Ok(time), "{text}");
            assert_eq!(format_time(time), text);
        }
        assert_eq!(
            parse_time(b"-1.0000000001"),
            Ok(Timestamp {
                seconds: -2,
                nanos: 999_999_999
            })
        );
        for bad in ["", "-", "1,5", "1.x", "+1", "9223372036854775808", "1e3"] {
            assert!(parse_time(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
