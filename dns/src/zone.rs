//! Zones in memory, ready to be asked: every name a node, empty non-terminals included.

use std::collections::{BTreeMap, HashMap};

use daemun_fleet::Steering;
use daemun_fleet::steering::Target;
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};

use crate::zone_file::ZoneFileError;

/// The records of one name, by type; none for an empty non-terminal.
#[derive(Clone, Debug, Default)]
pub struct Node {
    records: BTreeMap<RecordType, Vec<Record>>,
}

impl Node {
    /// The records of a type.
    pub fn records(&self, record_type: RecordType) -> &[Record] {
        self.records.get(&record_type).map_or(&[], Vec::as_slice)
    }

    /// True for an empty non-terminal.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The types that have records.
    pub fn types(&self) -> impl Iterator<Item = RecordType> {
        self.records.keys().copied()
    }

    /// Adds a record, unless it is there; a set of records has one time to live, the shortest given (RFC 2181
    /// section 5.2).
    pub(crate) fn add(&mut self, record: Record) {
        let set = self.records.entry(record.record_type()).or_default();
        if set.iter().any(|known| known.data == record.data) {
            return;
        }
        let ttl = set.first().map_or(record.ttl, |first| first.ttl.min(record.ttl));
        set.push(record);
        for record in set {
            record.ttl = ttl;
        }
    }
}

/// One zone.
#[derive(Clone, Debug)]
pub struct Zone {
    origin: LowerName,
    nodes: HashMap<LowerName, Node>,
    steered: HashMap<LowerName, Target>,
    negative_soa: Record,
    serial: u32,
}

impl Zone {
    /// A zone from its nodes; `Err` says what every zone must have and this one lacks.
    pub(crate) fn new(origin: &Name, mut nodes: HashMap<LowerName, Node>) -> Result<Self, String> {
        let lower = LowerName::new(origin);
        let apex = nodes.get(&lower).cloned().unwrap_or_default();
        let [soa] = apex.records(RecordType::SOA) else {
            let found = apex.records(RecordType::SOA).len();
            return Err(format!("the zone has {found} SOA records at {origin}, expected one"));
        };
        let RData::SOA(data) = &soa.data else {
            return Err(format!("the SOA record at {origin} holds other data"));
        };
        if apex.records(RecordType::NS).is_empty() {
            return Err(format!("the zone has no NS record at {origin}"));
        }
        let mut negative_soa = soa.clone();
        negative_soa.ttl = soa.ttl.min(data.minimum);
        let serial = data.serial;
        let names: Vec<LowerName> = nodes.keys().cloned().collect();
        for mut name in names {
            while name != lower && !name.is_root() {
                name = name.base_name();
                nodes.entry(name.clone()).or_default();
            }
        }
        Ok(Self { origin: lower, nodes, steered: HashMap::new(), negative_soa, serial })
    }

    /// The zone by its apex, without the steered names that a last good one comes with. (Names above these stay as empty
    /// non-terminals until the file is good again.)
    fn unsteered(mut self) -> (LowerName, Self) {
        self.steered.clear();
        (self.origin.clone(), self)
    }

    /// The apex.
    pub fn origin(&self) -> &LowerName {
        &self.origin
    }

    /// Serial number of the SOA.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Number of names.
    pub fn names(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn node(&self, name: &LowerName) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub(crate) fn steered(&self, name: &LowerName) -> Option<Target> {
        self.steered.get(name).copied()
    }

    pub(crate) fn negative_soa(&self) -> Record {
        self.negative_soa.clone()
    }

    /// A delegation above a name.
    fn cut_above(&self, name: &LowerName) -> Option<LowerName> {
        let mut at = name.base_name();
        while at != self.origin && !at.is_root() {
            if self.nodes.get(&at).is_some_and(|node| !node.records(RecordType::NS).is_empty()) {
                return Some(at);
            }
            at = at.base_name();
        }
        None
    }

    /// The highest delegation at or above `name`, below the apex. DS of the cut itself belongs to this side.
    pub(crate) fn delegation(&self, name: &LowerName, asked: RecordType) -> Option<&Node> {
        let mut found = None;
        let mut at = name.clone();
        while at != self.origin && !at.is_root() {
            let is_own_ds = asked == RecordType::DS && at == *name;
            if let Some(node) = self.nodes.get(&at)
                && !node.records(RecordType::NS).is_empty()
                && !is_own_ds
            {
                found = Some(node);
            }
            at = at.base_name();
        }
        found
    }

    /// The wildcard that covers a name that is not there: the one below its closest encloser (RFC 4592).
    pub(crate) fn wildcard(&self, name: &LowerName) -> Option<&Node> {
        let mut encloser = name.clone();
        while encloser != self.origin && !encloser.is_root() {
            encloser = encloser.base_name();
            if self.nodes.contains_key(&encloser) {
                let star = Name::from(encloser).prepend_label("*").ok()?;
                return self.nodes.get(&LowerName::new(&star));
            }
        }
        None
    }
}

/// All zones.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    by_origin: HashMap<LowerName, Zone>,
}

impl Zones {
    /// Zones with their steered names set in.
    ///
    /// # Errors
    /// A steered name that also has what it would hide: addresses of its own, a CNAME or a delegation.
    pub fn new(zones: Vec<Zone>, steering: &Steering) -> Result<Self, Vec<ZoneFileError>> {
        let mut all = Self { by_origin: zones.into_iter().map(Zone::unsteered).collect() };
        let mut errors = Vec::new();
        for config in &steering.config().dns.names {
            let (Ok(name), Some(target)) = (Name::from_ascii(&config.name), steering.target(&config.name))
            else {
                continue; // the config was checked
            };
            let mut name = LowerName::new(&name);
            name.set_fqdn(true);
            let Some(origin) = all.closest(&name).map(|zone| zone.origin.clone()) else { continue };
            let Some(zone) = all.by_origin.get_mut(&origin) else { continue };
            let mut hidden = vec![RecordType::CNAME];
            hidden.extend(config.types.iter().map(|family| match family {
                daemun_fleet::config::AddressType::A => RecordType::A,
                daemun_fleet::config::AddressType::Aaaa => RecordType::AAAA,
            }));
            if name != origin {
                hidden.push(RecordType::NS);
            }
            let node = zone.nodes.get(&name);
            for kind in hidden {
                if node.is_some_and(|node| !node.records(kind).is_empty()) {
                    errors.push(ZoneFileError {
                        file: config_zone_file(steering, &origin),
                        line: 0,
                        message: format!(
                            "{name} is steered and also has {kind} records; remove them, or the name from [[dns.names]]"
                        ),
                    });
                }
            }
            if let Some(cut) = zone.cut_above(&name) {
                errors.push(ZoneFileError {
                    file: config_zone_file(steering, &origin),
                    line: 0,
                    message: format!("{name} is steered, but {cut} is delegated to other servers"),
                });
                continue;
            }
            let mut at = name.clone();
            while at != origin && !at.is_root() {
                zone.nodes.entry(at.clone()).or_default();
                at = at.base_name();
            }
            zone.steered.insert(name, target);
        }
        if errors.is_empty() { Ok(all) } else { Err(errors) }
    }

    /// The zone that is closest to a name from above.
    pub fn closest(&self, name: &LowerName) -> Option<&Zone> {
        let mut at = name.clone();
        loop {
            if let Some(zone) = self.by_origin.get(&at) {
                return Some(zone);
            }
            if at.is_root() {
                return None;
            }
            at = at.base_name();
        }
    }

    /// The zone with this apex: no dot at the end.
    pub fn get(&self, origin: &str) -> Option<&Zone> {
        let mut name = Name::from_ascii(origin).ok()?;
        name.set_fqdn(true);
        self.by_origin.get(&LowerName::new(&name))
    }

    /// All zones, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        self.by_origin.values()
    }
}

fn config_zone_file(steering: &Steering, origin: &LowerName) -> String {
    let origin = origin.to_string();
    let origin = origin.trim_end_matches('.');
    let zones = &steering.config().dns.zones;
    zones.iter().find(|zone| zone.name == origin).map(|zone| zone.file.clone()).unwrap_or_default()
}
