//! The GeoDNS server: zones from master files, steered names answered by placement.
//!
//! Three layers, kept apart so that each can be tested and replaced alone: [`wire`] turns a packet into a question
//! and an answer into a packet; [`answer`](answer::answer) is the one decision, pure and total; [`listen`] owns the
//! sockets and contains no policy.

pub mod answer;
pub mod embed;
pub mod listen;
mod metrics;
pub mod wire;
pub mod zone;
pub mod zone_file;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use daemun_fleet::{Client, Placer};

pub use metrics::{Metrics, Transport};
pub use zone::Zones;

/// All that an answer is made from; swapped as one.
#[derive(Debug)]
pub struct State {
    /// The zones.
    pub zones: Arc<Zones>,
    /// Placement under the newest view.
    pub placer: Arc<Placer>,
}

/// Answers packets under the newest state.
#[derive(Debug)]
pub struct Responder {
    state: ArcSwap<State>,
    metrics: Metrics,
}

impl Responder {
    /// A responder that starts with `state`.
    pub fn new(state: State, metrics: Metrics) -> Self {
        Self { state: ArcSwap::from_pointee(state), metrics }
    }

    /// Replaces the state; queries under way finish with the old one.
    pub fn set_state(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The answer to a packet; `None` for what must not be answered (a response, or less than a header).
    pub fn respond(&self, packet: &[u8], source: IpAddr, transport: Transport) -> Option<Vec<u8>> {
        let query = match wire::read_query(packet) {
            wire::Read::Query(query) => query,
            wire::Read::Refuse(reply) => {
                self.metrics.refused_packet(transport);
                return Some(reply);
            }
            wire::Read::Ignore => {
                self.metrics.ignored_packet(transport);
                return None;
            }
        };
        let answer = self.answer(&query, source, transport);
        Some(wire::write_answer(&query, &answer, transport))
    }

    /// The answer to a query from `source`.
    pub fn answer(&self, query: &wire::Query, source: IpAddr, transport: Transport) -> answer::Answer {
        let state = self.state.load();
        let client = match query.subnet() {
            Some(subnet) if subnet.source_len() > 0 => subnet.client(),
            _ => Client::address(source),
        };
        let answer = answer::answer(&state.zones, &state.placer, query.question(), &client);
        self.metrics.answered(transport, query, &answer, &state.placer);
        answer
    }
}

#[cfg(test)]
mod tests;
