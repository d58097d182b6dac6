//! The ignore list of a context (`.dockerignore`), with moby's meaning: the last pattern that matches a path or
//! one of its parents decides, `!` re-includes.
//!
//! Reading the file's lines (comments, byte order mark) is the frontend's business.

use super::pattern::Pattern;
use crate::layer::TreePath;

/// Says why a line can't be a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// An exclamation mark with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    EmptyException,
    /// An open bracket or a trailing backslash.
    #[error("syntax error in pattern `{0}`")]
    BadPattern(String),
}

#[derive(Debug, Clone)]
struct Line {
    /// Its place among the patterns that were given.
    position: usize,
    includes: bool,
    pattern: Pattern,
    /// The same by components, to know whether a re-included path can lie below a directory. `None`: a component
    /// with `**`, from which on anything can.
    components: Vec<Option<Pattern>>,
}

/// A compiled ignore list. The empty list ignores nothing.
#[derive(Debug, Clone, Default)]
pub struct IgnoreList {
    lines: Vec<Line>,
}

/// What the patterns said about a directory, one answer each; what lies below inherits the matches.
#[derive(Debug, Clone)]
pub(super) struct Matched(Vec<bool>);

impl IgnoreList {
    /// Compiles patterns in order. Blanks around them, a leading slash, `.` and `..` are cleaned away; empty ones
    /// don't count.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, IgnoreError> {
        let mut lines = Vec::new();
        for (position, written) in patterns.into_iter().enumerate() {
            let trimmed = written.trim();
            let (includes, text) = match trimmed.strip_prefix('!') {
                Some("") => return Err(IgnoreError::EmptyException),
                Some(rest) => (true, rest.trim()),
                None => (false, trimmed),
            };
            // A pattern that leads out of the context matches nothing in it.
            let Some(text) = clean(text.as_bytes()).filter(|text| !text.is_empty()) else {
                continue;
            };
            let bad = || IgnoreError::BadPattern(written.to_owned());
            let pattern = Pattern::ignore(&text).ok_or_else(bad)?;
            let components = text.split(|&byte| byte == b'/').map(|part| {
                let deep = part.windows(2).any(|pair| pair == b"**");
                // A bracket expression with a slash inside has no components: anything can lie below.
                if deep { None } else { Pattern::component(part) }
            });
            lines.push(Line {
                position,
                includes,
                pattern,
                components: components.collect(),
            });
        }
        Ok(Self { lines })
    }

    /// Says whether nothing is ever ignored.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Says whether `path` is ignored.
    pub fn matches(&self, path: &TreePath) -> bool {
        let mut at = TreePath::root();
        let mut matched = self.at_root();
        let mut ignored = false;
        for name in path.components() {
            at.push(name);
            (ignored, matched) = self.enter(&matched, &at);
        }
        ignored
    }

    /// Returns which of the patterns that were given, from 0, is why `path` is ignored; `None` when it isn't.
    pub fn reason(&self, path: &TreePath) -> Option<usize> {
        let mut at = TreePath::root();
        let mut matched = self.at_root();
        for name in path.components() {
            at.push(name);
            matched = self.enter(&matched, &at).1;
        }
        let last = self
            .lines
            .iter()
            .zip(&matched.0)
            .rev()
            .find(|(_, matches)| **matches);
        last.filter(|(line, _)| !line.includes)
            .map(|(line, _)| line.position)
    }

    /// Says whether something below the ignored directory `dir` may be re-included.
    pub fn could_contain(&self, dir: &TreePath) -> bool {
        self.lines.iter().filter(|line| line.includes).any(|line| {
            let mut components = line.components.iter();
            for name in dir.components() {
                match components.next() {
                    Some(Some(pattern)) if pattern.matches(name) => {}
                    Some(Some(_)) | None => return false,
                    Some(None) => return true,
                }
            }
            components.next().is_some()
        })
    }

    pub(super) fn at_root(&self) -> Matched {
        Matched(vec![false; self.lines.len()])
    }

    /// Says whether `path` is ignored, given what was said about its parent.
    pub(super) fn ignores(&self, parent: &Matched, path: &TreePath) -> bool {
        // From the end, because the last match decides.
        let last = self.lines.iter().zip(&parent.0).rev();
        let mut matching =
            last.filter(|(line, inherited)| **inherited || line.pattern.matches(path.as_bytes()));
        matching.next().is_some_and(|(line, _)| !line.includes)
    }

    /// Goes one directory down: says whether `path` is ignored, and what its children inherit.
    pub(super) fn enter(&self, parent: &Matched, path: &TreePath) -> (bool, Matched) {
        let mut ignored = false;
        let mut matched = Vec::with_capacity(self.lines.len());
        for (line, &inherited) in self.lines.iter().zip(&parent.0) {
            let matches = inherited || line.pattern.matches(path.as_bytes());
            if matches {
                ignored = !line.includes;
            }
            matched.push(matches);
        }
        (ignored, Matched(matched))
    }
}

/// Go's `filepath.Clean` of a rooted path without its slash; `None` when `..` leads above the root.
fn clean(text: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in text.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], ignored: &[&str], kept: &[&str]) {
        let list = IgnoreList::new(patterns.iter().copied()).unwrap();
        for (paths, expected) in [(ignored, true), (kept, false)] {
            for path in paths {
                let path = TreePath::clean(path.as_bytes());
                assert_eq!(list.matches(&path), expected, "{patterns:?} on {path}");
            }
        }
    }

    #[test]
    fn the_last_match_decides() {
        check(&["*", "!keep"], &["a", "a/b", "keepx"], &["keep", "keep/x"]);
        check(
            &["dir", "!dir/sub/file"],
            &["dir", "dir/x", "dir/sub/x"],
            &["dir/sub/file", "other"],
        );
        check(
            &["*.md", "!README.md", "README.*"],
            &["README.md", "x.md"],
            &["a/x.md"],
        );
        check(&["*.md", "README.*", "!README.md"], &["x.md"], &["README.md"]);
        check(
            &["**/node_modules"],
            &["node_modules/x", "a/b/node_modules/c"],
            &["a/node_modulesx"],
        );
        check(&["a/**/b"], &["a/b", "a/x/y/b/z"], &["a", "ab"]);
        check(
            &["/foo", "bar/", " baz "],
            &["foo/x", "bar/y", "baz"],
            &["x/foo", "x/bar"],
        );
        check(&["**"], &["a", "a/b"], &[]);
        check(&["a/**", "!a/keep"], &["a/x"], &["a", "a/keep/y"]);
        check(&["../x", "/", ".", ""], &[], &["x", "a"]);
        check(&["./a/../b"], &["b"], &["a"]);
        check(&["! x", "x"], &["x"], &[]);
        check(&["x", "! x"], &[], &["x"]);
        check(&["Foo"], &["Foo"], &["foo"]);
        check(&[], &[], &["a"]);
        check(
            &["docs", "!docs/api", "docs/api/private"],
            &["docs/a", "docs/api/private/x"],
            &["docs/api/x"],
        );
    }

    #[test]
    fn malformed_lines_are_refused() {
        assert_eq!(
            IgnoreList::new(["a", "!"]).unwrap_err(),
            IgnoreError::EmptyException
        );
        for bad in ["[", "a/[x", "\\", "[]a]"] {
            assert_eq!(
                IgnoreList::new([bad]).unwrap_err(),
                IgnoreError::BadPattern(bad.into())
            );
        }
    }

    #[test]
    fn only_dirs_that_may_hold_an_exception_are_entered() {
        for (patterns, dir, expected) in [
            (&["*", "!dir/sub/file"][..], "dir", true),
            (&["*", "!dir/sub/file"], "dir/sub", true),
            (&["*", "!dir/sub/file"], "dir/other", false),
            (&["*", "!*.md"], "node_modules", false),
            (&["*", "!**/*.md"], "node_modules", true),
            (&["*", "!d*/x"], "docs", true),
            (&["*", "!d*/x"], "src", false),
            (&["*", "!keep"], "keep", false),
            (&["*"], "a", false),
        ] {
            let list = IgnoreList::new(patterns.iter().copied()).unwrap();
            assert_eq!(
                list.could_contain(&TreePath::clean(dir.as_bytes())),
                expected,
                "{patterns:?} {dir}"
            );
        }
    }
}
