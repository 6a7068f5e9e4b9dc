//! The agent: probes every front door, tells its peers what it sees as facts, and folds all facts into the fleet view.
//!
//! [`core`] is the agent without its shell. It puts together the detectors ([`health`] of an address, [`admission`] of a
//! datacenter that comes back, [`skew`] of a clock, [`rates`]), what agents tell each other ([`facts`], [`orders`]), how
//! ([`pull`]), and the fold ([`judge`]). The shell is [`Agent`]: it probes, pulls, serves and keeps the last good on disk.

pub mod admission;
mod agent;
pub mod core;
pub mod disk;
pub mod drill;
mod eye;
pub mod facts;
mod follow;
pub mod gate;
pub mod health;
pub mod history;
pub mod judge;
pub mod keys;
mod latest;
mod link;
pub mod listen;
pub mod orders;
mod probe;
pub mod pull;
pub mod rates;
mod refusals;
mod serve;
mod single;
pub mod skew;
pub mod store;
pub mod verbs;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use daemun_fleet::{Clock, Config};
use tokio::sync::watch;

use crate::keys::Keys;

pub use agent::{Agent, probe_counter};
pub use eye::look;
pub use follow::follow;
pub use latest::{last_sent, latest, latest_seen};
pub use refusals::{Refusal, Refusals};
pub use single::SingleThread;

/// What an agent starts from.
#[derive(Debug)]
pub struct Settings {
    /// Name of the datacenter it runs in.
    pub me: String,
    /// The config, and every later one.
    pub configs: watch::Receiver<Arc<Config>>,
    /// Where it keeps its facts.
    pub data_directory: PathBuf,
    /// Where it gets its time from.
    pub clock: Clock,
    /// What it shows the other agents, and every later ones; `None`: they speak plain HTTP.
    pub keys: watch::Receiver<Option<Arc<Keys>>>,
    /// Counts who is not let in.
    pub refusals: Refusals,
    /// Counts probes: see [`probe_counter`].
    pub probes: prometheus::IntCounterVec,
    /// The store of applications' data.
    pub store: Option<store::engine::Store>,
}

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its facts could not be read or kept.
    #[error("sync: {0}")]
    Disk(disk::DiskError),
    /// Its address could not be had.
    #[error("sync: cannot listen on {address}: {error}; `ss -tlpn 'sport = :{}'` shows who has it", address.port())]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The system gave no thread for the streams, or took no listener there.
    #[error("sync: no thread for the agents' port: {0}")]
    Thread(std::io::Error),
    /// No HTTP client could be made.
    #[error("sync: cannot make an HTTP client")]
    Client(#[from] reqwest::Error),
    /// The TLS library refused the keys.
    #[error("sync: cannot make a TLS client")]
    Tls(#[from] rustls::Error),
}

impl From<disk::DiskError> for StartError {
    fn from(error: disk::DiskError) -> Self {
        StartError::Disk(error)
    }
}

#[cfg(test)]
mod tests;
