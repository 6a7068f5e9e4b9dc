//! What goes between agents, and to doors: probes, questions and answers, on ways that lose, delay and are cut.

use std::net::IpAddr;
use std::time::Duration;

use daemun_fleet::view::Frontier;
use daemun_sync::core::{Answer, Input};
use daemun_sync::facts::Batch;
use daemun_sync::orders::Left;
use daemun_sync::pull::{Ask, Greeting};

use super::queue::{Event, Happening};
use super::{Held, World, micros};
use crate::fleet::datacenter_at;
use crate::scene::{Door, Sight, Way};

/// What a TCP sender waits before it sends a lost packet again, doubled each time; and how often it does.
const RESEND_US: u64 = 200_000;
const RESENDS_MAX: u32 = 5;

impl World {
    pub(super) fn one_way(&mut self, way: Way) -> u64 {
        way.delay_us + self.plan.random.below(way.delay_us / 4 + 1)
    }

    pub(super) fn probe(&mut self, agent: usize, server: String, address: IpAddr) {
        let of = datacenter_at(address);
        let Sight { way, lies, slow_us } = self.scene.sights[agent][of].value;
        let timeout_us = micros(self.scene.config.sync.probe.timeout);
        let takes_us = self.one_way(way) + self.one_way(way);
        let is_lost = way.is_cut || self.plan.random.chance(way.loss) || takes_us >= timeout_us;
        let (after_us, mut fails) = match self.scene.doors[of].value {
            Door::Well if !is_lost => (takes_us, None),
            Door::Refuses if !is_lost => (takes_us, Some("refused")),
            _ => (timeout_us, Some("timed out")),
        };
        if lies {
            fails = if fails.is_some() { None } else { Some("a lie") };
        }
        if let Some(slow_us) = slow_us {
            if slow_us > 0 {
                let at = Duration::from_micros(self.now_us + after_us + slow_us);
                self.scene.sights[agent][of].settle(at);
            }
            self.later(agent, after_us + slow_us, Happening::Probed { server, address, fails });
        }
    }

    /// When a message on a private link arrives: TCP sends again what is lost. What is lost more than once comes later than
    /// the bounds allow for.
    pub(super) fn travel(&mut self, from: usize, to: usize) -> Option<u64> {
        let way = self.scene.links[from][to].value;
        if way.is_cut {
            return None;
        }
        let mut us = self.one_way(way);
        for tries in 0..RESENDS_MAX {
            if !self.plan.random.chance(way.loss) {
                if tries > 1 {
                    self.scene.links[from][to].settle(Duration::from_micros(self.now_us + us));
                }
                return Some(us);
            }
            us += RESEND_US << tries;
        }
        None
    }

    pub(super) fn ask(&mut self, from: usize, peer: &str, ask: Ask) {
        let Some(to) = self.scene.names.iter().position(|name| name == peer) else { return };
        let from_life = self.scene.agents[from].life;
        match self.travel(from, to) {
            Some(us) => {
                let Ask { number, after, hold } = ask;
                self.later(to, us, Happening::Asked { from, from_life, number, after, hold });
            }
            // Some networks say that they are cut, others are silent.
            None if self.plan.random.chance(300) => {
                let us = self.one_way(self.scene.links[from][to].value);
                self.later(from, us, Happening::Failed { peer: to, number: ask.number });
            }
            None => {}
        }
    }

    pub(super) fn asked(
        &mut self,
        at: usize,
        from: usize,
        from_life: u32,
        number: u64,
        after: Frontier,
        hold: Duration,
    ) {
        let input = Input::Asked { peer: self.scene.names[from].clone(), after: after.clone() };
        self.hand_in(at, input);
        self.next_number += 1;
        let id = self.next_number;
        let machine = &mut self.machines[at];
        let received_unix_ms = machine.clock.at(self.now_us).unix_ms;
        let held = Held { id, from, from_life, number, after, received_unix_ms };
        let Some(core) = &machine.core else { return };
        match core.answer(&held.after) {
            Some(found) => self.reply(at, held, found),
            None => {
                machine.held.push(held);
                self.later(at, micros(hold), Happening::HoldIsOver { id });
            }
        }
    }

    pub(super) fn reply(&mut self, from: usize, held: Held, (batch, left): (Batch, Vec<Left>)) {
        let greeting = Greeting {
            datacenter: self.scene.names[from].clone(),
            config_digest: self.scene.config.digest.clone(),
            received_unix_ms: held.received_unix_ms,
            sent_unix_ms: self.machines[from].clock.at(self.now_us).unix_ms,
        };
        let answer = Answer { greeting, batch, left };
        let times = if self.plan.random.chance(self.plan.duplication) { 2 } else { 1 };
        for _ in 0..times {
            if let Some(us) = self.travel(from, held.from) {
                let answer = Box::new(answer.clone());
                let happening = Happening::Answered { peer: from, number: held.number, answer };
                self.schedule(self.now_us + us, Event::Of(held.from, held.from_life, happening));
            }
        }
    }

    pub(super) fn reply_failure(&mut self, from: usize, to: usize, to_life: u32, number: u64) {
        if let Some(us) = self.travel(from, to) {
            let happening = Happening::Failed { peer: from, number };
            self.schedule(self.now_us + us, Event::Of(to, to_life, happening));
        }
    }
}
