//! An observer who knows nothing of drills: it polls name servers and doors, and reads the stores' files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};

use crate::fleet::{CLIENTS, Fleet, NAMES, ask};

/// The observer polls so often.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// The observer's times and a report's agree within so much, and within what either says of its own lateness.
const AGREES_MS: u64 = 200;

/// Now, milliseconds of Unix time.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// What an observer saw change: when, and how long before it last looked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) at: u64,
    pub(crate) gap: u64,
}

/// What the observer saw: for each name server where it sent a user of the target, and who served that user.
#[derive(Default)]
pub(crate) struct Observed {
    pub(crate) named: BTreeMap<&'static str, Vec<(Seen, Option<&'static str>)>>,
    /// When users were served, and by whom.
    pub(crate) served: Vec<(u64, &'static str)>,
}

/// Polls name servers and doors until told to stop.
pub(crate) fn observe(fleet: &Fleet, stop: &AtomicBool) -> Observed {
    let mut observed = Observed::default();
    thread::scope(|scope| {
        let watched: Vec<_> = NAMES
            .iter()
            .map(|server| (*server, scope.spawn(move || poll(stop, || fleet.sent_to(server, CLIENTS[1])))))
            .collect();
        let visits = scope.spawn(|| visit(fleet, stop));
        for (server, watching) in watched {
            observed.named.insert(server, watching.join().unwrap());
        }
        observed.served = visits.join().unwrap();
    });
    observed
}

/// Users in Seoul's place whose home is the target, one after the other, whatever becomes of those before: when each that was
/// served was, and by whom.
pub(crate) fn visit(fleet: &Fleet, stop: &AtomicBool) -> Vec<(u64, &'static str)> {
    let served = Mutex::new(Vec::new());
    let one = || {
        let server = SocketAddr::from((fleet.address("seoul"), 5300));
        let answer = ask(server, "www.shop.test.", Some(CLIENTS[1])).ok()?;
        let address = answer.answers.first()?.data.ip_addr()?;
        page(address)?;
        served.lock().unwrap().push((unix_ms(), fleet.whose(address)));
        Some(())
    };
    thread::scope(|scope| {
        while !stop.load(Relaxed) {
            scope.spawn(one);
            sleep(POLL);
        }
    });
    let mut served = served.into_inner().unwrap();
    served.sort_unstable();
    served
}

/// Notes each change of what is seen.
pub(crate) fn poll(
    stop: &AtomicBool,
    look: impl Fn() -> Option<&'static str>,
) -> Vec<(Seen, Option<&'static str>)> {
    let mut changes: Vec<(Seen, Option<&'static str>)> = Vec::new();
    let mut last = unix_ms();
    while !stop.load(Relaxed) {
        let found = look();
        let at = unix_ms();
        if changes.last().is_none_or(|(_, known)| *known != found) {
            changes.push((Seen { at, gap: at - last }, found));
        }
        last = at;
        sleep(POLL);
    }
    changes
}

/// The index page of a door, fetched anew.
pub(crate) fn page(address: IpAddr) -> Option<()> {
    let patience = Duration::from_millis(1000);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, 8080), patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: www.shop.test\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    answer.starts_with(b"HTTP/1.1 200").then_some(())
}

/// The records of a drill in the file of a datacenter's store: witness and number.
pub(crate) fn records(fleet: &Fleet, name: &str, drill: &str) -> BTreeSet<(String, String)> {
    let file = fleet.path(&format!("data-{name}-dns,gateway,sync")).join("store/state.db");
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut query = database.prepare("SELECT key FROM cells WHERE key > ?1 AND key < ?2").unwrap();
    let from = [b".records\0".as_slice(), drill.as_bytes(), b"/"].concat();
    let to = [b".records\0".as_slice(), drill.as_bytes(), b"0"].concat();
    let keys = query.query_map([&from, &to], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let name_of = |key: Vec<u8>| {
        let key = String::from_utf8(key[from.len()..].to_vec()).unwrap();
        let mut parts = key.split('/').map(ToOwned::to_owned);
        (parts.next().unwrap(), parts.next().unwrap())
    };
    keys.map(|key| name_of(key.unwrap())).collect()
}

/// The report's moment of something agrees with what the observer saw.
#[track_caller]
pub(crate) fn agrees(what: &str, reported: Option<(u64, u64)>, seen: Option<Seen>) {
    let (Some((reported, within)), Some(seen)) = (reported, seen) else {
        panic!("{what}: the report says {reported:?}, the observer saw {seen:?}");
    };
    let off = reported as i64 - seen.at as i64;
    println!(
        "  {what}: the report is {off} ms after the observer, who had last looked {} ms before",
        seen.gap
    );
    let most = AGREES_MS + seen.gap + within;
    assert!(off.unsigned_abs() <= most, "{what}: {off} ms apart, at most {most}");
}
