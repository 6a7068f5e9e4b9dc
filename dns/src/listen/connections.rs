//! Who is connected. There is a limit for all and one for each client; whoever comes over it takes the place of the
//! connection that has been idle longest (RFC 7766 section 6.2.2): of that client's if the client has too many, else of
//! all. A connection is active when a whole query has come, not when a byte has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::{Metrics, Transport};

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    /// In all: bounds memory, see [`super::STREAM_CAPS`].
    pub(crate) total: usize,
    /// For one client, an IPv4 address or an IPv6 /64: a large resolver opens a few.
    pub(crate) per_client: usize,
}

#[derive(Debug)]
struct Entry {
    client: Option<IpAddr>,
    active_ms: Arc<AtomicU64>,
    end: Arc<Notify>,
}

/// The connections of one transport.
#[derive(Debug)]
pub(crate) struct Connections {
    transport: Transport,
    caps: Caps,
    metrics: Metrics,
    /// By number, in the order of their coming.
    table: Mutex<(u64, HashMap<u64, Entry>)>,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    number: u64,
    active_ms: Arc<AtomicU64>,
    end: Arc<Notify>,
}

impl Connections {
    pub(crate) fn new(transport: Transport, caps: Caps, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { transport, caps, metrics, table: Mutex::default() })
    }

    /// A place for a newcomer, whatever it costs others. `client` is `None` as long as a proxy has not said who it is.
    pub(crate) fn admit(self: &Arc<Self>, client: Option<IpAddr>, now_ms: u64) -> Place {
        let active_ms = Arc::new(AtomicU64::new(now_ms));
        let end = Arc::new(Notify::new());
        let client = client.map(key);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(&mut table.1, client);
        table.0 += 1;
        let number = table.0;
        table.1.insert(number, Entry { client, active_ms: Arc::clone(&active_ms), end: Arc::clone(&end) });
        self.show(table.1.len());
        Place { connections: Arc::clone(self), number, active_ms, end }
    }

    fn make_room(&self, table: &mut HashMap<u64, Entry>, client: Option<IpAddr>) {
        let of_client = table.values().filter(|entry| entry.client == client).count();
        let (only, reason) = match client.is_some() && of_client >= self.caps.per_client {
            true => (client, "client_limit"),
            false if table.len() >= self.caps.total => (None, "evicted"),
            false => return,
        };
        let idle_longest = table
            .iter()
            .filter(|(_, entry)| only.is_none() || entry.client == only)
            .min_by_key(|(number, entry)| (entry.active_ms.load(Ordering::Relaxed), **number))
            .map(|(number, _)| *number);
        if let Some(entry) = idle_longest.and_then(|number| table.remove(&number)) {
            entry.end.notify_one();
            self.closed(reason);
        }
    }

    fn show(&self, open: usize) {
        let gauge = self.metrics.connections.with_label_values(&[self.transport.name()]);
        gauge.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Counts a connection that we end.
    pub(crate) fn closed(&self, reason: &str) {
        self.metrics.connections_closed.with_label_values(&[self.transport.name(), reason]).inc();
    }
}

/// Whoever has an IPv6 address has a /64 of them.
fn key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

impl Place {
    /// A whole query has come.
    pub(crate) fn touch(&self, now_ms: u64) {
        self.active_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When the last one came, milliseconds.
    pub(crate) fn active_ms(&self) -> u64 {
        self.active_ms.load(Ordering::Relaxed)
    }

    /// Ends when somebody else has got the place.
    pub(crate) async fn evicted(&self) {
        self.end.notified().await;
    }

    /// Who the client is has been learnt from a proxy.
    pub(crate) fn belongs_to(&self, client: IpAddr) {
        let client = Some(key(client));
        let mut table = self.connections.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mine) = table.1.remove(&self.number) else { return };
        self.connections.make_room(&mut table.1, client);
        table.1.insert(self.number, Entry { client, ..mine });
    }

    /// Counts that we end it.
    pub(crate) fn closed(&self, reason: &str) {
        self.connections.closed(reason);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.1.remove(&self.number);
        self.connections.show(table.1.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(total: usize, per_client: usize) -> Arc<Connections> {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        Connections::new(Transport::Tcp, Caps { total, per_client }, metrics)
    }

    fn is_evicted(place: &Place) -> bool {
        !place.connections.table.lock().unwrap().1.contains_key(&place.number)
    }

    #[test]
    fn the_longest_idle_makes_room() {
        let all = connections(3, 3);
        let places: Vec<Place> =
            (0..3).map(|host| all.admit(Some(IpAddr::from([192, 0, 2, host])), u64::from(host))).collect();
        places[0].touch(50);
        let newcomer = all.admit("192.0.2.9".parse().ok(), 60);
        assert_eq!(places.iter().map(is_evicted).collect::<Vec<_>>(), [false, true, false]);
        drop(places);
        assert!(!is_evicted(&newcomer));
        assert_eq!(all.table.lock().unwrap().1.len(), 1);
    }

    #[test]
    fn who_has_too_many_loses_one_of_their_own() {
        let all = connections(10, 2);
        let other = all.admit("192.0.2.1".parse().ok(), 0);
        let mine: Vec<Place> =
            (0..3).map(|port| all.admit(format!("2001:db8::{port}").parse().ok(), 10 + port)).collect();
        assert!(!is_evicted(&other), "idle for longer, but not of this client");
        assert_eq!(mine.iter().map(is_evicted).collect::<Vec<_>>(), [true, false, false]);
        let behind_proxy = all.admit(None, 20);
        behind_proxy.belongs_to("2001:db8::9".parse().unwrap());
        assert_eq!(mine.iter().map(is_evicted).collect::<Vec<_>>(), [true, true, false]);
        assert!(!is_evicted(&behind_proxy));
    }

    #[tokio::test]
    async fn the_evicted_are_told() {
        let all = connections(1, 1);
        let first = all.admit("192.0.2.1".parse().ok(), 0);
        let _second = all.admit("192.0.2.2".parse().ok(), 0);
        first.evicted().await;
    }
}
