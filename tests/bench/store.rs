//! The store by itself, without HTTP: `cargo bench --bench store`. `DAEMUN_KEYS=10000000` for a large one.
//!
//! Printed: acknowledged writes a second of 16 writers of 256 bytes, each flushed to the disk before, beside a plain file that
//! is appended to and flushed in the same way; what an operation takes on the disk; and for many keys how long filling,
//! opening and reading all of them take, and the memory that is then resident.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop where it is")]
#![expect(clippy::disallowed_methods, reason = "a benchmark has its own clock")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daemun_fleet::Clock;
use daemun_sync::store::engine::{Store, StoreSettings};
use daemun_sync::store::op::{Key, Value};
use daemun_sync::store::replica::Retention;
use daemun_sync::store::request::{
    Change, ChangeKind, Changes, Condition, Durability, Refusal, Reply, Write,
};

const WRITERS: usize = 16;
const VALUE_BYTES: usize = 256;
const SECONDS: u64 = 5;
const KEYS: u64 = 1_000_000;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn settings(directory: &Path) -> StoreSettings {
    let clock = Clock {
        monotonic: || START.elapsed(),
        unix_ms: || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap(),
    };
    StoreSettings {
        directory: directory.to_owned(),
        datacenter: "seoul".to_owned(),
        peers: Vec::new(),
        clock,
        retention: Retention { entries_min: 100_000, entries_max: 10_000_000 },
    }
}

fn put(name: &str) -> Change {
    let value = Value { is_json: false, bytes: vec![b'v'; VALUE_BYTES].into() };
    let key = Key::new("bench", name).unwrap();
    Change { key, condition: Condition::None, kind: ChangeKind::Put { value, ttl: None } }
}

async fn write(store: &Store, changes: Vec<Change>) {
    let write = Write {
        what: Changes::Keys(changes),
        durability: Durability::Local,
        patience: Duration::from_secs(5),
    };
    loop {
        match store.write(write.clone()).await {
            Reply::Written { .. } => return,
            Reply::Refused(Refusal::NotOpen(_) | Refusal::Busy) => {
                tokio::time::sleep(Duration::from_millis(1)).await
            }
            other => panic!("{other:?}"),
        }
    }
}

fn bytes_in(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Batches of as many values as there are writers, appended to a file and flushed.
fn plain_file(directory: &Path) -> f64 {
    let mut file = File::create(directory.join("plain")).unwrap();
    let batch = vec![b'v'; WRITERS * (VALUE_BYTES + 40)];
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        file.write_all(&batch).unwrap();
        file.sync_data().unwrap();
        count += WRITERS;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

async fn writers(directory: &Path) {
    let plain = plain_file(directory);
    let at = directory.join("writers");
    let (store, threads) = Store::open(&settings(&at)).unwrap();
    write(&store, vec![put("first")]).await;
    let before = store.status().commits;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut count = 0;
            while begun.elapsed() < Duration::from_secs(SECONDS) {
                write(&store, vec![put(&format!("w{writer}k{}", count % 1000))]).await;
                count += 1;
            }
            count
        });
    }
    let count: u64 = tasks.join_all().await.into_iter().sum();
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let flushes = store.status().commits - before;
    println!(
        "{WRITERS} writers of {VALUE_BYTES} bytes: {rate:.0} acknowledged writes/s, {:.1} to a flush; a plain file {plain:.0}/s: ratio {:.2}",
        count as f64 / flushes as f64,
        rate / plain
    );
    drop((store, threads));
}

async fn many_keys(directory: &Path, keys: u64) {
    let at = directory.join("keys");
    let begun = Instant::now();
    {
        let (store, threads) = Store::open(&settings(&at)).unwrap();
        for first in (0..keys).step_by(1000) {
            // In no order, as keys come.
            let name = |number: u64| format!("{:016x}", (first + number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            write(&store, (0..1000).map(|number| put(&name(number))).collect()).await;
        }
        println!(
            "{keys} keys written in {:.1} s, {} MiB resident",
            begun.elapsed().as_secs_f64(),
            resident_mib()
        );
        drop((store, threads));
    }
    let size = |file: &str| std::fs::metadata(at.join(file)).unwrap().len();
    println!(
        "on the disk: {} bytes a key ({} MiB), the log {} MiB",
        size("state.db") / keys,
        size("state.db") >> 20,
        size("log.db") >> 20
    );
    let begun = Instant::now();
    let (store, threads) = Store::open(&settings(&at)).unwrap();
    write(&store, vec![put("again")]).await;
    println!(
        "opened, and the first write acknowledged, after {:.0} ms",
        begun.elapsed().as_secs_f64() * 1000.0
    );
    let begun = Instant::now();
    let (mut after, mut seen) = (None::<String>, 0);
    loop {
        let page = store.page("bench", "", after.as_deref(), 1000, 1 << 20).unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.name().to_owned());
        seen += page.len();
    }
    println!(
        "{seen} keys read in pages in {:.1} s, {} MiB resident",
        begun.elapsed().as_secs_f64(),
        resident_mib()
    );
    drop((store, threads));
    println!("{} MiB in all files", bytes_in(&at) >> 20);
}

fn main() {
    let keys = std::env::var("DAEMUN_KEYS").ok().map_or(KEYS, |keys| keys.parse().unwrap());
    // Not in memory: a flush must be one.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        writers(directory.path()).await;
        many_keys(directory.path(), keys).await;
    });
}
