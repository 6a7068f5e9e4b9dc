//! The server list: what is there, in the order in which this client should try it. From the same view and the same
//! placement as the DNS answer. A role is never empty: servers that are down stay, last.

use std::time::{Duration, UNIX_EPOCH};

use daemun_fleet::config::DOOR_ROLE;
use daemun_fleet::view::{Health, State};
use daemun_fleet::{Client, Placer};
use serde::Serialize;

/// How long a client may use a list before it asks again, seconds.
const TTL_SECONDS: u32 = 15;

/// Version of the list's form.
const VERSION: u32 = 1;

/// The list as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
}

/// One server of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// Lower is listed first. No news is no reason to send anyone farther away.
    fn turn(self) -> u8 {
        match self {
            ListedHealth::Up | ListedHealth::Unknown => 0,
            ListedHealth::Degraded => 1,
            ListedHealth::Draining => 2,
            ListedHealth::Down => 3,
        }
    }
}

/// The list for a client, of one role or of all. `None`: there is no such role.
pub fn server_list(
    placer: &Placer,
    me: &str,
    client: &Client,
    role: Option<&str>,
    issued_unix_ms: u64,
) -> Option<ServerList> {
    let config = placer.steering().config();
    let fleet = &config.fleet;
    if let Some(role) = role
        && !fleet.servers.iter().any(|server| server.role == role)
    {
        return None;
    }
    let mut order = placer.order(placer.steering().door(), client);
    // Datacenters without the role that orders the list come after those that have it.
    order.extend((0..fleet.datacenters.len()).filter(|number| !order.contains(number)).collect::<Vec<_>>());
    let (place, _) = placer.steering().places().lookup(client.first_address());

    let mut servers: Vec<ListedServer> = Vec::new();
    for (priority, &number) in order.iter().enumerate() {
        let datacenter = &fleet.datacenters[number];
        let state =
            placer.view().datacenters.get(&datacenter.name).map_or(State::Serving, |found| found.state);
        let of_role = |role: Option<&str>, server: &str| role.is_none_or(|role| role == server);
        for server in fleet.servers.iter().filter(|server| server.datacenter == number) {
            if !of_role(role, &server.role) {
                continue;
            }
            let health =
                placer.view().servers.get(&server.name).map_or(Health::Unknown, |found| found.health);
            let url = server.url.as_ref().map_or_else(
                || server.addresses.first().map(|ip| format!("http://{}", host(*ip))).unwrap_or_default(),
                ToString::to_string,
            );
            servers.push(ListedServer {
                name: server.name.clone(),
                role: server.role.clone(),
                datacenter: datacenter.name.clone(),
                url,
                health: listed_health(state, health),
                priority,
                weight: server.weight,
                km: place.point.map(|point| point.distance_km(datacenter.point)),
            });
        }
    }
    servers.sort_by_key(|server| (server.health.turn(), server.priority));
    let of_doors = || servers.iter().filter(|server| server.role == DOOR_ROLE);
    let working = of_doors().filter(|server| server.health.turn() < ListedHealth::Draining.turn());
    let mut doors: Vec<String> = working.map(|server| server.url.clone()).collect();
    if doors.is_empty() {
        // Nothing looks well: whom to ask next is then anybody's guess, but not nobody.
        doors = of_doors().map(|server| server.url.clone()).collect();
    }
    Some(ServerList {
        v: VERSION,
        generation: placer.view().generation,
        issued: issued(issued_unix_ms),
        ttl: TTL_SECONDS,
        you: You {
            country: place.country.map(|country| country.to_string()),
            datacenter: order.first().map(|&first| fleet.datacenters[first].name.clone()).unwrap_or_default(),
        },
        door: Door { datacenter: me.to_owned() },
        doors,
        servers,
    })
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
