//! A word to stop: said once, heard by everyone who asks or waits.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells the running steps of a build to stop. Clones share the state.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<watch::Sender<bool>>);

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    /// Returns a state in which nothing is cancelled.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Cancels, for good. May be called from any thread.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Says whether it is cancelled.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is cancelled; returns at once if it is.
    pub async fn cancelled(&self) {
        let mut state = self.0.subscribe();
        // Can't fail: `self` keeps the sender alive.
        let _ = state.wait_for(|cancelled| *cancelled).await;
    }
}
