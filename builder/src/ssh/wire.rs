//! Bytes as ssh writes them: numbers of four bytes, strings with their length before them, and whole numbers as strings.
//! Spec: RFC 4251 §5. What a string means is known to whoever asks for it.

/// What is left of a message. `None` from any of these: it ends too early.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Returns so many bytes.
    pub(super) fn take(&mut self, n_bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n_bytes)?;
        self.0 = rest;
        Some(taken)
    }

    /// Returns a number.
    pub(super) fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into();
        Some(u32::from_be_bytes(bytes.expect("because these are four")))
    }

    /// Returns a string.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let n_bytes = self.number()?;
        self.take(usize::try_from(n_bytes).ok()?)
    }

    /// Returns a whole number, most significant byte first and none of them in vain. Negative ones are none.
    pub(super) fn whole(&mut self) -> Option<&'a [u8]> {
        let bytes = self.string()?;
        if bytes.first().is_some_and(|first| first & 0x80 != 0) {
            return None;
        }
        Some(without_zeros(bytes))
    }
}

/// Appends a number.
pub(super) fn put_number(into: &mut Vec<u8>, number: usize) {
    let number = u32::try_from(number).expect("because messages and keys are short");
    into.extend(number.to_be_bytes());
}

/// Appends a string.
pub(super) fn put_string(into: &mut Vec<u8>, string: &[u8]) {
    put_number(into, string.len());
    into.extend(string);
}

/// Appends a whole number.
pub(super) fn put_whole(into: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = without_zeros(bytes);
    let is_high = bytes.first().is_some_and(|first| first & 0x80 != 0);
    put_number(into, bytes.len() + usize::from(is_high));
    // Otherwise it would be a negative one.
    into.extend(is_high.then_some(0));
    into.extend(bytes);
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let n_zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[n_zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_as_short_as_they_can_be() {
        let check = |bytes: &[u8], written: &[u8]| {
            let mut into = Vec::new();
            put_whole(&mut into, bytes);
            assert_eq!(into, written);
            assert_eq!(Reader(&into).whole(), Some(without_zeros(bytes)));
        };
        check(&[], &[0, 0, 0, 0]);
        check(&[0, 0], &[0, 0, 0, 0]);
        check(&[0, 0x7f, 1], &[0, 0, 0, 2, 0x7f, 1]);
        check(&[0x80], &[0, 0, 0, 2, 0, 0x80]);
        assert_eq!(Reader(&[0, 0, 0, 1, 0x80]).whole(), None);
    }

    #[test]
    fn what_ends_too_early_is_nothing() {
        assert_eq!(Reader(&[0, 0, 0, 2, 1]).string(), None);
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 1]).string(), None);
        assert_eq!(Reader(&[0, 0, 1]).number(), None);
    }
}
