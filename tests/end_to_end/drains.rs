//! Operators' words under a steady load: what the dry run said comes about, and nobody notices. Networks 127.55 and 127.58.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::fleet::{Fleet, NAMES, daemun, text, wait};
use crate::load::{Load, under_load};

/// The share of users that goes elsewhere agrees with the dry run within so many percent of all.
const AGREES: f64 = 2.0;
/// Times that all clients are gone through to measure shares.
const ROUNDS: usize = 4;

/// Clients whose built-in places are, of ten: four in Europe (Frankfurt, then Virginia), two in Africa (Frankfurt, then
/// Seoul), two in Asia, two in North America.
fn clients() -> Vec<Ipv4Addr> {
    let nets = [(91, 0), (41, 33), (1, 208), (91, 1), (12, 0), (91, 2), (41, 34), (1, 209), (91, 3), (12, 1)];
    let client = |number: u8| nets.map(|(a, b)| Ipv4Addr::new(a, b, number * 7, 9));
    (0..30).flat_map(client).collect()
}

/// What a verb that was done says of itself.
pub(crate) fn told(fleet: &Fleet, at: &str, arguments: &[&str]) -> Value {
    let output = fleet.tell(at, &[arguments, &["--json", "--by", "the tests"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until every agent has a datacenter in a state.
pub(crate) fn until(fleet: &Fleet, name: &str, state: &str) {
    for agent in NAMES {
        wait(&format!("{agent} to have {name} {state}"), || {
            (fleet.status(agent)?["view"]["datacenters"][name]["state"] == state).then_some(())
        });
    }
}

/// Waits until the fleet knows what comes in, and is about right.
fn until_measured(fleet: &Fleet, load: &Load<'_>) {
    wait("the measured rates to be right", || {
        let status = fleet.status("seoul")?;
        let is_right = |what: &str| {
            let rates = status["view"][what].as_object().cloned().unwrap_or_default();
            let sum: f64 = rates.values().filter_map(Value::as_f64).sum();
            rates.len() == 4 && (sum / load.rate() - 1.0).abs() < 0.1
        };
        (is_right("queries") && is_right("requests")).then_some(())
    });
}

/// What changed, as an agent tells it: about whom, and to what.
pub(crate) fn history(fleet: &Fleet, agent: &str) -> Vec<(String, String)> {
    let output = fleet.tell(agent, &["history", "--json", "--limit", "1000"]);
    let history: Value = serde_json::from_slice(&output.stdout).unwrap();
    let word = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    history["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (word(event, "about"), word(event, "to")))
        .collect()
}

#[test]
fn drain_and_restore_under_load() {
    let fleet = Fleet::started(55, "");
    under_load(&fleet, &clients(), |load| {
        until_measured(&fleet, load);
        let before = load.look(ROUNDS);
        assert!((before.share("frankfurt") - 60.0).abs() < AGREES, "{before:?}");

        let plan = told(&fleet, "virginia", &["drain", "frankfurt", "--over", "10s", "--dry-run"]);
        assert_eq!((&plan["is_done"], &plan["broken"]), (&false.into(), &serde_json::json!([])));
        let done = told(&fleet, "virginia", &["drain", "frankfurt", "--over", "10s", "--reason", "a test"]);
        assert_eq!(done["heard_by"].as_array().unwrap().len(), 3, "{done}");
        until(&fleet, "frankfurt", "drained");
        let after = load.look(ROUNDS);
        assert_eq!(after.share("frankfurt"), 0.0);
        for name in ["seoul", "virginia"] {
            let moves = plan["blast"]["moves"].as_array().unwrap();
            let one = moves.iter().find(|one| one["to"] == name).unwrap();
            assert_eq!(one["from"], "frankfurt");
            let (is, was) = (after.share(name), before.share(name));
            for what in ["queries_percent", "requests_percent"] {
                let said = one[what].as_f64().unwrap();
                println!(
                    "drain: {name} had {was:.1}%, has {is:.1}%; the dry run said {said:.1}% more ({what})"
                );
                assert!((is - was - said).abs() < AGREES, "{name}: {is} - {was} is not {said} ({what})");
            }
        }
        let steps = |of: &str| {
            let steps = history(&fleet, "seoul")
                .into_iter()
                .filter(|(about, to)| about == "frankfurt" && to.starts_with(of));
            steps.map(|(_, to)| to).collect::<Vec<_>>()
        };
        println!("drain: {}", steps("drain").join(", "));
        assert!(steps("draining").len() >= 8, "in steps: {:?}", steps("draining"));

        told(&fleet, "seoul", &["restore", "frankfurt"]);
        until(&fleet, "frankfurt", "serving");
        println!("restore: {}", steps("ramping").join(", "));
        assert_eq!(steps("ramping"), ["ramping 10%", "ramping 25%", "ramping 50%"]);
        let back = load.look(ROUNDS);
        assert!((back.share("frankfurt") - before.share("frankfurt")).abs() < AGREES, "{back:?}");
    });
}

/// The config with capacities; whoever is not named can serve any number.
fn with_capacities(fleet: &Fleet, capacities: &[(&str, f64)]) -> String {
    let mut config = fleet.config("");
    for (name, rps) in capacities {
        let key = format!("agent = \"https://{}:7400\"\n", fleet.agent(name));
        config = config.replace(&key, &format!("{key}capacity_rps = {rps:.0}\n"));
    }
    config
}

#[test]
fn capacity_and_spill_under_load() {
    let fleet = Fleet::started(58, "");
    let clients = clients();
    under_load(&fleet, &clients, |load| {
        until_measured(&fleet, load);
        // Frankfurt is asked for 60% of all requests, Virginia for 20%.
        let rate = load.rate();
        let capacities = [("frankfurt", 0.45 * rate), ("virginia", 0.4 * rate)];
        std::fs::write(fleet.config_path(), with_capacities(&fleet, &capacities)).unwrap();
        for server in NAMES {
            wait(&format!("{server} to spill"), || {
                let loads = fleet.status(server)?["loads"].clone();
                let of = loads.as_array()?.iter().find(|load| load["datacenter"] == "frankfurt")?;
                (of["kept_percent"].as_u64()? < 100).then_some(())
            });
        }
        let status = text(&fleet.tell("seoul", &["status"]).stdout);
        let line =
            status.lines().find(|line| line.contains("IT SPILLS")).unwrap_or_else(|| panic!("{status}"));
        println!("spill: {line}");
        let seen = load.look(ROUNDS);
        println!(
            "spill: frankfurt, which can serve 45% of all requests, has {:.1}% of them",
            seen.share("frankfurt")
        );
        assert!((30.0..45.0).contains(&seen.share("frankfurt")), "{seen:?}");
        explains(&fleet, &clients);

        // Virginia could not bear what Frankfurt has.
        let before = fleet.status("seoul").unwrap()["view"]["datacenters"].clone();
        let output = fleet.tell("seoul", &["drain", "frankfurt", "--by", "the tests"]);
        let said = text(&output.stdout);
        println!("capacity: {}", said.lines().find(|line| line.contains("AGAINST")).unwrap_or(&said));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("AGAINST THE RULES: virginia would be asked for"), "{said}");
        assert_eq!(fleet.status("seoul").unwrap()["view"]["datacenters"], before, "nothing changed");
        // Neither does it on purpose.
        let output = fleet.tell("seoul", &["drill", "run", "blackhole", "--target", "frankfurt", "--yes"]);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let rule = said.lines().find(|line| line.contains("AGAINST who is left can bear the load"));
        println!("capacity: {}", rule.unwrap_or_else(|| panic!("{said}")).trim());

        std::fs::write(fleet.config_path(), fleet.config("")).unwrap();
        wait("the spill to end", || {
            let loads = fleet.status("seoul")?["loads"].clone();
            loads.as_array()?.iter().all(|load| load["kept_percent"] == 100).then_some(())
        });
    });
}

/// Somebody in Europe is sent to Virginia, and is told why.
fn explains(fleet: &Fleet, clients: &[Ipv4Addr]) {
    let spilled = clients
        .iter()
        .filter(|client| client.octets()[0] == 91)
        .find(|client| fleet.sent_to("seoul", &format!("{client}/24")) == Some("virginia"));
    let mut explain = daemun();
    let url = format!("http://{}:7480", fleet.address("seoul"));
    explain.args(["explain", "--name", "www.shop.test", "--admin", &url, "--token-file"]);
    explain.arg(fleet.path(crate::fleet::TOKEN_FILE)).arg("--config").arg(fleet.config_path());
    let output =
        explain.args(["--client", &format!("{}/24", spilled.expect("one who spills"))]).output().unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("over its capacity"), "{said}{}", text(&output.stderr));
    println!("spill: {}", said.lines().find(|line| line.contains("over its capacity")).unwrap().trim());
}
