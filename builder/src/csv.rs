//! The lists that flags take: one record of CSV, as Go reads it.

/// Splits CSV with Go's rules for one record: a field in double quotes may hold commas, two quotes are one.
pub(crate) fn fields(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = match rest.split_once(',') {
                Some((field, after)) => (field, Some(after)),
                None => (rest, None),
            };
            if field.contains('"') {
                return None;
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Some(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut left = quoted;
        loop {
            let (part, after) = left.split_once('"')?;
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    left = more;
                }
                None => {
                    left = after;
                    break;
                }
            }
        }
        fields.push(field);
        match left.strip_prefix(',') {
            Some(after) => rest = after,
            None if left.is_empty() => return Some(fields),
            None => return None,
        }
    }
}
