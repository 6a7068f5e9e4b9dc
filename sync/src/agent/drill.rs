//! What drills ask of an agent.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use daemun_fleet::config::DOOR_ROLE;
use tokio::sync::watch;

use super::Agent;
use crate::core::Input;
use crate::drill::drills::Drills;
use crate::drill::plan;
use crate::drill::report::Ended;
use crate::drill::word::Word;
use crate::facts::Body;
use crate::health::Verdict;
use crate::orders::Order;

impl Agent {
    /// The newest drill, over or not: the word that leads it.
    pub fn drill(&self) -> Option<(Order, Word)> {
        self.lock().drill().map(|(order, word)| (order.clone(), word.clone()))
    }

    /// How long the drill that is armed or under way has at most.
    pub fn drill_left(&self) -> Option<Duration> {
        self.lock().drill_left((self.clock.monotonic)())
    }

    /// The same of the drill of this id: no time where it has ended or is not known.
    pub fn drill_left_of(&self, id: &str) -> Duration {
        self.lock().drill_left_of(id, (self.clock.monotonic)())
    }

    /// What a drill would do; nothing is done yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn plan_drill(&self, asked: &plan::Asked) -> Result<plan::Plan, plan::Wrong> {
        plan::plan(&self.lock(), asked, self.moment())
    }

    /// Arms a drill, unless the fleet has changed since it was planned: then `false`.
    pub fn arm_drill(&self, plan: &plan::Plan) -> bool {
        let mut core = self.lock();
        if !plan::is_current(&core, plan) {
            return false;
        }
        if core.handle(self.moment(), Input::Order(plan.arming())) {
            self.publish(&mut core);
        }
        true
    }

    /// Ends the drill of this id; `false`: there is none such under way.
    pub fn end_drill(&self, id: &str, how: Ended, why: &str) -> bool {
        let mut core = self.lock();
        let Some(order) = core.drill_ended(id, how, why) else { return false };
        if core.handle(self.moment(), Input::Order(order)) {
            self.publish(&mut core);
        }
        true
    }

    /// Says that a drill that has ended is over for good.
    pub(crate) fn close_drill(&self, id: &str) {
        let mut core = self.lock();
        let Some(order) = core.drill_closed(id) else { return };
        if core.handle(self.moment(), Input::Order(order)) {
            self.publish(&mut core);
        }
    }

    /// Notes that a probe has ended, well or not.
    pub(super) fn note_probe(&self, server: &str, is_well: bool) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if is_well {
            failing.remove(server);
        } else if !failing.contains_key(server) {
            failing.insert(server.to_owned(), (self.clock.unix_ms)());
        }
    }

    /// Servers whose probes fail, as seen from here, and since when.
    pub(crate) fn failing(&self) -> BTreeMap<String, u64> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who says that a door of a datacenter is down: when by the author's clock, and why.
    pub(crate) fn votes_against(&self, datacenter: &str) -> Vec<(String, u64, String)> {
        let core = self.lock();
        let fleet = &core.config().fleet;
        let Some(number) = fleet.datacenter(datacenter) else { return Vec::new() };
        let mut votes = Vec::new();
        for author in fleet.datacenters.iter().filter(|author| author.name != datacenter) {
            for fact in core.facts().of(&author.name) {
                let Body::Vote { server, verdict: Verdict::Down, why, .. } = &fact.body else { continue };
                if fleet.servers_of(number, DOOR_ROLE).any(|door| door.name == *server) {
                    votes.push((author.name.clone(), fact.at_unix_ms, why.clone()));
                }
            }
        }
        votes
    }

    /// What answers to whatever other agents and witnesses ask about drills.
    pub(crate) fn drills(&self) -> Option<&Arc<Drills>> {
        self.drills.get()
    }

    pub(crate) fn set_drills(&self, drills: Arc<Drills>) {
        // There is one.
        let _ = self.drills.set(drills);
    }

    /// Makes it neither speak nor decide, or lets it again.
    pub fn mute(&self, is_mute: bool) {
        self.is_mute.send_if_modified(|known| std::mem::replace(known, is_mute) != is_mute);
    }

    /// Whether it is mute, and every change of that.
    pub(crate) fn mutes(&self) -> watch::Receiver<bool> {
        self.is_mute.subscribe()
    }
}
