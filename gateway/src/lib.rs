//! The front door: the index page, files, and the list of servers, under the same view as the DNS answers.
//!
//! A request picks what was made before it came: [`page`]s by their ladder, [`files`], [`list`]s for all who rank alike, each
//! an [`asset`] in every form that it is sent in. [`request`], [`list`], [`preserve`], [`affinity`] and [`forwarded`] are
//! pure; [`serve`] owns the sockets.

pub mod affinity;
mod answer;
pub mod asset;
pub mod body;
pub mod fetch;
pub mod files;
pub mod forwarded;
pub mod fragments;
pub mod list;
mod listings;
mod making;
pub mod message;
mod metrics;
pub mod page;
mod panics;
pub mod preserve;
pub mod request;
pub mod serve;
pub mod ssi;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use daemun_fleet::config::VirtualHost;
use daemun_fleet::impaired::Impaired;
use daemun_fleet::{Clock, Placer};
use hyper::header::{self, HeaderName, HeaderValue};

use affinity::Assignments;
use asset::{Asset, Effort, Kind};
use files::Files;
use listings::Listings;
use making::Making;
pub use metrics::{Metrics, RouteName};
use page::{LastGood, PageFile, PageSource};
pub use panics::is_guarded;
use preserve::Kept;
use watch::Waiting;

/// Headers of everything, unless the config has others of their names.
const HARDENED: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
];
/// Where the page is from.
const SOURCE: HeaderName = HeaderName::from_static("x-door-source");
/// Our own scripts change with the program only.
const SCRIPT: Kind =
    Kind { media_type: "text/javascript; charset=utf-8", cache: "no-cache", effort: Effort::Once };

/// What the operator's files hold.
#[derive(Clone, Debug, Default)]
pub struct DoorFiles {
    /// In the order of the config.
    pub hosts: Vec<HostFiles>,
    /// An operator has said that all of it is meant, however odd it looks.
    pub is_meant: bool,
}

/// What they hold for one host.
#[derive(Clone, Debug)]
pub struct HostFiles {
    /// What the config says of it.
    pub host: VirtualHost,
    /// Its index page; none: none is named.
    pub page: Option<PageFile>,
    /// The rest.
    pub files: Arc<Files>,
}

impl HostFiles {
    /// What the host is called: its first name, or nothing.
    pub fn name(&self) -> &str {
        self.host.names.first().map_or("", String::as_str)
    }
}

/// Headers of everything a host sends.
pub fn headers(host: &VirtualHost) -> Vec<(HeaderName, HeaderValue)> {
    let own = host.headers.iter().filter_map(|(name, value)| {
        Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
    });
    let own: Vec<_> = own.collect();
    let ours = HARDENED.into_iter().filter(|(name, _)| own.iter().all(|(own, _)| own != name));
    let ours: Vec<_> = ours.map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
    ours.into_iter().chain(own).collect()
}

/// All that an answer is made from; swapped as one.
#[derive(Debug)]
struct State {
    placer: Arc<Placer>,
    hosts: Vec<HostState>,
    /// Number of a host by each of its names.
    by_name: HashMap<String, usize>,
    /// The host for all other names.
    for_all: Option<usize>,
    listings: Listings,
    kept: Vec<Kept>,
    /// Hosts of pages that may read the list.
    readers: HashSet<String>,
}

#[derive(Debug)]
struct HostState {
    source: PageSource,
    page: Asset,
    files: Arc<Files>,
    /// Files that have includes, put together, by their path.
    assembled: HashMap<String, Arc<Asset>>,
}

/// What a door is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// Its datacenter.
    pub me: String,
    /// What it counts.
    pub metrics: Metrics,
    /// Its clock.
    pub clock: Clock,
    /// Pages that an earlier process has kept, by name of the host.
    pub kept: BTreeMap<String, LastGood>,
}

/// The front door of one datacenter.
#[derive(Debug)]
pub struct Door {
    me: String,
    state: ArcSwap<State>,
    making: Mutex<Making>,
    assignments: Mutex<Assignments>,
    scripts: [Asset; 2],
    waiting: Mutex<Waiting>,
    is_draining: AtomicBool,
    /// Told of each new state, and at the end.
    changed: tokio::sync::watch::Sender<u64>,
    metrics: Metrics,
    clock: Clock,
    impaired: Arc<Impaired>,
}

impl Door {
    /// A door, ready to answer.
    pub fn new(settings: Settings, placer: Arc<Placer>, files: Arc<DoorFiles>) -> Arc<Self> {
        let Settings { me, metrics, clock, kept } = settings;
        let mut making = Making::new(placer, files, kept);
        let state = making.state(&me, &metrics, clock);
        let script = |text: &'static str| {
            let asset = Asset::new(&SCRIPT, Bytes::from_static(text.as_bytes()), (clock.unix_ms)() / 1000);
            let headers = HARDENED.map(|(name, value)| (name, HeaderValue::from_static(value)));
            asset.with_headers(headers.iter().map(|(name, value)| (name, value)))
        };
        Arc::new(Self {
            me,
            state: ArcSwap::from_pointee(state),
            making: Mutex::new(making),
            assignments: Mutex::default(),
            scripts: [
                script(include_str!("../assets/daemun.js")),
                script(include_str!("../assets/daemun-page.js")),
            ],
            waiting: Mutex::default(),
            is_draining: AtomicBool::new(false),
            changed: tokio::sync::watch::Sender::new(0),
            metrics,
            clock,
            impaired: Arc::default(),
        })
    }

    /// How it fails, when it is to.
    pub fn impaired(&self) -> &Arc<Impaired> {
        &self.impaired
    }

    fn making(&self) -> MutexGuard<'_, Making> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last good pages, by name of the host: for the next process to begin with.
    pub fn last_good(&self) -> BTreeMap<String, LastGood> {
        let ladders = &self.making().ladders;
        let good =
            ladders.iter().filter_map(|(host, ladder)| Some((host.clone(), ladder.last_good()?.clone())));
        good.collect()
    }

    /// What is wrong with pages that are not shown for it.
    pub fn complaints(&self) -> Vec<String> {
        self.making().complaints.clone()
    }

    /// Replaces what answers are made from; requests under way finish with the old.
    pub fn set_state(&self, placer: Arc<Placer>, files: Arc<DoorFiles>) {
        self.remake(|making, now_unix_ms| {
            let fleet = |placer: &Placer| Arc::clone(placer.steering().config());
            let (before, now) = (fleet(&making.placer), fleet(&placer));
            if files.is_meant {
                making.kept.clear();
            }
            if !Arc::ptr_eq(&before, &now) {
                let (before, now) = (&before.fleet, &now.fleet);
                making.kept = preserve::kept(before, &making.kept, now, files.is_meant, now_unix_ms);
                if !making.kept.is_empty() {
                    tracing::warn!(
                        servers = making.kept.len(),
                        "most servers of a role are gone from the config at once: they stay listed for 5 minutes; SIGHUP says that it is meant"
                    );
                }
            }
            making.change(placer, files);
        });
    }

    /// Makes a new state after a change of what it is made from.
    fn remake(&self, change: impl FnOnce(&mut Making, u64)) {
        let mut making = self.making();
        let now_unix_ms = (self.clock.unix_ms)();
        change(&mut making, now_unix_ms);
        making.kept = preserve::still(&making.kept, now_unix_ms);
        let state = making.state(&self.me, &self.metrics, self.clock);
        self.state.store(Arc::new(state));
        drop(making);
        self.changed.send_modify(|number| *number += 1);
    }

    /// From now on answers say that the door closes, and who waits is sent away.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        self.changed.send_modify(|number| *number += 1);
    }

    /// Milliseconds since some moment.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from((self.clock.monotonic)().as_millis()).unwrap_or(u64::MAX)
    }

    fn now_unix_ms(&self) -> u64 {
        (self.clock.unix_ms)()
    }

    /// Told, by another number, of each change of what is shown.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether a peer is a proxy of ours: then it is not one client.
    pub(crate) fn is_proxy(&self, peer: IpAddr) -> bool {
        let state = self.state.load();
        let trusted = &state.placer.steering().config().gateway.trusted_proxies;
        trusted.iter().any(|net| net.contains(&peer.to_canonical()))
    }

    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
