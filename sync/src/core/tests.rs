//! The agent without its shell, driven by hand.

use daemun_fleet::view::{Frontier, State};

use super::*;
use crate::tests::config;

const NAMES: [&str; 3] = ["seoul", "frankfurt", "virginia"];

fn cores() -> BTreeMap<&'static str, Core> {
    let config = Arc::new(config(&NAMES));
    NAMES.map(|me| (me, Core::new(me, Arc::clone(&config), Facts::default(), Duration::ZERO))).into()
}

fn probe(core: &mut Core, of: &str, outcome: Outcome, times: u32) {
    for _ in 0..times {
        core.handle(
            Duration::ZERO,
            0,
            Input::Probed { server: format!("door-{of}"), outcome: outcome.clone() },
        );
    }
}

fn pull(cores: &mut BTreeMap<&'static str, Core>, to: &str, from: &str, now: Duration) {
    let asked = cores[to].facts().frontier();
    let batch = cores[from].facts().after(&asked);
    let config_digest = cores[from].config().digest.clone();
    let input = Input::Pulled { peer: from.to_owned(), batch, config_digest };
    cores.get_mut(to).unwrap().handle(now, 0, input);
}

fn state(core: &Core, of: &str) -> State {
    core.view().datacenters[of].state
}

#[test]
fn two_that_see_it_down_take_it_out_everywhere() {
    let mut cores = cores();
    for core in cores.values_mut() {
        NAMES.iter().for_each(|of| probe(core, of, Ok(()), 3));
    }
    for (to, from) in [("seoul", "virginia"), ("virginia", "seoul"), ("frankfurt", "seoul")] {
        pull(&mut cores, to, from, Duration::ZERO);
    }
    probe(cores.get_mut("seoul").unwrap(), "frankfurt", Err("refused".into()), 8);
    probe(cores.get_mut("virginia").unwrap(), "frankfurt", Err("refused".into()), 8);
    assert_eq!(state(&cores["seoul"], "frankfurt"), State::Serving, "not yet heard from virginia");
    pull(&mut cores, "seoul", "virginia", Duration::ZERO);
    pull(&mut cores, "virginia", "seoul", Duration::ZERO);
    assert_eq!(state(&cores["seoul"], "frankfurt"), State::Down);
    assert_eq!(cores["seoul"].view(), cores["virginia"].view());
    pull(&mut cores, "frankfurt", "virginia", Duration::ZERO);
    assert_eq!(state(&cores["frankfurt"], "frankfurt"), State::Down, "it is told");
    probe(cores.get_mut("seoul").unwrap(), "frankfurt", Ok(()), 3);
    assert_eq!(state(&cores["seoul"], "frankfurt"), State::Serving, "no majority is left");
}

#[test]
fn a_dead_link_calls_its_peer_silent_once_and_the_peer_refutes() {
    let mut cores = cores();
    pull(&mut cores, "seoul", "virginia", Duration::ZERO);
    let failed = Input::PullFailed { peer: "virginia".into(), why: "timed out".into() };
    let seoul = cores.get_mut("seoul").unwrap();
    assert!(!seoul.handle(Duration::from_secs(2), 0, failed.clone()));
    assert!(seoul.handle(Duration::from_secs(4), 0, failed.clone()));
    assert!(seoul.facts().is_called_silent("virginia"));
    // Virginia hears of it by way of Frankfurt and speaks up.
    pull(&mut cores, "frankfurt", "seoul", Duration::ZERO);
    pull(&mut cores, "virginia", "frankfurt", Duration::ZERO);
    pull(&mut cores, "frankfurt", "virginia", Duration::ZERO);
    pull(&mut cores, "seoul", "frankfurt", Duration::ZERO);
    let seoul = cores.get_mut("seoul").unwrap();
    assert!(!seoul.facts().is_called_silent("virginia"));
    assert!(!seoul.handle(Duration::from_secs(60), 0, failed), "it does not start over");
}

/// Seoul's disk is lost and nobody can be asked; later all have the same facts and the same view.
#[test]
fn a_lost_disk_splits_nothing() {
    let mut cores = cores();
    for core in cores.values_mut() {
        NAMES.iter().for_each(|of| probe(core, of, Ok(()), 3));
    }
    pull(&mut cores, "frankfurt", "seoul", Duration::ZERO);
    pull(&mut cores, "frankfurt", "virginia", Duration::ZERO);
    let config = Arc::clone(cores["seoul"].config());
    let mut again = Core::new("seoul", config, Facts::default(), Duration::ZERO);
    for of in ["seoul", "frankfurt", "virginia"] {
        let server = format!("door-{of}");
        let outcome = if of == "virginia" { Err("refused".to_owned()) } else { Ok(()) };
        for _ in 0..8 {
            let input = Input::Probed { server: server.clone(), outcome: outcome.clone() };
            again.handle(Duration::ZERO, EPOCH_UNIX_MS + 1000, input);
        }
    }
    cores.insert("seoul", again);
    pull(&mut cores, "frankfurt", "seoul", Duration::ZERO);
    pull(&mut cores, "seoul", "frankfurt", Duration::ZERO);
    assert_eq!(cores["seoul"].facts(), cores["frankfurt"].facts());
    assert_eq!(cores["seoul"].view(), cores["frankfurt"].view());
    let (said, _) = cores["frankfurt"].facts().vote("seoul", "door-virginia").unwrap();
    assert_eq!(said, Verdict::Down);
}

#[test]
fn a_clock_that_went_back_is_made_good_by_what_a_peer_knows() {
    let mut cores = cores();
    let mut known = Facts::default();
    known.begin_life("seoul", 5000, 0);
    let seoul = cores.get_mut("seoul").unwrap();
    probe(seoul, "virginia", Ok(()), 3);
    assert!(seoul.facts().head("seoul") < 5000);
    let batch = known.after(&Frontier::default());
    let input = Input::Pulled { peer: "virginia".into(), batch, config_digest: String::new() };
    seoul.handle(Duration::ZERO, 0, input);
    assert_eq!(seoul.facts().head("seoul"), 5002, "it is here, and says again what it has to say");
}

#[test]
fn after_a_restart_old_words_do_not_count_until_it_has_seen() {
    let config = Arc::new(config(&["seoul", "frankfurt"]));
    let mut facts = Facts::default();
    let body = |server: &str, verdict| Body::Vote { server: server.to_owned(), verdict, why: String::new() };
    facts.append("frankfurt", 0, body("door-seoul", Verdict::Down));
    facts.append("seoul", 0, body("door-seoul", Verdict::Up));
    facts.append("seoul", 0, Body::Silent { author: "frankfurt".into(), number: 1, why: String::new() });
    let mut frankfurt = Core::new("frankfurt", config, facts, Duration::ZERO);
    assert_eq!(state(&frankfurt, "seoul"), State::Serving, "it is called silent: its word does not count");
    probe(&mut frankfurt, "frankfurt", Ok(()), 3);
    assert_eq!(frankfurt.facts().head("frankfurt"), 1, "it has not yet seen seoul");
    probe(&mut frankfurt, "seoul", Ok(()), 3);
    assert!(frankfurt.facts().head("frankfurt") > 1 && !frankfurt.facts().is_called_silent("frankfurt"));
    assert_eq!(state(&frankfurt, "seoul"), State::Serving);
}

/// Two agents under two configs must be done telling each other; who is not in mine has no say in my view.
#[test]
fn strangers_are_kept_but_have_no_say() {
    let mut cores = cores();
    let mut facts = Facts::default();
    facts.append("busan", 0, Body::Silent { author: "virginia".into(), number: 99, why: String::new() });
    let vote = Body::Vote { server: "door-virginia".into(), verdict: Verdict::Down, why: String::new() };
    facts.append("busan", 0, vote);
    let batch = facts.after(&Frontier::default());
    let seoul = cores.get_mut("seoul").unwrap();
    let input = Input::Pulled { peer: "virginia".into(), batch: batch.clone(), config_digest: String::new() };
    seoul.handle(Duration::ZERO, 0, input);
    assert!(seoul.facts().frontier().covers(&batch.frontier));
    assert_eq!(state(seoul, "virginia"), State::Serving);
    assert!(!seoul.view().datacenters.contains_key("busan"));
    let many: Vec<String> = (0..1000).map(|number| format!("x{number}")).collect();
    let mut facts = Facts::default();
    many.iter().for_each(|author| facts.append(author, 0, Body::Here));
    let batch = facts.after(&Frontier::default());
    let input = Input::Pulled { peer: "virginia".into(), batch, config_digest: String::new() };
    seoul.handle(Duration::ZERO, 0, input);
    assert_eq!(seoul.facts().frontier().0.len(), AUTHORS_MAX);
}

/// A stopped process that goes on must not count its old votes, nor call the others silent.
#[test]
fn after_a_sleep_it_looks_again_before_it_speaks() {
    let mut cores = cores();
    let seoul = cores.get_mut("seoul").unwrap();
    NAMES.iter().for_each(|of| probe(seoul, of, Ok(()), 3));
    let before = seoul.facts().head("seoul");
    let woken = Duration::from_secs(600);
    let failed = |peer: &str| Input::PullFailed { peer: peer.to_owned(), why: "timed out".to_owned() };
    for peer in ["frankfurt", "virginia"] {
        seoul.handle(woken, 0, failed(peer));
    }
    assert!(!seoul.facts().is_called_silent("frankfurt"), "we slept, not they");
    assert_eq!(seoul.facts().head("seoul"), before);
    for of in NAMES {
        for _ in 0..3 {
            let input = Input::Probed { server: format!("door-{of}"), outcome: Ok(()) };
            seoul.handle(woken, 0, input);
        }
    }
    assert!(seoul.facts().head("seoul") > before, "a new life, with what it sees now");
}

/// A peer behind a broken link, once refuted by way of a third, must be called silent again when
/// the third is lost too.
#[test]
fn with_each_way_that_is_lost_silence_is_claimed_again() {
    let mut cores = cores();
    pull(&mut cores, "seoul", "virginia", Duration::ZERO);
    let seoul = cores.get_mut("seoul").unwrap();
    let fail = |core: &mut Core, peer: &str, second: u64| {
        let input = Input::PullFailed { peer: peer.to_owned(), why: "timed out".to_owned() };
        core.handle(Duration::from_secs(second), 0, input);
    };
    let hear = |core: &mut Core, facts: &Facts, second: u64| {
        let batch = facts.after(&core.facts().frontier());
        let input = Input::Pulled { peer: "frankfurt".into(), batch, config_digest: String::new() };
        core.handle(Duration::from_secs(second), 0, input);
    };
    let mut relay = Facts::default();
    hear(seoul, &relay, 1);
    hear(seoul, &relay, 2);
    fail(seoul, "virginia", 3);
    fail(seoul, "virginia", 4);
    assert!(seoul.facts().is_called_silent("virginia"));
    relay.begin_life("virginia", 50, 0);
    hear(seoul, &relay, 5);
    assert!(!seoul.facts().is_called_silent("virginia"), "refuted by way of frankfurt");
    for second in 6..10 {
        fail(seoul, "virginia", second);
        fail(seoul, "frankfurt", second);
    }
    assert!(seoul.facts().is_called_silent("frankfurt") && seoul.facts().is_called_silent("virginia"));
}

#[test]
fn a_new_config_keeps_what_is_known() {
    let mut cores = cores();
    let seoul = cores.get_mut("seoul").unwrap();
    probe(seoul, "virginia", Ok(()), 3);
    let fewer = Arc::new(config(&["seoul", "virginia"]));
    assert!(seoul.set_config(fewer, Duration::ZERO));
    assert_eq!(seoul.view().datacenters.len(), 2);
    assert_eq!(seoul.view().generation, 2, "it is here, and one vote");
    assert_eq!(seoul.links().len(), 1);
}
