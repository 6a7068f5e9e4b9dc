//! A panic in a request costs that request, and nothing else.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// A panic was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caught;

/// Whether a panic on this thread would be caught now. A process that lives by "a panic ends everything" asks this in its
/// panic hook.
pub fn is_guarded() -> bool {
    IS_GUARDED.get()
}

/// Does something. What it leaves behind after a panic must be fit for use: answers are made from what does not change.
pub(crate) fn guarded<T>(act: impl FnOnce() -> T) -> Result<T, Caught> {
    let before = IS_GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(act));
    IS_GUARDED.set(before);
    done.map_err(|_| Caught)
}

/// A future that ends with `Caught` if it panics.
pub(crate) struct Guarded<F>(pub(crate) Pin<Box<F>>);

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Caught>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match guarded(|| self.0.as_mut().poll(context)) {
            Ok(polled) => polled.map(Ok),
            Err(caught) => Poll::Ready(Err(caught)),
        }
    }
}
