//! How often and how slowly something is tried again, and when that is enough.
//!
//! Knows no HTTP: what may pass, and what a server asks for, is said by whoever tries.

use std::time::Duration;

use rustix::rand::GetRandomFlags;

/// Longest that a server's wish to wait is obeyed at once.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Longest that a growing span gets.
const MAX_SPAN: Duration = Duration::from_secs(8);

/// How patient somebody is with one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// Tries in all.
    pub(crate) n_tries: u32,
    /// Longest wait before the second try; doubles with each further one.
    pub(crate) first_wait: Duration,
    /// Longest that is waited between all tries together, whatever the server asks for.
    pub(crate) longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            n_tries: 5,
            first_wait: Duration::from_millis(250),
            longest: Duration::from_secs(180),
        }
    }
}

impl Retry {
    /// Begins to be patient.
    pub(crate) fn patience(self) -> Patience {
        Patience {
            retry: self,
            n_tried: 0,
            waited: Duration::ZERO,
        }
    }
}

/// What is left of it.
#[derive(Debug)]
pub(crate) struct Patience {
    retry: Retry,
    /// Tries that failed.
    n_tried: u32,
    /// The time between them.
    waited: Duration,
}

impl Patience {
    /// Counts a try that failed. Waits before the next and returns true, or returns false at once where it was the last.
    /// `asked` is how long the server wants to be left alone.
    pub(crate) async fn is_left(&mut self, asked: Option<Duration>) -> bool {
        match self.next(asked) {
            None => false,
            Some(wait) => {
                tokio::time::sleep(wait).await;
                true
            }
        }
    }

    /// Begins anew: the last try got further than the one before.
    pub(crate) fn renew(&mut self) {
        *self = self.retry.patience();
    }

    /// Returns how long to wait before the next try: what the server asked for, else a random part of a growing span. `None` after
    /// the last try, and where the wait would be longer than what is left.
    fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.n_tried = self.n_tried.saturating_add(1);
        let wait = match asked {
            Some(asked) => asked.min(MAX_WAIT),
            None => self.span().mul_f64(random()),
        };
        self.waited = self.waited.saturating_add(wait);
        (self.n_tried < self.retry.n_tries && self.waited <= self.retry.longest).then_some(wait)
    }

    fn span(&self) -> Duration {
        let doubled = 1 << self.n_tried.saturating_sub(1).min(5);
        self.retry.first_wait.saturating_mul(doubled).min(MAX_SPAN)
    }
}

/// Returns a number from 0 to 1.
fn random() -> f64 {
    let mut random = [0; 4];
    // Without randomness the full span is waited, which is right too.
    match rustix::rand::getrandom(&mut random, GetRandomFlags::NONBLOCK) {
        Ok(_) => f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn tries_and_waits_have_an_end() {
        // hardening R14
        let waits = |asked: Option<Duration>, longest: Duration| {
            let retry = Retry {
                longest,
                ..Retry::default()
            };
            let mut patience = retry.patience();
            let mut waits = Vec::new();
            while let Some(wait) = patience.next(asked) {
                waits.push(wait);
            }
            waits
        };
        assert_eq!(waits(Some(SECOND), 180 * SECOND), [SECOND; 4]);
        assert_eq!(waits(Some(60 * SECOND), 180 * SECOND), [60 * SECOND; 3]);
        // What is asked for is cut, and then counts.
        assert_eq!(waits(Some(86_400 * SECOND), 180 * SECOND), [60 * SECOND; 3]);
        assert!(waits(Some(Duration::MAX), 59 * SECOND).is_empty());
        let own = waits(None, 180 * SECOND);
        assert_eq!(own.len(), 4);
        for (at, wait) in own.iter().enumerate() {
            assert!(*wait <= Duration::from_millis(250 << at), "{at}: {wait:?}");
        }
    }

    #[test]
    fn progress_is_rewarded() {
        let mut patience = Retry::default().patience();
        for _ in 0..100 {
            assert_eq!(patience.next(Some(60 * SECOND)), Some(60 * SECOND));
            patience.renew();
        }
        assert!(patience.next(Some(60 * SECOND)).is_some());
    }
}
