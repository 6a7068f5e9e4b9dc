use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::breaker::Phase;
use super::{Changed, Counts, Fetch, FetchError, FragmentCache};
use crate::ssi::Include;

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn cache() -> FragmentCache {
    let origins = [("/a", 0), ("/a/b/", 1), ("/c/", 1)];
    FragmentCache::new(origins.map(|(prefix, number)| (prefix.to_owned(), number)).into(), 7)
}

fn include(path: &str) -> Include {
    Include { path: path.to_owned(), timeout: None, ttl: None, stub: None }
}

/// A cache that wants these, and the fetches that are due at once.
fn wanting(includes: &[Include]) -> (FragmentCache, Vec<Fetch>) {
    let mut cache = cache();
    cache.want(at(0), includes);
    let fetches = cache.due(at(0));
    (cache, fetches)
}

fn one(path: &str) -> (FragmentCache, Fetch) {
    let (cache, mut fetches) = wanting(&[include(path)]);
    assert_eq!(fetches.len(), 1);
    (cache, fetches.remove(0))
}

fn body(text: &'static str) -> Result<Bytes, FetchError> {
    Ok(Bytes::from_static(text.as_bytes()))
}

fn paths(fetches: &[Fetch]) -> Vec<&str> {
    fetches.iter().map(|fetch| fetch.path.as_str()).collect()
}

#[test]
fn the_longest_prefix_wins_and_ends_with_a_part() {
    let all = ["/a", "/a/x", "/a?x", "/ab", "/a/b", "/a/b/x", "/c", "/c/", "/c/x", "/d", "/"];
    let (_, fetches) = wanting(&all.map(include));
    let origins: BTreeMap<_, _> = fetches.iter().map(|fetch| (fetch.path.as_str(), fetch.origin)).collect();
    let expected = [("/a", 0), ("/a/x", 0), ("/a?x", 0), ("/a/b", 0), ("/a/b/x", 1), ("/c/", 1), ("/c/x", 1)];
    assert_eq!(origins, BTreeMap::from(expected));
}

#[test]
fn it_is_fetched_when_its_time_is_up() {
    let (mut cache, fetch) = one("/a");
    assert_eq!(fetch.timeout, at(1_000));
    assert_eq!(cache.fragment("/a"), None);
    assert_eq!(cache.due(at(5)), [], "it is under way");
    assert_eq!(cache.done(at(10), &fetch, body("A")), Changed::Yes);
    assert_eq!(cache.fragment("/a"), Some(Bytes::from_static(b"A")));
    assert_eq!(cache.next_due(at(10)), Some(at(10_010)));
    assert_eq!(cache.due(at(10_009)), []);
    let again = cache.due(at(10_010));
    assert_eq!(paths(&again), ["/a"]);
    assert_eq!(cache.done(at(10_020), &again[0], body("A")), Changed::No);
    assert_eq!(cache.age(at(10_050), "/a"), Some(at(30)));
    assert_eq!(cache.age(at(10_050), "/b"), None);
}

#[test]
fn what_pages_say_is_clamped() {
    let of =
        |ttl: u64, timeout: u64| Include { timeout: Some(at(timeout)), ttl: Some(at(ttl)), ..include("/a") };
    for (said, ttl, timeout) in [
        (of(0, 0), 1_000, 10),
        (of(2_500, 300), 2_500, 300),
        (of(u64::MAX, u64::MAX), 24 * 60 * 60 * 1000, 30_000),
    ] {
        let (mut cache, fetches) = wanting(&[said]);
        assert_eq!(fetches[0].timeout, at(timeout));
        let _ = cache.done(at(0), &fetches[0], body("A"));
        assert_eq!(cache.next_due(at(0)), Some(at(ttl)));
    }
}

#[test]
fn another_ttl_counts_from_the_last_fetch() {
    let (mut cache, fetch) = one("/a");
    let _ = cache.done(at(0), &fetch, body("A"));
    cache.want(at(2_000), &[Include { ttl: Some(at(3_000)), ..include("/a") }]);
    assert_eq!(cache.next_due(at(2_000)), Some(at(3_000)));
    cache.want(at(2_000), &[Include { ttl: Some(at(20_000)), ..include("/a") }, include("/a")]);
    assert_eq!(cache.next_due(at(2_000)), Some(at(20_000)), "the first of two");
    let fetches = cache.due(at(20_000));
    let _ = cache.done(at(20_000), &fetches[0], body(""));
    cache.want(at(20_000), &[Include { ttl: Some(at(20_000)), ..include("/a") }]);
    assert_eq!(cache.next_due(at(20_000)), Some(at(21_000)), "it is looked at again soon, whoever wants it");
    let fetches = cache.due(at(21_000));
    let _ = cache.done(at(21_000), &fetches[0], Err(FetchError::Status(404)));
    cache.want(at(21_000), &[Include { ttl: Some(at(5_000)), ..include("/a") }]);
    assert_eq!(cache.next_due(at(21_000)), Some(at(22_000)), "and so is what failed");
}

#[test]
fn a_failure_keeps_what_was_good_and_comes_back_sooner() {
    let (mut cache, fetch) = one("/a");
    let _ = cache.done(at(0), &fetch, body("A"));
    let mut now = at(10_000);
    // 404: the origin is well, only the fragment is not.
    for pause in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
        let fetches = cache.due(now);
        assert_eq!(cache.done(now, &fetches[0], Err(FetchError::Status(404))), Changed::No);
        assert_eq!(cache.fragment("/a"), Some(Bytes::from_static(b"A")));
        assert_eq!(cache.next_due(now), Some(now + at(pause)));
        now += at(pause);
    }
    let fetches = cache.due(now);
    assert_eq!(cache.done(now, &fetches[0], body("B")), Changed::Yes);
    assert_eq!(cache.next_due(now), Some(now + at(10_000)));
    now += at(10_000);
    let fetches = cache.due(now);
    let _ = cache.done(now, &fetches[0], Err(FetchError::Status(404)));
    assert_eq!(cache.next_due(now), Some(now + at(1_000)), "the first failure again");
    assert_eq!(cache.phase(0), Some(Phase::Closed));
}

#[test]
fn a_retry_waits_half_a_minute_at_most() {
    let (mut cache, fetches) = wanting(&[Include { ttl: Some(at(3_600_000)), ..include("/a") }]);
    let (mut now, mut fetch) = (at(0), fetches[0].clone());
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        let _ = cache.done(now, &fetch, Err(FetchError::Status(403)));
        assert_eq!(cache.next_due(now), Some(now + at(pause * 1000)));
        now += at(pause * 1000);
        fetch = cache.due(now).remove(0);
    }
}

#[test]
fn which_failures_are_the_origins() {
    let failures = [
        (FetchError::Connect(String::new()), Phase::Open),
        (FetchError::Timeout, Phase::Open),
        (FetchError::Broken(String::new()), Phase::Open),
        (FetchError::Status(500), Phase::Open),
        (FetchError::Status(599), Phase::Open),
        (FetchError::Status(499), Phase::Closed),
        (FetchError::Status(302), Phase::Closed),
        (FetchError::TooLarge, Phase::Closed),
    ];
    for (failure, phase) in failures {
        let all = ["/a/1", "/a/2", "/a/3", "/a/4", "/a/5", "/c/1"].map(include);
        let (mut cache, fetches) = wanting(&all);
        for fetch in &fetches {
            let _ =
                cache.done(at(0), fetch, if fetch.origin == 0 { Err(failure.clone()) } else { body("C") });
        }
        assert_eq!(cache.phase(0), Some(phase), "{failure:?}");
        assert_eq!(cache.phase(1), Some(Phase::Closed), "the other origin");
    }
}

#[test]
fn a_dead_origin_is_tried_with_each_fragment_in_turn() {
    let all = ["/a/1", "/a/2", "/a/3", "/a/4", "/a/5"].map(include);
    let (mut cache, fetches) = wanting(&all);
    for fetch in &fetches {
        let _ = cache.done(at(0), fetch, Err(FetchError::Timeout));
    }
    let mut tried = BTreeSet::new();
    let mut now = at(0);
    for _ in 0..5 {
        now = cache.next_due(now).expect("a time");
        let fetches = cache.due(now);
        assert_eq!(fetches.len(), 1, "one probe");
        tried.insert(fetches[0].path.clone());
        let _ = cache.done(now, &fetches[0], Err(FetchError::Timeout));
    }
    assert_eq!(tried.len(), 5, "{tried:?}");
    now = cache.next_due(now).expect("a time");
    let fetches = cache.due(now);
    let _ = cache.done(now, &fetches[0], body("A"));
    assert_eq!(cache.due(now).len(), 4, "it is back: the others at once");
}

#[test]
fn what_is_not_wanted_is_not_fetched_and_forgotten_after_a_minute() {
    let (mut cache, fetch) = one("/a");
    let _ = cache.done(at(0), &fetch, body("A"));
    cache.want(at(1_000), &[]);
    assert_eq!(cache.due(at(30_000)), []);
    assert_eq!(cache.next_due(at(30_000)), Some(at(61_000)));
    assert!(cache.fragment("/a").is_some());
    cache.want(at(60_999), &[include("/a")]);
    assert_eq!(paths(&cache.due(at(60_999))), ["/a"], "it came back");
    cache.want(at(61_000), &[]);
    cache.want(at(100_000), &[]);
    assert_eq!(cache.due(at(121_000)), []);
    assert!(cache.fragment("/a").is_none(), "a minute after the first time, and its fetch was lost");
    assert_eq!(cache.next_due(at(121_000)), None);
}

#[test]
fn a_lost_fetch_is_a_timeout() {
    let (mut cache, fetch) = one("/a");
    assert_eq!(cache.next_due(at(0)), Some(at(6_000)));
    assert_eq!(cache.due(at(5_999)), []);
    assert_eq!(cache.due(at(6_000)), []);
    assert_eq!(cache.counts(at(6_000)).failed, 1);
    let again = cache.due(at(7_000));
    assert_eq!(paths(&again), ["/a"]);
    assert_eq!(cache.done(at(7_001), &fetch, body("late")), Changed::No, "it was given up");
    assert_eq!(cache.due(at(60_000)).len(), 0, "the second is lost too, not fetched twice");
    assert_eq!(cache.done(at(60_000), &again[0], body("late")), Changed::No);
}

#[test]
fn an_empty_body_has_to_come_twice() {
    let (mut cache, fetch) = one("/a");
    assert_eq!(cache.done(at(0), &fetch, body("")), Changed::Yes, "nothing was there: it is what there is");
    assert_eq!(cache.fragment("/a"), Some(Bytes::new()));
    let mut now = at(0);
    for (text, changed, shown, pause) in [
        ("A", Changed::Yes, "A", 10_000),
        (" \n", Changed::No, "A", 1_000),
        ("A", Changed::No, "A", 10_000),
        ("", Changed::No, "A", 1_000),
        ("", Changed::Yes, "", 10_000),
        ("", Changed::No, "", 10_000),
    ] {
        now = cache.next_due(now).expect("a time");
        let fetches = cache.due(now);
        assert_eq!(cache.done(now, &fetches[0], body(text)), changed);
        assert_eq!(cache.fragment("/a"), Some(Bytes::from_static(shown.as_bytes())));
        assert_eq!(cache.next_due(now), Some(now + at(pause)));
    }
}

#[test]
fn a_body_that_is_too_large_is_a_failure() {
    let (mut cache, fetch) = one("/a");
    let large = Bytes::from(vec![b'a'; 1024 * 1024 + 1]);
    assert_eq!(cache.done(at(0), &fetch, Ok(large.slice(1..))), Changed::Yes);
    let fetches = cache.due(at(10_000));
    assert_eq!(cache.done(at(10_000), &fetches[0], Ok(large.clone())), Changed::No);
    assert_eq!(cache.fragment("/a"), Some(large.slice(1..)));
    assert_eq!(cache.counts(at(10_000)).failed, 1);

    let all: Vec<_> = (0..70).map(|number| include(&format!("/a/{number}"))).collect();
    let mut cache = self::cache();
    cache.want(at(0), &all);
    let mut held = 0;
    while held < 70 {
        for fetch in cache.due(at(0)) {
            let _ = cache.done(at(0), &fetch, Ok(large.slice(1..)));
            held += 1;
        }
    }
    assert_eq!(cache.counts(at(0)).missing, 6, "64 MiB in all");
}

#[test]
fn an_origin_is_asked_for_a_few_at_a_time() {
    let all: Vec<_> = (0..100).map(|number| include(&format!("/a/{number}"))).collect();
    let (mut cache, fetches) = wanting(&all);
    assert_eq!(fetches.len(), 32);
    assert_eq!(cache.due(at(0)), []);
    assert_eq!(cache.next_due(at(0)), Some(at(6_000)), "an answer makes room, or a lost one");
    let _ = cache.done(at(0), &fetches[0], body("A"));
    assert_eq!(cache.next_due(at(0)), Some(at(0)));
    assert_eq!(cache.due(at(0)).len(), 1);
}

#[test]
fn there_are_so_many_fragments_and_no_more() {
    let all: Vec<_> = (0..1500).map(|number| include(&format!("/a/{number:04}"))).collect();
    let (mut cache, _) = wanting(&all);
    let counts = cache.counts(at(0));
    assert_eq!((counts.wanted, counts.refused), (1024, 476));
    cache.want(at(1_000), &all[476..]);
    let counts = cache.counts(at(1_000));
    // Those that are under way cannot be forgotten for others.
    assert_eq!((counts.wanted, counts.refused), (1024 - 32, 476 + 32), "room is made by what is not wanted");
}

#[test]
fn counts() {
    let (mut cache, fetches) = wanting(&["/a", "/c/x", "/d"].map(include));
    let _ = cache.done(at(0), &fetches[0], body("A"));
    let _ = cache.done(at(0), &fetches[1], Err(FetchError::Status(404)));
    let fresh = Counts { fetched: 1, failed: 1, refused: 0, wanted: 2, stale: 0, missing: 1 };
    assert_eq!(cache.counts(at(11_000)), fresh, "ten seconds, and one for the fetch");
    assert_eq!(cache.counts(at(11_001)), Counts { stale: 1, ..fresh });
}

#[test]
fn room_is_not_made_by_what_is_wanted_again() {
    let all: Vec<_> = (0..1024).map(|number| include(&format!("/a/{number:04}"))).collect();
    let (mut cache, mut fetches) = wanting(&all);
    while !fetches.is_empty() {
        for fetch in &fetches {
            let _ = cache.done(at(0), fetch, body("A"));
        }
        fetches = cache.due(at(0));
    }
    let wanted = [&[include("/a/new")], &all[..1023]].concat();
    cache.want(at(1_000), &wanted);
    assert!(all[..1023].iter().all(|include| cache.fragment(&include.path).is_some()));
    assert!(cache.fragment("/a/1023").is_none());
    assert_eq!(cache.counts(at(1_000)).refused, 0);
}

#[test]
fn what_is_under_way_is_not_forgotten() {
    let (mut cache, _) = one("/a");
    cache.want(at(0), &[]);
    cache.want(at(61_000), &[]);
    assert_eq!(cache.due(at(61_000)), []);
    assert_eq!(cache.counts(at(61_000)).failed, 1, "its origin hears of it");
    assert_eq!(cache.next_due(at(61_000)), None);
}

/// What may happen to a cache.
#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Want(Vec<usize>),
    /// Of those under way this one ends so.
    Done(usize, u8),
    /// Look at the time that the cache has said.
    Next,
}

const PATHS: [&str; 6] = ["/a", "/a/1", "/a/2", "/a/b/1", "/c/1", "/nowhere"];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        1 => (0u64..70_000).prop_map(Event::Wait),
        2 => (0u64..1_500).prop_map(Event::Wait),
        1 => prop::collection::vec(0..PATHS.len(), 0..8).prop_map(Event::Want),
        6 => (any::<usize>(), any::<u8>()).prop_map(|(at, how)| Event::Done(at, how)),
        4 => Just(Event::Next),
    ];
    prop::collection::vec(event, 1..150)
}

fn result(how: u8, is_dead: bool) -> Result<Bytes, FetchError> {
    match how % 6 {
        _ if is_dead => Err(FetchError::Connect("refused".to_owned())),
        0 => Err(FetchError::Timeout),
        1 => Err(FetchError::Status(503)),
        2 => Err(FetchError::Status(404)),
        3 => Ok(Bytes::new()),
        _ => Ok(Bytes::from(vec![how])),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens(events in events(), dead in prop::option::of(0usize..2)) {
        let mut cache = cache();
        let mut now = at(0);
        let mut under_way: Vec<(Fetch, Duration)> = Vec::new();
        let mut held = BTreeSet::new();
        let mut unwanted = BTreeMap::from(PATHS.map(|path| (path, None::<Duration>)));
        let mut asked: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
        cache.want(now, &PATHS.map(include));
        for event in events {
            let mut wanted = None;
            match event {
                Event::Wait(milliseconds) => now += at(milliseconds),
                Event::Want(which) => {
                    let paths: BTreeSet<_> = which.iter().map(|at| PATHS[*at]).collect();
                    cache.want(now, &paths.iter().map(|path| include(path)).collect::<Vec<_>>());
                    wanted = Some(paths);
                }
                Event::Done(which, how) if !under_way.is_empty() => {
                    let (fetch, _) = under_way.remove(which % under_way.len());
                    let is_dead = dead == Some(fetch.origin);
                    let before = cache.fragment(&fetch.path);
                    let result = result(how, is_dead);
                    let is_failure = result.is_err();
                    let changed = cache.done(now, &fetch, result);
                    let after = cache.fragment(&fetch.path);
                    prop_assert_eq!(changed == Changed::Yes, before != after);
                    prop_assert!(!is_failure || before == after, "a failure changes nothing");
                    prop_assert!(before.is_none() || after.is_some(), "what was good stays");
                }
                Event::Done(..) => {}
                Event::Next => now = cache.next_due(now).map_or(now, |then| then.max(now)),
            }
            // What was lost is given up by the cache, and here.
            under_way.retain(|(_, until)| *until > now);
            for fetch in cache.due(now) {
                prop_assert!(under_way.iter().all(|(other, _)| other.path != fetch.path), "twice");
                let until = now + fetch.timeout + at(5_000);
                asked.entry(fetch.origin).or_default().push(now);
                under_way.push((fetch, until));
            }
            prop_assert!(cache.next_due(now).is_none_or(|then| then > now), "no way on");
            for (path, unwanted_at) in &mut unwanted {
                let is_forgotten = held.contains(path) && cache.fragment(path).is_none();
                prop_assert!(!is_forgotten || unwanted_at.is_some_and(|at| now >= at + self::at(60_000)));
                if let Some(wanted) = &wanted {
                    *unwanted_at = if wanted.contains(path) { None } else { unwanted_at.or(Some(now)) };
                }
            }
            held = PATHS.into_iter().filter(|path| cache.fragment(path).is_some()).collect();
        }
        prop_assert!(!held.contains("/nowhere"));
        // Five failures open it; four of five paths could be under way before that. After it: one in each pause.
        if let Some(asked) = dead.and_then(|dead| asked.get(&dead)) {
            for pair in asked.get(9..).unwrap_or_default().windows(2) {
                prop_assert!(pair[1] - pair[0] >= at(1_000), "{:?}", asked);
            }
        }
    }
}
