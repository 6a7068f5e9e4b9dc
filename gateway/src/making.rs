//! How a door's [`State`] is made: from the view, the operator's files, and the fragments that pages are put together from.
//! Done when one of these changes, never in a request.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daemun_fleet::config::{Config, DOOR_ROLE, VirtualHost};
use daemun_fleet::places::Place;
use daemun_fleet::{Clock, Placer};
use hyper::header::{self, HeaderValue};

use crate::asset::{Asset, Effort, Kind};
use crate::files::{Files, Found};
use crate::fragments::FragmentCache;
use crate::list::{Lister, ServerList, Wanted};
use crate::listings::{Listings, likeness};
use crate::page::{self, Candidate, Ladder, LastGood, PageSource};
use crate::preserve::Kept;
use crate::ssi::{Fragment, Include, Limits, Sources, Template, assemble};
use crate::{DoorFiles, HostFiles, HostState, Metrics, SOURCE, State, headers};

/// What the page compiled in may do: its own style and scripts, and asking doors.
const COMPILED_IN_MAY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src http: https:; \
                               img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
/// So long after the start there may be fragments that nobody could have fetched yet.
const YOUNG: Duration = Duration::from_secs(5);
/// A file that is put together from parts: it changes when they do.
const ASSEMBLED: Kind =
    Kind { media_type: "text/html; charset=utf-8", cache: "no-cache", effort: Effort::Often };

/// By host, as the config has it, and path.
type Assembled = HashMap<(VirtualHost, String), Arc<Asset>>;

/// What states are made from, and what they leave behind.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) placer: Arc<Placer>,
    pub(crate) files: Arc<DoorFiles>,
    /// By name of the host.
    pub(crate) ladders: BTreeMap<String, Ladder>,
    pub(crate) kept: Vec<Kept>,
    /// An operator has said so of what is to be shown now; not of what comes later.
    is_meant: bool,
    /// When this began.
    begun: Option<Duration>,
    pub(crate) complaints: Vec<String>,
    pub(crate) fragments: FragmentCache,
    /// Files as they were put together the last time.
    assembled: Assembled,
    /// Names of hosts that have a page, and show the one compiled in.
    pub(crate) bare: Vec<String>,
    /// The server list for the inside of pages, and what makes it another.
    embedded: (String, String),
}

impl Making {
    pub(crate) fn new(placer: Arc<Placer>, files: Arc<DoorFiles>, kept: BTreeMap<String, LastGood>) -> Self {
        Self {
            fragments: fragments(placer.steering().config()),
            placer,
            files,
            ladders: kept.into_iter().map(|(host, page)| (host, Ladder::new(Some(page)))).collect(),
            kept: Vec::new(),
            is_meant: false,
            begun: None,
            complaints: Vec::new(),
            assembled: Assembled::new(),
            bare: Vec::new(),
            embedded: Default::default(),
        }
    }

    pub(crate) fn change(&mut self, placer: Arc<Placer>, files: Arc<DoorFiles>) {
        let (before, now) = (self.placer.steering().config(), placer.steering().config());
        if before.gateway.origins != now.gateway.origins {
            let old = std::mem::replace(&mut self.fragments, fragments(now));
            self.fragments.adopt(old, |old, new| {
                let url = |config: &Config, number: usize| {
                    config.gateway.origins.get(number).map(|origin| origin.url.clone())
                };
                url(before, old).is_some() && url(before, old) == url(now, new)
            });
        }
        if !Arc::ptr_eq(&self.files, &files) {
            self.is_meant = files.is_meant;
            // A host that is no more leaves nothing behind.
            self.ladders.retain(|name, _| files.hosts.iter().any(|host| host.name() == name));
        }
        (self.placer, self.files) = (placer, files);
    }

    pub(crate) fn state(&mut self, me: &str, metrics: &Metrics, clock: Clock) -> State {
        let (placer, files, now_unix_ms) =
            (Arc::clone(&self.placer), Arc::clone(&self.files), (clock.unix_ms)());
        metrics.lists_are_of(placer.view().generation);
        let servers = servers_from_here(&placer, &self.kept, me, now_unix_ms);
        let json = serde_json::to_string(&servers).unwrap_or_default();
        let likeness = likeness(json.as_bytes());
        if self.embedded.0 != likeness {
            self.embedded = (likeness, page::for_script(&json));
        }
        let compiled_in = || page::compiled_in(&placer, &servers);
        let (mut hosts, mut by_name, mut for_all) = (Vec::new(), HashMap::new(), None);
        let (mut complaints, mut wanted) = (Vec::new(), Vec::new());
        self.bare.clear();
        let before = std::mem::take(&mut self.assembled);
        let is_meant = std::mem::take(&mut self.is_meant);
        let now = (clock.monotonic)();
        let is_young = now.saturating_sub(*self.begun.get_or_insert(now)) < YOUNG;
        for (number, host) in files.hosts.iter().enumerate() {
            let (live, assembled) = self.live(host, me, is_young, &before, now_unix_ms, &mut wanted);
            let ladder = self.ladders.entry(host.name().to_owned()).or_default();
            let marker = &host.host.marker;
            let (page, complaint) = ladder.choose(live.as_ref(), marker, is_meant, compiled_in, now_unix_ms);
            complaints.extend(complaint.map(|complaint| match host.name() {
                "" => format!("index page not shown: {complaint}"),
                name => format!("index page of {name} not shown: {complaint}"),
            }));
            metrics.page_is(host.name(), page.source);
            if page.source == PageSource::CompiledIn && host.page.is_some() {
                self.bare.push(host.name().to_owned());
            }
            let mut headers = headers(&host.host);
            headers.push((SOURCE, HeaderValue::from_static(page.source.name())));
            if page.source == PageSource::CompiledIn {
                headers.retain(|(name, _)| *name != header::CONTENT_SECURITY_POLICY);
                headers.push((header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(COMPILED_IN_MAY)));
            }
            hosts.push(HostState {
                source: page.source,
                page: page.asset.with_headers(headers.iter().map(|(name, value)| (name, value))),
                files: Arc::clone(&host.files),
                assembled,
            });
            by_name.extend(host.host.names.iter().map(|name| (name.clone(), number)));
            // Under a name that nobody has, too, there is a page: that of the first.
            for_all = for_all.or(Some(number));
        }
        self.fragments.want((clock.monotonic)(), &wanted);
        for complaint in complaints.iter().filter(|complaint| !self.complaints.contains(complaint)) {
            tracing::warn!("{complaint}");
        }
        self.complaints = complaints;
        let readers = readers(&placer, &files);
        let (listings, kept) = (Listings::default(), self.kept.clone());
        State { placer, hosts, by_name, for_all, listings, kept, readers }
    }

    /// What would be shown of a host if nothing were wrong: its index page, and those of its files that have includes.
    fn live(
        &mut self,
        host: &HostFiles,
        me: &str,
        is_young: bool,
        before: &Assembled,
        now_unix_ms: u64,
        wanted: &mut Vec<Include>,
    ) -> (Option<Candidate>, HashMap<String, Arc<Asset>>) {
        let whole = |body| Candidate { body, is_assembled: false, holes: 0 };
        let page = host.page.clone();
        if !host.host.fragments {
            return (page.map(whole), HashMap::new());
        }
        let page = page.map(|page| match page {
            Ok(body) => self.assemble(&body, "/", host, me, is_young, wanted),
            Err(error) => whole(Err(error)),
        });
        let is_html = |(path, _): &(&str, &Arc<Asset>)| path.ends_with(".html") || path.ends_with(".shtml");
        let mut assembled = HashMap::new();
        for (path, file) in host.files.iter().filter(is_html) {
            if !file.body().windows(5).any(|window| window == b"<!--#") {
                continue;
            }
            let candidate = self.assemble(file.body(), path, host, me, is_young, wanted);
            let key = (host.host.clone(), path.to_owned());
            let asset = match (before.get(&key), candidate.body) {
                (Some(known), Ok(body)) if *known.body() == body => Arc::clone(known),
                (Some(known), Err(_)) => Arc::clone(known),
                (None, Err(_)) => continue,
                (_, Ok(body)) => {
                    let asset = Asset::new(&ASSEMBLED, body, now_unix_ms / 1000);
                    let headers = headers(&host.host);
                    Arc::new(asset.with_headers(headers.iter().map(|(name, value)| (name, value))))
                }
            };
            self.assembled.insert(key, Arc::clone(&asset));
            if let Some(directory) = path.strip_suffix("index.html") {
                assembled.insert(directory.to_owned(), Arc::clone(&asset));
            }
            assembled.insert(path.to_owned(), asset);
        }
        (page, assembled)
    }

    fn assemble(
        &self,
        body: &Bytes,
        path: &str,
        host: &HostFiles,
        me: &str,
        is_young: bool,
        wanted: &mut Vec<Include>,
    ) -> Candidate {
        let template = Template::parse(body);
        let parts = Parts { making: self, files: &host.files, path, me };
        let assembled = assemble(&template, &parts, Limits::default());
        let problems: Vec<String> =
            template.problems().iter().chain(&assembled.problems).take(3).map(ToString::to_string).collect();
        if !problems.is_empty() {
            tracing::debug!(path, problems = problems.join("; "), "a page's includes");
        }
        let has_stub = |missing: &&String| {
            let of_path = |include: &&Include| include.path == **missing;
            assembled.wanted.iter().find(of_path).is_some_and(|include| include.stub.is_some())
        };
        // At first nothing has been fetched yet: a stub is then no better than a hole.
        let holes = assembled.missing.iter().filter(|missing| is_young || !has_stub(missing)).count();
        wanted.extend(assembled.wanted);
        let body = match assembled.is_whole {
            true => Ok(assembled.body),
            false => Err(format!("it cannot be put together: {}", problems.join("; "))),
        };
        Candidate { body, is_assembled: true, holes }
    }
}

/// What a page is put together from.
struct Parts<'a> {
    making: &'a Making,
    files: &'a Files,
    path: &'a str,
    me: &'a str,
}

impl Sources for Parts<'_> {
    /// A file of the host, else what an origin gave last.
    fn fragment(&self, include: &Include) -> Fragment {
        let path = include.path.split('?').next().unwrap_or_default();
        let file = match self.files.find(path) {
            Some(Found::File(file)) => Some(file.body().clone()),
            Some(Found::Directory) | None => None,
        };
        file.or_else(|| self.making.fragments.fragment(&include.path))
            .map_or(Fragment::Missing, Fragment::Ready)
    }

    fn variable(&self, name: &str) -> Option<Cow<'_, str>> {
        Some(match name {
            "daemun_servers" => Cow::Borrowed(self.making.embedded.1.as_str()),
            "daemun_datacenter" => Cow::Borrowed(self.me),
            "daemun_fleet" => Cow::Owned(self.making.placer.steering().config().fleet.name.clone()),
            "document_uri" => Cow::Borrowed(self.path),
            _ => return None,
        })
    }
}

/// The origins of a config, by their numbers in it.
fn fragments(config: &Config) -> FragmentCache {
    let origins = config.gateway.origins.iter().enumerate();
    let seed = RandomState::new().hash_one(&config.digest);
    FragmentCache::new(origins.map(|(number, origin)| (origin.path.clone(), number)).collect(), seed)
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
    lister.list(&Wanted { order: &order, place: &Place::default(), role: None, key: None }, now_unix_ms)
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

/// How long until something is to be done about fragments, at the least and at the most.
pub(crate) fn pause(next: Option<Duration>, now: Duration) -> Duration {
    const MIN: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_secs(5);
    next.map_or(MAX, |next| next.saturating_sub(now)).clamp(MIN, MAX)
}
