//! Of two writes in one datacenter that both want to find the same stamp, one succeeds.

use std::collections::BTreeMap;

use daemun_sync::store::op::Key;
use daemun_sync::store::stamp::Stamp;

use super::{Checker, Note};
use crate::store::ledger::Ledger;
use crate::store::world::World;

#[derive(Default)]
pub(crate) struct Conditions {
    /// By datacenter, its disk, key and stamp: what was written in its place.
    taken: BTreeMap<(usize, u32, Key, Stamp), Stamp>,
}

impl Checker for Conditions {
    fn name(&self) -> &'static str {
        "a condition holds once"
    }

    fn look(&mut self, world: &World, note: &Note) -> Result<(), String> {
        let Note::Answered(at) = *note else { return Ok(()) };
        let asked = &world.ledger.asked[at];
        let (Some(stamps), Some((key, found))) = (asked.kept(), Ledger::condition(&asked.write)) else {
            return Ok(());
        };
        let place = (asked.node, asked.disk, key.clone(), found);
        match self.taken.insert(place, stamps[0]) {
            None => Ok(()),
            Some(before) => {
                Err(format!("dc{} took {before} and {} in the place of {found}", asked.node, stamps[0]))
            }
        }
    }
}
