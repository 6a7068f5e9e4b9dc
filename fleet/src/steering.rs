//! The first stage of placement, rare and slow: geo data and config become, for each way of ranking, a
//! longest-prefix table *client prefix → ranking class*. Health has no part in it: a failure changes which member of
//! a class is picked (see [`placement`](crate::placement)), never the classes or the scopes that follow from them.
//!
//! A *ranking class* is an order over the datacenters, in tiers: within a tier users are shared by a hash, the next
//! tier is for when the one before cannot serve. `nearest` makes a tier of each datacenter (or of each distance
//! band), `weighted` one tier of all, `failover` one tier each. Names that rank alike share one table.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::client::{self, Client, HashKey};
use crate::config::{Config, DOOR_ROLE, PlaceOverride, Policy, SteeredName};
use crate::meter::{Counted, Meter};
use crate::places::{Place, Places};
use crate::prefix_table::{PrefixTable, Segment, VALUE_MAX, key};
use crate::rendezvous;

/// Number of a datacenter in the config; a fleet has at most 64.
pub(crate) type Member = u8;

/// A set of datacenters, one bit each.
pub(crate) type Members = u64;

/// What clients can be placed for: a steered name, or the server list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target(pub(crate) usize);

/// One order over the datacenters, in tiers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    pub(crate) tiers: Vec<Vec<Member>>,
    /// Of a private block: apart from the classes around it, as a resolver's clients there are placed by the resolver.
    pub(crate) is_private: bool,
}

impl Class {
    /// Some tier shares its users by hash, whoever is down at the moment.
    pub(crate) fn is_hashed(&self) -> bool {
        self.tiers.iter().any(|tier| tier.len() > 1)
    }
}

/// One way of ranking, and its compiled table.
#[derive(Debug)]
pub(crate) struct RankingMap {
    pub(crate) policy: Policy,
    overrides: Vec<usize>,
    members: Members,
    pub(crate) classes: Vec<Class>,
    pub(crate) table: PrefixTable,
}

#[derive(Debug)]
pub(crate) struct TargetRanking {
    /// Number of the steered name; `None`: the server list without a name to order it by.
    pub(crate) name: Option<usize>,
    pub(crate) role: String,
    pub(crate) members: Members,
    pub(crate) map: usize,
    /// How many datacenters an answer names.
    pub(crate) answers: usize,
    /// Members that are used when all look down; none: all.
    pub(crate) last_resort: Members,
}

/// Geo data and config, compiled. Immutable.
#[derive(Debug)]
pub struct Steering {
    config: Arc<Config>,
    places: Arc<Places>,
    pub(crate) hash_key: HashKey,
    pub(crate) candidate_ids: Vec<u64>,
    pub(crate) targets: Vec<TargetRanking>,
    pub(crate) maps: Vec<RankingMap>,
    by_name: HashMap<String, Target>,
    door: Target,
    pub(crate) meter: Meter,
    private_blocks: Vec<IpNet>,
}

impl Steering {
    /// Compiles. Takes up to a second for a world of a million prefixes.
    pub fn compile(config: Arc<Config>, places: Arc<Places>) -> Self {
        let fleet = &config.fleet;
        let mut steering = Self {
            hash_key: HashKey::of_fleet(&fleet.name),
            candidate_ids: fleet.datacenters.iter().map(|d| rendezvous::candidate_id(&d.name)).collect(),
            targets: Vec::new(),
            maps: Vec::new(),
            by_name: HashMap::new(),
            door: Target(0),
            meter: Meter::default(),
            private_blocks: client::private_blocks(&config),
            config: Arc::clone(&config),
            places,
        };
        for (number, name) in config.dns.names.iter().enumerate() {
            let with_role = |&member: &usize| config.fleet.servers_of(member, &name.role).next().is_some();
            let members =
                (0..fleet.datacenters.len()).filter(with_role).fold(0, |set, member| set | 1 << member);
            let map = steering.map(&name.policy, &name.overrides, members);
            steering.by_name.insert(name.name.clone(), Target(steering.targets.len()));
            steering.targets.push(TargetRanking {
                name: Some(number),
                role: name.role.clone(),
                members,
                map,
                answers: name.answers,
                last_resort: name.when_all_down.iter().fold(0, |set, &member| set | 1 << member) & members,
            });
        }
        steering.door = match config.gateway.order_as.as_ref().and_then(|name| steering.by_name.get(name)) {
            Some(&target) => target,
            None => {
                let everyone = (0..fleet.datacenters.len()).fold(0, |set, member| set | 1 << member);
                let for_all = |over: &usize| config.dns.overrides[*over].for_all;
                let all_overrides: Vec<usize> = (0..config.dns.overrides.len()).filter(for_all).collect();
                let map = steering.map(&Policy::nearest(fleet.datacenters.len()), &all_overrides, everyone);
                let role = DOOR_ROLE.to_owned();
                steering.targets.push(TargetRanking {
                    name: None,
                    role,
                    members: everyone,
                    map,
                    answers: 1,
                    last_resort: 0,
                });
                Target(steering.targets.len() - 1)
            }
        };
        steering.meter = Meter::new(steering.maps.iter().map(|map| map.classes.len()));
        steering
    }

    /// What has been counted since this was compiled, by ranking class; classes that nobody came from are left out.
    pub fn counted(&self, what: Counted) -> BTreeMap<String, u64> {
        let mut totals = BTreeMap::new();
        for (number, map) in self.maps.iter().enumerate() {
            for (class, order) in map.classes.iter().enumerate() {
                let total = self.meter.total(number, class, what);
                if total > 0 {
                    *totals.entry(self.class_name(order)).or_default() += total;
                }
            }
        }
        totals
    }

    /// The config this was compiled from.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The places this was compiled from.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// The target of a steered name: lower case, no dot at the end.
    pub fn target(&self, name: &str) -> Option<Target> {
        self.by_name.get(name).copied()
    }

    /// The private block that holds all of a client's prefix, unless an override says who is there.
    pub fn private_block(&self, client: &Client) -> Option<IpNet> {
        let prefix = IpNet::new(client.first_address(), client.prefix_len()).ok()?;
        self.private_blocks.iter().copied().find(|block| block.contains(&prefix))
    }

    /// The target that orders the server list.
    pub fn door(&self) -> Target {
        self.door
    }

    /// The name of a ranking class, the same on every machine: its order over the datacenters, equals joined by `=`.
    pub(crate) fn class_name(&self, class: &Class) -> String {
        let name = |member: &Member| self.config.fleet.datacenters[usize::from(*member)].name.as_str();
        let tier = |tier: &Vec<Member>| tier.iter().map(name).collect::<Vec<_>>().join("=");
        class.tiers.iter().map(tier).collect::<Vec<_>>().join(">")
    }

    /// The steered name of a target; `None` for the server list without one.
    pub fn steered_name(&self, target: Target) -> Option<&SteeredName> {
        self.targets[target.0].name.map(|number| &self.config.dns.names[number])
    }

    /// Memory of the compiled tables, in bytes, without the places.
    pub fn bytes(&self) -> usize {
        self.maps.iter().map(|map| map.table.bytes()).sum()
    }

    /// The ranking that follows straight from place, policy and overrides: what the tables were compiled from. For
    /// explaining, and for checking the tables against.
    pub fn tiers_at(&self, target: Target, address: IpAddr) -> (Vec<Vec<usize>>, Option<&PlaceOverride>) {
        let map = &self.maps[self.targets[target.0].map];
        let (place, _) = self.places.lookup(address);
        let containing = |over: usize| {
            let prefixes = self.config.dns.overrides[over].prefixes.iter();
            prefixes.filter(|net| net.contains(&address.to_canonical())).map(|net| net.prefix_len()).max()
        };
        let by_prefix = map.overrides.iter().filter_map(|&over| Some((containing(over)?, over))).max();
        let over = by_prefix
            .map(|(_, over)| over)
            .or_else(|| override_by_place(&self.config, &map.overrides, place));
        let class = rank(&self.config, map.members, &map.policy, place, over);
        let tiers =
            class.tiers.iter().map(|tier| tier.iter().map(|&member| member.into()).collect()).collect();
        (tiers, over.map(|over| &self.config.dns.overrides[over]))
    }

    /// The number of the map that ranks so, compiled if it is new.
    fn map(&mut self, policy: &Policy, overrides: &[usize], members: Members) -> usize {
        let same =
            |map: &RankingMap| map.policy == *policy && map.overrides == overrides && map.members == members;
        if let Some(known) = self.maps.iter().position(same) {
            return known;
        }
        let mut compiler = Compiler {
            config: &self.config,
            places: &self.places,
            policy,
            overrides,
            members,
            classes: Vec::new(),
            class_numbers: HashMap::new(),
            by_place: vec![None; self.places.list().len()],
            by_place_and_override: HashMap::new(),
        };
        let mut v4 = compiler.segments(&self.places.v4(), 32);
        let mut v6 = compiler.segments(&self.places.v6(), 128);
        // Where all are placed alike there is nothing to set apart, and by hash no scope is so wide.
        let blocks = if compiler.classes.len() > 1 { self.private_blocks.as_slice() } else { &[] };
        for block in blocks {
            compiler.set_apart_private(if block.addr().is_ipv4() { &mut v4 } else { &mut v6 }, block);
        }
        if compiler.classes.len() > 1 || compiler.classes.iter().any(Class::is_hashed) {
            set_apart_mapped(&mut v6);
        }
        let classes = compiler.classes;
        let table = PrefixTable::build(&v4, &v6);
        self.maps.push(RankingMap {
            policy: policy.clone(),
            overrides: overrides.to_vec(),
            members,
            classes,
            table,
        });
        self.maps.len() - 1
    }
}

/// The override that a place falls under: a country's before a continent's, the first in the file among equals.
fn override_by_place(config: &Config, overrides: &[usize], place: &Place) -> Option<usize> {
    let all = || overrides.iter().copied();
    let country =
        |over: &usize| place.country.is_some_and(|c| config.dns.overrides[*over].countries.contains(&c));
    let continent =
        |over: &usize| place.continent.is_some_and(|c| config.dns.overrides[*over].continents.contains(&c));
    all().find(country).or_else(|| all().find(continent))
}

/// The ranking of one place.
fn rank(config: &Config, members: Members, policy: &Policy, place: &Place, over: Option<usize>) -> Class {
    let is_member = |member: &usize| members >> member & 1 == 1;
    let singles = |order: &[usize]| -> Vec<Vec<Member>> {
        order.iter().filter(|member| is_member(member)).map(|&member| vec![member as Member]).collect()
    };
    let mut tiers = match policy {
        Policy::Failover { order } => singles(order),
        Policy::Weighted { weights } => {
            let (share, rest): (Vec<usize>, Vec<usize>) = config
                .dns
                .default_order
                .iter()
                .filter(|member| is_member(member))
                .partition(|&&member| weights[member] > 0);
            let mut share: Vec<Member> = share.into_iter().map(|member| member as Member).collect();
            share.sort_unstable();
            let shared = (!share.is_empty()).then_some(share);
            shared.into_iter().chain(singles(&rest)).collect()
        }
        Policy::Nearest { band_km, .. } => match place.point {
            None => singles(&config.dns.default_order),
            Some(point) => {
                let mut by_distance: Vec<(u32, usize)> = config
                    .fleet
                    .datacenters
                    .iter()
                    .enumerate()
                    .filter(|(member, _)| is_member(member))
                    .map(|(member, datacenter)| (datacenter.point.distance_km(point), member))
                    .collect();
                by_distance.sort_unstable();
                bands(&by_distance, *band_km)
            }
        },
    };
    if let Some(over) = over {
        let first = singles(&config.dns.overrides[over].order);
        for tier in &mut tiers {
            tier.retain(|member| !first.iter().any(|single| single[0] == *member));
        }
        tiers.retain(|tier| !tier.is_empty());
        tiers.splice(0..0, first);
    }
    Class { tiers, is_private: false }
}

/// Datacenters, nearest first, cut into tiers: each holds those at most `band_km` farther than its first.
fn bands(by_distance: &[(u32, usize)], band_km: u32) -> Vec<Vec<Member>> {
    let mut tiers: Vec<Vec<Member>> = Vec::new();
    let mut first_km = 0;
    for &(km, member) in by_distance {
        match tiers.last_mut() {
            Some(tier) if band_km > 0 && km - first_km <= band_km => tier.push(member as Member),
            _ => {
                tiers.push(vec![member as Member]);
                first_km = km;
            }
        }
    }
    for tier in &mut tiers {
        tier.sort_unstable(); // one class, whichever of a band is the nearest
    }
    tiers
}

/// IPv4 in IPv6 clothes (`::ffff:0:0/96`) is placed as IPv4: no IPv6 scope may hold it. It gets a value that nothing
/// else has; nobody looks it up.
fn set_apart_mapped(v6: &mut Vec<Segment>) {
    let (first, after) = (0xffff_u128 << 32, 0x1_0000_u128 << 32);
    let resumes = v6[v6.partition_point(|segment| segment.start <= after) - 1].value;
    let begin = v6.partition_point(|segment| segment.start < first);
    let end = v6.partition_point(|segment| segment.start <= after);
    v6.splice(
        begin..end,
        [Segment { start: first, value: VALUE_MAX }, Segment { start: after, value: resumes }],
    );
}

struct Compiler<'a> {
    config: &'a Config,
    places: &'a Places,
    policy: &'a Policy,
    overrides: &'a [usize],
    members: Members,
    classes: Vec<Class>,
    class_numbers: HashMap<Class, u32>,
    by_place: Vec<Option<u32>>,
    by_place_and_override: HashMap<(u32, usize), u32>,
}

impl Compiler<'_> {
    /// Segments of classes, from segments of places with the prefix overrides laid over them.
    fn segments(&mut self, places: &[Segment], bits: u32) -> Vec<Segment> {
        let overlay = self.overlay(bits);
        let mut over = overlay.iter().peekable();
        let mut place = places.iter().peekable();
        let (mut current_place, mut current_over) = (0, None);
        let mut all: Vec<Segment> = Vec::new();
        loop {
            // The next border of either list, and what begins there.
            let start = match (place.peek(), over.peek()) {
                (Some(segment), Some(&(&at, _))) => segment.start.min(at),
                (Some(segment), None) => segment.start,
                (None, Some(&(&at, _))) => at,
                (None, None) => return all,
            };
            if let Some(segment) = place.next_if(|segment| segment.start == start) {
                current_place = segment.value;
            }
            if let Some((_, &value)) = over.next_if(|&(&at, _)| at == start) {
                current_over = value;
            }
            let value = self.class(current_place, current_over);
            if all.last().is_none_or(|last| last.value != value) {
                all.push(Segment { start, value });
            }
        }
    }

    /// Gives a private block classes of its own.
    fn set_apart_private(&mut self, segments: &mut Vec<Segment>, block: &IpNet) {
        let first = key(block.network());
        let bits = u32::from(block.max_prefix_len());
        let after = key(block.broadcast()).checked_add(1 << (128 - bits));
        for border in [Some(first), after].into_iter().flatten() {
            let at = segments.partition_point(|segment| segment.start < border);
            if segments.get(at).is_none_or(|segment| segment.start != border) {
                let value = at.checked_sub(1).map_or(0, |before| segments[before].value);
                segments.insert(at, Segment { start: border, value });
            }
        }
        for segment in segments.iter_mut() {
            if segment.start >= first && after.is_none_or(|after| segment.start < after) {
                let class = Class { is_private: true, ..self.classes[segment.value as usize].clone() };
                segment.value = self.number_of(class);
            }
        }
    }

    fn number_of(&mut self, class: Class) -> u32 {
        if let Some(&number) = self.class_numbers.get(&class) {
            return number;
        }
        let number = u32::try_from(self.classes.len()).expect("no more classes than places");
        self.classes.push(class.clone());
        self.class_numbers.insert(class, number);
        number
    }

    /// Where prefix overrides begin and end; longer prefixes are painted over shorter ones.
    fn overlay(&self, bits: u32) -> BTreeMap<u128, Option<usize>> {
        let mut prefixes: Vec<_> = self
            .overrides
            .iter()
            .flat_map(|&over| self.config.dns.overrides[over].prefixes.iter().map(move |net| (net, over)))
            .filter(|(net, _)| net.addr().is_ipv4() == (bits == 32))
            .collect();
        prefixes.sort_by_key(|(net, _)| net.prefix_len());
        let mut borders: BTreeMap<u128, Option<usize>> = BTreeMap::from([(0, None)]);
        for (net, over) in prefixes {
            let first = key(net.network());
            let after = key(net.broadcast()).checked_add(1 << (128 - bits));
            let resumes = |at| borders.range(..=at).next_back().and_then(|(_, &value)| value);
            let after = after.map(|after| (after, resumes(after)));
            borders.retain(|&at, _| at < first || after.is_none_or(|(after, _)| at >= after));
            borders.insert(first, Some(over));
            if let Some((after, value)) = after {
                borders.insert(after, value);
            }
        }
        borders
    }

    fn class(&mut self, place: u32, over: Option<usize>) -> u32 {
        let known = match over {
            None => self.by_place[place as usize],
            Some(over) => self.by_place_and_override.get(&(place, over)).copied(),
        };
        if let Some(known) = known {
            return known;
        }
        let at = &self.places.list()[place as usize];
        let applies = over.or_else(|| override_by_place(self.config, self.overrides, at));
        let class = rank(self.config, self.members, self.policy, at, applies);
        let number = self.number_of(class);
        match over {
            None => self.by_place[place as usize] = Some(number),
            Some(over) => {
                self.by_place_and_override.insert((place, over), number);
            }
        }
        number
    }
}
