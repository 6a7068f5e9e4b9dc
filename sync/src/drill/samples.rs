//! What witnesses see, and how it travels to the agent that leads the drill.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A visit of a synthetic user: it resolves the name, fetches page and list, and writes a record where it was served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// When it began, milliseconds of Unix time by the witness's clock.
    pub at_unix_ms: u64,
    /// How long it took, milliseconds.
    pub ms: u64,
    /// The user's network.
    pub user: String,
    /// The datacenter that is the user's home: where it goes when all is well.
    pub home: String,
    /// Where the name server sent it.
    pub placed: Option<String>,
    /// Who served it: page and list, whole.
    pub served: Option<String>,
    /// What went wrong.
    pub failure: Option<String>,
    /// What became of its record.
    pub record: Option<Recorded>,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its number, of this witness.
    pub number: u64,
    /// The datacenter that acknowledged it; none: nobody did.
    pub acknowledged: Option<String>,
    /// When, milliseconds of Unix time by the witness's clock.
    pub at_unix_ms: u64,
    /// How often it was tried.
    pub tries: u32,
    /// What the tries that failed were told.
    pub failures: Vec<String>,
}

/// What a name server answers to users whose home is the target, whenever that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// When the answer came or was given up, milliseconds of Unix time by the witness's clock.
    pub at_unix_ms: u64,
    /// The datacenter of the name server.
    pub name_server: String,
    /// Where it sends them; none: no answer came.
    pub sends_to: Option<String>,
    /// How long before that it was asked when it last did otherwise, milliseconds.
    #[serde(default)]
    pub within_ms: u64,
}

/// How far a store is behind another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Milliseconds, at least; none: nothing of it was ever applied.
    pub ms: Option<u64>,
    /// It is heard: so far and not farther.
    pub is_known: bool,
}

impl Behind {
    /// How far it is, if that is known.
    pub fn known(&self) -> Option<u64> {
        self.ms.filter(|_| self.is_known)
    }
}

/// What a witness has seen since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// Visits that have ended.
    pub visits: Vec<Visit>,
    /// What changed at name servers.
    pub named: Vec<Named>,
    /// How far the store there is behind the others: when, and behind whom.
    pub lags: Vec<(u64, BTreeMap<String, Behind>)>,
    /// What the agent there decided: when, and what of the view.
    pub events: Vec<(u64, String, String)>,
    /// How many samples were let go, as nobody came for them.
    pub dropped: u64,
    /// Where to go on.
    pub next: u64,
    /// Visits that have not ended.
    pub under_way: u64,
    /// No more will begin.
    pub is_stopped: bool,
    /// Which life of the witness: another begins anew.
    pub life: u64,
}

/// A record that is in a store: of which witness, which number, written by which try.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Found {
    /// The witness.
    pub witness: String,
    /// The number.
    pub number: u64,
    /// The try.
    pub attempt: u32,
}

impl Found {
    /// The name of its key within a drill's records.
    pub fn key(&self, drill: &str) -> String {
        format!("{drill}/{}/{:010}/{}", self.witness, self.number, self.attempt)
    }

    /// The record of a key.
    pub fn parse(drill: &str, key: &str) -> Option<Self> {
        let mut parts = key.strip_prefix(drill)?.strip_prefix('/')?.splitn(3, '/');
        let witness = parts.next()?.to_owned();
        let number = parts.next()?.parse().ok()?;
        let attempt = parts.next()?.parse().ok()?;
        Some(Self { witness, number, attempt })
    }
}
