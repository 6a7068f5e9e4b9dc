//! Who was down is not given all its users again before the hold-down and the whole ramp.
//!
//! In one agent's view, from the last moment it had a datacenter down to serving. Not when an operator's word about it or
//! about the fleet was in force or given since: a word goes at once. Not when the agent was at some time since not
//! running, or not connected with most of the others: what it saw alone binds nobody, and what it hears late was decided
//! without it. For the same reason not when no more than half of all others had said down: while some are doubted or
//! silent, fewer decide, and who decides next need not agree with them. And not when a drill has made it fail: whoever hears
//! of its end says the operator's word that lets its target back.

use std::time::Duration;

use daemun_fleet::view::State;
use daemun_sync::orders::About;

use super::Checker;
use crate::scene::{Scene, Word};

/// Clocks drift, and another observer may have begun to count so much earlier.
const SLACK_US_PER_S: u64 = 500;

#[derive(Clone, Copy, Default)]
struct Episode {
    /// When it went down first.
    begun_at: Option<Duration>,
    /// All words about it that had been said by then had surely been heard.
    is_clear: bool,
    /// When the view last had it down.
    down_at: Option<Duration>,
    /// More than half of all others said so.
    is_sure: bool,
    /// Nothing has been said or cut off since.
    counts: bool,
}

/// By agent and datacenter.
#[derive(Default)]
pub(crate) struct NoFastFlip {
    episodes: Vec<Vec<Episode>>,
}

impl Checker for NoFastFlip {
    fn name(&self) -> &'static str {
        "no fast flip"
    }

    fn look(&mut self, scene: &Scene, _changed: Option<usize>) -> Result<(), String> {
        self.episodes.resize(scene.count(), vec![Episode::default(); scene.count()]);
        let rules = &scene.config.sync.comeback;
        let least = rules.hold_down + rules.ramp_step * u32::try_from(rules.ramp.len()).unwrap_or(u32::MAX);
        let slack = scene.sharing() + Duration::from_micros(least.as_secs() * SLACK_US_PER_S);
        for agent in 0..scene.count() {
            for of in 0..scene.count() {
                let episode = &mut self.episodes[agent][of];
                let is_drilled = scene
                    .drills
                    .begun
                    .iter()
                    .any(|drill| drill.injected_at.is_some() && drill.target == Some(of));
                let Some(view) = scene.view(agent).filter(|_| !is_drilled) else {
                    *episode = Episode::default();
                    continue;
                };
                let at = &view.datacenters[&scene.names[of]];
                let long = scene.detection() + scene.silence();
                let is_free = view.paused.is_none()
                    && view.datacenters.values().all(|at| at.order.is_none())
                    && scene.is_with_most(agent, of, long)
                    && scene.words.iter().all(|word| {
                        episode.begun_at.is_none_or(|begun| word.at + scene.sharing() * 2 < begun)
                    });
                match at.state {
                    State::Down => {
                        if episode.begun_at.is_none() {
                            episode.begun_at = Some(scene.now);
                            episode.is_clear = has_heard_all(scene, agent, of);
                        }
                        episode.down_at = Some(scene.now);
                        episode.is_sure |= say_down(&at.why) * 2 > scene.count() - 1;
                        episode.counts = is_free && episode.is_clear && episode.is_sure;
                    }
                    State::Serving => {
                        let Episode { down_at: Some(down_at), counts: true, .. } = std::mem::take(episode)
                        else {
                            continue;
                        };
                        let took = scene.now.saturating_sub(down_at);
                        if is_free && took + slack < least {
                            return Err(format!(
                                "{} has {} serving {took:?} after it was down; the least is {least:?}",
                                scene.names[agent], scene.names[of]
                            ));
                        }
                    }
                    _ => episode.counts &= is_free,
                }
            }
        }
        Ok(())
    }
}

/// How many say down, as the view tells why it is: "2 of 3 say down (…): …".
fn say_down(why: &str) -> usize {
    why.split_once(" of ").and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

/// Whether every word about a datacenter or the fleet was heard by an agent before now, in this life. A word that is heard
/// while the datacenter is down lets it back, whenever it was said.
fn has_heard_all(scene: &Scene, agent: usize, of: usize) -> bool {
    // With a question that was lost when the link was not yet well: hold, grace and pause.
    let soon = scene.sharing() * 2 + Duration::from_millis(2100);
    let connected = scene.connections(agent);
    let is_about = |word: &&Word| match &word.order.about {
        About::Fleet => true,
        About::Datacenter(name) => *name == scene.names[of],
        About::Drill => false,
    };
    scene.words.iter().filter(is_about).all(|word| {
        connected[word.agent] >= soon && word.at + soon <= scene.now && scene.agents[agent].begun_at < word.at
    })
}
