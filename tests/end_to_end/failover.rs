//! A datacenter dies, by SIGKILL and by SIGSTOP, and comes back. Networks 127.23 and 127.24.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::fleet::{CLIENTS, Fleet, NAMES, wait};

const ALL: &str = "dns,gateway,sync";

/// Waits until these name servers send the client of Frankfurt elsewhere; the time each took is printed, not judged.
fn all_without_frankfurt(fleet: &Fleet, servers: &[&str], fault: &str) {
    let begun = Instant::now();
    for server in servers {
        wait(&format!("{server} to answer without frankfurt"), || {
            fleet.sent_to(server, CLIENTS[1]).filter(|name| *name != "frankfurt")
        });
        println!("{fault}: {server} answers without frankfurt after {:.2} s", begun.elapsed().as_secs_f64());
    }
}

fn all_with_frankfurt(fleet: &Fleet) {
    for server in NAMES {
        wait(&format!("{server} to answer with frankfurt"), || {
            fleet.sent_to(server, CLIENTS[1]).filter(|name| *name == "frankfurt")
        });
    }
}

#[test]
fn killed_and_started_again() {
    let mut fleet = Fleet::started(23, "");
    fleet.kill("frankfurt", ALL);
    all_without_frankfurt(&fleet, &["seoul", "virginia"], "SIGKILL");
    let others = [("seoul", CLIENTS[0]), ("virginia", CLIENTS[2])];
    for (name, client) in others {
        assert_eq!(fleet.sent_to("seoul", client), Some(name), "users elsewhere stay where they are");
    }
    let status = fleet.status("seoul").unwrap();
    let why = status["view"]["datacenters"]["frankfurt"]["why"].as_str().unwrap();
    assert!(why.contains("2 of 2 say down") && why.contains("refused"), "{why}");
    fleet.start("frankfurt", ALL);
    all_with_frankfurt(&fleet);
}

#[test]
fn stopped_and_continued() {
    let fleet = Fleet::started(24, "");
    fleet.signal("frankfurt", ALL, Signal::SIGSTOP);
    all_without_frankfurt(&fleet, &["seoul", "virginia"], "SIGSTOP");
    fleet.signal("frankfurt", ALL, Signal::SIGCONT);
    all_with_frankfurt(&fleet);
    // Having slept, Frankfurt must not have taken the others for dead.
    let status = fleet.status("frankfurt").unwrap();
    for name in NAMES {
        assert_eq!(status["view"]["datacenters"][name]["state"], "serving");
    }
}
