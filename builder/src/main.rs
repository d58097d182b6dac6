//! ashlar
mod sandbox;

fn main() {
    if let Some(code) = sandbox::helper_entry() {
        std::process::exit(code);
    }
}
