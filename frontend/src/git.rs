//! Addresses of git repositories: what they say about commit, directory and checkout. Spec: dockerfile.md §10.8.
//!
//! Text in, parts out; nothing is contacted. What could be taken for an option or escapes its place is refused here.

use std::fmt;

/// A repository and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitSource {
    /// The address for git, without query and fragment.
    pub remote: String,
    /// Branch, tag, full reference or commit id; empty for the default branch.
    pub reference: String,
    /// Directory that becomes the root, cleaned, without leading slash; empty for all.
    pub subdir: String,
    /// The commit id, whole or its beginning, that it must turn out to be.
    pub checksum: Option<String>,
    /// Keeps `.git`; `None` when the address doesn't say.
    pub keep_git_dir: Option<bool>,
    /// Fetches submodules.
    pub submodules: bool,
    /// Files get the commit's time, not the checkout's.
    pub commit_time: bool,
}

/// What a query may hold.
pub(crate) const KEYS: [&str; 10] = [
    "ref",
    "branch",
    "tag",
    "subdir",
    "checksum",
    "commit",
    "keep-git-dir",
    "submodules",
    "fetch-by-commit",
    "mtime",
];

/// Says why an address is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitSourceError {
    /// A key of the query that nobody knows.
    #[error("unexpected query \"{0}\"")]
    Query(String),
    /// Two ways to say it that don't agree.
    #[error("{0} conflicts with {1}")]
    Conflict(&'static str, &'static str),
    /// Not true or false.
    #[error("invalid {key} value \"{value}\", expected true or false")]
    Bool {
        /// Which key.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// No name that git takes for a reference.
    #[error("invalid git reference \"{0}\"")]
    Reference(String),
    /// Leads out of the repository.
    #[error("invalid git subdirectory \"{0}\"")]
    Subdir(String),
    /// No commit id.
    #[error("invalid checksum {0}, expected hex commit hash")]
    Checksum(String),
    /// `mtime` is something else.
    #[error("invalid mtime \"{0}\", expected checkout or commit")]
    Mtime(String),
    /// No address at all.
    #[error("invalid git address")]
    Address,
}

impl GitSource {
    /// Reads an address that is known to be a repository's.
    pub fn parse(text: &str) -> Result<Self, GitSourceError> {
        let (rest, fragment) = split(text, '#');
        let (remote, query) = split(rest, '?');
        let host_is_option = remote
            .split_once("://")
            .map_or(remote, |(_, rest)| rest)
            .starts_with('-');
        if remote.is_empty() || remote.starts_with('-') || host_is_option || has_controls(remote) {
            return Err(GitSourceError::Address);
        }
        let remote = match remote.strip_prefix("github.com/") {
            Some(path) => format!("https://github.com/{path}"),
            None => remote.to_owned(),
        };
        let mut source = Self {
            remote,
            submodules: true,
            ..Self::default()
        };
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        reference.clone_into(&mut source.reference);
        subdir.clone_into(&mut source.subdir);
        source.read_query(query)?;
        check_reference(&source.reference)?;
        source.subdir = clean(&source.subdir)?;
        if let Some(checksum) = &source.checksum {
            check_checksum(checksum)?;
        }
        Ok(source)
    }

    fn read_query(&mut self, query: &str) -> Result<(), GitSourceError> {
        let (mut branch, mut tag) = (None, None);
        for field in query.split('&').filter(|field| !field.is_empty()) {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            if !KEYS.contains(&key) {
                return Err(GitSourceError::Query(key.to_owned()));
            }
            match key {
                "ref" => self.set_reference(value, "ref")?,
                "branch" => branch = Some(value),
                "tag" => tag = Some(value),
                "subdir" if self.subdir.is_empty() || self.subdir == value => {
                    value.clone_into(&mut self.subdir)
                }
                "subdir" => return Err(GitSourceError::Conflict("subdir", "subdir")),
                "checksum" | "commit" => self.checksum = Some(value.to_ascii_lowercase()),
                "keep-git-dir" => self.keep_git_dir = Some(boolean("keep-git-dir", value)?),
                "submodules" => self.submodules = boolean("submodules", value)?,
                "mtime" => {
                    self.commit_time = match value {
                        "checkout" => false,
                        "commit" => true,
                        other => return Err(GitSourceError::Mtime(other.to_owned())),
                    }
                }
                // `fetch-by-commit`: commits are fetched by their id wherever the server gives them.
                _ => drop(boolean("fetch-by-commit", value)?),
            }
        }
        match (branch, tag) {
            (Some(_), Some(_)) => Err(GitSourceError::Conflict("branch", "tag")),
            (Some(branch), None) => self.set_reference(&full("refs/heads/", branch), "branch"),
            (None, Some(tag)) => self.set_reference(&full("refs/tags/", tag), "tag"),
            (None, None) => Ok(()),
        }
    }

    fn set_reference(&mut self, reference: &str, key: &'static str) -> Result<(), GitSourceError> {
        if !self.reference.is_empty() && self.reference != reference {
            return Err(GitSourceError::Conflict("ref", key));
        }
        reference.clone_into(&mut self.reference);
        Ok(())
    }
}

impl fmt::Display for GitSource {
    /// Without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::without_credentials(&self.remote))?;
        match (self.reference.as_str(), self.subdir.as_str()) {
            ("", "") => Ok(()),
            (reference, "") => write!(f, "#{reference}"),
            (reference, subdir) => write!(f, "#{reference}:{subdir}"),
        }
    }
}

fn split(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

fn full(prefix: &str, name: &str) -> String {
    if name.starts_with("refs/") {
        name.to_owned()
    } else {
        format!("{prefix}{name}")
    }
}

fn boolean(key: &'static str, value: &str) -> Result<bool, GitSourceError> {
    match value {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(GitSourceError::Bool {
            key,
            value: other.to_owned(),
        }),
    }
}

fn has_controls(text: &str) -> bool {
    text.contains(|char: char| char.is_control() || char.is_whitespace())
}

/// Checks a name as `git check-ref-format` does, as far as it matters for safety.
pub fn check_reference(reference: &str) -> Result<(), GitSourceError> {
    let is_wrong = reference.starts_with('-')
        || reference.contains("..")
        || has_controls(reference)
        || reference.contains(['~', '^', ':', '?', '*', '[', '\\']);
    if is_wrong {
        return Err(GitSourceError::Reference(reference.chars().take(200).collect()));
    }
    Ok(())
}

/// Checks that a text is a commit id or its beginning.
pub(crate) fn check_checksum(text: &str) -> Result<(), GitSourceError> {
    let is_hex = (4..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex {
        Ok(())
    } else {
        Err(GitSourceError::Checksum(text.chars().take(200).collect()))
    }
}

fn clean(subdir: &str) -> Result<String, GitSourceError> {
    let names: Vec<&str> = subdir
        .split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .collect();
    if names.iter().any(|name| matches!(*name, ".." | ".git")) || subdir.contains('\0') {
        return Err(GitSourceError::Subdir(subdir.chars().take(200).collect()));
    }
    Ok(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_what_is_wanted() {
        // case A20 A23 A24: address, then remote, reference, directory, checksum.
        for (text, remote, reference, subdir, checksum) in [
            ("https://h/x.git", "https://h/x.git", "", "", None),
            ("git://h/x#main", "git://h/x", "main", "", None),
            (
                "git@h:a/b.git#v1:sub/dir/",
                "git@h:a/b.git",
                "v1",
                "sub/dir",
                None,
            ),
            ("https://h/x.git#:sub", "https://h/x.git", "", "sub", None),
            (
                "https://h/x.git?tag=v1",
                "https://h/x.git",
                "refs/tags/v1",
                "",
                None,
            ),
            (
                "https://h/x.git?branch=b",
                "https://h/x.git",
                "refs/heads/b",
                "",
                None,
            ),
            (
                "https://h/x.git?ref=refs/heads/x&subdir=s",
                "https://h/x.git",
                "refs/heads/x",
                "s",
                None,
            ),
            (
                "https://h/x.git?ref=a&checksum=ABCDEF0",
                "https://h/x.git",
                "a",
                "",
                Some("abcdef0"),
            ),
            (
                "https://h/x.git?commit=abcdef0#main",
                "https://h/x.git",
                "main",
                "",
                Some("abcdef0"),
            ),
            ("github.com/a/b#x", "https://github.com/a/b", "x", "", None),
        ] {
            let source = GitSource::parse(text).unwrap();
            let found = (
                source.remote.as_str(),
                source.reference.as_str(),
                source.subdir.as_str(),
            );
            assert_eq!(found, (remote, reference, subdir), "{text}");
            assert_eq!(source.checksum.as_deref(), checksum, "{text}");
        }
        let flags = GitSource::parse("https://h/x.git?keep-git-dir=1&submodules=false&mtime=commit").unwrap();
        assert_eq!(
            (flags.keep_git_dir, flags.submodules, flags.commit_time),
            (Some(true), false, true)
        );
    }

    #[test]
    fn wrong_addresses_are_refused() {
        // case A25; hardening T62, T63
        for (text, message) in [
            ("https://h/x.git?unknown=1", "unexpected query \"unknown\""),
            ("https://h/x.git?tag=a&branch=b", "branch conflicts with tag"),
            ("https://h/x.git?ref=a#b", "ref conflicts with ref"),
            ("https://h/x.git?tag=a#b", "ref conflicts with tag"),
            ("https://h/x.git?subdir=a#b:c", "subdir conflicts with subdir"),
            ("https://h/x.git?submodules=maybe", "expected true or false"),
            ("https://h/x.git?mtime=now", "expected checkout or commit"),
            ("https://h/x.git#--upload-pack=x", "invalid git reference"),
            ("https://h/x.git#a..b", "invalid git reference"),
            ("https://h/x.git#main:../etc", "invalid git subdirectory"),
            ("https://h/x.git#main:.git/hooks", "invalid git subdirectory"),
            ("https://h/x.git?checksum=xyz", "expected hex commit hash"),
            ("ssh://-oProxyCommand=x/y", "invalid git address"),
            ("", "invalid git address"),
        ] {
            let error = GitSource::parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        let shown = GitSource::parse("https://u:p@h/x.git#main:a")
            .unwrap()
            .to_string();
        assert_eq!(shown, "https://h/x.git#main:a");
    }
}
