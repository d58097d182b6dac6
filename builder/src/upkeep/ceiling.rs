//! How much the store may occupy: what was typed, else the environment, else `gc.toml`, else a share of the disk.
//!
//! `gc.toml` is in `~/.config/ashlar/`, then `/etc/ashlar/`; its words are those of the flags: `max-used-space`,
//! `min-free-space`, `reserved-space`.

use std::path::PathBuf;

use cache::gc::Limits;
use serde::Deserialize;

use crate::options::{Environment, size_bytes};
use crate::registry::parse_toml;
use crate::report::{Failure, Kind};

/// The store may occupy the smaller of these by itself, …
const MAX_USED: (Amount, u64) = (Amount::Percent(20), 50 << 30);
/// … and leaves so much of the disk free, …
const MIN_FREE: Amount = Amount::Percent(10);
/// … but keeps the smaller of these however full the disk is: otherwise nothing would ever be cached on one that is.
const RESERVED: (Amount, u64) = (Amount::Percent(2), 10 << 30);

/// A size, absolute or of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So much of the disk.
    Percent(u8),
}

impl Amount {
    /// Parses `20%`, `50g`, `0`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let Some(number) = text.trim().strip_suffix('%') else {
            return size_bytes(text).map(Self::Bytes);
        };
        match number.trim_end().parse() {
            Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
            _ => Err(Failure::usage(format!(
                "invalid share of the disk `{text}`: expected for instance 20%"
            ))),
        }
    }

    /// Returns it in bytes.
    pub(crate) fn bytes(self, disk_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => disk_bytes / 100 * u64::from(percent),
        }
    }
}

impl TryFrom<String> for Amount {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|failure| failure.message().to_owned())
    }
}

/// What was said of the ceiling; `None`: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Ceiling {
    /// The most that the store may occupy; 0: any amount.
    pub(crate) max_used_space: Option<Amount>,
    /// What is to be free on the disk; 0: nothing.
    pub(crate) min_free_space: Option<Amount>,
    /// What the store keeps however little is free.
    pub(crate) reserved_space: Option<Amount>,
}

impl Ceiling {
    /// Reads what files say; the user's word goes before the machine's.
    pub(crate) fn of_files(environment: &Environment) -> Result<Self, Failure> {
        let user = environment
            .var("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(environment.var("HOME")?).join(".config")));
        let user = user.map(|dir| dir.join("ashlar/gc.toml"));
        let mut ceiling = Self::default();
        for path in user.into_iter().chain([PathBuf::from("/etc/ashlar/gc.toml")]) {
            let said = parse_toml::<Self>(&path).map_err(|error| Failure::of(Kind::Usage, &error))?;
            ceiling = ceiling.or(said.unwrap_or_default());
        }
        Ok(ceiling)
    }

    /// Fills in what isn't said.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            max_used_space: self.max_used_space.or(other.max_used_space),
            min_free_space: self.min_free_space.or(other.min_free_space),
            reserved_space: self.reserved_space.or(other.reserved_space),
        }
    }

    /// Returns what it comes to on a disk.
    pub(crate) fn limits(self, disk_bytes: u64) -> Limits {
        let smaller = |(share, most): (Amount, u64)| share.bytes(disk_bytes).min(most);
        let said = |amount: Option<Amount>, otherwise: u64| {
            amount.map_or(otherwise, |amount| amount.bytes(disk_bytes))
        };
        let unless_off = |bytes: u64| (bytes > 0).then_some(bytes);
        let max_used_bytes = unless_off(said(self.max_used_space, smaller(MAX_USED)));
        Limits {
            max_used_bytes,
            min_free_bytes: unless_off(said(self.min_free_space, MIN_FREE.bytes(disk_bytes))),
            reserved_bytes: match self.reserved_space {
                Some(reserved) => reserved.bytes(disk_bytes),
                // A ceiling that was asked for holds, also below what would be kept otherwise.
                None => smaller(RESERVED).min(max_used_bytes.unwrap_or(u64::MAX)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_bytes_or_shares() {
        let check = |text: &str, expected: Option<u64>| {
            let bytes = Amount::parse(text).ok().map(|amount| amount.bytes(1000));
            assert_eq!(bytes, expected, "{text}");
        };
        check("0", Some(0));
        check("1k", Some(1024));
        check("20%", Some(200));
        check("100 %", Some(1000));
        check("101%", None);
        check("-1%", None);
        check("x", None);
        check("", None);
    }

    #[test]
    fn what_is_not_said_is_a_share_of_the_disk() {
        const GIB: u64 = 1 << 30;
        let check = |ceiling: Ceiling, disk_bytes, expected: (Option<u64>, Option<u64>, u64)| {
            let limits = ceiling.limits(disk_bytes);
            let told = (
                limits.max_used_bytes,
                limits.min_free_bytes,
                limits.reserved_bytes,
            );
            assert_eq!(told, expected, "{ceiling:?}");
        };
        let none = Ceiling::default();
        check(none, 100 * GIB, (Some(20 * GIB), Some(10 * GIB), 2 * GIB));
        check(none, 10_000 * GIB, (Some(50 * GIB), Some(1000 * GIB), 10 * GIB));
        let off = Ceiling {
            max_used_space: Some(Amount::Bytes(0)),
            min_free_space: Some(Amount::Percent(0)),
            reserved_space: None,
        };
        check(off, 100 * GIB, (None, None, 2 * GIB));
        let typed = Ceiling {
            max_used_space: Some(Amount::Percent(1)),
            ..none
        };
        check(typed.or(off), 100 * GIB, (Some(GIB), None, GIB));
    }
}
