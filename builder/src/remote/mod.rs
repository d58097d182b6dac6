//! Sources that are neither images nor directories of this machine: files of web servers, commits of git servers.
//!
//! Each is resolved to its identity before the graph is made (a digest, a commit), and becomes a layer when a step
//! needs it. What a Dockerfile names is fetched from wherever that is, as with BuildKit: the user's machine, and the
//! user's choice of Dockerfile. Redirects stay within http and https.

pub(crate) mod git;
pub(crate) mod http;
pub(crate) mod inputs;
