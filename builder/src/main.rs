//! ashlar
mod archive;
mod image;
#[allow(dead_code, reason = "the build command brings it to life")]
mod progress;
mod registry;
mod sandbox;

fn main() {
    if let Some(code) = sandbox::helper_entry() {
        std::process::exit(code);
    }
}
