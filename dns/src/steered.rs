//! A steered name of the config within its zone: which types it answers, with what data in each datacenter.

use std::collections::BTreeMap;
use std::net::IpAddr;

use daemun_fleet::config::{AddressType, SteeredName};
use daemun_fleet::steering::Target;
use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{SVCB, a::A, aaaa::AAAA};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::{rdata, zone_file};

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
                if record_type == RecordType::CNAME && all.len() > 1 {
                    wrong("a datacenter has several; an alias has one target".to_owned());
                }
                by_datacenter.push(all);
            }
            records.insert(record_type, by_datacenter);
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

    /// The data of a type for a datacenter whose checked addresses are these, named at a position of the answer:
    /// 0 the choice, 1 the next best. Where records have a priority, that of the position is added.
    pub(crate) fn data(
        &self,
        record_type: RecordType,
        datacenter: usize,
        position: usize,
        addresses: &[IpAddr],
    ) -> Vec<RData> {
        let of_family = |family: AddressType| addresses.iter().filter(move |address| family.holds(address));
        let address = |address: &IpAddr| match *address {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        };
        match record_type {
            RecordType::A => of_family(AddressType::A).map(address).collect(),
            RecordType::AAAA => of_family(AddressType::Aaaa).map(address).collect(),
            other => {
                let data = self.records.get(&other).and_then(|by| by.get(datacenter));
                let placed = |data: &RData| at_position(data.clone(), position, addresses);
                data.into_iter().flatten().map(placed).collect()
            }
        }
    }
}

/// What a config may not say of data that follows placement.
fn fit(data: RData, config: &SteeredName) -> Result<RData, String> {
    let (RData::SVCB(svcb) | RData::HTTPS(hickory_proto::rr::rdata::HTTPS(svcb))) = &data else {
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

/// Data with its priority moved behind those of the positions before. Hints of a service at the steered name itself
/// are the addresses that the name answers (RFC 9460 section 7.3).
fn at_position(data: RData, position: usize, addresses: &[IpAddr]) -> RData {
    let behind = |priority: u16| priority.saturating_add(u16::try_from(position).unwrap_or(u16::MAX));
    match data {
        RData::SRV(mut srv) => {
            srv.priority = behind(srv.priority);
            RData::SRV(srv)
        }
        RData::MX(mut mx) => {
            mx.preference = behind(mx.preference);
            RData::MX(mx)
        }
        RData::NAPTR(mut naptr) => {
            naptr.order = behind(naptr.order);
            RData::NAPTR(naptr)
        }
        RData::SVCB(svcb) => RData::SVCB(service(svcb, behind, addresses)),
        RData::HTTPS(https) => {
            RData::HTTPS(hickory_proto::rr::rdata::HTTPS(service(https.0, behind, addresses)))
        }
        other => other,
    }
}

fn service(mut svcb: SVCB, behind: impl Fn(u16) -> u16, addresses: &[IpAddr]) -> SVCB {
    if svcb.svc_priority == 0 {
        return svcb;
    }
    svcb.svc_priority = behind(svcb.svc_priority);
    if svcb.target_name.is_root() {
        let v4: Vec<A> = addresses
            .iter()
            .filter_map(|a| if let IpAddr::V4(v4) = a { Some(A(*v4)) } else { None })
            .collect();
        let v6: Vec<AAAA> = addresses
            .iter()
            .filter_map(|a| if let IpAddr::V6(v6) = a { Some(AAAA(*v6)) } else { None })
            .collect();
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
}
