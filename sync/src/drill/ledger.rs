//! The ledger: every write that a witness was promised, counted one by one in each survivor. Proof, not estimate.

use std::collections::{BTreeMap, BTreeSet};

use super::report;
use super::samples::{Found, Recorded};

/// The most lost records that a report names.
const NAMED_MAX: usize = 1000;
/// What was acknowledged less than this before it was counted may have been on its way.
const UNDER_WAY_MS: u64 = 500;

/// What was promised, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Acknowledged records by witness and number: which try was, and when, milliseconds of Unix time.
    promised: BTreeMap<(String, u64), (u32, u64)>,
    failed: u64,
    /// While the faults lasted: when they were last counted, and what all survivors together had.
    meanwhile: Option<(u64, BTreeSet<(String, u64)>)>,
    /// Datacenters that could not be counted in the end.
    pub uncounted: Vec<String>,
    /// In the end: what each had.
    in_the_end: BTreeMap<String, BTreeSet<Found>>,
}

impl Ledger {
    /// Notes what became of a record, and when.
    pub fn note(&mut self, witness: &str, record: &Recorded, at_unix_ms: u64) {
        self.failed += record.failures.len() as u64;
        if record.acknowledged.is_some() {
            self.promised.insert((witness.to_owned(), record.number), (record.tries, at_unix_ms));
        }
    }

    /// Records that somebody was promised.
    pub fn acknowledged(&self) -> u64 {
        self.promised.len() as u64
    }

    /// Notes what all survivors together have while the faults last, counted from this moment on.
    pub fn count_meanwhile(&mut self, at_unix_ms: u64, found: &[Found]) {
        let found = found.iter().map(|found| (found.witness.clone(), found.number));
        self.meanwhile = Some((at_unix_ms, found.collect()));
    }

    /// Notes what a datacenter has in the end.
    pub fn count_in_the_end(&mut self, datacenter: &str, found: Vec<Found>) {
        self.in_the_end.insert(datacenter.to_owned(), found.into_iter().collect());
    }

    /// Forgets what a datacenter had: it could not be counted again.
    pub fn forget(&mut self, datacenter: &str) {
        self.in_the_end.remove(datacenter);
    }

    /// Promised records that a datacenter does not have, of what it was last found to have.
    pub fn lacks(&self, datacenter: &str) -> u64 {
        let Some(found) = self.in_the_end.get(datacenter) else { return self.acknowledged() };
        self.promises().filter(|promise| !found.contains(promise)).count() as u64
    }

    /// The very tries that were acknowledged: another try of the same record is no proof.
    fn promises(&self) -> impl Iterator<Item = Found> + '_ {
        let found = |((witness, number), (attempt, _)): (&(String, u64), &(u32, u64))| Found {
            witness: witness.clone(),
            number: *number,
            attempt: *attempt,
        };
        self.promised.iter().map(found)
    }

    /// The sum of it.
    pub fn sum(&self, durability: &str) -> report::Ledger {
        let is_there = |promise: &Found| {
            !self.in_the_end.is_empty() && self.in_the_end.values().all(|found| found.contains(promise))
        };
        let is_late = |promise: &Found| {
            let key = (promise.witness.clone(), promise.number);
            let at = self.promised.get(&key).map_or(0, |(_, at)| *at);
            self.meanwhile
                .as_ref()
                .is_some_and(|(counted, found)| at + UNDER_WAY_MS < *counted && !found.contains(&key))
        };
        let lost: Vec<Found> = self.promises().filter(|promise| !is_there(promise)).collect();
        let late = self.promises().filter(|promise| is_there(promise) && is_late(promise)).count() as u64;
        let all: BTreeSet<&Found> = self.in_the_end.values().flatten().collect();
        let mut tries: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        for found in &all {
            *tries.entry((found.witness.as_str(), found.number)).or_default() += 1;
        }
        let is_promised = |key: &(&str, u64)| self.promised.contains_key(&(key.0.to_owned(), key.1));
        report::Ledger {
            durability: durability.to_owned(),
            acknowledged: self.acknowledged(),
            present: self.acknowledged() - lost.len() as u64,
            late,
            lost: lost.len() as u64,
            duplicated: tries.values().filter(|tries| **tries > 1).count() as u64,
            unacknowledged: tries.keys().filter(|key| !is_promised(key)).count() as u64,
            failed: self.failed,
            uncounted: self.uncounted.clone(),
            lost_records: lost
                .iter()
                .take(NAMED_MAX)
                .map(|lost| format!("{}/{}", lost.witness, lost.number))
                .collect(),
            counted: self
                .in_the_end
                .iter()
                .map(|(name, found)| {
                    let records: BTreeSet<_> = found.iter().map(|f| (&f.witness, f.number)).collect();
                    (name.clone(), records.len() as u64)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(number: u64, attempt: u32) -> Found {
        Found { witness: "seoul".to_owned(), number, attempt }
    }

    fn acknowledged(number: u64, tries: u32) -> Recorded {
        let failures = (1..tries).map(|_| "no reply".to_owned()).collect();
        Recorded { number, acknowledged: Some("virginia".to_owned()), at_unix_ms: 0, tries, failures }
    }

    #[test]
    fn each_promise_is_looked_for_in_each_survivor() {
        let mut ledger = Ledger::default();
        for number in 1..=4 {
            ledger.note("seoul", &acknowledged(number, 1), 1000 * number);
        }
        ledger.note("seoul", &acknowledged(5, 2), 1000);
        let refused = Recorded {
            number: 6,
            acknowledged: None,
            at_unix_ms: 0,
            tries: 2,
            failures: vec!["no".to_owned(); 2],
        };
        ledger.note("seoul", &refused, 1000);
        assert_eq!((ledger.lacks("virginia"), ledger.acknowledged()), (5, 5));
        ledger.count_meanwhile(3_400, &[found(1, 1)]);
        let virginia = vec![found(1, 1), found(2, 1), found(3, 1), found(5, 1), found(5, 2), found(6, 1)];
        ledger.count_in_the_end("virginia", virginia);
        ledger.count_in_the_end("frankfurt", vec![found(1, 1), found(2, 1), found(5, 2)]);
        let sum = ledger.sum("local");
        assert_eq!((sum.acknowledged, sum.present, sum.lost), (5, 3, 2));
        assert_eq!(sum.lost_records, ["seoul/3", "seoul/4"]);
        // 2 and 5 were not there; 3 was too young to tell, and is lost.
        assert_eq!((sum.late, sum.duplicated, sum.unacknowledged, sum.failed), (2, 1, 1, 3));
        assert_eq!((sum.counted["virginia"], sum.counted["frankfurt"], ledger.lacks("virginia")), (5, 3, 1));
    }

    /// A first try that got no reply may be there, and say nothing of the second, which was promised.
    #[test]
    fn another_try_of_the_same_record_is_no_proof() {
        let mut ledger = Ledger::default();
        ledger.note("seoul", &acknowledged(1, 2), 0);
        ledger.count_in_the_end("virginia", vec![found(1, 1)]);
        assert_eq!((ledger.sum("local").lost, ledger.lacks("virginia")), (1, 1));
        ledger.count_in_the_end("virginia", vec![found(1, 1), found(1, 2)]);
        assert_eq!(ledger.sum("local").lost, 0);
        ledger.forget("virginia");
        assert_eq!(ledger.sum("local").lost, 1, "nobody was counted");
    }

    #[test]
    fn what_nobody_counted_is_not_called_present() {
        let mut ledger = Ledger::default();
        ledger.note("seoul", &acknowledged(1, 1), 0);
        let sum = ledger.sum("local");
        assert_eq!((sum.present, sum.lost), (0, 1));
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let record = found(17, 2);
        assert_eq!(Found::parse("one", &record.key("one")), Some(record.clone()));
        assert_eq!(Found::parse("other", &record.key("one")), None);
        for wrong in ["one", "one/seoul", "one/seoul/x/1", "one/seoul/1", "one/seoul/1/x"] {
            assert_eq!(Found::parse("one", wrong), None, "{wrong}");
        }
    }
}
