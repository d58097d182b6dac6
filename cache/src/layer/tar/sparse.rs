//! Sparse maps: which ranges of a file a tar holds. Old GNU headers and the three PAX variants.
//! Spec: GNU tar manual, "Storing Sparse Files".

use super::number;
use super::pax::Records;
use crate::error::Problem;

/// The most ranges of one file.
const MAX_EXTENTS: usize = 1 << 20;

/// One range that is stored; what lies between the ranges is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::layer) struct Extent {
    /// Where it is in the file.
    pub(in crate::layer) offset: u64,
    /// How long it is.
    pub(in crate::layer) length: u64,
}

/// What a PAX header says about sparseness.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PaxSparse {
    /// The map is in the header (formats 0.0 and 0.1).
    Map { map: Vec<Extent>, size_bytes: u64 },
    /// The map comes before the data (format 1.0).
    InData { size_bytes: u64 },
}

/// Finds the sparse format of a PAX header; `None` for an ordinary file.
pub(super) fn from_pax(records: &Records) -> Result<Option<PaxSparse>, Problem> {
    let last = |key: &[u8]| {
        records
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| &value[..])
    };
    let size = || {
        let text = last(b"GNU.sparse.realsize").or_else(|| last(b"GNU.sparse.size"));
        number::decimal(text.ok_or(Problem::SparseMap)?, "GNU.sparse.size")
    };
    let version = (last(b"GNU.sparse.major"), last(b"GNU.sparse.minor"));
    match version {
        (Some(b"1"), Some(b"0")) => return Ok(Some(PaxSparse::InData { size_bytes: size()? })),
        (None, None) | (Some(b"0"), Some(b"0" | b"1")) => {}
        _ => return Err(Problem::SparseFormat),
    }
    if let Some(text) = last(b"GNU.sparse.map") {
        let numbers = text.split(|&byte| byte == b',').filter(|part| !part.is_empty());
        let numbers: Vec<u64> = numbers
            .map(|part| number::decimal(part, "GNU.sparse.map"))
            .collect::<Result<_, _>>()?;
        return Ok(Some(PaxSparse::Map {
            map: pairs(&numbers)?,
            size_bytes: size()?,
        }));
    }
    let mut numbers = Vec::new();
    for (key, value) in records {
        let expected = match &key[..] {
            b"GNU.sparse.offset" => 0,
            b"GNU.sparse.numbytes" => 1,
            _ => continue,
        };
        if numbers.len() % 2 != expected {
            return Err(Problem::SparseMap);
        }
        numbers.push(number::decimal(value, "GNU.sparse.offset")?);
    }
    if numbers.is_empty() && last(b"GNU.sparse.size").is_none() {
        return Ok(None);
    }
    Ok(Some(PaxSparse::Map {
        map: pairs(&numbers)?,
        size_bytes: size()?,
    }))
}

fn pairs(numbers: &[u64]) -> Result<Vec<Extent>, Problem> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_EXTENTS {
        return Err(Problem::SparseMap);
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| Extent {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

/// Collects the map that precedes the data of format 1.0: decimal lines, the count first, filled up to a block.
#[derive(Default)]
pub(super) struct MapInData {
    line: Vec<u8>,
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl MapInData {
    /// Takes the next block of the file; returns the map once it is complete.
    pub(super) fn push(&mut self, block: &[u8]) -> Result<Option<Vec<Extent>>, Problem> {
        for &byte in block {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 20 {
                    return Err(Problem::SparseMap);
                }
                continue;
            }
            let value = number::decimal(&self.line, "sparse map")?;
            self.line.clear();
            match self.count {
                None => {
                    let count = usize::try_from(value).ok().filter(|&count| count <= MAX_EXTENTS);
                    self.count = Some(count.ok_or(Problem::SparseMap)?);
                }
                Some(_) => self.numbers.push(value),
            }
            if self.count.is_some_and(|count| self.numbers.len() == count * 2) {
                return pairs(&self.numbers).map(Some);
            }
        }
        Ok(None)
    }
}

/// Reads the ranges of an old GNU header, or of one of its continuations, until the first unused one.
pub(super) fn old_gnu(slots: &[tar::GnuSparseHeader], map: &mut Vec<Extent>) -> Result<(), Problem> {
    for slot in slots
        .iter()
        .take_while(|slot| slot.offset[0] != 0 || slot.numbytes[0] != 0)
    {
        map.push(Extent {
            offset: number::unsigned(&slot.offset, "sparse offset")?,
            length: number::unsigned(&slot.numbytes, "sparse length")?,
        });
    }
    if map.len() > MAX_EXTENTS {
        Err(Problem::SparseMap)
    } else {
        Ok(())
    }
}

/// Checks that the ranges ascend, lie inside the file and amount to what is stored.
pub(super) fn check(map: &[Extent], size_bytes: u64, stored_bytes: u64) -> Result<(), Problem> {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for extent in map {
        if extent.offset < end {
            return Err(Problem::SparseMap);
        }
        end = extent
            .offset
            .checked_add(extent.length)
            .ok_or(Problem::SparseMap)?;
        sum = sum.checked_add(extent.length).ok_or(Problem::SparseMap)?;
    }
    if end <= size_bytes && sum == stored_bytes {
        Ok(())
    } else {
        Err(Problem::SparseMap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(pairs: &[(&str, &str)]) -> Records {
        pairs
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn maps_in_headers() {
        let map = vec![
            Extent { offset: 0, length: 5 },
            Extent {
                offset: 1024,
                length: 0,
            },
        ];
        let found = Ok(Some(PaxSparse::Map {
            map,
            size_bytes: 1024,
        }));
        let v01 = records(&[("GNU.sparse.size", "1024"), ("GNU.sparse.map", "0,5,1024,0")]);
        assert_eq!(from_pax(&v01), found);
        let v00 = records(&[
            ("GNU.sparse.size", "1024"),
            ("GNU.sparse.offset", "0"),
            ("GNU.sparse.numbytes", "5"),
            ("GNU.sparse.offset", "1024"),
            ("GNU.sparse.numbytes", "0"),
        ]);
        assert_eq!(from_pax(&v00), found);
        assert_eq!(from_pax(&records(&[("path", "x")])), Ok(None));
        let v2 = records(&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")]);
        assert_eq!(from_pax(&v2), Err(Problem::SparseFormat));
        let odd = records(&[("GNU.sparse.size", "9"), ("GNU.sparse.map", "0,5,6")]);
        assert_eq!(from_pax(&odd), Err(Problem::SparseMap));
        let swapped = records(&[("GNU.sparse.size", "9"), ("GNU.sparse.numbytes", "5")]);
        assert_eq!(from_pax(&swapped), Err(Problem::SparseMap));
    }

    #[test]
    fn maps_before_the_data() {
        let mut map = MapInData::default();
        assert_eq!(map.push(b"2\n0\n5\n10"), Ok(None));
        assert_eq!(map.push(b"24\n0\n\0\0").unwrap().unwrap().len(), 2);
        assert!(MapInData::default().push(b"2000000\n").is_err());
        assert!(MapInData::default().push(&[b'1'; 30]).is_err());
        assert!(MapInData::default().push(b"-1\n").is_err());
    }

    #[test]
    fn maps_must_fit() {
        let map = |pairs: &[(u64, u64)]| -> Vec<Extent> {
            pairs
                .iter()
                .map(|&(offset, length)| Extent { offset, length })
                .collect()
        };
        assert_eq!(check(&map(&[(0, 5), (10, 0)]), 10, 5), Ok(()));
        for (bad, size, stored) in [
            (map(&[(0, 5), (4, 1)]), 10, 6),
            (map(&[(0, 5)]), 4, 5),
            (map(&[(0, 5)]), 10, 6),
            (map(&[(u64::MAX, 5)]), 10, 5),
        ] {
            assert_eq!(check(&bad, size, stored), Err(Problem::SparseMap), "{bad:?}");
        }
    }
}
