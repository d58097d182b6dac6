//! File trees as tests compare them: read from a directory or from layers, and shown as differences.
//!
//! Written without the product's own readers: a fault in those must not hide itself.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Files up to this size keep their content beside its hash, for `image-file` and for messages.
const KEPT_BYTES: usize = 64 * 1024;

/// A path from the root, without a leading slash; the root itself is not listed.
pub(crate) type Name = Vec<u8>;

/// What kind of file stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File {
        sha256: [u8; 32],
        size_bytes: u64,
        content: Option<Vec<u8>>,
    },
    Dir,
    Symlink(Vec<u8>),
    Char(u64, u64),
    Block(u64, u64),
    Fifo,
}

/// One file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: i64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A whole file system, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(pub(crate) BTreeMap<Name, Node>);

/// Modification times are compared only where both sides had to keep them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    Compare,
    Ignore,
}

impl Tree {
    /// Reads a directory without following any symlink.
    pub(crate) fn from_dir(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut pending = vec![root.to_owned()];
        while let Some(dir) = pending.pop() {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let node = read_node(&path);
                if node.kind == Kind::Dir {
                    pending.push(path.clone());
                }
                let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
                tree.0.insert(name, node);
            }
        }
        tree
    }

    /// Lays a layer's tar over this tree: its whiteouts first, whatever their place in the tar.
    pub(crate) fn apply(&mut self, layer: impl Read) -> Result<(), String> {
        let mut archive = tar::Archive::new(layer);
        let mut added: Vec<(Name, Node)> = Vec::new();
        let mut links: Vec<(Name, Name)> = Vec::new();
        for entry in archive.entries().map_err(|e| format!("layer: {e}"))? {
            let mut entry = entry.map_err(|e| format!("layer: {e}"))?;
            let name = clean(&entry.path_bytes());
            if let Some(victim) = whiteout(&name) {
                self.remove(&victim);
            } else if entry.header().entry_type() == tar::EntryType::Link {
                let target = entry.link_name_bytes().ok_or("hard link without a target")?;
                links.push((name, clean(&target)));
            } else if !name.is_empty() {
                let node = entry_node(&mut entry)?;
                added.push((name, node));
            }
        }
        for (name, node) in added {
            self.put(name, node);
        }
        for (name, target) in links {
            let node = self
                .0
                .get(&target)
                .cloned()
                .ok_or_else(|| format!("hard link {} to missing {}", text(&name), text(&target)))?;
            self.put(name, node);
        }
        Ok(())
    }

    fn put(&mut self, name: Name, node: Node) {
        if node.kind != Kind::Dir {
            self.remove(&Victim::Path(name.clone()));
        }
        self.0.insert(name, node);
    }

    fn remove(&mut self, victim: &Victim) {
        let (path, itself) = match victim {
            Victim::Path(path) => (path, true),
            Victim::Below(path) => (path, false),
        };
        if itself {
            self.0.remove(path);
        }
        let mut prefix = path.clone();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        self.0.retain(|name, _| !name.starts_with(&prefix));
    }

    /// Returns the node at `path` (leading slash optional), following no symlink.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(&clean(path.as_bytes()))
    }

    /// Returns one line per difference from `other`, with the words for either side.
    pub(crate) fn differences(&self, other: &Self, sides: (&str, &str), times: Times) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, node) in &self.0 {
            match other.0.get(name) {
                None => lines.push(format!("/{}: only in {}", text(name), sides.0)),
                Some(theirs) => {
                    let parts = node.differences(theirs, times);
                    lines.extend(
                        parts
                            .iter()
                            .map(|p| format!("/{}: {p} ({} vs {})", text(name), sides.0, sides.1)),
                    );
                }
            }
        }
        let only = other.0.keys().filter(|name| !self.0.contains_key(*name));
        lines.extend(only.map(|name| format!("/{}: only in {}", text(name), sides.1)));
        lines
    }
}

impl Node {
    /// Describes the node as `image-stat` compares it: `file 0644 0:0`, `symlink 0777 0:0 -> target`.
    pub(crate) fn describe(&self) -> String {
        let (word, more) = match &self.kind {
            Kind::File { .. } => ("file", String::new()),
            Kind::Dir => ("dir", String::new()),
            Kind::Symlink(target) => ("symlink", format!(" -> {}", text(target))),
            Kind::Char(major, minor) => ("char", format!(" {major},{minor}")),
            Kind::Block(major, minor) => ("block", format!(" {major},{minor}")),
            Kind::Fifo => ("fifo", String::new()),
        };
        format!("{word} {:04o} {}:{}{more}", self.mode, self.uid, self.gid)
    }

    fn differences(&self, other: &Self, times: Times) -> Vec<String> {
        let mut parts = Vec::new();
        if self.describe() != other.describe() {
            parts.push(format!("{} ≠ {}", self.describe(), other.describe()));
        }
        if let (
            Kind::File {
                sha256: a,
                size_bytes: n,
                ..
            },
            Kind::File {
                sha256: b,
                size_bytes: m,
                ..
            },
        ) = (&self.kind, &other.kind)
            && a != b
        {
            parts.push(format!("content of {n} bytes ≠ content of {m} bytes"));
        }
        if self.xattrs != other.xattrs {
            let names = |n: &Self| n.xattrs.keys().map(|k| text(k)).collect::<Vec<_>>().join(",");
            parts.push(format!("xattrs [{}] ≠ [{}]", names(self), names(other)));
        }
        if times == Times::Compare && self.mtime != other.mtime {
            parts.push(format!("mtime {} ≠ {}", self.mtime, other.mtime));
        }
        parts
    }
}

enum Victim {
    Path(Name),
    Below(Name),
}

/// Spec: OCI image-spec, layer.md#whiteouts.
fn whiteout(name: &[u8]) -> Option<Victim> {
    let at = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    let parent = name[..at.saturating_sub(1)].to_vec();
    let hidden = name[at..].strip_prefix(b".wh.")?;
    if hidden == b".wh..opq" {
        return Some(Victim::Below(parent));
    }
    Some(Victim::Path([&name[..at], hidden].concat()))
}

fn clean(path: &[u8]) -> Name {
    let parts = path
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

/// Shows bytes as text, escaped where they are not.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn file_kind(mut reader: impl Read) -> Result<Kind, String> {
    let mut hasher = Sha256::new();
    let mut kept = Vec::new();
    let mut size_bytes = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = reader
            .read(&mut buffer)
            .map_err(|e| format!("cannot read a file: {e}"))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        size_bytes += n as u64;
        if kept.len() <= KEPT_BYTES {
            kept.extend_from_slice(&buffer[..n]);
        }
    }
    let content = (size_bytes <= KEPT_BYTES as u64).then_some(kept);
    Ok(Kind::File {
        sha256: hasher.finalize().into(),
        size_bytes,
        content,
    })
}

fn entry_node<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Node, String> {
    let fault = |e: std::io::Error| format!("layer entry: {e}");
    let mut xattrs = BTreeMap::new();
    let (mut uid, mut gid) = (
        entry.header().uid().map_err(fault)?,
        entry.header().gid().map_err(fault)?,
    );
    if let Some(extensions) = entry.pax_extensions().map_err(fault)? {
        for extension in extensions {
            let extension = extension.map_err(fault)?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            let number = || {
                String::from_utf8_lossy(value)
                    .parse::<u64>()
                    .map_err(|e| format!("PAX: {e}"))
            };
            match key {
                b"uid" => uid = number()?,
                b"gid" => gid = number()?,
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
        }
    }
    let header = entry.header().clone();
    let device = || {
        let (major, minor) = (
            header.device_major().ok().flatten(),
            header.device_minor().ok().flatten(),
        );
        (u64::from(major.unwrap_or(0)), u64::from(minor.unwrap_or(0)))
    };
    let kind = match header.entry_type() {
        tar::EntryType::Directory => Kind::Dir,
        tar::EntryType::Symlink => Kind::Symlink(
            entry
                .link_name_bytes()
                .ok_or("symlink without a target")?
                .into_owned(),
        ),
        tar::EntryType::Char => Kind::Char(device().0, device().1),
        tar::EntryType::Block => Kind::Block(device().0, device().1),
        tar::EntryType::Fifo => Kind::Fifo,
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            file_kind(&mut *entry)?
        }
        other => return Err(format!("layer entry of type {other:?}")),
    };
    let mode = permissions(&kind, header.mode().map_err(fault)?);
    let mtime = header.mtime().map_err(fault)?.cast_signed();
    Ok(Node {
        kind,
        mode,
        uid,
        gid,
        mtime,
        xattrs,
    })
}

fn read_node(path: &Path) -> Node {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let device = (
        u64::from(rustix::fs::major(meta.rdev())),
        u64::from(rustix::fs::minor(meta.rdev())),
    );
    let file_type = meta.file_type();
    let kind = if file_type.is_dir() {
        Kind::Dir
    } else if file_type.is_symlink() {
        Kind::Symlink(std::fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec())
    } else if file_type.is_char_device() {
        Kind::Char(device.0, device.1)
    } else if file_type.is_block_device() {
        Kind::Block(device.0, device.1)
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else {
        file_kind(std::fs::File::open(path).unwrap()).unwrap()
    };
    let mode = permissions(&kind, meta.mode());
    let (uid, gid) = (u64::from(meta.uid()), u64::from(meta.gid()));
    Node {
        kind,
        mode,
        uid,
        gid,
        mtime: meta.mtime(),
        xattrs: read_xattrs(path),
    }
}

/// Symlinks have no permissions on Linux; builders write 0777 or whatever their tar library does.
fn permissions(kind: &Kind, mode: u32) -> u32 {
    if matches!(kind, Kind::Symlink(_)) {
        0o777
    } else {
        mode & 0o7777
    }
}

fn read_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 1 << 16];
    // File systems without extended attributes have none.
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let listed = names[..n].split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut xattrs = BTreeMap::new();
    for name in listed {
        let mut value = vec![0_u8; 1 << 16];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(n);
        xattrs.insert(name.to_vec(), value);
    }
    xattrs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
            if is_link {
                header.set_link_name(content).unwrap();
            }
            let data = if is_link { "" } else { content };
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, path, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn check(layers: &[&[(&str, tar::EntryType, &str)]], expected: &str) {
        let mut tree = Tree::default();
        for entries in layers {
            tree.apply(&layer(entries)[..]).unwrap();
        }
        let shown: Vec<String> = tree.0.keys().map(|name| text(name)).collect();
        assert_eq!(shown.join(" "), expected);
    }

    #[test]
    fn layers_are_laid_over_each_other() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let base: &[_] = &[
            ("a/", Directory, ""),
            ("a/x", Regular, "1"),
            ("a/y", Regular, "2"),
            ("b", Regular, "3"),
        ];
        check(&[base], "a a/x a/y b");
        check(&[base, &[("a/.wh.x", Regular, "")]], "a a/y b");
        check(
            &[base, &[("a/z", Regular, ""), ("a/.wh..wh..opq", Regular, "")]],
            "a a/z b",
        );
        check(&[base, &[("a", Symlink, "b")]], "a b");
        check(
            &[base, &[("c", Link, "a/x"), (".wh.b", Regular, "")]],
            "a a/x a/y c",
        );
        check(&[base, &[("./a/", Directory, "")]], "a a/x a/y b");
    }

    #[test]
    fn differences_name_the_path_and_both_sides() {
        let mut one = Tree::default();
        let mut two = Tree::default();
        use tar::EntryType::{Directory, Regular};
        one.apply(
            &layer(&[
                ("same", Regular, "s"),
                ("f", Regular, "x"),
                ("gone", Directory, ""),
            ])[..],
        )
        .unwrap();
        two.apply(
            &layer(&[
                ("same", Regular, "s"),
                ("f", Regular, "yy"),
                ("new", Directory, ""),
            ])[..],
        )
        .unwrap();
        let lines = one.differences(&two, ("ours", "theirs"), Times::Compare);
        insta::assert_snapshot!(lines.join("\n"), @r"
        /f: content of 1 bytes ≠ content of 2 bytes (ours vs theirs)
        /gone: only in ours
        /new: only in theirs
        ");
    }

    #[test]
    fn a_directory_and_its_tar_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/file"), "content").unwrap();
        std::os::unix::fs::symlink("d/file", dir.path().join("link")).unwrap();
        let tar = std::process::Command::new("tar")
            .arg("-C")
            .arg(dir.path())
            .args(["-c", "."])
            .output()
            .unwrap();
        let mut tree = Tree::default();
        tree.apply(&tar.stdout[..]).unwrap();
        let lines = Tree::from_dir(dir.path()).differences(&tree, ("dir", "tar"), Times::Compare);
        assert_eq!(lines, Vec::<String>::new());
        assert_eq!(
            tree.get("/link").unwrap().describe().split(' ').next(),
            Some("symlink")
        );
    }
}
