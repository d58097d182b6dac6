//! ashlar
mod archive;
mod image;
mod registry;
fn main() {}
