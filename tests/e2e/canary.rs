//! Files of the machine that no build may read, change or reach: what hostile images aim at (H-CANARY).
//!
//! Planted beside a test's work directory, with a random token in it. Afterwards nothing of it has changed (type, mode,
//! owner, size, times, inode, links, attributes, content), nor has `/etc`, nor what lies directly in `/root` and in the home
//! directory that the programs are told of; and the token is in no file of the test's store and outputs, plain, compressed,
//! or written in another way. What programs said is given in by the caller. Not watched, because others change it
//! meanwhile: what lies below the directories of `/root`. The current directory is where results go.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use regex::bytes::Regex;

use crate::archive;
use crate::scene::Scene;

/// Larger files of a test are images of noise, which compress nothing that could hide the token.
const MAX_SCANNED_BYTES: u64 = 64 << 20;
/// Other tests make users meanwhile.
const ACCOUNTS: [&str; 6] = ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"];

/// What is watched, and how it was.
pub(crate) struct Canary {
    dir: PathBuf,
    token: String,
    /// The token in every way in which it is looked for.
    spellings: Regex,
    /// What is watched besides; of the second only what lies directly in it.
    around: [PathBuf; 2],
    before: BTreeMap<PathBuf, String>,
}

impl Canary {
    /// Makes the files below `canary/` of the scene, and remembers how they and `/etc` are.
    pub(crate) fn plant(scene: &Scene) -> Self {
        let dir = scene.aside("canary");
        std::fs::create_dir(&dir).unwrap();
        let token = random_token();
        let around = [PathBuf::from("/root"), scene.aside("home")];
        for (name, mode) in [("victim", 0o600), ("suid", 0o4755)] {
            std::fs::write(dir.join(name), &token).unwrap();
            std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(dir.join("dir")).unwrap();
        let fifo = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("fifo"), fifo).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
        let before = snapshot(&dir, &around);
        Self {
            spellings: spellings(&token),
            dir,
            token,
            around,
            before,
        }
    }

    /// Returns the directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Says whether a program told the secret.
    pub(crate) fn is_told(&self, said: &[u8]) -> bool {
        self.spellings.is_match(said)
    }

    /// Returns what isn't as it was, and every file of the scene that has the token; one line each.
    pub(crate) fn problems(&self, scene: &Scene) -> Vec<String> {
        let after = snapshot(&self.dir, &self.around);
        let mut found = Vec::new();
        for (path, was) in &self.before {
            match after.get(path) {
                Some(is) if is == was => {}
                Some(is) => found.push(format!("{} was {was} and is {is}", path.display())),
                None => found.push(format!("{} is gone", path.display())),
            }
        }
        let new = after.keys().filter(|path| !self.before.contains_key(*path));
        found.extend(new.map(|path| format!("{} is new", path.display())));
        found.extend(self.copies(scene.dir()));
        found
    }

    fn copies(&self, root: &Path) -> Vec<String> {
        let mut pending = vec![root.to_owned()];
        let mut found = Vec::new();
        while let Some(dir) = pending.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() && path != self.dir {
                    pending.push(path);
                } else if meta.is_file() && meta.len() < MAX_SCANNED_BYTES {
                    let bytes = std::fs::read(&path).unwrap_or_default();
                    let plain = archive::decompress(bytes.clone()).unwrap_or_default();
                    if self.is_told(&bytes) || self.is_told(&plain) {
                        found.push(format!("{} has the token", path.display()));
                    }
                }
            }
        }
        found
    }
}

fn random_token() -> String {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("canary-{}", hex.collect::<String>())
}

/// Finds the token as it is, in hexadecimal digits, and in base64 wherever it may begin in what is encoded.
fn spellings(token: &str) -> Regex {
    let hex: String = token.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut found = vec![token.to_owned(), hex.to_uppercase(), hex];
    for n_before in 0..3 {
        let padded = [&b"\0\0\0"[..n_before], token.as_bytes()].concat();
        let encoded = base64(&padded);
        // What lies next to it decides about the first and the last characters.
        found.push(encoded[4..encoded.len() - 4].to_owned());
    }
    let patterns: Vec<String> = found.iter().map(|spelling| regex::escape(spelling)).collect();
    Regex::new(&format!("(?-u:{})", patterns.join("|"))).unwrap()
}

/// Encodes whole groups of three bytes; what is left over at the end is left out.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).flat_map(|group| {
        let bits = group
            .iter()
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]))
    });
    groups.collect()
}

/// Describes every file below the canary and `/etc`, and those directly in the directories `around`: the time of change is
/// there, which nothing can set back.
fn snapshot(canary: &Path, around: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![(canary.to_owned(), true), (PathBuf::from("/etc"), false)];
    for dir in around {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| !path.is_dir());
        pending.extend(files.map(|path| (path, false)));
    }
    while let Some((path, strict)) = pending.pop() {
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if ACCOUNTS
            .iter()
            .any(|file| name.trim_start_matches('.').starts_with(file))
        {
            continue;
        }
        if meta.is_dir() {
            let below = std::fs::read_dir(&path).into_iter().flatten().flatten();
            pending.extend(below.map(|entry| (entry.path(), strict)));
        }
        let is_busy = meta.is_dir() && !strict;
        let times = if is_busy {
            (0, 0, 0)
        } else {
            (meta.ctime(), meta.ctime_nsec(), meta.mtime())
        };
        let size_bytes = if is_busy { 0 } else { meta.len() };
        let links = if is_busy { 0 } else { meta.nlink() };
        let content = (strict && meta.is_file()).then(|| archive::sha256(&std::fs::read(&path).unwrap()));
        let owner = (meta.uid(), meta.gid());
        let line = format!(
            "{:o} {owner:?} {size_bytes} {links} {} {times:?} {content:?} {:?}",
            meta.mode(),
            meta.ino(),
            attributes(&path)
        );
        found.insert(path, line);
    }
    found
}

/// Returns the names of a file's extended attributes.
fn attributes(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let n = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    String::from_utf8_lossy(&names[..n]).into_owned()
}

/// What would have to be seen: each of these does what a careless builder does.
#[test]
fn careless_builders_are_seen() {
    let check = |careless: fn(&Scene, &Canary), expected: &str| {
        let scene = Scene::new("canary");
        let canary = Canary::plant(&scene);
        assert_eq!(canary.problems(&scene), [""; 0]);
        careless(&scene, &canary);
        let problems = canary.problems(&scene).join("\n");
        assert!(problems.contains(expected), "{expected}: {problems}");
    };
    // One that joins names to a directory, an extractor that follows the leaf, and one that follows the parent.
    check(
        |scene, _| std::fs::write(scene.work().join("../canary/new"), "x").unwrap(),
        "canary/new is new",
    );
    check(
        |scene, canary| {
            std::os::unix::fs::symlink(canary.dir().join("victim"), scene.work().join("leaf")).unwrap();
            std::fs::write(scene.work().join("leaf"), "x").unwrap();
        },
        "canary/victim was",
    );
    check(
        |scene, canary| {
            std::os::unix::fs::symlink(canary.dir(), scene.work().join("up")).unwrap();
            std::fs::remove_dir(scene.work().join("up/dir")).unwrap();
        },
        "canary/dir is gone",
    );
    check(
        |_, canary| {
            let path = canary.dir().join("victim");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        },
        "canary/victim was",
    );
    check(
        |_, canary| {
            let flags = rustix::fs::XattrFlags::CREATE;
            rustix::fs::setxattr(canary.dir().join("victim"), "user.careless", b"x", flags).unwrap();
        },
        "user.careless",
    );
    check(
        |scene, _| std::fs::write(scene.aside("home").join("new"), "x").unwrap(),
        "home/new is new",
    );
    for n_before in 0..3 {
        let scene = Scene::new("canary");
        let canary = Canary::plant(&scene);
        let told = [&b"xyz"[..n_before], canary.token.as_bytes(), b"and more"].concat();
        assert!(canary.is_told(base64(&told).as_bytes()), "{n_before}");
        assert!(!canary.is_told(base64(&b"nothing of it".repeat(9)).as_bytes()));
    }
    check(
        |scene, canary| {
            drop(std::fs::copy(
                canary.dir().join("victim"),
                scene.store().join("layer"),
            ))
        },
        "store/layer has the token",
    );
    check(
        |scene, canary| {
            let file = std::fs::File::create(scene.store().join("log.gz")).unwrap();
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            std::io::Write::write_all(&mut gzip, canary.token.as_bytes()).unwrap();
            gzip.finish().unwrap();
        },
        "store/log.gz has the token",
    );
}
