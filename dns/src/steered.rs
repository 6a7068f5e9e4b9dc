//! A steered name of the config within its zone: which types it answers, with what data in each datacenter.

use std::collections::BTreeMap;
use std::net::IpAddr;

use daemun_fleet::config::{AddressType, SteeredName};
use daemun_fleet::steering::Target;
use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{HTTPS, SVCB, a::A, aaaa::AAAA};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::{rdata, zone_file};

/// Records of one type that a datacenter may have: with eight datacenters in an answer, it still fits a message.
const RECORDS_MAX: usize = 32;

/// A steered name.
#[derive(Clone, Debug)]
pub(crate) struct Steered {
    pub(crate) target: Target,
    families: Vec<AddressType>,
    /// Data by type and number of the datacenter.
    records: BTreeMap<RecordType, Vec<Vec<RData>>>,
}

impl Steered {
    /// Reads the record data, names relative to the zone.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line in the config.
    pub(crate) fn new(
        config: &SteeredName,
        target: Target,
        origin: &Name,
    ) -> Result<Self, Vec<(usize, String)>> {
        let mut records = BTreeMap::new();
        let mut problems = Vec::new();
        for steered in &config.records {
            let mut wrong = |reason: String| {
                let (name, kind) = (&config.name, &steered.record_type);
                problems.push((steered.line, format!("{kind} of {name}: {reason}")));
            };
            let record_type = match rdata::type_of(&steered.record_type) {
                Ok(RecordType::SOA | RecordType::NS) => {
                    wrong("is what delegations are made of, and cannot be steered".to_owned());
                    continue;
                }
                Ok(record_type) => record_type,
                Err(reason) => {
                    wrong(reason);
                    continue;
                }
            };
            if matches!(record_type, RecordType::A | RecordType::AAAA) {
                wrong("addresses are those of the servers: use `types`, and `role`".to_owned());
                continue;
            }
            if records.contains_key(&record_type) {
                wrong("stands there twice".to_owned());
                continue;
            }
            let mut by_datacenter = Vec::new();
            for texts in &steered.by_datacenter {
                let mut all = Vec::new();
                for text in texts {
                    let data = zone_file::split(text)
                        .and_then(|tokens| rdata::record_data(record_type, &tokens, origin))
                        .and_then(|data| fit(data, config));
                    match data {
                        Ok(data) => all.push(data),
                        Err(reason) => wrong(reason),
                    }
                }
                if all.len() > RECORDS_MAX {
                    wrong(format!("a datacenter has {} records; at most {RECORDS_MAX} may be", all.len()));
                }
                if record_type == RecordType::CNAME && all.len() > 1 {
                    wrong("a datacenter has several; an alias has one target".to_owned());
                }
                by_datacenter.push(all);
            }
            records.insert(record_type, by_datacenter);
        }
        let is_alias = records.contains_key(&RecordType::CNAME);
        if is_alias && (records.len() > 1 || !config.types.is_empty()) {
            let message =
                format!("{} has a CNAME, which must be its only record (RFC 2181 section 10.1)", config.name);
            problems.push((config.line, message));
        }
        problems.dedup();
        if problems.is_empty() {
            Ok(Self { target, families: config.types.clone(), records })
        } else {
            Err(problems)
        }
    }

    /// Whether a type is answered.
    pub(crate) fn has(&self, record_type: RecordType) -> bool {
        match record_type {
            RecordType::A => self.families.contains(&AddressType::A),
            RecordType::AAAA => self.families.contains(&AddressType::Aaaa),
            other => self.records.contains_key(&other),
        }
    }

    /// A type that is answered: an address if any is.
    pub(crate) fn first_type(&self) -> RecordType {
        match (self.families.first(), self.records.keys().next()) {
            (Some(AddressType::A), _) | (None, None) => RecordType::A,
            (Some(AddressType::Aaaa), _) => RecordType::AAAA,
            (None, Some(&other)) => other,
        }
    }

    /// The data of a type for the datacenters that an answer names, the best first, each with its checked addresses.
    /// Where records have a priority, those of a datacenter come behind all of the ones before it.
    pub(crate) fn data<'a>(
        &self,
        record_type: RecordType,
        named: impl Iterator<Item = (usize, &'a [IpAddr])>,
    ) -> Vec<RData> {
        let mut given: Vec<RData> = Vec::new();
        let mut all: Vec<RData> = Vec::new();
        for (datacenter, addresses) in named {
            let of = |family: AddressType| addresses.iter().filter(move |address| family.holds(address));
            let mut new: Vec<RData> = match record_type {
                RecordType::A => of(AddressType::A).map(address).collect(),
                RecordType::AAAA => of(AddressType::Aaaa).map(address).collect(),
                other => {
                    let data = self.records.get(&other).and_then(|by| by.get(datacenter));
                    let new = data.into_iter().flatten().map(|data| self.with_hints(data.clone(), addresses));
                    // What is alike for all is said once.
                    let new: Vec<RData> = new.filter(|data| !given.contains(data)).collect();
                    given.extend(new.iter().cloned());
                    new
                }
            };
            let last = all.iter().filter_map(priority).max();
            let first = new.iter().filter_map(priority).min();
            if let (Some(last), Some(first)) = (last, first)
                && first <= last
            {
                let by = (last - first).saturating_add(1);
                new.iter_mut().for_each(|data| put_behind(data, by));
            }
            for data in new {
                if !all.contains(&data) {
                    all.push(data);
                }
            }
        }
        all
    }

    /// Hints of a service at the steered name itself: the addresses that the name answers (RFC 9460 section 7.3).
    fn with_hints(&self, data: RData, addresses: &[IpAddr]) -> RData {
        let with = |mut svcb: SVCB| {
            if svcb.svc_priority > 0 && svcb.target_name.is_root() {
                let answered = addresses
                    .iter()
                    .filter(|address| self.families.iter().any(|family| family.holds(address)));
                let (mut v4, mut v6) = (Vec::new(), Vec::new());
                for address in answered {
                    match address {
                        IpAddr::V4(address) => v4.push(A(*address)),
                        IpAddr::V6(address) => v6.push(AAAA(*address)),
                    }
                }
                if !v4.is_empty() {
                    svcb.svc_params.push((SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(v4))));
                }
                if !v6.is_empty() {
                    svcb.svc_params.push((SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(v6))));
                }
                // In the order of their numbers (section 2.2).
                svcb.svc_params.sort_by_key(|(key, _)| u16::from(*key));
            }
            svcb
        };
        match data {
            RData::SVCB(svcb) => RData::SVCB(with(svcb)),
            RData::HTTPS(https) => RData::HTTPS(HTTPS(with(https.0))),
            other => other,
        }
    }
}

fn address(address: &IpAddr) -> RData {
    match *address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// The field by which clients order records, the lower the better; none for an alias.
fn priority(data: &RData) -> Option<u16> {
    match data {
        RData::SRV(srv) => Some(srv.priority),
        RData::MX(mx) => Some(mx.preference),
        RData::NAPTR(naptr) => Some(naptr.order),
        RData::SVCB(svcb) | RData::HTTPS(HTTPS(svcb)) if svcb.svc_priority > 0 => Some(svcb.svc_priority),
        _ => None,
    }
}

fn put_behind(data: &mut RData, by: u16) {
    let field = match data {
        RData::SRV(srv) => &mut srv.priority,
        RData::MX(mx) => &mut mx.preference,
        RData::NAPTR(naptr) => &mut naptr.order,
        RData::SVCB(svcb) | RData::HTTPS(HTTPS(svcb)) => &mut svcb.svc_priority,
        _ => return,
    };
    *field = field.saturating_add(by);
}

/// What a config may not say of data that follows placement.
fn fit(data: RData, config: &SteeredName) -> Result<RData, String> {
    let (RData::SVCB(svcb) | RData::HTTPS(HTTPS(svcb))) = &data else {
        return Ok(data);
    };
    if svcb.svc_priority == 0 && config.answers > 1 {
        return Err(
            "an alias (priority 0) stands alone: with `answers` above 1 give a priority from 1".to_owned()
        );
    }
    let has_hints =
        svcb.svc_params.iter().any(|(key, _)| matches!(key, SvcParamKey::Ipv4Hint | SvcParamKey::Ipv6Hint));
    if svcb.target_name.is_root() && has_hints {
        return Err("hints for the target `.` follow the datacenter: leave them out".to_owned());
    }
    Ok(data)
}
