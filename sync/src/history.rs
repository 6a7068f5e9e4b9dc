//! How the view came about: what changed from one to the next, for people, kept by each agent for itself.

use std::collections::VecDeque;

use daemun_fleet::FleetView;
use serde::{Deserialize, Serialize};

/// So many events are kept: weeks of a calm fleet, a few hundred kilobytes.
pub const EVENTS_MAX: usize = 1000;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When this agent had it, milliseconds of Unix time by its clock.
    pub at_unix_ms: u64,
    /// Generation of the view that has it.
    pub generation: u64,
    /// What changed: a datacenter, a server, the fleet.
    pub about: String,
    /// From what.
    pub from: String,
    /// To what.
    pub to: String,
    /// Why.
    pub why: String,
}

/// What changed.
pub fn changes(before: &FleetView, after: &FleetView, unix_ms: u64) -> Vec<Event> {
    let mut events = Vec::new();
    let mut add = |about: &str, from: String, to: String, why: &str| {
        let (about, why) = (about.to_owned(), why.to_owned());
        if from != to {
            let generation = after.generation;
            events.push(Event { at_unix_ms: unix_ms, generation, about, from, to, why });
        }
    };
    for (name, now) in &after.datacenters {
        let Some(was) = before.datacenters.get(name) else { continue };
        add(name, was.state.to_string(), now.state.to_string(), &now.why);
        let cut = |links: &[String]| match links {
            [] => "whole".to_owned(),
            cut => format!("cut from {}", cut.join(", ")),
        };
        let why = "the private link: users are not moved, lag is unknown";
        add(&format!("link to {name}"), cut(&was.cut_from), cut(&now.cut_from), why);
        let word = |order: &Option<daemun_fleet::view::OrderView>| {
            order
                .as_ref()
                .map_or_else(|| "none".to_owned(), |order| format!("{} by {}", order.verb, order.by))
        };
        let reason = now.order.as_ref().map_or("", |order| &order.reason);
        add(&format!("order about {name}"), word(&was.order), word(&now.order), reason);
    }
    for (name, now) in &after.servers {
        let Some(was) = before.servers.get(name) else { continue };
        add(name, was.health.to_string(), now.health.to_string(), &now.why);
    }
    for (name, now) in &after.observers {
        let Some(was) = before.observers.get(name) else { continue };
        let word = |is_doubted: bool| if is_doubted { "doubted" } else { "believed" }.to_owned();
        let why = now.doubted.as_deref().unwrap_or_default();
        add(&format!("eyes of {name}"), word(was.doubted.is_some()), word(now.doubted.is_some()), why);
    }
    let automation = |view: &FleetView| {
        view.paused.as_ref().map_or_else(|| "on".to_owned(), |order| format!("off by {}", order.by))
    };
    let reason = after.paused.as_ref().map_or("", |order| &order.reason);
    add("automation", automation(before), automation(after), reason);
    let drill = |view: &FleetView| {
        view.drill.as_ref().map_or_else(
            || "none".to_owned(),
            |drill| match drill.step {
                None => format!("{} is armed", drill.id),
                Some(step) => format!("{}, step {}", drill.id, step + 1),
            },
        )
    };
    let faults = after.drill.iter().flat_map(|drill| &drill.faults).map(ToString::to_string);
    add("drill", drill(before), drill(after), &faults.collect::<Vec<_>>().join(", "));
    let open = |view: &FleetView| if view.fail_open { "failing open" } else { "by health" }.to_owned();
    add("fleet", open(before), open(after), "everything looks down: all are used");
    events
}

/// The newest events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// At most [`EVENTS_MAX`].
    pub events: VecDeque<Event>,
    /// How many older ones were let go.
    pub dropped: u64,
}

impl History {
    /// Adds what happened.
    pub fn extend(&mut self, events: Vec<Event>) {
        self.events.extend(events);
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use daemun_fleet::view::State;

    use super::*;

    #[test]
    fn what_changed_is_told_and_the_oldest_goes() {
        let config = crate::tests::config(&["seoul", "frankfurt"]);
        let before = FleetView::unobserved(&config);
        let mut after = before.clone();
        after.generation = 7;
        let seoul = after.datacenters.get_mut("seoul").unwrap();
        (seoul.state, seoul.why) = (State::Down, "refused".to_owned());
        let events = changes(&before, &after, 5);
        assert_eq!(events.len(), 1);
        let Event { about, from, to, why, generation, .. } = &events[0];
        assert_eq!(
            (about.as_str(), from.as_str(), to.as_str(), why.as_str()),
            ("seoul", "serving", "down", "refused")
        );
        assert_eq!(*generation, 7);
        let mut history = History::default();
        history.extend(vec![events[0].clone(); EVENTS_MAX + 3]);
        assert_eq!((history.events.len(), history.dropped), (EVENTS_MAX, 3));
    }
}
