//! Response rate limiting: addresses of UDP queries can be forged, and whoever's they are must not be flooded by us.
//!
//! Answers that say the same to the same network (a /24 or /56) fill a bucket, which leaks at the allowed rate and holds
//! one second of it. What does not fit is dropped, except that every so many-th is sent cut, so that a real client who
//! shares the network asks again over TCP. Memory is fixed: a set of four buckets by hash; when a flood of many names or
//! networks needs more, the emptiest bucket is taken over.

use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use daemun_fleet::Client;
use daemun_fleet::config::RateLimit;
use hickory_proto::rr::LowerName;

/// Sets of buckets, each with its lock. With four of 16 bytes each: 1 MiB.
const SETS: usize = 16_384;
const BUCKETS_PER_SET: usize = 4;
/// What one answer adds to a bucket.
const ONE: u64 = 1000;

/// What an answer says, as far as a flood is concerned: a million names that are not there are one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// The data of this name.
    Data(&'a LowerName),
    /// Something that many names below this one get alike: not there, a wildcard, a referral.
    Below(&'a LowerName),
    /// That the query cannot be answered.
    Error,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Send,
    /// Send it cut.
    Slip,
    /// Send nothing.
    Drop,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Which answers to whom; 0: nobody's yet.
    tag: u32,
    /// Fill, thousandths of an answer, at `at_ms`.
    level: u32,
    at_ms: u32,
    /// Answers over the limit.
    over: u32,
}

/// The buckets.
#[derive(Debug)]
pub struct Limiter {
    sets: Vec<Mutex<[Bucket; BUCKETS_PER_SET]>>,
    key: RandomState,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { sets: (0..SETS).map(|_| Mutex::default()).collect(), key: RandomState::new() }
    }
}

impl Limiter {
    /// Counts an answer to `address` at `now_ms`, some monotonic clock's milliseconds.
    pub fn judge(&self, limit: &RateLimit, now_ms: u64, address: IpAddr, kind: Kind<'_>) -> Verdict {
        if limit.answers_per_second == 0 || limit.exempt.iter().any(|net| net.contains(&address)) {
            return Verdict::Send;
        }
        let hash = self.hash(address, kind);
        let (tag, set) = ((hash >> 32) as u32 | 1, hash as usize % SETS);
        // Nothing in here panics; a bucket is a number anyhow.
        let mut set = self.sets[set].lock().unwrap_or_else(PoisonError::into_inner);
        let now = now_ms as u32; // goes round after 49 days
        let rate = u64::from(limit.answers_per_second);
        let level = |bucket: &Bucket| {
            u64::from(bucket.level).saturating_sub(u64::from(elapsed_ms(bucket.at_ms, now)) * rate)
        };
        let found = set.iter().position(|bucket| bucket.tag == tag);
        let at = found.unwrap_or_else(|| {
            (0..BUCKETS_PER_SET).min_by_key(|&at| level(&set[at])).expect("a set has buckets")
        });
        let bucket = &mut set[at];
        if found.is_none() {
            *bucket = Bucket { tag, at_ms: now, ..Bucket::default() };
        }
        let filled = level(bucket) + ONE;
        if filled <= rate * ONE {
            bucket.level = u32::try_from(filled).unwrap_or(u32::MAX);
            bucket.at_ms = bucket.at_ms.wrapping_add(elapsed_ms(bucket.at_ms, now));
            return Verdict::Send;
        }
        bucket.over = bucket.over.wrapping_add(1);
        let is_slip = limit.slip > 0 && bucket.over.is_multiple_of(limit.slip);
        if is_slip { Verdict::Slip } else { Verdict::Drop }
    }

    fn hash(&self, address: IpAddr, kind: Kind<'_>) -> u64 {
        let mut hasher = self.key.build_hasher();
        let client = Client::address(address);
        match client.first_address() {
            IpAddr::V4(v4) => hasher.write(&v4.octets()[..usize::from(client.hash_prefix_len() / 8)]),
            IpAddr::V6(v6) => hasher.write(&v6.octets()[..usize::from(client.hash_prefix_len() / 8)]),
        }
        let (mark, name) = match kind {
            Kind::Data(name) => (1, Some(name)),
            Kind::Below(name) => (2, Some(name)),
            Kind::Error => (3, None),
        };
        hasher.write_u8(mark);
        for label in name.into_iter().flat_map(|name| name.iter()) {
            hasher.write(label);
            hasher.write_u8(0);
        }
        hasher.finish()
    }
}

/// Time from one moment to another on a clock that goes round after 49 days. Two threads may come in another order than
/// they read the clock: what is earlier by a little is now.
fn elapsed_ms(from: u32, to: u32) -> u32 {
    u32::try_from(to.wrapping_sub(from).cast_signed()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;

    use super::*;

    fn limit(rate: u32, slip: u32) -> RateLimit {
        RateLimit { answers_per_second: rate, slip, exempt: vec!["10.0.0.0/8".parse().unwrap()] }
    }

    fn name(text: &str) -> LowerName {
        LowerName::new(&Name::from_ascii(text).unwrap())
    }

    #[test]
    fn so_many_a_second_and_every_second_of_the_rest_cut() {
        let (limiter, limit, www) = (Limiter::default(), limit(10, 2), name("www.test."));
        let ask = |now, address: &str| limiter.judge(&limit, now, address.parse().unwrap(), Kind::Data(&www));
        let first: Vec<Verdict> = (0..14).map(|host| ask(5, &format!("192.0.2.{host}"))).collect();
        assert!(
            first[..10].iter().all(|verdict| *verdict == Verdict::Send),
            "a network's hosts count as one"
        );
        assert_eq!(first[10..], [Verdict::Drop, Verdict::Slip, Verdict::Drop, Verdict::Slip]);
        assert_eq!(ask(5, "192.0.3.1"), Verdict::Send, "another network");
        assert_eq!(ask(105, "192.0.2.1"), Verdict::Send, "a tenth of a second later there is room for one");
        assert_ne!(ask(105, "192.0.2.1"), Verdict::Send);
        assert!((0..100).all(|_| ask(5, "10.1.1.1") == Verdict::Send), "exempt");
    }

    #[test]
    fn a_clock_read_earlier_gives_nothing_back() {
        let (limiter, limit, www) = (Limiter::default(), limit(10, 0), name("www.test."));
        let ask = |now| limiter.judge(&limit, now, "192.0.2.1".parse().unwrap(), Kind::Data(&www));
        assert!((0..10).all(|_| ask(1001) == Verdict::Send));
        assert_eq!((ask(1000), ask(1001), ask(900)), (Verdict::Drop, Verdict::Drop, Verdict::Drop));
        let (limiter, round) = (Limiter::default(), u64::from(u32::MAX));
        let ask = |now| limiter.judge(&limit, now, "192.0.2.1".parse().unwrap(), Kind::Data(&www));
        assert!((0..10).all(|_| ask(round - 5) == Verdict::Send));
        assert_eq!(ask(round + 5), Verdict::Drop, "10 ms later, round the end of the clock");
        assert_eq!(ask(round + 1005), Verdict::Send);
    }

    #[test]
    fn threads_that_come_in_another_order_share_one_limit() {
        let (limiter, limit, www) = (Limiter::default(), limit(100, 0), name("www.test."));
        let sent = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (limiter, limit, www, sent) = (&limiter, &limit, &www, &sent);
                scope.spawn(move || {
                    for round in 0..20_000_u64 {
                        // A tenth of a second in all, each thread a little behind the one before.
                        let now = 1000 + (round / 200).saturating_sub(thread);
                        let to = "192.0.2.1".parse().unwrap();
                        if limiter.judge(limit, now, to, Kind::Data(www)) == Verdict::Send {
                            sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let sent = sent.into_inner();
        assert!((100..=111).contains(&sent), "{sent} of a second's 100 and a tenth's 10");
    }

    #[test]
    fn other_answers_are_counted_apart_and_names_that_are_not_there_together() {
        let (limiter, limit) = (Limiter::default(), limit(1, 0));
        let to = "2001:db8::1".parse().unwrap();
        let (zone, a, b) = (name("test."), name("a.test."), name("b.test."));
        for kind in [Kind::Data(&a), Kind::Data(&b), Kind::Below(&zone), Kind::Error] {
            assert_eq!(limiter.judge(&limit, 0, to, kind), Verdict::Send, "{kind:?}");
            assert_eq!(limiter.judge(&limit, 0, to, kind), Verdict::Drop, "{kind:?}");
        }
    }

    #[test]
    fn a_flood_from_everywhere_does_not_stop_anyone() {
        let (limiter, limit, www) = (Limiter::default(), limit(5, 2), name("www.test."));
        for number in 0..300_000_u32 {
            limiter.judge(&limit, 0, IpAddr::V4((number << 8).into()), Kind::Data(&www));
        }
        let to = "203.0.113.1".parse().unwrap();
        assert_eq!(limiter.judge(&limit, 1, to, Kind::Data(&www)), Verdict::Send);
    }
}
