//! What garbage collection asks the index, and makes it forget.

use rusqlite::{OptionalExtension as _, params};

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
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT key, step, layers, created, took_ms FROM record")
            .map_err(self.wrap())?;
        let rows = statement
            .query_map(params![], |row| {
                Ok((
                    row.get::<_, Vec<u8>>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, Vec<u8>>(2)?,
                    row.get::<_, i64>(3)?,
                    row.get::<_, i64>(4)?,
                ))
            })
            .map_err(self.wrap())?;
        rows.map(|row| {
            let (key, step, layers, created_unix_ms, took_ms) = row.map_err(self.wrap())?;
            let malformed = || self.malformed_row("record");
            Ok(RecordSummary {
                key: Key::from_bytes(key.try_into().map_err(|_| malformed())?),
                step,
                layers: split_diff_ids(&layers).ok_or_else(malformed)?,
                created_unix_ms,
                took_ms: u64::try_from(took_ms).unwrap_or(0),
            })
        })
        .collect()
    }

    /// Returns all compressed forms of layers, in no order.
    pub fn forms(&self) -> Result<Vec<KnownForm>, IndexError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT diff_id, codec, digest FROM blob")
            .map_err(self.wrap())?;
        let rows = statement
            .query_map(params![], |row| {
                Ok((
                    row.get::<_, Vec<u8>>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, Vec<u8>>(2)?,
                ))
            })
            .map_err(self.wrap())?;
        rows.map(|row| {
            let (layer, codec, digest) = row.map_err(self.wrap())?;
            let malformed = || self.malformed_row("blob");
            Ok(KnownForm {
                layer: DiffId::from_bytes(layer.try_into().map_err(|_| malformed())?),
                codec,
                digest: Digest::from_bytes(digest.try_into().map_err(|_| malformed())?),
            })
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
        self.forget(
            &[
                "DELETE FROM blob WHERE digest = ?1",
                "DELETE FROM fetched WHERE digest = ?1",
            ],
            digests.iter().map(Digest::as_bytes),
        )
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
