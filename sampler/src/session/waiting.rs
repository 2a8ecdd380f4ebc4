//! What a session waits for.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::task::Poll;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::error::{SessionError, system};

/// Watches a descriptor for something to read.
pub(super) fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, SessionError> {
    // SAFETY: an owned descriptor is the same open file for as long as it lives.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
        .map_err(|error| system("wait for a descriptor")(error.into()))
}

/// Ready when all of these processes have ended.
pub(super) async fn wait_for_all(targets: &[AsyncFd<OwnedFd>]) {
    for target in targets {
        // Stays readable for good; an error means that it cannot be watched.
        let _ready = target.readable().await;
    }
}

/// Ready when one of the rings has something to read, but not before `time`.
pub(super) async fn any_readable_from(time: Instant, rings: &[AsyncFd<OwnedFd>]) {
    tokio::time::sleep_until(time).await;
    poll_fn(|context| {
        let mut ready = false;
        for ring in rings {
            if let Poll::Ready(Ok(mut guard)) = ring.poll_read_ready(context) {
                guard.clear_ready();
                ready = true;
            }
        }
        if ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Ready at a moment; never without one.
pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
