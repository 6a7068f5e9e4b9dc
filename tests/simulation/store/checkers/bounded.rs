//! After everything has been well for long, nothing is kept that nobody needs.

use std::collections::BTreeMap;

use daemun_sync::store::journal::{Logs as _, Read};

use super::{Checker, Note, known, model};
use crate::store::world::World;
use crate::store::writers::waiting;

/// Entries that a journal has of one live origin: heartbeats of the seconds between two looks at what may go, and of those
/// that it takes to hear that all have them.
const ENTRIES_MAX: usize = 30;

pub(crate) struct Bounded;

impl Checker for Bounded {
    fn name(&self) -> &'static str {
        "nothing is kept that nobody needs"
    }

    fn look(&mut self, world: &World, note: &Note) -> Result<(), String> {
        if *note != Note::End {
            return Ok(());
        }
        if waiting(&world.ledger) > 0 {
            return Err(format!("{} writers were never answered", waiting(&world.ledger)));
        }
        // What came of a lost disk ahead of its log is remembered for good: nobody can tell that it has come everywhere.
        let known = known(world);
        let lost = model::by_key(world.ledger.lost(&known));
        for (at, node) in world.nodes.iter().enumerate() {
            let Some(alive) = &node.alive else { continue };
            let unix_ms = world.moment(at).unix_ms;
            let by_origin: BTreeMap<_, _> = node
                .disk
                .journal
                .heads()
                .iter()
                .map(|(origin, head)| {
                    let floor = node.disk.journal.floors().get(&origin).map_or(0, |floor| floor.sequence);
                    (origin, head - floor)
                })
                .collect();
            let most = ENTRIES_MAX * world.nodes.len();
            if node.disk.journal.len() > most {
                return Err(format!("{} keeps more than {most} entries: {by_origin:?}", node.name));
            }
            let mut remembered = alive.keys.map.iter().filter(|(_, cell)| cell.has_a_past(unix_ms));
            if let Some((key, cell)) = remembered.find(|(key, _)| !lost.contains_key(*key)) {
                return Err(format!("{} remembers {key:?}: {cell:?}", node.name));
            }
            if !alive.replica.held().is_empty() {
                return Err(format!("{} holds back {:?}", node.name, alive.replica.held()));
            }
            if alive.replica.is_waited_for() && !alive.commits {
                return Err(format!("{} has something staged that nobody writes", node.name));
            }
            for (origin, head) in node.disk.journal.heads().iter() {
                let read = node.disk.journal.read_after(origin, head, 1);
                if read != Ok(Read::Next(None)) {
                    return Err(format!("{} reads {read:?} after the end of {origin}", node.name));
                }
            }
        }
        Ok(())
    }
}
