//! What was put or deleted under a key stays so until something newer comes: in each store, step by step.

use std::collections::BTreeMap;

use daemun_sync::store::journal::Logs as _;
use daemun_sync::store::op::Key;
use daemun_sync::store::stamp::Stamp;

use super::{Checker, Note};
use crate::store::world::World;

/// The newest put or delete that a store has shown of each key: now, and what it has on disk.
#[derive(Clone, Debug, Default)]
struct Shown {
    /// With its number in its origin's log.
    now: BTreeMap<Key, (Stamp, u64)>,
    durable: BTreeMap<Key, (Stamp, u64)>,
}

#[derive(Default)]
pub(crate) struct Gone {
    shown: BTreeMap<usize, Shown>,
}

impl Checker for Gone {
    fn name(&self) -> &'static str {
        "what is gone stays gone"
    }

    fn look(&mut self, world: &World, note: &Note) -> Result<(), String> {
        match *note {
            Note::Crashed(node) => {
                let shown = self.shown.entry(node).or_default();
                shown.now.clone_from(&shown.durable);
                Ok(())
            }
            Note::LostDisk(node) => {
                self.shown.remove(&node);
                Ok(())
            }
            Note::Beat | Note::End => (0..world.nodes.len()).try_for_each(|node| self.check(world, node)),
            Note::Started(_) | Note::Committed(_) | Note::Answered(_) => Ok(()),
        }
    }
}

impl Gone {
    fn check(&mut self, world: &World, node: usize) -> Result<(), String> {
        let Some(alive) = &world.nodes[node].alive else { return Ok(()) };
        let shown = self.shown.entry(node).or_default();
        for (key, cell) in alive.keys.map.iter().filter(|(key, _)| !key.name().starts_with('x')) {
            let Some(register) = &cell.register else { continue };
            let before = shown.now.entry(key.clone()).or_default();
            if register.stamp < before.0 {
                return Err(format!(
                    "dc{node} shows {:?} under {key:?} of {}, and had shown {}",
                    register.value, register.stamp, before.0
                ));
            }
            *before = (register.stamp, register.sequence);
        }
        if alive.replica.received().covers(alive.replica.applied()) && !alive.replica.has_outgoing() {
            // What is later than all that its disk has seen may be the future again after a restart; and what came with a
            // comparison, ahead of its log, is only in memory until the keys are written.
            let disk = &world.nodes[node].disk;
            let (time, heads) = (disk.time(), disk.journal.heads());
            let is_there = |stamp: Stamp, sequence| stamp.time <= time && sequence <= heads.of(stamp.origin);
            let durable = shown.now.iter().filter(|(_, (stamp, sequence))| is_there(*stamp, *sequence));
            shown.durable.extend(durable.map(|(key, shown)| (key.clone(), *shown)));
        }
        Ok(())
    }
}
