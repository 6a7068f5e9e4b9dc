//! A lag is never below the truth while it is known, never known while the link is dead, and not far above the truth when
//! all is well.

use daemun_sync::store::journal::Logs as _;
use daemun_sync::store::replica::{Lag, Stage};

use super::{Checker, Note};
use crate::store::story::Sabotage;
use crate::store::world::World;

/// A link that was heard so long ago is not heard of late.
const SILENCE_US: u64 = 3_000_000;
/// After a jump of a clock nobody can tell for so long how old a heartbeat is that was written before.
const JUMP_US: u64 = 25_000_000;
/// All has been well for so long.
const WELL_US: u64 = 12_000_000;
/// And so far may a known lag be above the truth then, milliseconds.
const ABOVE_MAX_MS: u64 = 3_000;

pub(crate) struct HonestLag;

impl Checker for HonestLag {
    fn name(&self) -> &'static str {
        "lag is honest"
    }

    fn look(&mut self, world: &World, note: &Note) -> Result<(), String> {
        if !matches!(note, Note::Beat | Note::End) {
            return Ok(());
        }
        for at in 0..world.nodes.len() {
            let Some(alive) = &world.nodes[at].alive else { continue };
            for mut lag in alive.replica.lags(world.moment(at)) {
                match world.plan.sabotage {
                    Some(Sabotage::LagIsZero) => (lag.behind_ms, lag.stage) = (Some(0), Stage::Known),
                    Some(Sabotage::LagIsHuge) => lag.behind_ms = Some(5_000),
                    Some(Sabotage::OperationsAreFew) => lag.unconfirmed = 0,
                    _ => {}
                }
                let of = world.nodes.iter().position(|node| node.name == lag.datacenter).expect("a name");
                check(world, at, of, &lag).map_err(|what| format!("dc{at} of dc{of}: {what}: {lag:?}"))?;
            }
        }
        Ok(())
    }
}

fn check(world: &World, at: usize, of: usize, lag: &Lag) -> Result<(), String> {
    let now_us = world.now_us;
    let (Some(alive), there) = (&world.nodes[at].alive, &world.nodes[of]) else { return Ok(()) };
    let way = &world.links[of][at];
    let slowest = 2 * (way.value.delay_us + 2_200_000);
    let cut_for = if way.value.cuts > 0 { now_us - micros(way.since) } else { 0 };
    if cut_for > SILENCE_US + slowest && (lag.stage == Stage::Known || lag.behind_operations.is_some()) {
        return Err("it is known, and the link has been cut for long".to_owned());
    }
    let Some(origin) = &there.disk.origin else { return Ok(()) };
    let id = origin.id();
    let applied = alive.replica.applied().of(id);
    // Of a store that is newer than what can be known of it here nothing is said yet.
    let is_new = there.alive.as_ref().is_none_or(|there| now_us - there.begun_us < SILENCE_US + slowest)
        || !alive.replica.origins().any(|known| known == origin);
    let (_, oldest_us) = world.ledger.missing(id, applied, now_us);
    let has_jumped = [at, of].iter().any(|node| {
        let jumped = world.nodes[*node].jumped_us;
        jumped > 0 && now_us - jumped < JUMP_US
    });
    if let (Stage::Known, Some(behind_ms), Some(oldest_us), false) =
        (lag.stage, lag.behind_ms, oldest_us, has_jumped || is_new && there.disk.number > 0)
    {
        let truth_ms = (now_us - oldest_us) / 1000;
        if behind_ms + 2 < truth_ms {
            return Err(format!("the oldest that is not applied is {truth_ms} ms old"));
        }
    }
    let (missing, _) = world.ledger.missing(id, applied, now_us.saturating_sub(SILENCE_US + slowest));
    if !is_new && lag.behind_operations.is_some_and(|behind| behind < missing) {
        return Err(format!("{missing} operations are not applied"));
    }
    let has = there.disk.journal.heads();
    let me = alive.replica.origin().id();
    let written = world.nodes[at].disk.journal.heads().of(me);
    if !is_new && lag.unconfirmed < written.saturating_sub(has.of(me)) {
        return Err(format!("it has {} of {written}", has.of(me)));
    }
    if world.plan.is_sane && is_well(world, now_us) {
        let behind = lag.behind_ms.unwrap_or(u64::MAX);
        if lag.stage != Stage::Known || behind > ABOVE_MAX_MS {
            return Err("all has been well for long".to_owned());
        }
    }
    Ok(())
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Nothing has gone wrong for long.
fn is_well(world: &World, now_us: u64) -> bool {
    let long = |since: std::time::Duration| now_us >= micros(since) + WELL_US;
    let runs = world.nodes.iter().all(|node| {
        let begun = node.alive.as_ref().map(|alive| alive.begun_us + WELL_US);
        begun.is_some_and(|at| now_us >= at) && !node.is_full.value && long(node.is_full.since)
    });
    let linked = world
        .links
        .iter()
        .flatten()
        .all(|link| link.value.cuts == 0 && link.value.slow_us == 0 && long(link.since));
    runs && linked
}
