//! The store: data that is in every datacenter. Every write is an operation in its origin's log; logs are pulled by all; what
//! is under a key follows from the operations, in whatever order they came.
//!
//! Pure: [`stamp`], [`heads`], [`op`], [`cell`], [`request`], [`replica`], [`feed`], [`verify`]; what an engine gives is [`journal`]. The shell: [`sqlite`]
//! is the embedded engine, [`engine`] the threads that own it, [`read`] what those who ask see, [`api`] how applications ask.

pub mod api;
mod body;
pub mod cell;
pub mod engine;
pub mod feed;
pub mod heads;
pub mod journal;
pub(crate) mod link;
pub mod op;
pub mod read;
pub mod replica;
pub mod request;
pub mod sqlite;
pub mod stamp;
pub mod status;
pub mod verify;
mod wire;
