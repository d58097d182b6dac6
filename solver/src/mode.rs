//! Permission changes: `--chmod` in octal and symbolic form. Spec: chmod(1), dockerfile.md §10.5.

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModeChange {
    /// These bits exactly, 0 to 0o7777.
    Octal(u32),
    /// Symbolic clauses, as written (`u=rwX,go=rX`); checked when parsed.
    Symbolic(String),
}
