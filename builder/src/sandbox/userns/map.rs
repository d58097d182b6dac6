//! Ranges of ids: the kernel's maps and the files that grant subordinate ids. Pure.

use std::fmt;

/// More ranges than this the kernel doesn't take (its limit is 340, and it wants the first for the user itself).
const MAX_RANGES: usize = 300;

/// Ids that exist in a namespace, and what they are outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRange {
    /// The first id, inside.
    pub(crate) inside: u32,
    /// The same, outside.
    pub(crate) outside: u32,
    /// How many.
    pub(crate) n_ids: u32,
}

/// A namespace's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap(Vec<IdRange>);

impl IdMap {
    /// Returns the map of the machine's own namespace.
    pub(crate) fn initial() -> Self {
        Self(vec![IdRange {
            inside: 0,
            outside: 0,
            n_ids: u32::MAX,
        }])
    }

    /// Parses `/proc/PID/uid_map`. Lines that aren't three numbers are none of the kernel's.
    pub(crate) fn parse(text: &str) -> Self {
        let range = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            Some(IdRange {
                inside: numbers.next()?.ok()?,
                outside: numbers.next()?.ok()?,
                n_ids: numbers.next()?.ok()?,
            })
        };
        Self(text.lines().filter_map(range).collect())
    }

    /// Returns the map in which `own` is id 0 and the subordinate ids follow.
    pub(crate) fn of_subordinate(own: u32, granted: &[(u32, u32)]) -> Self {
        let mut ranges = vec![IdRange {
            inside: 0,
            outside: own,
            n_ids: 1,
        }];
        let mut next = 1_u32;
        for &(outside, n_ids) in granted.iter().take(MAX_RANGES) {
            let Some(after) = next.checked_add(n_ids).filter(|_| n_ids > 0) else {
                continue;
            };
            ranges.push(IdRange {
                inside: next,
                outside,
                n_ids,
            });
            next = after;
        }
        Self(ranges)
    }

    /// Returns a map in which this map's ids keep their numbers.
    pub(crate) fn identity(&self) -> Self {
        let same = |range: &IdRange| IdRange {
            outside: range.inside,
            ..*range
        };
        Self(self.0.iter().map(same).collect())
    }

    /// Says whether the id exists.
    pub(crate) fn contains(&self, id: u32) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|range| id.checked_sub(range.inside).is_some_and(|at| at < range.n_ids))
    }

    /// Returns how many ids there are.
    pub(crate) fn n_ids(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.n_ids)).sum()
    }

    /// Returns the ranges, in the kernel's order.
    pub(crate) fn ranges(&self) -> &[IdRange] {
        &self.0
    }
}

/// As the kernel wants it written.
impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges = self.0.iter();
        ranges.try_for_each(|range| writeln!(f, "{} {} {}", range.inside, range.outside, range.n_ids))
    }
}

/// Returns what `/etc/subuid` or `/etc/subgid` grants to a user: first id and count. Spec: subuid(5).
pub(crate) fn subordinate(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let granted = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner != number {
            return None;
        }
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        first
            .checked_add(count)
            .filter(|_| count > 0)
            .map(|_| (first, count))
    };
    text.lines().filter_map(granted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_and_nonsense_is_skipped() {
        let text = "# comment\nann:100000:65536\nbob:200000:10\n1000:300000:5\nann:x:1\nann:4294967295:9\nann:1:0\nann\n";
        let check = |name: Option<&str>, uid: u32, expected: &[(u32, u32)]| {
            assert_eq!(subordinate(text, name, uid), expected, "{name:?} {uid}");
        };
        check(Some("ann"), 7, &[(100_000, 65_536)]);
        check(Some("ann"), 1000, &[(100_000, 65_536), (300_000, 5)]);
        check(None, 1000, &[(300_000, 5)]);
        check(Some("carl"), 8, &[]);
    }

    #[test]
    fn maps_are_written_as_the_kernel_reads_them() {
        let map = IdMap::of_subordinate(1000, &[(100_000, 65_536), (5, u32::MAX), (300_000, 5)]);
        assert_eq!(map.to_string(), "0 1000 1\n1 100000 65536\n65537 300000 5\n");
        assert_eq!(IdMap::parse(&map.to_string()), map);
        assert_eq!(map.identity().to_string(), "0 0 1\n1 1 65536\n65537 65537 5\n");
        assert_eq!(map.n_ids(), 65_542);
        let check = |id: u32, expected: bool| assert_eq!(map.contains(id), expected, "{id}");
        check(0, true);
        check(65_536, true);
        check(65_541, true);
        check(65_542, false);
    }
}
