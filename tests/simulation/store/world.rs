//! The world of the stores: each datacenter's [`Replica`] with its disk and clock, and streams between them. A queue of
//! events by true time; nothing happens between two of them.
//!
//! It drives the stores as their shell does: what comes is handed in, what is to be durable goes to the disk, then writers
//! are answered and followers fed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use daemun_sync::core::Moment;
use daemun_sync::store::journal::{Journal as _, JournalError, Logs as _};
use daemun_sync::store::replica::Replica;
use daemun_sync::store::stamp::{Origin, OriginId};

use super::checkers::{Checker, Note};
use super::disk::{Disk, Keys};
use super::ledger::Ledger;
use super::story::{Act, Calm, Plan, Sabotage};
use super::stream::{Message, Pair, Stream};
use crate::clock::MachineClock;
use crate::random::Random;
use crate::scene::Since;
use crate::world::Violation;

/// The longest time between two looks of a store at what time asks for.
const TICK_US: u64 = 100_000;
/// Checkers look at least so often.
const BEAT_US: u64 = 500_000;
/// Time between two looks at what may be let go.
const TIDY_US: u64 = 2_000_000;

/// What happens next.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Act(usize),
    Beat,
    Wake(usize, u32),
    Commit(usize, u32),
    Write(usize),
    Connect(Pair),
    Arrive(Pair, u64, Box<Message>),
    Ends(Pair, u64),
}

#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// A way from one datacenter to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// By how many faults it is cut.
    pub(super) cuts: u32,
    /// One way, microseconds.
    pub(super) delay_us: u64,
    /// So much longer now.
    pub(super) slow_us: u64,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Alive {
    pub(super) replica: Replica,
    pub(super) keys: Keys,
    pub(super) begun_us: u64,
    pub(super) commits: bool,
    pub(super) origins: BTreeMap<OriginId, Origin>,
    keep_at_us: u64,
    measure_at_us: u64,
    tidy_at_us: u64,
}

/// A datacenter.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) clock: MachineClock,
    /// When it last jumped.
    pub(super) jumped_us: u64,
    pub(super) disk: Disk,
    pub(super) alive: Option<Alive>,
    /// Counts its processes.
    pub(super) life: u32,
    /// Its disk takes no more; when that last changed.
    pub(super) is_full: Since<bool>,
    /// It does not come back before it is told to.
    pub(super) is_gone: bool,
}

/// The world.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) nodes: Vec<Node>,
    pub(super) links: Vec<Vec<Since<Link>>>,
    pub(super) streams: BTreeMap<Pair, Stream>,
    pub(super) ledger: Ledger,
    pub(super) forgotten: BTreeSet<String>,
    pub(super) now_us: u64,
    pub(super) healed: bool,
    checkers: Vec<Box<dyn Checker>>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    pub(super) events: u64,
    pub(super) violation: Option<Violation>,
}

impl World {
    pub(super) fn new(plan: Plan, checkers: Vec<Box<dyn Checker>>) -> Self {
        let Calm { clocks, delays_us } = plan.calm.clone();
        let node = |(at, clock): (usize, &MachineClock)| Node {
            name: format!("dc{at}"),
            clock: *clock,
            jumped_us: 0,
            disk: Disk::default(),
            alive: None,
            life: 0,
            is_full: Since::new(false),
            is_gone: false,
        };
        let link = |delay_us: &u64| Since::new(Link { cuts: 0, delay_us: *delay_us, slow_us: 0 });
        let mut world = Self {
            random: plan.random.clone(),
            nodes: clocks.iter().enumerate().map(node).collect(),
            links: delays_us.iter().map(|row| row.iter().map(link).collect()).collect(),
            streams: BTreeMap::new(),
            ledger: Ledger::default(),
            forgotten: BTreeSet::new(),
            now_us: 0,
            healed: false,
            checkers,
            queue: BinaryHeap::new(),
            number: 0,
            events: 0,
            violation: None,
            plan,
        };
        for (at, act) in
            world.plan.acts.iter().enumerate().map(|(at, (time, _))| (at, *time)).collect::<Vec<_>>()
        {
            world.schedule(act, Event::Act(at));
        }
        world.schedule(BEAT_US, Event::Beat);
        for node in 0..world.nodes.len() {
            world.start(node);
            let at = world.random.below(1_000_000);
            world.schedule(at, Event::Write(node));
        }
        world
    }

    pub(super) fn schedule(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        let at_us = at_us.max(self.now_us);
        self.queue.push(Reverse(Scheduled { at_us, number: self.number, event }));
    }

    /// One that was not given before.
    pub(super) fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(super) fn later(&mut self, us: u64, event: Event) {
        self.schedule(self.now_us + us, event);
    }

    /// Plays the story to its end.
    pub(super) fn run(&mut self) {
        while let Some(Reverse(Scheduled { at_us, event, .. })) = self.queue.pop() {
            if at_us > self.plan.end_us || self.violation.is_some() {
                break;
            }
            self.now_us = at_us;
            self.events += 1;
            self.happen(event);
        }
        if self.violation.is_none() {
            self.now_us = self.plan.end_us;
            self.note(&Note::End);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act(at) => {
                let act = self.plan.acts[at].1;
                self.tell(|| format!("{act:?}"));
                self.act(act);
            }
            Event::Beat => {
                self.note(&Note::Beat);
                self.later(BEAT_US, Event::Beat);
            }
            Event::Wake(node, life) => {
                if self.nodes[node].life == life {
                    self.wake(node);
                }
            }
            Event::Commit(node, life) => {
                if self.nodes[node].life == life {
                    self.commit(node);
                }
            }
            Event::Write(node) => self.write_something(node),
            Event::Connect(pair) => self.connect(pair),
            Event::Arrive(pair, id, message) => self.arrive(pair, id, *message),
            Event::Ends(pair, id) => {
                if self.streams.get(&pair).is_some_and(|stream| stream.id == id) {
                    self.hang_up(pair, "cut");
                }
            }
        }
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.plan.is_told {
            println!("{:10.3} {}", self.now_us as f64 / 1e6, what());
        }
    }

    /// Tells the checkers.
    pub(super) fn note(&mut self, note: &Note) {
        let mut checkers = std::mem::take(&mut self.checkers);
        for checker in &mut checkers {
            if let Err(what) = checker.look(self, note)
                && self.violation.is_none()
            {
                let at = Duration::from_micros(self.now_us);
                self.violation = Some(Violation { checker: checker.name(), at, what });
            }
        }
        self.checkers = checkers;
    }

    pub(super) fn moment(&self, node: usize) -> Moment {
        self.nodes[node].clock.at(self.now_us)
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].alive.is_some() {
            return;
        }
        let moment = self.moment(node);
        let (now_us, count) = (self.now_us, self.nodes.len());
        let Node { name, disk, life, .. } = &mut self.nodes[node];
        *life += 1;
        let life = *life;
        let (mut replica, keys) = disk.open(name, moment);
        replica.set_peers((0..count).map(|at| format!("dc{at}")));
        replica.set_forgotten(self.forgotten.clone());
        self.nodes[node].alive = Some(Alive {
            replica,
            keys,
            begun_us: now_us,
            commits: false,
            origins: BTreeMap::new(),
            measure_at_us: now_us,
            keep_at_us: now_us,
            tidy_at_us: now_us,
        });
        self.note(&Note::Started(node));
        self.schedule(now_us, Event::Wake(node, life));
        for other in (0..count).filter(|other| *other != node) {
            let wait = self.random.below(300_000);
            self.later(wait, Event::Connect((node, other)));
        }
    }

    /// The process dies; what was on its way to the disk is there, or not.
    pub(super) fn crash(&mut self, node: usize, lands: bool) {
        let Some(mut alive) = self.nodes[node].alive.take() else { return };
        self.nodes[node].life += 1;
        if lands && !self.nodes[node].is_full.value {
            let me = alive.replica.origin().clone();
            let (names, batches) = (alive.replica.to_name(), alive.replica.to_append());
            let disk = &mut self.nodes[node].disk;
            for origin in names {
                disk.journal.name(&origin).expect("in memory");
            }
            if disk.journal.append(&batches).is_ok() {
                disk.origin = Some(me.clone());
                for batch in batches.iter().filter(|batch| batch.origin == me.id()) {
                    self.ledger.wrote(batch, self.now_us);
                }
            }
        }
        for asked in self.ledger.asked.iter_mut().filter(|asked| asked.node == node && asked.reply.is_none())
        {
            asked.is_lost = true;
        }
        for pair in self.pairs_of(node) {
            self.hang_up(pair, "its process died");
        }
        self.note(&Note::Crashed(node));
    }

    pub(super) fn pairs_of(&self, node: usize) -> Vec<Pair> {
        self.streams
            .keys()
            .filter(|(follower, feeder)| *follower == node || *feeder == node)
            .copied()
            .collect()
    }

    /// What time asks for.
    fn wake(&mut self, node: usize) {
        let moment = self.moment(node);
        if self.nodes[node].alive.as_ref().is_some_and(|alive| self.now_us >= alive.measure_at_us) {
            self.measure_skews(node);
        }
        let (now_us, life) = (self.now_us, self.nodes[node].life);
        let Node { disk, alive: Some(alive), .. } = &mut self.nodes[node] else { return };
        for _ in 0..1000 {
            alive.replica.tick(moment, &disk.journal, &mut alive.keys).expect("the journal can be read");
            if !alive.replica.has_more(moment.unix_ms) {
                break;
            }
        }
        if now_us >= alive.keep_at_us {
            alive.keep_at_us = now_us + self.random.between(200_000, self.plan.keep_us);
            disk.keep(&alive.replica, &alive.keys);
        }
        if now_us >= alive.tidy_at_us {
            alive.tidy_at_us = now_us + TIDY_US;
            self.tidy(node, moment);
        }
        self.say_words(node);
        self.settle(node);
        self.later(TICK_US, Event::Wake(node, life));
    }

    /// Lets go of what all have, and of what is only remembered.
    fn tidy(&mut self, node: usize, moment: Moment) {
        let (sabotage, retain) = (self.plan.sabotage, self.plan.retain[node]);
        let Node { disk, alive: Some(alive), .. } = &mut self.nodes[node] else { return };
        alive.replica.conflicts();
        if sabotage != Some(Sabotage::NeverTidies) {
            for (origin, upto) in alive.replica.received_by_all().iter() {
                let retained = if self.healed { 0 } else { retain };
                let most = disk.journal.heads().of(origin).saturating_sub(retained);
                let upto = upto.min(disk.keys.applied.of(origin)).min(most);
                disk.journal.trim(origin, upto).expect("in memory");
            }
            let stable = match sabotage {
                Some(Sabotage::ForgetsAtOnce) => alive.replica.applied().clone(),
                _ => alive.replica.stable(),
            };
            let (map, late) = (&mut alive.keys.map, moment.unix_ms.saturating_sub(self.plan.expired_ms));
            let late = if sabotage == Some(Sabotage::ForgetsAtOnce) { moment.unix_ms } else { late };
            map.retain(|_, cell| match cell.without_the_past(&stable, late) {
                None => false,
                Some(less) => {
                    *cell = less;
                    true
                }
            });
        }
        if sabotage == Some(Sabotage::LosesAKey) && self.random.chance(300) {
            alive.keys.map.pop_first();
        }
    }

    /// The logs go though somebody lacks them: it gets a snapshot.
    pub(super) fn trim(&mut self, node: usize) {
        let Node { disk, .. } = &mut self.nodes[node];
        for (origin, upto) in disk.keys.applied.clone().iter() {
            disk.journal.trim(origin, upto).expect("in memory");
        }
    }

    pub(super) fn measure_skews(&mut self, node: usize) {
        let mine = self.moment(node).unix_ms;
        let unix: Vec<u64> = (0..self.nodes.len()).map(|at| self.moment(at).unix_ms).collect();
        for (peer, theirs) in unix.into_iter().enumerate().filter(|(peer, _)| *peer != node) {
            let doubt = self.random.below(20);
            let wrong = self.random.between(0, 2 * doubt) as i64 - doubt as i64;
            let ahead = theirs as i64 - mine as i64 + wrong;
            let name = format!("dc{peer}");
            if let Some(alive) = &mut self.nodes[node].alive {
                alive.measure_at_us = self.now_us + BEAT_US;
                alive.replica.set_skew(&name, Some((ahead, doubt + 2)));
            }
        }
    }

    /// After anything has happened to a store: what is to be durable, who is to be answered.
    pub(super) fn settle(&mut self, node: usize) {
        self.answer(node);
        let wait = self.random.between(500, self.plan.disk_us);
        let life = self.nodes[node].life;
        let Some(alive) = &mut self.nodes[node].alive else { return };
        alive.keys.applied.clone_from(alive.replica.applied());
        if alive.replica.has_outgoing() && !alive.commits {
            alive.commits = true;
            self.later(wait, Event::Commit(node, life));
        }
    }

    /// Makes durable what is to be.
    fn commit(&mut self, node: usize) {
        let (moment, now_us, sabotage) = (self.moment(node), self.now_us, self.plan.sabotage);
        let Node { disk, alive: Some(alive), is_full, .. } = &mut self.nodes[node] else { return };
        alive.commits = false;
        let me = alive.replica.origin().clone();
        for origin in alive.replica.to_name() {
            disk.journal.name(&origin).expect("in memory");
        }
        let batches = alive.replica.to_append();
        let result = if is_full.value {
            Err(if self.random.chance(800) {
                JournalError::Full("no space".to_owned())
            } else {
                JournalError::Io("it clicks".to_owned())
            })
        } else if sabotage == Some(Sabotage::ForgetsToWrite) && self.random.chance(20) {
            Ok(())
        } else {
            disk.journal.append(&batches)
        };
        match result {
            Ok(()) => {
                disk.origin = Some(me.clone());
                for batch in batches.iter().filter(|batch| batch.origin == me.id()) {
                    self.ledger.wrote(batch, now_us);
                }
                alive.replica.committed(moment, &mut alive.keys).expect("cells can be read");
            }
            Err(error) => {
                assert!(is_full.value || sabotage.is_some(), "the journal refuses: {error}");
                alive.replica.not_committed(&disk.journal, &error);
            }
        }
        alive.keys.applied.clone_from(alive.replica.applied());
        self.settle(node);
        self.note(&Note::Committed(node));
        self.say_after(node, false);
        for pair in self.pairs_of(node).into_iter().filter(|(_, feeder)| *feeder == node) {
            self.pump(pair);
        }
    }

    fn answer(&mut self, node: usize) {
        let Some(alive) = &mut self.nodes[node].alive else { return };
        for (ticket, reply) in alive.replica.replies() {
            let at = usize::try_from(ticket).expect("a place in a list");
            self.ledger.asked[at].reply = Some(reply);
            self.note(&Note::Answered(at));
        }
    }

    fn act(&mut self, act: Act) {
        super::faults::act(self, act);
    }
}
