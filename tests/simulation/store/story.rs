//! A story of the stores from a seed: a fleet, who writes what, and what goes wrong when.

use std::time::Duration;

use crate::clock::MachineClock;
use crate::random::Random;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Cut { from: usize, to: usize },
    Mend { from: usize, to: usize },
    Slow { from: usize, to: usize, us: u64 },
    Crash { node: usize, lands: bool },
    Start { node: usize },
    Full { node: usize, is_full: bool },
    LoseDisk { node: usize },
    Jump { node: usize, ahead_ms: i64 },
    Trim { node: usize },
    Burst { node: usize, count: u32 },
    Forget { node: usize },
    Heal,
}

/// How it is when nothing is wrong.
#[derive(Clone, Debug)]
pub(super) struct Calm {
    pub(super) clocks: Vec<MachineClock>,
    pub(super) delays_us: Vec<Vec<u64>>,
}

/// What is broken on purpose, to show that a checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    LosesAKey,
    ForgetsToWrite,
    ForgetsAtOnce,
    NeverTidies,
    IgnoresConditions,
    LagIsZero,
    LagIsHuge,
    OperationsAreFew,
}

/// A story.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) calm: Calm,
    pub(super) acts: Vec<(u64, Act)>,
    pub(super) random: Random,
    /// When all is over.
    pub(super) end_us: u64,
    /// Time between two writes of one datacenter, at most.
    pub(super) pause_us: u64,
    /// What the disk takes for a flush, at most.
    pub(super) disk_us: u64,
    /// Time between two writes of the keys to disk, at most.
    pub(super) keep_us: u64,
    pub(super) compare_us: u64,
    /// So many entries of a log each keeps though all have them.
    pub(super) retain: Vec<u64>,
    /// No clock is off by more than milliseconds.
    pub(super) is_sane: bool,
    /// How long after its end a value is remembered: clocks differ by less.
    pub(super) expired_ms: u64,
    /// How many different keys there are of each kind.
    pub(super) keys: u64,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) is_told: bool,
}

/// Clocks are off by at most so much.
const SKEW_MS: u64 = 10_000;

/// The story of a seed.
pub(super) fn story(seed: u64, sabotage: Option<Sabotage>, is_told: bool) -> Plan {
    let mut random = Random::new(seed ^ 0x5709_e5ee);
    let count = random.pick(&[2, 3, 3, 5]);
    let is_sane = random.chance(500);
    let heal_us = random.between(10, 40) * 1_000_000;
    let slowest = random.pick(&[2_000, 40_000, 150_000]);
    let mut delays_us = vec![vec![500; count]; count];
    for (a, b) in (0..count).flat_map(|a| (0..a).map(move |b| (a, b))) {
        let delay = random.between(500, slowest);
        (delays_us[a][b], delays_us[b][a]) = (delay, delay);
    }
    let off_ms = if is_sane { 50 } else { SKEW_MS };
    let clocks = (0..count).map(|_| clock(&mut random, off_ms)).collect();
    let mut writer = Writer { random, count, heal_us, is_sane, acts: Vec::new(), has_lost: false };
    let incidents = writer.random.between(0, 2 + heal_us / 4_000_000);
    for _ in 0..incidents {
        writer.incident();
    }
    let Writer { mut random, mut acts, .. } = writer;
    acts.retain(|(at, _)| *at < heal_us);
    acts.push((heal_us, Act::Heal));
    acts.sort_by_key(|(at, _)| *at);
    Plan {
        calm: Calm { clocks, delays_us },
        acts,
        end_us: heal_us + if is_sane { 16_000_000 } else { 42_000_000 },
        pause_us: random.pick(&[20_000, 100_000, 400_000]) * count as u64,
        disk_us: random.pick(&[1_000, 10_000, 60_000]),
        keep_us: random.pick(&[250_000, 2_000_000, 8_000_000]),
        compare_us: random.pick(&[500_000, 3_000_000]),
        retain: (0..count).map(|_| random.pick(&[0, 0, 100, 10_000])).collect(),
        is_sane,
        expired_ms: if is_sane { 500 } else { 2 * SKEW_MS },
        keys: random.between(1, 4),
        random,
        sabotage,
        is_told,
    }
}

fn clock(random: &mut Random, off_ms: u64) -> MachineClock {
    MachineClock {
        boot_us: random.below(1 << 40),
        drift_ppm: random.between(0, 400) as i64 - 200,
        ahead_ms: random.between(0, 2 * off_ms) as i64 - off_ms as i64,
    }
}

struct Writer {
    random: Random,
    count: usize,
    heal_us: u64,
    is_sane: bool,
    acts: Vec<(u64, Act)>,
    /// A disk was lost: one is what is survived.
    has_lost: bool,
}

impl Writer {
    fn at(&mut self, us: u64, act: Act) {
        self.acts.push((us, act));
    }

    fn one(&mut self) -> usize {
        self.random.index(self.count)
    }

    fn two(&mut self) -> (usize, usize) {
        let one = self.one();
        let more = 1 + self.random.index(self.count - 1);
        (one, (one + more) % self.count)
    }

    fn span(&mut self) -> u64 {
        let (low, high) = self.random.pick(&[(10, 500), (500, 4_000), (4_000, 15_000)]);
        Duration::from_millis(self.random.between(low, high)).as_micros() as u64
    }

    fn incident(&mut self) {
        let at = self.random.below(self.heal_us);
        let end = at + self.span();
        match self.random.below(16) {
            0..=2 => {
                let (from, to) = self.two();
                self.cut(at, end, from, to);
                if self.random.chance(600) {
                    self.cut(at, end, to, from);
                }
            }
            3 | 4 => self.partition(at, end),
            5..=8 => {
                let (node, lands) = (self.one(), self.random.chance(500));
                self.at(at, Act::Crash { node, lands });
                self.at(end, Act::Start { node });
            }
            9 => {
                let node = self.one();
                self.at(at, Act::Full { node, is_full: true });
                self.at(end, Act::Full { node, is_full: false });
            }
            10 => {
                let (from, to) = self.two();
                let us = self.random.between(50_000, 2_000_000);
                self.at(at, Act::Slow { from, to, us });
                self.at(end, Act::Slow { from, to, us: 0 });
            }
            11 if !self.is_sane => {
                let node = self.one();
                let ahead_ms = self.random.between(0, 2 * SKEW_MS) as i64 - SKEW_MS as i64;
                self.at(at, Act::Jump { node, ahead_ms });
            }
            12 => {
                let node = self.one();
                self.at(at, Act::Trim { node });
            }
            13 => {
                let (node, count) = (self.one(), self.random.between(20, 300) as u32);
                self.at(at, Act::Burst { node, count });
            }
            _ => self.disk(at, end),
        }
    }

    fn cut(&mut self, at: u64, end: u64, from: usize, to: usize) {
        self.at(at, Act::Cut { from, to });
        self.at(end, Act::Mend { from, to });
    }

    fn partition(&mut self, at: u64, end: u64) {
        let side = self.random.between(1, (1 << self.count) - 2);
        for a in 0..self.count {
            for b in (0..self.count).filter(|b| side >> a & 1 == 0 && side >> b & 1 == 1) {
                self.cut(at, end, a, b);
                self.cut(at, end, b, a);
            }
        }
    }

    /// A disk is lost, and often many writes follow there; or its datacenter is given up.
    fn disk(&mut self, at: u64, end: u64) {
        if std::mem::replace(&mut self.has_lost, true) {
            return;
        }
        let node = self.one();
        if self.count > 2 && self.random.chance(250) {
            self.at(at, Act::Crash { node, lands: false });
            self.at(at + 500_000, Act::Forget { node });
            return;
        }
        for other in 0..self.count {
            if self.random.chance(300) {
                self.at(at.saturating_sub(1_000_000), Act::Trim { node: other });
            }
        }
        self.at(at, Act::LoseDisk { node });
        self.at(end, Act::Start { node });
        let (count, wait) = (self.random.pick(&[20, 1_000]), self.random.between(0, 15_000_000));
        self.at(end + wait, Act::Burst { node, count });
    }
}
