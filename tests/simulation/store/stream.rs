//! A stream by which one store follows another: messages come in order while it lives.

use std::collections::BTreeSet;

use daemun_sync::store::feed::{Down, Feeder, Up};
use daemun_sync::store::heads::Heads;
use daemun_sync::store::op::Key;
use daemun_sync::store::stamp::Origin;

/// Messages under way that the feeder sends before it waits for room.
pub(super) const WINDOW: usize = 4;

/// Follower, then feeder.
pub(super) type Pair = (usize, usize);

/// A message.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Up(Up),
    Down(Down),
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// No two streams have the same.
    pub(super) id: u64,
    /// Who the follower is, once the feeder knows.
    pub(super) follower: Option<Origin>,
    pub(super) feeder: Option<Feeder>,
    /// The follower has heard who the feeder is.
    pub(super) has_begun: bool,
    /// Messages on their way down.
    pub(super) under_way: usize,
    /// When the last message each way arrives: none overtakes another.
    pub(super) last_up_us: u64,
    pub(super) last_down_us: u64,
    /// What went lost since: nothing that comes after it arrives.
    pub(super) is_up_broken: bool,
    pub(super) is_down_broken: bool,
    pub(super) word_at_us: u64,
    /// What the follower has said.
    pub(super) said: Heads,
    pub(super) wants: BTreeSet<String>,
    pub(super) compare_at_us: u64,
    pub(super) compared: Option<Key>,
}

impl Stream {
    pub(super) fn new(id: u64, now_us: u64) -> Self {
        Self {
            id,
            follower: None,
            feeder: None,
            has_begun: false,
            under_way: 0,
            last_up_us: now_us,
            last_down_us: now_us,
            is_up_broken: false,
            is_down_broken: false,
            word_at_us: now_us,
            said: Heads::default(),
            wants: BTreeSet::new(),
            compare_at_us: now_us + 1_000_000,
            compared: None,
        }
    }
}
