//! The fleet's one config file, checked.
//!
//! [`Config::parse`] reads `daemun.toml` and gives either a config in which everything holds (every name refers to
//! something, every address is one, every number is in its range) or every problem at once. The file is the same
//! on every machine of the fleet; who a process is, it is told on the command line.

mod check;
pub(crate) mod defaults;
mod drill;
mod listen;
mod parse;
mod parse_dns;
mod parse_drill;
mod parse_gateway;
mod parse_scenario;
mod parse_sync;
mod problem;
mod read;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::location::{Continent, Country, Point};

pub use check::{Check, DnsCheck, GrpcCheck, HeaderCheck, HttpCheck};
pub use drill::{DrillCommands, DrillConfig, Schedule};
pub use listen::{Listen, ListenHost};
pub use problem::{Problem, Problems};
pub use read::{is_name, nearest};

/// The role of the servers that make a datacenter reachable for its users.
pub const DOOR_ROLE: &str = "frontdoor";
/// The most datacenters a fleet may have: a set of them is one machine word.
pub const DATACENTERS_MAX: usize = 64;
/// The most servers: bounds the work of a new view and the length of the server list.
pub const SERVERS_MAX: usize = 4096;
/// The most steered names: bounds the compiled maps.
pub const NAMES_MAX: usize = 4096;

/// A checked config.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What the operator has: datacenters and servers.
    pub fleet: Fleet,
    /// The DNS server.
    pub dns: Dns,
    /// The front door.
    pub gateway: Gateway,
    /// The agent.
    pub sync: Sync,
    /// The store of applications' data.
    pub store: Store,
    /// Failures on purpose.
    pub drill: DrillConfig,
    /// Where geo data comes from.
    pub geo: GeoSource,
    /// Digest of the text, 32 hexadecimal digits: agents compare theirs, so that drift between datacenters shows.
    pub digest: String,
}

/// All datacenters and servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Name of the fleet; the key of the client hash is made from it.
    pub name: String,
    /// In the order of the file, which breaks ties.
    pub datacenters: Vec<Datacenter>,
    /// In the order of the file.
    pub servers: Vec<Server>,
}

impl Fleet {
    /// The number of the datacenter with this name.
    pub fn datacenter(&self, name: &str) -> Option<usize> {
        self.datacenters.iter().position(|datacenter| datacenter.name == name)
    }

    /// The servers of a role in a datacenter.
    pub fn servers_of<'a>(&'a self, datacenter: usize, role: &'a str) -> impl Iterator<Item = &'a Server> {
        self.servers.iter().filter(move |server| server.datacenter == datacenter && server.role == role)
    }
}

/// A place that serves users.
#[derive(Clone, Debug, PartialEq)]
pub struct Datacenter {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub point: Point,
    /// Its public addresses: those of its servers that name none.
    pub addresses: Vec<IpAddr>,
    /// Requests per second that it can serve at its doors.
    pub capacity_rps: Option<u32>,
    /// Where the other agents reach its agent.
    pub agent: Url,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its role: `frontdoor`, `api`, `upload` or any the operator names.
    pub role: String,
    /// Number of its datacenter.
    pub datacenter: usize,
    /// Its addresses, at least one: what DNS answers and what is checked.
    pub addresses: Vec<IpAddr>,
    /// Its URL in the server list.
    pub url: Option<Url>,
    /// Share among the servers of its role in its datacenter.
    pub weight: u32,
    /// How its health is found out.
    pub check: Check,
}

/// The DNS server.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// Where it listens, UDP and TCP.
    pub listen: Vec<Listen>,
    /// Where it listens for DNS over TLS (RFC 7858).
    pub tls_listen: Vec<Listen>,
    /// Where it listens for DNS over HTTPS (RFC 8484).
    pub https_listen: Vec<Listen>,
    /// Where it listens for DNS over QUIC (RFC 9250).
    pub quic_listen: Vec<Listen>,
    /// The certificate of these three; there if any of them is.
    pub certificate: Option<CertificateFiles>,
    /// Peers whose TCP and TLS connections begin with a PROXY protocol v2 header, which says who the client is.
    pub proxies: Vec<IpNet>,
    /// Resolvers whose client subnets are used; `None`: all.
    pub subnet_from: Option<Vec<IpNet>>,
    /// Path of the file of the fleet's cookie secrets, relative to the config file; none: each process makes its own.
    pub cookie_secrets: Option<String>,
    /// How often the same answer is given to the same network.
    pub rate_limit: RateLimit,
    /// Times the size of the query that an answer over UDP may have, for a client without a valid cookie.
    pub amplification_max: u16,
    /// Names of class CHAOS that are answered.
    pub chaos: Vec<Chaos>,
    /// Zones from master files.
    pub zones: Vec<ZoneFile>,
    /// Names whose addresses follow placement.
    pub names: Vec<SteeredName>,
    /// Orders that hold for some places, whatever the policy.
    pub overrides: Vec<PlaceOverride>,
    /// Order for clients of whom no place is known: all datacenters.
    pub default_order: Vec<usize>,
}

/// A certificate and its key, PEM files, relative to the config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Path of the certificate and what signed it.
    pub chain: String,
    /// Path of the private key.
    pub key: String,
}

/// How often the same answer is given to the same network over UDP, where addresses can be forged. Clients that have
/// shown a valid cookie are not limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Same answers a second to a /24 or /56; 0: not limited.
    pub answers_per_second: u32,
    /// Of the answers over the limit every so many-th is sent, cut (TC), so that a real client asks over TCP; 0: none.
    pub slip: u32,
    /// Networks that are not limited.
    pub exempt: Vec<IpNet>,
}

/// A question of class CHAOS, asked by operators of the server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chaos {
    /// `id.server` and `hostname.bind`: which server answers (RFC 4892).
    Id,
    /// `version.server` and `version.bind`: which program answers.
    Version,
}

/// A zone and its master file (RFC 1035 section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// Apex, lower case, no dot at the end.
    pub name: String,
    /// Path, relative to the config file.
    pub file: String,
}

/// A name whose addresses follow placement.
#[derive(Clone, Debug, PartialEq)]
pub struct SteeredName {
    /// Lower case, no dot at the end; `*.` at its start is a wildcard.
    pub name: String,
    /// Line in the config.
    pub line: usize,
    /// Who goes where.
    pub policy: Policy,
    /// Time to live, seconds.
    pub ttl_seconds: u32,
    /// Time to live while the answer may change soon, seconds: at most the other.
    pub ttl_changing_seconds: u32,
    /// How many datacenters an answer names, the next best after the best.
    pub answers: usize,
    /// Numbers of the datacenters that are used when all look down; empty: all.
    pub when_all_down: Vec<usize>,
    /// Address families that are answered.
    pub types: Vec<AddressType>,
    /// Records of other types, each with its data by datacenter.
    pub records: Vec<SteeredRecords>,
    /// Role of the servers whose addresses are answered.
    pub role: String,
    /// Numbers of the overrides that hold for this name.
    pub overrides: Vec<usize>,
}

/// Records of one type whose data depends on the datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteeredRecords {
    /// The type as in a master file, upper case.
    pub record_type: String,
    /// Line in the config.
    pub line: usize,
    /// By number of the datacenter: record data as in a master file, none where the role has no server.
    pub by_datacenter: Vec<Vec<String>>,
}

/// A type of address record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressType {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

impl AddressType {
    /// Whether an address is of this type.
    pub fn holds(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == AddressType::A)
    }

    /// As in a zone file.
    pub fn name(self) -> &'static str {
        match self {
            AddressType::A => "A",
            AddressType::Aaaa => "AAAA",
        }
    }
}

/// Who goes where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// To the nearest by great circle; those at most `band_km` farther than the nearest share its users by weight.
    Nearest {
        /// Width of the band; 0: none.
        band_km: u32,
        /// Weight of each datacenter, by its number.
        weights: Vec<u32>,
    },
    /// Shares by weight, wherever the client is.
    Weighted {
        /// Weight of each datacenter, by its number; 0: only when no other is left.
        weights: Vec<u32>,
    },
    /// To the first that serves.
    Failover {
        /// All datacenters, first choice first.
        order: Vec<usize>,
    },
}

impl Policy {
    /// To the nearest, nothing more.
    pub fn nearest(datacenters: usize) -> Self {
        Policy::Nearest { band_km: defaults::BAND_KM, weights: vec![defaults::WEIGHT; datacenters] }
    }

    /// The word in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Policy::Nearest { .. } => "nearest",
            Policy::Weighted { .. } => "weighted",
            Policy::Failover { .. } => "failover",
        }
    }
}

/// An order that holds for clients of some places; the most specific wins: prefix, then country, then continent.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceOverride {
    /// Prefixes it holds for; among nested ones the longest wins.
    pub prefixes: Vec<IpNet>,
    /// Countries it holds for.
    pub countries: Vec<Country>,
    /// Continents it holds for.
    pub continents: Vec<Continent>,
    /// It holds for every name, and for the server list; else for the names that list it.
    pub for_all: bool,
    /// First choices; the others follow by the name's policy, so that an answer is never empty.
    pub order: Vec<usize>,
}

/// The front door.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Where it listens, HTTP.
    pub listen: Vec<Listen>,
    /// Where it listens, HTTP over TLS.
    pub tls_listen: Vec<Listen>,
    /// The certificate for that; there if `tls_listen` has any.
    pub certificate: Option<CertificateFiles>,
    /// What is served, by host. One without names, if there is one, is the first, and for all names that no other has.
    pub hosts: Vec<VirtualHost>,
    /// Where fragments of pages come from.
    pub origins: Vec<Origin>,
    /// The steered name whose policy orders the server list; none: nearest.
    pub order_as: Option<String>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where pages are from that may read the server list, beside the hosts, the doors and the steered names.
    pub cors: Vec<String>,
    /// How long a stopping door still accepts, and says that it closes.
    pub stop_grace: Duration,
}

/// What is served under some names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHost {
    /// Lower case, without ports; none: whatever no other host has.
    pub names: Vec<String>,
    /// Path of a directory of static files, relative to the config file.
    pub directory: Option<String>,
    /// Path of the index page, relative to the config file; none: `index.html` in the directory; without that: the page
    /// compiled in.
    pub index: Option<String>,
    /// What every good index page has in it.
    pub marker: String,
    /// Pages have server-side includes.
    pub fragments: bool,
    /// Paths beginning so never change what is behind them.
    pub immutable: Vec<String>,
    /// Headers of every page and file: lower-case name and value.
    pub headers: Vec<(String, String)>,
}

/// Where the fragments below a path come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What their paths begin with.
    pub path: String,
    /// Whom to ask: scheme, host and port.
    pub url: Url,
}

/// The agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// Where the other agents reach it.
    pub listen: Vec<Listen>,
    /// Where operators reach it.
    pub admin: Vec<Listen>,
    /// How servers are probed.
    pub probe: Probe,
    /// How a datacenter comes back.
    pub comeback: Comeback,
    /// Voluntary removals leave at least so many datacenters serving.
    pub minimum_serving: usize,
    /// Roles without which a datacenter is down, each with the percentage of its servers that must be up.
    pub required: Vec<(String, u8)>,
    /// A peer whose clock is farther off than this is an alarm.
    pub clock_skew_max: Duration,
    /// What agents prove to each other who they are with; `None` when they speak plain HTTP.
    pub tls: Option<AgentTls>,
}

/// The store of applications' data, which the agent keeps and replicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Where applications reach it.
    pub listen: Vec<Listen>,
    /// So many entries of each log are kept though every datacenter has them, so that watches can go on where they were.
    pub log_entries_min: u64,
    /// Over so many entries the oldest go though a datacenter lacks them: it gets a snapshot when it is back.
    pub log_entries_max: u64,
}

/// How a datacenter comes back after it was down or drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comeback {
    /// Calm that must come first; doubled with each flap.
    pub hold_down: Duration,
    /// The longest that it becomes; what a flap added is halved after each such time of calm.
    pub hold_down_max: Duration,
    /// Percentages of its users that it is given on the way to all, rising.
    pub ramp: Vec<u8>,
    /// How long each of them lasts.
    pub ramp_step: Duration,
    /// So many returns an hour are automatic; further ones are held for a human.
    pub per_hour: u32,
    /// Its peers must have been reachable for it for so long before its data counts as caught up.
    pub catch_up: Duration,
}

/// The keys of an agent, PEM files, relative to the config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentTls {
    /// Path of the fleet's own authorities: one, or two while they change.
    pub ca: String,
    /// Path of the agent's certificate.
    pub certificate: String,
    /// Path of its private key.
    pub key: String,
}

/// How servers are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Time from the start of one probe to the start of the next while all is well.
    pub interval: Duration,
    /// After this a probe has failed.
    pub timeout: Duration,
    /// Failed probes in a row that make a server down.
    pub fall: u32,
    /// The same while one observer decides alone: with two datacenters, or when no other observer is left.
    pub fall_alone: u32,
    /// Time between the starts of probes while a server is suspected; they overlap.
    pub burst_gap: Duration,
    /// Successful probes in a row that make it up again.
    pub rise: u32,
    /// Probes per second of one datacenter's observers together while all is well; front doors come first.
    pub budget: u32,
    /// The calm that a server's second return in short time takes, doubled with each further one.
    pub flap_penalty: Duration,
    /// The longest that it becomes, and the calm by which it is halved.
    pub flap_penalty_max: Duration,
}

/// Where geo data comes from: the first that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GeoSource {
    /// A MaxMind-format file, relative to the config file.
    Database(String),
    /// Range files, relative to the config file.
    Ranges(Vec<String>),
    /// The registries' blocks, built in.
    Builtin,
}

impl Config {
    /// Reads a config. `file` is its name for messages; no file is opened here.
    ///
    /// # Errors
    /// Every problem of the text, in the order of the file.
    pub fn parse(file: &str, text: &str) -> Result<Config, Problems> {
        parse::parse(file, text)
    }
}

#[cfg(test)]
mod comeback_tests;
#[cfg(test)]
mod tests;
