//! Zones in memory, ready to be asked: every name a node, empty non-terminals included.

use std::collections::{BTreeMap, HashMap};

use daemun_fleet::Steering;
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable as _;

use crate::zone_file::ZoneFileError;

pub(crate) use crate::steered::Steered;

/// Type, class, TTL and length of a record.
const RECORD_BYTES: usize = 10;

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

    /// Length of a type's records in a message, bytes, at most: owners are compressed only near its start.
    pub(crate) fn bytes(&self, record_type: RecordType) -> usize {
        let records = self.records(record_type).iter();
        let data = |record: &Record| record.data.to_bytes().map_or(0, |data| data.len());
        records.map(|record| record.name.len() + RECORD_BYTES + data(record)).sum()
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
    steered: HashMap<LowerName, Steered>,
    /// Names that are there only because a steered name is there, or below.
    made_for_steered: Vec<LowerName>,
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
        if !apex.records(RecordType::DS).is_empty() {
            return Err(format!(
                "the DS records of {origin} belong into the zone above (RFC 4035 section 2.4)"
            ));
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
        Ok(Self {
            origin: lower,
            nodes,
            steered: HashMap::new(),
            made_for_steered: Vec::new(),
            negative_soa,
            serial,
        })
    }

    /// The zone by its apex, without the steered names that a last good one comes with.
    fn unsteered(mut self) -> (LowerName, Self) {
        self.steered.clear();
        for name in std::mem::take(&mut self.made_for_steered) {
            self.nodes.remove(&name);
        }
        (self.origin.clone(), self)
    }

    /// The apex.
    pub fn origin(&self) -> &LowerName {
        &self.origin
    }

    /// Whether this is its apex: no dot at the end.
    pub fn is(&self, origin: &str) -> bool {
        self.origin.to_string().trim_end_matches('.') == origin
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

    /// Where the records of a name are: at the name itself, or at the wildcard that covers it, the one below its closest
    /// encloser (RFC 4592).
    pub(crate) fn owner(&self, name: &LowerName) -> Option<Owner<'_>> {
        if let Some(node) = self.nodes.get(name) {
            return Some(Owner { node, steered: self.steered.get(name), is_wildcard: false });
        }
        let star = self.wildcard(name)?;
        let node = self.nodes.get(&star)?;
        Some(Owner { node, steered: self.steered.get(&star), is_wildcard: true })
    }

    pub(crate) fn negative_soa(&self) -> Record {
        self.negative_soa.clone()
    }

    /// Sets a steered name in, unless it would hide something of the master file.
    fn steer(&mut self, name: LowerName, steered: Steered) -> Result<(), String> {
        if let Some(cut) = self.cut_above(&name) {
            return Err(format!("{name} is steered, but {cut} is delegated to other servers"));
        }
        let node = self.nodes.get(&name);
        let types = node.into_iter().flat_map(Node::types);
        let is_hidden = |kind: &RecordType| {
            let is_cut = *kind == RecordType::NS && name != self.origin;
            is_cut || *kind == RecordType::CNAME || steered.has(*kind) || steered.has(RecordType::CNAME)
        };
        if let Some(kind) = types.into_iter().find(is_hidden) {
            return Err(format!(
                "{name} is steered and also has {kind} records in its zone; remove them there, or the name here"
            ));
        }
        let mut at = name.clone();
        while at != self.origin && !at.is_root() {
            if !self.nodes.contains_key(&at) {
                self.nodes.insert(at.clone(), Node::default());
                self.made_for_steered.push(at.clone());
            }
            at = at.base_name();
        }
        self.steered.insert(name, steered);
        Ok(())
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
    pub(crate) fn delegation(&self, name: &LowerName, asked: RecordType) -> Option<(LowerName, &Node)> {
        let mut found = None;
        let mut at = name.clone();
        while at != self.origin && !at.is_root() {
            let is_own_ds = asked == RecordType::DS && at == *name;
            if let Some(node) = self.nodes.get(&at)
                && !node.records(RecordType::NS).is_empty()
                && !is_own_ds
            {
                found = Some((at.clone(), node));
            }
            at = at.base_name();
        }
        found
    }

    /// Whether a name is a delegation of this zone.
    pub(crate) fn delegates(&self, name: &LowerName) -> bool {
        let has_ns = |node: &Node| !node.records(RecordType::NS).is_empty();
        *name != self.origin && self.cut_above(name).is_none() && self.nodes.get(name).is_some_and(has_ns)
    }

    /// The name of the wildcard that would cover a name that is not there.
    fn wildcard(&self, name: &LowerName) -> Option<LowerName> {
        let mut encloser = name.clone();
        while encloser != self.origin && !encloser.is_root() {
            encloser = encloser.base_name();
            if self.nodes.contains_key(&encloser) {
                let star = Name::from(encloser).prepend_label("*").ok()?;
                return Some(LowerName::new(&star));
            }
        }
        None
    }
}

/// Where the records of a name are.
pub(crate) struct Owner<'a> {
    pub(crate) node: &'a Node,
    pub(crate) steered: Option<&'a Steered>,
    pub(crate) is_wildcard: bool,
}

/// A steered name of the config that does not fit its zone.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The zone, no dot at the end.
    pub zone: String,
    /// What is wrong, at its line in the config.
    pub error: ZoneFileError,
}

/// Why zones and config do not fit.
#[derive(Clone, Debug)]
pub struct Conflicts {
    /// The zones, given back.
    pub zones: Vec<Zone>,
    /// All that is wrong.
    pub all: Vec<Conflict>,
}

/// All zones.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    by_origin: HashMap<LowerName, Zone>,
}

impl Zones {
    /// Zones with their steered names set in. `config_file` is the name of the config for messages.
    ///
    /// # Errors
    /// A steered name that also has what it would hide (records of its own of a steered type, a CNAME, a delegation), or
    /// whose record data cannot be read.
    pub fn new(zones: Vec<Zone>, steering: &Steering, config_file: &str) -> Result<Self, Conflicts> {
        let mut all = Self { by_origin: zones.into_iter().map(Zone::unsteered).collect() };
        let mut conflicts = Vec::new();
        for config in &steering.config().dns.names {
            let (Ok(name), Some(target)) = (Name::from_ascii(&config.name), steering.target(&config.name))
            else {
                continue; // the config was checked
            };
            let mut name = LowerName::new(&name);
            name.set_fqdn(true);
            let Some(origin) = all.closest(&name).map(|zone| zone.origin.clone()) else { continue };
            let Some(zone) = all.by_origin.get_mut(&origin) else { continue };
            let conflict = |line: usize, message: String| Conflict {
                zone: origin.to_string().trim_end_matches('.').to_owned(),
                error: ZoneFileError { file: config_file.to_owned(), line, message },
            };
            let steered = match Steered::new(config, target, &Name::from(origin.clone())) {
                Ok(steered) => steered,
                Err(problems) => {
                    conflicts.extend(problems.into_iter().map(|(line, message)| conflict(line, message)));
                    continue;
                }
            };
            if let Err(message) = zone.steer(name, steered) {
                conflicts.push(conflict(config.line, message));
            }
        }
        if conflicts.is_empty() {
            return Ok(all);
        }
        Err(Conflicts { zones: all.by_origin.into_values().collect(), all: conflicts })
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
