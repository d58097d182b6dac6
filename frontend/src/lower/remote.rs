//! `ADD` from elsewhere: what a source outside of any tree becomes in the graph. Spec: dockerfile.md §10.7, §10.8.
//!
//! A source is fetched before the graph is made, since its content is its identity: lowering asks for it, with a
//! stand-in in its place until it is answered.

use solver::graph::{Label, VertexId};
use solver::op::{Git, Http, Op, Source};

use super::stage::Current;
use crate::ast::Copy;
use crate::diagnostic::Diagnostic;
use crate::git::{GitSource, GitSourceError, check_checksum};
use crate::lines::Text;
use crate::options::{GitRequest, HttpRequest, Request, ResolvedGit, ResolvedHttp};
use crate::parse::{Remote, remote};
use crate::redact::without_credentials;

/// What a file is called whose address names none.
const UNNAMED: &str = "__unnamed__";

/// A tree that an `ADD` reads from.
pub(super) struct Fetched {
    pub(super) vertex: VertexId,
    /// What is copied of it, as a pattern.
    pub(super) pattern: String,
}

/// Checks that the flags suit the sources.
pub(super) fn check(copy: &Copy, sources: &[String]) -> Result<(), Diagnostic> {
    let Some(checksum) = &copy.checksum else {
        return Ok(());
    };
    let message = match sources {
        [source] if remote(source).is_some() => return Ok(()),
        [_] => "checksum requires HTTP(S) or Git sources",
        _ => "checksum can't be specified for multiple sources",
    };
    Err(Diagnostic::error(message).at(checksum.span))
}

/// Adds the vertex of a remote source; `None` when the source is a path.
pub(super) fn fetch(
    current: &mut Current<'_, '_>,
    copy: &Copy,
    text: &Text,
    source: &str,
) -> Result<Option<Fetched>, Diagnostic> {
    match remote(source) {
        None => Ok(None),
        Some(Remote::Http) => http(current, copy, text, source).map(Some),
        Some(Remote::Git) => git(current, copy, text, source).map(Some),
    }
}

fn git(
    current: &mut Current<'_, '_>,
    copy: &Copy,
    text: &Text,
    address: &str,
) -> Result<Fetched, Diagnostic> {
    let wrong = |error: GitSourceError| Diagnostic::error(error.to_string()).at(text.span);
    let mut source = GitSource::parse(address).map_err(wrong)?;
    if let Some(text) = &copy.checksum {
        let value = current.expand(text)?.to_ascii_lowercase();
        let wrong = |message: String| Diagnostic::error(message).at(text.span);
        check_checksum(&value).map_err(|error| wrong(error.to_string()))?;
        if source
            .checksum
            .as_ref()
            .is_some_and(|checksum| *checksum != value)
        {
            return Err(wrong(
                "--checksum conflicts with the checksum of the address".to_owned(),
            ));
        }
        source.checksum = Some(value);
    }
    match (copy.keep_git_dir, source.keep_git_dir) {
        (Some(flag), Some(query)) if flag != query => {
            let message = "inconsistent keep-git-dir: the flag and the query of the address don't agree";
            return Err(Diagnostic::error(message).at(text.span));
        }
        (flag, query) => source.keep_git_dir = flag.or(query),
    }
    let request = GitRequest {
        remote: source.remote.clone(),
        reference: source.reference.clone(),
        checksum: source.checksum.clone(),
        wants_time: source.commit_time,
    };
    let known = current.lowering.answers.git.get(&request).cloned();
    let commit = known.unwrap_or_else(|| {
        let request = Request::Git(request);
        current.lowering.late.entry(request).or_insert(text.span);
        ResolvedGit {
            commit: String::new(),
            reference: String::new(),
            time: None,
        }
    });
    let label = Label {
        name: source.to_string(),
        step: source.to_string(),
        ..Label::default()
    };
    let git = git_commit(&source, &commit, current.lowering.epoch);
    let graph = &mut current.lowering.graph;
    let vertex = graph.add(Op::Source(Source::Git(git)), Vec::new(), label);
    Ok(Fetched {
        vertex,
        pattern: "/".to_owned(),
    })
}

/// Returns the commit that an address turned out to be. `epoch` is SOURCE_DATE_EPOCH.
pub fn git_commit(source: &GitSource, found: &ResolvedGit, epoch: Option<i64>) -> Git {
    Git {
        remote: source.remote.clone(),
        reference: found.reference.clone(),
        commit: found.commit.clone(),
        subdir: source.subdir.clone(),
        keep_git_dir: source.keep_git_dir.unwrap_or(false),
        submodules: source.submodules,
        mtime: if source.commit_time { found.time } else { epoch },
    }
}

fn http(current: &mut Current<'_, '_>, copy: &Copy, text: &Text, url: &str) -> Result<Fetched, Diagnostic> {
    let checksum = match &copy.checksum {
        None => None,
        Some(text) => {
            let value = current.expand(text)?;
            let digest = value.parse().map_err(|error| {
                Diagnostic::error(format!("invalid checksum digest format {value}: {error}")).at(text.span)
            })?;
            Some(digest)
        }
    };
    let request = HttpRequest {
        url: url.to_owned(),
        checksum,
    };
    let known = current.lowering.answers.http.get(&request).cloned();
    let file = known.unwrap_or_else(|| {
        let request = Request::Http(request);
        current.lowering.late.entry(request).or_insert(text.span);
        ResolvedHttp {
            digest: cache::Digest::of(b""),
            last_modified: None,
        }
    });
    let http = http_file(url, &file);
    let label = Label {
        name: http.url.clone(),
        step: http.url.clone(),
        ..Label::default()
    };
    let pattern = super::mount::literal(&format!("/{}", http.name));
    let graph = &mut current.lowering.graph;
    let vertex = graph.add(Op::Source(Source::Http(http)), Vec::new(), label);
    Ok(Fetched { vertex, pattern })
}

/// Returns the file that an address turned out to be.
pub fn http_file(url: &str, found: &ResolvedHttp) -> Http {
    Http {
        url: without_credentials(url),
        digest: found.digest,
        name: file_name(url),
        mtime: found.last_modified.unwrap_or(0),
    }
}

/// Returns the last component of an address's path, decoded: what the file is called in a directory.
fn file_name(url: &str) -> String {
    let address = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = address.find(['?', '#']).unwrap_or(address.len());
    let path = address[..end].split_once('/').map_or("", |(_, path)| path);
    let decoded = decode(path);
    let name = decoded
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    // Whoever serves the file has no say in where it goes.
    let is_name = !matches!(name, "" | "." | "..") && !name.contains(char::is_control);
    if is_name && !path.ends_with('/') {
        name.to_owned()
    } else {
        UNNAMED.to_owned()
    }
}

/// Replaces `%2F` and the like; what is no UTF-8 then stays as written.
fn decode(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = after
            .get(if code.is_some() { 2 } else { 0 }..)
            .unwrap_or_default();
    }
    String::from_utf8(bytes).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// case A12, hardening T65
    #[test]
    fn files_are_called_after_the_path_and_stay_where_they_belong() {
        for (url, expected) in [
            ("http://h/a/b.tar", "b.tar"),
            ("https://h/a/b.tar?x=/y#z", "b.tar"),
            ("http://h", UNNAMED),
            ("http://h/", UNNAMED),
            ("http://h/dir/", UNNAMED),
            ("http://h?x/y", UNNAMED),
            ("http://h/a%20b", "a b"),
            ("http://h/..", UNNAMED),
            ("http://h/%2e%2e", UNNAMED),
            ("http://h/%2e%2e%2fetc%2fpasswd", "passwd"),
            ("http://h/a%00b", UNNAMED),
            ("http://h/%zz", "%zz"),
            ("http://h/%ff", "%ff"),
            ("http://h/100%", "100%"),
        ] {
            assert_eq!(file_name(url), expected, "{url}");
        }
    }
}
