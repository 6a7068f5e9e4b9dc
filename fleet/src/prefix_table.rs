//! A longest-prefix table: address → value, and how wide the surroundings are that share the value.
//!
//! The intuition: the address space is cut into segments of one value each. Seen as a binary tree, a block is a
//! leaf as soon as no segment border runs through it, and the depth of that leaf is the widest prefix around an
//! address in which every address has the same value: exactly what an EDNS client subnet scope promises.
//!
//! The tree is stored as a *poptrie* (Asai and Ohara, SIGCOMM 2015): nodes of 64 slots, six bits a step; two
//! bitmaps and a population count find the child or the leaf, so that a node takes 24 bytes and a world of
//! countries fits the second-level cache. A leaf keeps its depth beside its value, as a slot may be one of many
//! that share one wider leaf.
//!
//! What it does not do: change. A new world is a new table.

use std::net::IpAddr;

/// Largest value that a leaf holds: 24 bits.
pub const VALUE_MAX: u32 = (1 << 24) - 1;

/// Bits looked at in one step.
const STRIDE: u32 = 6;
/// Slots of a node.
const SLOTS: usize = 1 << STRIDE;

/// Where one value begins; it reaches to the start of the next segment. Keys are addresses moved to the top of
/// 128 bits: see [`key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First key that has the value.
    pub start: u128,
    /// The value, at most [`VALUE_MAX`].
    pub value: u32,
}

/// What a lookup finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value at the address.
    pub value: u32,
    /// Length of the widest prefix around the address in which every address has this value.
    pub prefix_len: u8,
}

/// The address as a key: its bits moved to the top of 128, so that both families are walked alike.
pub fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Longest-prefix tables of both families.
#[derive(Clone, Debug)]
pub struct PrefixTable {
    v4: Trie,
    v6: Trie,
}

impl PrefixTable {
    /// Builds the tables from segments that cover each family's whole space: sorted, the first starting at 0.
    /// Neighbours of the same value are merged here.
    ///
    /// # Panics
    /// When a list is empty, unsorted or does not start at 0: the callers make them so.
    pub fn build(v4: &[Segment], v6: &[Segment]) -> Self {
        Self { v4: Trie::build(v4), v6: Trie::build(v6) }
    }

    /// The value at `address`. An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) is looked up as IPv4.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Found {
        match address.to_canonical() {
            v4 @ IpAddr::V4(_) => self.v4.lookup(key(v4)),
            v6 @ IpAddr::V6(_) => self.v6.lookup(key(v6)),
        }
    }

    /// The IPv4 segments that the table was built from, equal neighbours merged.
    pub fn v4_segments(&self) -> Vec<Segment> {
        self.v4.segments()
    }

    /// The IPv6 segments.
    pub fn v6_segments(&self) -> Vec<Segment> {
        self.v6.segments()
    }

    /// Memory of the tables in bytes.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

/// One node: which slots lead on (`children`), and at which slots a new leaf begins (`leaf_starts`).
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    children: u64,
    leaf_starts: u64,
    first_child: u32,
    first_leaf: u32,
}

/// A leaf: value in the upper 24 bits, depth in the lower 8.
type Leaf = u32;

#[derive(Clone, Debug)]
struct Trie {
    nodes: Box<[Node]>,
    leaves: Box<[Leaf]>,
}

impl Trie {
    fn build(segments: &[Segment]) -> Self {
        assert!(segments.first().is_some_and(|first| first.start == 0), "segments cover the space from 0");
        assert!(segments.is_sorted_by(|a, b| a.start < b.start), "segments are sorted and not empty");
        assert!(segments.iter().all(|segment| segment.value <= VALUE_MAX), "values fit a leaf");
        let mut merged = segments.to_vec();
        merged.dedup_by_key(|segment| segment.value);
        let mut builder = Builder { nodes: vec![Node::default()], leaves: Vec::new() };
        builder.node(0, Block { prefix: 0, depth: 0, segments: &merged });
        Self { nodes: builder.nodes.into(), leaves: builder.leaves.into() }
    }

    #[inline]
    fn lookup(&self, mut key: u128) -> Found {
        let mut node = &self.nodes[0];
        loop {
            let slot = (key >> (128 - STRIDE)) as u32;
            // All bits up to and including this slot; at slot 63 the 2 falls out and all 64 remain.
            let up_to = (2u64 << slot).wrapping_sub(1);
            if node.children >> slot & 1 == 0 {
                let leaf = node.first_leaf + (node.leaf_starts & up_to).count_ones() - 1;
                let leaf = self.leaves[leaf as usize];
                return Found { value: leaf >> 8, prefix_len: leaf as u8 };
            }
            let child = node.first_child + (node.children & up_to).count_ones() - 1;
            node = &self.nodes[child as usize];
            key <<= STRIDE;
        }
    }

    fn segments(&self) -> Vec<Segment> {
        let mut all = Vec::new();
        self.walk(0, 0, 0, &mut all);
        all
    }

    /// Adds the segments of the node at `index`, which covers the block at `prefix`, `depth` bits long.
    fn walk(&self, index: u32, prefix: u128, depth: u32, all: &mut Vec<Segment>) {
        let node = &self.nodes[index as usize];
        let (mut children, mut leaves) = (node.first_child, node.first_leaf);
        for slot in 0..SLOTS as u32 {
            // In the last node of a key of 128 bits only the upper bits of a slot's number are bits of the key.
            let below = 128 - STRIDE;
            let bits = u128::from(slot);
            let start =
                prefix | if depth <= below { bits << (below - depth) } else { bits >> (depth - below) };
            if node.children >> slot & 1 == 1 {
                self.walk(children, start, depth + STRIDE, all);
                children += 1;
            } else if node.leaf_starts >> slot & 1 == 1 {
                let value = self.leaves[leaves as usize] >> 8;
                leaves += 1;
                push(all, start, value);
            } else if let Some(leaf) = leaves.checked_sub(1).filter(|leaf| *leaf >= node.first_leaf) {
                // A leaf goes on behind a child that stands between.
                push(all, start, self.leaves[leaf as usize] >> 8);
            }
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.leaves)
    }
}

/// Begins a segment, unless the one before has the same value.
fn push(all: &mut Vec<Segment>, start: u128, value: u32) {
    if all.last().is_none_or(|last| last.value != value) {
        all.push(Segment { start, value });
    }
}

/// A block of the space: the prefix, its length, and the segments that reach into it (the first may start
/// before it).
#[derive(Clone, Copy)]
struct Block<'a> {
    prefix: u128,
    depth: u32,
    segments: &'a [Segment],
}

impl<'a> Block<'a> {
    fn halves(self) -> (Block<'a>, Block<'a>) {
        let depth = self.depth + 1;
        let middle = self.prefix | 1 << (128 - depth);
        let split = self.segments.partition_point(|segment| segment.start < middle);
        let begins_at_middle = self.segments.get(split).is_some_and(|segment| segment.start == middle);
        let right = if begins_at_middle { split } else { split - 1 };
        (
            Block { prefix: self.prefix, depth, segments: &self.segments[..split] },
            Block { prefix: middle, depth, segments: &self.segments[right..] },
        )
    }
}

#[derive(Clone, Copy)]
enum Slot<'a> {
    Leaf(Leaf),
    Child(Block<'a>),
}

struct Builder {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
}

impl Builder {
    /// Writes the node at `index`, which covers `block`, and everything below it.
    fn node(&mut self, index: usize, block: Block<'_>) {
        let mut slots = [Slot::Leaf(0); SLOTS];
        fill(&mut slots, block);

        let mut node = Node {
            first_child: u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes"),
            first_leaf: u32::try_from(self.leaves.len()).expect("fewer than 2^32 leaves"),
            ..Node::default()
        };
        let mut last = None;
        for (at, slot) in slots.iter().enumerate() {
            match slot {
                Slot::Child(_) => node.children |= 1 << at,
                Slot::Leaf(leaf) if last == Some(*leaf) => {}
                Slot::Leaf(leaf) => {
                    node.leaf_starts |= 1 << at;
                    self.leaves.push(*leaf);
                    last = Some(*leaf);
                }
            }
        }
        self.nodes[index] = node;
        self.nodes.resize(self.nodes.len() + node.children.count_ones() as usize, Node::default());

        let children = slots.into_iter().filter_map(|slot| match slot {
            Slot::Child(block) => Some(block),
            Slot::Leaf(_) => None,
        });
        for (at, child) in children.enumerate() {
            self.node(node.first_child as usize + at, child);
        }
    }
}

/// Fills the slots that `block` covers: one leaf if no border runs through it, else halves.
fn fill<'a>(slots: &mut [Slot<'a>], block: Block<'a>) {
    if let [only] = block.segments {
        slots.fill(Slot::Leaf(only.value << 8 | block.depth));
    } else if let [slot] = slots {
        *slot = Slot::Child(block);
    } else {
        let (left, right) = block.halves();
        let (low, high) = slots.split_at_mut(slots.len() / 2);
        fill(low, left);
        fill(high, right);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn v4_segments(borders: &[(u32, u32)]) -> Vec<Segment> {
        let mut all: Vec<Segment> = std::iter::once(Segment { start: 0, value: 0 })
            .chain(borders.iter().map(|&(at, value)| Segment { start: u128::from(at) << 96, value }))
            .collect();
        all.sort_by_key(|segment| segment.start);
        all.dedup_by_key(|segment| segment.start);
        all
    }

    fn merged(segments: &[Segment]) -> Vec<Segment> {
        let mut merged = segments.to_vec();
        merged.dedup_by_key(|segment| segment.value);
        merged
    }

    fn nothing() -> Vec<Segment> {
        vec![Segment { start: 0, value: 0 }]
    }

    /// The straightforward answer: walk the list; try every prefix length, shortest first.
    fn reference(segments: &[Segment], key: u128, bits: u32) -> Found {
        let at = |key| segments.iter().rev().find(|segment| segment.start <= key).map(|found| found.value);
        let value = at(key).expect("starts at 0");
        for depth in 0..=bits {
            let mask = if depth == 0 { 0 } else { u128::MAX << (128 - depth) };
            let (low, high) = (key & mask, key | !mask);
            let uniform = at(low) == Some(value)
                && segments.iter().all(|s| s.start <= low || s.start > high || s.value == value);
            if uniform {
                return Found { value, prefix_len: depth as u8 };
            }
        }
        unreachable!("a single address has one value")
    }

    #[test]
    fn one_value_has_depth_zero() {
        let table = PrefixTable::build(&nothing(), &nothing());
        assert_eq!(table.lookup(Ipv4Addr::new(1, 2, 3, 4).into()), Found { value: 0, prefix_len: 0 });
        assert_eq!(table.lookup(Ipv6Addr::LOCALHOST.into()), Found { value: 0, prefix_len: 0 });
    }

    #[test]
    fn a_single_address_stands_alone() {
        let table = PrefixTable::build(&v4_segments(&[(0x0a00_0001, 7), (0x0a00_0002, 0)]), &nothing());
        assert_eq!(table.lookup(Ipv4Addr::new(10, 0, 0, 1).into()), Found { value: 7, prefix_len: 32 });
        assert_eq!(table.lookup(Ipv4Addr::new(10, 0, 0, 0).into()), Found { value: 0, prefix_len: 32 });
        assert_eq!(table.lookup(Ipv4Addr::new(10, 0, 0, 2).into()), Found { value: 0, prefix_len: 31 });
        assert_eq!(table.lookup(Ipv4Addr::new(200, 0, 0, 2).into()), Found { value: 0, prefix_len: 1 });
    }

    #[test]
    fn equal_siblings_merge() {
        let table = PrefixTable::build(
            &v4_segments(&[(0x0a00_0000, 5), (0x0b00_0000, 5), (0x0c00_0000, 0)]),
            &nothing(),
        );
        assert_eq!(table.lookup(Ipv4Addr::new(10, 9, 9, 9).into()), Found { value: 5, prefix_len: 7 });
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let table = PrefixTable::build(&v4_segments(&[(0x0a00_0000, 5), (0x0b00_0000, 0)]), &nothing());
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(table.lookup(mapped), Found { value: 5, prefix_len: 8 });
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference_v4(borders in prop::collection::vec((any::<u32>(), 0u32..4), 0..40), probes in prop::collection::vec(any::<u32>(), 20)) {
            let segments = v4_segments(&borders);
            let table = PrefixTable::build(&segments, &nothing());
            prop_assert_eq!(table.v4_segments(), merged(&segments));
            let at_borders = borders.iter().flat_map(|&(at, _)| [at, at.wrapping_sub(1), at.wrapping_add(1)]);
            for probe in probes.into_iter().chain(at_borders) {
                let found = table.lookup(Ipv4Addr::from_bits(probe).into());
                prop_assert_eq!(found, reference(&segments, u128::from(probe) << 96, 32));
            }
        }

        #[test]
        fn agrees_with_the_reference_v6(borders in prop::collection::vec((any::<u128>(), 0u32..4), 0..40), probes in prop::collection::vec(any::<u128>(), 20)) {
            let mut segments: Vec<Segment> = std::iter::once(Segment { start: 0, value: 0 })
                .chain(borders.iter().map(|&(start, value)| Segment { start, value })).collect();
            segments.sort_by_key(|segment| segment.start);
            segments.dedup_by_key(|segment| segment.start);
            let table = PrefixTable::build(&nothing(), &segments);
            prop_assert_eq!(table.v6_segments(), merged(&segments));
            for probe in probes.into_iter().chain(borders.iter().map(|border| border.0)) {
                // Mapped addresses belong to the other table.
                if Ipv6Addr::from_bits(probe).to_ipv4_mapped().is_none() {
                    let found = table.lookup(Ipv6Addr::from_bits(probe).into());
                    prop_assert_eq!(found, reference(&segments, probe, 128));
                }
            }
        }
    }
}
