//! What a witness goes by: whom it asks, in whose place, how often. Pure: made from config and placement, the same in every
//! datacenter, so that the witnesses play the same users.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use daemun_fleet::config::{DOOR_ROLE, ListenHost};
use daemun_fleet::drill::Scenario;
use daemun_fleet::placement::Placer;
use daemun_fleet::view::{DatacenterView, State};
use daemun_fleet::{Client, Config};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// Networks tried to find users: the rarest datacenter may be the home of one network in a hundred.
const TRIES: u32 = 40_000;

/// Where a datacenter's front door is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorAt {
    /// The datacenter.
    pub datacenter: String,
    /// Its address, as DNS answers it.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// It speaks TLS.
    pub is_tls: bool,
}

/// A synthetic user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its network.
    pub net: IpNet,
    /// The datacenter where it goes when all is well.
    pub home: String,
}

/// What a witness goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// The name that users resolve.
    pub name: String,
    /// Name servers, with their datacenters.
    pub name_servers: Vec<(String, SocketAddr)>,
    /// Front doors.
    pub doors: Vec<DoorAt>,
    /// The users.
    pub users: Vec<User>,
    /// Visits a second.
    pub visits_per_second: u32,
    /// How long a user waits for a page, milliseconds.
    pub patience_ms: u64,
    /// The durability of records.
    pub durability: String,
}

impl Course {
    /// The course of a drill.
    ///
    /// # Errors
    /// Why nobody could visit: what the config lacks.
    pub fn of(
        config: &Config,
        placer: &Placer,
        scenario: &Scenario,
        name: Option<&str>,
    ) -> Result<Self, String> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => {
                return Err(
                    "no steered name leads to front doors: `drill.name` says which to ask for".to_owned()
                );
            }
        };
        let fleet = &config.fleet;
        let mut name_servers = Vec::new();
        for datacenter in &fleet.datacenters {
            let sockets = config.dns.listen.iter().flat_map(|listen| match listen.host {
                // Of another machine's address nobody knows whose it is.
                ListenHost::Address(address) if address.is_unspecified() => datacenter
                    .addresses
                    .iter()
                    .map(|address| SocketAddr::new(*address, listen.port))
                    .collect(),
                _ => listen.sockets(datacenter),
            });
            name_servers.extend(sockets.map(|socket| (datacenter.name.clone(), socket)));
        }
        let mut doors = Vec::new();
        for server in fleet.servers.iter().filter(|server| server.role == DOOR_ROLE) {
            let is_tls = server.url.as_ref().is_some_and(|url| url.scheme() == "https");
            let port = server.url.as_ref().and_then(|url| url.port_or_known_default());
            for address in &server.addresses {
                let datacenter = fleet.datacenters[server.datacenter].name.clone();
                doors.push(DoorAt { datacenter, address: *address, port: port.unwrap_or(80), is_tls });
            }
        }
        if doors.is_empty() || name_servers.is_empty() {
            return Err("there are no front doors or no name servers to visit".to_owned());
        }
        let users = users(config, placer, &name, scenario.load.users);
        if users.is_empty() {
            return Err(format!("`{name}` is not a steered name"));
        }
        Ok(Self {
            name,
            name_servers,
            doors,
            users,
            visits_per_second: scenario.load.visits_per_second,
            patience_ms: scenario.load.patience_ms,
            durability: scenario.durability.clone(),
        })
    }

    /// The door behind an address.
    pub fn door(&self, address: IpAddr) -> Option<&DoorAt> {
        self.doors.iter().find(|door| door.address == address)
    }
}

/// For each datacenter some networks whose home it is: where they would go if all served.
fn users(config: &Config, placer: &Placer, name: &str, wanted: u32) -> Vec<User> {
    let steering = placer.steering();
    let Some(target) = steering.target(name) else { return Vec::new() };
    let mut calm = (**placer.view()).clone();
    for view in calm.datacenters.values_mut() {
        *view = DatacenterView::new(State::Serving, "for a drill");
    }
    calm.fail_open = false;
    calm.requests.clear(); // nobody spills
    let calm = Placer::new(std::sync::Arc::clone(steering), std::sync::Arc::new(calm));
    let names: Vec<&str> =
        config.fleet.datacenters.iter().map(|datacenter| datacenter.name.as_str()).collect();
    let mut homes: BTreeMap<usize, Vec<IpNet>> = BTreeMap::new();
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    for number in 0..TRIES {
        // Scattered over all addresses, the same everywhere (Knuth's multiplicative hash).
        let scattered = number.wrapping_mul(2_654_435_761);
        let [a, b, c, _] = scattered.to_be_bytes();
        let address = Ipv4Addr::new(a, b, c, 0);
        let is_global = !(address.is_private() || address.is_loopback() || address.is_link_local())
            && (1..224).contains(&a);
        let Ok(net) = Ipv4Net::new(address, 24) else { continue };
        if !is_global {
            continue;
        }
        let client = Client::prefix(net.into());
        let home = calm.choose(target, &client).datacenter;
        let known = homes.entry(home).or_default();
        if known.len() < wanted {
            known.push(net.into());
        } else if homes.len() == names.len() && homes.values().all(|nets| nets.len() >= wanted) {
            break;
        }
    }
    // One of each in turn, so that every stretch of visits is of all.
    let mut users = Vec::new();
    for number in 0..wanted {
        for (home, nets) in &homes {
            let user = |net: &IpNet| User { net: *net, home: names[*home].to_owned() };
            users.extend(nets.get(number).map(user));
        }
    }
    users
}
