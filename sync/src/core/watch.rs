//! What this agent looks at: a detector for each address of each checked server, and when the next probe of each is due.
//!
//! **The probe budget.** Front doors are probed at the interval of the config; the other servers share what is left of the
//! budget, however many there are; what is due over it waits its turn. When name servers of the datacenter look at the doors
//! too, each takes its turn: with one more pair of eyes each looks half as often, and nobody is probed more.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use daemun_fleet::Config;
use daemun_fleet::config::{Check, DOOR_ROLE, Probe};

use crate::health::{Health, Outcome, Verdict};

/// An observer of the datacenter that was not heard for so long no longer takes its turn.
const EYE_FRESH: Duration = Duration::from_secs(5);
/// More observers than this share no further.
const EYES_MAX: usize = 16;
/// A probe begins up to a tenth of its gap earlier or later, so that observers do not fall into step.
const JITTER_PARTS: u64 = 10;

#[derive(Clone, Debug)]
struct Watch {
    is_door: bool,
    health: Health,
    due: Duration,
    /// Time between two probes while all is well, with one pair of eyes.
    calm: Duration,
    sent: u64,
    /// Makes its jitter differ from others'.
    salt: u64,
}

impl Watch {
    /// Time between two probes while all is well: others look at doors in turn with us, at the rest we look alone.
    fn calm(&self, eyes: u32) -> Duration {
        if self.is_door { self.calm * eyes } else { self.calm }
    }
}

/// All that is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches {
    /// Probes that may be sent now, filled by the budget.
    tokens: f64,
    filled_at: Duration,
    by_target: BTreeMap<(String, IpAddr), Watch>,
    eyes: BTreeMap<String, Duration>,
}

impl Watches {
    pub(super) fn set_config(
        &mut self,
        me: &str,
        config: &Config,
        now: Duration,
        resumed: impl Fn(&str, IpAddr) -> Verdict,
    ) {
        let checked = || config.fleet.servers.iter().filter(|server| server.check != Check::None);
        let addresses = |is_door: bool| {
            let of = checked().filter(|server| (server.role == DOOR_ROLE) == is_door);
            of.map(|server| server.addresses.len()).sum::<usize>()
        };
        let probe = &config.sync.probe;
        if self.by_target.is_empty() {
            self.tokens = probe.budget.into();
        }
        let (doors, others) = (addresses(true), addresses(false));
        let left = f64::from(probe.budget) - doors as f64 / probe.interval.as_secs_f64();
        // Whatever the doors leave, the others are looked at now and then.
        let shared = Duration::from_secs_f64(others as f64 / left.max(1.0));
        let mut watches = BTreeMap::new();
        for server in checked() {
            let calm = if server.role == DOOR_ROLE { probe.interval } else { probe.interval.max(shared) };
            for &address in &server.addresses {
                let key = (server.name.clone(), address);
                let known = self.by_target.get(&key).cloned();
                let is_door = server.role == DOOR_ROLE;
                let new = || Watch {
                    is_door,
                    health: Health::resume(resumed(&server.name, address), now),
                    due: now,
                    calm,
                    sent: 0,
                    salt: salt(me, &server.name),
                };
                watches.insert(key, Watch { is_door, calm, ..known.unwrap_or_else(new) });
            }
        }
        self.by_target = watches;
    }

    /// Takes in an outcome; one of a server that is gone is nothing. True when it changes what is said of the server.
    pub(super) fn observe(
        &mut self,
        probe: &Probe,
        server: &str,
        address: IpAddr,
        now: Duration,
        old: Duration,
        outcome: Outcome,
    ) -> bool {
        let Some(watch) = self.by_target.get_mut(&(server.to_owned(), address)) else { return false };
        let before = (watch.health.is_fresh(), watch.health.is_sure());
        let is_news = watch.health.observe(probe, now, old, outcome).is_some()
            || (watch.health.is_fresh(), watch.health.is_sure()) != before;
        if watch.health.begins_burst() {
            watch.due = now;
        }
        is_news
    }

    /// Whether it is looked at.
    pub(super) fn has(&self, server: &str, address: IpAddr) -> bool {
        self.by_target.contains_key(&(server.to_owned(), address))
    }

    /// Makes the next probe due now.
    pub(super) fn hasten(&mut self, server: &str, address: IpAddr, now: Duration) {
        if let Some(watch) = self.by_target.get_mut(&(server.to_owned(), address)) {
            watch.due = watch.due.min(now);
        }
    }

    pub(super) fn see_eye(&mut self, node: &str, now: Duration) {
        if self.eyes.contains_key(node) || self.eyes.len() < EYES_MAX {
            self.eyes.insert(node.to_owned(), now);
        }
    }

    pub(super) fn eyes(&self) -> u32 {
        1 + u32::try_from(self.eyes.len()).unwrap_or(u32::MAX)
    }

    /// What is due; the next of each is due a gap later.
    pub(super) fn due(&mut self, probe: &Probe, now: Duration) -> Vec<(String, IpAddr)> {
        self.eyes.retain(|_, at| now.saturating_sub(*at) < EYE_FRESH);
        let eyes = self.eyes();
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.filled_at = now;
        self.tokens = (self.tokens + passed * f64::from(probe.budget)).min(f64::from(probe.budget));
        let mut due: Vec<(bool, Duration, &(String, IpAddr), &mut Watch)> = self
            .by_target
            .iter_mut()
            .filter(|(_, watch)| watch.due <= now)
            .map(|(target, watch)| (!watch.is_door, watch.due, target, watch))
            .collect();
        // Doors first, whatever the budget; then who has waited longest.
        due.sort_by_key(|(is_other, due, ..)| (*is_other, *due));
        let mut sent = Vec::new();
        for (is_other, _, target, watch) in due {
            if is_other && self.tokens < 1.0 {
                break;
            }
            self.tokens -= 1.0;
            let gap = watch.health.gap(probe, watch.calm(eyes));
            watch.sent += 1;
            let jitter = mix(watch.salt ^ watch.sent) % (2 * JITTER_PARTS + 1);
            let part = gap / u32::try_from(JITTER_PARTS * JITTER_PARTS).expect("a hundred");
            watch.due = now + gap - gap / JITTER_PARTS as u32 + part * jitter as u32;
            sent.push(target.clone());
        }
        self.tokens = self.tokens.max(0.0);
        sent
    }

    pub(super) fn due_at(&self) -> impl Iterator<Item = Duration> {
        self.by_target.values().map(|watch| watch.due)
    }

    /// Forgets observations that are too old to be known; true when there was one.
    pub(super) fn forget(&mut self, probe: &Probe, now: Duration) -> bool {
        let eyes = self.eyes();
        let mut forgot = false;
        for watch in self.by_target.values_mut() {
            // Three probes in a row have left no trace.
            forgot |= watch.health.forget(now, watch.calm(eyes) * 3 + probe.timeout);
        }
        forgot
    }

    pub(super) fn wake_up(&mut self, now: Duration) {
        for watch in self.by_target.values_mut() {
            watch.health = Health::resume(watch.health.verdict(), now);
            watch.due = now;
        }
    }

    pub(super) fn all_fresh(&self) -> bool {
        self.by_target.values().all(|watch| watch.health.is_fresh())
    }

    /// Server, address and detector of each.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, IpAddr, &Health)> {
        self.by_target.iter().map(|((server, address), watch)| (server.as_str(), *address, &watch.health))
    }
}

fn salt(me: &str, server: &str) -> u64 {
    let bytes = me.bytes().chain(server.bytes());
    mix(bytes.fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))))
}

/// A number well mixed (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(servers: usize) -> Config {
        let mut text = String::from(
            "version = 1\nfleet.name = \"shop\"\n[[datacenters]]\nname = \"a\"\nlatitude = 0\nlongitude = 0\n\
             addresses = [\"192.0.2.1\"]\nagent = \"http://127.0.0.1:7400\"\n\
             [[servers]]\nname = \"door\"\nrole = \"frontdoor\"\ndatacenter = \"a\"\ncheck = { tcp = 80 }\n",
        );
        for number in 0..servers {
            text += &format!(
                "[[servers]]\nname = \"api-{number}\"\nrole = \"api\"\ndatacenter = \"a\"\ncheck = {{ tcp = 81 }}\n"
            );
        }
        Config::parse("daemun.toml", &text).expect("the config is right")
    }

    /// Probes sent in a calm minute: to the door, and to all others.
    fn sent(servers: usize, eyes: usize) -> (usize, usize) {
        let config = config(servers);
        let mut watches = Watches::default();
        watches.set_config("a", &config, Duration::ZERO, |_, _| Verdict::Up);
        let (mut doors, mut others) = (0, 0);
        for ms in (0..70_000).step_by(10) {
            let now = Duration::from_millis(ms);
            for eye in 1..eyes {
                watches.see_eye(&eye.to_string(), now);
            }
            for (server, address) in watches.due(&config.sync.probe, now) {
                watches.observe(&config.sync.probe, &server, address, now, Duration::ZERO, Ok(()));
                let count = if server == "door" { &mut doors } else { &mut others };
                *count += usize::from(ms >= 10_000);
            }
        }
        (doors, others)
    }

    #[test]
    fn the_budget_bounds_probes_whatever_is_looked_at_and_by_how_many() {
        let (doors, others) = sent(50, 1);
        assert!((114..=126).contains(&doors) && (5_700..=6_300).contains(&others), "{doors} {others}");
        let (doors, others) = sent(1000, 1);
        assert!((114..=126).contains(&doors) && others <= 202 * 60, "{doors} doors, {others} others");
        let (doors, others) = sent(1000, 4);
        assert!((28..=32).contains(&doors) && others <= 202 * 60, "a quarter of the doors: {doors} {others}");
    }

    #[test]
    fn what_is_gone_from_the_config_is_not_probed() {
        let mut watches = Watches::default();
        watches.set_config("a", &config(3), Duration::ZERO, |_, _| Verdict::Up);
        let probe = config(0).sync.probe;
        assert_eq!(watches.due(&probe, Duration::ZERO).len(), 4);
        watches.set_config("a", &config(0), Duration::ZERO, |_, _| Verdict::Up);
        assert_eq!(watches.due(&probe, Duration::from_secs(9)).len(), 1);
    }
}
