//! A story from a seed: a fleet, its network, and what goes wrong when.

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::view::State;
use daemun_sync::core::{Fold, TICK};
use daemun_sync::judge::judge;
use daemun_sync::verbs::{Told, What};

use crate::clock::MachineClock;
use crate::drills::truth::Broken;
use crate::faults::{Act, Calm, Fault, Harm};
use crate::fleet::{Fleet, PLACES};
use crate::random::Random;
use crate::scene::{Door, PROBE_LOSS_MAX, Way};
use crate::world::Plan;

/// What differs between stories, beside the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) fold: Fold,
    /// See [`Plan::tamper`].
    pub(crate) tamper: Option<fn(daemun_fleet::FleetView) -> daemun_fleet::FleetView>,
    /// Most observers lie.
    pub(crate) most_lie: bool,
    pub(crate) is_told: bool,
}

impl Default for Kind {
    fn default() -> Self {
        Self { fold: judge, tamper: None, most_lie: false, is_told: false }
    }
}

/// A story, and how long it is.
pub(crate) fn story(seed: u64, kind: Kind) -> (Plan, Duration) {
    let mut random = Random::new(seed);
    let datacenters = random.pick(&[2, 3, 3, 5]);
    let fleet = Fleet {
        datacenters,
        check: "tcp = 80",
        hold_down: Some(random.between(5, 30)),
        ramp_step: random.between(2, 10),
        returns_per_hour: random.pick(&[1, 1000, 1000]),
    };
    let config = Arc::new(fleet.config());
    let long = Duration::from_secs(random.between(60, 600));
    let mut writer = Writer::new(random, datacenters, long);
    let calm = writer.calm();
    let clocks = (0..datacenters).map(|_| writer.clock()).collect();
    let incidents = writer.random.between(0, 2 + long.as_secs() / 40);
    for _ in 0..incidents {
        writer.incident();
    }
    if kind.most_lie {
        writer.most_lie();
    }
    let Writer { mut random, mut acts, .. } = writer;
    acts.sort_by_key(|(at, _)| *at);
    let plan = Plan {
        config,
        calm,
        clocks,
        acts,
        duplication: random.pick(&[0, 0, 50, 300]),
        fold: kind.fold,
        tamper: kind.tamper,
        broken: Broken::No,
        tick: TICK,
        beats: true,
        random,
        is_told: kind.is_told,
    };
    (plan, long)
}

/// Writes down what goes wrong when.
pub(crate) struct Writer {
    pub(crate) random: Random,
    pub(crate) datacenters: usize,
    pub(crate) long: Duration,
    pub(crate) acts: Vec<(Duration, Act)>,
    next: usize,
}

impl Writer {
    pub(crate) fn new(random: Random, datacenters: usize, long: Duration) -> Self {
        Self { random, datacenters, long, acts: Vec::new(), next: 0 }
    }

    pub(crate) fn calm(&mut self) -> Calm {
        let count = self.datacenters;
        let link_loss = self.random.pick(&[0, 0, 0, 5, 50, 200]);
        let probe_loss = self.random.pick(&[0, 0, 10, 100, PROBE_LOSS_MAX]);
        let slowest = self.random.pick(&[5_000, 40_000, 150_000]);
        let mut delays = vec![vec![500; count]; count];
        for (a, b) in (0..count).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let delay = self.random.between(1_000, slowest);
            (delays[a][b], delays[b][a]) = (delay, delay);
        }
        let ways = |loss: u32| {
            let way = |delay_us: &u64| Way { is_cut: false, loss, delay_us: *delay_us };
            delays.iter().map(|row| row.iter().map(way).collect()).collect()
        };
        Calm { links: ways(link_loss), sights: ways(probe_loss) }
    }

    fn clock(&mut self) -> MachineClock {
        let most_ms = self.random.pick(&[50, 5_000, 86_400_000]);
        self.clock_within(most_ms)
    }

    /// Clocks that are off by no more.
    pub(crate) fn clock_within(&mut self, most_ms: u64) -> MachineClock {
        let signed = |random: &mut Random, most: u64| random.between(0, 2 * most) as i64 - most as i64;
        MachineClock {
            boot_us: self.random.below(1 << 40),
            drift_ppm: signed(&mut self.random, 200),
            ahead_ms: signed(&mut self.random, most_ms),
        }
    }

    /// A moment of the story.
    pub(crate) fn moment(&mut self) -> Duration {
        Duration::from_millis(self.random.between(0, self.long.as_millis() as u64))
    }

    /// How long something lasts: often just about as long as the agents wait for something.
    pub(crate) fn span(&mut self) -> Duration {
        let (low, high) = self.random.pick(&[(10, 500), (500, 3_000), (3_000, 12_000), (10_000, 120_000)]);
        Duration::from_millis(self.random.between(low, high))
    }

    pub(crate) fn fault(&mut self, at: Duration, long: Duration, fault: Fault) {
        self.next += 1;
        let number = self.next;
        self.acts.push((at, Act::Begin { number, fault }));
        self.acts.push((at + long, Act::End { number }));
    }

    pub(crate) fn one(&mut self) -> usize {
        self.random.index(self.datacenters)
    }

    pub(crate) fn two(&mut self) -> (usize, usize) {
        let one = self.one();
        let more = 1 + self.random.index(self.datacenters - 1);
        (one, (one + more) % self.datacenters)
    }

    pub(crate) fn incident(&mut self) {
        let (at, long) = (self.moment(), self.span());
        match self.random.below(16) {
            0 => self.door(at, long),
            1 => self.flapping_door(at),
            2 => self.datacenter(at, long),
            3 | 4 => self.process(at, long),
            5 => self.link(at, long),
            6 => self.partition(at, long),
            7 => self.alone(at, long),
            8 | 9 => self.sight(at, long),
            10 => self.liar(at, long),
            11 => {
                let agent = self.one();
                let ms = self.random.pick(&[500, 30_000, 3_600_000, 400_000_000]);
                let by_ms = if self.random.chance(500) { ms } else { -ms };
                self.acts.push((at, Act::ClockJumps { agent, by_ms }));
            }
            _ => self.word(at),
        }
        // An operator speaks when something goes wrong.
        if self.random.chance(300) {
            let near = Duration::from_millis(self.random.below(6_000));
            self.word((at + near).saturating_sub(Duration::from_secs(2)));
        }
    }

    fn dead(&mut self) -> Door {
        self.random.pick(&[Door::Refuses, Door::Silent])
    }

    fn door(&mut self, at: Duration, long: Duration) {
        let (of, door) = (self.one(), self.dead());
        self.fault(at, long, Fault::Door { of, door });
    }

    fn flapping_door(&mut self, mut at: Duration) {
        let (of, door) = (self.one(), self.dead());
        for _ in 0..self.random.between(2, 8) {
            let (down, up) = (self.random.between(200, 6_000), self.random.between(200, 20_000));
            self.fault(at, Duration::from_millis(down), Fault::Door { of, door });
            at += Duration::from_millis(down + up);
        }
    }

    /// All of a datacenter: its door, its agent, its links and what it sees. They come back one after the other.
    fn datacenter(&mut self, at: Duration, long: Duration) {
        let of = self.one();
        self.fault(at, long, Fault::Door { of, door: Door::Silent });
        if self.random.chance(500) {
            let loses_disk = self.random.chance(300);
            let more = Duration::from_millis(self.random.below(3_000));
            self.fault(at, long + more, Fault::Crash { agent: of, loses_disk });
        } else {
            self.cut_off(of, at, long, true);
        }
    }

    fn cut_off(&mut self, of: usize, at: Duration, long: Duration, and_blind: bool) {
        for other in (0..self.datacenters).filter(|other| *other != of) {
            self.fault(at, long, Fault::Link { from: of, to: other, harm: Harm::Cut });
            self.fault(at, long, Fault::Link { from: other, to: of, harm: Harm::Cut });
            if and_blind {
                self.fault(at, long, Fault::Sight { by: of, of: other, harm: Harm::Cut });
            }
        }
    }

    pub(crate) fn process(&mut self, at: Duration, long: Duration) {
        let agent = self.one();
        let fault = if self.random.chance(500) {
            Fault::Pause { agent }
        } else {
            Fault::Crash { agent, loses_disk: self.random.chance(400) }
        };
        self.fault(at, long, fault);
    }

    fn harm(&mut self) -> Harm {
        match self.random.below(4) {
            0 | 1 => Harm::Cut,
            2 => Harm::Loss(self.random.pick(&[200, 500, 900])),
            _ => Harm::Delay(self.random.between(50_000, 900_000)),
        }
    }

    pub(crate) fn link(&mut self, at: Duration, long: Duration) {
        let ((from, to), harm) = (self.two(), self.harm());
        self.fault(at, long, Fault::Link { from, to, harm });
        if self.random.chance(500) {
            self.fault(at, long, Fault::Link { from: to, to: from, harm });
        }
    }

    /// Two sides: the private links between them are cut, and perhaps the sight too.
    fn partition(&mut self, at: Duration, long: Duration) {
        let side = self.random.between(1, (1 << self.datacenters) - 2);
        let (is_blind, one_way) = (self.random.chance(500), self.random.chance(200));
        for a in 0..self.datacenters {
            for b in (0..self.datacenters).filter(|b| side >> a & 1 == 0 && side >> b & 1 == 1) {
                self.fault(at, long, Fault::Link { from: a, to: b, harm: Harm::Cut });
                if !one_way {
                    self.fault(at, long, Fault::Link { from: b, to: a, harm: Harm::Cut });
                }
                if is_blind {
                    self.fault(at, long, Fault::Sight { by: a, of: b, harm: Harm::Cut });
                    self.fault(at, long, Fault::Sight { by: b, of: a, harm: Harm::Cut });
                }
            }
        }
    }

    pub(crate) fn alone(&mut self, at: Duration, long: Duration) {
        let (of, and_blind) = (self.one(), self.random.chance(700));
        self.cut_off(of, at, long, and_blind);
    }

    /// What one sees: of one other, or of all.
    fn sight(&mut self, at: Duration, long: Duration) {
        let ((by, of), harm) = (self.two(), self.harm());
        let all = self.random.chance(300);
        let slow = self.random.chance(300);
        let late_us =
            if self.random.chance(500) { Some(self.random.between(500_000, 10_000_000)) } else { None };
        for of in (0..self.datacenters).filter(|other| *other == of || all) {
            let fault = if slow { Fault::Slow { by, of, late_us } } else { Fault::Sight { by, of, harm } };
            self.fault(at, long, fault);
        }
    }

    fn liar(&mut self, at: Duration, long: Duration) {
        let (by, of) = self.two();
        self.fault(at, long, Fault::Lies { by, of });
    }

    fn most_lie(&mut self) {
        let (at, of) = (self.long / 4, self.one());
        for by in (0..self.datacenters).filter(|by| *by != of) {
            self.fault(at, self.long, Fault::Lies { by, of });
        }
    }

    fn word(&mut self, at: Duration) {
        let (agent, of) = (self.one(), self.one());
        let state = self.random.pick(&[
            None,
            Some(State::Serving),
            Some(State::Drained),
            Some(State::Down),
            Some(State::Ramping(20)),
        ]);
        let over_ms = self.random.pick(&[0, 0, 5_000, 30_000]);
        let what = match self.random.below(10) {
            0..=2 => What::Drain { over_ms },
            3 | 4 => What::Restore,
            5 | 6 => What::Pin { state },
            7 => What::Pause,
            8 => What::Resume,
            _ => What::Forget,
        };
        let for_ms = self.random.pick(&[None, Some(1_000), Some(10_000), Some(60_000)]);
        self.next += 1;
        let told = Told {
            what,
            datacenter: (!matches!(what, What::Pause | What::Resume)).then(|| PLACES[of].0.to_owned()),
            by: "ann".to_owned(),
            reason: format!("#{}", self.next),
            for_ms,
            expect_generation: None,
            dry_run: false,
            break_glass: self.random.chance(500),
        };
        self.acts.push((at, Act::Tell { agent, told }));
        // The agent that was told dies when others have just heard, or before.
        if self.random.chance(150) {
            let (after, long) = (self.random.below(3_000), self.span());
            let loses_disk = self.random.chance(500);
            self.fault(at + Duration::from_millis(after), long, Fault::Crash { agent, loses_disk });
        }
    }
}
