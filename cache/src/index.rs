//! The index: step records, tree hashes, image names, and which compressed blobs exist for a layer. SQLite in WAL
//! mode, so that any number of processes may use it and a crash leaves it whole.
//!
//! Nothing here is believed over content: a record is used only when the layer files it names are there, and losing
//! the whole file costs time, never a wrong image. A damaged file is set aside and started anew.

mod health;
mod place;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};

use crate::digest::{DiffId, Digest, Key, TreeHash};
use crate::record::Record;
use crate::tree::Selection;

pub use health::is_suspect;
pub use upkeep::{Evicted, KnownForm, RecordSummary};

/// How long others are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long between two tries to open it.
const PAUSE: Duration = Duration::from_millis(2);
/// What brings an index from each version to the next. The version is written into the file; an older index is brought
/// up to date, a newer one is set aside.
const STEPS: [&str; 4] = [
    "
CREATE TABLE record (key BLOB PRIMARY KEY, step TEXT NOT NULL, layers BLOB NOT NULL, components TEXT NOT NULL,
    created INTEGER NOT NULL, took_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX record_step ON record (step, created);
CREATE TABLE tree_hash (input BLOB, selection TEXT, hash BLOB NOT NULL, PRIMARY KEY (input, selection)) WITHOUT ROWID;
CREATE TABLE image (name TEXT PRIMARY KEY, config BLOB NOT NULL, manifest BLOB, created INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE blob (diff_id BLOB, codec TEXT, digest BLOB NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (diff_id, codec)) WITHOUT ROWID;
",
    "
CREATE TABLE variant (name TEXT, platform TEXT, config BLOB NOT NULL, PRIMARY KEY (name, platform)) WITHOUT ROWID;
",
    "
CREATE TABLE fetched (url BLOB PRIMARY KEY, etag TEXT, modified TEXT, digest BLOB NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE evicted (layer BLOB PRIMARY KEY, at INTEGER NOT NULL, because TEXT NOT NULL) WITHOUT ROWID;
",
];

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
    /// A row that this program would not write.
    #[error("index {path}: a row of `{table}` is malformed")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        table: &'static str,
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
}

impl Index {
    /// Opens the index, making it when missing. The second value is where a damaged one was moved to, if it was.
    pub fn open(path: &Path) -> Result<(Self, Option<PathBuf>), IndexError> {
        match Self::open_patiently(path) {
            Ok(index) if health::is_suspect(path) => index.settle_suspicion(),
            Ok(index) => Ok((index, None)),
            Err(error) if is_damage(&error) => {
                let aside = set_aside(path)?;
                Ok((Self::open_patiently(path)?, Some(aside)))
            }
            Err(error) => Err(error),
        }
    }

    /// Who makes the file, or is the last to close it, keeps others out for a moment without SQLite's waiting for that.
    fn open_patiently(path: &Path) -> Result<Self, IndexError> {
        let began = Instant::now();
        loop {
            match Self::try_open(path) {
                Err(error) if is_busy(&error) && began.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                other => return other,
            }
        }
    }

    fn try_open(path: &Path) -> Result<Self, IndexError> {
        let wrap = |source| IndexError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let mut connection = Connection::open(path).map_err(wrap)?;
        connection.busy_timeout(PATIENCE).map_err(wrap)?;
        let mode: String = connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .map_err(wrap)?;
        let wanted = place::journal(path);
        if mode != wanted {
            connection
                .pragma_update(None, "journal_mode", wanted)
                .map_err(wrap)?;
        }
        connection
            .pragma_update(None, "synchronous", "full")
            .map_err(wrap)?;
        let newest = i32::try_from(STEPS.len()).expect("because there are few steps");
        let version = user_version(&connection).map_err(wrap)?;
        if !(0..=newest).contains(&version) {
            return Err(IndexError::Malformed {
                path: path.to_owned(),
                table: "user_version",
            });
        }
        if version < newest {
            let transaction = connection
                .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
                .map_err(wrap)?;
            // Another process may have been first.
            let version = user_version(&transaction).map_err(wrap)?;
            for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
                transaction.execute_batch(step).map_err(wrap)?;
            }
            transaction
                .pragma_update(None, "user_version", newest)
                .map_err(wrap)?;
            transaction.commit().map_err(wrap)?;
        }
        Ok(Self {
            connection: Mutex::new(connection),
            path: path.to_owned(),
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrap(&self) -> impl Fn(rusqlite::Error) -> IndexError + '_ {
        |source| {
            let error = IndexError::Sqlite {
                path: self.path.clone(),
                source,
            };
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
    /// result are forgotten: they were hashes of other bytes.
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
        transaction.commit().map_err(self.wrap())
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
        Ok(())
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

    /// Gives a name to an image, taking it from whatever had it.
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
        put(&mut self.connection()).map_err(self.wrap())
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
        remove(&mut self.connection()).map_err(self.wrap())
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
        Ok(())
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
        Ok(())
    }
}

fn user_version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn selection_text(selection: &Selection) -> String {
    serde_json::to_string(selection).expect("strings are valid JSON")
}

fn split_diff_ids(bytes: &[u8]) -> Option<Vec<DiffId>> {
    let (ids, rest) = bytes.as_chunks::<32>();
    rest.is_empty()
        .then(|| ids.iter().map(|id| DiffId::from_bytes(*id)).collect())
}

/// Says whether another process is in the way for now.
fn is_busy(error: &IndexError) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    match error {
        IndexError::Sqlite { source, .. } => {
            matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
        }
        IndexError::Malformed { .. } | IndexError::SetAside { .. } => false,
    }
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
        IndexError::SetAside { .. } => false,
    }
}

/// Moves a damaged index and its journals out of the way, keeping them for a look.
fn set_aside(path: &Path) -> Result<PathBuf, IndexError> {
    let with_suffix = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = (1..)
        .map(|n| with_suffix(&format!(".damaged-{n}")))
        .find(|candidate| !candidate.exists())
        .expect("there are more numbers than files");
    std::fs::rename(path, &aside).map_err(|source| IndexError::SetAside {
        path: path.to_owned(),
        source,
    })?;
    for journal in ["-wal", "-shm"] {
        // A journal of the old file must not be replayed into the new one.
        match std::fs::remove_file(with_suffix(journal)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(IndexError::SetAside {
                    path: with_suffix(journal),
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
