//! What was acknowledged is there, as long as the faults are those that its durability promises to survive; counters sum,
//! sets hold, and nothing that was deleted or has expired is seen, by the rules of [`model`](super::model).

use std::collections::BTreeSet;

use daemun_sync::store::cell::{Cell, Seen};
use daemun_sync::store::journal::Logs as _;
use daemun_sync::store::op::Key;
use daemun_sync::store::request::{Durability, Reply, Whereabouts};
use daemun_sync::store::stamp::Stamp;

use super::model::{self, expected};
use super::{Checker, Note, known};
use crate::store::ledger::Asked;
use crate::store::world::World;

pub(crate) struct Kept;

impl Checker for Kept {
    fn name(&self) -> &'static str {
        "what is acknowledged is kept"
    }

    fn look(&mut self, world: &World, note: &Note) -> Result<(), String> {
        match *note {
            Note::Answered(at) => claims_are_true(world, &world.ledger.asked[at]),
            Note::End => {
                acknowledged_is_there(world)?;
                (0..world.nodes.len()).try_for_each(|node| as_expected(world, node))
            }
            _ => Ok(()),
        }
    }
}

/// What a writer is told of where its write is.
fn claims_are_true(world: &World, asked: &Asked) -> Result<(), String> {
    let Some(Reply::Written { stamps, is_done, whereabouts }) = &asked.reply else { return Ok(()) };
    let Whereabouts { local, remote, missing } = whereabouts;
    let Some(stamp) = stamps.last() else { return Err("a write without a stamp".to_owned()) };
    let durability = asked.write.durability;
    let needs = match durability {
        Durability::Memory | Durability::Local => 0,
        Durability::Remote(count) => count as usize,
        Durability::All => 0,
    };
    if *is_done && (remote.len() < needs || durability == Durability::All && !missing.is_empty()) {
        return Err(format!("{durability} is done with {whereabouts:?}"));
    }
    if durability != Durability::Memory && !local {
        return Err(format!("{durability} is answered and not on the disk here"));
    }
    let Some(sequence) = world.ledger.by_stamp.get(stamp) else {
        return if *local { Err(format!("{stamp} is on no disk")) } else { Ok(()) };
    };
    for name in remote {
        let node = world.nodes.iter().find(|node| node.name == *name).expect("a name");
        // A disk that was lost meanwhile, of which nobody could tell yet.
        let is_lost = node.disk.number > 0;
        if !is_lost && node.disk.journal.heads().of(stamp.origin) < *sequence {
            return Err(format!("{stamp} is said to be on the disk of {name}, and is not"));
        }
    }
    Ok(())
}

fn acknowledged_is_there(world: &World) -> Result<(), String> {
    let known = known(world);
    for asked in &world.ledger.asked {
        let Some(Reply::Written { stamps, is_done, whereabouts }) = &asked.reply else { continue };
        if asked.write.durability == Durability::Memory || !whereabouts.local {
            continue;
        }
        let was_elsewhere = *is_done && !whereabouts.remote.is_empty();
        for stamp in stamps {
            let Some(sequence) = world.ledger.by_stamp.get(stamp) else {
                return Err(format!("{stamp} was acknowledged and was never on a disk"));
            };
            let lost_after = world.ledger.lost_after.get(&stamp.origin).copied().unwrap_or(u64::MAX);
            let is_excused = *sequence > lost_after && !was_elsewhere;
            if !is_excused && known.of(stamp.origin) < *sequence {
                return Err(format!("{stamp} was acknowledged ({}) and is lost", asked.write.durability));
            }
        }
    }
    Ok(())
}

fn as_expected(world: &World, node: usize) -> Result<(), String> {
    let Some(alive) = &world.nodes[node].alive else { return Ok(()) };
    let unix_ms = world.moment(node).unix_ms;
    let known = known(world);
    let mut survivors = model::by_key(world.ledger.survivors(&known));
    let lost = model::by_key(world.ledger.lost(&known));
    let keys: BTreeSet<&Key> = alive.keys.map.keys().chain(lost.keys()).chain(survivors.keys()).collect();
    let keys: Vec<Key> = keys.into_iter().cloned().collect();
    for key in keys {
        let found = alive.keys.map.get(&key).map_or(model::Seen::Nothing, |cell| seen(cell, unix_ms));
        let mut entries = survivors.remove(&key).unwrap_or_default();
        let wanted = expected(&entries, unix_ms);
        // Somebody may have compared this key with the disk that was lost after what it has of its log: what the key had
        // made of it until then is there.
        let mut went = lost.get(&key).into_iter().flatten();
        let mut is_right = found == wanted;
        while let (false, Some(entry)) = (is_right, went.next()) {
            entries.push(entry);
            is_right = found == expected(&entries, unix_ms);
        }
        if !is_right {
            return Err(format!("dc{node} has {found:?} under {key:?}, and it should be {wanted:?}"));
        }
    }
    Ok(())
}

fn seen(cell: &Cell, unix_ms: u64) -> model::Seen {
    match cell.seen(unix_ms) {
        None => model::Seen::Nothing,
        Some(Seen::Value(_)) => {
            model::Seen::Value(cell.register.as_ref().map_or(Stamp::default(), |register| register.stamp))
        }
        Some(Seen::Counter(sum)) => model::Seen::Counter(i64::try_from(sum).unwrap_or(i64::MAX)),
        Some(Seen::Set(elements)) => model::Seen::Set(elements.into_iter().map(str::to_owned).collect()),
    }
}
