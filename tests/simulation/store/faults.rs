//! What goes wrong with the stores, done.

use super::checkers::Note;
use super::disk::Disk;
use super::story::Act;
use super::world::{Event, World};

pub(super) fn act(world: &mut World, act: Act) {
    let now = std::time::Duration::from_micros(world.now_us);
    match act {
        Act::Cut { from, to } => {
            let mut link = world.links[from][to].value;
            link.cuts += 1;
            world.links[from][to].set(link, now);
            world.break_streams(from, to);
        }
        Act::Mend { from, to } => {
            let mut link = world.links[from][to].value;
            link.cuts = link.cuts.saturating_sub(1);
            world.links[from][to].set(link, now);
        }
        Act::Slow { from, to, us } => {
            let mut link = world.links[from][to].value;
            link.slow_us = us;
            world.links[from][to].set(link, now);
        }
        Act::Crash { node, lands } => world.crash(node, lands),
        Act::Start { node } => {
            if !world.nodes[node].is_gone {
                world.start(node);
            }
        }
        Act::Full { node, is_full } => world.nodes[node].is_full.set(is_full, now),
        Act::LoseDisk { node } => lose_disk(world, node),
        Act::Jump { node, ahead_ms } => {
            world.nodes[node].clock.ahead_ms = ahead_ms;
            world.nodes[node].jumped_us = world.now_us;
            for at in 0..world.nodes.len() {
                world.measure_skews(at);
            }
        }
        Act::Trim { node } => world.trim(node),
        Act::Burst { node, count } => world.burst(node, count),
        Act::Forget { node } => forget(world, node),
        Act::Heal => heal(world),
    }
}

fn lose_disk(world: &mut World, node: usize) {
    world.crash(node, false);
    let lost = &world.nodes[node].disk;
    if let Some(origin) = &lost.origin {
        let id = origin.id();
        // What a snapshot has brought is there too.
        let elsewhere = world.nodes.iter().enumerate().filter(|(at, _)| *at != node).map(|(_, other)| {
            use daemun_sync::store::journal::Logs as _;
            other.disk.journal.heads().of(id)
        });
        let upto = elsewhere.max().unwrap_or(0);
        world.ledger.lost_after.insert(id, upto);
    }
    let number = world.nodes[node].disk.number + 1;
    world.nodes[node].disk = Disk { number, ..Disk::default() };
    world.note(&Note::LostDisk(node));
}

/// It never comes back as it was.
fn forget(world: &mut World, node: usize) {
    world.crash(node, false);
    world.nodes[node].is_gone = true;
    lose_disk(world, node);
    world.forgotten.insert(world.nodes[node].name.clone());
    for other in 0..world.nodes.len() {
        let forgotten = world.forgotten.clone();
        if let Some(alive) = &mut world.nodes[other].alive {
            alive.replica.set_forgotten(forgotten);
        }
    }
}

/// Everything is well from now on, and nobody writes any more.
fn heal(world: &mut World) {
    let now = std::time::Duration::from_micros(world.now_us);
    world.healed = true;
    for link in world.links.iter_mut().flatten() {
        let mut well = link.value;
        (well.cuts, well.slow_us) = (0, 0);
        link.set(well, now);
    }
    for node in 0..world.nodes.len() {
        world.nodes[node].is_full.set(false, now);
        if world.nodes[node].clock.ahead_ms.abs() > 100 {
            world.nodes[node].clock.ahead_ms = 0;
            world.nodes[node].jumped_us = world.now_us;
        }
    }
    // Who was given up comes back emptied, though nobody has taken back the word.
    for node in 0..world.nodes.len() {
        world.nodes[node].is_gone = false;
        world.start(node);
        world.later(0, Event::Beat);
    }
}
