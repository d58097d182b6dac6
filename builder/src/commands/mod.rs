//! One file per command. A command takes its arguments and an open store and returns what belongs on stdout as text;
//! it prints nothing itself. Shared looks (tables, sizes, templates) are files of their own.

pub(crate) mod build;
pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod container;
pub(crate) mod df;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod foreground;
pub(crate) mod history;
pub(crate) mod human;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logs;
mod prompt;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rights;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
mod signals;
mod stuck;
pub(crate) mod table;
pub(crate) mod tag;
pub(crate) mod template;
pub(crate) mod terminal;
mod transfers;
pub(crate) mod version;

#[cfg(test)]
mod tests;
