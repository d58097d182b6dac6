//! Answers about files as data.
