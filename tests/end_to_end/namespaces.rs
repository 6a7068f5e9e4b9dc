//! Faults of machines and networks: three datacenters in network namespaces, seen by a user on the public network.
//!
//! Probing, voting and all else is as by default; only the return is shortened. `DAEMUN_ROUNDS=20` tries what is measured
//! so many times.

use std::time::{Duration, Instant};

use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use nix::sys::signal::Signal;

use crate::fleet::{CLIENTS, Fleet, NAMES, text, wait};
use crate::load::Door;
use crate::network::{Net, USERS};

const ALL: &str = "dns,gateway,sync";
/// For so long nothing must move.
const WATCH: Duration = Duration::from_secs(10);
/// Between two looks while watching.
const LOOK: Duration = Duration::from_millis(20);

fn started() -> Fleet {
    let mut fleet = Fleet::apart("");
    fleet.start_all();
    fleet
}

/// Where a name server sends the users of each datacenter. A query that is lost is asked again, as resolvers do.
fn placed(fleet: &Fleet, server: &str) -> [&'static str; 3] {
    CLIENTS.map(|client| {
        let answer = (0..3).find_map(|_| fleet.sent_to(server, client));
        answer.unwrap_or_else(|| panic!("{server} does not answer three times"))
    })
}

/// Nothing of what these name servers say changes for some time; returns how many answers there were.
fn stays(fleet: &Fleet, expected: &[(&str, [&'static str; 3])], what: &str) -> usize {
    let begun = Instant::now();
    let mut answers = 0;
    while begun.elapsed() < WATCH {
        for (server, placements) in expected {
            let found = placed(fleet, server);
            let at = begun.elapsed();
            assert_eq!(found, *placements, "{what}: {server} sends users elsewhere after {at:?}");
            answers += found.len();
        }
        std::thread::sleep(LOOK);
    }
    println!("{what}: {answers} answers in {WATCH:?}, and nobody moved");
    answers
}

/// Waits until these name servers send the users of Frankfurt elsewhere; how long the last took.
fn until_all_moved(fleet: &Fleet, servers: &[&str]) -> Duration {
    let begun = Instant::now();
    for server in servers {
        wait(&format!("{server} to answer without frankfurt"), || {
            fleet.sent_to(server, CLIENTS[1]).filter(|name| *name != "frankfurt")
        });
    }
    begun.elapsed()
}

/// Waits until all agents have one view, in which all datacenters serve.
fn until_all_serve(fleet: &Fleet) {
    let mut last = String::new();
    let begun = Instant::now();
    while begun.elapsed() < crate::fleet::PATIENCE {
        let views = NAMES.map(|name| fleet.status(name).map(|status| status["view"].clone()));
        let serves = |view: &serde_json::Value| {
            NAMES.iter().all(|name| view["datacenters"][name]["state"] == "serving")
                && NAMES.iter().all(|name| view["observers"][name]["is_heard"] == true)
        };
        if views.iter().all(|view| *view == views[0]) && views[0].as_ref().is_some_and(serves) {
            for server in NAMES {
                assert_eq!(placed(fleet, server), NAMES, "{server}, when all serve");
            }
            return;
        }
        last = format!("{views:?}");
    }
    panic!("waited for one view in which all serve; {last}");
}

/// What an agent says of a datacenter.
fn view_of(fleet: &Fleet, agent: &str, of: &str) -> Option<serde_json::Value> {
    Some(fleet.status(agent)?["view"]["datacenters"][of].clone())
}

/// Waits until the disk of an agent has what its view has: it follows a fraction of a second later.
fn until_kept(fleet: &Fleet, agent: &str) {
    wait(&format!("the disk of {agent} to know that frankfurt is down"), || {
        let kept = std::fs::read(fleet.path(&format!("data-{agent}-{ALL}")).join("facts.json")).ok()?;
        let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
        let facts = kept["batch"]["facts"].as_array().expect("facts on disk");
        let is_vote = |fact: &&serde_json::Value| {
            let body = &fact["body"];
            body["server"] == "door-frankfurt" && body["verdict"] == "down"
        };
        (facts.iter().filter(is_vote).count() == 2).then_some(())
    });
}

/// Tries a fault as often as asked for; each time it is undone, and all serve again.
fn rounds(fleet: &mut Fleet, fault: &str, harm: impl Fn(&mut Fleet), heal: impl Fn(&mut Fleet)) {
    let count =
        std::env::var("DAEMUN_ROUNDS").map_or(1, |count| count.parse().expect("DAEMUN_ROUNDS: a number"));
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        harm(fleet);
        until_all_moved(fleet, &["seoul", "virginia"]);
        times.push(begun.elapsed().as_secs_f64());
        for server in ["seoul", "virginia"] {
            let [seoul, _, virginia] = placed(fleet, server);
            assert_eq!([seoul, virginia], ["seoul", "virginia"], "users elsewhere stay where they are");
        }
        heal(fleet);
        until_all_serve(fleet);
    }
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{fault}, until the last name server answers without it: median {median:.2} s, worst {worst:.2} s of {count}"
    );
}

#[test]
fn killed() {
    rounds(
        &mut started(),
        "kill -9",
        |fleet| fleet.kill("frankfurt", ALL),
        |fleet| fleet.start("frankfurt", ALL),
    );
}

#[test]
fn stopped() {
    let signal = |signal: Signal| move |fleet: &mut Fleet| fleet.signal("frankfurt", ALL, signal);
    rounds(&mut started(), "SIGSTOP", signal(Signal::SIGSTOP), signal(Signal::SIGCONT));
}

#[test]
fn blackholed() {
    let harm = |fleet: &mut Fleet| {
        fleet.network().pull_out("frankfurt", Net::Public);
        fleet.network().pull_out("frankfurt", Net::Private);
    };
    let heal = |fleet: &mut Fleet| {
        fleet.network().plug_in("frankfurt", Net::Public);
        fleet.network().plug_in("frankfurt", Net::Private);
    };
    rounds(&mut started(), "blackhole", harm, heal);
}

#[test]
fn private_link_cut() {
    let fleet = started();
    fleet.network().pull_out("frankfurt", Net::Private);
    stays(&fleet, &NAMES.map(|server| (server, NAMES)), "private link cut");
    wait("the alarm in the view of seoul", || {
        let cut = view_of(&fleet, "seoul", "frankfurt")?["cut_from"].clone();
        (cut == serde_json::json!(["seoul", "virginia"])).then_some(())
    });
    for agent in NAMES {
        let said = text(&fleet.tell(agent, &["status"]).stdout);
        for other in NAMES.iter().filter(|other| (**other == "frankfurt") != (agent == "frankfurt")) {
            assert!(said.contains(&format!("link to {other}: DOWN, lag unknown")), "{agent}: {said}");
            let up = fleet.metric(agent, "daemun_link_up", &format!("peer=\"{other}\""));
            assert_eq!(up, 0.0, "{agent}'s link to {other}");
        }
    }
    let said = text(&fleet.tell("virginia", &["status"]).stdout);
    let alarm = "ALARM: the private link to frankfurt is cut from seoul, virginia: lag there is unknown";
    assert!(said.contains(alarm), "{said}");
    fleet.network().plug_in("frankfurt", Net::Private);
    until_all_serve(&fleet);
    wait("the alarm to end", || {
        let cut = view_of(&fleet, "seoul", "frankfurt")?["cut_from"].clone();
        cut.is_null().then_some(())
    });
    assert_eq!(fleet.metric("seoul", "daemun_link_up", "frankfurt"), 1.0);
}

#[test]
fn public_door_cut() {
    let fleet = started();
    fleet.network().pull_out("frankfurt", Net::Public);
    let took = until_all_moved(&fleet, &["seoul", "virginia"]);
    println!("public door cut: the last name server answers without it after {:.2} s", took.as_secs_f64());
    assert!(fleet.ask("frankfurt", "www.shop.test.", None).is_err(), "nobody gets there");
    // The agents still hear each other, so that Frankfurt knows what the others see.
    wait("frankfurt to know that it is down", || {
        (view_of(&fleet, "frankfurt", "frankfurt")?["state"] == "down").then_some(())
    });
    for (agent, peer) in [("seoul", "frankfurt"), ("frankfurt", "virginia"), ("virginia", "frankfurt")] {
        let up = fleet.metric(agent, "daemun_link_up", &format!("peer=\"{peer}\""));
        assert_eq!(up, 1.0, "{agent}'s link to {peer}");
    }
    // It sees both others fail, and is not believed.
    let status = fleet.status("seoul").unwrap();
    assert!(!status["view"]["observers"]["frankfurt"]["doubted"].is_null(), "{status}");
    let moved = placed(&fleet, "seoul");
    stays(&fleet, &["seoul", "virginia"].map(|server| (server, moved)), "public door cut, after the move");
    fleet.network().plug_in("frankfurt", Net::Public);
    until_all_serve(&fleet);
}

#[test]
fn one_way_cut() {
    let fleet = started();
    fleet.network().lose("seoul", "frankfurt", Net::Public);
    wait("seoul to suspect frankfurt", || {
        (view_of(&fleet, "virginia", "frankfurt")?["suspected"] == true).then_some(())
    });
    stays(&fleet, &NAMES.map(|server| (server, NAMES)), "one-way cut");
    let frankfurt = view_of(&fleet, "virginia", "frankfurt").unwrap();
    assert_eq!(frankfurt["state"], "serving", "{frankfurt}");
    fleet.network().find("seoul", "frankfurt", Net::Public);
    wait("the suspicion to end", || {
        let suspected = view_of(&fleet, "virginia", "frankfurt")?["suspected"].clone();
        suspected.is_null().then_some(())
    });
    until_all_serve(&fleet);
}

#[test]
fn three_way_partition() {
    let fleet = started();
    let between = |act: &dyn Fn(&str, &str, Net)| {
        for (from, to) in NAMES.iter().flat_map(|from| NAMES.map(|to| (*from, to))).filter(|(a, b)| a != b) {
            act(from, to, Net::Public);
            act(from, to, Net::Private);
        }
    };
    between(&|from, to, net| fleet.network().lose(from, to, net));
    // Each goes on with what it can see: itself.
    for server in NAMES {
        wait(&format!("{server} to be alone"), || (placed(&fleet, server) == [server; 3]).then_some(()));
    }
    stays(&fleet, &NAMES.map(|server| (server, [server; 3])), "three-way partition");
    between(&|from, to, net| fleet.network().find(from, to, net));
    until_all_serve(&fleet);
    let status = text(&fleet.tell("seoul", &["status"]).stdout);
    assert!(!status.contains("held") && !status.contains("ALARM") && !status.contains("doubted"), "{status}");
    stays(&fleet, &NAMES.map(|server| (server, NAMES)), "after a three-way partition");
}

#[test]
fn all_agents_dead() {
    let mut fleet = Fleet::apart("");
    for name in NAMES {
        for role in ["dns", "gateway", "sync"] {
            fleet.start(name, role);
        }
    }
    fleet.wait_until_all_see_all();
    // A name server whose own agent is dead follows another's.
    fleet.kill("seoul", "sync");
    fleet.network().pull_out("frankfurt", Net::Public);
    until_all_moved(&fleet, &["seoul", "virginia"]);
    let moved = placed(&fleet, "virginia");
    fleet.kill("frankfurt", "sync");
    fleet.kill("virginia", "sync");
    let mut doors = ["seoul", "virginia"].map(|name| Door::new(fleet.address(name)));
    let served = fleet.inside(USERS, || {
        let begun = Instant::now();
        let mut pages = 0;
        while begun.elapsed() < Duration::from_secs(1) {
            for door in &mut doors {
                let (code, body) = door.get("/", "91.0.0.7").expect("a page");
                assert!(code == 200 && body.contains("</html>"), "{body}");
                pages += 1;
            }
        }
        pages
    });
    println!("all agents dead: {served} pages");
    stays(&fleet, &["seoul", "virginia"].map(|server| (server, moved)), "all agents dead");
    // RFC 8914: Stale Answer.
    wait("an answer that says it is stale", || {
        let edns = fleet.ask("virginia", "www.shop.test.", Some(CLIENTS[0])).ok()?.edns?;
        match edns.option(EdnsCode::Unknown(15))? {
            EdnsOption::Unknown(_, error) => error.starts_with(&[0, 3]).then_some(()),
            _ => None,
        }
    });
    fleet.network().plug_in("frankfurt", Net::Public);
    NAMES.iter().for_each(|name| fleet.start(name, "sync"));
    until_all_serve(&fleet);
}

#[test]
fn everything_restarted_at_once() {
    let mut fleet = started();
    fleet.network().pull_out("frankfurt", Net::Public);
    until_all_moved(&fleet, &["seoul", "virginia"]);
    let moved = placed(&fleet, "virginia");
    ["seoul", "virginia"].iter().for_each(|agent| until_kept(&fleet, agent));
    NAMES.iter().for_each(|name| fleet.kill(name, ALL));
    assert!(fleet.ask("seoul", "www.shop.test.", None).is_err(), "nobody is there");
    NAMES.iter().for_each(|name| fleet.start(name, ALL));
    let begun = Instant::now();
    for server in ["seoul", "virginia"] {
        wait(&format!("{server} to answer"), || fleet.sent_to(server, CLIENTS[0]));
    }
    let took = begun.elapsed().as_secs_f64();
    println!("everything restarted at once: the name servers answer after {took:.2} s");
    // From the first answer on they know what was so, and never take all for dead.
    stays(&fleet, &["seoul", "virginia"].map(|server| (server, moved)), "everything restarted at once");
    for agent in NAMES {
        let history = text(&fleet.tell(agent, &["history", "--json"]).stdout);
        assert!(!history.contains("failing open"), "{agent}: {history}");
    }
    fleet.network().plug_in("frankfurt", Net::Public);
    until_all_serve(&fleet);
}
