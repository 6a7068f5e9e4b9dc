//! The store: data that is in every datacenter. Every write is an operation in its origin's log; logs are pulled by all; what
//! is under a key follows from the operations, in whatever order they came.
//!
//! Pure: [`stamp`], [`heads`], [`op`], [`cell`], [`request`], [`replica`], [`feed`], [`verify`]; what an engine gives is [`journal`].

pub mod cell;
pub mod feed;
pub mod heads;
pub mod journal;
pub mod op;
pub mod replica;
pub mod request;
pub mod stamp;
pub mod verify;
