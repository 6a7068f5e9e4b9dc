//! How applications use the store: HTTP, on a listener of its own, with a token.
//!
//! Pure: [`routes`] is the table of what can be asked, [`route`] and [`query`] find a request's place in it, [`batch`] reads the bodies of
//! writes, [`show`] writes what is under keys, [`problem`] says what is wrong, [`openapi`] describes it all for programs. The
//! shell: `serve` is the listener, `read` and `write` ask the store, `watch` tells of changes as they come.

pub mod batch;
pub mod openapi;
pub mod problem;
pub mod query;
mod read;
pub mod route;
pub mod routes;
mod serve;
pub mod show;
mod watch;
mod write;

pub use serve::serve;

/// A store to serve, or why there is none.
pub type Served = Result<super::engine::Store, String>;

#[cfg(test)]
mod tests;
