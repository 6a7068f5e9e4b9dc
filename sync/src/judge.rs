//! From facts to the fleet view: the fold that every agent computes alike. It reads no clock and does not know who
//! computes it: same config, same facts, same view.
//!
//! Who decides about a datacenter: the others (it may not know how it looks from outside), less those that have
//! fallen silent, less those that see nobody at all, for their own eyes are more likely bad; if that leaves none, all
//! that are left. A majority of these must say down. With two datacenters this is the survivor's own eyes.

use std::collections::BTreeMap;

use daemun_fleet::Config;
use daemun_fleet::config::{Check, DOOR_ROLE, Server};
use daemun_fleet::view::{DatacenterView, FleetView, Health, ServerView, State};

use crate::facts::{Body, Fact, Facts};
use crate::health::Verdict;

/// The view that these facts give.
pub fn judge(config: &Config, facts: &Facts) -> FleetView {
    let fleet = &config.fleet;
    let names: Vec<&str> = fleet.datacenters.iter().map(|datacenter| datacenter.name.as_str()).collect();
    // What the config does not know has no say, not even about others.
    let is_silent =
        |name: &str| names.iter().any(|other| *other != name && facts.is_called_silent_by(name, other));
    let heard: Vec<&str> = names.iter().copied().filter(|name| !is_silent(name)).collect();
    let observers = |of: usize| -> Vec<&str> {
        let others: Vec<&str> =
            heard.iter().copied().filter(|name| names.len() == 1 || *name != names[of]).collect();
        let seeing: Vec<&str> =
            others.iter().copied().filter(|author| sees_anyone(config, facts, author)).collect();
        if seeing.is_empty() { others } else { seeing }
    };

    let mut servers = BTreeMap::new();
    let mut datacenters = BTreeMap::new();
    for (number, datacenter) in fleet.datacenters.iter().enumerate() {
        let observers = observers(number);
        let of_datacenter = || fleet.servers.iter().filter(|server| server.datacenter == number);
        for server in of_datacenter() {
            let votes = observers.iter().filter_map(|author| facts.vote(author, &server.name));
            let view = server_view(server, &votes.collect::<Vec<_>>(), nobody_says(&observers));
            servers.insert(server.name.clone(), view);
        }
        let doors: Vec<&Server> = of_datacenter().filter(|server| is_checked_door(server)).collect();
        let opinions: Vec<(Verdict, &Fact)> =
            observers.iter().filter_map(|author| opinion(facts, author, &doors)).collect();
        let tally = Tally::of(&opinions);
        let state = if tally.is_down { State::Down } else { State::Serving };
        // One door of several, or one observer of several: what is answered may change soon.
        let says_down = |author: &&str| {
            doors.iter().any(|door| facts.vote(author, &door.name).is_some_and(|(v, _)| v == Verdict::Down))
        };
        let suspected = state != State::Down && observers.iter().any(says_down);
        let why = match (doors.is_empty(), opinions.is_empty()) {
            (true, _) => "no front door is checked".to_owned(),
            (false, true) => nobody_says(&observers).to_owned(),
            (false, false) => tally.why,
        };
        datacenters.insert(
            datacenter.name.clone(),
            DatacenterView { state, why, suspected, since_unix_ms: tally.since },
        );
    }
    let frontier = facts.frontier();
    FleetView {
        generation: frontier.generation(),
        frontier,
        config_digest: config.digest.clone(),
        fail_open: datacenters.values().all(|datacenter| datacenter.state == State::Down),
        datacenters,
        servers,
    }
}

fn is_checked_door(server: &Server) -> bool {
    server.role == DOOR_ROLE && server.check != Check::None
}

/// Whether an observer sees the front door of any datacenter but its own.
fn sees_anyone(config: &Config, facts: &Facts, author: &str) -> bool {
    let fleet = &config.fleet;
    fleet.servers.iter().any(|server| {
        is_checked_door(server)
            && fleet.datacenters[server.datacenter].name != author
            && facts.vote(author, &server.name).is_some_and(|(verdict, _)| verdict == Verdict::Up)
    })
}

/// What an observer says of a datacenter, by its votes on the doors: down when all are. None: it has not voted on all.
fn opinion<'a>(facts: &'a Facts, author: &str, doors: &[&Server]) -> Option<(Verdict, &'a Fact)> {
    let votes: Vec<_> = doors.iter().map(|door| facts.vote(author, &door.name)).collect();
    if let Some(up) = votes.iter().flatten().find(|(verdict, _)| *verdict == Verdict::Up) {
        return Some(*up);
    }
    // The last door to go decided.
    votes.into_iter().collect::<Option<Vec<_>>>()?.into_iter().max_by_key(|(_, fact)| fact.at_unix_ms)
}

/// Why there is no word on a datacenter.
fn nobody_says(observers: &[&str]) -> &'static str {
    if observers.is_empty() { "nobody else is left to look" } else { "not observed yet" }
}

fn server_view(server: &Server, votes: &[(Verdict, &Fact)], nobody_says: &str) -> ServerView {
    if server.check == Check::None {
        return ServerView { health: Health::Unknown, why: "not checked".to_owned(), since_unix_ms: 0 };
    }
    if votes.is_empty() {
        return ServerView { health: Health::Unknown, why: nobody_says.to_owned(), since_unix_ms: 0 };
    }
    let tally = Tally::of(votes);
    let health = if tally.is_down { Health::Down } else { Health::Up };
    ServerView { health, why: tally.why, since_unix_ms: tally.since }
}

/// A majority, and its reasons.
struct Tally {
    is_down: bool,
    why: String,
    since: u64,
}

impl Tally {
    fn of(votes: &[(Verdict, &Fact)]) -> Self {
        let down: Vec<&Fact> =
            votes.iter().filter(|(verdict, _)| *verdict == Verdict::Down).map(|(_, fact)| *fact).collect();
        let is_down = down.len() * 2 > votes.len();
        let deciding = votes.iter().filter(|(verdict, _)| (*verdict == Verdict::Down) == is_down);
        let since = deciding.map(|(_, fact)| fact.at_unix_ms).max().unwrap_or(0);
        let authors =
            |facts: &[&Fact]| facts.iter().map(|fact| fact.author.as_str()).collect::<Vec<_>>().join(", ");
        let reason = |fact: &Fact| match &fact.body {
            Body::Vote { why, .. } => why.clone(),
            Body::Silent { .. } | Body::Here => String::new(),
        };
        let why = match down.first() {
            None => {
                let up: Vec<&Fact> = votes.iter().map(|(_, fact)| *fact).collect();
                format!("seen by {}", authors(&up))
            }
            Some(first) => {
                format!("{} of {} say down ({}): {}", down.len(), votes.len(), authors(&down), reason(first))
            }
        };
        Self { is_down, why, since }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::config;

    fn vote(facts: &mut Facts, author: &str, of: &str, verdict: Verdict) {
        let why = "connection refused".to_owned();
        facts.append(author, 1000, Body::Vote { server: format!("door-{of}"), verdict, why });
    }

    const NAMES: [&str; 3] = ["seoul", "frankfurt", "virginia"];

    fn all_up(names: &[&str]) -> Facts {
        let mut facts = Facts::default();
        for author in names {
            for of in names {
                vote(&mut facts, author, of, Verdict::Up);
            }
        }
        facts
    }

    fn silent(facts: &mut Facts, by: &str, author: &str) {
        let number = facts.head(author);
        facts.append(
            by,
            2000,
            Body::Silent { author: author.to_owned(), number, why: "timed out".to_owned() },
        );
    }

    fn down(config: &Config, facts: &Facts) -> Vec<String> {
        let view = judge(config, facts);
        let down =
            |(name, datacenter): (String, DatacenterView)| (datacenter.state == State::Down).then_some(name);
        view.datacenters.into_iter().filter_map(down).collect()
    }

    #[test]
    fn a_majority_of_the_others_decides() {
        let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
        vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
        assert!(down(&config, &facts).is_empty(), "one of two is no majority");
        vote(&mut facts, "frankfurt", "frankfurt", Verdict::Down);
        assert!(down(&config, &facts).is_empty(), "nobody votes on itself");
        vote(&mut facts, "virginia", "frankfurt", Verdict::Down);
        assert_eq!(down(&config, &facts), ["frankfurt"]);
        let view = judge(&config, &facts);
        let why = &view.datacenters["frankfurt"].why;
        assert_eq!(why, "2 of 2 say down (seoul, virginia): connection refused");
        assert_eq!(view.generation, facts.frontier().generation());
    }

    #[test]
    fn the_silent_do_not_vote_until_they_speak() {
        let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
        vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
        silent(&mut facts, "seoul", "virginia");
        assert_eq!(down(&config, &facts), ["frankfurt"], "seoul is the only observer left");
        facts.append("virginia", 3000, Body::Here);
        assert!(down(&config, &facts).is_empty(), "virginia still sees frankfurt");
    }

    #[test]
    fn one_that_sees_nobody_is_not_believed_while_others_see() {
        let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
        vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
        vote(&mut facts, "seoul", "virginia", Verdict::Down);
        assert!(down(&config, &facts).is_empty());
        // The same eyes, but the others are silent: now they are the only ones.
        silent(&mut facts, "seoul", "frankfurt");
        silent(&mut facts, "seoul", "virginia");
        assert_eq!(down(&config, &facts), ["frankfurt", "virginia"]);
    }

    #[test]
    fn with_two_the_survivor_decides() {
        let names = ["seoul", "frankfurt"];
        let (config, mut facts) = (config(&names), all_up(&names));
        vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
        assert_eq!(down(&config, &facts), ["frankfurt"]);
    }

    #[test]
    fn alone_one_judges_oneself_and_all_down_fails_open() {
        let names = ["seoul"];
        let (config, mut facts) = (config(&names), all_up(&names));
        assert!(!judge(&config, &facts).fail_open);
        vote(&mut facts, "seoul", "seoul", Verdict::Down);
        assert!(judge(&config, &facts).fail_open);
    }

    #[test]
    fn nothing_heard_is_nothing_down() {
        let view = judge(&config(&NAMES), &Facts::default());
        assert!(view.datacenters.values().all(|datacenter| datacenter.state == State::Serving));
        assert_eq!(view.generation, 0);
    }

    fn body() -> impl Strategy<Value = Body> {
        let name = prop::sample::select(&NAMES[..]);
        let verdict = prop_oneof![Just(Verdict::Up), Just(Verdict::Down)];
        prop_oneof![
            (name.clone(), verdict).prop_map(|(of, verdict)| Body::Vote {
                server: format!("door-{of}"),
                verdict,
                why: String::new()
            }),
            (name, 0..20u64).prop_map(|(author, number)| Body::Silent {
                author: author.to_owned(),
                number,
                why: String::new()
            }),
            Just(Body::Here),
        ]
    }

    proptest! {
        /// The same facts give the same view, by whatever way they came; any newly heard fact raises the generation.
        #[test]
        fn same_facts_same_view(written in prop::collection::vec((0..3usize, body()), 0..60), order in any::<u64>()) {
            let config = config(&NAMES);
            let mut whole = Facts::default();
            let mut pieces = Facts::default();
            let mut generation = 0;
            for (at, (author, body)) in written.into_iter().enumerate() {
                whole.append(NAMES[author], at as u64, body);
                prop_assert!(judge(&config, &whole).generation > generation);
                generation = judge(&config, &whole).generation;
                if order >> (at % 64) & 1 == 1 {
                    pieces.merge(&whole.after(&pieces.frontier()));
                }
            }
            pieces.merge(&whole.after(&pieces.frontier()));
            prop_assert_eq!(judge(&config, &whole), judge(&config, &pieces));
        }
    }
}
