//! ashlar
fn main() {}
