//! How far may the users of a datacenter come back? A detector that each observer keeps for each other datacenter.
//!
//! The intuition: going out must be quick, coming back must not be. What failed once is likely to fail again soon, its
//! caches are cold and its data may be old. So whoever was out waits for calm, then for its data, then gets its users in
//! steps, by the same client hash as everywhere. The wait doubles with each flap, and what comes back too often is held for
//! a human. All of this binds the *return*: nothing here ever delays taking out what is dead.
//!
//! ```text
//!                  down, or drained                        hold-down over, data there,
//!      admitted ─────────────────────▶ shut out (0%) ───── not held for a human ────────┐
//!      (100%)  ◀──── last step ─────── ramping (10%, 25%, 50%) ◀────────────────────────┘
//!                                         │ down again: shut out, the wait doubles
//!                                         └──────────────▶ shut out
//! ```
//!
//! Each time that a datacenter is down its return has a number, the *episode*. It is *sure* when more than half of all
//! other datacenters said down: then everyone who hears of it takes part, even who never saw it down. An episode of fewer
//! (an observer that was alone) binds only as far as a majority agrees.
//!
//! What it does not do: judge who is down, or decide alone. The fold takes the middle of the observers' words.

use std::collections::VecDeque;
use std::time::Duration;

use daemun_fleet::config::Comeback;
use serde::{Deserialize, Serialize};

const HOUR_MS: i64 = 3_600_000;
/// More doublings than this say nothing more.
const FLAPS_MAX: u32 = 16;

/// How far an observer would let a datacenter's users back in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// Number of the return, from 1; 0: it never was out.
    pub episode: u64,
    /// More than half of all other datacenters said down when it began.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_sure: bool,
    /// Percentage of its users.
    pub percent: u8,
    /// An operator drained it or lets it back: no calm is waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_planned: bool,
    /// How often it was down in recent time.
    #[serde(default)]
    pub flaps: u32,
    /// Revision of the operator's last word to let it back that has been used.
    #[serde(default)]
    pub restored: u64,
    /// When it was back at 100% the last times, milliseconds of the author's Unix time: for the author after a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returned_unix_ms: Vec<u64>,
    /// It came back too often: a human lets it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_held: bool,
    /// What it waits for, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Why a datacenter is out, as the view has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// It is not.
    No,
    /// Enough observers say down; `is_sure`: more than half of all there are.
    Down {
        /// See [`Admitted::is_sure`].
        is_sure: bool,
    },
    /// An operator has it drained, down to this percentage.
    Drained {
        /// Of its users.
        percent: u8,
    },
}

/// What the detector is shown.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Whether it is out.
    pub out: Out,
    /// The highest episode that anyone speaks of.
    pub newest: u64,
    /// The highest that is sure.
    pub newest_sure: u64,
    /// What the fold makes of the observers' words; none: nobody has said.
    pub level: Option<u8>,
    /// The observer's own eyes see it up.
    pub sees_it: bool,
    /// What it says of its own data: for which episode, whether it has it, what it waits for.
    pub caught_up: Option<(u64, bool, &'a str)>,
    /// Revision of the operator's newest word about it, if that word is to let it back; else 0.
    pub restored: u64,
    /// Automation is off.
    pub is_paused: bool,
    /// An operator keeps it in service.
    pub is_kept_in: bool,
    /// Its own agent is heard.
    pub is_heard: bool,
}

/// The detector of one observer for one datacenter.
#[derive(Clone, Debug)]
pub struct Admission {
    said: Admitted,
    /// Since when it was seen up without a break.
    calm_since: Option<Duration>,
    step_since: Duration,
    /// When it came back the last times, by the clock that does not jump; negative: before this process began.
    returned_ms: VecDeque<i64>,
}

impl Admission {
    /// Begins where the observer itself was before a restart, unless the others have gone on since or it has no memory: then
    /// where the most cautious of them is.
    pub fn new(own: Option<&Admitted>, others: Option<&Admitted>, now: Duration, unix_ms: u64) -> Self {
        let fresh = || Admitted {
            episode: 0,
            is_sure: false,
            percent: 100,
            is_planned: false,
            flaps: 0,
            restored: 0,
            returned_unix_ms: Vec::new(),
            is_held: false,
            why: String::new(),
        };
        // When others let it back, they say by their own clocks.
        let other = || others.map(|other| Admitted { returned_unix_ms: Vec::new(), ..other.clone() });
        let newest = others.map_or(0, |other| other.episode);
        let own = own.filter(|own| own.episode >= newest).cloned();
        let said = own.or_else(other).unwrap_or_else(fresh);
        let ago = |at: &u64| signed_ms(now) - i64::try_from(unix_ms.saturating_sub(*at)).unwrap_or(i64::MAX);
        let returned_ms = said.returned_unix_ms.iter().map(ago).collect();
        Self { said, calm_since: None, step_since: now, returned_ms }
    }

    /// What the observer says now.
    pub fn said(&self) -> &Admitted {
        &self.said
    }

    /// Compares what is seen with what was said, and moves on.
    pub fn settle(&mut self, now: Duration, unix_ms: u64, rules: &Comeback, seen: &Seen<'_>) {
        if !seen.sees_it || matches!(seen.out, Out::Down { .. }) {
            self.calm_since = None;
        } else {
            self.calm_since.get_or_insert(now);
        }
        if seen.is_paused {
            return;
        }
        if seen.out != Out::No {
            self.step_since = now;
        }
        match seen.out {
            // When the word ends, its users are not taken away for what was before.
            _ if seen.is_kept_in => self.go_on_to(100, true, now, unix_ms),
            Out::Down { is_sure } => self.shut_out(is_sure, now, rules, seen),
            Out::Drained { percent } => self.drain(percent, seen),
            Out::No => self.come_back(now, unix_ms, rules, seen),
        }
    }

    fn shut_out(&mut self, is_sure: bool, now: Duration, rules: &Comeback, seen: &Seen<'_>) {
        // Who dies while it is drained has failed too.
        if self.said.percent > 0 || self.said.is_planned {
            self.begin_episode(seen);
            let since_last = self.returned_ms.back().map(|at| signed_ms(now).saturating_sub(*at));
            let halvings = since_last
                .and_then(|ms| u128::from(ms.unsigned_abs()).checked_div(rules.hold_down_max.as_millis()))
                .map_or(0, |halvings| u32::try_from(halvings).unwrap_or(u32::MAX));
            self.said.flaps = self.said.flaps.checked_shr(halvings).unwrap_or(0).min(FLAPS_MAX) + 1;
            self.said.is_planned = false;
            self.said.percent = 0;
            self.said.is_held = false;
            self.said.restored = self.said.restored.max(seen.restored);
        }
        self.said.is_sure |= is_sure;
        self.said.why.clear();
    }

    fn begin_episode(&mut self, seen: &Seen<'_>) {
        // If someone was faster, it is the same return.
        let is_known = seen.newest > self.said.episode;
        self.said.episode = if is_known { seen.newest } else { self.said.episode + 1 };
        self.said.is_sure = false;
    }

    fn drain(&mut self, percent: u8, seen: &Seen<'_>) {
        if self.said.percent > percent {
            if self.said.percent == 100 {
                self.begin_episode(seen);
                self.said.is_planned = true;
            }
            self.said.percent = percent;
        }
        self.said.restored = self.said.restored.max(seen.restored);
        self.said.why.clear();
    }

    fn come_back(&mut self, now: Duration, unix_ms: u64, rules: &Comeback, seen: &Seen<'_>) {
        if seen.newest_sure > self.said.episode {
            // The others saw it down; this observer did not, or not yet.
            self.said.episode = seen.newest_sure;
            self.said.is_sure = true;
            self.said.percent = self.said.percent.min(seen.level.unwrap_or(0));
            self.step_since = now;
        }
        if let Some(level) = seen.level.filter(|level| *level > self.said.percent) {
            // Where the others hold it for a human, it does not come further than they let it.
            self.go_on_to(level, self.said.is_planned, now, unix_ms);
        }
        if self.said.percent >= 100 {
            self.said.why.clear();
            // There is nothing to let back: the word says nothing of a failure to come.
            self.said.restored = self.said.restored.max(seen.restored);
            return;
        }
        if seen.restored > self.said.restored {
            self.said.restored = seen.restored;
            self.said.is_planned = true;
            self.said.is_held = false;
        }
        match self.waits_for(now, rules, seen) {
            Some(why) => self.said.why = why,
            None => {
                let next = rules.ramp.iter().copied().find(|step| *step > self.said.percent);
                self.go_on_to(next.unwrap_or(100), self.said.is_planned, now, unix_ms);
            }
        }
    }

    fn go_on_to(&mut self, percent: u8, is_planned: bool, now: Duration, unix_ms: u64) {
        if percent <= self.said.percent {
            return;
        }
        self.said.percent = percent.min(100);
        self.said.is_held = false;
        self.said.why.clear();
        self.step_since = now;
        if self.said.percent == 100 {
            if !is_planned {
                self.returned_ms.push_back(signed_ms(now));
            }
            self.said.is_planned = false;
        }
        let recent = |at: &i64| signed_ms(now).saturating_sub(*at) < HOUR_MS;
        self.returned_ms.retain(recent);
        let unix = |at: &i64| unix_ms.saturating_add_signed(at.saturating_sub(signed_ms(now)));
        self.said.returned_unix_ms = self.returned_ms.iter().map(unix).collect();
    }

    /// What the next step waits for.
    fn waits_for(&mut self, now: Duration, rules: &Comeback, seen: &Seen<'_>) -> Option<String> {
        let Some(calm_since) = self.calm_since else {
            return Some("is not seen up".to_owned());
        };
        if self.said.percent > 0 {
            let is_over = now.saturating_sub(self.step_since) >= rules.ramp_step;
            // Percent and step say it all; a text would be one more fact.
            return (!is_over).then(String::new);
        }
        let hold = self.hold_down(rules);
        if now.saturating_sub(calm_since) < hold {
            return Some(format!("waits for {} of calm", humantime(hold)));
        }
        match seen.caught_up {
            Some((episode, true, _)) if episode >= self.said.episode => {}
            Some((episode, false, why)) if episode >= self.said.episode => {
                return Some(format!("waits for its data: {why}"));
            }
            // A human has said that it is to come back, and knows that its agent cannot say anything.
            _ if self.said.is_planned && !seen.is_heard => {}
            _ => return Some("waits for its agent to say that it has the data".to_owned()),
        }
        let recent =
            self.returned_ms.iter().filter(|at| signed_ms(now).saturating_sub(**at) < HOUR_MS).count();
        // Once held, the hour's end does not let it go: nobody is there to see it fail once more.
        self.said.is_held |= !self.said.is_planned && recent >= rules.per_hour as usize;
        if self.said.is_held {
            return Some(match rules.per_hour {
                0 => "held for a human: `daemun restore` lets it back".to_owned(),
                _ => "held for a human, as it came back within the hour: `daemun restore` lets it back"
                    .to_owned(),
            });
        }
        None
    }

    /// The calm that comes before the first step.
    fn hold_down(&self, rules: &Comeback) -> Duration {
        if self.said.is_planned {
            return Duration::ZERO;
        }
        let doublings = self.said.flaps.saturating_sub(1).min(FLAPS_MAX);
        rules.hold_down.saturating_mul(1 << doublings).min(rules.hold_down_max)
    }
}

fn signed_ms(at: Duration) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

fn humantime(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests;
