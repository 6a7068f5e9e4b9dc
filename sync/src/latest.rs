//! Reading a `watch` channel.
//!
//! The guard of `borrow` lives to the end of its *statement* and holds up the sender all that time. A statement that
//! also takes a lock which the sender holds is a deadlock, and it does not look like one. So the guard lives in this
//! file only (`clippy.toml` sees to it), and what others get is a copy: make it an `Arc` where it is large.

#![expect(clippy::disallowed_methods, reason = "the one home of these guards")]

use tokio::sync::watch;

/// What was sent last.
pub fn latest<T: Clone>(receiver: &watch::Receiver<T>) -> T {
    receiver.borrow().clone()
}

/// What was sent last, from here on counted as seen.
pub fn latest_seen<T: Clone>(receiver: &mut watch::Receiver<T>) -> T {
    receiver.borrow_and_update().clone()
}

/// What was sent last, asked of the sender.
pub fn last_sent<T: Clone>(sender: &watch::Sender<T>) -> T {
    sender.borrow().clone()
}
