//! The index: step records, tree hashes, image names, and which compressed blobs exist for a layer. SQLite in WAL
//! mode, so that any number of processes may use it and a crash leaves it whole.
//!
//! Nothing here is believed over content: a record is used only when the layer files it names are there, and losing
//! the whole file costs time, never a wrong image. A damaged file is set aside and started anew.

mod health;
mod open;
mod place;
mod sync;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use crate::digest::{DiffId, Digest, Key, TreeHash};
use crate::record::Record;
use crate::tree::Selection;

pub use health::is_suspect;
pub use upkeep::{Evicted, KnownForm, RecordSummary, Version};

/// Says why the index can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite's own word.
    #[error("index {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// There is no room for what SQLite has to write, which it calls by many names.
    #[error("cannot use the index {path}: {source}")]
    Full {
        /// The file.
        path: PathBuf,
        /// Always the same.
        source: std::io::Error,
    },
    /// A row that this program would not write.
    #[error("index {path}: a row of `{table}` is malformed")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        table: &'static str,
    },
    /// What was committed could not be brought to disk.
    #[error("cannot sync the index {path}: {source}")]
    Sync {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The damaged file could not be moved away.
    #[error("cannot set aside the damaged index {path}: {source}")]
    SetAside {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl IndexError {
    fn of_sqlite(path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_SHMSIZE};
        let path = path.to_owned();
        match source.sqlite_error().map(|error| error.extended_code) {
            Some(SQLITE_FULL | SQLITE_IOERR_SHMSIZE) => Self::Full {
                path,
                source: rustix::io::Errno::NOSPC.into(),
            },
            _ => Self::Sqlite { path, source },
        }
    }
}

/// A name in the local store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// Full reference, for instance `docker.io/library/app:1`; an untagged image has its config digest as name.
    pub name: String,
    /// The image's config: what `docker` calls the image ID.
    pub config: Digest,
    /// The manifest it was pulled or loaded with; `None` when it was built here.
    pub manifest: Option<Digest>,
    /// The same image for further platforms; sorted by platform.
    pub variants: Vec<Variant>,
    /// When the name was given, in seconds since the Unix epoch.
    pub created_unix: i64,
}

/// An image under a name that has it for several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// `linux/arm64`
    pub platform: String,
    /// The image's config.
    pub config: Digest,
}

/// A compressed form of a layer that is in the content store, or is known to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Their number.
    pub size_bytes: u64,
}

/// What a web server said of a file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// `ETag`, verbatim.
    pub etag: Option<String>,
    /// `Last-Modified`, verbatim.
    pub modified: Option<String>,
    /// Digest of the content, a blob of the store as long as nobody removed it.
    pub digest: Digest,
}

/// The open index.
#[derive(Debug)]
pub struct Index {
    connection: Mutex<Connection>,
    path: PathBuf,
    /// None where SQLite syncs at each commit, because it has no journal of the kind that makes this unnecessary.
    sync: Option<sync::Sync>,
}

impl Index {
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrap(&self) -> impl Fn(rusqlite::Error) -> IndexError + '_ {
        |source| {
            let error = IndexError::of_sqlite(&self.path, source);
            if is_damage(&error) {
                health::suspect(&self.path);
            }
            error
        }
    }

    fn malformed_row(&self, table: &'static str) -> IndexError {
        health::suspect(&self.path);
        IndexError::Malformed {
            path: self.path.clone(),
            table,
        }
    }

    /// Returns the record of `key`.
    pub fn record(&self, key: &Key) -> Result<Option<Record>, IndexError> {
        self.one_record("SELECT * FROM record WHERE key = ?1", params![key.as_bytes()])
    }

    /// Returns the newest record of a step, whatever its key.
    pub fn latest(&self, step: &str) -> Result<Option<Record>, IndexError> {
        self.one_record(
            "SELECT * FROM record WHERE step = ?1 ORDER BY created DESC LIMIT 1",
            params![step],
        )
    }

    fn one_record(&self, query: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Option<Record>, IndexError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(query).map_err(self.wrap())?;
        let row = statement
            .query_row(params, |row| {
                Ok((
                    row.get::<_, Vec<u8>>("key")?,
                    row.get::<_, String>("step")?,
                    row.get::<_, Vec<u8>>("layers")?,
                    row.get::<_, String>("components")?,
                    row.get::<_, i64>("created")?,
                    row.get::<_, i64>("took_ms")?,
                ))
            })
            .optional()
            .map_err(self.wrap())?;
        let Some((key, step, layers, components, created_unix_ms, took_ms)) = row else {
            return Ok(None);
        };
        let malformed = || self.malformed_row("record");
        Ok(Some(Record {
            key: Key::from_bytes(key.try_into().map_err(|_| malformed())?),
            layers: split_diff_ids(&layers).ok_or_else(malformed)?,
            components: serde_json::from_str(&components).map_err(|_| malformed())?,
            step,
            created_unix_ms,
            took_ms: u64::try_from(took_ms).unwrap_or(0),
        }))
    }

    /// Remembers a finished step, replacing what was there under its key. Tree hashes memoised for the replaced
    /// result are forgotten: they were hashes of other bytes. Ok means that other processes see it, and that it is on disk
    /// soon.
    pub fn put_record(&self, record: &Record) -> Result<(), IndexError> {
        let layers: Vec<u8> = record.layers.iter().flat_map(|layer| *layer.as_bytes()).collect();
        let components = serde_json::to_string(&record.components).expect("strings are valid JSON");
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(self.wrap())?;
        transaction
            .prepare_cached(
                "DELETE FROM tree_hash WHERE input = ?1 AND EXISTS (SELECT 1 FROM record WHERE key = ?1 AND layers <> ?2)",
            )
            .and_then(|mut statement| statement.execute(params![record.key.as_bytes(), layers]))
            .map_err(self.wrap())?;
        transaction
            .prepare_cached("INSERT OR REPLACE INTO record VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
            .and_then(|mut statement| {
                statement.execute(params![
                    record.key.as_bytes(),
                    record.step,
                    layers,
                    components,
                    record.created_unix_ms,
                    i64::try_from(record.took_ms).unwrap_or(i64::MAX),
                ])
            })
            .map_err(self.wrap())?;
        transaction.commit().map_err(self.wrap())?;
        self.synced_soon()
    }

    /// Returns the memoised hash of a selection of a result.
    pub fn tree_hash(&self, input: &Key, selection: &Selection) -> Result<Option<TreeHash>, IndexError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT hash FROM tree_hash WHERE input = ?1 AND selection = ?2")
            .map_err(self.wrap())?;
        let row: Option<Vec<u8>> = statement
            .query_row(params![input.as_bytes(), selection_text(selection)], |row| {
                row.get(0)
            })
            .optional()
            .map_err(self.wrap())?;
        row.map(|hash| {
            hash.try_into()
                .map(TreeHash::from_bytes)
                .map_err(|_| self.malformed_row("tree_hash"))
        })
        .transpose()
    }

    /// Memoises the hash of a selection of a result.
    pub fn put_tree_hash(
        &self,
        input: &Key,
        selection: &Selection,
        hash: &TreeHash,
    ) -> Result<(), IndexError> {
        self.connection()
            .prepare_cached("INSERT OR REPLACE INTO tree_hash VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| {
                statement.execute(params![
                    input.as_bytes(),
                    selection_text(selection),
                    hash.as_bytes()
                ])
            })
            .map_err(self.wrap())?;
        self.synced_soon()
    }

    /// Returns all image names, sorted by name.
    pub fn images(&self) -> Result<Vec<ImageName>, IndexError> {
        self.image_rows("SELECT * FROM image ORDER BY name", params![])
    }

    /// Returns the image that has exactly this name.
    pub fn image(&self, name: &str) -> Result<Option<ImageName>, IndexError> {
        Ok(self
            .image_rows("SELECT * FROM image WHERE name = ?1", params![name])?
            .pop())
    }

    fn image_rows(&self, query: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Vec<ImageName>, IndexError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(query).map_err(self.wrap())?;
        let rows = statement
            .query_map(params, |row| {
                Ok((
                    row.get::<_, String>("name")?,
                    row.get::<_, Vec<u8>>("config")?,
                    row.get::<_, Option<Vec<u8>>>("manifest")?,
                    row.get::<_, i64>("created")?,
                ))
            })
            .map_err(self.wrap())?;
        let digest = |bytes: Vec<u8>| {
            bytes
                .try_into()
                .map(Digest::from_bytes)
                .map_err(|_| self.malformed_row("image"))
        };
        let mut variants = connection
            .prepare_cached("SELECT platform, config FROM variant WHERE name = ?1 ORDER BY platform")
            .map_err(self.wrap())?;
        rows.map(|row| {
            let (name, config, manifest, created_unix) = row.map_err(self.wrap())?;
            let found = variants
                .query_map(params![name], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
                })
                .map_err(self.wrap())?;
            let variants = found.map(|row| {
                let (platform, config) = row.map_err(self.wrap())?;
                let config = digest(config)?;
                Ok(Variant { platform, config })
            });
            Ok(ImageName {
                config: digest(config)?,
                manifest: manifest.map(digest).transpose()?,
                variants: variants.collect::<Result<_, _>>()?,
                name,
                created_unix,
            })
        })
        .collect()
    }

    /// Gives a name to an image, taking it from whatever had it. Ok means that this is on disk, with all that was put here
    /// before.
    pub fn put_image(&self, image: &ImageName) -> Result<(), IndexError> {
        let put = |connection: &mut Connection| {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT OR REPLACE INTO image VALUES (?1, ?2, ?3, ?4)",
                params![
                    image.name,
                    image.config.as_bytes(),
                    image.manifest.as_ref().map(|manifest| manifest.as_bytes()),
                    image.created_unix
                ],
            )?;
            transaction.execute("DELETE FROM variant WHERE name = ?1", params![image.name])?;
            for Variant { platform, config } in &image.variants {
                let values = params![image.name, platform, config.as_bytes()];
                transaction.execute("INSERT INTO variant VALUES (?1, ?2, ?3)", values)?;
            }
            transaction.commit()
        };
        put(&mut self.connection()).map_err(self.wrap())?;
        self.synced()
    }

    /// Forgets a name. Says whether it was there.
    pub fn remove_image(&self, name: &str) -> Result<bool, IndexError> {
        let remove = |connection: &mut Connection| {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            transaction.execute("DELETE FROM variant WHERE name = ?1", params![name])?;
            let n_rows = transaction.execute("DELETE FROM image WHERE name = ?1", params![name])?;
            transaction.commit().map(|()| n_rows > 0)
        };
        let was_there = remove(&mut self.connection()).map_err(self.wrap())?;
        self.synced()?;
        Ok(was_there)
    }

    /// Returns what is known of the file at an address. Addresses are kept as hashes: they may hold passwords.
    pub fn fetched(&self, url: &str) -> Result<Option<Fetched>, IndexError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT etag, modified, digest FROM fetched WHERE url = ?1")
            .map_err(self.wrap())?;
        let row: Option<(Option<String>, Option<String>, Vec<u8>)> = statement
            .query_row(params![Digest::of(url.as_bytes()).as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
            .map_err(self.wrap())?;
        row.map(|(etag, modified, digest)| {
            let digest = digest.try_into().map_err(|_| self.malformed_row("fetched"))?;
            Ok(Fetched {
                etag,
                modified,
                digest: Digest::from_bytes(digest),
            })
        })
        .transpose()
    }

    /// Remembers what a web server said of the file at an address.
    pub fn put_fetched(&self, url: &str, fetched: &Fetched) -> Result<(), IndexError> {
        self.connection()
            .execute(
                "INSERT OR REPLACE INTO fetched VALUES (?1, ?2, ?3, ?4)",
                params![
                    Digest::of(url.as_bytes()).as_bytes(),
                    fetched.etag,
                    fetched.modified,
                    fetched.digest.as_bytes()
                ],
            )
            .map_err(self.wrap())?;
        self.synced()
    }

    /// Returns the known compressed form of a layer. `codec` names codec, level and block size.
    pub fn layer_blob(&self, layer: &DiffId, codec: &str) -> Result<Option<LayerBlob>, IndexError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT digest, size FROM blob WHERE diff_id = ?1 AND codec = ?2")
            .map_err(self.wrap())?;
        let row: Option<(Vec<u8>, i64)> = statement
            .query_row(params![layer.as_bytes(), codec], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .map_err(self.wrap())?;
        let Some((digest, size_bytes)) = row else {
            return Ok(None);
        };
        let malformed = || self.malformed_row("blob");
        Ok(Some(LayerBlob {
            digest: Digest::from_bytes(digest.try_into().map_err(|_| malformed())?),
            size_bytes: u64::try_from(size_bytes).map_err(|_| malformed())?,
        }))
    }

    /// Remembers a compressed form of a layer.
    pub fn put_layer_blob(&self, layer: &DiffId, codec: &str, blob: &LayerBlob) -> Result<(), IndexError> {
        let size = i64::try_from(blob.size_bytes).map_err(|_| self.malformed_row("blob"))?;
        self.connection()
            .execute(
                "INSERT OR REPLACE INTO blob VALUES (?1, ?2, ?3, ?4)",
                params![layer.as_bytes(), codec, blob.digest.as_bytes(), size],
            )
            .map_err(self.wrap())?;
        self.synced()
    }
}

fn selection_text(selection: &Selection) -> String {
    serde_json::to_string(selection).expect("strings are valid JSON")
}

fn split_diff_ids(bytes: &[u8]) -> Option<Vec<DiffId>> {
    let (ids, rest) = bytes.as_chunks::<32>();
    rest.is_empty()
        .then(|| ids.iter().map(|id| DiffId::from_bytes(*id)).collect())
}

/// Says whether the file itself is at fault, rather than the disk or another process.
fn is_damage(error: &IndexError) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        IndexError::Sqlite { source, .. } => {
            matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
                || health::is_unreadable(source)
        }
        IndexError::Malformed { .. } => true,
        IndexError::Full { .. } | IndexError::Sync { .. } | IndexError::SetAside { .. } => false,
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
