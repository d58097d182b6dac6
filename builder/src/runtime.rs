//! The async runtime of a command: one thread that waits, and threads for work that blocks.

use tokio::runtime::{Builder, Runtime};

use crate::report::Failure;

/// Starts the runtime. Only commands that run or fetch something need one.
pub(crate) fn start() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::machine(format!("cannot start the runtime: {error}")))
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // Nobody aborts such work, so this is a panic.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
