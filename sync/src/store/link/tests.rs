//! What comes over a stream that is not as it should be: whoever sends it is told, and nothing is taken in.

use http_body_util::{BodyExt as _, Full};

use super::super::engine::{Store, StoreSettings, Threads};
use super::super::heads::Heads;
use super::super::op::tests::{key, value};
use super::super::replica::Retention;
use super::super::replica::Word;
use super::super::request::{Change, ChangeKind, Changes, Condition, Durability, Reply, Write};
use super::super::stamp::Origin;
use super::*;

fn store(directory: &std::path::Path, peers: &[&str]) -> (Store, Threads) {
    let clock = daemun_fleet::Clock {
        monotonic: crate::store::engine::tests::monotonic,
        unix_ms: || 1_800_000_000_000,
    };
    let settings = StoreSettings {
        directory: directory.to_owned(),
        datacenter: "seoul".to_owned(),
        peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
        clock,
        retention: Retention { entries_min: 0, entries_max: 1_000_000 },
    };
    Store::open(&settings).unwrap()
}

fn begin(version: u32, fleet: &str, datacenter: &str) -> Up {
    let me = Origin { datacenter: datacenter.to_owned(), incarnation: 1 };
    Up::Begin {
        version,
        fleet: fleet.to_owned(),
        word: Word { me: me.clone(), origins: vec![me], received: Heads::default() },
        after: Heads::default(),
        wants: ["seoul".to_owned()].into(),
    }
}

/// All that a feeder answers to one who sends this and says no more.
async fn answers(store: &Store, certified: Option<&str>, bytes: Bytes) -> Vec<Down> {
    let body = feed(store.clone(), "shop".to_owned(), certified.map(str::to_owned), Full::new(bytes));
    let bytes = Box::pin(body).collect().await.unwrap().to_bytes();
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    let mut found = Vec::new();
    while let Some(message) = decoder.next().unwrap() {
        found.push(message);
    }
    found
}

async fn denied(store: &Store, certified: Option<&str>, bytes: Bytes) -> String {
    match answers(store, certified, bytes).await.pop() {
        Some(Down::Denied(why)) => why,
        other => panic!("it was let in: {other:?}"),
    }
}

#[tokio::test]
async fn who_is_not_one_of_us_is_told_why() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _threads) = store(directory.path(), &["frankfurt"]);
    let why = denied(&store, None, encode(&begin(VERSION + 1, "shop", "frankfurt"))).await;
    assert!(why.contains("speaks version 2") && why.contains("this is version 1"), "{why}");
    let why = denied(&store, None, encode(&begin(0, "shop", "frankfurt"))).await;
    assert!(why.contains("speaks version 0"), "{why}");
    let why = denied(&store, None, encode(&begin(VERSION, "bank", "frankfurt"))).await;
    assert!(why.contains("of fleet `bank`, and this is fleet `shop`"), "{why}");
    let why = denied(&store, Some("frankfurt"), encode(&begin(VERSION, "shop", "virginia"))).await;
    assert!(why.contains("store of virginia, not of frankfurt"), "{why}");
    let why = denied(&store, None, encode(&begin(VERSION, "shop", "mars"))).await;
    assert!(why.contains("mars is not in the config"), "{why}");
    let why = denied(&store, None, encode(&begin(VERSION, "shop", "seoul"))).await;
    assert!(why.contains("two processes"), "{why}");
    let why = denied(&store, None, encode(&Up::After { received: Heads::default(), wants: None })).await;
    assert!(why.contains("say who it is"), "{why}");
    let why = denied(&store, None, Bytes::from_static(&[3, 0, 0, 0, 0, 9, 9, 9])).await;
    assert!(why.contains("does not parse"), "{why}");
    let why = denied(&store, None, Bytes::from_static(&[0xff; 64])).await;
    assert!(why.contains("at most"), "{why}");
    // And one who is, is let in.
    let found = answers(&store, Some("frankfurt"), encode(&begin(VERSION, "shop", "frankfurt"))).await;
    assert!(matches!(found.first(), Some(Down::Begin { .. })), "{found:?}");
}

/// A batch that is wrong in any way changes nothing, and the next right one is taken.
#[tokio::test]
async fn a_wrong_batch_is_refused_whole() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (seoul, _threads) = store(here.path(), &[]);
    let write = |name: &str| Write {
        what: Changes::Keys(vec![Change {
            key: key(name),
            condition: Condition::None,
            kind: ChangeKind::Put { value: value("v"), ttl: None },
        }]),
        durability: Durability::Local,
        patience: Duration::from_secs(5),
    };
    while matches!(seoul.write(write("a")).await, Reply::Refused(_)) {
        sleep(Duration::from_millis(5)).await;
    }
    seoul.write(write("b")).await;
    let word = seoul.word();
    let super::super::journal::Read::Next(Some(batch)) =
        super::super::journal::Logs::read_after(&seoul.0.log, word.me.id(), 0, usize::MAX).unwrap()
    else {
        panic!("there are entries")
    };
    let settings = StoreSettings {
        directory: there.path().to_owned(),
        datacenter: "frankfurt".to_owned(),
        peers: vec!["seoul".to_owned()],
        clock: seoul.0.clock,
        retention: Retention { entries_min: 0, entries_max: 1_000_000 },
    };
    let (frankfurt, _threads) = Store::open(&settings).unwrap();
    let take = async |message: Down| {
        let (done, took) = oneshot::channel();
        frankfurt.hand(Input::Down("seoul".to_owned(), message, done));
        took.await.unwrap().map_err(|error| error.to_string())
    };
    let unnamed = take(Down::Batch(batch.clone())).await.unwrap_err();
    assert!(unnamed.contains("not named"), "{unnamed}");
    take(Down::Heard((*word).clone())).await.unwrap();
    let gap = take(Down::Batch(batch.clone().after(1).unwrap())).await.unwrap_err();
    assert!(gap.contains("begins at 2, and 1 was expected"), "{gap}");
    let mut wrong = batch.clone();
    let mut record = wrong.records.last().unwrap().to_vec();
    *record.last_mut().unwrap() ^= 1;
    *wrong.records.last_mut().unwrap() = record.into();
    let checksum = take(Down::Batch(wrong)).await.unwrap_err();
    assert!(checksum.contains("another checksum"), "{checksum}");
    let diverged =
        take(Down::Batch(super::super::op::Batch { chain: 7, ..batch.clone() })).await.unwrap_err();
    assert!(diverged.contains("is not the one that is known here"), "{diverged}");
    assert_eq!(frankfurt.get(&key("a")).unwrap(), None, "nothing of any of them");
    take(Down::Batch(batch)).await.unwrap();
    assert!(frankfurt.get(&key("a")).unwrap().is_some() && frankfurt.get(&key("b")).unwrap().is_some());
}
