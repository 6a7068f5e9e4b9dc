//! The server list: what is there, in the order in which this client should try it. From the same view and the same
//! placement as the DNS answer. A role is never empty: servers that are down stay, last.

use std::time::{Duration, UNIX_EPOCH};

use daemun_fleet::config::{DOOR_ROLE, Server};
use daemun_fleet::places::Place;
use daemun_fleet::view::{Health, State};
use daemun_fleet::{Placer, affinity};
use serde::Serialize;

use crate::preserve::Kept;

/// How long a client may use a list before it asks again, seconds.
const TTL_SECONDS: u32 = 15;

/// Version of the list's form.
const VERSION: u32 = 1;

/// The list as it is sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerList {
    /// Version of this form.
    pub v: u32,
    /// Generation of the fleet view.
    pub generation: u64,
    /// When, RFC 3339.
    pub issued: String,
    /// Seconds after which to ask again.
    pub ttl: u32,
    /// What we think of the asker.
    pub you: You,
    /// Who answers.
    pub door: Door,
    /// URLs of the front doors that work, best first: where to ask next if this one dies.
    pub doors: Vec<String>,
    /// The servers, best first.
    pub servers: Vec<ListedServer>,
}

/// What we think of the asker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct You {
    /// Its country.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// The datacenter it is placed in.
    pub datacenter: String,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Door {
    /// Its datacenter.
    pub datacenter: String,
    /// Where its index page is from.
    pub source: &'static str,
}

/// One server of the list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedServer {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Where to reach it.
    pub url: String,
    /// Whether to.
    pub health: ListedHealth,
    /// Rank of its datacenter for this client, from 0.
    pub priority: usize,
    /// Share among the servers of its role and datacenter.
    pub weight: u32,
    /// Kilometres to the client, if its place is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub km: Option<u32>,
    /// What its datacenter's doors are asked to do, of what they can, in steps of a tenth; for doors, where capacity is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
}

/// Whether to use a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListedHealth {
    /// Yes.
    Up,
    /// Nobody has said.
    Unknown,
    /// It answers, but its datacenter is catching up.
    Degraded,
    /// It answers, but is to get no new clients.
    Draining,
    /// No.
    Down,
}

impl ListedHealth {
    /// As it stands in the list.
    pub fn name(self) -> &'static str {
        match self {
            ListedHealth::Up => "up",
            ListedHealth::Unknown => "unknown",
            ListedHealth::Degraded => "degraded",
            ListedHealth::Draining => "draining",
            ListedHealth::Down => "down",
        }
    }

    /// Lower is listed first. No news is no reason to send anyone farther away.
    pub(crate) fn turn(self) -> u8 {
        match self {
            ListedHealth::Up | ListedHealth::Unknown => 0,
            ListedHealth::Degraded => 1,
            ListedHealth::Draining => 2,
            ListedHealth::Down => 3,
        }
    }
}

/// Who lists, and under what view.
#[derive(Clone, Copy, Debug)]
pub struct Lister<'a> {
    /// The view.
    pub placer: &'a Placer,
    /// Servers that the config has no more, and that stay listed.
    pub kept: &'a [Kept],
    /// The datacenter of the door.
    pub me: &'a str,
    /// Where its index page is from.
    pub source: &'static str,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Datacenters in the order in which the client should try them; those that are missing come after.
    pub order: &'a [usize],
    /// Where the client is.
    pub place: &'a Place,
    /// Servers of this role alone.
    pub role: Option<&'a str>,
    /// The same key has the same servers first, as long as they are there.
    pub key: Option<&'a str>,
}

impl Lister<'_> {
    /// Whether a role has any servers.
    pub fn has_role(&self, role: &str) -> bool {
        let servers = &self.placer.steering().config().fleet.servers;
        servers.iter().chain(self.kept.iter().map(|kept| &kept.server)).any(|server| server.role == role)
    }

    /// The list.
    pub fn list(&self, asked: &Wanted<'_>, issued_unix_ms: u64) -> ServerList {
        let fleet = &self.placer.steering().config().fleet;
        // Datacenters without the role that orders the list come after those that have it.
        let rest = (0..fleet.datacenters.len()).filter(|number| !asked.order.contains(number));
        let order = asked.order.iter().copied().chain(rest);
        let mut servers: Vec<ListedServer> = Vec::new();
        for (priority, number) in order.enumerate() {
            let kept = self.kept.iter().map(|kept| &kept.server);
            let all = fleet.servers.iter().chain(kept).filter(|server| server.datacenter == number);
            let wanted = all.filter(|server| asked.role.is_none_or(|role| role == server.role));
            servers.extend(wanted.map(|server| self.listed(server, priority, asked.place)));
        }
        let score =
            |server: &ListedServer| asked.key.map_or(0.0, |key| -affinity(key, &server.name, server.weight));
        servers.sort_by(|a, b| {
            let ranks = |server: &ListedServer| (server.health.turn(), server.priority);
            ranks(a).cmp(&ranks(b)).then_with(|| score(a).total_cmp(&score(b)))
        });
        let best = asked.order.first().and_then(|&best| fleet.datacenters.get(best));
        ServerList {
            v: VERSION,
            generation: self.placer.view().generation,
            issued: issued(issued_unix_ms),
            ttl: TTL_SECONDS,
            you: You {
                country: asked.place.country.map(|country| country.to_string()),
                datacenter: best.map(|best| best.name.clone()).unwrap_or_default(),
            },
            door: Door { datacenter: self.me.to_owned(), source: self.source },
            doors: self.doors(asked),
            servers,
        }
    }

    fn listed(&self, server: &Server, priority: usize, place: &Place) -> ListedServer {
        let (view, fleet) = (self.placer.view(), &self.placer.steering().config().fleet);
        let datacenter = &fleet.datacenters[server.datacenter];
        let state = view.datacenters.get(&datacenter.name).map_or(State::Serving, |found| found.state);
        let health = view.servers.get(&server.name).map_or(Health::Unknown, |found| found.health);
        let load = self.placer.loads().get(server.datacenter).filter(|_| server.role == DOOR_ROLE);
        let load = load.and_then(|load| {
            let capacity = load.capacity_rps.filter(|capacity| *capacity > 0)?;
            Some((f64::from(load.expected_rps) / f64::from(capacity) * 10.0).round() / 10.0)
        });
        ListedServer {
            name: server.name.clone(),
            role: server.role.clone(),
            datacenter: datacenter.name.clone(),
            url: url(server),
            health: listed_health(state, health),
            priority,
            weight: server.weight,
            km: place.point.map(|point| point.distance_km(datacenter.point)),
            load,
        }
    }

    /// The doors that work, whatever role was asked for; all of them if none looks well: whom to ask next is then anybody's
    /// guess, but not nobody.
    fn doors(&self, asked: &Wanted<'_>) -> Vec<String> {
        let fleet = &self.placer.steering().config().fleet;
        let doors = asked
            .order
            .iter()
            .chain(
                // Those that are not in the order at all are still doors.
                (0..fleet.datacenters.len())
                    .filter(|number| !asked.order.contains(number))
                    .collect::<Vec<_>>()
                    .iter(),
            )
            .flat_map(|&number| fleet.servers_of(number, DOOR_ROLE))
            .map(|server| self.listed(server, 0, asked.place))
            .collect::<Vec<_>>();
        let works = |door: &&ListedServer| door.health.turn() < ListedHealth::Draining.turn();
        let mut sorted: Vec<&ListedServer> = doors.iter().filter(works).collect();
        if sorted.is_empty() {
            sorted = doors.iter().collect();
        }
        sorted.sort_by_key(|door| door.health.turn());
        sorted.into_iter().map(|door| door.url.clone()).collect()
    }
}

fn url(server: &Server) -> String {
    server.url.as_ref().map_or_else(
        || server.addresses.first().map(|ip| format!("http://{}", host(*ip))).unwrap_or_default(),
        ToString::to_string,
    )
}

/// A moment as RFC 3339.
pub(crate) fn issued(unix_ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}

/// An address as the host of a URL.
fn host(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

fn listed_health(state: State, health: Health) -> ListedHealth {
    match (state, health) {
        (State::Down, _) | (_, Health::Down) => ListedHealth::Down,
        (State::Draining(0) | State::Drained, _) => ListedHealth::Draining,
        (State::CatchingUp, _) => ListedHealth::Degraded,
        (State::Serving | State::Ramping(_) | State::Draining(1..), Health::Up) => ListedHealth::Up,
        (State::Serving | State::Ramping(_) | State::Draining(1..), Health::Unknown) => ListedHealth::Unknown,
    }
}
