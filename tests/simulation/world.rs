//! The world: agents without their shells, each with its own clocks, on ways that lose and delay. A queue of events by
//! true time; nothing happens between two of them.
//!
//! It drives [`Core`] as the shell does: an input, then what is to be done, then a nap to the next thing due, but not
//! longer than a tick.

mod drills;
mod queue;
mod traffic;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::view::Frontier;
use daemun_fleet::{Config, FleetView};
use daemun_sync::core::{Core, Fold, Input, Kept, Output};
use daemun_sync::verbs;

use crate::checkers::Checker;
use crate::clock::MachineClock;
use crate::drills::truth::{Broken, Truth};
use crate::faults::{Act, Calm, Fault, apply};
use crate::random::Random;
use crate::scene::{Agent, Door, Scene, Sight, Since, Way, Word};
use drills::Drilled;
use queue::{Event, Happening, Scheduled};

/// Facts are on disk so long after they changed, at most.
const KEEP_US: u64 = 250_000;
/// Checkers look at least so often.
const BEAT: Duration = Duration::from_millis(500);

/// How a world is made.
pub(crate) struct Plan {
    pub(crate) config: Arc<Config>,
    pub(crate) calm: Calm,
    pub(crate) clocks: Vec<MachineClock>,
    /// In the order of their times.
    pub(crate) acts: Vec<(Duration, Act)>,
    /// Answers that come twice, in thousandths.
    pub(crate) duplication: u32,
    pub(crate) fold: Fold,
    /// What is published in the place of a view: to show that a checker finds a wrong one.
    pub(crate) tamper: Option<fn(FleetView) -> FleetView>,
    /// What of drills is broken: to show that a checker finds it.
    pub(crate) broken: Broken,
    /// Time between ticks, at most.
    pub(crate) tick: Duration,
    pub(crate) beats: bool,
    pub(crate) random: Random,
    pub(crate) is_told: bool,
}

/// A checker has found something.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) checker: &'static str,
    pub(crate) at: Duration,
    pub(crate) what: String,
}

/// A question that is held until there is news.
struct Held {
    id: u64,
    from: usize,
    from_life: u32,
    number: u64,
    after: Frontier,
    received_unix_ms: u64,
}

struct Machine {
    clock: MachineClock,
    core: Option<Core>,
    is_stopped: bool,
    /// What came while it was stopped.
    waiting: Vec<Happening>,
    held: Vec<Held>,
    wakes_at_us: u64,
    disk: Kept,
    keeps: bool,
    drilled: Drilled,
}

/// The world.
pub(crate) struct World {
    plan: Plan,
    pub(crate) scene: Scene,
    machines: Vec<Machine>,
    checkers: Vec<Box<dyn Checker>>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    now_us: u64,
    faults: Vec<(usize, Fault)>,
    next_number: u64,
    pub(crate) events: u64,
    /// Of all that was published, and when.
    pub(crate) digest: u64,
    pub(crate) violation: Option<Violation>,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl World {
    pub(crate) fn new(plan: Plan, checkers: Vec<Box<dyn Checker>>) -> Self {
        let names: Vec<String> = plan.config.fleet.datacenters.iter().map(|d| d.name.clone()).collect();
        let count = names.len();
        let all = |of: &[Vec<Way>]| of.iter().flatten().map(|way| way.delay_us).max().unwrap_or(0);
        let sight = |way: &Way| Since::new(Sight { way: *way, lies: false, slow_us: Some(0) });
        let scene = Scene {
            config: Arc::clone(&plan.config),
            now: Duration::ZERO,
            doors: vec![Since::new(Door::Well); count],
            agents: vec![
                Agent {
                    life: 0,
                    begun_at: Duration::ZERO,
                    disk: 0,
                    runs: Since::new(false),
                    view: None
                };
                count
            ],
            links: plan
                .calm
                .links
                .iter()
                .map(|row| row.iter().map(|way| Since::new(*way)).collect())
                .collect(),
            sights: plan.calm.sights.iter().map(|row| row.iter().map(sight).collect()).collect(),
            words: Vec::new(),
            jumped_at: vec![None; count],
            drills: Truth::new(count),
            // Jitter is a quarter.
            slowest_us: all(&plan.calm.links).max(all(&plan.calm.sights)) * 5 / 4,
            names,
        };
        let machine = |clock: &MachineClock| Machine {
            clock: *clock,
            core: None,
            is_stopped: false,
            waiting: Vec::new(),
            held: Vec::new(),
            wakes_at_us: 0,
            disk: Kept::default(),
            keeps: false,
            drilled: Drilled::default(),
        };
        let mut world = Self {
            machines: plan.clocks.iter().map(machine).collect(),
            plan,
            scene,
            checkers,
            queue: BinaryHeap::new(),
            now_us: 0,
            faults: Vec::new(),
            next_number: 0,
            events: 0,
            digest: 0,
            violation: None,
        };
        for number in 0..world.plan.acts.len() {
            let at = micros(world.plan.acts[number].0);
            world.schedule(at, Event::Act(number));
        }
        if world.plan.beats {
            world.schedule(micros(BEAT), Event::Beat);
        }
        (0..count).for_each(|agent| world.start(agent));
        world
    }

    /// Lets it go on until a time, or until a checker finds something.
    pub(crate) fn run(&mut self, until: Duration) {
        let until_us = micros(until);
        while self.violation.is_none() {
            let Some(Reverse(next)) = self.queue.peek() else { return };
            if next.at_us > until_us {
                return;
            }
            let Some(Reverse(next)) = self.queue.pop() else { return };
            self.now_us = next.at_us;
            self.scene.now = Duration::from_micros(next.at_us);
            self.events += 1;
            match next.event {
                Event::Act(number) => self.act(number),
                Event::Beat => {
                    self.look(None);
                    self.schedule(self.now_us + micros(BEAT), Event::Beat);
                }
                Event::Guard(agent, life) => self.guard(agent, life),
                Event::Of(agent, life, happening) => self.happen(agent, life, happening),
            }
        }
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.next_number += 1;
        self.queue.push(Reverse(Scheduled { at_us, number: self.next_number, event }));
    }

    fn later(&mut self, agent: usize, us: u64, happening: Happening) {
        let life = self.scene.agents[agent].life;
        self.schedule(self.now_us + us, Event::Of(agent, life, happening));
    }

    fn look(&mut self, changed: Option<usize>) {
        for checker in &mut self.checkers {
            if let Err(what) = checker.look(&self.scene, changed) {
                self.violation = Some(Violation { checker: checker.name(), at: self.scene.now, what });
                return;
            }
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.plan.is_told {
            println!("{:>10.3} {}", self.scene.now.as_secs_f64(), what());
        }
    }

    fn act(&mut self, number: usize) {
        let act = self.plan.acts[number].1.clone();
        self.tell(|| format!("{act:?}"));
        match act {
            Act::Begin { number, fault } => {
                self.scene.drills.incidents += 1;
                self.faults.push((number, fault.clone()));
                self.changed_faults();
                match fault {
                    Fault::Crash { agent, loses_disk } => self.crash(agent, loses_disk),
                    Fault::Pause { agent } => self.stop(agent),
                    _ => {}
                }
            }
            Act::End { number } => {
                let ended: Vec<Fault> =
                    self.faults.iter().filter(|(n, _)| *n == number).map(|(_, f)| f.clone()).collect();
                self.faults.retain(|(n, _)| *n != number);
                self.changed_faults();
                for fault in ended {
                    match fault {
                        Fault::Crash { agent, .. } => self.start(agent),
                        Fault::Pause { agent } => self.go_on(agent),
                        _ => {}
                    }
                }
            }
            Act::ClockJumps { agent, by_ms } => {
                self.scene.drills.incidents += 1;
                self.machines[agent].clock.ahead_ms += by_ms;
                self.scene.jumped_at[agent] = Some(self.scene.now);
            }
            Act::Tell { agent, told } => self.order(agent, &told),
            Act::Drill { agent, asked } => self.begin_drill(agent, &asked),
            Act::Abort { agent } => self.abort_drill(agent),
        }
        if self.violation.is_none() {
            self.look(None);
        }
    }

    fn changed_faults(&mut self) {
        apply(&self.plan.calm, self.faults.iter().map(|(_, fault)| fault), &mut self.scene);
    }

    fn order(&mut self, agent: usize, told: &verbs::Told) {
        let count = self.scene.count();
        let Some(agent) =
            (0..count).map(|more| (agent + more) % count).find(|at| self.scene.agents[*at].runs.value)
        else {
            return;
        };
        let moment = self.machines[agent].clock.at(self.now_us);
        let Some(core) = &self.machines[agent].core else { return };
        let plan = match verbs::plan(core, told, moment) {
            Ok(plan) if plan.broken.is_empty() || told.break_glass => plan,
            refused => {
                self.tell(|| format!("refused: {:?}", refused.map(|plan| plan.broken)));
                return;
            }
        };
        self.tell(|| format!("{} takes {:?}", self.scene.names[agent], plan.order));
        self.scene.words.push(Word { at: self.scene.now, agent, order: plan.order.clone() });
        self.hand_in(agent, Input::Order(plan.order));
        self.nap(agent);
    }

    fn start(&mut self, agent: usize) {
        if self.machines[agent].core.is_some() {
            return;
        }
        let machine = &mut self.machines[agent];
        let (name, moment) = (&self.scene.names[agent], machine.clock.at(self.now_us));
        let config = Arc::clone(&self.scene.config);
        let core = Core::with_fold(name, config, machine.disk.clone(), moment, self.plan.fold);
        machine.core = Some(core);
        machine.is_stopped = false;
        machine.keeps = false;
        self.forget_part(agent);
        self.scene.drills.processes[agent].lives.set(true, self.scene.now);
        self.scene.agents[agent].life += 1;
        self.scene.agents[agent].begun_at = self.scene.now;
        let runs = &mut self.scene.agents[agent].runs;
        *runs = Since { value: true, since: self.scene.now, changes: runs.changes + 1, ..*runs };
        self.published(agent);
        self.nap(agent);
    }

    fn crash(&mut self, agent: usize, loses_disk: bool) {
        let machine = &mut self.machines[agent];
        machine.core = None;
        machine.waiting.clear();
        let held = std::mem::take(&mut machine.held);
        if loses_disk {
            machine.disk = Kept::default();
            self.scene.agents[agent].disk += 1;
        }
        self.scene.agents[agent].runs.set(false, self.scene.now);
        self.scene.agents[agent].view = None;
        self.scene.drills.processes[agent].lives.set(false, self.scene.now);
        self.forget_part(agent);
        // The system closes its connections; the machine itself may be dead, then nobody hears of it.
        if self.plan.random.chance(500) {
            for held in held {
                self.reply_failure(agent, held.from, held.from_life, held.number);
            }
        }
    }

    fn stop(&mut self, agent: usize) {
        if self.machines[agent].core.is_some() {
            self.machines[agent].is_stopped = true;
            self.scene.agents[agent].runs.set(false, self.scene.now);
            self.scene.drills.processes[agent].lives.set(false, self.scene.now);
            self.scene.drills.stopped_at = Some(self.scene.now);
        }
    }

    fn go_on(&mut self, agent: usize) {
        if !self.machines[agent].is_stopped || self.machines[agent].core.is_none() {
            return;
        }
        self.machines[agent].is_stopped = false;
        let is_mute = self.machines[agent].drilled.is_mute;
        self.scene.agents[agent].runs.set(!is_mute, self.scene.now);
        self.scene.drills.processes[agent].lives.set(true, self.scene.now);
        let life = self.scene.agents[agent].life;
        for happening in std::mem::take(&mut self.machines[agent].waiting) {
            self.happen(agent, life, happening);
        }
        if !is_mute {
            self.hand_in(agent, Input::Tick);
            self.nap(agent);
        }
    }

    fn happen(&mut self, agent: usize, life: u32, happening: Happening) {
        let machine = &mut self.machines[agent];
        if self.scene.agents[agent].life != life || machine.core.is_none() {
            if let Happening::Asked { from, from_life, number, .. } = happening
                && self.plan.random.chance(500)
            {
                self.reply_failure(agent, from, from_life, number);
            }
            return;
        }
        if machine.is_stopped {
            if !matches!(happening, Happening::Wake) {
                machine.waiting.push(happening);
            }
            return;
        }
        if machine.drilled.is_mute && !happening.is_of_process() {
            return; // what comes to a silenced agent is lost
        }
        match happening {
            Happening::Look => return self.look_at_part(agent),
            Happening::Killed { rest_ms } => return self.killed(agent, rest_ms),
            Happening::Wake if machine.wakes_at_us != self.now_us => return,
            Happening::Wake => self.hand_in(agent, Input::Tick),
            Happening::Probed { server, address, fails } => {
                let outcome = fails.map_or(Ok(()), |why| Err(why.to_owned()));
                self.hand_in(agent, Input::Probed { server, address, old: Duration::ZERO, outcome });
            }
            Happening::Asked { from, from_life, number, after, hold } => {
                self.asked(agent, from, from_life, number, after, hold);
            }
            Happening::HoldIsOver { id } => {
                let over = machine.held.iter().position(|held| held.id == id);
                if let (Some(at), Some(core)) = (over, &machine.core) {
                    let held = machine.held.swap_remove(at);
                    let found = core.answer_anyway(&held.after);
                    self.reply(agent, held, found);
                }
                return;
            }
            Happening::Answered { peer, number, answer } => {
                let peer = self.scene.names[peer].clone();
                self.hand_in(agent, Input::Answered { peer, number, answer: *answer });
            }
            Happening::Failed { peer, number } => {
                let (peer, why) = (self.scene.names[peer].clone(), "unreachable".to_owned());
                self.hand_in(agent, Input::Failed { peer, number, why });
            }
            Happening::Keep => {
                let moment = machine.clock.at(self.now_us);
                machine.keeps = false;
                if let Some(core) = &machine.core {
                    machine.disk = core.kept(moment);
                }
                return;
            }
        }
        self.nap(agent);
    }

    fn hand_in(&mut self, agent: usize, input: Input) {
        let machine = &mut self.machines[agent];
        let moment = machine.clock.at(self.now_us);
        if machine.core.as_mut().is_some_and(|core| core.handle(moment, input)) {
            self.published(agent);
        }
    }

    /// Tells of a new view: to the disk, to who asked, and to the checkers.
    fn published(&mut self, agent: usize) {
        let machine = &mut self.machines[agent];
        let Some(core) = &mut machine.core else { return };
        let events = core.take_events();
        let view = Arc::clone(core.view());
        let view = match self.plan.tamper {
            Some(tamper) => Arc::new(tamper((*view).clone())),
            None => view,
        };
        let mut answers = Vec::new();
        let (ready, held): (Vec<Held>, _) = std::mem::take(&mut machine.held)
            .into_iter()
            .partition(|held| core.answer(&held.after).is_some());
        machine.held = held;
        for held in ready {
            let found = core.answer_anyway(&held.after);
            answers.push((held, found));
        }
        let keeps = std::mem::replace(&mut machine.keeps, true);
        for part in [self.now_us, agent as u64, view.generation] {
            self.digest = (self.digest ^ part).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
        }
        self.scene.agents[agent].view = Some(view);
        self.scene.drills.shown(agent, self.scene.agents[agent].view.as_deref(), self.scene.now);
        self.part(agent);
        let name = &self.scene.names[agent];
        for event in &events {
            self.tell(|| {
                format!("    {name}: {} {} -> {} ({})", event.about, event.from, event.to, event.why)
            });
        }
        for (held, found) in answers {
            self.reply(agent, held, found);
        }
        if !keeps {
            let after = self.plan.random.below(KEEP_US);
            self.later(agent, after, Happening::Keep);
        }
        self.look(Some(agent));
    }

    fn nap(&mut self, agent: usize) {
        let machine = &mut self.machines[agent];
        let Some(core) = &mut machine.core else { return };
        let moment = machine.clock.at(self.now_us);
        let outputs = core.poll(moment);
        let wake_at = core.wake_at().min(moment.now + self.plan.tick);
        let at_us = machine.clock.true_us(wake_at).max(self.now_us + 1);
        for output in outputs {
            match output {
                Output::Probe { server, address } => self.probe(agent, server, address),
                Output::Ask { peer, ask } => self.ask(agent, &peer, ask),
            }
        }
        // A wake that is due earlier stands: the shell's naps are no longer than needed either.
        let machine = &mut self.machines[agent];
        if machine.wakes_at_us <= self.now_us || at_us < machine.wakes_at_us {
            machine.wakes_at_us = at_us;
            let life = self.scene.agents[agent].life;
            self.schedule(at_us, Event::Of(agent, life, Happening::Wake));
        }
    }
}
