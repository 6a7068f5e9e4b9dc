//! A datacenter dies, by SIGKILL and by SIGSTOP, and comes back. Networks 127.23, 127.24, 127.31 and 127.32.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fleet::{CLIENTS, Fleet, NAMES, TOKEN, wait};

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
    // Having slept, Frankfurt must not have taken the others for dead: their words count.
    wait("frankfurt to see as the others do", || {
        let status = fleet.status("frankfurt")?;
        let seen_by = |name: &str, by: &str| {
            let why = status["view"]["datacenters"][name]["why"].as_str().unwrap_or_default().to_owned();
            why.starts_with("seen by") && why.contains(by)
        };
        (seen_by("virginia", "seoul") && seen_by("seoul", "virginia") && seen_by("seoul", "frankfurt"))
            .then_some(())
    });
}

/// Found by a tester: a datacenter that lost its disk while nobody could be asked split the fleet for good.
#[test]
fn a_lost_disk_in_the_worst_moment_splits_nothing() {
    let mut fleet = Fleet::started(31, "");
    fleet.kill("seoul", ALL);
    fleet.signal("frankfurt", ALL, Signal::SIGSTOP);
    fleet.kill("virginia", ALL);
    fs::remove_dir_all(fleet.path(&format!("data-seoul-{ALL}"))).unwrap();
    fleet.start("seoul", ALL);
    wait("seoul to see that it is alone", || {
        let status = fleet.status("seoul")?;
        (status["view"]["datacenters"]["virginia"]["state"] == "down").then_some(())
    });
    fleet.signal("frankfurt", ALL, Signal::SIGCONT);
    for server in ["seoul", "frankfurt"] {
        wait(&format!("{server} to answer without virginia"), || {
            fleet.sent_to(server, CLIENTS[2]).filter(|name| *name != "virginia")
        });
    }
    wait("both to have one view", || {
        let view = |name: &str| fleet.status(name).map(|status| status["view"].clone());
        let (seoul, frankfurt) = (view("seoul")?, view("frankfurt")?);
        (seoul == frankfurt && seoul["datacenters"]["frankfurt"]["state"] == "serving").then_some(())
    });
}

#[test]
fn an_agent_that_is_asked_for_its_status_without_end_keeps_judging() {
    let mut fleet = Fleet::new(32, "");
    let over = &AtomicBool::new(false);
    let addresses = NAMES.map(|name| SocketAddr::from((fleet.address(name), 7480)));
    std::thread::scope(|scope| {
        for address in addresses.repeat(3) {
            scope.spawn(move || ask_for_status_until(address, over));
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for name in NAMES {
                fleet.start(name, ALL);
            }
            fleet.wait_until_all_see_all();
            for _ in 0..5 {
                fleet.kill("frankfurt", ALL);
                all_without_frankfurt(&fleet, &["seoul", "virginia"], "SIGKILL");
                fleet.start("frankfurt", ALL);
                all_with_frankfurt(&fleet);
            }
        }));
        over.store(true, Relaxed);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// One kept connection, a request as soon as the last is answered; again from the start when the process is gone.
fn ask_for_status_until(address: SocketAddr, over: &AtomicBool) {
    let mut body = [0; 16 << 10];
    while !over.load(Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let request =
            format!("GET /v1/status HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
        while !over.load(Relaxed)
            && stream.write_all(request.as_bytes()).is_ok()
            && stream.read(&mut body).is_ok_and(|read| read > 0)
        {}
    }
}
