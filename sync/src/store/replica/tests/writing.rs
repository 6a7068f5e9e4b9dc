//! Writes of applications.

use super::*;

fn refused(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_condition_is_weighed_against_what_is_there() {
    let mut store = Store::new("seoul", &[]);
    let absent = refused(store.write(vec![put_if("k", "v", Condition::Exists)]));
    assert_eq!(absent, Refusal::Condition { key: key("k"), current: None });
    let first = store.stamp(vec![put_if("k", "1", Condition::Absent)]);
    let second = store.stamp(vec![put_if("k", "2", Condition::Is(first))]);
    let late = refused(store.write(vec![put_if("k", "3", Condition::Is(first))]));
    assert_eq!(late, Refusal::Condition { key: key("k"), current: Some(second) });
    assert!(matches!(store.write(vec![put_if("k", "3", Condition::Absent)]), Reply::Refused(_)));
    assert!(matches!(store.write(vec![put_if("k", "3", Condition::IsNot(second))]), Reply::Refused(_)));
    store.stamp(vec![put_if("k", "4", Condition::IsNot(first))]);
    assert_eq!(store.text("k").as_deref(), Some("4"));
}

#[test]
fn a_condition_is_weighed_against_what_is_on_its_way_to_the_disk() {
    let mut store = Store::new("seoul", &[]);
    let first = store.put("k", "1");
    let tickets = ["2", "3"].map(|text| store.hand_in(&local(vec![put_if("k", text, Condition::Is(first))])));
    assert_eq!(store.text("k").as_deref(), Some("1"), "nobody sees what is not durable");
    store.commit();
    let replies: BTreeMap<u64, Reply> = store.replica.replies().into_iter().collect();
    assert!(matches!(replies[&tickets[0]], Reply::Written { is_done: true, .. }));
    assert!(matches!(replies[&tickets[1]], Reply::Refused(Refusal::Condition { .. })));
    assert_eq!(store.text("k").as_deref(), Some("2"));
}

#[test]
fn a_write_is_done_whole_or_not_at_all() {
    let mut store = Store::new("seoul", &[]);
    store.put("a", "1");
    let reply = store.write(vec![put("b", "2"), put_if("a", "2", Condition::Absent)]);
    assert!(matches!(refused(reply), Refusal::Condition { .. }));
    assert_eq!((store.text("a").as_deref(), store.text("b")), (Some("1"), None));
    // Its own changes count for its later conditions.
    store.stamp(vec![
        put_if("b", "2", Condition::Absent),
        put_if("b", "3", Condition::Exists),
        change("b", ChangeKind::Delete),
        change("b", ChangeKind::Increment(4)),
        change("b", ChangeKind::Increment(5)),
    ]);
    assert_eq!(store.text("b").as_deref(), Some("9"));
}

#[test]
fn each_kind_has_its_own_keys() {
    let mut store = Store::new("seoul", &[]);
    store.put("v", "text");
    store.stamp(vec![change("n", ChangeKind::Increment(2))]);
    store.stamp(vec![change("s", ChangeKind::Add("e".to_owned()))]);
    for (name, kind, holds) in [
        ("v", ChangeKind::Increment(1), "a value"),
        ("n", ChangeKind::Add("e".to_owned()), "a counter"),
        ("s", ChangeKind::Increment(1), "a set"),
        ("v", ChangeKind::Remove("e".to_owned()), "a value"),
    ] {
        match refused(store.write(vec![change(name, kind)])) {
            Refusal::Kind { holds: found, .. } => assert_eq!(found, holds),
            other => panic!("{other:?}"),
        }
    }
    store.stamp(vec![change("s", ChangeKind::Add("f".to_owned()))]);
    store.stamp(vec![change("s", ChangeKind::Remove("e".to_owned()))]);
    assert_eq!(store.text("s").as_deref(), Some("f"));
    store.put("n", "now a value");
    assert_eq!(store.text("n").as_deref(), Some("now a value"));
}

#[test]
fn a_patch_changes_json_and_keeps_its_time() {
    let mut store = Store::new("seoul", &[]);
    let value = Value { is_json: true, bytes: br#"{"a":1,"b":{"c":2}}"#.to_vec().into() };
    store.stamp(vec![change("j", ChangeKind::Put { value, ttl: Some(Duration::from_secs(5)) })]);
    let patch = serde_json::json!({ "a": null, "b": { "d": 3 } });
    store.stamp(vec![change("j", ChangeKind::Patch(patch))]);
    assert_eq!(store.text("j").as_deref(), Some(r#"{"b":{"c":2,"d":3}}"#));
    store.pass(5_000);
    assert_eq!(store.text("j"), None);
    store.put("t", "text");
    let reply = store.write(vec![change("t", ChangeKind::Patch(serde_json::json!({})))]);
    assert!(matches!(refused(reply), Refusal::NotJson { .. }));
}

#[test]
fn limits_are_kept() {
    let mut store = Store::new("seoul", &[]);
    let too_large = |refusal| matches!(refusal, Refusal::TooLarge { .. });
    assert!(too_large(refused(store.write(vec![put("k", &"x".repeat(VALUE_BYTES_MAX + 1))]))));
    assert!(too_large(refused(store.write(vec![put("k", "v"); CHANGES_MAX + 1]))));
    assert!(too_large(refused(store.write(Vec::new()))));
    assert!(too_large(refused(store.write(vec![change("s", ChangeKind::Add("e".repeat(257)))]))));
    let many = (0..ELEMENTS_MAX).map(|at| change("s", ChangeKind::Add(at.to_string()))).collect();
    store.stamp(many);
    assert!(too_large(refused(store.write(vec![change("s", ChangeKind::Add("more".to_owned()))]))));
    store.stamp(vec![change("n", ChangeKind::Increment(i64::MAX))]);
    let reply = store.write(vec![change("n", ChangeKind::Increment(1))]);
    assert_eq!(refused(reply), Refusal::Overflow { key: key("n") });
    let few = store.hand_in(&write(vec![put("k", "v")], Durability::Remote(1)));
    assert_eq!(refused(store.reply(few).unwrap()), Refusal::TooFew { wanted: 1, there: 0 });
}

#[test]
fn a_write_is_answered_when_it_is_as_durable_as_asked() {
    let [mut seoul, mut frankfurt, mut virginia] = [
        Store::new("seoul", &["frankfurt", "virginia"]),
        Store::new("frankfurt", &["seoul", "virginia"]),
        Store::new("virginia", &["seoul", "frankfurt"]),
    ];
    let levels = [Durability::Memory, Durability::Local, Durability::Remote(1), Durability::Remote(2)];
    let [memory, local, one, two] = levels.map(|level| seoul.hand_in(&write(vec![put("k", "v")], level)));
    let all = seoul.hand_in(&write(vec![put("k", "v")], Durability::All));
    let is_done = |reply: Option<Reply>| matches!(reply, Some(Reply::Written { is_done: true, .. }));
    let replies: BTreeMap<u64, Reply> = seoul.replica.replies().into_iter().collect();
    assert_eq!(replies.keys().copied().collect::<Vec<_>>(), [memory]);
    assert!(is_done(replies.get(&memory).cloned()));
    seoul.commit();
    assert!(is_done(seoul.reply(local)));
    follow(&mut frankfurt, &mut seoul);
    assert!(is_done(seoul.reply(one)));
    follow(&mut virginia, &mut seoul);
    let replies: BTreeMap<u64, Reply> = seoul.replica.replies().into_iter().collect();
    assert_eq!(replies.keys().copied().collect::<Vec<_>>(), [two, all]);
}

#[test]
fn when_the_time_is_over_it_says_what_is_known() {
    let [mut seoul, mut frankfurt] =
        [Store::new("seoul", &["frankfurt", "virginia"]), Store::new("frankfurt", &["seoul"])];
    let ticket = seoul.hand_in(&write(vec![put("k", "v")], Durability::Remote(2)));
    seoul.pass(3_000);
    assert_eq!(seoul.reply(ticket), None, "whether it is on the disk is not known yet");
    seoul.commit();
    follow(&mut frankfurt, &mut seoul);
    seoul.tick();
    let whereabouts = Whereabouts {
        local: true,
        remote: vec!["frankfurt".to_owned()],
        missing: vec!["virginia".to_owned()],
    };
    match seoul.reply(ticket) {
        Some(Reply::Written { is_done: false, whereabouts: found, .. }) => assert_eq!(found, whereabouts),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_disk_that_fails_refuses_and_later_writes_go_on() {
    let [mut seoul, mut frankfurt] =
        [Store::new("seoul", &["frankfurt"]), Store::new("frankfurt", &["seoul"])];
    seoul.put("a", "1");
    for (error, is_unknown) in
        [(JournalError::Full("no space".to_owned()), false), (JournalError::Io("it clicks".to_owned()), true)]
    {
        let ticket = seoul.hand_in(&local(vec![put("a", "2"), put("b", "2")]));
        seoul.fail(&error);
        match seoul.reply(ticket).unwrap() {
            Reply::Unknown(_) => assert!(is_unknown),
            Reply::Refused(Refusal::Full(_)) => assert!(!is_unknown),
            other => panic!("{other:?}"),
        }
        assert_eq!((seoul.text("a").as_deref(), seoul.text("b")), (Some("1"), None));
        assert!(seoul.replica.failure().is_some());
    }
    seoul.put("b", "3");
    assert!(seoul.replica.failure().is_none());
    follow(&mut frankfurt, &mut seoul);
    assert_eq!(frankfurt.text("b").as_deref(), Some("3"));
}

#[test]
fn what_a_failed_disk_took_all_the_same_counts() {
    let mut store = Store::new("seoul", &[]);
    store.hand_in(&local(vec![put("a", "1")]));
    let batches = store.replica.to_append();
    store.journal.append(&batches).unwrap();
    store.replica.not_committed(&store.journal, &JournalError::Io("it clicks".to_owned()));
    store.tick();
    assert_eq!(store.text("a").as_deref(), Some("1"));
    store.put("a", "2");
    assert_eq!(store.text("a").as_deref(), Some("2"));
}

#[test]
fn what_was_not_made_durable_is_not_said_to_be_here() {
    let [mut seoul, mut frankfurt] =
        [Store::new("seoul", &["frankfurt"]), Store::new("frankfurt", &["seoul"])];
    follow(&mut frankfurt, &mut seoul);
    let ticket = seoul.hand_in(&write(vec![put("k", "v")], Durability::Remote(1)));
    seoul.commit();
    let mut stream = Stream::new(&mut frankfurt, &mut seoul).unwrap();
    let Some(Down::Batch(batch)) = stream.next(&seoul) else { panic!("no batch") };
    frankfurt.replica.receive(frankfurt.at, &mut frankfurt.keys, batch).unwrap();
    assert_eq!(frankfurt.text("k").as_deref(), Some("v"));
    frankfurt.fail(&JournalError::Full("no space".to_owned()));
    // It writes before it asks again: it has seen the value, and does not have it.
    frankfurt.put("other", "v");
    follow(&mut seoul, &mut frankfurt);
    assert_eq!(seoul.reply(ticket), None);
    follow(&mut frankfurt, &mut seoul);
    assert!(matches!(seoul.reply(ticket), Some(Reply::Written { is_done: true, .. })));
}
