//! How many queries and requests came from the clients of each ranking class: counted where they are answered, read
//! every few seconds, published as facts. The one thing that changes within a compiled [`Steering`](crate::Steering).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A DNS query for a steered name.
    Query,
    /// A request at a front door.
    Request,
}

/// Counters by map and class.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    maps: Vec<Vec<[AtomicU64; 2]>>,
}

impl Meter {
    /// Counters for maps with so many classes each.
    pub(crate) fn new(classes: impl Iterator<Item = usize>) -> Self {
        Self { maps: classes.map(|classes| (0..classes).map(|_| Default::default()).collect()).collect() }
    }

    pub(crate) fn count(&self, map: usize, class: u32, what: Counted) {
        self.maps[map][class as usize][what as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn total(&self, map: usize, class: usize, what: Counted) -> u64 {
        self.maps[map][class][what as usize].load(Relaxed)
    }
}
