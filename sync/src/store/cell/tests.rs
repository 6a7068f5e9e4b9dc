use proptest::prelude::*;

use super::super::op::tests::{key, value};
use super::super::verify::digest;
use super::*;

const AUTHORS: usize = 3;
const BEGIN_MS: u64 = 1_000_000;

/// A step of one author: what it does, and how many more operations of each it has applied before.
#[derive(Clone, Debug)]
struct Step {
    author: usize,
    kind: u8,
    element: u8,
    pulls: [u8; AUTHORS],
    passed: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..AUTHORS, 0..8u8, 0..3u8, [0..4u8, 0..4u8, 0..4u8], 0..30u8)
        .prop_map(|(author, kind, element, pulls, passed)| Step { author, kind, element, pulls, passed });
    prop::collection::vec(step, 1..40)
}

/// Someone who writes, as [`Replica`](super::super::replica::Replica) does.
#[derive(Clone, Debug, Default)]
struct Author {
    cell: Cell,
    applied: Heads,
    /// What each other's newest applied operation knew.
    knew: BTreeMap<OriginId, Heads>,
    clock: u64,
    log: Vec<Entry>,
}

fn id(author: usize) -> OriginId {
    OriginId(u32::try_from(author).unwrap() + 1)
}

impl Author {
    fn apply(&mut self, entry: &Entry) -> Option<Loser> {
        self.applied.raise(entry.stamp.origin, entry.sequence);
        let mut knew = (*entry.known).clone();
        knew.raise(entry.stamp.origin, entry.sequence);
        self.knew.insert(entry.stamp.origin, knew);
        self.clock = self.clock.max(entry.stamp.time);
        self.cell.apply(entry, 0)
    }

    fn action(&self, step: &Step, time: u64, me: OriginId, unix_ms: u64) -> Action {
        let (key, element) = (key("k"), format!("e{}", step.element));
        let put = |expires_unix_ms| Action::Put {
            key: key.clone(),
            value: value(&format!("{me}:{time}")),
            expires_unix_ms,
        };
        let seen = self.cell.seen(unix_ms);
        match step.kind {
            0 => put(0),
            1 => put(unix_ms + u64::from(step.passed)),
            2 => Action::Delete { key },
            3 | 4 if matches!(seen, None | Some(Seen::Counter(_))) => {
                let mine = self.cell.shares.get(&me);
                let total = mine.map_or(0, |share| share.total) + i64::from(step.element) - 1;
                let since = mine.map_or(time, |share| share.since);
                Action::Increment { key, by: i64::from(step.element) - 1, total, since }
            }
            5 | 6 if matches!(seen, None | Some(Seen::Set(_))) => Action::SetAdd { key, element },
            7 if matches!(seen, None | Some(Seen::Set(_))) => {
                let seen = self.cell.elements.get(&element).map(Element::seen).unwrap_or_default();
                Action::SetRemove { key, element, seen }
            }
            _ => put(0),
        }
    }

    /// What is stable for it: as `Replica::stable` has it.
    fn stable(&self, me: usize) -> Heads {
        let mut stable = self.applied.clone();
        for other in (0..AUTHORS).filter(|other| *other != me) {
            stable.meet(self.knew.get(&id(other)).unwrap_or(&Heads::default()));
        }
        stable
    }
}

/// Plays a story: what each author wrote, and what it then has.
fn play(steps: &[Step]) -> Vec<Author> {
    let mut authors = vec![Author::default(); AUTHORS];
    let mut unix_ms = BEGIN_MS;
    for step in steps {
        unix_ms += u64::from(step.passed);
        let me = step.author;
        for other in (0..AUTHORS).filter(|other| *other != me) {
            let from = usize::try_from(authors[me].applied.of(id(other))).unwrap();
            let news: Vec<Entry> =
                authors[other].log.iter().skip(from).take(step.pulls[other].into()).cloned().collect();
            news.iter().for_each(|entry| drop(authors[me].apply(entry)));
        }
        let author = &mut authors[me];
        // Clocks differ.
        author.clock = (author.clock + 1).max((unix_ms + 20 * me as u64) << 16);
        let time = author.clock;
        let mut known = author.applied.clone();
        known.remove(id(me));
        let entry = Entry {
            sequence: author.log.len() as u64 + 1,
            stamp: Stamp { time, origin: id(me) },
            known: Arc::new(known),
            more: false,
            action: author.action(step, time, id(me), unix_ms),
        };
        author.apply(&entry);
        author.log.push(entry);
    }
    authors
}

fn entries(authors: &[Author]) -> Vec<Entry> {
    authors.iter().flat_map(|author| author.log.clone()).collect()
}

fn fold<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Cell {
    let mut cell = Cell::default();
    for entry in entries {
        cell.apply(entry, 0);
    }
    cell
}

/// Users see the same of both, now and later.
fn same(a: &Cell, b: &Cell) {
    for unix_ms in [0, BEGIN_MS + 100, BEGIN_MS + 400, u64::MAX / 2] {
        assert_eq!(a.seen(unix_ms), b.seen(unix_ms), "at {unix_ms}: {a:?} and {b:?}");
        let of = |cell: &Cell| digest(&[(key("k"), cell.clone())], unix_ms);
        assert_eq!(of(a), of(b));
    }
}

fn shuffled(entries: &[Entry], order: &[u64]) -> Vec<Entry> {
    let mut keyed: Vec<_> = entries.iter().cloned().zip(order.iter().cycle()).collect();
    keyed.sort_by_key(|(entry, order)| order.wrapping_mul(entry.sequence * 31 + entry.stamp.time));
    keyed.into_iter().map(|(entry, _)| entry).collect()
}

fn join(a: &Cell, b: &Cell) -> Cell {
    let mut cell = a.clone();
    cell.join(b, 0);
    cell
}

proptest! {
    #[test]
    fn any_order_any_number_of_times_and_whole_cells_give_the_same(
        steps in steps(), order in prop::collection::vec(any::<u64>(), 1..40), cut in any::<prop::sample::Index>(),
    ) {
        let entries = entries(&play(&steps));
        let straight = fold(&entries);
        let other = shuffled(&entries, &order);
        same(&straight, &fold(&other));
        same(&straight, &fold(other.iter().chain(&entries).chain(&other)));
        // A part as operations here, a part as operations there, then joined.
        let (left, right) = other.split_at(cut.index(other.len()));
        let (left, right) = (fold(left), fold(right));
        same(&straight, &join(&left, &right));
        let mut late = join(&right, &left);
        entries.iter().for_each(|entry| drop(late.apply(entry, 0)));
        prop_assert_eq!(&late, &straight);
    }

    #[test]
    fn join_is_a_join(steps in steps(), cuts in [any::<prop::sample::Index>(), any::<prop::sample::Index>()]) {
        let authors = play(&steps);
        let entries = entries(&authors);
        let cells = cuts.map(|cut| fold(&entries[cut.index(entries.len())..]));
        let [a, b] = &cells;
        let c = &authors[0].cell;
        prop_assert_eq!(join(a, b), join(b, a));
        prop_assert_eq!(join(&join(a, b), c), join(a, &join(b, c)));
        prop_assert_eq!(join(&join(a, b), b), join(a, b));
        prop_assert!(!join(a, b).join(b, 0).0);
    }

    #[test]
    fn forgetting_the_past_changes_nothing_ever(steps in steps(), which in 0..AUTHORS, passed in 0..600u64) {
        let authors = play(&steps);
        let entries = entries(&authors);
        let me = &authors[which];
        let unix_ms = BEGIN_MS + passed;
        let less = me.cell.without_the_past(&me.stable(which), unix_ms);
        let less = less.unwrap_or_default();
        prop_assert_eq!(less.seen(unix_ms), me.cell.seen(unix_ms));
        // Whatever can still come: operations that are not applied, and cells of those who have not forgotten.
        let (mut forgetful, mut whole) = (less, me.cell.clone());
        for entry in entries.iter().filter(|entry| me.applied.of(entry.stamp.origin) < entry.sequence) {
            forgetful.apply(entry, 0);
            whole.apply(entry, 0);
            prop_assert_eq!(forgetful.seen(unix_ms), whole.seen(unix_ms));
        }
        for other in &authors {
            forgetful.join(&other.cell, 0);
            prop_assert_eq!(forgetful.seen(unix_ms), whole.seen(unix_ms));
        }
    }

    #[test]
    fn a_value_that_its_successor_knew_is_no_loser(steps in steps()) {
        // Each applies everything of everybody in the order in which it was written: nothing is concurrent.
        let steps: Vec<Step> = steps.into_iter().map(|step| Step { pulls: [u8::MAX; AUTHORS], ..step }).collect();
        let mut reader = Author::default();
        let mut entries = entries(&play(&steps));
        entries.sort_by_key(|entry| entry.stamp);
        for entry in &entries {
            prop_assert_eq!(reader.apply(entry), None);
        }
    }
}

/// An operation of an author who knew so much of the others.
fn entry(author: usize, sequence: u64, time: u64, known: &[(usize, u64)], action: Action) -> Entry {
    let known = known.iter().map(|(author, sequence)| (id(*author), *sequence)).collect();
    Entry { sequence, stamp: Stamp { time, origin: id(author) }, known: Arc::new(known), more: false, action }
}

fn put(text: &str) -> Action {
    Action::Put { key: key("k"), value: value(text), expires_unix_ms: 0 }
}

#[test]
fn of_two_concurrent_values_one_loses_whichever_comes_first() {
    let [a, b] = [entry(0, 1, 10, &[], put("a")), entry(1, 1, 11, &[], put("b"))];
    for order in [[&a, &b], [&b, &a]] {
        let mut cell = Cell::default();
        let losers: Vec<Loser> = order.into_iter().filter_map(|entry| cell.apply(entry, 0)).collect();
        assert_eq!(losers.len(), 1);
        assert_eq!(losers[0].register.value, Some(value("a")));
        assert_eq!(losers[0].winner, b.stamp);
        assert_eq!(cell.seen(0), Some(Seen::Value(&value("b"))));
        // The winner again says nothing new.
        assert_eq!(cell.apply(&b, 0), None);
    }
    let mut joined = fold([&a]);
    let (is_changed, loser) = joined.join(&fold([&b]), 0);
    assert!(is_changed && loser.is_some());
}

#[test]
fn nothing_is_lost_where_nothing_differs_or_nothing_was() {
    let same = [entry(0, 1, 10, &[], put("a")), entry(1, 1, 11, &[], put("a"))];
    let mut cell = Cell::default();
    assert!(same.iter().all(|entry| cell.apply(entry, 0).is_none()));
    let delete = Action::Delete { key: key("k") };
    let deleted = [entry(0, 1, 10, &[], delete), entry(1, 1, 11, &[], put("a"))];
    let mut cell = Cell::default();
    assert!(deleted.iter().all(|entry| cell.apply(entry, 0).is_none()));
    // One that has ended is missed by nobody.
    let short = Action::Put { key: key("k"), value: value("a"), expires_unix_ms: 5 };
    let ended = [entry(0, 1, 10, &[], short), entry(1, 1, 11, &[], put("b"))];
    let mut cell = Cell::default();
    assert!(ended.iter().all(|entry| cell.apply(entry, 5).is_none()));
}

fn add() -> Action {
    Action::SetAdd { key: key("k"), element: "e".to_owned() }
}

fn remove(seen: &[(usize, u64)]) -> Action {
    let seen = seen.iter().map(|(author, sequence)| (id(*author), *sequence)).collect();
    Action::SetRemove { key: key("k"), element: "e".to_owned(), seen }
}

#[test]
fn an_addition_that_the_removal_did_not_know_of_stays() {
    let added = entry(0, 1, 10, &[], add());
    let again = entry(1, 1, 11, &[], add());
    let removed = entry(2, 1, 12, &[(0, 1)], remove(&[(0, 1)]));
    let cell = fold([&removed, &added, &again]);
    assert_eq!(cell.seen(0), Some(Seen::Set(vec!["e"])));
    assert_eq!(fold([&removed, &added]).seen(0), None);
}

#[test]
fn a_removal_is_remembered_until_all_have_applied_it() {
    let added = entry(0, 1, 10, &[], add());
    let removed = entry(1, 1, 12, &[(0, 1)], remove(&[(0, 1)]));
    let cell = fold([&added, &removed]);
    let all_have_added: Heads = [(id(0), 1)].into_iter().collect();
    // One who has not applied the removal still has the element, and may send it whole.
    assert_eq!(join(&cell.without_the_past(&all_have_added, 0).unwrap(), &fold([&added])).seen(0), None);
    let all: Heads = [(id(0), 1), (id(1), 1)].into_iter().collect();
    assert_eq!(cell.without_the_past(&all, 0), None);
}

#[test]
fn a_put_or_delete_ends_what_was_counted_or_added_before_it() {
    let count = |sequence, time, total, since| {
        let action = Action::Increment { key: key("k"), by: 1, total, since };
        entry(0, sequence, time, &[], action)
    };
    let delete = entry(1, 1, 15, &[], Action::Delete { key: key("k") });
    let entries = [count(1, 10, 1, 10), count(2, 11, 2, 10), delete, count(3, 20, 1, 20)];
    assert_eq!(fold(&entries[..3]).seen(0), None);
    assert_eq!(fold(&entries).seen(0), Some(Seen::Counter(1)));
    assert_eq!(fold(entries.iter().rev()).seen(0), Some(Seen::Counter(1)));
    let both = [
        count(1, 10, 5, 10),
        entry(1, 1, 11, &[], Action::Increment { key: key("k"), by: -2, total: -2, since: 11 }),
    ];
    assert_eq!(fold(&both).seen(0), Some(Seen::Counter(3)));
}

#[test]
fn a_value_ends_at_its_time() {
    let short = Action::Put { key: key("k"), value: value("a"), expires_unix_ms: 100 };
    let cell = fold(&[entry(0, 1, 10, &[], short)]);
    assert!(cell.seen(99).is_some() && cell.seen(100).is_none());
    assert!(!cell.has_a_past(99) && cell.has_a_past(100));
    let stable: Heads = [(id(0), 1)].into_iter().collect();
    assert!(cell.without_the_past(&stable, 99).is_some());
    assert!(cell.without_the_past(&Heads::default(), 100).is_some());
    assert!(cell.without_the_past(&stable, 100).is_none());
}
