//! The GeoDNS server: zones from master files, steered names answered by placement.
//!
//! Layers, kept apart so that each can be tested and replaced alone: [`wire`] turns a packet into a question and an
//! answer into a packet; [`answer`](answer::answer) is the one decision, pure and total; [`Responder`] puts them
//! together with [`cookie`] and [`limit`]; [`listen`] and its transports own the sockets and contain no policy.

pub mod answer;
pub mod cookie;
pub mod embed;
pub mod limit;
pub mod listen;
mod metrics;
mod rdata;
mod responder;
pub mod show;
mod steered;
mod transport;
pub mod wire;
pub mod zone;
pub mod zone_file;

pub use metrics::{Metrics, ZoneMetrics};
pub use rdata::{absolute_name as domain_name, type_of as record_type};
pub use responder::{Explained, Identity, Responder, State};
pub use transport::{Peer, Transport};
pub use zone::Zones;

#[cfg(test)]
mod tests;
