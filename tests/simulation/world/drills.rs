//! Drills as the world carries them out: each process looks at the view by the very [`Part`] that `run` drives, and does what
//! it says to its door and its agent.

use std::sync::Arc;

use daemun_fleet::drill::{Handicap, Part};
use daemun_sync::core::Input;
use daemun_sync::drill::plan::{self, Asked};
use daemun_sync::drill::report::Ended;
use daemun_sync::drill::word::Stage;
use daemun_sync::orders::Verb;

use super::queue::{Event, Happening};
use super::{World, micros};
use crate::drills::truth::{Begun, Broken, LOOK};
use crate::faults::{Fault, Harm};
use crate::scene::{Door, Word};

/// Numbers of faults that drills make, by process: a story has fewer of its own.
const FIRST: usize = 1 << 20;
/// A process that is to be killed lives on for so long.
const KILL_US: u64 = 20_000;

/// The part of a process in drills.
#[derive(Debug, Default)]
pub(super) struct Drilled {
    part: Part,
    now: Handicap,
    pub(super) is_mute: bool,
    /// It will look again by itself.
    looks: bool,
}

impl World {
    fn next_that(&self, first: usize, is_fit: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let count = self.scene.count();
        (0..count).map(|more| (first + more) % count).find(|at| is_fit(self, *at))
    }

    pub(super) fn begin_drill(&mut self, agent: usize, asked: &Asked) {
        let Some(agent) = self.next_that(agent, |world, at| world.scene.agents[at].runs.value) else {
            return;
        };
        let moment = self.machines[agent].clock.at(self.now_us);
        let Some(core) = &self.machines[agent].core else { return };
        let is_ruled = !asked.break_glass && self.plan.broken != Broken::Arming;
        let plan = match plan::plan(core, asked, moment) {
            Ok(plan) if !is_ruled || plan.checks.iter().all(|check| check.holds) => plan,
            refused => {
                let broken = refused
                    .map(|plan| plan.checks.into_iter().filter(|check| !check.holds).collect::<Vec<_>>());
                return self.tell(|| format!("refused: {broken:?}"));
            }
        };
        let mut order = plan.arming();
        if let (Verb::Drill(word), Broken::Arming) = (&mut order.verb, self.plan.broken) {
            word.stage = Stage::Step(0);
        }
        self.tell(|| format!("{} begins {:?}", self.scene.names[agent], plan.order));
        let count = self.scene.count();
        let named = |name: &str| self.scene.names.iter().position(|known| known == name);
        let begun = Begun {
            id: plan.word.id.clone(),
            at: self.scene.now,
            agent,
            bound: std::time::Duration::from_millis(order.for_ms.unwrap_or(0)),
            target: plan.word.target.datacenter().and_then(named),
            shown_by: vec![false; count],
            injected_at: None,
        };
        self.scene.drills.begun.push(begun);
        self.hand_in(agent, Input::Order(order));
        self.nap(agent);
    }

    /// A silenced agent is told too: an operator reaches its process.
    pub(super) fn abort_drill(&mut self, agent: usize) {
        let lives = |world: &Self, at: usize| world.scene.drills.processes[at].lives.value;
        let Some(agent) = self.next_that(agent, lives) else { return };
        let Some(core) = &self.machines[agent].core else { return };
        let newest = core.drill().map(|(_, word)| word.id.clone());
        let Some(order) = newest.and_then(|id| core.drill_ended(&id, Ended::Aborted, "ann has said so"))
        else {
            return;
        };
        self.tell(|| format!("{} ends the drill", self.scene.names[agent]));
        self.scene.drills.aborts.push(Word { at: self.scene.now, agent, order: order.clone() });
        self.hand_in(agent, Input::Order(order));
        self.part(agent);
        self.nap_unless_mute(agent);
    }

    /// It looks, and will look again while the view has a drill.
    pub(super) fn part(&mut self, agent: usize) {
        let machine = &mut self.machines[agent];
        let Some(core) = &machine.core else { return };
        let moment = machine.clock.at(self.now_us);
        let view = Arc::clone(core.view());
        let drill = view.drill.clone();
        let drilled = &mut machine.drilled;
        if drill.is_none() && self.plan.broken == Broken::End && drilled.now != Handicap::default() {
            return;
        }
        let left = drill.as_ref().map(|drill| core.drill_left_of(&drill.id, moment.now));
        let me = &self.scene.names[agent];
        let handicap = self.plan.broken.look(&mut drilled.part, me, drill.as_ref(), left, moment.now);
        let looks_again = drill.is_some() && !std::mem::replace(&mut drilled.looks, true);
        if looks_again {
            self.later(agent, micros(LOOK), Happening::Look);
        }
        let number = drill.and_then(|drill| self.scene.drills.number(&drill.id));
        let fails = number.filter(|_| handicap != Handicap::default());
        self.scene.drills.processes[agent].fails.set(fails, self.scene.now);
        let before = std::mem::replace(&mut self.machines[agent].drilled.now, handicap.clone());
        if before != handicap {
            self.make(agent, &before, &handicap);
        }
    }

    fn make(&mut self, agent: usize, before: &Handicap, handicap: &Handicap) {
        self.tell(|| format!("    {} fails on purpose: {handicap:?}", self.scene.names[agent]));
        self.faults.retain(|(number, _)| *number != FIRST + agent);
        match handicap.dead_percent {
            0 => {}
            100 => self.faults.push((FIRST + agent, Fault::Door { of: agent, door: Door::Silent })),
            percent => {
                let harm = Harm::Loss(u32::from(percent) * 10);
                let others = (0..self.scene.count()).filter(|by| *by != agent);
                let blinds = others.map(|by| (FIRST + agent, Fault::Sight { by, of: agent, harm }));
                self.faults.extend(blinds);
            }
        }
        self.changed_faults();
        self.mute(agent, handicap.is_mute);
        if let (Some(rest_ms), None) = (handicap.killed_for_ms, before.killed_for_ms) {
            self.later(agent, KILL_US, Happening::Killed { rest_ms });
        }
    }

    /// As a stopped process, but what came meanwhile is lost.
    fn mute(&mut self, agent: usize, is_mute: bool) {
        let machine = &mut self.machines[agent];
        let was_mute = std::mem::replace(&mut machine.drilled.is_mute, is_mute);
        if is_mute && !was_mute {
            self.scene.agents[agent].runs.set(false, self.scene.now);
            for held in std::mem::take(&mut machine.held) {
                self.reply_failure(agent, held.from, held.from_life, held.number);
            }
        }
        if was_mute && !is_mute {
            self.scene.agents[agent].runs.set(true, self.scene.now);
            self.later(agent, 1, Happening::Wake);
            self.machines[agent].wakes_at_us = self.now_us + 1;
        }
    }

    fn nap_unless_mute(&mut self, agent: usize) {
        if !self.machines[agent].drilled.is_mute {
            self.nap(agent);
        }
    }

    /// It looks by its own clock, whether or not anything has changed.
    pub(super) fn look_at_part(&mut self, agent: usize) {
        self.machines[agent].drilled.looks = false;
        if self.machines[agent].drilled.is_mute {
            self.listen(agent);
        }
        self.part(agent);
        self.look(None);
    }

    /// A process whose agent is silenced asks the others' for the end.
    fn listen(&mut self, agent: usize) {
        let Some(core) = &self.machines[agent].core else { return };
        let Some(id) = core.drill().map(|(_, word)| word.id.clone()) else { return };
        let is_heard = |at: &usize| {
            let is_cut = |a: usize, b: usize| self.scene.links[a][b].value.is_cut;
            *at != agent && !is_cut(agent, *at) && !is_cut(*at, agent) && !self.machines[*at].is_stopped
        };
        let said = (0..self.scene.count()).filter(is_heard).find_map(|at| {
            let (_, word) = self.machines[at].core.as_ref()?.drill().filter(|(_, word)| word.id == id)?;
            word.stage.outcome().cloned()
        });
        if let Some(order) = said.and_then(|outcome| core.drill_ended(&id, outcome.ended, &outcome.why)) {
            self.hand_in(agent, Input::Order(order));
        }
    }

    /// The drill's own command kills it; a process outside starts it again.
    pub(super) fn killed(&mut self, agent: usize, rest_ms: u64) {
        let fails = self.scene.drills.processes[agent].fails.value;
        self.tell(|| format!("    {} is killed for {rest_ms} ms", self.scene.names[agent]));
        self.crash(agent, false);
        let process = &mut self.scene.drills.processes[agent];
        process.fails.set(fails, self.scene.now);
        process.is_killed = true;
        self.faults.push((FIRST + agent, Fault::Door { of: agent, door: Door::Refuses }));
        self.changed_faults();
        let life = self.scene.agents[agent].life;
        let late_us = if self.plan.broken == Broken::Guard { 60_000_000 } else { 0 };
        self.schedule(self.now_us + rest_ms * 1000 + late_us, Event::Guard(agent, life));
        self.look(None);
    }

    pub(super) fn guard(&mut self, agent: usize, life: u32) {
        // Unless somebody else has started it, or its machine is dead, and the guard with it.
        if self.scene.agents[agent].life == life && self.scene.drills.processes[agent].is_killed {
            self.start(agent);
            self.look(None);
        }
    }

    /// A process that begins or ends has no part in anything.
    pub(super) fn forget_part(&mut self, agent: usize) {
        self.machines[agent].drilled = Drilled::default();
        let process = &mut self.scene.drills.processes[agent];
        process.fails.set(None, self.scene.now);
        process.is_killed = false;
        let count = self.faults.len();
        self.faults.retain(|(number, _)| *number != FIRST + agent);
        if self.faults.len() != count {
            self.changed_faults();
        }
    }
}
