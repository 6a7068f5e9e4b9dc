//! What applications ask of the store, and what they are told.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::op::{Key, Value};
use super::stamp::{OriginId, Stamp};

/// The most changes in one write: it is one transaction, and one unit of replication.
pub const CHANGES_MAX: usize = 1000;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is in memory here. It is lost if the process dies within the next milliseconds.
    Memory,
    /// When it is on the disk here.
    #[default]
    Local,
    /// When it is on the disk here and in so many other datacenters.
    Remote(u32),
    /// When it is on the disk in every datacenter that is not forgotten.
    All,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Memory => f.write_str("memory"),
            Durability::Local => f.write_str("local"),
            Durability::Remote(count) => write!(f, "remote:{count}"),
            Durability::All => f.write_str("all"),
        }
    }
}

/// A word that is no durability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("durability is memory, local, remote:N (N of 1 to 63) or all, found `{0}`")]
pub struct NotADurability(String);

impl FromStr for Durability {
    type Err = NotADurability;

    fn from_str(text: &str) -> Result<Self, NotADurability> {
        let wrong = || NotADurability(daemun_fleet::shorten(text));
        match text {
            "memory" => Ok(Durability::Memory),
            "local" => Ok(Durability::Local),
            "all" => Ok(Durability::All),
            _ => {
                let count = text.strip_prefix("remote:").ok_or_else(wrong)?;
                let is_number = !count.starts_with('+') && !count.starts_with('0');
                let count = count.parse().ok().filter(|count| is_number && (1..64).contains(count));
                count.map(Durability::Remote).ok_or_else(wrong)
            }
        }
    }
}

/// What must be so for a change to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The key's newest stamp is this one (`If-Match`).
    Is(Stamp),
    /// The key has something (`If-Match: *`).
    Exists,
    /// The key has nothing (`If-None-Match: *`).
    Absent,
    /// The key's newest stamp is not this one (`If-None-Match`).
    IsNot(Stamp),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of what.
    pub key: Key,
    /// If what is so.
    pub condition: Condition,
    /// To what.
    pub kind: ChangeKind,
}

/// The kinds of change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// To a value, for so long.
    Put {
        /// The value.
        value: Value,
        /// For so long; `None`: for good.
        ttl: Option<Duration>,
    },
    /// By a JSON merge patch (RFC 7396). The time that a value has left stays.
    Patch(serde_json::Value),
    /// To nothing.
    Delete,
    /// A counter, by so much.
    Increment(i64),
    /// A set, with this element.
    Add(String),
    /// A set, without this element.
    Remove(String),
}

/// A write: all of it is done here or nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The changes, in order.
    pub what: Changes,
    /// When it counts as done.
    pub durability: Durability,
    /// How long to wait for that.
    pub patience: Duration,
}

/// What a write changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Keys.
    Keys(Vec<Change>),
    /// That an operation from the future is never applied.
    Drop {
        /// Whose.
        origin: OriginId,
        /// Which.
        sequence: u64,
    },
}

/// Where a write is known to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// On the disk of this datacenter.
    pub local: bool,
    /// On the disks of these.
    pub remote: Vec<String>,
    /// Not known to be there.
    pub missing: Vec<String>,
}

/// What a write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is as durable as was asked, or the time was over before: then it is still on its way.
    Written {
        /// Stamp of each change, in order.
        stamps: Vec<Stamp>,
        /// As durable as asked.
        is_done: bool,
        /// Where it is known to be.
        whereabouts: Whereabouts,
    },
    /// Nothing was changed.
    Refused(Refusal),
    /// The disk failed while it was written: it may be there after a restart, or not.
    Unknown(String),
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A condition does not hold.
    #[error("{} is not as the condition says{}", key.name(), .current.map_or_else(|| ": it has nothing".to_owned(), |stamp| format!(": its stamp is {stamp}")))]
    Condition {
        /// Of which key.
        key: Key,
        /// Its stamp; `None`: it has nothing.
        current: Option<Stamp>,
    },
    /// The key holds something of another kind.
    #[error("{} holds {holds}, and this is for {wanted}: delete it first", key.name())]
    Kind {
        /// Which key.
        key: Key,
        /// What it holds.
        holds: &'static str,
        /// What the change is for.
        wanted: &'static str,
    },
    /// A patch of what is no JSON.
    #[error("{} is not JSON: only JSON can be patched", key.name())]
    NotJson {
        /// Which key.
        key: Key,
    },
    /// What would be stored is too large.
    #[error("{what} has at most {max}, found {found}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its limit.
        max: usize,
        /// What it has.
        found: usize,
    },
    /// A counter cannot go there.
    #[error("{} would leave the range of a counter (64 bits for each datacenter)", key.name())]
    Overflow {
        /// Which key.
        key: Key,
    },
    /// More datacenters than there are.
    #[error("remote:{wanted} asks for more datacenters than the {there} others there are")]
    TooFew {
        /// How many were asked for.
        wanted: u32,
        /// How many others there are.
        there: usize,
    },
    /// An operation that cannot be dropped.
    #[error("{0}")]
    NotDroppable(String),
    /// The store does not take writes yet.
    #[error("the store is not open for writes yet: {0}")]
    NotOpen(String),
    /// Too many writes are under way.
    #[error("too many writes are under way: try again")]
    Busy,
    /// The disk is full.
    #[error("{0}")]
    Full(String),
    /// The disk failed, or what is on it is not what was written.
    #[error("{0}")]
    Disk(String),
}
