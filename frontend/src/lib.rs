//! What was asked for: Dockerfile text to AST to graph.
//!
//! Pure: text and image configs in, graph and diagnostics out. No I/O, no clock, no environment, no async; what
//! lowering needs from outside it asks for by returning [`Lowered::Need`].

pub mod ast;
pub mod call;
pub mod check;
pub mod config;
pub mod diagnostic;
mod directive;
mod duration;
mod expand;
mod git;
pub mod ignore;
mod lines;
pub mod lint;
mod lower;
mod options;
mod parse;
pub mod platform;
mod redact;
#[cfg(test)]
mod reference_tests;
mod render;
mod source;

pub use ast::Dockerfile;
pub use config::ImageConfig;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use directive::{Directives, foreign_syntax};
pub use expand::ExpandError;
pub use git::{GitSource, GitSourceError, check_reference};
pub use ignore::IgnoreFile;
pub use lines::Text;
pub use lint::Rule;
pub use lower::{git_commit, http_file, is_proxy, lower};
pub use options::{
    AllowedDevices, Answers, Build, GitRequest, HttpRequest, ImageKind, ImageRequest, Lowered, NamedContext,
    Needed, Options, Request, ResolvedGit, ResolvedHttp, ResolvedImage, Scans, Until,
};
pub use parse::heredoc::Heredoc;
pub use parse::{MAX_SIZE_BYTES, parse};
pub use platform::Platform;
pub use redact::{redact, without_credentials};
pub use render::render;
pub use source::{SourceText, Span};
