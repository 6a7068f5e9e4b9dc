//! How a store is, for people, metrics and gates.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::engine::Store;
use super::replica::{Lag, Replica};
use crate::core::Moment;

/// What is wrong with a store's disk.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What is not as it was written.
    pub corrupt: Option<String>,
    /// Why the keys cannot be written.
    pub keys: Option<String>,
    /// Records and keys that the last full check has read; `None`: it is not done.
    pub checked: Option<(u64, u64)>,
}

/// Operations of an origin that wait because they are from the future.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStatus {
    /// The origin, as in frontiers.
    pub origin: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Sequence of the first that waits.
    pub sequence: u64,
    /// How many wait.
    pub operations: u64,
    /// When the first is applied, milliseconds of Unix time.
    pub due_unix_ms: u64,
}

/// A store, as its process sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// The store: datacenter and incarnation.
    pub origin: String,
    /// Whether it takes writes.
    pub is_open: bool,
    /// Why it does not write, if its disk fails.
    pub failure: Option<String>,
    /// What an acknowledgement means.
    pub acknowledged: String,
    /// The lag to each other datacenter.
    pub lags: Vec<Lag>,
    /// Why its data is not all here; `None`: it is.
    pub waits_for: Option<String>,
    /// What waits for its time.
    pub held: Vec<HeldStatus>,
    /// Operations applied since the start.
    pub operations: u64,
    /// Entries in the logs on disk.
    pub log_entries: u64,
    /// Conflicts since the start.
    pub conflicts: u64,
    /// Conflicts that were let go, ever.
    pub conflicts_evicted: u64,
    /// Keys compared with other stores since the start.
    pub compared: u64,
    /// Of them such as differed and were mended.
    pub healed: u64,
    /// Writes taken since the start.
    pub writes: u64,
    /// Flushes of the log since the start.
    pub commits: u64,
    /// Records and keys that were read and checked since the start; `None`: not done yet.
    pub checked: Option<(u64, u64)>,
}

impl StoreStatus {
    /// What the replica knows of itself.
    pub fn new(replica: &Replica, moment: Moment) -> Self {
        let held = replica.held().iter().map(|(origin, due_unix_ms)| HeldStatus {
            origin: origin.to_string(),
            datacenter: replica
                .origins()
                .find(|known| known.id() == *origin)
                .map(|known| known.datacenter.clone())
                .unwrap_or_default(),
            sequence: replica.applied().of(*origin) + 1,
            operations: replica.received().of(*origin).saturating_sub(replica.applied().of(*origin)),
            due_unix_ms: *due_unix_ms,
        });
        Self {
            origin: replica.origin().to_string(),
            is_open: replica.is_open(),
            failure: replica.failure().map(ToString::to_string),
            acknowledged: "on this machine's disk, flushed".to_owned(),
            lags: replica.lags(moment),
            waits_for: replica.is_caught_up(moment).err(),
            held: held.collect(),
            operations: replica.operations(),
            ..Self::default()
        }
    }

    /// With what is counted around it.
    pub(super) fn with(self, store: &Store, health: &Health) -> Self {
        let counts = &store.0.counts;
        let failure = health.corrupt.clone().or(self.failure).or_else(|| health.keys.clone());
        Self {
            failure,
            log_entries: store.0.log.kept(),
            conflicts: counts.conflicts.load(Ordering::Relaxed),
            conflicts_evicted: store.0.cells.evicted(),
            compared: counts.compared.load(Ordering::Relaxed),
            healed: counts.healed.load(Ordering::Relaxed),
            writes: counts.writes.load(Ordering::Relaxed),
            commits: counts.commits.load(Ordering::Relaxed),
            checked: health.checked,
            ..self
        }
    }
}
