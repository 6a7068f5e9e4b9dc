//! The `[dns]` section: zones, steered names, policies and overrides.

use std::collections::HashMap;
use std::ops::Range;

use ipnet::IpNet;

use super::defaults;
use super::parse::{Names, listens, unique};
use super::read::{self, Kind, Located, Section};
use super::*;
use crate::location::{Continent, Country};

pub(super) fn dns(mut section: Section<'_>, names: &Names, fleet: &Fleet) -> Dns {
    let listen = listens(&mut section, "listen", || {
        vec![Listen { host: ListenHost::Datacenter, port: defaults::DNS_PORT }]
    });
    let tls_listen = listens(&mut section, "tls_listen", Vec::new);
    let https_listen = listens(&mut section, "https_listen", Vec::new);
    let quic_listen = listens(&mut section, "quic_listen", Vec::new);
    let is_encrypted = !(tls_listen.is_empty() && https_listen.is_empty() && quic_listen.is_empty());
    let certificate = certificate(&mut section, is_encrypted);
    let proxies = prefixes(&mut section, "proxies").unwrap_or_default();
    let subnet_from = prefixes(&mut section, "subnet_from");
    let secrets = section.optional("cookie_secrets", &read::text("the path of a file of secrets"));
    let rate_limit = rate_limit(section.table("rate_limit"));
    let ratio = section.optional("amplification_max", &read::integer("times", 2..=100));
    const CHAOS: &[(&str, Chaos)] = &[("id", Chaos::Id), ("version", Chaos::Version)];
    let chaos = section.list("chaos", &read::one_of(CHAOS)).unwrap_or_default();
    let mut seen = HashMap::new();
    let zones: Vec<ZoneFile> = section
        .tables("zones")
        .into_iter()
        .filter_map(|mut zone| {
            let name = zone.required("name", &domain_name());
            let file = zone.required("file", &read::text("the path of a master file"));
            if let Some(name) = &name {
                unique(zone.source, "zone", &mut seen, name.value.clone(), &name.span, &name.value);
            }
            zone.finish();
            Some(ZoneFile { name: name?.value, file: file?.value })
        })
        .collect();
    let default_order = section_default_order(&mut section, names);
    let read: Vec<OverrideRead> =
        section.tables("overrides").into_iter().filter_map(|one| place_override(one, names)).collect();
    let mut steered = steered_names(&mut section, names, fleet, &zones);
    assign_overrides(&section, names, &read, &mut steered);
    section.finish();
    let overrides = read.into_iter().map(|one| one.place).collect();
    Dns {
        listen,
        tls_listen,
        https_listen,
        quic_listen,
        certificate,
        proxies,
        subnet_from,
        cookie_secrets: secrets.map(|file| file.value),
        rate_limit,
        amplification_max: ratio.map_or(defaults::AMPLIFICATION_MAX, |ratio| ratio.value as u16),
        chaos: chaos.into_iter().map(|name| name.value).collect(),
        zones,
        names: steered,
        overrides,
        default_order,
    }
}

/// `certificate` and `key`: both or none, and both if anything listens that needs them.
pub(super) fn certificate(section: &mut Section<'_>, is_encrypted: bool) -> Option<CertificateFiles> {
    let chain = section.optional("certificate", &read::text("the path of a PEM file"));
    let key = section.optional("key", &read::text("the path of a PEM file"));
    for (given, missing) in [("certificate", "key"), ("key", "certificate")] {
        if !section.has(missing) && (section.has(given) || is_encrypted) {
            section.missing(missing, "the path of a PEM file, for the encrypted listeners");
        }
    }
    Some(CertificateFiles { chain: chain?.value, key: key?.value })
}

fn prefixes(section: &mut Section<'_>, key: &'static str) -> Option<Vec<IpNet>> {
    let list = section.list(key, &read::prefix())?;
    Some(list.into_iter().map(|prefix| prefix.value).collect())
}

fn rate_limit(mut section: Section<'_>) -> RateLimit {
    let number = |found: Option<Located<i64>>, default: u32| {
        found.map_or(default, |found| u32::try_from(found.value).expect("range checked"))
    };
    let rate = section.optional("answers_per_second", &read::integer("answers", 0..=1_000_000));
    let slip = section.optional("slip", &read::integer("answers", 0..=10));
    let exempt = section.list_or_none("exempt", &read::prefix());
    let exempt = exempt.map(|list| list.into_iter().map(|prefix| prefix.value).collect());
    let exempt = exempt.unwrap_or_else(|| {
        defaults::RATE_LIMIT_EXEMPT.iter().map(|net| net.parse().expect("a prefix")).collect()
    });
    section.finish();
    RateLimit {
        answers_per_second: number(rate, defaults::ANSWERS_PER_SECOND),
        slip: number(slip, defaults::SLIP),
        exempt,
    }
}

/// Gives each steered name the overrides that hold for it; no place may have two of them for one name.
fn assign_overrides(
    section: &Section<'_>,
    names: &Names,
    read: &[OverrideRead],
    steered: &mut [SteeredName],
) {
    for name in read.iter().filter_map(|one| one.only.as_ref()).flatten() {
        names.check_steered(section, "overrides", name);
    }
    let holds_for = |one: &OverrideRead, name: Option<&str>| match (&one.only, name) {
        (None, _) => true,
        (Some(only), Some(name)) => only.iter().any(|only| only.value == name),
        (Some(_), None) => false,
    };
    let check = |name: Option<&str>| {
        let mut seen = HashMap::new();
        for place in read.iter().filter(|one| holds_for(one, name)).flat_map(|one| &one.places) {
            unique(section.source, "an override for", &mut seen, &place.value, &place.span, &place.value);
        }
    };
    check(None); // the server list
    for name in steered {
        check(Some(&name.name));
        name.overrides =
            (0..read.len()).filter(|&number| holds_for(&read[number], Some(&name.name))).collect();
    }
}

/// The order for clients of unknown place; the datacenters it leaves out follow in the order of the file.
fn section_default_order(section: &mut Section<'_>, names: &Names) -> Vec<usize> {
    let mut order = names.order(section, "default_order").unwrap_or_default();
    complete(&mut order, names.datacenters.len());
    order
}

fn complete(order: &mut Vec<usize>, count: usize) {
    for number in 0..count {
        if !order.contains(&number) {
            order.push(number);
        }
    }
}

/// A host name: letters, digits, hyphens and underscores in labels of up to 63, 253 in all.
pub(super) fn domain_name() -> Kind<String> {
    Kind::parsed("a domain name such as \"www.example.net\"", |text| {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        ((1..=253).contains(&name.len()) && name.split('.').all(label)).then_some(name)
    })
}

/// The same, or a wildcard (RFC 4592).
fn steered_domain_name() -> Kind<String> {
    Kind::parsed("a domain name such as \"www.example.net\" or \"*.example.net\"", |text| {
        let (star, rest) = text.strip_prefix("*.").map_or(("", text), |rest| ("*.", rest));
        domain_name().parse(rest).map(|name| format!("{star}{name}"))
    })
}

fn steered_names(
    section: &mut Section<'_>,
    names: &Names,
    fleet: &Fleet,
    zones: &[ZoneFile],
) -> Vec<SteeredName> {
    let sections = section.tables("names");
    if let Some(over) = sections.get(NAMES_MAX) {
        over.source.problem(&over.span, format!("dns.names: at most {NAMES_MAX} are supported"));
    }
    let mut seen = HashMap::new();
    sections.into_iter().filter_map(|one| steered_name(one, names, fleet, zones, &mut seen)).collect()
}

fn steered_name(
    mut section: Section<'_>,
    names: &Names,
    fleet: &Fleet,
    zones: &[ZoneFile],
    seen: &mut HashMap<String, Range<usize>>,
) -> Option<SteeredName> {
    let (line, _) = section.source.place(section.span.start);
    let name = section.required("name", &steered_domain_name());
    if let Some(name) = &name {
        unique(section.source, "steered name", seen, name.value.clone(), &name.span, &name.value);
        let inside = |zone: &ZoneFile| {
            name.value.strip_suffix(&zone.name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if !zones.iter().any(inside) {
            let zones = zones.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>().join(", ");
            section.wrong("name", &name.span, format!("`{}` is in none of the zones ({zones})", name.value));
        }
    }
    let policy = policy(&mut section, names);
    let seconds = || read::integer("seconds", 0..=defaults::TTL_SECONDS_MAX);
    let (ttl, changing) = (section.optional("ttl", &seconds()), section.optional("ttl_changing", &seconds()));
    let in_seconds = |ttl: Option<Located<i64>>, default: u32| {
        ttl.map_or(default, |ttl| u32::try_from(ttl.value).expect("range checked"))
    };
    let ttl_seconds = in_seconds(ttl, defaults::TTL_SECONDS);
    if let Some(changing) = changing.as_ref().filter(|changing| changing.value > i64::from(ttl_seconds)) {
        section.wrong("ttl_changing", &changing.span, format!("expected at most the `ttl`, {ttl_seconds}"));
    }
    let answers = section.optional("answers", &read::integer("datacenters", 1..=defaults::ANSWERS_MAX));
    let role = section.optional("role", &read::name());
    let shown_role = role.as_ref().map_or(defaults::ROLE, |role| role.value.as_str()).to_owned();
    const TYPES: &[(&str, AddressType)] = &[("A", AddressType::A), ("AAAA", AddressType::Aaaa)];
    let types = section.list("types", &read::one_of(TYPES));
    let when_all_down = names.order(&mut section, "when_all_down").unwrap_or_default();
    let records = steered_records(&mut section, &shown_role, fleet, names);
    let types = match (types, &records) {
        // Other records and no word of addresses: none.
        (None, Some(records)) if !records.is_empty() => Some(Vec::new()),
        (types, _) => address_types(&section, types, &shown_role, fleet, names),
    };
    section.finish();
    Some(SteeredName {
        name: name?.value,
        line,
        policy: policy?,
        ttl_seconds,
        ttl_changing_seconds: in_seconds(changing, defaults::TTL_CHANGING_SECONDS.min(ttl_seconds)),
        answers: answers.map_or(defaults::ANSWERS, |answers| answers.value as usize),
        when_all_down,
        types: types?,
        records: records?,
        role: shown_role,
        overrides: Vec::new(),
    })
}

/// `records.TYPE`: data for all datacenters alike, or a table of data by datacenter, which must then have each that
/// has the role.
fn steered_records(
    section: &mut Section<'_>,
    role: &str,
    fleet: &Fleet,
    names: &Names,
) -> Option<Vec<SteeredRecords>> {
    let data = || read::text("record data as in a master file, such as \"0 10 443 seoul\"");
    let table = section.table("records");
    let mut all = Vec::new();
    for (word, value) in table.members() {
        let record_type = word.value.to_ascii_uppercase();
        let (line, _) = section.source.place(word.span.start);
        let path = format!("records.{}", word.value);
        if record_type == "A" || record_type == "AAAA" {
            section.wrong(&path, &word.span, "addresses are those of the servers: use `types`, and `role`");
            continue;
        }
        let mut by_datacenter = vec![Vec::new(); names.datacenters.len()];
        match table.texts(&word.value, value, &data()) {
            read::Texts::Alike(texts) => by_datacenter.fill(texts),
            read::Texts::ByName(entries) => {
                for (name, texts) in entries {
                    if let Some(number) = names.datacenter(section, &path, &name) {
                        by_datacenter[number] = texts;
                    }
                }
            }
        }
        if fleet.datacenters.len() == names.datacenters.len() {
            for (number, datacenter) in fleet.datacenters.iter().enumerate() {
                if by_datacenter[number].is_empty() && fleet.servers_of(number, role).next().is_some() {
                    let datacenter = &datacenter.name;
                    section.wrong(&path, &word.span, format!("has no data for datacenter `{datacenter}`"));
                }
            }
        }
        all.push(SteeredRecords { record_type, line, by_datacenter });
    }
    let is_alias = all.iter().any(|records| records.record_type == "CNAME");
    if is_alias && (all.len() > 1 || section.has("types")) {
        let message =
            "a CNAME must be the only record of its name (RFC 2181 section 10.1): remove the others";
        section.source.problem(&section.span, format!("{}: {message}", section.path("records.CNAME")));
        return None;
    }
    Some(all)
}

/// The families to answer. Those asked for must be there in every datacenter that has the role, or a user would be
/// sent to a place that cannot be reached; silent: those that all have.
fn address_types(
    section: &Section<'_>,
    asked: Option<Vec<Located<AddressType>>>,
    role: &str,
    fleet: &Fleet,
    names: &Names,
) -> Option<Vec<AddressType>> {
    // With a datacenter missing, numbers do not fit, and what is wrong with it has been said.
    if fleet.datacenters.len() != names.datacenters.len() {
        return None;
    }
    let with_role: Vec<usize> = (0..fleet.datacenters.len())
        .filter(|&number| fleet.servers_of(number, role).next().is_some())
        .collect();
    if with_role.is_empty() {
        section
            .source
            .problem(&section.span, format!("{}: no server has the role `{role}`", section.path("role")));
        return None;
    }
    let lacks = |number: usize, family: AddressType| {
        !fleet
            .servers_of(number, role)
            .any(|server| server.addresses.iter().any(|address| family.holds(address)))
    };
    let Some(asked) = asked else {
        let both = [AddressType::A, AddressType::Aaaa].into_iter();
        let types: Vec<_> =
            both.filter(|&family| !with_role.iter().any(|&number| lacks(number, family))).collect();
        if types.is_empty() {
            let message =
                "no address family is there in every datacenter: give each an IPv4 or each an IPv6 address";
            section.source.problem(&section.span, format!("{}: {message}", section.path("types")));
        }
        return (!types.is_empty()).then_some(types);
    };
    for family in &asked {
        for &number in with_role.iter().filter(|&&number| lacks(number, family.value)) {
            let (name, version) =
                (&names.datacenters[number], if family.value == AddressType::A { 4 } else { 6 });
            section.wrong("types", &family.span, format!(
                "{} is asked for, but no `{role}` server of datacenter `{name}` has an IPv{version} address",
                family.value.name()
            ));
        }
    }
    if asked.is_empty() {
        return None; // what was wrong with them has been said
    }
    let mut types: Vec<_> = asked.into_iter().map(|family| family.value).collect();
    types.sort();
    types.dedup();
    Some(types)
}

#[derive(Clone, Copy, PartialEq)]
enum PolicyWord {
    Nearest,
    Weighted,
    Failover,
}

fn policy(section: &mut Section<'_>, names: &Names) -> Option<Policy> {
    const WORDS: &[(&str, PolicyWord)] = &[
        ("nearest", PolicyWord::Nearest),
        ("weighted", PolicyWord::Weighted),
        ("failover", PolicyWord::Failover),
    ];
    let word = section.required("policy", &read::one_of(WORDS));
    let weights = names.weights(section);
    let order = names.order(section, "order");
    let band = section.optional("band_km", &read::integer("kilometres", 0..=defaults::BAND_KM_MAX));
    let word = word?;
    let misplaced = |key: &str, belongs: &str| {
        if section.has(key) {
            section.wrong(key, &word.span, format!("goes with policy {belongs}"));
        }
    };
    match word.value {
        PolicyWord::Nearest => {
            misplaced("order", "\"failover\"");
            let band_km =
                band.map_or(defaults::BAND_KM, |band| u32::try_from(band.value).expect("range checked"));
            if weights.is_some() && band_km == 0 {
                section.wrong(
                    "weights",
                    &word.span,
                    "with policy \"nearest\" weights share users inside a `band_km`; give one",
                );
            }
            let weights = weights.unwrap_or_else(|| vec![defaults::WEIGHT; names.datacenters.len()]);
            Some(Policy::Nearest { band_km, weights })
        }
        PolicyWord::Weighted => {
            misplaced("order", "\"failover\"");
            misplaced("band_km", "\"nearest\"");
            if weights.is_none() && !section.has("weights") {
                section.missing("weights", "a table such as { seoul = 70, frankfurt = 30 }");
            }
            Some(Policy::Weighted { weights: weights? })
        }
        PolicyWord::Failover => {
            misplaced("weights", "\"weighted\" or \"nearest\"");
            misplaced("band_km", "\"nearest\"");
            if order.is_none() && !section.has("order") {
                section.missing("order", "a list of datacenters, first choice first");
            }
            let mut order = order?;
            complete(&mut order, names.datacenters.len());
            Some(Policy::Failover { order })
        }
    }
}

/// An override as it was read.
struct OverrideRead {
    place: PlaceOverride,
    /// The steered names it is limited to; `None`: all.
    only: Option<Vec<Located<String>>>,
    /// Each prefix, country and continent as text, to find two overrides for one.
    places: Vec<Located<String>>,
}

fn place_override(mut section: Section<'_>, names: &Names) -> Option<OverrideRead> {
    fn note<T: ToString>(list: Vec<Located<T>>, what: &str, places: &mut Vec<Located<String>>) -> Vec<T> {
        let shown = |one: &Located<T>| format!("{what}{}", one.value.to_string());
        places.extend(list.iter().map(|one| Located { value: shown(one), span: one.span.clone() }));
        list.into_iter().map(|one| one.value).collect()
    }
    let mut places = Vec::new();
    let prefixes = section.list("prefixes", &read::prefix()).unwrap_or_default();
    let prefixes: Vec<IpNet> = note(prefixes, "prefix ", &mut places);
    let country = Kind::parsed("a two-letter country code such as \"KR\"", Country::from_code);
    let countries = section.list("countries", &country).unwrap_or_default();
    let countries = note(countries, "country ", &mut places);
    let continent = Kind::parsed("one of AF, AN, AS, EU, NA, OC, SA", Continent::from_code);
    let continents = section.list("continents", &continent).unwrap_or_default();
    let continents = note(continents, "continent ", &mut places);
    let order = names.order(&mut section, "order");
    let only = section.list("names", &steered_domain_name());
    if ["prefixes", "countries", "continents"].iter().all(|key| !section.has(key)) {
        let message = "expected at least one of `prefixes`, `countries` and `continents`";
        section.source.problem(&section.span, format!("{}: {message}", section.path("countries")));
    }
    if !section.has("order") {
        section.missing("order", "a list of datacenters, first choice first");
    }
    section.finish();
    Some(OverrideRead {
        place: PlaceOverride { prefixes, countries, continents, for_all: only.is_none(), order: order? },
        only,
        places,
    })
}
