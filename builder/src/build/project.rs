//! Which project a build is of, and so whose cache mounts its steps get: that of its context, wherever the Dockerfile and
//! further contexts are from. It enters no key: a project that moves runs nothing again for it, but begins new caches.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cache::mounts::Scope;
use frontend::without_credentials;

use crate::options::{BuildOptions, CacheNs, ContextSource};

/// The project of all contexts that come from stdin, which says nothing of where they are from.
const STDIN: &str = "stdin";

/// Returns whose cache mounts a build uses where its build arguments don't say.
pub(super) fn scope(options: &BuildOptions) -> Scope {
    match &options.cache_ns {
        CacheNs::Project => Scope::Project(project(&options.context)),
        CacheNs::Named(name) => Scope::Named(name.clone()),
        CacheNs::Global => Scope::Global,
    }
}

/// Names the project of a context: never by a commit, nor by what gives access to it.
fn project(context: &ContextSource) -> String {
    match context {
        ContextSource::Directory(path) => place(path),
        ContextSource::Stdin => STDIN.to_owned(),
        ContextSource::Http(url) => {
            let url = url.split('#').next().unwrap_or_default();
            without_credentials(url)
        }
        ContextSource::Git(git) => {
            let remote = without_credentials(&git.remote);
            match git.subdir.as_str() {
                "" => remote,
                subdir => format!("{remote}#:{subdir}"),
            }
        }
    }
}

/// Returns where a directory really is. Absolute, so that it is never taken for an address.
fn place(path: &Path) -> String {
    #[expect(clippy::disallowed_methods, reason = "it is a name; nothing is opened by it")]
    let real = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let real = real.map_or_else(|_| path.as_os_str().to_owned(), OsString::from);
    match real.into_string() {
        Ok(text) => text,
        // Two such are never the same text, and neither is one and a path.
        Err(bytes) => format!("bytes:{}", bytes.as_bytes().escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use frontend::GitSource;

    use super::*;

    #[test]
    fn a_project_is_where_its_context_is_from() {
        // hardening T32
        let git = |url: &str| ContextSource::Git(GitSource::parse(url).unwrap());
        let http = |url: &str| ContextSource::Http(url.to_owned());
        let check = |context: &ContextSource, expected: &str| {
            assert_eq!(project(context), expected, "{context:?}");
        };
        check(&ContextSource::Stdin, "stdin");
        let app = "https://example.org/app.git";
        check(&git(app), app);
        check(&git("https://example.org/app.git#v1"), app);
        check(&git("https://me:token@example.org/app.git?ref=main"), app);
        let sub = "https://example.org/app.git#:sub/dir";
        check(&git("https://example.org/app.git#main:sub/dir"), sub);
        check(&git("https://example.org/app.git?subdir=sub/dir"), sub);
        check(
            &git("git@example.org:team/app.git#v2"),
            "git@example.org:team/app.git",
        );
        let tar = "https://example.org/app.tar";
        check(&http("https://me:token@example.org/app.tar#part"), tar);
        check(
            &http("https://example.org/app.tar?branch=a&token=secret"),
            "https://example.org/app.tar?branch=a&token=****",
        );
    }

    #[test]
    fn a_directory_is_one_project_whatever_leads_there() {
        use std::os::unix::ffi::OsStringExt as _;

        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        let odd = dir.path().join(OsString::from_vec(b"odd\xff".to_vec()));
        let same = dir.path().join("odd\\xff");
        for made in [&real, &odd, &same] {
            std::fs::create_dir(made).unwrap();
        }
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let of = |path: &Path| project(&ContextSource::Directory(path.to_owned()));
        let expected = of(&real);
        assert!(
            expected.starts_with('/') && expected.ends_with("/real"),
            "{expected}"
        );
        for path in ["link", "real/.", "real/../link/"] {
            assert_eq!(of(&dir.path().join(path)), expected, "{path}");
        }
        assert_ne!(of(&odd), of(&same));
        assert!(of(Path::new("not/there")).starts_with('/'));
    }
}
