//! The value of STOPSIGNAL. Spec: dockerfile.md §11.

const NAMES: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "UNUSED",
];

/// Says whether `text` is a number or a name of a Linux signal, with or without `SIG`.
pub(super) fn is_valid(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // RTMIN is 34 and RTMAX is 64.
    let offset = |digits: &str| {
        digits
            .parse::<u32>()
            .is_ok_and(|offset| (1..=30).contains(&offset))
    };
    NAMES.contains(&name)
        || matches!(name, "RTMIN" | "RTMAX")
        || name.strip_prefix("RTMIN+").is_some_and(offset)
        || name.strip_prefix("RTMAX-").is_some_and(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i13_signals() {
        for good in ["9", "SIGTERM", "term", "RTMIN+3", "SIGRTMAX-1", "WINCH"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["FOO", "0", "65", "", "SIG", "RTMIN+31", "RTMAX+1", "-9"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
