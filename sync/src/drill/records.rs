//! What drills keep in the store: the records that witnesses write, and the reports. Both in buckets that begin with a dot, which
//! applications cannot write.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::report::Report;
use super::samples::Found;
use crate::store::engine::Store;
use crate::store::op::{Key, Value};
use crate::store::request::{Change, ChangeKind, Changes, Condition, Durability, Reply, Write};
use crate::store::verify;

/// Bucket of the records.
pub const RECORDS: &str = ".records";
/// Bucket of the reports.
pub const REPORTS: &str = ".drills";
/// Records end by themselves, long after they were counted.
const RECORD_LASTS: Duration = Duration::from_secs(6 * 3600);
/// Bytes of a record: a small write of an application.
const RECORD_BYTES: usize = 128;
/// Keys read at once.
const PAGE: usize = 5_000;
/// Bytes read at once.
const PAGE_BYTES: usize = 8 << 20;
/// Stores are compared up to so many keys: reading more takes longer than a person waits for a plan.
const COMPARED_MAX: usize = 1_000_000;
/// So many of them are compared, chosen alike in all stores.
const SAMPLE_MAX: usize = 20_000;
/// A report that does not fit is halved so often: what is left then is not its series.
const COARSER_MAX: usize = 10;
/// The newest reports that are read for a list.
const LISTED_MAX: usize = 200;

/// Writes a record.
///
/// # Errors
/// Why nobody may count on it: refused, or not as durable as asked in time.
pub async fn write(
    store: &Store,
    drill: &str,
    found: &Found,
    durability: &str,
    patience: Duration,
) -> Result<(), String> {
    let durability = durability.parse::<Durability>().map_err(|error| error.to_string())?;
    let mut bytes = found.key(drill).into_bytes();
    bytes.resize(RECORD_BYTES.max(bytes.len()), b'.');
    let ttl = Some(RECORD_LASTS);
    put(
        store,
        RECORDS,
        &found.key(drill),
        Value { is_json: false, bytes: bytes.into() },
        ttl,
        durability,
        patience,
    )
    .await
}

async fn put(
    store: &Store,
    bucket: &str,
    name: &str,
    value: Value,
    ttl: Option<Duration>,
    durability: Durability,
    patience: Duration,
) -> Result<(), String> {
    let key = Key::new(bucket, name).map_err(|error| error.to_string())?;
    let change = Change { key, condition: Condition::None, kind: ChangeKind::Put { value, ttl } };
    match store.write(Write { what: Changes::Keys(vec![change]), durability, patience }).await {
        Reply::Written { is_done: true, .. } => Ok(()),
        Reply::Written { whereabouts, .. } => {
            Err(format!("not {durability} in time: not known to be in {}", whereabouts.missing.join(", ")))
        }
        Reply::Refused(refusal) => Err(refusal.to_string()),
        Reply::Unknown(why) => Err(why),
    }
}

/// The records of a drill that are here. It reads from the disk.
///
/// # Errors
/// When they cannot be read.
pub fn found(store: &Store, drill: &str) -> Result<Vec<Found>, String> {
    let prefix = format!("{drill}/");
    let (mut found, mut after): (Vec<Found>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.page(RECORDS, &prefix, after.as_deref(), PAGE, PAGE_BYTES);
        let page = page.map_err(|error| error.to_string())?;
        let now = store.unix_ms();
        let seen = page.iter().filter(|(_, cell)| cell.seen(now).is_some());
        found.extend(seen.filter_map(|(key, _)| Found::parse(drill, key.name())));
        match page.last() {
            Some((key, _)) => after = Some(key.name().to_owned()),
            None => return Ok(found),
        }
    }
}

/// Keeps a report in the store; it is cut down if it does not fit.
///
/// # Errors
/// Why it is not kept.
pub async fn keep(store: &Store, report: &Report, durability: Durability) -> Result<(), String> {
    let mut report = report.clone();
    let mut bytes = serde_json::to_vec(&report).map_err(|error| error.to_string())?;
    for _ in 0..COARSER_MAX {
        if bytes.len() <= crate::store::op::VALUE_BYTES_MAX {
            break;
        }
        super::observed::coarser(&mut report);
        bytes = serde_json::to_vec(&report).map_err(|error| error.to_string())?;
    }
    let value = Value { is_json: true, bytes: bytes.into() };
    put(store, REPORTS, &report.id, value, None, durability, Duration::from_secs(5)).await
}

/// Names of all reports, oldest first.
///
/// # Errors
/// When they cannot be read.
pub fn report_names(store: &Store) -> Result<Vec<String>, String> {
    let (mut names, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.page(REPORTS, "", after.as_deref(), 64, PAGE_BYTES);
        let page = page.map_err(|error| error.to_string())?;
        let Some((last, _)) = page.last() else { return Ok(names) };
        after = Some(last.name().to_owned());
        let now = store.unix_ms();
        let seen = page.iter().filter(|(_, cell)| cell.seen(now).is_some());
        names.extend(seen.map(|(key, _)| key.name().to_owned()));
    }
}

/// The newest reports, oldest first.
///
/// # Errors
/// When they cannot be read.
pub fn reports(store: &Store) -> Result<Vec<Report>, String> {
    let mut names = report_names(store)?;
    let first = names.len().saturating_sub(LISTED_MAX);
    Ok(names.split_off(first).iter().filter_map(|name| report(store, name).ok().flatten()).collect())
}

/// One report.
///
/// # Errors
/// When it cannot be read.
pub fn report(store: &Store, id: &str) -> Result<Option<Report>, String> {
    let key = Key::new(REPORTS, id).map_err(|error| error.to_string())?;
    let cell = store.get(&key).map_err(|error| error.to_string())?;
    let now = store.unix_ms();
    let Some(crate::store::cell::Seen::Value(value)) = cell.as_ref().and_then(|cell| cell.seen(now)) else {
        return Ok(None);
    };
    serde_json::from_slice(&value.bytes)
        .map(Some)
        .map_err(|error| format!("the report {id} does not parse: {error}"))
}

/// What a store holds, to compare with others: of a sample of its keys what users see, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// Keys that were read.
    pub keys: u64,
    /// The last of them, where there are more.
    pub upto: Option<Key>,
    /// Keys are in the sample whose hash is divisible by this.
    pub every: u64,
    /// By key: hash of what is seen, time of the newest operation, milliseconds of Unix time.
    pub sample: Vec<(Key, u64, u64)>,
}

fn hash(key: &Key) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(key.bytes());
    hasher.finish()
}

/// Reads what a store holds as seen at a moment, for comparing.
///
/// # Errors
/// When it cannot be read.
pub fn holds(store: &Store, as_of_unix_ms: u64) -> Result<Holds, String> {
    let mut holds = Holds { every: 1, ..Holds::default() };
    let mut after: Option<Key> = None;
    loop {
        let page = store.scan_all(after.as_ref(), PAGE, PAGE_BYTES).map_err(|error| error.to_string())?;
        let Some((last, _)) = page.last() else { return Ok(holds) };
        after = Some(last.clone());
        for pair in &page {
            holds.keys += 1;
            let (key, cell) = pair;
            if hash(key).is_multiple_of(holds.every) {
                let digest = verify::digest(std::slice::from_ref(pair), as_of_unix_ms);
                holds.sample.push((key.clone(), digest as u64, cell.newest.unix_ms()));
            }
        }
        while holds.sample.len() > SAMPLE_MAX {
            holds.every *= 2;
            let every = holds.every;
            holds.sample.retain(|(key, ..)| hash(key).is_multiple_of(every));
        }
        if holds.keys >= COMPARED_MAX as u64 {
            holds.upto = after;
            return Ok(holds);
        }
    }
}

/// Whether stores hold the same, but for what is younger than `quiet_unix_ms`, which may be on its way.
///
/// # Errors
/// Which two differ, and by how many keys.
pub fn same(holds: &BTreeMap<String, Holds>, quiet_unix_ms: u64) -> Result<String, Vec<String>> {
    let every = holds.values().map(|holds| holds.every).max().unwrap_or(1);
    // Where one was not read to its end, the others are compared up to there.
    let upto = holds.values().filter_map(|holds| holds.upto.as_ref()).min();
    let of = |holds: &Holds| -> BTreeMap<Key, (u64, u64)> {
        let all = holds.sample.iter().filter(|(key, ..)| upto.is_none_or(|upto| key <= upto));
        let sampled = all.filter(|(key, ..)| hash(key).is_multiple_of(every));
        sampled.map(|(key, digest, newest)| (key.clone(), (*digest, *newest))).collect()
    };
    let mut differ = Vec::new();
    let mut all = holds.iter().map(|(name, holds)| (name, of(holds)));
    let Some((first, one)) = all.next() else { return Ok("there is none".to_owned()) };
    let mut compared = one.len();
    for (name, other) in all {
        let keys: BTreeSet<&Key> = one.keys().chain(other.keys()).collect();
        compared = compared.max(keys.len());
        let is_off = |key: &&&Key| {
            let (here, there) = (one.get(**key), other.get(**key));
            let newest = here.map_or(0, |held| held.1).max(there.map_or(0, |held| held.1));
            let seen = |held: Option<&(u64, u64)>| held.map_or(*NOTHING, |held| held.0);
            newest < quiet_unix_ms && seen(here) != seen(there)
        };
        let off = keys.iter().filter(is_off).count();
        if off > 0 {
            differ.push(format!("{off} of {} keys differ between {first} and {name}", keys.len()));
        }
    }
    let keys = holds.values().map(|holds| holds.keys).max().unwrap_or(0);
    let more = if upto.is_some() { " that were read (there are more)" } else { "" };
    if differ.is_empty() {
        Ok(format!("{compared} of {keys} keys{more} compared, none differs"))
    } else {
        Err(differ)
    }
}

/// The digest of a key under which nothing is seen.
static NOTHING: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| verify::digest(&[], 0) as u64);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("bucket", name).unwrap()
    }

    fn holding(keys: &[(&str, u64, u64)]) -> Holds {
        let sample = keys.iter().map(|(name, digest, newest)| (key(name), *digest, *newest)).collect();
        Holds { keys: keys.len() as u64, upto: None, every: 1, sample }
    }

    fn both(one: Holds, other: Holds) -> Result<String, Vec<String>> {
        same(&[("seoul".to_owned(), one), ("virginia".to_owned(), other)].into(), 1000)
    }

    #[test]
    fn what_differs_is_found_and_what_is_young_is_not_called_so() {
        let some = [("a", 10, 500), ("b", 20, 600)];
        assert!(both(holding(&some), holding(&some)).unwrap().starts_with("2 of 2 keys"));
        let off = both(holding(&some), holding(&[("a", 10, 500), ("b", 21, 600)])).unwrap_err();
        assert!(off[0].starts_with("1 of 2"), "{off:?}");
        assert!(both(holding(&some), holding(&[("a", 10, 500)])).is_err(), "one is missing");
        assert!(both(holding(&some), holding(&[("a", 10, 500), ("b", 21, 1001)])).is_ok(), "it is under way");
        let deleted = [("a", 10, 500), ("b", 20, 600), ("c", *NOTHING, 10)];
        assert!(both(holding(&some), holding(&deleted)).is_ok(), "deleted");
    }

    #[test]
    fn large_stores_are_compared_as_far_as_both_were_read() {
        let all = [("a", 10, 500), ("b", 20, 600), ("c", 30, 700)];
        let cut = |keys: &[(&str, u64, u64)], upto: &str| Holds { upto: Some(key(upto)), ..holding(keys) };
        assert!(both(cut(&all[..2], "b"), holding(&all)).unwrap().contains("there are more"));
        assert!(both(cut(&[("a", 11, 500), ("b", 20, 600)], "b"), holding(&all)).is_err());
        assert!(both(cut(&all, "c"), cut(&[("a", 10, 500)], "a")).is_ok());
    }

    #[test]
    fn samples_of_other_sizes_are_compared_by_what_is_in_both() {
        let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let fine = holding(&names.iter().map(|name| (name.as_str(), 1, 1)).collect::<Vec<_>>());
        let mut coarse = fine.clone();
        coarse.every = 2;
        coarse.sample.retain(|(key, ..)| hash(key).is_multiple_of(2));
        assert!(coarse.sample.len() < 20 && both(coarse, fine).is_ok());
    }
}
