//! What the front door counts. What each request counts is looked up once, not in each request.

use daemun_fleet::connections::Tally;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::page::PageSource;

/// A kind of request, as metrics tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteName {
    /// The index page.
    Page,
    /// A file.
    File,
    /// The server list.
    Servers,
    /// The server list, watched.
    Watch,
    /// `/v1/ping`.
    Ping,
    /// Our own scripts.
    Script,
    /// What may be done.
    Options,
    /// Nothing that is here.
    Unknown,
    /// Not asked well.
    Refused,
}

impl RouteName {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Page, "page"),
        (Self::File, "file"),
        (Self::Servers, "servers"),
        (Self::Watch, "watch"),
        (Self::Ping, "ping"),
        (Self::Script, "script"),
        (Self::Options, "options"),
        (Self::Unknown, "unknown"),
        (Self::Refused, "refused"),
    ];
}

/// Every status that is ever answered; the last stands for any other.
const CODES: [u16; 17] = [200, 204, 206, 301, 304, 400, 404, 405, 412, 414, 416, 421, 431, 500, 503, 505, 0];

/// Counters of the front door.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// By route, then by code.
    requests: Vec<[IntCounter; CODES.len()]>,
    pages: Vec<IntCounter>,
    source: IntGaugeVec,
    generation: IntGauge,
    lists: IntCounter,
    pub(crate) watchers: IntGauge,
    pub(crate) panics: IntCounter,
    connections: IntGauge,
    closed: IntCounterVec,
    pub(crate) accept_errors: IntCounter,
    pub(crate) fragments: IntCounterVec,
    pub(crate) fragments_stale: IntGauge,
}

impl Metrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When the registry has counters of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let source = IntGaugeVec::new(
            Opts::new("daemun_gateway_page_source", "1 for where the index page of a host is from now."),
            &["host", "source"],
        )?;
        registry.register(Box::new(source.clone()))?;
        let requests = counters("daemun_gateway_requests_total", "Requests answered.", &["route", "code"])?;
        let pages =
            counters("daemun_gateway_pages_total", "Index pages, by where they came from.", &["source"])?;
        let by_code = |route: &str| {
            CODES.map(|code| match code {
                0 => requests.with_label_values(&[route, "other"]),
                code => requests.with_label_values(&[route, code.to_string().as_str()]),
            })
        };
        Ok(Self {
            requests: RouteName::ALL.iter().map(|(_, name)| by_code(name)).collect(),
            pages: PageSource::ALL.iter().map(|source| pages.with_label_values(&[source.name()])).collect(),
            source,
            generation: gauge(
                "daemun_gateway_list_generation",
                "Generation of the fleet view that server lists are made from.",
            )?,
            lists: counter(
                "daemun_gateway_lists_made_total",
                "Server lists made, each for all who rank alike.",
            )?,
            watchers: gauge("daemun_gateway_watchers", "Clients that wait for another server list.")?,
            panics: counter("daemun_gateway_panics_total", "Requests that ended in a panic, and a 500.")?,
            connections: gauge("daemun_gateway_connections", "Connections open.")?,
            closed: counters(
                "daemun_gateway_connections_closed_total",
                "Connections that we closed, by why: idle, evicted for another, client_limit, stalled, handshake.",
                &["reason"],
            )?,
            accept_errors: counter(
                "daemun_gateway_accept_errors_total",
                "Connections that could not be accepted.",
            )?,
            fragments: counters(
                "daemun_gateway_fragments_total",
                "Fragments asked for, by origin and what came of it.",
                &["origin", "outcome"],
            )?,
            fragments_stale: gauge(
                "daemun_gateway_fragments_stale",
                "Fragments shown as they were, because their origin does not give them anew.",
            )?,
        })
    }

    pub(crate) fn answered(&self, route: RouteName, code: u16) {
        let at = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len() - 1);
        self.requests[route as usize][at].inc();
    }

    pub(crate) fn page(&self, source: PageSource) {
        self.pages[source as usize].inc();
    }

    pub(crate) fn page_is(&self, host: &str, source: PageSource) {
        for other in PageSource::ALL {
            self.source.with_label_values(&[host, other.name()]).set(i64::from(other == source));
        }
    }

    pub(crate) fn lists_are_of(&self, generation: u64) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    pub(crate) fn list_made(&self) {
        self.lists.inc();
    }

    pub(crate) fn closed(&self, reason: &str) {
        self.closed.with_label_values(&[reason]).inc();
    }
}

impl Tally for Metrics {
    fn open(&self, count: usize) {
        self.connections.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn closed(&self, reason: &'static str) {
        self.closed(reason);
    }
}
