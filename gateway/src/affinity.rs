//! Which server a key has been given, so that no server has more than its share of keys: consistent hashing with bounded loads
//! (Mirrokni, Thorup and Zadimoghaddam 2018) over the order that rendezvous hashing gives.
//!
//! Each door counts what it has given itself. The order is the same on all of them; only where a server is full do they differ,
//! and then by which keys came where first.

use std::collections::HashMap;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// Times its fair share of keys that a server may have.
const BOUND: f64 = 1.25;
/// Keys remembered: this many at least, twice as many at most (1.5 MiB).
const KEYS: usize = 32_768;

/// What was given lately.
#[derive(Debug, Default)]
pub struct Assignments {
    /// By hash of the key, the server's.
    now: HashMap<u64, u64>,
    before: HashMap<u64, u64>,
    /// Keys by server.
    counts: HashMap<u64, u32>,
}

impl Assignments {
    /// Which of the servers (name and weight, best first, at least one) a key is to have: the one that it had, if it is among
    /// them, else the first that is not full.
    pub fn choose(&mut self, key: &str, servers: &[(&str, u32)]) -> usize {
        let key = hash(key);
        let hashes: Vec<u64> = servers.iter().map(|(name, _)| hash(name)).collect();
        let had = self.now.get(&key).or_else(|| self.before.get(&key)).copied();
        if let Some(at) = had.and_then(|had| hashes.iter().position(|hash| *hash == had)) {
            self.give(key, hashes[at]);
            return at;
        }
        let count = |server: &u64| f64::from(self.counts.get(server).copied().unwrap_or_default());
        let keys: f64 = hashes.iter().map(count).sum::<f64>() + 1.0;
        let weights: f64 = servers.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let is_full = |at: usize| {
            let share = if weights > 0.0 { f64::from(servers[at].1) / weights } else { 1.0 };
            count(&hashes[at]) >= (BOUND * keys * share).ceil()
        };
        let at = (0..servers.len()).find(|&at| !is_full(at)).unwrap_or_default();
        if let Some(&server) = hashes.get(at) {
            self.give(key, server);
        }
        at
    }

    fn give(&mut self, key: u64, server: u64) {
        let old = self.now.insert(key, server).or_else(|| self.before.remove(&key));
        if let Some(old) = old {
            self.uncount(old);
        }
        *self.counts.entry(server).or_default() += 1;
        if self.now.len() >= KEYS {
            for server in std::mem::take(&mut self.before).into_values() {
                self.uncount(server);
            }
            self.before = std::mem::take(&mut self.now);
        }
    }

    fn uncount(&mut self, server: u64) {
        if let Some(count) = self.counts.get_mut(&server) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&server);
            }
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use daemun_fleet::affinity;

    use super::*;

    /// As the list orders them.
    fn ordered<'a>(key: &str, servers: &[(&'a str, u32)]) -> Vec<(&'a str, u32)> {
        let mut servers = servers.to_vec();
        servers.sort_by(|a, b| affinity(key, b.0, b.1).total_cmp(&affinity(key, a.0, a.1)));
        servers
    }

    fn give<'a>(given: &mut Assignments, key: &str, servers: &[(&'a str, u32)]) -> &'a str {
        let servers = ordered(key, servers);
        servers[given.choose(key, &servers)].0
    }

    #[test]
    fn none_has_more_than_its_share_and_a_key_keeps_its_server() {
        let servers = [("a", 100), ("b", 100), ("c", 200)];
        let mut given = Assignments::default();
        let mut counts: HashMap<&str, u32> = HashMap::new();
        let mut first = HashMap::new();
        for number in 0..4_000 {
            let key = format!("user-{number}");
            let server = give(&mut given, &key, &servers);
            *counts.entry(server).or_default() += 1;
            first.insert(key, server);
        }
        assert!(counts["a"] <= 1_251 && counts["b"] <= 1_251 && counts["c"] <= 2_501, "{counts:?}");
        assert!(counts["c"] > 1_900, "by weight: {counts:?}");
        assert!(first.iter().all(|(key, server)| give(&mut given, key, &servers) == *server));
        // One goes: only its keys move; it comes back, and whoever moved has settled elsewhere.
        let two = [("a", 100), ("c", 200)];
        for (key, server) in &first {
            let now = give(&mut given, key, &two);
            assert!(*server == "b" || now == *server);
        }
        assert!(given.counts.values().sum::<u32>() == 4_000 && !given.counts.contains_key(&hash("b")));
    }

    #[test]
    fn a_run_on_one_server_is_spread() {
        // Keys that all have the same favourite.
        let servers = [("a", 1), ("b", 1), ("c", 1), ("d", 1)];
        let mut given = Assignments::default();
        let favourites = (0..).map(|number| format!("k{number}"));
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for key in favourites.filter(|key| ordered(key, &servers)[0].0 == "a").take(1_000) {
            *counts.entry(give(&mut given, &key, &servers)).or_default() += 1;
        }
        assert!(counts["a"] <= 314, "{counts:?}");
    }

    #[test]
    fn memory_is_bounded_and_what_is_asked_again_is_remembered() {
        let servers = [("a", 1), ("b", 1)];
        let mut given = Assignments::default();
        let known = give(&mut given, "known", &servers);
        for number in 0..5 * KEYS {
            let _ = give(&mut given, &number.to_string(), &servers);
            if number % 10_000 == 0 {
                assert_eq!(give(&mut given, "known", &servers), known);
            }
        }
        let keys = given.now.len() + given.before.len();
        assert!(keys <= 2 * KEYS);
        assert_eq!(given.counts.values().sum::<u32>() as usize, keys);
    }
}
