//! ashlar
#[allow(dead_code, reason = "the build command brings it to life")]
mod progress;

fn main() {}
