//! ashlar
mod archive;
mod export;
mod image;
mod registry;
fn main() {}
