//! Whether the index is sound: the database as SQLite sees it, and rows that this program would not write.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;

use super::open::{Disk, set_aside};
use super::{Index, IndexError, is_damage};

/// What rows of each table can't be.
const MALFORMED: [(&str, &str); 7] = [
    (
        "record",
        "typeof(key) <> 'blob' OR length(key) <> 32 OR typeof(layers) <> 'blob' OR length(layers) % 32 <> 0
            OR typeof(step) <> 'text' OR typeof(components) <> 'text' OR NOT json_valid(components)
            OR typeof(created) <> 'integer' OR typeof(took_ms) <> 'integer'",
    ),
    (
        "tree_hash",
        "typeof(input) <> 'blob' OR length(input) <> 32 OR typeof(hash) <> 'blob' OR length(hash) <> 32
            OR typeof(selection) <> 'text'",
    ),
    (
        "image",
        "typeof(name) <> 'text' OR typeof(config) <> 'blob' OR length(config) <> 32
            OR manifest IS NOT NULL AND (typeof(manifest) <> 'blob' OR length(manifest) <> 32)
            OR typeof(created) <> 'integer'",
    ),
    (
        "blob",
        "typeof(diff_id) <> 'blob' OR length(diff_id) <> 32 OR typeof(digest) <> 'blob' OR length(digest) <> 32
            OR typeof(codec) <> 'text' OR typeof(size) <> 'integer' OR size < 0",
    ),
    (
        "variant",
        "typeof(name) <> 'text' OR typeof(platform) <> 'text' OR typeof(config) <> 'blob' OR length(config) <> 32",
    ),
    (
        "fetched",
        "typeof(url) <> 'blob' OR length(url) <> 32 OR typeof(digest) <> 'blob' OR length(digest) <> 32",
    ),
    (
        "evicted",
        "typeof(layer) <> 'blob' OR length(layer) <> 32 OR typeof(at) <> 'integer' OR typeof(because) <> 'text'",
    ),
];

/// Says whether SQLite gave something that isn't what this program writes there.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    matches!(
        error,
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..)
    )
}

/// Returns the mark of an index that was found damaged while it was used.
fn mark(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".suspect");
    PathBuf::from(name)
}

/// Says whether an index was found damaged while it was used: whoever opens it next looks closely.
pub fn is_suspect(path: &Path) -> bool {
    mark(path).exists()
}

/// Leaves a mark for whoever opens the index next. Where that can't be written, the damage is met once more.
pub(super) fn suspect(path: &Path) {
    let _ = File::create(mark(path));
}

impl IndexError {
    /// Says whether the disk is full. SQLite doesn't tell why a file can't be made.
    pub fn is_full(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, SystemIoFailure};
        match self {
            Self::Full { .. } => true,
            Self::Sqlite { path, source } => match source.sqlite_error_code() {
                Some(CannotOpen | SystemIoFailure) => rustix::fs::statvfs(path)
                    .is_ok_and(|disk| disk.f_bavail == 0 || disk.f_favail == 0 && disk.f_files > 0),
                _ => false,
            },
            _ => false,
        }
    }
}

impl Index {
    /// Looks closely at an index that was found damaged; sets it aside, or takes what is malformed out of it.
    pub(super) fn settle_suspicion(self, disk: Disk) -> Result<(Self, Option<PathBuf>), IndexError> {
        let path = self.path.clone();
        let is_sound = self.fault(true)?.is_none() && self.has_only_text()?;
        let settled = if is_sound && self.forget_malformed().is_ok() {
            (self, None)
        } else {
            drop(self);
            let aside = set_aside(&path)?;
            (Self::open_patiently(&path, disk)?, Some(aside))
        };
        // If it stays, it is looked at once more.
        let _ = std::fs::remove_file(mark(&path));
        Ok(settled)
    }

    /// Asks SQLite whether the database is whole; `None` when it is. `deep`: indexes, too.
    pub fn fault(&self, deep: bool) -> Result<Option<String>, IndexError> {
        let pragma = if deep { "integrity_check" } else { "quick_check" };
        let asked = self
            .connection()
            .pragma_query_value(None, pragma, |row| row.get::<_, String>(0))
            .map_err(self.wrap());
        match asked {
            Ok(answer) if answer == "ok" => Ok(None),
            Ok(answer) => Ok(Some(answer.lines().next().unwrap_or_default().to_owned())),
            Err(error) if is_damage(&error) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Says whether all that calls itself text is some: SQLite doesn't look.
    fn has_only_text(&self) -> Result<bool, IndexError> {
        let connection = self.connection();
        for (table, _) in MALFORMED {
            let mut statement = connection
                .prepare(&format!("SELECT * FROM {table}"))
                .map_err(self.wrap())?;
            let n_columns = statement.column_count();
            let mut rows = statement.query([]).map_err(self.wrap())?;
            while let Some(row) = rows.next().map_err(self.wrap())? {
                for column in 0..n_columns {
                    if let ValueRef::Text(bytes) = row.get_ref(column).map_err(self.wrap())?
                        && std::str::from_utf8(bytes).is_err()
                    {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Returns the tables that have malformed rows, with their number.
    pub fn malformed(&self) -> Result<Vec<(&'static str, u64)>, IndexError> {
        let connection = self.connection();
        let mut found = Vec::new();
        for (table, condition) in MALFORMED {
            let query = format!("SELECT count(*) FROM {table} WHERE {condition}");
            let n_rows: i64 = connection
                .query_row(&query, [], |row| row.get(0))
                .map_err(self.wrap())?;
            if n_rows > 0 {
                found.push((table, n_rows.unsigned_abs()));
            }
        }
        Ok(found)
    }

    /// Removes malformed rows.
    pub fn forget_malformed(&self) -> Result<(), IndexError> {
        let connection = self.connection();
        for (table, condition) in MALFORMED {
            let command = format!("DELETE FROM {table} WHERE {condition}");
            connection.execute(&command, []).map_err(self.wrap())?;
        }
        Ok(())
    }

    /// Moves the database out of the way, keeping it for a look. This handle goes on with what was moved: the next one that
    /// is opened starts anew.
    pub fn set_aside(&self) -> Result<PathBuf, IndexError> {
        set_aside(&self.path)
    }
}
