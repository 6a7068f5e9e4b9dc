//! Frontiers never go back, and nobody says that it has received what is not on its disk.

use std::collections::BTreeMap;

use daemun_sync::store::heads::Heads;
use daemun_sync::store::journal::Logs as _;

use super::{Checker, Note};
use crate::store::world::World;

#[derive(Default)]
struct Seen {
    life: u32,
    disk: u32,
    received: Heads,
    applied: Heads,
}

#[derive(Default)]
pub(crate) struct Frontiers {
    seen: BTreeMap<usize, Seen>,
}

impl Checker for Frontiers {
    fn name(&self) -> &'static str {
        "frontiers do not go back"
    }

    fn look(&mut self, world: &World, note: &Note) -> Result<(), String> {
        match *note {
            Note::Committed(node) | Note::Started(node) => self.check(world, node),
            Note::Beat | Note::End => (0..world.nodes.len()).try_for_each(|node| self.check(world, node)),
            _ => Ok(()),
        }
    }
}

impl Frontiers {
    fn check(&mut self, world: &World, node: usize) -> Result<(), String> {
        let of = &world.nodes[node];
        let Some(alive) = &of.alive else { return Ok(()) };
        let seen = self.seen.entry(node).or_default();
        let (received, applied) = (alive.replica.received(), alive.replica.applied());
        if seen.disk == of.disk.number && !received.covers(&seen.received) {
            return Err(format!("dc{node} had received {}, and now {received}", seen.received));
        }
        if (seen.disk, seen.life) == (of.disk.number, of.life) && !applied.covers(&seen.applied) {
            return Err(format!("dc{node} had applied {}, and now {applied}", seen.applied));
        }
        let on_disk = of.disk.journal.heads();
        if !on_disk.covers(received) {
            return Err(format!("dc{node} says that it has received {received}, and has {on_disk} on disk"));
        }
        let (received, applied) = (received.clone(), applied.clone());
        *seen = Seen { life: of.life, disk: of.disk.number, received, applied };
        Ok(())
    }
}
