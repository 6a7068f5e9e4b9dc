//! Who is connected. There is a limit for all and one for each client; whoever comes over it takes the place of the
//! connection that has been idle longest (RFC 7766 section 6.2.2): of that client's if the client has too many, else of
//! all. A connection is active when a whole query has come, not when a byte has.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// In all: bounds memory.
    pub total: usize,
    /// For one client, an IPv4 address or an IPv6 /64.
    pub per_client: usize,
}

/// Who is told how many there are.
pub trait Tally: fmt::Debug + Send + Sync {
    /// So many are open.
    fn open(&self, count: usize);
    /// One was closed by us, and why.
    fn closed(&self, reason: &'static str);
}

#[derive(Debug)]
struct Entry {
    client: Option<IpAddr>,
    activity: Arc<Activity>,
    end: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Activity {
    /// When the last whole query came, milliseconds.
    active_ms: AtomicU64,
    /// How long after that the next has to come; 0: that is another's to see to.
    patience_ms: AtomicU64,
}

/// The connections of one kind.
#[derive(Debug)]
pub struct Connections {
    caps: Caps,
    tally: Box<dyn Tally>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Of the newest.
    number: u64,
    /// By number, in the order of their coming.
    entries: HashMap<u64, Entry>,
    by_client: HashMap<IpAddr, usize>,
}

impl Table {
    fn insert(&mut self, number: u64, entry: Entry) {
        if let Some(client) = entry.client {
            *self.by_client.entry(client).or_default() += 1;
        }
        self.entries.insert(number, entry);
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        if let Some(client) = entry.client
            && let Some(count) = self.by_client.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&client);
            }
        }
        Some(entry)
    }
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    number: u64,
    activity: Arc<Activity>,
    end: Arc<Notify>,
}

impl Connections {
    /// Nobody yet.
    pub fn new(caps: Caps, tally: impl Tally + 'static) -> Arc<Self> {
        Arc::new(Self { caps, tally: Box::new(tally), table: Mutex::default() })
    }

    /// A place for a newcomer, whatever it costs others. `client` is `None` as long as a proxy has not said who it is.
    pub fn admit(self: &Arc<Self>, client: Option<IpAddr>, now_ms: u64) -> Place {
        let activity = Arc::new(Activity { active_ms: AtomicU64::new(now_ms), ..Activity::default() });
        let end = Arc::new(Notify::new());
        let client = client.map(network);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(&mut table, client);
        table.number += 1;
        let number = table.number;
        table.insert(number, Entry { client, activity: Arc::clone(&activity), end: Arc::clone(&end) });
        self.tally.open(table.entries.len());
        Place { connections: Arc::clone(self), number, activity, end }
    }

    fn make_room(&self, table: &mut Table, client: Option<IpAddr>) {
        let of_client = client.and_then(|client| table.by_client.get(&client)).copied().unwrap_or_default();
        let (only, reason) = match of_client >= self.caps.per_client {
            true => (client, "client_limit"),
            false if table.entries.len() >= self.caps.total => (None, "evicted"),
            false => return,
        };
        let idle_longest = table
            .entries
            .iter()
            .filter(|(_, entry)| only.is_none() || entry.client == only)
            .min_by_key(|(number, entry)| (entry.activity.active_ms.load(Ordering::Relaxed), **number))
            .map(|(number, _)| *number);
        if let Some(entry) = idle_longest.and_then(|number| table.remove(number)) {
            entry.end.notify_one();
            self.closed(reason);
        }
    }

    /// Ends those whose next query has not come in the time that they have.
    pub fn end_slow(&self, now_ms: u64) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let is_slow = |entry: &Entry| {
            let patience_ms = entry.activity.patience_ms.load(Ordering::Relaxed);
            patience_ms > 0
                && now_ms.saturating_sub(entry.activity.active_ms.load(Ordering::Relaxed)) >= patience_ms
        };
        let slow = table.entries.iter().filter(|(_, entry)| is_slow(entry)).map(|(number, _)| *number);
        for number in slow.collect::<Vec<_>>() {
            if let Some(entry) = table.remove(number) {
                entry.end.notify_one();
                self.closed("idle");
            }
        }
    }

    /// Tells all that it is time to end.
    pub fn end_all(&self) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entries.values().for_each(|entry| entry.end.notify_one());
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).entries.len()
    }

    /// How many have been let in since the beginning.
    pub fn admitted(&self) -> u64 {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).number
    }

    /// Counts a connection that we end.
    pub fn closed(&self, reason: &'static str) {
        self.tally.closed(reason);
    }
}

/// What counts as one client: whoever has an IPv6 address has a /64 of them.
pub fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

impl Place {
    /// A whole query has come.
    pub fn touch(&self, now_ms: u64) {
        self.activity.active_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When the last one came, milliseconds.
    pub fn active_ms(&self) -> u64 {
        self.activity.active_ms.load(Ordering::Relaxed)
    }

    /// How long after a whole query the next has to come, or [`Connections::end_slow`] ends this; zero: for ever.
    pub fn set_patience(&self, patience: Duration) {
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.activity.patience_ms.store(patience_ms, Ordering::Relaxed);
    }

    /// Ends when somebody else has got the place, when the client is too slow, or when all are to end.
    pub async fn ended(&self) {
        self.end.notified().await;
    }

    /// Whether the place is another's by now, or nobody's.
    pub fn is_lost(&self) -> bool {
        let table = self.connections.table.lock().unwrap_or_else(PoisonError::into_inner);
        !table.entries.contains_key(&self.number)
    }

    /// Who the client is has been learnt from a proxy.
    pub fn belongs_to(&self, client: IpAddr) {
        let client = Some(network(client));
        let mut table = self.connections.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mine) = table.remove(self.number) else { return };
        self.connections.make_room(&mut table, client);
        table.insert(self.number, Entry { client, ..mine });
    }

    /// Counts that we end it.
    pub fn closed(&self, reason: &'static str) {
        self.connections.closed(reason);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(self.number);
        self.connections.tally.open(table.entries.len());
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::task::{Context, Waker};

    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl Tally for Nobody {
        fn open(&self, _count: usize) {}

        fn closed(&self, _reason: &'static str) {}
    }

    fn connections(total: usize, per_client: usize) -> Arc<Connections> {
        Connections::new(Caps { total, per_client }, Nobody)
    }

    #[test]
    fn the_longest_idle_makes_room() {
        let all = connections(3, 3);
        let places: Vec<Place> =
            (0..3).map(|host| all.admit(Some(IpAddr::from([192, 0, 2, host])), u64::from(host))).collect();
        places[0].touch(50);
        let newcomer = all.admit("192.0.2.9".parse().ok(), 60);
        assert_eq!(places.iter().map(Place::is_lost).collect::<Vec<_>>(), [false, true, false]);
        drop(places);
        assert!(!newcomer.is_lost());
        let table = all.table.lock().unwrap();
        assert_eq!((table.entries.len(), table.by_client.len()), (1, 1));
    }

    #[test]
    fn who_has_too_many_loses_one_of_their_own() {
        let all = connections(10, 2);
        let other = all.admit("192.0.2.1".parse().ok(), 0);
        let mine: Vec<Place> =
            (0..3).map(|port| all.admit(format!("2001:db8::{port}").parse().ok(), 10 + port)).collect();
        assert!(!other.is_lost(), "idle for longer, but not of this client");
        assert_eq!(mine.iter().map(Place::is_lost).collect::<Vec<_>>(), [true, false, false]);
        let behind_proxy = all.admit(None, 20);
        behind_proxy.belongs_to("2001:db8::9".parse().unwrap());
        assert_eq!(mine.iter().map(Place::is_lost).collect::<Vec<_>>(), [true, true, false]);
        assert!(!behind_proxy.is_lost());
    }

    #[test]
    fn the_slow_are_ended() {
        let all = connections(9, 9);
        let [slow, busy, free] = [0, 0, 0].map(|now_ms| all.admit("192.0.2.1".parse().ok(), now_ms));
        slow.set_patience(Duration::from_secs(15));
        busy.set_patience(Duration::from_secs(15));
        busy.touch(10_000);
        all.end_slow(14_999);
        assert!(!slow.is_lost());
        all.end_slow(15_000);
        assert_eq!([&slow, &busy, &free].map(|place| place.is_lost()), [true, false, false]);
    }

    #[test]
    fn the_evicted_are_told() {
        let all = connections(1, 1);
        let first = all.admit("192.0.2.1".parse().ok(), 0);
        let mut told = std::pin::pin!(first.ended());
        let mut context = Context::from_waker(Waker::noop());
        assert!(told.as_mut().poll(&mut context).is_pending());
        let _second = all.admit("192.0.2.2".parse().ok(), 0);
        assert!(told.poll(&mut context).is_ready());
    }
}
