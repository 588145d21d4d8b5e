//! What consensus asks of the runtime that it is driven by.

use std::future::Future;

use openraft::TokioRuntime;

/// openraft's runtime interface (spawn, sleep, clock, randomness), and a place for work that waits for the disk.
pub trait Runtime: openraft::AsyncRuntime {
    /// Runs `work`, which may wait for the disk, without holding up the other tasks. `None` if the runtime is stopping
    /// and never will.
    fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static)
    -> impl Future<Output = Option<T>> + Send;
}

impl Runtime for TokioRuntime {
    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => Some(done),
            Err(lost) if lost.is_panic() => std::panic::resume_unwind(lost.into_panic()),
            Err(_) => None,
        }
    }
}
