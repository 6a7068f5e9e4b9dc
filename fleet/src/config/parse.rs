//! From the text of `daemun.toml` to a checked [`Config`].

use std::collections::HashMap;
use std::hash::Hash;
use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use siphasher::sip128::{Hasher128, SipHasher13};
use toml::de::DeTable;
use url::{Host, Url};

use super::check::check;
use super::defaults;
use super::parse_dns::dns;
use super::parse_drill::drill;
use super::parse_gateway::gateway;
use super::parse_sync::{AgentUrl, store, sync};
use super::read::{self, Kind, Located, Section, Source, nearest};
use super::*;
use crate::location::Point;

/// The version of the file format that this program reads.
const VERSION: i64 = 1;

pub(super) fn parse(file: &str, text: &str) -> Result<Config, Problems> {
    document(file, text, root)
}

/// Reads a whole text with `read`; where that gives nothing, it has noted why.
pub(super) fn document<T>(
    file: &str,
    text: &str,
    read: impl FnOnce(&Source<'_>, &DeTable<'_>) -> Option<T>,
) -> Result<T, Problems> {
    let source = Source::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        source.problem(&error.span().unwrap_or(0..0), format!("not TOML: {}", error.message()));
    }
    // What follows a syntax error is a guess; complaints about guesses would only hide it.
    let found = errors.is_empty().then(|| read(&source, document.get_ref())).flatten();
    let problems = source.into_problems();
    match found {
        Some(found) if problems.is_empty() => Ok(found),
        _ => Err(Problems(problems)),
    }
}

fn root(source: &Source<'_>, document: &DeTable<'_>) -> Option<Config> {
    let mut root = Section::root(source, document);
    if !root.has("version") {
        root.source.problem(&root.span, format!("version: missing: write `version = {VERSION}`"));
    }
    root.optional("version", &read::integer("the version of this file's format,", VERSION..=VERSION));

    let mut fleet = root.table("fleet");
    let name = fleet.required("name", &read::name());
    fleet.finish();

    let names = Names { datacenters: names_in(&mut root, "datacenters"), steered: Vec::new() };
    let (datacenters, agents) = datacenters(&mut root);
    let servers = servers(&mut root, &names, &datacenters);
    let fleet = Fleet {
        name: name.map(|name| name.value).unwrap_or_default(),
        datacenters: datacenters.into_iter().flatten().collect(),
        servers,
    };
    let mut dns_section = root.table("dns");
    let canonical = |name: String| name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
    let steered = names_in(&mut dns_section, "names").into_iter().map(canonical).collect();
    let names = Names { steered, ..names };
    let dns = dns(dns_section, &names, &fleet);
    let gateway = gateway(root.table("gateway"), &names);
    let sync = sync(root.table("sync"), &names, &fleet, &agents);
    let store = store(root.table("store"));
    let drill = drill(root.table("drill"), &names, &dns.names);
    let geo = geo(root.table("geo"));
    root.finish();

    let mut digest = SipHasher13::new();
    digest.write(source.text.as_bytes());
    Some(Config {
        fleet,
        dns,
        gateway,
        sync,
        store,
        drill,
        geo,
        digest: format!("{:032x}", digest.finish128().as_u128()),
    })
}

/// The names that others may refer to.
pub(super) struct Names {
    pub(super) datacenters: Vec<String>,
    pub(super) steered: Vec<String>,
}

impl Names {
    /// Notes a reference to a steered name that there is not.
    pub(super) fn check_steered(&self, section: &Section<'_>, key: &str, name: &Located<String>) {
        if !self.steered.contains(&name.value) {
            let hint = nearest(&name.value, self.steered.iter().map(String::as_str));
            let hint = hint.map(|right| format!(": did you mean `{right}`?")).unwrap_or_default();
            section.wrong(key, &name.span, format!("`{}` is not a steered name{hint}", name.value));
        }
    }

    /// The number of the datacenter that a reference means.
    pub(super) fn datacenter(
        &self,
        section: &Section<'_>,
        key: &str,
        name: &Located<String>,
    ) -> Option<usize> {
        let found = self.datacenters.iter().position(|datacenter| *datacenter == name.value);
        if found.is_none() {
            let all = self.datacenters.iter().map(String::as_str);
            let hint = match nearest(&name.value, all) {
                Some(right) => format!("did you mean `{right}`?"),
                None => format!("the datacenters are {}", self.datacenters.join(", ")),
            };
            section.wrong(
                key,
                &name.span,
                format!("unknown datacenter `{}`: {hint}", crate::shorten(&name.value)),
            );
        }
        found
    }

    /// Numbers of an ordered list of datacenters, each at most once.
    pub(super) fn order(&self, section: &mut Section<'_>, key: &'static str) -> Option<Vec<usize>> {
        let list = section.list(key, &read::text("the name of a datacenter"))?;
        let mut order = Vec::new();
        for name in &list {
            if let Some(number) = self.datacenter(section, key, name) {
                if order.contains(&number) {
                    section.wrong(key, &name.span, format!("`{}` stands here twice", name.value));
                } else {
                    order.push(number);
                }
            }
        }
        Some(order)
    }

    /// Weights by number of the datacenter. Those not listed weigh 0 once any is listed.
    pub(super) fn weights(&self, section: &mut Section<'_>) -> Option<Vec<u32>> {
        let entries = section.entries("weights", &read::integer("a weight", 0..=defaults::WEIGHT_MAX))?;
        let mut weights = vec![0; self.datacenters.len()];
        for (name, weight) in &entries {
            if let Some(number) = self.datacenter(section, "weights", name) {
                weights[number] = u32::try_from(weight.value).expect("the range was checked");
            }
        }
        if weights.iter().all(|&weight| weight == 0) {
            let span = entries.first().map_or(section.span.clone(), |(first, _)| first.span.clone());
            section.wrong("weights", &span, "all weights are 0: at least one datacenter must have a share");
        }
        Some(weights)
    }
}

/// Notes what stands twice among things that must be different.
pub(super) fn unique<T: Eq + Hash>(
    source: &Source<'_>,
    what: &str,
    seen: &mut HashMap<T, Range<usize>>,
    key: T,
    span: &Range<usize>,
    shown: &str,
) {
    if let Some(first) = seen.get(&key) {
        let (line, _) = source.place(first.start);
        source.problem(span, format!("{what} `{}` is already given at line {line}", crate::shorten(shown)));
    } else {
        seen.insert(key, span.clone());
    }
}

/// A first pass for the names alone, so that a table that is otherwise wrong is still known to references.
pub(super) fn names_in(section: &mut Section<'_>, key: &'static str) -> Vec<String> {
    section.tables(key).into_iter().map(|table| table.peek_text("name").unwrap_or_default()).collect()
}

/// The datacenters, and the URLs of all agents, with their paths in the file.
fn datacenters(root: &mut Section<'_>) -> (Vec<Option<Datacenter>>, Vec<AgentUrl>) {
    let sections = root.tables("datacenters");
    if sections.is_empty() {
        root.missing("datacenters", "at least one [[datacenters]] table");
    }
    if let Some(over) = sections.get(DATACENTERS_MAX) {
        over.source.problem(&over.span, format!("datacenters: at most {DATACENTERS_MAX} are supported"));
    }
    let mut seen = HashMap::new();
    let mut seen_agents = HashMap::new();
    let mut agents = Vec::new();
    let each = |section| datacenter(section, &mut seen, &mut seen_agents, &mut agents);
    (sections.into_iter().map(each).collect(), agents)
}
fn datacenter(
    mut section: Section<'_>,
    seen: &mut HashMap<String, Range<usize>>,
    seen_agents: &mut HashMap<String, Range<usize>>,
    agents: &mut Vec<AgentUrl>,
) -> Option<Datacenter> {
    let source = section.source;
    let name = section.required("name", &read::name());
    if let Some(name) = &name {
        unique(source, "datacenter", seen, name.value.clone(), &name.span, &name.value);
    }
    let latitude = section.required("latitude", &read::number("degrees north", -90.0..=90.0));
    let longitude = section.required("longitude", &read::number("degrees east", -180.0..=180.0));
    let addresses = section.list("addresses", &usable_address());
    if !section.has("addresses") {
        section.missing("addresses", "a list of public IP addresses");
    }
    let capacity =
        section.optional("capacity_rps", &read::integer("requests per second", 1..=i64::from(u32::MAX)));
    let agent = section.required("agent", &read::url());
    if let Some(agent) = &agent {
        unique(source, "agent", seen_agents, agent.value.to_string(), &agent.span, agent.value.as_str());
        agents.push(AgentUrl { path: section.path("agent"), url: agent.clone() });
    }
    section.finish();
    Some(Datacenter {
        name: name?.value,
        point: Point { latitude: latitude?.value, longitude: longitude?.value },
        addresses: addresses?.into_iter().map(|address| address.value).collect(),
        capacity_rps: capacity.and_then(|rps| u32::try_from(rps.value).ok()),
        agent: agent?.value,
    })
}

/// An address that a server can have.
fn usable_address() -> Kind<IpAddr> {
    Kind::parsed("an IP address of a host, such as \"192.0.2.1\" or \"2001:db8::1\"", |text| {
        let address: IpAddr = text.parse().ok()?;
        (!address.is_unspecified() && !address.is_multicast() && address != IpAddr::V4(Ipv4Addr::BROADCAST))
            .then(|| address.to_canonical())
    })
}

fn servers(root: &mut Section<'_>, names: &Names, datacenters: &[Option<Datacenter>]) -> Vec<Server> {
    let sections = root.tables("servers");
    if let Some(over) = sections.get(SERVERS_MAX) {
        over.source.problem(&over.span, format!("servers: at most {SERVERS_MAX} are supported"));
    }
    let mut seen = HashMap::new();
    sections.into_iter().filter_map(|section| server(section, names, datacenters, &mut seen)).collect()
}

fn server(
    mut section: Section<'_>,
    names: &Names,
    datacenters: &[Option<Datacenter>],
    seen: &mut HashMap<String, Range<usize>>,
) -> Option<Server> {
    let name = section.required("name", &read::name());
    if let Some(name) = &name {
        unique(section.source, "server", seen, name.value.clone(), &name.span, &name.value);
    }
    let role = section.required("role", &read::name());
    let datacenter = section.required("datacenter", &read::text("the name of a datacenter"));
    let datacenter = datacenter.and_then(|name| names.datacenter(&section, "datacenter", &name));
    let url = section.optional("url", &read::url()).map(|url| url.value);
    let listed = section.list("addresses", &usable_address());
    let addresses: Vec<IpAddr> = match (listed, &url, datacenter) {
        (Some(listed), _, _) => listed.into_iter().map(|address| address.value).collect(),
        (None, url, datacenter) => match (url.as_ref().and_then(url_address), datacenter) {
            (Some(address), _) => vec![address],
            (None, Some(number)) => {
                datacenters[number].as_ref().map(|d| d.addresses.clone()).unwrap_or_default()
            }
            (None, None) => Vec::new(),
        },
    };
    let weight = section.optional("weight", &read::integer("a weight", 0..=defaults::WEIGHT_MAX));
    let check = check(&mut section, url.as_ref());
    section.finish();
    Some(Server {
        name: name?.value,
        role: role?.value,
        datacenter: datacenter?,
        addresses,
        url,
        weight: weight.map_or(defaults::WEIGHT, |weight| u32::try_from(weight.value).expect("range checked")),
        check: check?,
    })
}

pub(super) fn url_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(v4) => Some(v4.into()),
        Host::Ipv6(v6) => Some(v6.into()),
        Host::Domain(_) => None,
    }
}

fn listen() -> Kind<Listen> {
    let expected =
        "an address and a port such as \"192.0.2.1:53\", \"[::1]:53\", \"datacenter:53\" or \"agent:7400\"";
    Kind::parsed(expected, |text| {
        for (word, host) in [("datacenter:", ListenHost::Datacenter), ("agent:", ListenHost::Agent)] {
            if let Some(port) = text.strip_prefix(word) {
                return Some(Listen { host, port: port.parse().ok().filter(|&port| port != 0)? });
            }
        }
        let socket: SocketAddr = text.parse().ok()?;
        (socket.port() != 0).then(|| Listen { host: ListenHost::Address(socket.ip()), port: socket.port() })
    })
}

pub(super) fn listens(
    section: &mut Section<'_>,
    key: &'static str,
    default: impl FnOnce() -> Vec<Listen>,
) -> Vec<Listen> {
    let Some(list) = section.list(key, &listen()) else { return default() };
    let mut seen = HashMap::new();
    for one in &list {
        let shown = match one.value.host {
            ListenHost::Address(address) => address.to_string(),
            ListenHost::Datacenter => "datacenter".to_owned(),
            ListenHost::Agent => "agent".to_owned(),
        };
        let shown = format!("{shown}:{}", one.value.port);
        unique(section.source, "listener", &mut seen, shown.clone(), &one.span, &shown);
    }
    list.into_iter().map(|one| one.value).collect()
}

/// Everywhere, IPv6 included: Linux's wildcard `[::]` takes both families.
pub(super) fn everywhere(port: u16) -> Vec<Listen> {
    vec![Listen { host: ListenHost::Address(Ipv6Addr::UNSPECIFIED.into()), port }]
}

fn geo(mut section: Section<'_>) -> GeoSource {
    let database = section.optional("database", &read::text("the path of a MaxMind-format file"));
    let ranges = section.list("ranges", &read::text("the path of a file of `first,last,country` lines"));
    section.finish();
    match (database, ranges) {
        (Some(database), _) => GeoSource::Database(database.value),
        (None, Some(ranges)) if !ranges.is_empty() => {
            GeoSource::Ranges(ranges.into_iter().map(|file| file.value).collect())
        }
        _ => GeoSource::Builtin,
    }
}
