//! The one decision of the DNS server: a question and a client in, a whole answer out. Pure, total, never an error.
//!
//! The order of the rules is that of RFC 1034 section 4.3.2: the closest zone, a delegation on the way down, the
//! name itself or the wildcard that covers it (RFC 4592), a CNAME to follow, and at the end a negative answer with the
//! zone's SOA (RFC 2308). Steered records come in where those of the name itself would be looked up.

use daemun_fleet::config::{AddressType, Chaos};
use daemun_fleet::placement::Choice;
use daemun_fleet::steering::Target;
use daemun_fleet::{Client, Placer};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{HINFO, HTTPS, TXT};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};

use crate::State;
use crate::limit::Kind;
use crate::zone::{Owner, Steered, Zone, Zones};

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

/// Why an answer is as it is, for people and for resolvers that care; nothing depends on it (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT.
    pub text: &'static str,
}

impl ExtendedError {
    const FAIL_OPEN: Self =
        Self { code: 0, text: "all that could answer look down: answered as if they were well" };
    const STALE: Self = Self { code: 3, text: "no agent is heard: placed by the last view" };
    const NOT_READY: Self =
        Self { code: 14, text: "nothing has been observed yet: placed as if all were well" };
    const PROHIBITED: Self = Self { code: 18, text: "not told to answer this" };
    const NOT_AUTHORITATIVE: Self = Self { code: 20, text: "not in a zone that is served here" };
    const NOT_SUPPORTED: Self = Self { code: 21, text: "not served: zones come from files" };
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The response code.
    pub code: ResponseCode,
    /// The data is ours to give.
    pub authoritative: bool,
    /// Nothing is in it but the word to ask again over TCP.
    pub truncated: bool,
    /// It leads to other name servers, whose addresses must be with it.
    pub refers: bool,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authority: Vec<Record>,
    /// Additional section, without OPT.
    pub additional: Vec<Record>,
    /// What was placed, and where; none when the answer is the same for all.
    pub placed: Vec<(Target, Choice)>,
    /// Why it is so, if that is not plain.
    pub extended_error: Option<ExtendedError>,
    about: About,
}

/// What it says, as far as a flood is concerned.
#[derive(Clone, Debug, PartialEq)]
enum About {
    Error,
    Data(LowerName),
    Below(LowerName),
}

impl Answer {
    /// An answer that is only a code.
    pub(crate) fn empty(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            truncated: false,
            refers: false,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            placed: Vec::new(),
            extended_error: None,
            about: About::Error,
        }
    }

    fn refused(why: ExtendedError) -> Self {
        Self { extended_error: Some(why), ..Self::empty(ResponseCode::Refused) }
    }

    /// EDNS client subnet scope: 0 for everything that does not depend on the client (RFC 7871 section 7.2.1); of
    /// several placements the narrowest.
    pub fn scope(&self) -> u8 {
        self.placed.iter().map(|(_, choice)| choice.scope).max().unwrap_or(0)
    }

    /// What it says, for the rate limit.
    pub(crate) fn kind(&self) -> Kind<'_> {
        match &self.about {
            About::Error => Kind::Error,
            About::Data(name) => Kind::Data(name),
            About::Below(name) => Kind::Below(name),
        }
    }

    /// Leaves nothing but the word to ask again over TCP.
    pub(crate) fn cut(&mut self) {
        self.answers.clear();
        self.authority.clear();
        self.additional.clear();
        self.truncated = true;
    }
}

/// Answers a question for a client.
pub fn answer(state: &State, question: &Question, client: &Client) -> Answer {
    match question.class {
        DNSClass::IN => {}
        DNSClass::CH => return chaos(state, question),
        _ => return Answer::refused(ExtendedError::NOT_AUTHORITATIVE),
    }
    if is_no_data(question.record_type) {
        return Answer::refused(ExtendedError::NOT_SUPPORTED);
    }
    let (zones, placer) = (&state.zones, &*state.placer);
    let mut name = question.name.clone();
    let Some(mut zone) = zone_for(zones, &LowerName::new(&name), question.record_type) else {
        return Answer::refused(ExtendedError::NOT_AUTHORITATIVE);
    };
    let mut answer = Answer { authoritative: true, ..Answer::empty(ResponseCode::NoError) };
    for _ in 0..CNAMES_MAX {
        let Some(target) = step(zone, placer, &name, question.record_type, client, &mut answer) else {
            break;
        };
        if answer.answers.iter().any(|record| LowerName::new(&record.name) == LowerName::new(&target)) {
            break; // a circle: it has been said
        }
        match zone_for(zones, &LowerName::new(&target), question.record_type) {
            Some(next) => (zone, name) = (next, target),
            None => break, // leads out of our zones: the resolver goes on
        }
    }
    if !answer.placed.is_empty() {
        let is_fail_open = answer.placed.iter().any(|(target, _)| placer.is_fail_open(*target));
        answer.extended_error = match placer.view() {
            _ if is_fail_open => Some(ExtendedError::FAIL_OPEN),
            view if view.generation == 0 => Some(ExtendedError::NOT_READY),
            _ => state.is_stale.then_some(ExtendedError::STALE),
        };
    }
    answer
}

/// The closest zone. DS is kept above the cut: the parent's zone has it, if it is here (RFC 4035 section 3.1.4.1).
fn zone_for<'a>(zones: &'a Zones, name: &LowerName, record_type: RecordType) -> Option<&'a Zone> {
    let closest = zones.closest(name)?;
    if record_type == RecordType::DS && closest.origin() == name && !name.is_root() {
        // Only a zone that delegates the name itself is its parent.
        let above = zones.closest(&name.base_name());
        return above.filter(|above| above.delegates(name)).or(Some(closest));
    }
    Some(closest)
}

/// Types that no record has: transfers, which are not served, and what belongs to a message (RFC 6895 section 3.1).
pub(crate) fn is_no_data(record_type: RecordType) -> bool {
    let number = u16::from(record_type);
    number == 0 || record_type == RecordType::OPT || (128..=254).contains(&number)
}

/// Questions about the server itself (RFC 4892), where the operator wants them answered.
fn chaos(state: &State, question: &Question) -> Answer {
    let asked = LowerName::new(&question.name).to_string();
    let (which, text) = match asked.as_str() {
        "id.server." | "hostname.bind." => (Chaos::Id, &state.identity.name),
        "version.server." | "version.bind." => (Chaos::Version, &state.identity.version),
        _ => return Answer::refused(ExtendedError::NOT_AUTHORITATIVE),
    };
    if !state.config().chaos.contains(&which) {
        return Answer::refused(ExtendedError::PROHIBITED);
    }
    let mut answer = Answer { authoritative: true, ..Answer::empty(ResponseCode::NoError) };
    if matches!(question.record_type, RecordType::TXT | RecordType::ANY) {
        let data = RData::TXT(TXT::new(vec![text.clone()]));
        let mut record = Record::from_rdata(question.name.clone(), 0, data);
        record.dns_class = DNSClass::CH;
        answer.answers.push(record);
    }
    answer
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
    if let Some((cut, node)) = zone.delegation(&lower, record_type) {
        // Behind a CNAME of ours the answer stays authoritative for what it holds; a bare referral is not.
        answer.authoritative = !answer.answers.is_empty();
        answer.about = About::Below(cut);
        answer.refers = true;
        answer.authority.extend(node.records(RecordType::NS).iter().cloned());
        add_addresses(zone, answer);
        return None;
    }
    let Some(owner) = zone.owner(&lower) else {
        // Behind a CNAME, NXDOMAIN speaks of the last name of the chain (RFC 6604 section 3).
        negative(zone, ResponseCode::NXDomain, answer);
        return None;
    };
    answer.about = match owner.is_wildcard {
        true => About::Below(zone.origin().clone()),
        false => About::Data(lower),
    };
    from_owner(zone, placer, &owner, name, record_type, client, answer)
}

/// Adds the records of a type that a name has, or its CNAME, whose target is returned; or says that there are none.
fn from_owner(
    zone: &Zone,
    placer: &Placer,
    owner: &Owner<'_>,
    name: &Name,
    record_type: RecordType,
    client: &Client,
    answer: &mut Answer,
) -> Option<Name> {
    let said = answer.answers.len();
    if let Some(steered) = owner.steered {
        // To ANY one type answers for all (RFC 8482 section 4.1).
        let asked = if record_type == RecordType::ANY { steered.first_type() } else { record_type };
        let is_alias = steered.has(RecordType::CNAME);
        let found = if is_alias { RecordType::CNAME } else { asked };
        if steered.has(found) {
            add_steered(steered, placer, found, name, client, answer);
            add_addresses(zone, answer);
            let goes_on = is_alias && !matches!(record_type, RecordType::CNAME | RecordType::ANY);
            return answer.answers.last().filter(|_| goes_on).and_then(alias_target);
        }
    }
    let node = owner.node;
    let own = |record: &Record| {
        let mut record = record.clone();
        record.name = name.clone();
        record
    };
    if let Some(alias) = node.records(RecordType::CNAME).first() {
        answer.answers.push(own(alias));
        let goes_on = !matches!(record_type, RecordType::CNAME | RecordType::ANY);
        return alias_target(alias).filter(|_| goes_on);
    }
    if record_type == RecordType::ANY && !node.is_empty() {
        let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
        answer.answers.push(Record::from_rdata(name.clone(), ANY_TTL_SECONDS, RData::HINFO(hinfo)));
        return None;
    }
    answer.answers.extend(node.records(record_type).iter().map(own));
    if answer.answers.len() == said {
        negative(zone, ResponseCode::NoError, answer);
    } else {
        add_addresses(zone, answer);
    }
    None
}

fn alias_target(record: &Record) -> Option<Name> {
    match &record.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    }
}

/// Adds the records of a steered type for a client: the chosen datacenter's, then those of the next best, as many as
/// the name asks for.
fn add_steered(
    steered: &Steered,
    placer: &Placer,
    record_type: RecordType,
    name: &Name,
    client: &Client,
    answer: &mut Answer,
) {
    let Some(config) = placer.steering().steered_name(steered.target) else { return };
    let family = match record_type {
        RecordType::A => Some(AddressType::A),
        RecordType::AAAA => Some(AddressType::Aaaa),
        _ => None,
    };
    let choice = placer.choose_for(steered.target, client, family);
    let ttl = if choice.settled { config.ttl_seconds } else { config.ttl_changing_seconds };
    let mut named = placer.named(steered.target, client, choice);
    if record_type == RecordType::CNAME {
        named.truncate(1);
    }
    let named =
        named.into_iter().map(|datacenter| (datacenter, placer.addresses(steered.target, datacenter)));
    for data in steered.data(record_type, named) {
        answer.answers.push(Record::from_rdata(name.clone(), ttl, data));
    }
    answer.placed.push((steered.target, choice));
}

/// A negative answer: the SOA, living no longer than its MINIMUM (RFC 2308 section 5).
fn negative(zone: &Zone, code: ResponseCode, answer: &mut Answer) {
    answer.code = code;
    if code == ResponseCode::NXDomain {
        answer.about = About::Below(zone.origin().clone());
    }
    if answer.authority.is_empty() {
        answer.authority.push(zone.negative_soa());
    }
}

/// Addresses, from the same zone, of the hosts that the answer or a referral names. Steered names have none here:
/// what is additional is never tailored to a client.
fn add_addresses(zone: &Zone, answer: &mut Answer) {
    let mut wanted: Vec<(LowerName, RecordType)> = Vec::new();
    for record in answer.answers.iter().chain(&answer.authority) {
        let (host, service) = match &record.data {
            RData::NS(ns) => (&ns.0, None),
            RData::MX(mx) => (&mx.exchange, None),
            RData::SRV(srv) => (&srv.target, None),
            // The target `.` of a service is its owner (RFC 9460 section 2.5.2); an alias leads to further services.
            RData::SVCB(svcb) | RData::HTTPS(HTTPS(svcb)) => {
                let is_alias = svcb.svc_priority == 0;
                let is_owner = svcb.target_name.is_root() && !is_alias;
                let host = if is_owner { &record.name } else { &svcb.target_name };
                (host, is_alias.then(|| record.record_type()))
            }
            _ => continue,
        };
        let host = LowerName::new(host);
        for kind in service.into_iter().chain([RecordType::A, RecordType::AAAA]) {
            let pair = (host.clone(), kind);
            if !wanted.contains(&pair) {
                wanted.push(pair);
            }
        }
    }
    for (host, kind) in wanted {
        if let Some(node) = zone.node(&host) {
            answer.additional.extend(node.records(kind).iter().cloned());
        }
    }
}
