//! The front door: the index page, files, and the list of servers, under the same view as the DNS answers.
//!
//! A request picks what was made before it came: [`page`]s by their ladder, [`files`], [`list`]s for all who rank alike, each
//! an [`asset`] in every form that it is sent in. [`request`], [`list`], [`preserve`], [`affinity`] and [`forwarded`] are
//! pure; [`serve`] owns the sockets.

pub mod affinity;
mod answer;
pub mod asset;
pub mod body;
pub mod files;
pub mod forwarded;
pub mod fragments;
pub mod list;
mod listings;
mod metrics;
pub mod page;
mod panics;
pub mod preserve;
pub mod request;
pub mod serve;
pub mod ssi;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use daemun_fleet::config::{DOOR_ROLE, VirtualHost};
use daemun_fleet::places::Place;
use daemun_fleet::{Clock, Placer};
use hyper::header::{self, HeaderName, HeaderValue};

use affinity::Assignments;
use asset::{Asset, Effort, Kind};
use files::Files;
use list::{Asked, Lister, ServerList};
use listings::Listings;
pub use metrics::{Metrics, RouteName};
use page::{Candidate, Ladder, LastGood, PageFile, PageSource};
pub use panics::is_guarded;
use preserve::Kept;

/// Headers of everything, unless the config has others of their names.
const HARDENED: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
];
/// What the page compiled in may do: its own style and scripts, and asking doors.
const COMPILED_IN_MAY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src http: https:; \
                               img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
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
}

/// What states are made from, and what they leave behind.
#[derive(Debug)]
struct Making {
    placer: Arc<Placer>,
    files: Arc<DoorFiles>,
    /// By name of the host.
    ladders: BTreeMap<String, Ladder>,
    kept: Vec<Kept>,
    complaints: Vec<String>,
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
    watchers: AtomicUsize,
    is_draining: AtomicBool,
    /// Told of each new state, and at the end.
    changed: tokio::sync::watch::Sender<u64>,
    metrics: Metrics,
    clock: Clock,
}

impl Door {
    /// A door, ready to answer.
    pub fn new(settings: Settings, placer: Arc<Placer>, files: Arc<DoorFiles>) -> Arc<Self> {
        let Settings { me, metrics, clock, kept } = settings;
        let ladders = kept.into_iter().map(|(host, page)| (host, Ladder::new(Some(page)))).collect();
        let mut making = Making { placer, files, ladders, kept: Vec::new(), complaints: Vec::new() };
        let state = making.state(&me, &metrics, (clock.unix_ms)());
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
            watchers: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            changed: tokio::sync::watch::Sender::new(0),
            metrics,
            clock,
        })
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
            (making.placer, making.files) = (placer, files);
        });
    }

    fn remake(&self, change: impl FnOnce(&mut Making, u64)) {
        let mut making = self.making();
        let now_unix_ms = (self.clock.unix_ms)();
        change(&mut making, now_unix_ms);
        making.kept = preserve::still(&making.kept, now_unix_ms);
        let state = making.state(&self.me, &self.metrics, now_unix_ms);
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

    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }
}

impl Making {
    fn state(&mut self, me: &str, metrics: &Metrics, now_unix_ms: u64) -> State {
        let (placer, files) = (Arc::clone(&self.placer), Arc::clone(&self.files));
        metrics.lists_are_of(placer.view().generation);
        let (mut hosts, mut by_name, mut for_all) = (Vec::new(), HashMap::new(), None);
        let mut complaints = Vec::new();
        for (number, host) in files.hosts.iter().enumerate() {
            let live = host.page.as_ref().map(|page| Candidate {
                body: page.clone(),
                is_assembled: false,
                holes: 0,
            });
            let compiled_in =
                || page::compiled_in(&placer, &servers_from_here(&placer, &self.kept, me, now_unix_ms));
            let ladder = self.ladders.entry(host.name().to_owned()).or_default();
            let (page, complaint) =
                ladder.choose(live.as_ref(), &host.host.marker, files.is_meant, compiled_in, now_unix_ms);
            complaints.extend(complaint.map(|complaint| match host.name() {
                "" => format!("index page not shown: {complaint}"),
                name => format!("index page of {name} not shown: {complaint}"),
            }));
            metrics.page_is(host.name(), page.source);
            let mut headers = headers(&host.host);
            headers.push((SOURCE, HeaderValue::from_static(page.source.name())));
            if page.source == PageSource::CompiledIn {
                headers.retain(|(name, _)| *name != header::CONTENT_SECURITY_POLICY);
                headers.push((header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(COMPILED_IN_MAY)));
            }
            let page_asset = page.asset.with_headers(headers.iter().map(|(name, value)| (name, value)));
            hosts.push(HostState { source: page.source, page: page_asset, files: Arc::clone(&host.files) });
            by_name.extend(host.host.names.iter().map(|name| (name.clone(), number)));
            if host.host.names.is_empty() {
                for_all = Some(number);
            }
        }
        for complaint in complaints.iter().filter(|complaint| !self.complaints.contains(complaint)) {
            tracing::warn!("{complaint}");
        }
        self.complaints = complaints;
        let readers = readers(&placer, &files);
        State {
            placer,
            hosts,
            by_name,
            for_all,
            listings: Listings::default(),
            kept: self.kept.clone(),
            readers,
        }
    }
}

/// The list for somebody who is where we are: those whom DNS sends here mostly are.
fn servers_from_here(placer: &Placer, kept: &[Kept], me: &str, now_unix_ms: u64) -> ServerList {
    let fleet = &placer.steering().config().fleet;
    let here = fleet.datacenter(me).unwrap_or_default();
    let mut order: Vec<usize> = (0..fleet.datacenters.len()).collect();
    let distance =
        |number: &usize| fleet.datacenters[here].point.distance_km(fleet.datacenters[*number].point);
    order.sort_by_key(|number| (*number != here, distance(number)));
    let lister = Lister { placer, kept, me, source: PageSource::CompiledIn.name() };
    lister.list(&Asked { order: &order, place: &Place::default(), role: None, key: None }, now_unix_ms)
}

/// Hosts whose pages may read the list: ours, those that are steered to us, and the doors.
fn readers(placer: &Placer, files: &DoorFiles) -> HashSet<String> {
    let config = placer.steering().config();
    let named = files.hosts.iter().flat_map(|host| host.host.names.iter().cloned());
    let steered = config.dns.names.iter().map(|name| name.name.clone());
    let doors = config.fleet.servers.iter().filter(|server| server.role == DOOR_ROLE);
    let doors = doors.filter_map(|server| server.url.as_ref()?.host_str().map(str::to_owned));
    named.chain(steered).chain(doors).collect()
}

#[cfg(test)]
mod tests;
