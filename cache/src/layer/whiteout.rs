//! The names by which a layer removes what lies below it. Spec: OCI image-spec, layer.md#whiteouts.
//!
//! Whiteouts exist as `.wh.` names in the tar only; in the index they are entries of their own kind, and in the
//! mountable metadata what overlayfs wants. Nothing else may use such names.

use super::TreePath;
use crate::error::Problem;

/// What the name of every marker begins with.
pub(super) const PREFIX: &[u8] = b".wh.";
const META_PREFIX: &[u8] = b".wh..wh.";
/// Marks the directory that holds it as opaque.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the name of an archive's entry says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// Nothing special: an entry at this path.
    Plain(TreePath),
    /// This path is removed.
    Whiteout(TreePath),
    /// The directory of this name is opaque.
    Opaque(TreePath),
    /// Left over from aufs; says nothing.
    Leftover,
}

/// Reads what `path` stands for.
pub(super) fn classify(path: TreePath) -> Result<Marker, Problem> {
    let (Some(name), Some(parent)) = (path.name(), path.parent()) else {
        return Ok(Marker::Plain(path));
    };
    if path
        .components()
        .any(|part| part.starts_with(META_PREFIX) && part != OPAQUE)
    {
        return Ok(Marker::Leftover);
    }
    if parent.components().any(|part| part.starts_with(PREFIX)) {
        return Err(Problem::ReservedName);
    }
    if name == OPAQUE {
        return Ok(Marker::Opaque(parent));
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Marker::Plain(path)),
        Some(b"" | b"." | b"..") => Err(Problem::Whiteout),
        Some(gone) => Ok(Marker::Whiteout(parent.join(gone))),
    }
}

/// Refuses a path that would be read back as a whiteout.
pub(super) fn check_ordinary(path: &TreePath) -> Result<(), Problem> {
    let reserved = path.components().any(|part| part.starts_with(PREFIX));
    if reserved {
        Err(Problem::ReservedName)
    } else {
        Ok(())
    }
}

/// Returns the name in the tar that removes `path`.
pub(super) fn whiteout_path(path: &TreePath) -> TreePath {
    let (Some(name), Some(parent)) = (path.name(), path.parent()) else {
        return TreePath::root();
    };
    parent.join(&[PREFIX, name].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_removed() {
        let path = |text: &str| TreePath::clean(text.as_bytes());
        let cases = [
            ("a/b", Ok(Marker::Plain(path("a/b")))),
            ("a/.wh.b", Ok(Marker::Whiteout(path("a/b")))),
            (".wh.b", Ok(Marker::Whiteout(path("b")))),
            ("a/.wh..wh..opq", Ok(Marker::Opaque(path("a")))),
            (".wh..wh..opq", Ok(Marker::Opaque(path("")))),
            (".wh..wh.plnk/1.2", Ok(Marker::Leftover)),
            ("a/.wh.", Err(Problem::Whiteout)),
            ("a/.wh..", Err(Problem::Whiteout)),
            ("a/.wh...", Err(Problem::Whiteout)),
            (".wh.a/b", Err(Problem::ReservedName)),
            ("", Ok(Marker::Plain(path("")))),
        ];
        for (name, expected) in cases {
            assert_eq!(classify(path(name)), expected, "{name}");
        }
        assert_eq!(whiteout_path(&path("a/b")), path("a/.wh.b"));
    }
}
