//! Operators' words: what is refused, what outlives whom, what ends by itself. Networks 127.56, 127.57 and 127.59.

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::drains::{history, told, until};
use crate::fleet::{CLIENTS, Fleet, NAMES, text, wait};

const ALL: &str = "dns,gateway,sync";
/// Detection takes some two seconds; for so long nothing must move.
const WATCH: Duration = Duration::from_secs(5);

/// The states of all datacenters as an agent has them.
fn states(fleet: &Fleet, agent: &str) -> Value {
    let status = fleet.status(agent).unwrap();
    let state = |name: &str| status["view"]["datacenters"][name]["state"].clone();
    NAMES.map(state).to_vec().into()
}

/// Tells Seoul a word that is refused, with what it says; nothing changes by it.
fn refused(fleet: &Fleet, arguments: &[&str], code: i32) -> String {
    let (before, was) = (states(fleet, "seoul"), history(fleet, "seoul").len());
    let Output { status, stdout, stderr } =
        fleet.tell("seoul", &[arguments, &["--by", "the tests"]].concat());
    let said = text(&stdout) + &text(&stderr);
    assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
    assert_eq!((states(fleet, "seoul"), history(fleet, "seoul").len()), (before, was), "{arguments:?}");
    println!("{}: {}", arguments.join(" "), said.trim().lines().last().unwrap());
    said
}

/// Users of Frankfurt go where they are expected, by all these name servers, for a while.
fn stays(fleet: &Fleet, servers: &[&str], expected: &str, what: &str) {
    let begun = Instant::now();
    while begun.elapsed() < WATCH {
        for server in servers {
            let sent = (0..3).find_map(|_| fleet.sent_to(server, CLIENTS[1]));
            assert_eq!(sent, Some(expected), "{what}: {server} after {:?}", begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until these name servers send users of Frankfurt elsewhere.
fn until_moved(fleet: &Fleet, servers: &[&str]) {
    for server in servers {
        wait(&format!("{server} to answer without frankfurt"), || {
            fleet.sent_to(server, CLIENTS[1]).filter(|name| *name != "frankfurt")
        });
    }
}

/// Waits until these agents see the door of Frankfurt down, whatever is made of it.
fn until_seen_dead(fleet: &Fleet, agents: &[&str]) {
    for agent in agents {
        wait(&format!("{agent} to see that frankfurt is dead"), || {
            let links = fleet.status(agent)?["links"].clone();
            let link = links.as_array()?.iter().find(|link| link["peer"] == "frankfurt")?;
            (link["is_up"] == false).then_some(())
        });
    }
}

#[test]
fn what_breaks_a_rule_is_refused_and_changes_nothing() {
    let fleet = Fleet::started(56, "");
    let said = refused(&fleet, &["drain", "frankfurt", "--expect-generation", "1"], 1);
    assert!(said.contains("not 1 as expected"), "{said}");
    let said = refused(&fleet, &["drain", "frankfort"], 2);
    assert!(
        said.contains("there is no datacenter `frankfort`; the datacenters are seoul, frankfurt, virginia"),
        "{said}"
    );
    let said = refused(&fleet, &["forget", "frankfurt"], 1);
    assert!(said.contains("only what is down or drained can be forgotten"), "{said}");

    let generation = fleet.status("seoul").unwrap()["view"]["generation"].to_string();
    told(&fleet, "seoul", &["drain", "frankfurt", "--expect-generation", &generation]);
    until(&fleet, "frankfurt", "drained");
    for arguments in [["drain", "virginia"].as_slice(), &["pin", "virginia", "--state", "drained"]] {
        let said = refused(&fleet, arguments, 1);
        assert!(said.contains("1 of 3 would be left serving; `sync.minimum_serving` is 2"), "{said}");
        assert!(said.contains("one at a time: frankfurt is drained"), "{said}");
        assert!(said.contains("--break-glass"), "{said}");
    }
    let done = told(&fleet, "seoul", &["drain", "virginia", "--break-glass", "--reason", "it burns"]);
    assert_eq!(done["broken"].as_array().unwrap().len(), 2, "{done}");
    until(&fleet, "virginia", "drained");
    for agent in NAMES {
        let status = text(&fleet.tell(agent, &["status"]).stdout);
        assert!(
            status.contains("drain by the tests") && status.contains("it burns (AGAINST THE RULES)"),
            "{status}"
        );
        for client in CLIENTS {
            assert_eq!(fleet.sent_to(agent, client), Some("seoul"), "{agent}");
        }
    }
    for name in ["virginia", "frankfurt"] {
        told(&fleet, "virginia", &["restore", name]);
        until(&fleet, name, "serving");
    }
}

#[test]
fn words_outlive_who_was_told_and_end_in_time() {
    let mut fleet = Fleet::started(57, "");
    // The one that was told dies at once; the word is everywhere by then.
    let done = told(&fleet, "seoul", &["drain", "frankfurt", "--reason", "new floor"]);
    assert_eq!(done["not_heard_by"], serde_json::json!([]), "{done}");
    fleet.kill("seoul", ALL);
    stays(&fleet, &["frankfurt", "virginia"], "virginia", "drained, and the told one is dead");
    fleet.start("seoul", ALL);
    until(&fleet, "seoul", "serving");
    until(&fleet, "frankfurt", "drained");
    // All die, and come back: it was on disk.
    NAMES.iter().for_each(|name| fleet.kill(name, ALL));
    NAMES.iter().for_each(|name| fleet.start(name, ALL));
    for server in NAMES {
        wait(&format!("{server} to answer"), || fleet.sent_to(server, CLIENTS[1]));
    }
    stays(&fleet, &NAMES, "virginia", "drained, and all began anew");
    told(&fleet, "virginia", &["restore", "frankfurt"]);
    until(&fleet, "frankfurt", "serving");

    // Another is over by itself.
    told(&fleet, "virginia", &["drain", "frankfurt", "--for", "3s"]);
    let begun = Instant::now();
    until_moved(&fleet, &NAMES);
    until(&fleet, "frankfurt", "serving");
    println!("a drain for 3 s, and the return: {:.2} s", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() > Duration::from_millis(2500), "it was over too soon");
    for agent in ["frankfurt", "virginia"] {
        let told = history(&fleet, agent);
        for to in ["drain by the tests", "none"] {
            assert!(told.contains(&("order about frankfurt".to_owned(), to.to_owned())), "{agent}: {told:?}");
        }
    }
}

#[test]
fn pin_and_pause_hold_against_death() {
    let mut fleet = Fleet::started(59, "");
    told(&fleet, "virginia", &["pause", "--reason", "a storm of alarms"]);
    fleet.kill("frankfurt", ALL);
    until_seen_dead(&fleet, &["seoul", "virginia"]);
    stays(&fleet, &["seoul", "virginia"], "frankfurt", "paused");
    let status = text(&fleet.tell("seoul", &["status"]).stdout);
    assert!(status.contains("AUTOMATION IS OFF: pause by the tests"), "{status}");
    assert_eq!(fleet.metric("seoul", "daemun_automation_paused", ""), 1.0);
    let done = told(&fleet, "seoul", &["resume"]);
    assert_eq!(done["not_heard_by"], serde_json::json!(["frankfurt"]), "{done}");
    until_moved(&fleet, &["seoul", "virginia"]);
    fleet.start("frankfurt", ALL);
    until(&fleet, "frankfurt", "serving");
    let told_of = history(&fleet, "seoul");
    for to in ["off by the tests", "on"] {
        assert!(told_of.contains(&("automation".to_owned(), to.to_owned())), "{told_of:?}");
    }

    told(&fleet, "virginia", &["pin", "frankfurt"]);
    fleet.kill("frankfurt", ALL);
    until_seen_dead(&fleet, &["seoul", "virginia"]);
    stays(&fleet, &["seoul", "virginia"], "frankfurt", "pinned");
    told(&fleet, "virginia", &["restore", "frankfurt"]);
    until_moved(&fleet, &["seoul", "virginia"]);
    fleet.start("frankfurt", ALL);
    until(&fleet, "frankfurt", "serving");
}
