//! Who must know which word: the agent that took it; whoever was connected for long enough with one that knows it, whether or
//! not that one still lives; and whoever knew it before a crash, unless its disk was lost.

use std::time::Duration;

use crate::scene::{Scene, Word};

/// What is on disk: longer ago than the shell's pause between two writes.
const KEPT: Duration = Duration::from_secs(1);
/// A question that was lost when the link was not yet well keeps the asker waiting: hold, grace and pause.
pub(crate) const RETRY: Duration = Duration::from_millis(2100);

/// Since when who must know what: by agent and word.
#[derive(Default)]
pub(crate) struct Knowledge {
    knows: Vec<Vec<Option<Duration>>>,
    disks: Vec<u32>,
}

impl Knowledge {
    /// What an agent must know, by word.
    pub(crate) fn of(&self, agent: usize) -> &[Option<Duration>] {
        &self.knows[agent]
    }

    /// Goes on to now.
    pub(crate) fn learn(&mut self, scene: &Scene, words: &[Word]) {
        self.disks.resize(scene.count(), 0);
        self.knows.resize(scene.count(), Vec::new());
        let soon = scene.sharing() + RETRY;
        for agent in 0..scene.count() {
            let knows = &mut self.knows[agent];
            knows.resize(words.len(), None);
            let at = &scene.agents[agent];
            if at.disk != self.disks[agent] {
                self.disks[agent] = at.disk;
                knows.fill(None);
            }
            if at.view.is_none() {
                // It has crashed: what it learned just before is not on its disk.
                let is_kept = |since: &Duration| *since + KEPT <= at.runs.since;
                knows.iter_mut().for_each(|knows| *knows = knows.filter(is_kept));
            }
        }
        for (number, word) in words.iter().enumerate() {
            // While it warms up it says nothing.
            let has_said =
                scene.runs_for(word.agent) >= scene.warm_up().max(scene.now.saturating_sub(word.at));
            if has_said && word.at + scene.sharing() >= scene.now {
                self.knows[word.agent][number].get_or_insert(scene.now);
            }
        }
        for agent in 0..scene.count() {
            let connected = scene.connections(agent);
            for number in 0..words.len() {
                let Some(since) = self.knows[agent][number].filter(|since| *since + soon <= scene.now) else {
                    continue;
                };
                for (other, held) in connected.iter().enumerate() {
                    if *held >= soon && since + soon <= scene.now {
                        self.knows[other][number].get_or_insert(scene.now);
                    }
                }
            }
        }
    }
}
