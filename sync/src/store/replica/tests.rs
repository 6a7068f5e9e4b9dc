use super::super::feed::{Down, Feeder, Scan};
use super::super::journal::{Journal as _, MemoryJournal};
use super::super::op::tests::{key, value};
use super::super::op::{ELEMENTS_MAX, VALUE_BYTES_MAX, Value};
use super::super::request::{
    CHANGES_MAX, Change, ChangeKind, Changes, Condition, Durability, Refusal, Whereabouts, Write,
};
use super::super::verify;
use super::*;
use crate::store::cell::Seen;

mod following;
mod writing;

const BEGIN_UNIX_MS: u64 = 1_800_000_000_000;

/// The keys of a store, and how far it has applied.
#[derive(Debug, Default)]
struct Keys {
    map: BTreeMap<Key, Cell>,
    applied: Heads,
}

impl Cells for Keys {
    fn get(&mut self, key: &Key) -> Result<Option<Cell>, JournalError> {
        Ok(self.map.get(key).cloned())
    }

    fn set(&mut self, key: Key, cell: Cell) {
        self.map.insert(key, cell);
    }
}

impl Scan for Keys {
    fn scan(
        &self,
        after: Option<&Key>,
        upto: Option<&Key>,
        keys: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Cell)>, JournalError> {
        self.map.scan(after, upto, keys.min(1000), bytes)
    }

    fn applied(&self) -> Heads {
        self.applied.clone()
    }
}

/// A store in one process with its disk.
#[derive(Debug)]
struct Store {
    replica: Replica,
    journal: MemoryJournal,
    keys: Keys,
    at: Moment,
    tickets: u64,
}

fn origin(name: &str, incarnation: u64) -> Origin {
    Origin { datacenter: name.to_owned(), incarnation }
}

impl Store {
    /// Opened on what is there, with peers of these names.
    fn open(me: Origin, peers: &[&str], journal: MemoryJournal, keys: Keys, is_new: bool) -> Self {
        let at = Moment { now: Duration::from_secs(100), unix_ms: BEGIN_UNIX_MS };
        let opened = Opened { applied: keys.applied.clone(), is_new, ..Opened::default() };
        let mut replica = Replica::new(me, &journal, opened, at);
        replica.set_peers(peers.iter().map(|name| (*name).to_owned()));
        Self { replica, journal, keys, at, tickets: 0 }
    }

    /// One that takes writes: its peers did not answer.
    fn new(name: &str, peers: &[&str]) -> Self {
        let mut store = Self::open(origin(name, 1), peers, MemoryJournal::default(), Keys::default(), true);
        store.pass(10_000);
        assert!(store.replica.is_open());
        store.commit();
        store
    }

    fn pass(&mut self, ms: u64) {
        self.at.now += Duration::from_millis(ms);
        self.at.unix_ms += ms;
        self.tick();
    }

    fn tick(&mut self) {
        self.replica.tick(self.at, &self.journal, &mut self.keys).unwrap();
        self.keys.applied = self.replica.applied().clone();
    }

    fn commit(&mut self) {
        for origin in self.replica.to_name() {
            self.journal.name(&origin).unwrap();
        }
        let batches = self.replica.to_append();
        self.journal.append(&batches).unwrap();
        self.replica.committed(self.at, &mut self.keys).unwrap();
        self.keys.applied = self.replica.applied().clone();
    }

    fn fail(&mut self, error: &JournalError) {
        self.replica.to_name();
        self.replica.to_append();
        self.replica.not_committed(&self.journal, error);
    }

    /// Hands a write in; its ticket.
    fn hand_in(&mut self, write: &Write) -> u64 {
        self.tickets += 1;
        self.replica.write(self.at, &mut self.keys, self.tickets, write).unwrap();
        self.tickets
    }

    /// Writes and makes it durable; the reply.
    fn write(&mut self, changes: Vec<Change>) -> Reply {
        let ticket = self.hand_in(&local(changes));
        self.commit();
        self.reply(ticket).unwrap()
    }

    fn reply(&mut self, ticket: u64) -> Option<Reply> {
        self.replica.replies().into_iter().find(|(of, _)| *of == ticket).map(|(_, reply)| reply)
    }

    fn stamp(&mut self, changes: Vec<Change>) -> Stamp {
        match self.write(changes) {
            Reply::Written { stamps, .. } => stamps[0],
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, name: &str, text: &str) -> Stamp {
        self.stamp(vec![put(name, text)])
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.keys.map.get(&key(name))?.seen(self.at.unix_ms)? {
            Seen::Value(value) => Some(String::from_utf8(value.bytes.to_vec()).unwrap()),
            Seen::Counter(sum) => Some(sum.to_string()),
            Seen::Set(elements) => Some(elements.join(",")),
        }
    }

    fn name(&self) -> String {
        self.replica.origin().datacenter.clone()
    }
}

fn change(name: &str, kind: ChangeKind) -> Change {
    Change { key: key(name), condition: Condition::None, kind }
}

fn put(name: &str, text: &str) -> Change {
    change(name, ChangeKind::Put { value: value(text), ttl: None })
}

fn put_if(name: &str, text: &str, condition: Condition) -> Change {
    Change { condition, ..put(name, text) }
}

fn write(changes: Vec<Change>, durability: Durability) -> Write {
    Write { what: Changes::Keys(changes), durability, patience: Duration::from_secs(2) }
}

fn local(changes: Vec<Change>) -> Write {
    write(changes, Durability::Local)
}

/// A stream by which one follows the other.
struct Stream(Feeder);

impl Stream {
    fn new(follower: &mut Store, feeder: &mut Store) -> Result<Self, Denied> {
        let (name, word) = (follower.name(), follower.replica.word());
        feeder.replica.hear(feeder.at, &name, &word)?;
        let wants = follower.replica.wants(&feeder.name(), follower.at.now);
        let stream = Self(Feeder::new(&word.me, follower.replica.after(), wants));
        let word = feeder.replica.word();
        follower.replica.hear(follower.at, &feeder.name(), &word)?;
        Ok(stream)
    }

    fn next(&mut self, feeder: &Store) -> Option<Down> {
        let origins = feeder.replica.origins().map(|origin| (origin.id(), origin.clone())).collect();
        self.0.next(&feeder.journal, &feeder.keys, &origins).unwrap()
    }

    /// Everything that there is; how many messages.
    fn flow(&mut self, follower: &mut Store, feeder: &mut Store) -> Result<usize, Denied> {
        let mut count = 0;
        while let Some(message) = self.next(feeder) {
            count += 1;
            assert!(count < 1000, "without end");
            let took = follower.replica.take(follower.at, &mut follower.keys, &feeder.name(), message)?;
            if took.is_end_of_cells {
                for (origin, floor) in follower.replica.to_begin_at() {
                    follower.journal.begin_at(origin, floor).unwrap();
                }
            }
            follower.commit();
        }
        let word = follower.replica.word();
        feeder.replica.hear(feeder.at, &follower.name(), &word)?;
        Ok(count)
    }
}

/// One follows the other until nothing is left.
fn follow(follower: &mut Store, feeder: &mut Store) {
    Stream::new(follower, feeder).unwrap().flow(follower, feeder).unwrap();
}
