//! What garbage collection asks the index, and makes it forget.

use std::collections::HashMap;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{Index, IndexError, split_diff_ids};
use crate::digest::{DiffId, Digest, Key};

/// How many layers are remembered that were removed; of more the latest.
const MAX_EVICTED: usize = 20_000;

/// When a layer was removed, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evicted {
    /// When, in seconds since the Unix epoch.
    pub at_unix: i64,
    /// What for: a word for people.
    pub because: String,
}

/// A record without its components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSummary {
    /// Its key.
    pub key: Key,
    /// Where in its build the step stands.
    pub step: String,
    /// All layers of the result, base first.
    pub layers: Vec<DiffId>,
    /// When it was made, in milliseconds since the epoch.
    pub created_unix_ms: i64,
    /// How long making it took.
    pub took_ms: u64,
}

/// What of an index was read at one of these is as it was, as long as it has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    by_others: i64,
    by_this: u64,
}

/// A compressed form of a layer, as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownForm {
    /// The layer.
    pub layer: DiffId,
    /// Names codec, level and block size.
    pub codec: String,
    /// Digest of the compressed bytes.
    pub digest: Digest,
}

impl Index {
    /// Returns all records, in no order.
    pub fn records(&self) -> Result<Vec<RecordSummary>, IndexError> {
        self.rows(
            "record",
            "SELECT key, step, layers, created, took_ms FROM record",
            |row| {
                let took_ms: i64 = row.get(4)?;
                Ok(RecordSummary {
                    key: Key::from_bytes(row.get(0)?),
                    step: row.get(1)?,
                    layers: layers_of(row, 2)?,
                    created_unix_ms: row.get(3)?,
                    took_ms: u64::try_from(took_ms).unwrap_or(0),
                })
            },
        )
    }

    /// Returns all compressed forms of layers, in no order.
    pub fn forms(&self) -> Result<Vec<KnownForm>, IndexError> {
        self.rows("blob", "SELECT diff_id, codec, digest FROM blob", |row| {
            Ok(KnownForm {
                layer: DiffId::from_bytes(row.get(0)?),
                codec: row.get(1)?,
                digest: Digest::from_bytes(row.get(2)?),
            })
        })
    }

    /// Returns the sizes of compressed forms of layers.
    pub fn sizes(&self) -> Result<HashMap<Digest, u64>, IndexError> {
        let sizes = self.rows("blob", "SELECT digest, size FROM blob", |row| {
            let size: i64 = row.get(1)?;
            let size = u64::try_from(size).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(1, size))?;
            Ok((Digest::from_bytes(row.get(0)?), size))
        })?;
        Ok(sizes.into_iter().collect())
    }

    /// Reads all rows that a query finds in a table; a value that can't be what its column is for makes the row malformed.
    fn rows<T>(
        &self,
        table: &'static str,
        query: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, IndexError> {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
        let connection = self.connection();
        let mut statement = connection.prepare_cached(query).map_err(self.wrap())?;
        let rows = statement.query_map(params![], read).map_err(self.wrap())?;
        rows.map(|row| match row {
            Err(FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..)) => {
                Err(self.malformed_row(table))
            }
            row => row.map_err(self.wrap()),
        })
        .collect()
    }

    /// Forgets records, with what is known of the trees of their results.
    pub fn forget_records(&self, keys: &[Key]) -> Result<(), IndexError> {
        self.forget(
            &[
                "DELETE FROM tree_hash WHERE input = ?1",
                "DELETE FROM record WHERE key = ?1",
            ],
            keys.iter().map(Key::as_bytes),
        )
    }

    /// Forgets what is known of blobs that are gone: as forms of layers, and as files of web servers.
    pub fn forget_blobs(&self, digests: &[Digest]) -> Result<(), IndexError> {
        if digests.is_empty() {
            return Ok(());
        }
        // Neither table is sorted by digests: once through each for all of them, and not once for each.
        let hex: Vec<String> = digests.iter().map(Digest::hex).collect();
        let hex = serde_json::to_string(&hex).expect("because strings are valid JSON");
        let forget = |connection: &mut rusqlite::Connection| {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for table in ["blob", "fetched"] {
                let command = format!(
                    "DELETE FROM {table} WHERE lower(hex(digest)) IN (SELECT value FROM json_each(?1))"
                );
                transaction.prepare_cached(&command)?.execute(params![hex])?;
            }
            transaction.commit()
        };
        forget(&mut self.connection()).map_err(self.wrap())
    }

    /// Returns a number that is another one when the index may have changed, whoever changed it.
    pub fn version(&self) -> Result<Version, IndexError> {
        let connection = self.connection();
        let by_others = connection
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .map_err(self.wrap())?;
        Ok(Version {
            by_others,
            by_this: connection.total_changes(),
        })
    }

    /// Remembers layers that were removed.
    pub fn put_evicted(&self, layers: &[DiffId], at_unix: i64, because: &str) -> Result<(), IndexError> {
        self.put_evicted_of(layers, at_unix, because, MAX_EVICTED)
    }

    fn put_evicted_of(
        &self,
        layers: &[DiffId],
        at_unix: i64,
        because: &str,
        most: usize,
    ) -> Result<(), IndexError> {
        if layers.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection();
        let put = |transaction: &rusqlite::Transaction<'_>| {
            let mut statement =
                transaction.prepare_cached("INSERT OR REPLACE INTO evicted VALUES (?1, ?2, ?3)")?;
            for layer in layers {
                statement.execute(params![layer.as_bytes(), at_unix, because])?;
            }
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            transaction
                .prepare_cached(
                    "DELETE FROM evicted WHERE layer IN (SELECT layer FROM evicted ORDER BY at DESC LIMIT -1 OFFSET ?1)",
                )?
                .execute(params![most])
        };
        let transaction = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(self.wrap())?;
        put(&transaction).map_err(self.wrap())?;
        transaction.commit().map_err(self.wrap())?;
        drop(connection);
        self.synced()
    }

    /// Returns when a layer was last removed, and why, if that is remembered.
    pub fn evicted(&self, layer: &DiffId) -> Result<Option<Evicted>, IndexError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT at, because FROM evicted WHERE layer = ?1")
            .map_err(self.wrap())?;
        statement
            .query_row(params![layer.as_bytes()], |row| {
                Ok(Evicted {
                    at_unix: row.get(0)?,
                    because: row.get(1)?,
                })
            })
            .optional()
            .map_err(self.wrap())
    }

    fn forget<'b>(
        &self,
        commands: &[&str],
        which: impl Iterator<Item = &'b [u8; 32]>,
    ) -> Result<(), IndexError> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(self.wrap())?;
        for bytes in which {
            for command in commands {
                transaction
                    .prepare_cached(command)
                    .and_then(|mut statement| statement.execute(params![bytes]))
                    .map_err(self.wrap())?;
            }
        }
        transaction.commit().map_err(self.wrap())?;
        drop(connection);
        self.synced()
    }
}

/// Reads the layers of a record.
fn layers_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<DiffId>> {
    let bytes: Vec<u8> = row.get(column)?;
    let malformed = || rusqlite::Error::InvalidColumnType(column, "layers".to_owned(), Type::Blob);
    split_diff_ids(&bytes).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::LayerBlob;

    #[test]
    fn what_was_removed_is_remembered_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(&dir.path().join("index")).unwrap();
        let layer = |name: &str| DiffId::of(name.as_bytes());
        let put = |names: &[&str], at_unix| {
            let layers: Vec<DiffId> = names.iter().map(|name| layer(name)).collect();
            index.put_evicted_of(&layers, at_unix, "prune", 3).unwrap();
        };
        put(&["a", "b"], 10);
        put(&["c"], 20);
        put(&["a"], 30);
        put(&["d"], 40);
        let at = |name: &str| {
            index
                .evicted(&layer(name))
                .unwrap()
                .map(|evicted| evicted.at_unix)
        };
        assert_eq!(
            [at("a"), at("b"), at("c"), at("d")],
            [Some(30), None, Some(20), Some(40)]
        );
        assert_eq!(index.evicted(&layer("c")).unwrap().unwrap().because, "prune");
    }

    #[test]
    fn what_is_known_of_many_blobs_is_forgotten_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(&dir.path().join("index")).unwrap();
        let blob = |name: &str| Digest::of(name.as_bytes());
        let put = |name: &str| {
            let form = LayerBlob {
                digest: blob(name),
                size_bytes: 1,
            };
            index
                .put_layer_blob(&DiffId::of(name.as_bytes()), "gzip", &form)
                .unwrap();
        };
        ["a", "b", "c"].into_iter().for_each(put);
        index.forget_blobs(&[]).unwrap();
        assert_eq!(index.forms().unwrap().len(), 3);
        index.forget_blobs(&[blob("a"), blob("c"), blob("none")]).unwrap();
        let left = index.forms().unwrap();
        assert_eq!(
            left.iter().map(|form| form.digest).collect::<Vec<_>>(),
            [blob("b")]
        );
    }

    #[test]
    fn a_change_makes_another_version_whoever_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Index::open(&dir.path().join("index")).unwrap().0;
        let (index, other) = (open(), open());
        let before = index.version().unwrap();
        assert_eq!(index.version().unwrap(), before);
        assert_eq!(index.records().unwrap(), []);
        assert_eq!(index.version().unwrap(), before);
        other.put_evicted(&[DiffId::of(b"a")], 1, "test").unwrap();
        let by_other = index.version().unwrap();
        assert_ne!(by_other, before);
        index.put_evicted(&[DiffId::of(b"b")], 1, "test").unwrap();
        assert_ne!(index.version().unwrap(), by_other);
    }
}
