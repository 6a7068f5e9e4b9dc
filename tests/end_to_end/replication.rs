//! Data that is in every datacenter, whatever dies: real processes, real disks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, NAMES, needs, wait};
use crate::network::Net;
use crate::stores::Client;

/// Only agents: names and doors are others' tests.
const ROLES: &str = "sync";
/// Writers of the crash rounds.
const WRITERS: usize = 8;
/// Crash rounds, unless `DAEMUN_CRASHES` says otherwise.
const CRASHES: u64 = 20;

fn started(half: u8) -> Fleet {
    let mut fleet = Fleet::new(half, "");
    NAMES.iter().for_each(|name| fleet.start(name, ROLES));
    NAMES.iter().for_each(|name| fleet.until_store_open(name));
    fleet
}

#[test]
fn what_is_written_in_one_is_read_in_all() {
    let fleet = started(60);
    let answer = fleet.put("seoul", "carts/42?durability=all", "teapot");
    assert_eq!(answer["durable"]["missing"], serde_json::json!([]), "{answer}");
    NAMES
        .iter()
        .for_each(|name| assert_eq!(fleet.get(name, "carts/42").as_deref(), Some("teapot"), "{name}"));
    // A later write elsewhere wins everywhere.
    fleet.put("virginia", "carts/42?durability=remote:1", "cup");
    NAMES.iter().for_each(|name| fleet.until_it_has(name, "carts/42", "cup"));
    for name in NAMES {
        for other in NAMES.iter().filter(|other| **other != name) {
            wait(&format!("{name} to know its lag to {other}"), || {
                let lag = fleet.lag(name, other)?;
                (lag["stage"] == "known" && lag["behind_operations"] == 0 && lag["unconfirmed"] == 0)
                    .then_some(())
            });
        }
        assert_eq!(fleet.metric(name, "daemun_store_lag_known", ""), 2.0);
    }
    let shown = String::from_utf8(fleet.tell("seoul", &["status"]).stdout).unwrap();
    assert!(shown.contains("behind virginia: at most"), "{shown}");
}

/// The link between two is cut: the third passes on what each of them lacks, lag is never said to be nothing, and a write
/// that asks for more than there is says what is known.
#[test]
fn a_cut_link_is_told_and_gone_around() {
    let mut fleet = Fleet::apart("");
    NAMES.iter().for_each(|name| fleet.start(name, ROLES));
    NAMES.iter().for_each(|name| fleet.until_store_open(name));
    fleet.put("seoul", "b/first?durability=all", "1");
    for (from, to) in [("seoul", "virginia"), ("virginia", "seoul")] {
        fleet.network().lose(from, to, Net::Private);
    }
    fleet.put("seoul", "b/around", "2");
    fleet.until_it_has("virginia", "b/around", "2");
    // And the word that it is there comes back the same way.
    let answer = fleet.put("seoul", "b/all?durability=all&wait=20s", "3");
    assert_eq!(answer["durable"]["missing"], serde_json::json!([]), "{answer}");

    fleet.network().pull_out("seoul", Net::Private);
    let (status, body) =
        fleet.ask_store("seoul", "PUT", "/v1/kv/b/alone?durability=remote:1&wait=1s", b"4").unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 202, "{body}");
    assert_eq!(body["durable"]["local"], true, "{body}");
    assert_eq!(body["durable"]["missing"], serde_json::json!(["frankfurt", "virginia"]), "{body}");
    wait("the lag to be unknown", || {
        let lag = fleet.lag("seoul", "virginia")?;
        let is_told = lag["stage"] == "unknown"
            && lag["behind_operations"].is_null()
            && lag["behind_ms"].as_u64()? > 3000;
        (is_told && lag["unconfirmed"].as_u64()? > 0).then_some(())
    });
    wait("the others to know too", || (fleet.lag("virginia", "seoul")?["stage"] == "unknown").then_some(()));
    fleet.network().plug_in("seoul", Net::Private);
    NAMES.iter().for_each(|name| fleet.until_it_has(name, "b/alone", "4"));
}

/// What each writer knows: the highest number acknowledged, and the highest that was sent, by key.
type Ledger = BTreeMap<String, (u64, u64)>;

/// Writes rising numbers to keys as fast as it can until it is told to stop or the store is gone.
fn write_on(fleet: &Fleet, writer: usize, first: u64, stop: &AtomicBool, ledger: &Mutex<Ledger>) -> u64 {
    let mut number = first;
    let Ok(mut client) = Client::connect(fleet.store("seoul")) else { return number };
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("w{writer}k{}", number % 50);
        ledger.lock().unwrap().entry(key.clone()).or_default().1 = number;
        match client.ask("PUT", &format!("/v1/kv/crash/{key}"), number.to_string().as_bytes()) {
            Ok((200, _)) => ledger.lock().unwrap().entry(key).or_default().0 = number,
            Ok(_) => {}
            Err(_) => return number,
        }
    }
    number
}

/// Every key holds what was last acknowledged, or something newer that was sent.
fn check(fleet: &Fleet, name: &str, ledger: &Ledger) -> Result<(), String> {
    let mut client = Client::connect(fleet.store(name)).map_err(|error| error.to_string())?;
    for (key, (acknowledged, sent)) in ledger {
        let (status, body) =
            client.ask("GET", &format!("/v1/kv/crash/{key}"), b"").map_err(|error| error.to_string())?;
        let found = if status == 200 { String::from_utf8(body).unwrap().parse().unwrap() } else { 0 };
        if found < *acknowledged || found > *sent {
            return Err(format!(
                "{name} has {found} under {key}; {acknowledged} was acknowledged, {sent} sent"
            ));
        }
    }
    Ok(())
}

#[test]
fn the_check_of_the_ledger_finds_what_is_lost() {
    let fleet = started(61);
    fleet.put("seoul", "crash/k", "7");
    let ledger = |acknowledged, sent| Ledger::from([("k".to_owned(), (acknowledged, sent))]);
    assert_eq!(check(&fleet, "seoul", &ledger(7, 7)), Ok(()));
    assert_eq!(check(&fleet, "seoul", &ledger(6, 8)), Ok(()));
    assert!(check(&fleet, "seoul", &ledger(8, 8)).is_err(), "an acknowledged write is lost");
    assert!(check(&fleet, "seoul", &ledger(5, 6)).is_err(), "it has what was never sent");
}

#[test]
fn no_acknowledged_write_is_lost_by_kill_9() {
    let rounds = std::env::var("DAEMUN_CRASHES").ok().map_or(CRASHES, |count| count.parse().unwrap());
    let mut fleet = started(62);
    let ledger = Mutex::new(Ledger::new());
    let mut numbers = [0; WRITERS];
    for round in 0..rounds {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (fleet, ledger, stop, firsts) = (&fleet, &ledger, &stop, numbers);
            let writers: Vec<_> = firsts
                .iter()
                .enumerate()
                .map(|(writer, &first)| scope.spawn(move || write_on(fleet, writer, first, stop, ledger)))
                .collect();
            // At another moment of its work each time.
            std::thread::sleep(Duration::from_millis(100 + round * 37 % 400));
            fleet.signal("seoul", ROLES, nix::sys::signal::Signal::SIGKILL);
            for (number, writer) in numbers.iter_mut().zip(writers) {
                *number = writer.join().unwrap();
            }
        });
        fleet.kill("seoul", ROLES);
        fleet.start("seoul", ROLES);
        fleet.until_store_open("seoul");
        let ledger = ledger.lock().unwrap();
        assert_eq!(check(&fleet, "seoul", &ledger), Ok(()), "round {round}");
        for name in ["frankfurt", "virginia"] {
            wait(&format!("{name} to have it all"), || check(&fleet, name, &ledger).ok());
        }
    }
    let acknowledged = ledger.lock().unwrap().values().map(|(acknowledged, _)| acknowledged).sum::<u64>();
    println!("{rounds} rounds, {} writes, {acknowledged} the sum of the newest", numbers.iter().sum::<u64>());
}

/// The disk of one is lost: it takes back what it had, and what is written there afterwards arrives everywhere.
#[test]
fn a_store_that_lost_its_disk_takes_back_what_it_had() {
    let mut fleet = started(63);
    for number in 0..200 {
        fleet.put("seoul", &format!("lost/k{number}?durability=remote:1"), "before");
    }
    let origin = |fleet: &Fleet| fleet.store_status("seoul").unwrap()["origin"].as_str().unwrap().to_owned();
    let before = origin(&fleet);
    fleet.kill("seoul", ROLES);
    fs::remove_dir_all(fleet.path(&format!("data-seoul-{ROLES}")).join("store")).unwrap();
    fleet.start("seoul", ROLES);
    fleet.until_store_open("seoul");
    assert_ne!(origin(&fleet), before, "another incarnation");
    for number in 0..200 {
        assert_eq!(fleet.get("seoul", &format!("lost/k{number}")).as_deref(), Some("before"));
    }
    for number in 0..1000 {
        fleet.put("seoul", &format!("lost/k{number}"), "after");
    }
    for name in NAMES {
        (0..1000).for_each(|number| fleet.until_it_has(name, &format!("lost/k{number}"), "after"));
    }
}

/// A page of a database is overwritten: it is found, said and refused, and made good from the others by one command.
#[test]
fn a_corrupt_store_is_found_and_rebuilt() {
    let mut fleet = started(64);
    for number in 0..400 {
        fleet.put("seoul", &format!("pages/k{number}?durability=remote:1"), &"x".repeat(500));
    }
    assert!(fleet.terminate("seoul", ROLES));
    let data = fleet.path(&format!("data-seoul-{ROLES}"));
    let mut file = fs::File::options().write(true).open(data.join("store/state.db")).unwrap();
    let length = file.metadata().unwrap().len();
    for page in (8..length / 4096).step_by(3) {
        file.seek(SeekFrom::Start(page * 4096 + 100)).unwrap();
        file.write_all(&[0x5a; 3000]).unwrap();
    }
    drop(file);
    fleet.start("seoul", ROLES);
    let told = wait("it to be told", || {
        let status = fleet.status("seoul")?;
        let failure = status["store"]["failure"].as_str().map(str::to_owned);
        let complaint = status["complaints"]
            .as_array()?
            .iter()
            .find_map(|complaint| Some(complaint.as_str()?.to_owned()));
        failure.or(complaint)
    });
    assert!(told.contains("corrupt") && told.contains("daemun kv rebuild"), "{told}");
    let (status, body) = fleet.ask_store("seoul", "PUT", "/v1/kv/pages/new", b"1").unwrap();
    assert!(status >= 500, "{status} {}", String::from_utf8_lossy(&body));
    fleet.terminate("seoul", ROLES);
    let mut rebuild = crate::fleet::daemun();
    rebuild.args(["kv", "rebuild", "--yes", "--data"]).arg(&data);
    let output = rebuild.output().unwrap();
    assert!(output.status.success(), "{}", crate::fleet::text(&output.stderr));
    fleet.start("seoul", ROLES);
    fleet.until_store_open("seoul");
    for number in 0..400 {
        assert_eq!(fleet.get("seoul", &format!("pages/k{number}")).map(|value| value.len()), Some(500));
    }
}

/// A file system of its own, as small as can be, that ends with this.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn new(at: std::path::PathBuf, mebibytes: u32) -> Self {
        needs("/usr/bin/mount", "mount");
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).status().unwrap();
        assert!(mounted.success(), "a tmpfs can be mounted (as root)");
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The disk is full: writes are refused in words, reads go on, nothing acknowledged is lost, and writing goes on when there
/// is room.
#[test]
fn a_full_disk_refuses_writes_and_keeps_reads() {
    let mut fleet = Fleet::new(65, "");
    let store = fleet.path(&format!("data-seoul-{ROLES}")).join("store");
    let _disk = SmallDisk::new(store.clone(), 72);
    NAMES.iter().for_each(|name| fleet.start(name, ROLES));
    NAMES.iter().for_each(|name| fleet.until_store_open(name));
    // Something that can be taken away again.
    fs::write(store.join("ballast"), vec![1; 40 << 20]).unwrap();
    let mut client = Client::connect(fleet.store("seoul")).unwrap();
    let value = vec![b'x'; 64 * 1024];
    let begun = Instant::now();
    let mut written = Vec::new();
    let refused = loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "the disk never fills");
        let key = format!("/v1/kv/full/k{}", written.len());
        match client.ask("PUT", &key, &value).unwrap() {
            (200, _) => written.push(key),
            refused => break refused,
        }
    };
    let said = String::from_utf8_lossy(&refused.1).into_owned();
    assert_eq!(refused.0, 507, "{said}");
    assert!(said.contains("disk is full"), "{said}");
    assert!(written.len() > 20, "{} writes", written.len());
    for key in &written {
        assert_eq!(client.ask("GET", key, b"").unwrap(), (200, value.clone()), "{key}");
    }
    // From elsewhere too, and what was acknowledged is elsewhere.
    for key in &written {
        let path = key.strip_prefix("/v1/kv/").unwrap();
        wait("frankfurt to have it", || (fleet.get("frankfurt", path)?.len() == value.len()).then_some(()));
    }
    wait("it to be told", || {
        // What is small may still fit, and is then the last that is known.
        assert_eq!(client.ask("PUT", "/v1/kv/full/more", &value).unwrap().0, 507);
        let failure = fleet.store_status("seoul")?["failure"].as_str()?.to_owned();
        failure.contains("full").then_some(())
    });
    fs::remove_file(store.join("ballast")).unwrap();
    wait("it to write again", || (client.ask("PUT", "/v1/kv/full/again", b"1").ok()?.0 == 200).then_some(()));
    fleet.until_it_has("virginia", "full/again", "1");
}
