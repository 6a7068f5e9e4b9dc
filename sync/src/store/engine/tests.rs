//! The store on a real disk: what survives what.

use std::sync::LazyLock;
use std::time::Instant;

use super::super::op::Key;
use super::super::op::tests::{key, value};
use super::super::request::{Change, ChangeKind, Changes, Condition, Durability, Refusal};
use super::*;

#[expect(clippy::disallowed_methods, reason = "a test starts the clock that it hands in")]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(in crate::store) fn monotonic() -> Duration {
    START.elapsed()
}

fn unix_ms() -> u64 {
    1_800_000_000_000 + u64::try_from(monotonic().as_millis()).unwrap()
}

fn settings(directory: &Path) -> StoreSettings {
    StoreSettings {
        directory: directory.to_owned(),
        datacenter: "seoul".to_owned(),
        peers: Vec::new(),
        clock: Clock { monotonic, unix_ms },
        retention: Retention { entries_min: 10, entries_max: 1000 },
    }
}

fn put(name: &str, text: &str) -> Write {
    let kind = ChangeKind::Put { value: value(text), ttl: None };
    Write {
        what: Changes::Keys(vec![Change { key: key(name), condition: Condition::None, kind }]),
        durability: Durability::Local,
        patience: Duration::from_secs(5),
    }
}

/// Writes, once the store is open.
async fn written(store: &Store, write: Write) {
    loop {
        match store.write(write.clone()).await {
            Reply::Written { is_done: true, .. } => return,
            Reply::Refused(Refusal::NotOpen(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            other => panic!("{other:?}"),
        }
    }
}

fn text(store: &Store, name: &str) -> Option<String> {
    let cell = store.get(&key(name)).unwrap()?;
    let value = cell.register?.value?;
    Some(String::from_utf8(value.bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn it_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let origin = {
        let (store, _threads) = Store::open(&settings(directory.path())).unwrap();
        for number in 0..100 {
            written(&store, put(&number.to_string(), "1")).await;
        }
        store.status().origin.clone()
    };
    let (store, _threads) = Store::open(&settings(directory.path())).unwrap();
    assert_eq!(store.status().origin, origin);
    assert_eq!(text(&store, "99").as_deref(), Some("1"));
    written(&store, put("99", "2")).await;
    assert_eq!(text(&store, "99").as_deref(), Some("2"));
}

/// The keys are lost, the log is not: they are made good from it.
#[tokio::test]
async fn keys_are_made_good_from_the_log() {
    let directory = tempfile::tempdir().unwrap();
    {
        let (store, _threads) = Store::open(&settings(directory.path())).unwrap();
        for number in 0..50 {
            written(&store, put(&number.to_string(), "1")).await;
        }
    }
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        // Some of them are not there after a good end.
        let _ = std::fs::remove_file(directory.path().join(file));
    }
    let (store, _threads) = Store::open(&settings(directory.path())).unwrap();
    for _ in 0..1000 {
        if text(&store, "49").is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for number in 0..50 {
        assert_eq!(text(&store, &number.to_string()).as_deref(), Some("1"), "{number}");
    }
}

#[tokio::test]
async fn one_owner_and_copies_are_others() {
    let directory = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let origin = {
        let (store, _threads) = Store::open(&settings(directory.path())).unwrap();
        written(&store, put("a", "1")).await;
        assert!(matches!(Store::open(&settings(directory.path())), Err(OpenError::Locked(_))));
        store.status().origin.clone()
    };
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let (store, _threads) = Store::open(&settings(copy.path())).unwrap();
    assert_ne!(store.status().origin, origin, "a copy would use numbers twice");
    assert_eq!(text(&store, "a"), None, "and bring back what others have forgotten");
    assert!(copy.path().join("aside-1/log.db").exists(), "nothing is thrown away");
    written(&store, put("b", "1")).await;
}

/// The disk goes back in time under the same file: as soon as another says that it knows more, nothing is taken or given any
/// more, and the next start begins anew.
#[tokio::test]
async fn an_old_disk_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { peers: vec!["frankfurt".to_owned()], ..settings(directory.path()) };
    let origin = {
        let (store, _threads) = Store::open(&settings).unwrap();
        let me = store.word().me.clone();
        let other = Origin { datacenter: "frankfurt".to_owned(), incarnation: 1 };
        let hear = async |received: u64| {
            let word = Word {
                me: other.clone(),
                origins: vec![me.clone(), other.clone()],
                received: [(me.id(), received)].into_iter().collect(),
            };
            let (done, heard) = oneshot::channel();
            store.hand(Input::Heard("frankfurt".to_owned(), word, done));
            heard.await.unwrap()
        };
        hear(0).await.unwrap();
        written(&store, put("a", "1")).await;
        hear(1_000_000).await.unwrap();
        let refused = loop {
            match store.write(put("b", "1")).await {
                Reply::Refused(Refusal::Disk(why)) => break why,
                Reply::Refused(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => panic!("{other:?}"),
            }
        };
        assert!(refused.contains("older than what others know"), "{refused}");
        assert!(store.refusal().is_some() && hear(1).await.is_err());
        me
    };
    let (store, _threads) = Store::open(&settings).unwrap();
    assert_ne!(store.word().me, origin);
    assert_eq!(text(&store, "a"), None);
    assert!(directory.path().join("aside-1/log.db").exists());
}

#[test]
fn what_is_not_ours_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = rusqlite::Connection::open(directory.path().join("log.db")).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (a)").unwrap();
    assert!(matches!(Store::open(&settings(directory.path())), Err(OpenError::Foreign(_))));
    let newer = tempfile::tempdir().unwrap();
    drop(Store::open(&settings(newer.path())).unwrap());
    let log = rusqlite::Connection::open(newer.path().join("log.db")).unwrap();
    log.pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&settings(newer.path())).unwrap_err().to_string();
    assert!(error.contains("version 99") && error.contains("newer daemun"), "{error}");
    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join("state.db"), vec![0x5a; 8192]).unwrap();
    let error = Store::open(&settings(broken.path())).unwrap_err().to_string();
    assert!(error.contains("corrupt") && error.contains("daemun kv rebuild"), "{error}");
    let elsewhere = StoreSettings { datacenter: "virginia".to_owned(), ..settings(newer.path()) };
    log.pragma_update(None, "user_version", 1).unwrap();
    let error = Store::open(&elsewhere).unwrap_err().to_string();
    assert!(error.contains("store of datacenter seoul"), "{error}");
}

/// The log is let go of behind what is needed, and keys are paged in order whatever is written meanwhile.
#[tokio::test]
async fn the_log_is_bounded_and_pages_are_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _threads) = Store::open(&settings(directory.path())).unwrap();
    for number in 0..3000 {
        written(&store, put(&format!("{:04}", number % 500), "1")).await;
        if number % 700 == 0 {
            let (mut after, mut seen) = (None::<String>, Vec::new());
            loop {
                let page = store.page("b", "", after.as_deref(), 37, 4000).unwrap();
                let Some((last, _)) = page.last() else { break };
                after = Some(last.name().to_owned());
                seen.extend(page.iter().map(|(key, _)| key.name().to_owned()));
            }
            let expected: Vec<String> = (0..=number.min(499)).map(|number| format!("{number:04}")).collect();
            assert_eq!(seen, expected);
        }
    }
    assert_eq!(store.page("b", "01", None, 1000, usize::MAX).unwrap().len(), 100);
    assert_eq!(store.page("b", "0123", Some("0123"), 1000, usize::MAX).unwrap().len(), 0);
    assert_eq!(store.page("a", "", None, 1000, usize::MAX).unwrap(), []);
    let kept = || store.status().log_entries;
    for _ in 0..1500 {
        if kept() < 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(kept() < 100, "{} entries are kept", kept());
    assert!(Key::new("b", "x").is_ok());
}
