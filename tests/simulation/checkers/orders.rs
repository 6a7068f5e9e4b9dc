//! An operator's word is obeyed by all who must know it, holds as long as it was given for, and not longer.
//!
//! Who must know it is [`Knowledge`]. Two words about the same thing at two agents that do not know of each other: the one
//! that holds over the other.
//!
//! When a drain must be over: whoever shows a step of it goes on from there, and so do those connected with it. While
//! nobody who knows of it runs it stands still, as nobody moves the users.

use std::time::Duration;

use daemun_fleet::FleetView;
use daemun_fleet::view::{OrderView, State};
use daemun_sync::orders::{About, Order, Verb};

use super::Checker;
use super::knowledge::{Knowledge, RETRY};
use crate::scene::{Scene, Word};

/// Who must know which word, and when drains must be over.
#[derive(Default)]
pub(crate) struct Orders {
    knowledge: Knowledge,
    /// When a drain must be over by the steps that an agent has shown in its life: by agent and word.
    drained_by: Vec<Vec<Option<Duration>>>,
}

impl Checker for Orders {
    fn name(&self) -> &'static str {
        "orders"
    }

    fn look(&mut self, scene: &Scene, _changed: Option<usize>) -> Result<(), String> {
        self.knowledge.learn(scene, &scene.words);
        self.learn_drains(scene);
        for agent in 0..scene.count() {
            let Some(view) = scene.view(agent).filter(|_| scene.runs_for(agent) >= scene.warm_up()) else {
                continue;
            };
            self.look_at(scene, agent, view, &About::Fleet, view.paused.as_ref())?;
            for name in &scene.names {
                let about = About::Datacenter(name.clone());
                self.look_at(scene, agent, view, &about, view.datacenters[name].order.as_ref())?;
            }
        }
        Ok(())
    }
}

impl Orders {
    fn learn_drains(&mut self, scene: &Scene) {
        self.drained_by.resize(scene.count(), Vec::new());
        let ttl = scene.config.dns.names.iter().map(|name| name.ttl_seconds).max().unwrap_or(0);
        for (agent, drained_by) in self.drained_by.iter_mut().enumerate() {
            drained_by.resize(scene.words.len(), None);
            let Some(view) = &scene.agents[agent].view else {
                drained_by.fill(None);
                continue;
            };
            for (word, drained_by) in scene.words.iter().zip(drained_by) {
                let (About::Datacenter(name), Verb::Drain { over_ms }) =
                    (&word.order.about, &word.order.verb)
                else {
                    continue;
                };
                let at = &view.datacenters[name];
                if at.order.as_ref().is_none_or(|order| order.reason != word.order.reason) {
                    continue;
                }
                let over = Duration::from_millis(*over_ms);
                // From the beginning of a step: the last tenth begins with one user in a hundred left.
                let left = match at.state {
                    State::Draining(0) => Duration::ZERO,
                    State::Draining(percent) => over * u32::from(percent / 10 + 1).min(10) / 10,
                    _ => over,
                };
                let long = left + Duration::from_secs(ttl.into());
                let by = scene.now + long + drift(long);
                *drained_by = Some(drained_by.map_or(by, |known| known.min(by)));
            }
        }
    }

    /// Whether an agent must show the end of a drain: by its own steps, or by those of one that it is connected with.
    fn must_be_drained(&self, scene: &Scene, agent: usize, number: usize) -> bool {
        let soon = scene.sharing() + RETRY;
        let connected = scene.connections(agent);
        (0..scene.count()).any(|at| {
            let is_over = |by: Duration| scene.now >= by + soon + scene.warm_up();
            connected[at] >= soon.max(scene.warm_up()) && self.drained_by[at][number].is_some_and(is_over)
        })
    }

    fn look_at(
        &self,
        scene: &Scene,
        agent: usize,
        view: &FleetView,
        about: &About,
        shown: Option<&OrderView>,
    ) -> Result<(), String> {
        let all = || scene.words.iter().filter(|word| word.order.about == *about);
        let known = scene
            .words
            .iter()
            .zip(self.knowledge.of(agent))
            .filter(|(word, knows)| word.order.about == *about && knows.is_some());
        let best = known
            .map(|(word, _)| word)
            .reduce(|best, word| if word.order.holds_over(&best.order) { word } else { best });
        let name = &scene.names[agent];
        match (shown, best) {
            (None, None) => Ok(()),
            (None, Some(best)) => {
                let may_be_over =
                    |word: &Word| word.order.revision >= best.order.revision && may_have_expired(scene, word);
                let is_replaced =
                    |word: &Word| !word.order.verb.binds() && word.order.holds_over(&best.order);
                if !best.order.verb.binds() || all().any(|word| may_be_over(word) || is_replaced(word)) {
                    return Ok(());
                }
                Err(format!("{name} does not obey {:?}, given {:?} ago", best.order, scene.now - best.at))
            }
            (Some(shown), best) => {
                let is_shown = |word: &Word| word.order.about == *about && word.order.reason == shown.reason;
                let Some(number) = scene.words.iter().position(is_shown) else {
                    return Err(format!("{name} obeys {shown:?}, which nobody said"));
                };
                let word = &scene.words[number];
                if let Some(best) = best.filter(|best| best.order.holds_over(&word.order)) {
                    return Err(format!("{name} obeys {shown:?} and not {:?}", best.order));
                }
                if must_have_expired(scene, agent, word) {
                    return Err(format!("{name} obeys {shown:?}, given {:?} ago", scene.now - word.at));
                }
                is_obeyed(view, word, self.must_be_drained(scene, agent, number))
                    .map_err(|what| format!("{name} does not obey {:?}: {what}", word.order))
            }
        }
    }
}

/// A fleet's clocks drift by so much.
fn drift(duration: Duration) -> Duration {
    duration / 2000
}

/// An agent that was down has only its wall clock to tell for how long, and says so when it jumped.
fn may_have_expired(scene: &Scene, word: &Word) -> bool {
    let Some(ms) = word.order.for_ms.filter(|_| word.order.verb.binds()) else { return false };
    let held = Duration::from_millis(ms);
    let is_misled = |agent: usize| {
        let begun = scene.agents[agent].begun_at;
        begun > word.at && scene.jumped_at[agent].is_some_and(|at| at > word.at && at < begun)
    };
    if (0..scene.count()).any(is_misled) {
        return true;
    }
    scene.now + drift(held) + Duration::from_millis(2) >= word.at + held
}

/// Each agent has a timer of its own. One that began after the word was said goes by its disk, and a clock that jumped
/// while it was down, until it has heard another.
fn must_have_expired(scene: &Scene, agent: usize, word: &Word) -> bool {
    let Some(ms) = word.order.for_ms else { return false };
    let soon = scene.sharing() + RETRY;
    let connected = scene.connections(agent);
    let knew = |at: usize| scene.now.saturating_sub(scene.runs_for(at)) <= word.at;
    let is_told = (0..scene.count()).any(|at| connected[at] >= soon.max(scene.warm_up()) && knew(at));
    let held = Duration::from_millis(ms);
    let begun = if is_told { word.at } else { scene.agents[agent].runs.since.max(word.at) };
    scene.now >= begun + held + drift(held) + soon + scene.warm_up()
}

fn is_obeyed(view: &FleetView, word: &Word, must_be_drained: bool) -> Result<(), String> {
    let Order { about, verb, .. } = &word.order;
    let datacenter = match about {
        About::Fleet | About::Drill => None,
        About::Datacenter(name) => Some(&view.datacenters[name]),
    };
    let state = datacenter.map_or(State::Serving, |datacenter| datacenter.state);
    let is_so = match verb {
        Verb::Drain { .. } => {
            matches!(state, State::Drained | State::Down)
                || (!must_be_drained && matches!(state, State::Draining(_)))
        }
        Verb::Pin { state: pinned } => state == *pinned,
        Verb::Forget => state == State::Drained && datacenter.is_some_and(|at| at.is_forgotten),
        Verb::Pause { states, .. } => view
            .datacenters
            .iter()
            .all(|(name, at)| at.order.is_some() || states.get(name).is_none_or(|state| *state == at.state)),
        Verb::Restore | Verb::Resume | Verb::Expired | Verb::Drill(_) => false,
    };
    if is_so { Ok(()) } else { Err(format!("{state} ({view:?})")) }
}
