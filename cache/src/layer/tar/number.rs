//! Numbers in tar headers: octal text, or base-256 with the highest bit set. Out of range is an error, never a
//! wrapped value.

use crate::error::Problem;

/// Reads an unsigned field.
pub(super) fn unsigned(field: &[u8], name: &'static str) -> Result<u64, Problem> {
    u64::try_from(signed(field, name)?).map_err(|_| Problem::Number(name))
}

/// Reads an unsigned field of at most 32 bits.
pub(super) fn unsigned32(field: &[u8], name: &'static str) -> Result<u32, Problem> {
    u32::try_from(signed(field, name)?).map_err(|_| Problem::Number(name))
}

/// Reads a field that may be negative, which only base-256 can say.
pub(super) fn signed(field: &[u8], name: &'static str) -> Result<i64, Problem> {
    let parsed = match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    };
    parsed.ok_or(Problem::Number(name))
}

fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut value: i64 = if negative { -1 } else { 0 };
    for (position, &byte) in field.iter().enumerate() {
        // The first byte's top bit is the marker; it takes part as a copy of the sign.
        let byte = match position {
            0 if negative => byte | 0x80,
            0 => byte & 0x7f,
            _ => byte,
        };
        value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
    }
    Some(value)
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_filler = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field
        .iter()
        .position(|byte| !is_filler(byte))
        .unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_filler).unwrap_or(digits.len());
    // What follows the terminator is ignored, as by other readers: old writers left rubbish there.
    digits[..end].iter().try_fold(0_i64, |value, &digit| {
        let digit = (b'0'..=b'7').contains(&digit).then(|| i64::from(digit - b'0'))?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

/// Reads a decimal number, digits only.
pub(super) fn decimal(text: &[u8], name: &'static str) -> Result<u64, Problem> {
    if text.is_empty() {
        return Err(Problem::Number(name));
    }
    text.iter()
        .try_fold(0_u64, |value, &digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            value.checked_mul(10)?.checked_add(digit)
        })
        .filter(|&value| i64::try_from(value).is_ok())
        .ok_or(Problem::Number(name))
}

/// Writes `value` as octal digits and a NUL; `false`, and zeros, when it doesn't fit.
pub(super) fn write_octal(field: &mut [u8], value: u64) -> bool {
    let (last, digits) = field.split_last_mut().expect("because no field is empty");
    *last = 0;
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    if rest != 0 {
        digits.fill(b'0');
    }
    rest == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_with_checks() {
        let cases: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o7777_7777)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"\x80\0\0\0\0\0\x01\x02", Some(0x102)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ];
        for &(field, expected) in cases {
            assert_eq!(signed(field, "x").ok(), expected, "{}", field.escape_ascii());
        }
        assert_eq!(
            unsigned32(b"\x80\0\0\x01\0\0\0\0", "x"),
            Err(Problem::Number("x"))
        );
        assert_eq!(decimal(b"9223372036854775808", "x"), Err(Problem::Number("x")));
        assert_eq!(decimal(b"+1", "x"), Err(Problem::Number("x")));
    }

    #[test]
    fn octal_that_does_not_fit_is_left_out() {
        let mut field = [b'x'; 8];
        assert!(write_octal(&mut field, 0o7777777));
        assert_eq!(&field, b"7777777\0");
        assert!(!write_octal(&mut field, 0o10000000));
        assert_eq!(&field, b"0000000\0");
    }
}
