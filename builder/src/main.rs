//! ashlar
#[allow(dead_code, reason = "the build command brings it to life")]
mod progress;
mod sandbox;

fn main() {
    if let Some(code) = sandbox::helper_entry() {
        std::process::exit(code);
    }
}
