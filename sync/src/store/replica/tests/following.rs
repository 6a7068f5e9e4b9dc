//! What comes from other datacenters.

use super::*;

fn two() -> [Store; 2] {
    [Store::new("seoul", &["frankfurt"]), Store::new("frankfurt", &["seoul"])]
}

fn three() -> [Store; 3] {
    let names = ["seoul", "frankfurt", "virginia"];
    names.map(|name| Store::new(name, &names))
}

fn batch(feeder: &Store, after: u64) -> Batch {
    let id = feeder.replica.origin().id();
    let Read::Next(Some(batch)) = feeder.journal.read_after(id, after, 1 << 20).unwrap() else {
        panic!("nothing after {after}")
    };
    batch
}

#[test]
fn a_wrong_batch_changes_nothing() {
    let [mut seoul, mut frankfurt] = two();
    follow(&mut frankfurt, &mut seoul);
    let head = frankfurt.replica.received().of(seoul.replica.origin().id());
    for text in ["1", "2", "3"] {
        seoul.put("k", text);
    }
    let right = batch(&seoul, head);
    let gap = right.clone().after(head + 1).unwrap();
    let diverged = Batch { chain: right.chain + 1, ..right.clone() };
    let mut broken = right.clone();
    let mut record = broken.records[2].to_vec();
    *record.last_mut().unwrap() ^= 1;
    broken.records[2] = record.into();
    let unnamed = Batch { origin: OriginId(7), ..right.clone() };
    for wrong in [gap, diverged, broken, unnamed] {
        let told = frankfurt.replica.receive(frankfurt.at, &mut frankfurt.keys, wrong);
        assert!(matches!(told, Err(Denied::Batch(_) | Denied::Unnamed(_))), "{told:?}");
        assert!(frankfurt.text("k").is_none() && !frankfurt.replica.has_outgoing());
    }
    assert!(frankfurt.replica.receive(frankfurt.at, &mut frankfurt.keys, right.clone()).unwrap());
    frankfurt.commit();
    assert_eq!(frankfurt.text("k").as_deref(), Some("3"));
    assert!(!frankfurt.replica.receive(frankfurt.at, &mut frankfurt.keys, right).unwrap(), "again");
}

#[test]
fn what_is_from_the_future_waits_for_its_time() {
    let [mut seoul, mut frankfurt] = two();
    follow(&mut frankfurt, &mut seoul);
    seoul.at.unix_ms += 5_000;
    seoul.put("k", "early");
    follow(&mut frankfurt, &mut seoul);
    assert_eq!(frankfurt.text("k"), None);
    let id = seoul.replica.origin().id();
    assert!(frankfurt.replica.held().contains_key(&id));
    assert_eq!(frankfurt.replica.received().of(id), seoul.replica.received().of(id), "it is durable here");
    // What waits is read from the log: it must not go.
    assert!(frankfurt.replica.received_by_all().of(id) < seoul.replica.received().of(id));
    frankfurt.pass(4_499);
    assert_eq!(frankfurt.text("k"), None);
    frankfurt.pass(1);
    assert_eq!(frankfurt.text("k").as_deref(), Some("early"));
    assert!(frankfurt.replica.held().is_empty());
}

#[test]
fn what_was_lost_on_the_way_to_the_disk_is_not_waited_for() {
    let [mut seoul, mut frankfurt] = two();
    follow(&mut frankfurt, &mut seoul);
    seoul.at.unix_ms += 5_000;
    seoul.put("k", "early");
    let mut stream = Stream::new(&mut frankfurt, &mut seoul).unwrap();
    while let Some(message) = stream.next(&seoul) {
        frankfurt.replica.take(frankfurt.at, &mut frankfurt.keys, "seoul", message).unwrap();
    }
    assert!(!frankfurt.replica.held().is_empty());
    frankfurt.fail(&JournalError::Full("no space".to_owned()));
    assert!(frankfurt.replica.held().is_empty());
    follow(&mut frankfurt, &mut seoul);
    assert!(!frankfurt.replica.held().is_empty(), "it came again");
}

#[test]
fn what_is_dropped_is_never_applied_and_holds_up_nobody() {
    let [mut seoul, mut frankfurt] = two();
    follow(&mut frankfurt, &mut seoul);
    let day = 86_400_000;
    seoul.at.unix_ms += day;
    seoul.put("k", "tomorrow");
    follow(&mut frankfurt, &mut seoul);
    let id = seoul.replica.origin().id();
    let drop = |sequence| Write {
        what: Changes::Drop { origin: id, sequence },
        durability: Durability::Local,
        patience: Duration::from_secs(1),
    };
    let head = frankfurt.replica.received().of(id);
    for sequence in frankfurt.replica.applied().of(id) + 1..=head {
        let ticket = frankfurt.hand_in(&drop(sequence));
        frankfurt.commit();
        assert!(matches!(frankfurt.reply(ticket), Some(Reply::Written { .. })));
        let again = frankfurt.hand_in(&drop(sequence));
        assert!(matches!(frankfurt.reply(again), Some(Reply::Refused(Refusal::NotDroppable(_)))));
    }
    frankfurt.tick();
    assert!(frankfurt.replica.held().is_empty());
    assert_eq!(frankfurt.replica.applied().of(id), head);
    assert_eq!(frankfurt.text("k"), None);
    assert!(frankfurt.put("other", "v").unix_ms() < seoul.at.unix_ms, "its clock was not drawn along");
    // Where it was applied already it is taken back.
    assert_eq!(seoul.text("k").as_deref(), Some("tomorrow"));
    follow(&mut seoul, &mut frankfurt);
    seoul.tick();
    assert_eq!(seoul.text("k"), None);
}

#[test]
fn a_new_store_takes_back_its_log_before_it_takes_writes() {
    let [mut seoul, mut frankfurt] = two();
    seoul.put("k", "kept by frankfurt");
    follow(&mut frankfurt, &mut seoul);
    // The disk is lost.
    let mut seoul =
        Store::open(origin("seoul", 2), &["frankfurt"], MemoryJournal::default(), Keys::default(), true);
    seoul.tick();
    let early = seoul.hand_in(&local(vec![put("k", "early")]));
    assert!(matches!(seoul.reply(early), Some(Reply::Refused(Refusal::NotOpen(_)))));
    let mut stream = Stream::new(&mut seoul, &mut frankfurt).unwrap();
    assert!(!seoul.replica.is_open());
    stream.flow(&mut seoul, &mut frankfurt).unwrap();
    seoul.tick();
    assert!(seoul.replica.is_open());
    assert_eq!(seoul.text("k").as_deref(), Some("kept by frankfurt"));
    seoul.put("k", "new");
    follow(&mut frankfurt, &mut seoul);
    assert_eq!(frankfurt.text("k").as_deref(), Some("new"));
}

#[test]
fn an_old_copy_of_the_disk_begins_a_new_incarnation() {
    let [mut seoul, mut frankfurt] = two();
    let copy = seoul.journal.clone();
    seoul.put("k", "after the copy");
    follow(&mut frankfurt, &mut seoul);
    let old = seoul.replica.origin().clone();
    let mut seoul = Store::open(old.clone(), &["frankfurt"], copy, Keys::default(), false);
    let _ = Stream::new(&mut seoul, &mut frankfurt).unwrap();
    assert!(seoul.replica.origin().incarnation > old.incarnation);
    assert!(!seoul.replica.is_open());
    follow(&mut seoul, &mut frankfurt);
    seoul.tick();
    assert!(seoul.replica.is_open());
    assert_eq!(seoul.text("k").as_deref(), Some("after the copy"));
    seoul.put("k", "new");
    follow(&mut frankfurt, &mut seoul);
    assert_eq!(frankfurt.text("k").as_deref(), Some("new"));
}

#[test]
fn who_waits_when_a_new_incarnation_begins_is_told_what_is_known() {
    let [mut seoul, mut frankfurt] = two();
    let mut word = frankfurt.replica.word();
    let durable = seoul.hand_in(&write(vec![put("k", "1")], Durability::All));
    seoul.commit();
    let staged = seoul.hand_in(&local(vec![put("k", "2")]));
    word.received.raise(seoul.replica.origin().id(), 1000);
    seoul.replica.hear(seoul.at, "frankfurt", &word).unwrap();
    let replies: BTreeMap<u64, Reply> = seoul.replica.replies().into_iter().collect();
    assert!(matches!(replies[&durable], Reply::Written { is_done: false, .. }));
    assert!(matches!(replies[&staged], Reply::Refused(Refusal::NotOpen(_))));
    seoul.pass(10_000);
    seoul.commit();
    seoul.put("k", "3");
    follow(&mut frankfurt, &mut seoul);
    assert_eq!(frankfurt.text("k").as_deref(), Some("3"));
}

#[test]
fn who_hears_of_its_own_successor_begins_again() {
    let [mut seoul, mut frankfurt] = two();
    follow(&mut frankfurt, &mut seoul);
    let mut newer =
        Store::open(origin("seoul", 5), &["frankfurt"], MemoryJournal::default(), Keys::default(), true);
    follow(&mut newer, &mut frankfurt);
    // The disk that was thought lost is put back.
    let word = seoul.replica.word();
    assert_eq!(
        frankfurt.replica.hear(frankfurt.at, "seoul", &word),
        Err(Denied::Replaced(seoul.replica.origin().clone()))
    );
    let word = frankfurt.replica.word();
    seoul.replica.hear(seoul.at, "frankfurt", &word).unwrap();
    assert!(seoul.replica.origin().incarnation > 5);
    follow(&mut frankfurt, &mut seoul);
}

#[test]
fn who_was_forgotten_is_refused_until_it_is_new() {
    let [mut seoul, mut frankfurt, mut virginia] = three();
    follow(&mut frankfurt, &mut seoul);
    follow(&mut virginia, &mut frankfurt);
    follow(&mut frankfurt, &mut virginia);
    let ticket = frankfurt.hand_in(&write(vec![put("k", "v")], Durability::All));
    frankfurt.commit();
    follow(&mut virginia, &mut frankfurt);
    assert_eq!(frankfurt.reply(ticket), None, "seoul does not answer");
    frankfurt.replica.set_forgotten(["seoul".to_owned()].into());
    follow(&mut virginia, &mut frankfurt);
    assert!(matches!(frankfurt.reply(ticket), Some(Reply::Written { is_done: true, .. })));
    let told = Stream::new(&mut seoul, &mut frankfurt).err();
    assert_eq!(told, Some(Denied::Forgotten(seoul.replica.origin().clone())));
    let names = ["frankfurt", "virginia"];
    let mut seoul = Store::open(origin("seoul", 9), &names, MemoryJournal::default(), Keys::default(), true);
    follow(&mut seoul, &mut frankfurt);
    assert_eq!(seoul.text("k").as_deref(), Some("v"));
    // It counts again: what it has not received stays.
    frankfurt.put("k", "2");
    let id = frankfurt.replica.origin().id();
    follow(&mut virginia, &mut frankfurt);
    assert!(frankfurt.replica.received_by_all().of(id) < frankfurt.replica.received().of(id));
}

#[test]
fn a_log_comes_by_way_of_another() {
    let [mut seoul, mut frankfurt, mut virginia] = three();
    seoul.put("k", "v");
    follow(&mut frankfurt, &mut seoul);
    follow(&mut virginia, &mut frankfurt);
    assert_eq!(virginia.text("k").as_deref(), Some("v"));
    let id = seoul.replica.origin().id();
    assert_eq!(virginia.replica.received().of(id), seoul.replica.received().of(id));
    // Who hears seoul itself asks nobody else for its log.
    assert!(virginia.replica.wants("frankfurt", virginia.at.now).contains("seoul"));
    let _ = Stream::new(&mut virginia, &mut seoul).unwrap();
    assert!(!virginia.replica.wants("frankfurt", virginia.at.now).contains("seoul"));
}

/// Lets all of a log go that is in the keys.
fn trim(store: &mut Store) {
    for (origin, sequence) in store.replica.applied().clone().iter() {
        store.journal.trim(origin, sequence).unwrap();
    }
}

#[test]
fn where_the_log_is_gone_a_snapshot_and_its_tail_come_cut_anywhere() {
    for cut in 0..12 {
        let [mut seoul, mut frankfurt] = two();
        follow(&mut frankfurt, &mut seoul);
        for at in 0..5 {
            seoul.put(&format!("k{at}"), "old");
        }
        trim(&mut seoul);
        seoul.put("k0", "new");
        let mut stream = Stream::new(&mut frankfurt, &mut seoul).unwrap();
        for _ in 0..cut {
            let Some(message) = stream.next(&seoul) else { break };
            let took = frankfurt.replica.take(frankfurt.at, &mut frankfurt.keys, "seoul", message).unwrap();
            if took.is_end_of_cells {
                for (origin, floor) in frankfurt.replica.to_begin_at() {
                    frankfurt.journal.begin_at(origin, floor).unwrap();
                }
            }
            frankfurt.commit();
        }
        follow(&mut frankfurt, &mut seoul);
        let texts: Vec<_> = (0..5).filter_map(|at| frankfurt.text(&format!("k{at}"))).collect();
        assert_eq!(texts, ["new", "old", "old", "old", "old"], "cut after {cut}");
        let id = seoul.replica.origin().id();
        assert_eq!(frankfurt.journal.heads().of(id), seoul.journal.heads().of(id));
        // And on as ever.
        seoul.put("k0", "newer");
        follow(&mut frankfurt, &mut seoul);
        assert_eq!(frankfurt.text("k0").as_deref(), Some("newer"));
    }
}

#[test]
fn a_new_store_does_not_bring_back_what_is_forgotten() {
    let [mut seoul, mut frankfurt] = two();
    follow(&mut frankfurt, &mut seoul);
    frankfurt.put("k", "old");
    follow(&mut seoul, &mut frankfurt);
    seoul.stamp(vec![change("k", ChangeKind::Delete)]);
    follow(&mut frankfurt, &mut seoul);
    // The delete is past and out of seoul's log; the put is still in frankfurt's.
    trim(&mut seoul);
    for store in [&mut seoul, &mut frankfurt] {
        store.keys.map.remove(&key("k"));
    }
    let names = ["seoul", "frankfurt"];
    let mut virginia =
        Store::open(origin("virginia", 1), &names, MemoryJournal::default(), Keys::default(), true);
    for store in [&mut seoul, &mut frankfurt] {
        store.replica.set_peers(["seoul", "frankfurt", "virginia"].map(str::to_owned));
    }
    follow(&mut virginia, &mut frankfurt);
    follow(&mut virginia, &mut seoul);
    assert_eq!(virginia.text("k"), None);
}

#[test]
fn a_snapshot_drops_nothing_that_is_on_its_way_to_the_disk() {
    let [mut seoul, mut frankfurt] = two();
    follow(&mut frankfurt, &mut seoul);
    let id = seoul.replica.origin().id();
    let head = frankfurt.replica.received().of(id);
    seoul.put("a", "1");
    let floor = Floor { sequence: head + 1, chain: seoul.journal.chain(id) };
    seoul.put("b", "2");
    let news = batch(&seoul, head);
    frankfurt.replica.receive(frankfurt.at, &mut frankfurt.keys, news).unwrap();
    frankfurt.replica.end_of_snapshot(&[(id, floor)].into());
    frankfurt.commit();
    assert_eq!(frankfurt.journal.heads().of(id), frankfurt.replica.received().of(id));
    assert_eq!(frankfurt.text("b").as_deref(), Some("2"));
}

#[test]
fn what_differs_is_found_and_healed() {
    let [mut seoul, mut frankfurt] = two();
    for at in 0..300 {
        seoul.put(&format!("k{at:03}"), "v");
    }
    follow(&mut frankfurt, &mut seoul);
    // A bad disk.
    frankfurt.keys.map.remove(&key("k250"));
    let mut after = None;
    let mut healed = 0;
    let mut ranges = 0;
    loop {
        let range = verify::next(&frankfurt.keys, after, frankfurt.at.unix_ms).unwrap();
        let upto = range.upto.clone();
        let answer = super::super::super::feed::compare(&seoul.keys, range).unwrap();
        let took = frankfurt.replica.take(frankfurt.at, &mut frankfurt.keys, "seoul", answer).unwrap();
        healed += took.healed;
        ranges += 1;
        after = upto;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((healed, ranges), (1, 3));
    assert_eq!(frankfurt.text("k250").as_deref(), Some("v"));
}

#[test]
fn what_is_only_remembered_goes_when_all_have_it() {
    let [mut seoul, mut frankfurt] = two();
    follow(&mut frankfurt, &mut seoul);
    follow(&mut seoul, &mut frankfurt);
    seoul.put("k", "v");
    let deleted = seoul.stamp(vec![change("k", ChangeKind::Delete)]);
    let id = seoul.replica.origin().id();
    let cell = seoul.keys.map[&key("k")].clone();
    let sequence = cell.register.as_ref().map(|register| register.sequence).unwrap();
    assert_eq!(cell.newest, deleted);
    let forgets = |store: &Store| cell.without_the_past(&store.replica.stable(), store.at.unix_ms).is_none();
    assert!(!forgets(&seoul));
    follow(&mut frankfurt, &mut seoul);
    assert!(!forgets(&seoul), "that it is received says nothing of what frankfurt had written before");
    for store in [&mut seoul, &mut frankfurt] {
        store.pass(1_000);
        store.commit();
    }
    follow(&mut seoul, &mut frankfurt);
    assert!(seoul.replica.stable().of(id) >= sequence && forgets(&seoul));
}

#[test]
fn what_is_on_its_way_to_the_disk_may_be_older_than_what_is_forgotten() {
    let [mut seoul, mut frankfurt] = two();
    follow(&mut frankfurt, &mut seoul);
    follow(&mut seoul, &mut frankfurt);
    frankfurt.put("x", "1");
    follow(&mut seoul, &mut frankfurt);
    // Stamped in Frankfurt first, and not on its disk yet.
    let ticket = frankfurt.hand_in(&local(vec![put("k", "older")]));
    seoul.pass(5);
    seoul.stamp(vec![change("k", ChangeKind::Delete)]);
    seoul.pass(1_000);
    seoul.commit();
    frankfurt.pass(1_005);
    let (id, upto) = (seoul.replica.origin().id(), seoul.replica.received().of(seoul.replica.origin().id()));
    let mut stream = Stream::new(&mut frankfurt, &mut seoul).unwrap();
    while let Some(message) = stream.next(&seoul) {
        frankfurt.replica.take(frankfurt.at, &mut frankfurt.keys, "seoul", message).unwrap();
    }
    assert!(frankfurt.replica.applied().of(id) == upto && frankfurt.replica.is_waited_for());
    let deleted = frankfurt.keys.map[&key("k")].clone();
    let forgets =
        |store: &Store| deleted.without_the_past(&store.replica.stable(), store.at.unix_ms).is_none();
    assert!(!forgets(&frankfurt), "what it is about to write is older");
    frankfurt.commit();
    assert!(frankfurt.reply(ticket).is_some());
    assert_eq!(frankfurt.text("k"), None);
    assert!(forgets(&frankfurt));
}

#[test]
fn lag_is_unknown_without_heartbeats_and_never_below_the_truth() {
    let [mut seoul, mut frankfurt] = two();
    assert_eq!(frankfurt.replica.lags(frankfurt.at)[0].stage, Stage::Unknown);
    follow(&mut frankfurt, &mut seoul);
    for store in [&mut seoul, &mut frankfurt] {
        store.pass(1_000);
        store.commit();
    }
    follow(&mut frankfurt, &mut seoul);
    let lag = |store: &Store| store.replica.lags(store.at)[0].clone();
    assert_eq!((lag(&frankfurt).stage, lag(&frankfurt).behind_ms), (Stage::Known, Some(0)));
    frankfurt.pass(2_000);
    assert_eq!((lag(&frankfurt).stage, lag(&frankfurt).behind_ms), (Stage::Known, Some(2_000)));
    // A clock that goes back makes nothing younger.
    frankfurt.at.unix_ms -= 10_000;
    assert_eq!(lag(&frankfurt).behind_ms, Some(2_000));
    frankfurt.at.unix_ms += 10_000;
    frankfurt.pass(2_000);
    assert_eq!((lag(&frankfurt).stage, lag(&frankfurt).behind_operations), (Stage::Unknown, None));
    frankfurt.put("k", "v");
    frankfurt.put("k", "w");
    assert!(lag(&frankfurt).unconfirmed >= 2);
    follow(&mut seoul, &mut frankfurt);
    assert_eq!(lag(&frankfurt).unconfirmed, 0);
}
