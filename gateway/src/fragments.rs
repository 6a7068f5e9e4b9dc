//! When fragments are fetched, and what there is of each.
//!
//! Pages are assembled from the last good body of each fragment, and fetching goes on beside that: a fragment is fetched again
//! when its time is up, whether anyone asks for the page or not, and a fetch that fails changes nothing that is shown. An origin
//! that fails is left alone for a while ([`breaker`]).
//!
//! Pure: it owns no sockets, and time comes in as an argument. Whoever does the fetching takes what is [`FragmentCache::due`],
//! says how each went ([`FragmentCache::done`]), and looks again at [`FragmentCache::next_due`].
//!
//! Origins come from the config alone. A path under none of them is not fetched, whatever a page says.

pub mod breaker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use breaker::{Breaker, Outcome, Phase, mix};
use bytes::Bytes;

use crate::ssi::Include;

const TTL: Duration = Duration::from_secs(10);
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// After a failure; doubles with each one after it.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A fetch of which nothing was heard for so long after its timeout was lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// What no page wants any more is kept for so long: pages come back.
const KEPT_UNWANTED: Duration = Duration::from_secs(60);
/// Of one fragment: it is a part of a page.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Of all fragments.
const BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Fragments: a page with variables in its paths could want any number.
const FRAGMENTS_MAX: usize = 1024;
/// Fetches under way from one origin.
const IN_FLIGHT_MAX: usize = 32;

/// A fetch to be made now. Each is answered once, by [`FragmentCache::done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Path and query.
    pub path: String,
    /// The number that the origin was given.
    pub origin: usize,
    /// From connecting to the last byte.
    pub timeout: Duration,
    /// Tells it from other fetches of the same path.
    number: u64,
}

/// Why there is no new body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nobody answered.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The connection or the answer broke off.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// Another status than 200.
    #[error("status {0}")]
    Status(u16),
    /// The body is larger than is taken.
    #[error("the body is too large")]
    TooLarge,
}

impl FetchError {
    /// What it says about the origin: one that refuses a single fragment is well.
    fn outcome(&self) -> Outcome {
        match self {
            Self::Connect(_) | Self::Timeout | Self::Broken(_) => Outcome::Failure,
            Self::Status(status) if *status >= 500 => Outcome::Failure,
            Self::Status(_) | Self::TooLarge => Outcome::Success,
        }
    }
}

/// Whether pages have to be assembled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Changed {
    /// Another body is shown now.
    Yes,
    /// All is as it was.
    No,
}

/// For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Fetches that brought a body, since the start.
    pub fetched: u64,
    /// Fetches that did not.
    pub failed: u64,
    /// Fragments that were wanted and not taken in: there are too many already.
    pub refused: u64,
    /// Fragments wanted now.
    pub wanted: usize,
    /// Of these, those shown for longer than they are fresh.
    pub stale: usize,
    /// Of these, those of which there is nothing.
    pub missing: usize,
}

#[derive(Clone, Debug)]
struct Good {
    body: Bytes,
    fetched_at: Duration,
}

/// A fetch under way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    /// When it is given up, if nothing is heard of it.
    until: Duration,
}

#[derive(Clone, Debug)]
struct Entry {
    origin: usize,
    ttl: Duration,
    timeout: Duration,
    /// The last good body, however old.
    good: Option<Good>,
    due: Duration,
    /// In a row.
    failures: u32,
    /// The newest answer was empty, and what is shown is not.
    is_emptied: bool,
    flight: Option<Flight>,
    unwanted_at: Option<Duration>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.good.as_ref().map_or(0, |good| good.body.len())
    }
}

/// The last good body of every fragment that pages want, and when each is fetched next.
#[derive(Debug)]
pub struct FragmentCache {
    /// Longest prefix first.
    origins: Vec<(String, usize)>,
    breakers: BTreeMap<usize, Breaker>,
    entries: BTreeMap<String, Entry>,
    fetches: u64,
    fetched: u64,
    failed: u64,
    refused: u64,
}

impl FragmentCache {
    /// For these origins: what begins with the prefix is fetched from the origin of that number; the longest prefix wins, and
    /// ends where a part of the path does. The seed keeps machines that see the same failure from asking again together.
    pub fn new(mut origins: Vec<(String, usize)>, seed: u64) -> Self {
        origins.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        let breaker = |number: usize| Breaker::new(mix(seed ^ mix(number as u64)));
        let breakers = origins.iter().map(|(_, number)| (*number, breaker(*number))).collect();
        Self { origins, breakers, entries: BTreeMap::new(), fetches: 0, fetched: 0, failed: 0, refused: 0 }
    }

    /// Goes on with what another had, where the origin (its number, then ours) is the same for both.
    pub fn adopt(&mut self, old: Self, is_same: impl Fn(usize, usize) -> bool) {
        for (path, mut entry) in old.entries {
            let Some(origin) = self.origin(&path).filter(|origin| is_same(entry.origin, *origin)) else {
                continue;
            };
            // What is under way was asked of another.
            (entry.origin, entry.flight) = (origin, None);
            self.entries.insert(path, entry);
        }
        (self.fetches, self.fetched) = (old.fetches, old.fetched);
        (self.failed, self.refused) = (old.failed, old.refused);
    }

    /// From here on these are the fragments that pages want; of those with the same path the first counts. What is new is due
    /// at once, and what is no longer wanted is forgotten after a minute.
    pub fn want(&mut self, now: Duration, includes: &[Include]) {
        self.forget(now);
        for entry in self.entries.values_mut() {
            entry.unwanted_at = entry.unwanted_at.or(Some(now));
        }
        let wanted = includes.iter().map(|include| include.path.as_str()).collect();
        let mut seen = BTreeSet::new();
        for include in includes.iter().filter(|include| seen.insert(include.path.as_str())) {
            let Some(origin) = self.origin(&include.path) else { continue };
            let ttl = include.ttl.unwrap_or(TTL).clamp(TTL_MIN, TTL_MAX);
            let timeout = include.timeout.unwrap_or(TIMEOUT).clamp(TIMEOUT_MIN, TIMEOUT_MAX);
            if let Some(entry) = self.entries.get_mut(&include.path) {
                entry.unwanted_at = None;
                if entry.ttl != ttl
                    && entry.failures == 0
                    && let Some(good) = &entry.good
                {
                    entry.due = good.fetched_at + ttl;
                }
                (entry.ttl, entry.timeout) = (ttl, timeout);
                continue;
            }
            if self.entries.len() >= FRAGMENTS_MAX && !self.make_room(&wanted) {
                self.refused += 1;
                continue;
            }
            let entry = Entry {
                origin,
                ttl,
                timeout,
                good: None,
                due: now,
                failures: 0,
                is_emptied: false,
                flight: None,
                unwanted_at: None,
            };
            self.entries.insert(include.path.clone(), entry);
        }
    }

    /// What is to be fetched now; each is under way from here on. A fragment is never under way twice, and an origin is asked
    /// only when its breaker lets it be.
    pub fn due(&mut self, now: Duration) -> Vec<Fetch> {
        self.give_up_lost(now);
        self.forget(now);
        let mut in_flight = self.in_flight();
        let is_due =
            |entry: &Entry| entry.flight.is_none() && entry.unwanted_at.is_none() && entry.due <= now;
        let mut due: Vec<_> = self.entries.iter_mut().filter(|(_, entry)| is_due(entry)).collect();
        // Who waits longest is first: no fragment is the only one that an origin is tried with.
        due.sort_by(|(one, first), (other, second)| (first.due, one).cmp(&(second.due, other)));
        let mut fetches = Vec::new();
        for (path, entry) in due {
            let Some(breaker) = self.breakers.get_mut(&entry.origin) else { continue };
            let busy = in_flight.entry(entry.origin).or_default();
            if *busy >= IN_FLIGHT_MAX || !breaker.may_ask(now) {
                continue;
            }
            *busy += 1;
            self.fetches += 1;
            let number = self.fetches;
            entry.flight = Some(Flight { number, until: now + entry.timeout + LOST_AFTER });
            let (path, origin, timeout) = (path.clone(), entry.origin, entry.timeout);
            fetches.push(Fetch { path, origin, timeout, number });
        }
        fetches
    }

    /// How a fetch went; `Ok`: the body of a 200. An answer for a fetch that was given up is passed over.
    ///
    /// An empty body is a good one: a banner that is off today. But where something is shown it has to come twice in a row, for
    /// a server in trouble may say "200" to nothing too.
    pub fn done(&mut self, now: Duration, fetch: &Fetch, result: Result<Bytes, FetchError>) -> Changed {
        let total: usize = self.entries.values().map(Entry::bytes).sum();
        let Some(entry) = self.entries.get_mut(&fetch.path) else { return Changed::No };
        if entry.flight.is_none_or(|flight| flight.number != fetch.number) {
            return Changed::No;
        }
        entry.flight = None;
        let result = result.and_then(|body| {
            let fits = total - entry.bytes() + body.len() <= BODIES_BYTES_MAX;
            if body.len() <= BODY_BYTES_MAX && fits { Ok(body) } else { Err(FetchError::TooLarge) }
        });
        let outcome = result.as_ref().map_or_else(FetchError::outcome, |_| Outcome::Success);
        if let Some(breaker) = self.breakers.get_mut(&entry.origin) {
            breaker.observe(now, outcome);
        }
        let Ok(body) = result else {
            self.failed += 1;
            let pause = RETRY.saturating_mul(1 << entry.failures.min(16)).min(RETRY_MAX).min(entry.ttl);
            entry.failures = entry.failures.saturating_add(1);
            entry.due = now + pause;
            return Changed::No;
        };
        self.fetched += 1;
        entry.failures = 0;
        let is_blank = |body: &Bytes| body.trim_ascii().is_empty();
        let shown = entry.good.as_ref().map(|good| &good.body);
        if is_blank(&body) && !entry.is_emptied && shown.is_some_and(|shown| !is_blank(shown)) {
            entry.is_emptied = true;
            entry.due = now + RETRY.min(entry.ttl);
            return Changed::No;
        }
        entry.is_emptied = false;
        entry.due = now + entry.ttl;
        let changed = if shown == Some(&body) { Changed::No } else { Changed::Yes };
        entry.good = Some(Good { body, fetched_at: now });
        changed
    }

    /// When to look again at what is due, on the clock of `now`. After [`Self::due`] this is later than `now`. `None`: not
    /// before something else happens.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let in_flight = self.in_flight();
        let next = |entry: &Entry| match (entry.flight, entry.unwanted_at) {
            (Some(flight), _) => Some(flight.until),
            (None, Some(at)) => Some(at + KEPT_UNWANTED),
            // The next answer makes room.
            (None, None) if in_flight.get(&entry.origin).is_some_and(|busy| *busy >= IN_FLIGHT_MAX) => None,
            (None, None) => Some(self.breakers.get(&entry.origin)?.opens_at(now).max(entry.due)),
        };
        self.entries.values().filter_map(next).min()
    }

    /// The last good body of a fragment, however old.
    pub fn fragment(&self, path: &str) -> Option<Bytes> {
        self.entries.get(path)?.good.as_ref().map(|good| good.body.clone())
    }

    /// How long ago it was fetched.
    pub fn age(&self, now: Duration, path: &str) -> Option<Duration> {
        self.entries.get(path)?.good.as_ref().map(|good| now.saturating_sub(good.fetched_at))
    }

    /// How the origin of this number is seen.
    pub fn phase(&self, origin: usize) -> Option<Phase> {
        self.breakers.get(&origin).map(Breaker::phase)
    }

    /// For metrics.
    pub fn counts(&self, now: Duration) -> Counts {
        let wanted = || self.entries.values().filter(|entry| entry.unwanted_at.is_none());
        let is_stale = |entry: &&Entry| {
            let good = entry.good.as_ref();
            good.is_some_and(|good| now > good.fetched_at + entry.ttl + entry.timeout)
        };
        Counts {
            fetched: self.fetched,
            failed: self.failed,
            refused: self.refused,
            wanted: wanted().count(),
            stale: wanted().filter(is_stale).count(),
            missing: wanted().filter(|entry| entry.good.is_none()).count(),
        }
    }

    fn origin(&self, path: &str) -> Option<usize> {
        let is_under = |prefix: &str| match path.strip_prefix(prefix) {
            Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?']),
            None => false,
        };
        self.origins.iter().find(|(prefix, _)| is_under(prefix)).map(|(_, origin)| *origin)
    }

    fn in_flight(&self) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.entries.values().filter(|entry| entry.flight.is_some()) {
            *counts.entry(entry.origin).or_default() += 1;
        }
        counts
    }

    fn forget(&mut self, now: Duration) {
        let is_over = |at: Duration| now >= at + KEPT_UNWANTED;
        self.entries.retain(|_, entry| entry.flight.is_some() || !entry.unwanted_at.is_some_and(is_over));
    }

    /// Forgets one that is not wanted, before its time. Whether there was one.
    fn make_room(&mut self, wanted: &BTreeSet<&str>) -> bool {
        let is_free = |(path, entry): &(&String, &Entry)| {
            entry.unwanted_at.is_some() && entry.flight.is_none() && !wanted.contains(path.as_str())
        };
        let oldest = self.entries.iter().filter(is_free).min_by_key(|(_, entry)| entry.unwanted_at);
        let Some(path) = oldest.map(|(path, _)| path.clone()) else { return false };
        self.entries.remove(&path).is_some()
    }

    fn give_up_lost(&mut self, now: Duration) {
        let lost = self.entries.iter().filter_map(|(path, entry)| {
            let flight = entry.flight.filter(|flight| flight.until <= now)?;
            let (path, origin, timeout) = (path.clone(), entry.origin, entry.timeout);
            Some(Fetch { path, origin, timeout, number: flight.number })
        });
        for fetch in lost.collect::<Vec<_>>() {
            let _ = self.done(now, &fetch, Err(FetchError::Timeout));
        }
    }
}

#[cfg(test)]
mod tests;
