//! Compares trees of files by everything that a layer keeps.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// All about one name, ready to be compared and shown. Hard links by the first name of their group.
pub(super) type Tree = BTreeMap<Vec<u8>, String>;

/// Reads the tree at `root`, entering it by descending, so that depth doesn't matter.
pub(super) fn scan(root: &str) -> Tree {
    let mut tree = Tree::new();
    let mut groups: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    let mut ahead = vec![Vec::<u8>::new()];
    while let Some(name) = ahead.pop() {
        let mut full = PathBuf::from(root);
        full.push(OsStr::from_bytes(&name));
        // The mount itself is reached through a link.
        let meta = if name.is_empty() {
            std::fs::metadata(&full)
        } else {
            std::fs::symlink_metadata(&full)
        };
        let meta = match meta {
            // Overlay lists the whiteouts of directories that only one layer has, and then doesn't find them.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            meta => meta.unwrap(),
        };
        let file_type = meta.file_type();
        let mut text = format!(
            "mode {:o} owner {}:{} mtime {}.{:09} xattrs {:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            xattrs(&full, name.is_empty()),
        );
        if file_type.is_dir() {
            for entry in std::fs::read_dir(&full).unwrap() {
                let child = entry.unwrap().file_name();
                let mut below = name.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(child.as_bytes());
                ahead.push(below);
            }
        } else {
            text += &format!(" links {} rdev {}", meta.nlink(), meta.rdev());
            let group = groups
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| name.clone());
            if *group > name {
                group.clone_from(&name);
            }
            if file_type.is_file() {
                text += &format!(" size {} content {}", meta.len(), content(&full));
            } else if file_type.is_symlink() {
                let target = std::fs::read_link(&full).unwrap();
                text += &format!(" target {}", target.as_os_str().as_bytes().escape_ascii());
            }
        }
        let key = (meta.dev(), meta.ino());
        if !file_type.is_dir() {
            text += &format!(" inode {}:{}", key.0, key.1);
        }
        tree.insert(name, text);
    }
    name_groups(&mut tree, &groups);
    tree
}

/// Replaces inode numbers, which differ between file systems, by the first name of the inode.
fn name_groups(tree: &mut Tree, groups: &BTreeMap<(u64, u64), Vec<u8>>) {
    for text in tree.values_mut() {
        let Some((rest, inode)) = text.split_once(" inode ") else {
            continue;
        };
        let (device, inode) = inode.split_once(':').unwrap();
        let first = &groups[&(device.parse().unwrap(), inode.parse().unwrap())];
        *text = format!("{rest} first name {}", first.escape_ascii());
    }
}

fn content(path: &std::path::Path) -> String {
    match std::fs::File::open(path) {
        Ok(file) => {
            let mut hasher = blake3::Hasher::new();
            let mut file = file;
            std::io::copy(&mut file, &mut hasher).unwrap();
            hasher.finalize().to_hex()[..16].to_owned()
        }
        Err(error) => error.to_string(),
    }
}

fn xattrs(path: &std::path::Path, follow: bool) -> Vec<(String, String)> {
    let mut list = vec![0; 65536];
    let length = if follow {
        rustix::fs::listxattr(path, &mut list)
    } else {
        rustix::fs::llistxattr(path, &mut list)
    };
    let names = &list[..length.unwrap_or(0)];
    let mut out = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0; 65536];
        let length = if follow {
            rustix::fs::getxattr(path, name, &mut value)
        } else {
            rustix::fs::lgetxattr(path, name, &mut value)
        };
        // The kernel lists, and doesn't give out, what makes no sense: user attributes of links, invalid capabilities.
        let value = length.map_or_else(
            |error| error.to_string(),
            |length| value[..length].escape_ascii().to_string(),
        );
        out.push((name.escape_ascii().to_string(), value));
    }
    out.sort();
    out
}

/// Compares two trees; `root` is left out, because a layer's root needn't be in its tar.
pub(super) fn assert_same(what: &str, expected: &Tree, found: &Tree) {
    let names: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differ = |name: &&&Vec<u8>| !name.is_empty() && expected.get(**name) != found.get(**name);
    let differences: Vec<String> = names
        .iter()
        .filter(differ)
        .take(5)
        .map(|name| {
            let (expected, found) = (expected.get(*name), found.get(*name));
            format!(
                "{}\n  expected {expected:?}\n  found    {found:?}",
                name.escape_ascii()
            )
        })
        .collect();
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
    assert!(expected.len() > 1, "{what}: there is something to compare");
}
