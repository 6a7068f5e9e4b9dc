//! After everything has been well for long, all stores hold the same, and nobody has anything left to tell.

use daemun_sync::store::cell::Cell;
use daemun_sync::store::heads::Heads;
use daemun_sync::store::op::Key;
use daemun_sync::store::verify::digest;

use super::{Checker, Note};
use crate::store::world::World;

/// What was written so long before the end is everywhere.
const SETTLED_US: u64 = 6_000_000;

pub(crate) struct Converged;

impl Checker for Converged {
    fn name(&self) -> &'static str {
        "all stores come to hold the same"
    }

    fn look(&mut self, world: &World, note: &Note) -> Result<(), String> {
        if *note != Note::End {
            return Ok(());
        }
        let unix_ms = world.moment(0).unix_ms;
        let mut first = None;
        let mut everything = Heads::default();
        for node in &world.nodes {
            let Some(alive) = &node.alive else { return Err(format!("{} does not run", node.name)) };
            if !alive.replica.is_open() {
                return Err(format!("{} does not take writes", node.name));
            }
            let cells: Vec<(Key, Cell)> =
                alive.keys.map.iter().map(|(key, cell)| (key.clone(), cell.clone())).collect();
            let digest = digest(&cells, unix_ms);
            if *first.get_or_insert(digest) != digest {
                return Err(format!("{} holds something else than dc0", node.name));
            }
            everything.join(alive.replica.received());
        }
        for node in &world.nodes {
            let Some(alive) = &node.alive else { continue };
            for (origin, _) in everything.beyond(alive.replica.applied()) {
                let after = alive.replica.applied().of(origin);
                let by_us = world.now_us - SETTLED_US;
                let (count, _) = world.ledger.missing(origin, after, by_us);
                if count > 0 && after < everything.of(origin) {
                    return Err(format!("{} lacks {count} operations of {origin} after {after}", node.name));
                }
            }
        }
        Ok(())
    }
}
