//! The one decision of the DNS server: a question and a client in, a whole answer out. Pure, total, never an error.
//!
//! The order of the rules is that of RFC 1034 section 4.3.2: the closest zone, a delegation on the way down, the
//! name itself, a CNAME to follow, a wildcard (RFC 4592), and at the end a negative answer with the zone's SOA
//! (RFC 2308). Steered names come in where the name itself would be looked up.

use daemun_fleet::config::AddressType;
use daemun_fleet::placement::Choice;
use daemun_fleet::{Client, Placer};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};

use crate::zone::{Node, Zone, Zones};

/// CNAMEs followed within our zones before the rest is left to the resolver.
const CNAMES_MAX: usize = 8;
/// Time to live of an answer to ANY (RFC 8482 section 4.2).
const ANY_TTL_SECONDS: u32 = 3600;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, in the asker's letter case.
    pub name: Name,
    /// The type.
    pub record_type: RecordType,
    /// The class.
    pub class: DNSClass,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The response code.
    pub code: ResponseCode,
    /// The data is ours to give.
    pub authoritative: bool,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authority: Vec<Record>,
    /// Additional section, without OPT.
    pub additional: Vec<Record>,
    /// The placement, when the answer depends on the client.
    pub choice: Option<Choice>,
}

impl Answer {
    fn empty(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            choice: None,
        }
    }

    /// EDNS client subnet scope: 0 for everything that does not depend on the client (RFC 7871 section 7.2.1).
    pub fn scope(&self) -> u8 {
        self.choice.map_or(0, |choice| choice.scope)
    }
}

/// Answers a question for a client.
pub fn answer(zones: &Zones, placer: &Placer, question: &Question, client: &Client) -> Answer {
    if question.class != DNSClass::IN || is_no_data(question.record_type) {
        return Answer::empty(ResponseCode::Refused);
    }
    let mut name = question.name.clone();
    let Some(mut zone) = zones.closest(&LowerName::new(&name)) else {
        return Answer::empty(ResponseCode::Refused);
    };
    let mut answer = Answer { authoritative: true, ..Answer::empty(ResponseCode::NoError) };
    for _ in 0..CNAMES_MAX {
        let Some(target) = step(zone, placer, &name, question.record_type, client, &mut answer) else {
            break;
        };
        if answer.answers.iter().any(|record| LowerName::new(&record.name) == LowerName::new(&target)) {
            break; // a circle: it has been said
        }
        match zones.closest(&LowerName::new(&target)) {
            Some(next) => (zone, name) = (next, target),
            None => break, // leads out of our zones: the resolver goes on
        }
    }
    answer
}

/// Types that no record has: transfers, which are not served, and what belongs to a message (RFC 6895 section 3.1).
pub(crate) fn is_no_data(record_type: RecordType) -> bool {
    let number = u16::from(record_type);
    number == 0 || record_type == RecordType::OPT || (128..=254).contains(&number)
}

/// Adds what `zone` has to say about `name`; a CNAME's target is returned to go on with.
fn step(
    zone: &Zone,
    placer: &Placer,
    name: &Name,
    record_type: RecordType,
    client: &Client,
    answer: &mut Answer,
) -> Option<Name> {
    let lower = LowerName::new(name);
    if let Some(cut) = zone.delegation(&lower, record_type) {
        // Behind a CNAME of ours the answer stays authoritative for what it holds; a bare referral is not.
        answer.authoritative = !answer.answers.is_empty();
        answer.authority.extend(cut.records(RecordType::NS).iter().cloned());
        add_addresses(zone, answer);
        return None;
    }
    let node = zone.node(&lower);
    if let Some(steered) = steered(zone, placer, &lower, name, record_type, client, answer) {
        if !steered && node.is_none_or(|node| node.records(record_type).is_empty()) {
            negative(zone, ResponseCode::NoError, answer);
            return None;
        }
        if steered {
            return None;
        }
    }
    match node.or_else(|| zone.wildcard(&lower)) {
        Some(node) => from_node(zone, node, name, record_type, answer),
        None => {
            // Behind a CNAME, NXDOMAIN speaks of the last name of the chain (RFC 6604 section 3).
            negative(zone, ResponseCode::NXDomain, answer);
            None
        }
    }
}

/// Whether the name is steered, and then whether this type of it is (and has been answered).
fn steered(
    zone: &Zone,
    placer: &Placer,
    lower: &LowerName,
    name: &Name,
    record_type: RecordType,
    client: &Client,
    answer: &mut Answer,
) -> Option<bool> {
    let target = zone.steered(lower)?;
    let config = placer.steering().steered_name(target)?;
    let family = match record_type {
        RecordType::A => AddressType::A,
        RecordType::AAAA => AddressType::Aaaa,
        // One type answers for all (RFC 8482 section 4.1).
        RecordType::ANY => config.types[0],
        _ => return Some(false),
    };
    if !config.types.contains(&family) {
        return Some(false);
    }
    let choice = placer.choose(target, client);
    let addresses =
        placer.addresses(target, choice.datacenter).iter().filter(|address| family.holds(address));
    let record = |address: &std::net::IpAddr| {
        let data = match *address {
            std::net::IpAddr::V4(v4) => RData::A(v4.into()),
            std::net::IpAddr::V6(v6) => RData::AAAA(v6.into()),
        };
        Record::from_rdata(name.clone(), config.ttl_seconds, data)
    };
    answer.answers.extend(addresses.map(record));
    answer.choice = Some(choice);
    Some(true)
}

fn from_node(
    zone: &Zone,
    node: &Node,
    name: &Name,
    record_type: RecordType,
    answer: &mut Answer,
) -> Option<Name> {
    let own = |record: &Record| {
        let mut record = record.clone();
        record.name = name.clone();
        record
    };
    if record_type == RecordType::ANY && !node.is_empty() {
        let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
        answer.answers.push(Record::from_rdata(name.clone(), ANY_TTL_SECONDS, RData::HINFO(hinfo)));
        return None;
    }
    let found = node.records(record_type);
    if !found.is_empty() {
        answer.answers.extend(found.iter().map(own));
        add_addresses(zone, answer);
        return None;
    }
    if let Some(alias) = node.records(RecordType::CNAME).first() {
        answer.answers.push(own(alias));
        return match &alias.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        };
    }
    negative(zone, ResponseCode::NoError, answer);
    None
}

/// A negative answer: the SOA, living no longer than its MINIMUM (RFC 2308 section 5).
fn negative(zone: &Zone, code: ResponseCode, answer: &mut Answer) {
    answer.code = code;
    answer.authority.push(zone.negative_soa());
}

/// Addresses, from the same zone, of the hosts that the answer or a referral names. Steered names have none here:
/// what is additional is never tailored to a client.
fn add_addresses(zone: &Zone, answer: &mut Answer) {
    let mut hosts: Vec<LowerName> = Vec::new();
    for record in answer.answers.iter().chain(&answer.authority) {
        let host = match &record.data {
            RData::NS(ns) => &ns.0,
            RData::MX(mx) => &mx.exchange,
            RData::SRV(srv) => &srv.target,
            _ => continue,
        };
        let host = LowerName::new(host);
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    for host in hosts {
        if let Some(node) = zone.node(&host) {
            let addresses =
                [RecordType::A, RecordType::AAAA].into_iter().flat_map(|family| node.records(family));
            answer.additional.extend(addresses.cloned());
        }
    }
}
