//! What must be so of the stores. Checkers see the [`World`]: what is true, and what each store says.

mod bounded;
mod conditions;
mod converged;
mod frontiers;
mod gone;
mod kept;
mod lag;
mod model;

pub(super) use bounded::Bounded;
pub(super) use conditions::Conditions;
pub(super) use converged::Converged;
pub(super) use frontiers::Frontiers;
pub(super) use gone::Gone;
pub(super) use kept::Kept;
pub(super) use lag::HonestLag;

use daemun_sync::store::heads::Heads;
use daemun_sync::store::journal::Logs as _;

use super::world::World;

/// What has just happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// Some time has passed.
    Beat,
    /// A datacenter's process has begun.
    Started(usize),
    Crashed(usize),
    LostDisk(usize),
    /// What it had to write is on its disk, or is not.
    Committed(usize),
    /// A writer was answered: the place in the ledger.
    Answered(usize),
    /// All is over.
    End,
}

/// A rule that is looked after.
pub(super) trait Checker {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Looks.
    ///
    /// # Errors
    /// What is not as it must be.
    fn look(&mut self, world: &World, note: &Note) -> Result<(), String>;
}

/// All of them.
pub(super) fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(Kept),
        Box::new(Converged),
        Box::<Gone>::default(),
        Box::new(HonestLag),
        Box::new(Bounded),
        Box::<Frontiers>::default(),
        Box::<Conditions>::default(),
    ]
}

/// What some disk has.
fn known(world: &World) -> Heads {
    let mut known = Heads::default();
    for node in &world.nodes {
        known.join(&node.disk.journal.heads());
    }
    known
}
