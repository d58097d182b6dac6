//! The async runtime of a command: one thread that waits, and threads for work that blocks.

use std::time::Duration;

use tokio::runtime::Builder;

use solver::Cancel;

use crate::report::Failure;

/// Runs a command to its end. A thread that still waits then, for another process's lock, is not waited for.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::machine(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // Nobody aborts such work, so this is a panic.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Returns when the time is over; never where there is no limit.
pub(crate) async fn elapsed(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// Works until it is cancelled, and then drops the work: good for what waits for others and leaves nothing behind.
pub(crate) async fn unless_cancelled<T>(
    cancel: &Cancel,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        result = work => result,
        () = cancel.cancelled() => Err(Failure::cancelled(libc::SIGINT)),
    }
}
