//! The second stage of placement: under one fleet view, which member of its ranking class a client gets.
//!
//! A [`Placer`] is made for each new view: for every class of every target, the pick is made ready. It is small,
//! immutable and shared by the DNS server and the front door, so that one generation gives one truth.
//!
//! **Never empty.** States have ranks (see [`State`]); the members of the lowest rank that has any are used. When
//! that is the rank of the dead, everything is used as if it were well: more likely our own eyes are bad.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::client::Client;
use crate::config::{AddressType, PlaceOverride, Policy, SteeredName};
use crate::places::Place;
use crate::rendezvous;
use crate::steering::{Class, Member, Members, Steering, Target, TargetRanking};
use crate::view::{FleetView, Health, State};

/// What a client gets, in short: for the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Number of the datacenter.
    pub datacenter: usize,
    /// Length of a prefix around the client's first address in which every address gets the same choice under the
    /// same view: the scope of an EDNS client subnet answer.
    pub scope: u8,
    /// Number of the ranking class within the target.
    pub class: u32,
    /// Nothing is under way that may soon change it.
    pub settled: bool,
}

/// Placement under one view.
#[derive(Debug)]
pub struct Placer {
    steering: Arc<Steering>,
    view: Arc<FleetView>,
    targets: Vec<Arc<TargetPicks>>,
}

#[derive(Debug)]
struct TargetPicks {
    standing: Standing,
    /// By class.
    picks: Vec<Pick>,
    /// By datacenter: addresses to answer.
    addresses: Vec<Vec<IpAddr>>,
}

/// Which members are used for a target under a view.
#[derive(Clone, Debug)]
struct Standing {
    /// Lowest rank that has members.
    used_rank: u8,
    /// Members of that rank that take every client.
    whole: Members,
    /// Members of that rank that take a share of theirs.
    ramping: Members,
    /// Rank and share by datacenter.
    by_member: Vec<(u8, u8)>,
    /// Those that may soon be used for more or fewer clients than now.
    changing: Members,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pick {
    way: Way,
    /// None of those that decide is about to change.
    settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Every client of the class gets this one.
    One { member: Member, hashed_scope: bool },
    /// The client's hash decides.
    ByHash,
}

impl Placer {
    /// Makes the picks ready for a view. Microseconds per thousand classes.
    pub fn new(steering: Arc<Steering>, view: Arc<FleetView>) -> Self {
        // Names that rank alike for one role share their picks.
        let mut made: HashMap<(usize, &str, Members, bool), Arc<TargetPicks>> = HashMap::new();
        let mut targets = Vec::with_capacity(steering.targets.len());
        for target in &steering.targets {
            let key = (target.map, target.role.as_str(), target.members, target.answers > 1);
            let picks =
                made.entry(key).or_insert_with(|| Arc::new(TargetPicks::new(&steering, &view, target)));
            targets.push(Arc::clone(picks));
        }
        drop(made);
        Self { steering, view, targets }
    }

    /// The view behind this placer.
    pub fn view(&self) -> &Arc<FleetView> {
        &self.view
    }

    /// The compiled tables behind this placer.
    pub fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// The datacenter for a client, and the scope of the answer.
    pub fn choose(&self, target: Target, client: &Client) -> Choice {
        let ranking = &self.steering.targets[target.0];
        let map = &self.steering.maps[ranking.map];
        let picks = &self.targets[target.0];
        let found = map.table.lookup(client.first_address());
        let at_least = found.prefix_len.max(client.hash_prefix_len());
        let pick = picks.picks[found.value as usize];
        let (member, scope) = match pick.way {
            Way::One { member, hashed_scope } => {
                (member, if hashed_scope { at_least } else { found.prefix_len })
            }
            Way::ByHash => {
                (self.walk(picks, &map.classes[found.value as usize], &map.policy, client), at_least)
            }
        };
        Choice { datacenter: member.into(), scope, class: found.value, settled: pick.settled }
    }

    /// The datacenters that an answer names: the choice first, then the next best of those that are used, as many as the
    /// name asks for. One prefix of the choice's scope has one list.
    pub fn named(&self, target: Target, client: &Client, choice: Choice) -> Vec<usize> {
        let answers = self.steering.targets[target.0].answers;
        if answers == 1 {
            return vec![choice.datacenter];
        }
        let hash = client.hash(self.steering.hash_key);
        let standing = &self.targets[target.0].standing;
        let used = |member: &usize| {
            let member = *member as Member;
            standing.by_member[usize::from(member)].0 == standing.used_rank
                && self.takes(standing, member, hash)
        };
        let others = self.order(target, client).into_iter().filter(|member| *member != choice.datacenter);
        std::iter::once(choice.datacenter).chain(others.filter(used)).take(answers).collect()
    }

    /// Every datacenter of the target in the order in which this client should try them; the first is the choice.
    pub fn order(&self, target: Target, client: &Client) -> Vec<usize> {
        let ranking = &self.steering.targets[target.0];
        let map = &self.steering.maps[ranking.map];
        let class = &map.classes[map.table.lookup(client.first_address()).value as usize];
        let standing = &self.targets[target.0].standing;
        let hash = client.hash(self.steering.hash_key);
        let mut order: Vec<(u8, usize, f64, Member)> = Vec::new();
        for (tier_number, tier) in class.tiers.iter().enumerate() {
            for &member in tier {
                let turn = match standing.by_member[usize::from(member)].0 {
                    rank if rank != standing.used_rank => 2 + rank,
                    _ if self.takes(standing, member, hash) => 0,
                    _ => 1,
                };
                let score = self.score(&map.policy, member, hash);
                order.push((turn, tier_number, -score, member));
            }
        }
        order.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)).then(a.3.cmp(&b.3)));
        order.into_iter().map(|(_, _, _, member)| member.into()).collect()
    }

    /// Whether all that could answer for a target look down, and are used as if they were well.
    pub fn is_fail_open(&self, target: Target) -> bool {
        self.targets[target.0].standing.used_rank == State::RANK_DOWN
    }

    /// Why a choice is what it is, in one of a few words: for counting.
    pub fn reason_label(&self, target: Target, choice: &Choice) -> &'static str {
        let map = &self.steering.maps[self.steering.targets[target.0].map];
        let standing = &self.targets[target.0].standing;
        let member = choice.datacenter as Member;
        let first = map.classes[choice.class as usize].tiers.first();
        match first.map(|tier| (tier.contains(&member), tier.len() > 1)) {
            _ if standing.used_rank == State::RANK_DOWN => "fail_open",
            _ if standing.used_rank > 0 => "last_resort",
            Some((true, false)) => "first_choice",
            Some((true, true)) => "hash",
            _ => "next_best",
        }
    }

    /// The addresses to answer for a target in a datacenter: those of its servers of the role that are not down, all
    /// if all are. Not empty for the families that the target's name answers.
    pub fn addresses(&self, target: Target, datacenter: usize) -> &[IpAddr] {
        &self.targets[target.0].addresses[datacenter]
    }

    fn takes(&self, standing: &Standing, member: Member, hash: u64) -> bool {
        let (_, share) = standing.by_member[usize::from(member)];
        standing.whole >> member & 1 == 1
            || rendezvous::in_share(hash, self.steering.candidate_ids[usize::from(member)], share)
    }

    fn score(&self, policy: &Policy, member: Member, hash: u64) -> f64 {
        let weight = match policy {
            Policy::Nearest { weights, .. } | Policy::Weighted { weights } => weights[usize::from(member)],
            Policy::Failover { .. } => 1,
        };
        rendezvous::score(hash, self.steering.candidate_ids[usize::from(member)], weight)
    }

    /// The first tier in which someone takes the client; if nobody does (all that are left are ramping), the first
    /// tier that has anyone.
    fn walk(&self, picks: &TargetPicks, class: &Class, policy: &Policy, client: &Client) -> Member {
        let standing = &picks.standing;
        let hash = client.hash(self.steering.hash_key);
        let used = standing.whole | standing.ramping;
        let best = |tier: &[Member], wanted: &dyn Fn(Member) -> bool| {
            tier.iter()
                .copied()
                .filter(|&member| used >> member & 1 == 1 && wanted(member))
                .map(|member| (self.score(policy, member, hash), member))
                .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
                .map(|(_, member)| member)
        };
        let takes = |member| self.takes(standing, member, hash);
        class
            .tiers
            .iter()
            .find_map(|tier| best(tier, &takes))
            .or_else(|| class.tiers.iter().find_map(|tier| best(tier, &|_| true)))
            .expect("some rank has members, and a class ranks them all")
    }
}

impl TargetPicks {
    fn new(steering: &Steering, view: &FleetView, target: &TargetRanking) -> Self {
        let fleet = &steering.config().fleet;
        let standing = Standing::new(steering, view, target);
        let map = &steering.maps[target.map];
        let several = target.answers > 1;
        let picks = map
            .classes
            .iter()
            .map(|class| Pick {
                way: way(class, &standing, several),
                settled: is_settled(class, &standing, several),
            })
            .collect();
        let is_down = |name: &str| view.servers.get(name).is_some_and(|server| server.health == Health::Down);
        let addresses = (0..fleet.datacenters.len())
            .map(|datacenter| {
                let all = || fleet.servers_of(datacenter, &target.role);
                let mut up: Vec<IpAddr> = all()
                    .filter(|server| !is_down(&server.name))
                    .flat_map(|server| &server.addresses)
                    .copied()
                    .collect();
                // A family all of whose servers are down is answered with what there is: never empty.
                for family in [AddressType::A, AddressType::Aaaa] {
                    if !up.iter().any(|address| family.holds(address)) {
                        up.extend(
                            all()
                                .flat_map(|server| &server.addresses)
                                .filter(|address| family.holds(address)),
                        );
                    }
                }
                let mut seen = Vec::with_capacity(up.len());
                up.retain(|address| {
                    !seen.contains(address) && {
                        seen.push(*address);
                        true
                    }
                });
                up
            })
            .collect();
        Self { standing, picks, addresses }
    }
}

impl Standing {
    fn new(steering: &Steering, view: &FleetView, target: &TargetRanking) -> Self {
        let fleet = &steering.config().fleet;
        let by_member: Vec<(u8, u8)> = fleet
            .datacenters
            .iter()
            .enumerate()
            .map(|(number, datacenter)| {
                let state =
                    view.datacenters.get(&datacenter.name).map_or(State::Serving, |found| found.state);
                let mut servers = fleet.servers_of(number, &target.role).peekable();
                let is_down =
                    |name: &str| view.servers.get(name).is_some_and(|server| server.health == Health::Down);
                let unable = servers.peek().is_some() && servers.all(|server| is_down(&server.name));
                let share = if let State::Ramping(percent) = state { percent.min(100) } else { 100 };
                (if unable { State::RANK_DOWN } else { state.rank() }, share)
            })
            .collect();
        let members = || (0..by_member.len()).filter(|member| target.members >> member & 1 == 1);
        let used_rank = members().map(|member| by_member[member].0).min().unwrap_or(State::RANK_DOWN);
        let used = |member: &usize| by_member[*member].0 == used_rank;
        let whole = members().filter(used).filter(|&member| by_member[member].1 >= 100);
        let ramping = members().filter(used).filter(|&member| by_member[member].1 < 100);
        let is_changing = |member: &usize| {
            let view = view.datacenters.get(&fleet.datacenters[*member].name);
            view.is_some_and(|view| {
                let is_between =
                    matches!(view.state, State::Draining | State::CatchingUp | State::Ramping(_));
                is_between || (view.suspected && view.state != State::Down)
            })
        };
        Self {
            changing: members().filter(is_changing).fold(0, |set, member| set | 1 << member),
            used_rank,
            whole: whole.fold(0, |set, member| set | 1 << member),
            ramping: ramping.fold(0, |set, member| set | 1 << member),
            by_member,
        }
    }
}

/// Whether what a class gives will stay: none of those that decide is between two states, and those used are well.
/// Who stands behind the choice does not decide, unless the next best are named too.
fn is_settled(class: &Class, standing: &Standing, several: bool) -> bool {
    let mut decide = 0;
    for tier in &class.tiers {
        decide |= tier.iter().fold(0, |set, member| set | 1u64 << member);
        if decide & standing.whole != 0 && !several {
            break;
        }
    }
    decide & standing.changing == 0 && standing.used_rank == 0
}

/// What a class gives under a standing.
fn way(class: &Class, standing: &Standing, several: bool) -> Way {
    // Where the next best are named, whoever is ramping may be among them or not.
    let hashed_scope = class.is_hashed() || (several && standing.ramping != 0);
    for tier in &class.tiers {
        let set = tier.iter().fold(0, |set, member| set | 1u64 << member);
        if set & standing.ramping != 0 {
            return Way::ByHash;
        }
        match (set & standing.whole).count_ones() {
            0 => {}
            1 => {
                let member = (set & standing.whole).trailing_zeros() as Member;
                return Way::One { member, hashed_scope };
            }
            _ => return Way::ByHash,
        }
    }
    Way::ByHash
}

/// What a client gets, at length: for people, and for checking the short form against.
#[derive(Clone, Debug, Serialize)]
pub struct Placement {
    /// The steered name; none for the server list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The client as given.
    pub client: String,
    /// Where it is.
    pub place: Place,
    /// Length of the prefix around it that has this place.
    pub place_prefix_len: u8,
    /// What told us the place.
    pub place_source: String,
    /// The word of the policy.
    pub policy: &'static str,
    /// Which rule decided the order.
    pub rule: String,
    /// All datacenters of the name, first choice first.
    pub ranking: Vec<Ranked>,
    /// Data of the records of the answer.
    pub answer: Vec<String>,
    /// Time to live, seconds; none for the server list, and for a type that the name does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
    /// EDNS client subnet scope of the answer.
    pub scope: u8,
    /// First address of the block that the scope names.
    pub scope_block: String,
    /// Generation of the view.
    pub generation: u64,
    /// All look down: used as if all were well.
    pub fail_open: bool,
}

/// One datacenter of a placement.
#[derive(Clone, Debug, Serialize)]
pub struct Ranked {
    /// Its name.
    pub datacenter: String,
    /// Its state.
    pub state: State,
    /// Kilometres to the client, when its place is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub km: Option<u32>,
    /// Why it stands here.
    pub reason: String,
}

impl Placer {
    /// The decision with every reason: the same tables and picks as [`choose`](Self::choose).
    /// `record_type` is upper case, as in a master file.
    pub fn explain(&self, target: Target, client: &Client, record_type: &str) -> Placement {
        let config = self.steering.config();
        let ranking = &self.steering.targets[target.0];
        let map = &self.steering.maps[ranking.map];
        let name = self.steering.steered_name(target);
        let choice = self.choose(target, client);
        let address = client.first_address();
        let (place, place_prefix_len) = self.steering.places().lookup(address);
        let (tiers, over) = self.steering.tiers_at(target, address);
        let standing = &self.targets[target.0].standing;

        let reason = |position: usize, member: usize| {
            let tier = tiers.iter().position(|tier| tier.contains(&member)).unwrap_or(0);
            let chosen = position == 0;
            self.reason(&map.policy, over, standing, &tiers[tier], member, client, chosen)
        };
        let ranked = |(position, member): (usize, usize)| Ranked {
            datacenter: config.fleet.datacenters[member].name.clone(),
            state: self
                .view
                .datacenters
                .get(&config.fleet.datacenters[member].name)
                .map_or(State::Serving, |d| d.state),
            km: place.point.map(|point| config.fleet.datacenters[member].point.distance_km(point)),
            reason: reason(position, member),
        };
        // A type that the name does not answer is answered with nothing, to everyone alike.
        let families = [AddressType::A, AddressType::Aaaa].into_iter();
        let family = families
            .filter(|family| name.is_none_or(|name| name.types.contains(family)))
            .find(|family| family.name() == record_type);
        // An alias answers for all types.
        let answers = |kind: &str| kind == record_type || kind == "CNAME";
        let records = name.and_then(|name| name.records.iter().find(|records| answers(&records.record_type)));
        let is_answered = family.is_some() || records.is_some();
        let mut answer: Vec<String> = Vec::new();
        for datacenter in self.named(target, client, choice) {
            let addresses = self.addresses(target, datacenter).iter();
            let addresses = addresses.filter(|address| family.is_some_and(|family| family.holds(address)));
            answer.extend(addresses.map(ToString::to_string));
            for text in records.into_iter().flat_map(|records| &records.by_datacenter[datacenter]) {
                if !answer.contains(text) {
                    answer.push(text.clone());
                }
            }
        }
        let scope = if is_answered { choice.scope } else { 0 };
        let ttl = |name: &SteeredName| {
            if choice.settled { name.ttl_seconds } else { name.ttl_changing_seconds }
        };
        Placement {
            name: name.map(|name| name.name.clone()),
            client: client.to_string(),
            place: place.clone(),
            place_prefix_len,
            place_source: self.steering.places().source().to_owned(),
            policy: map.policy.name(),
            rule: rule(&map.policy, over, place),
            ranking: self.order(target, client).into_iter().enumerate().map(ranked).collect(),
            answer,
            ttl_seconds: name.filter(|_| is_answered).map(ttl),
            scope,
            scope_block: scope_block(address, scope),
            generation: self.view.generation,
            fail_open: standing.used_rank == State::RANK_DOWN,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "every one is a part of the reason")]
    fn reason(
        &self,
        policy: &Policy,
        over: Option<&PlaceOverride>,
        standing: &Standing,
        tier: &[usize],
        member: usize,
        client: &Client,
        chosen: bool,
    ) -> String {
        let config = self.steering.config();
        let (rank, share) = standing.by_member[member];
        let has_place = self.steering.places().lookup(client.first_address()).0.point.is_some();
        let mut reason = String::new();
        if rank != standing.used_rank {
            let view = self.view.datacenters.get(&config.fleet.datacenters[member].name);
            let why = view.map(|view| view.why.as_str()).unwrap_or_default();
            let state = view.map_or(State::Serving, |view| view.state);
            return match (rank == State::RANK_DOWN, state) {
                (true, state) if state != State::Down => "no server of the role is up".to_owned(),
                _ if why.is_empty() => state.to_string(),
                _ => why.to_owned(),
            };
        }
        if over.is_some_and(|over| over.order.contains(&member)) {
            reason.push_str("by override");
        } else {
            reason.push_str(match policy {
                Policy::Nearest { .. } if tier.len() > 1 => "in this distance band, by hash",
                Policy::Nearest { .. } if !has_place => "by the default order",
                Policy::Nearest { .. } => "by distance",
                Policy::Weighted { .. } if tier.len() > 1 => "by hash",
                Policy::Weighted { .. } => "weight 0",
                Policy::Failover { .. } => "by the listed order",
            });
        }
        if tier.len() > 1
            && let Policy::Nearest { weights, .. } | Policy::Weighted { weights } = policy
        {
            let sum: u64 = tier.iter().map(|&member| u64::from(weights[member])).sum();
            let percent = (u64::from(weights[member]) * 100).checked_div(sum).unwrap_or(0);
            let _ = write!(reason, " ({percent}% of this tier)");
        }
        if share < 100 {
            let takes = self.takes(standing, member as Member, client.hash(self.steering.hash_key));
            let _ = write!(
                reason,
                "; ramping at {share}%: this client {}",
                if takes { "is in" } else { "waits" }
            );
        }
        if standing.used_rank == State::RANK_DOWN && chosen {
            reason.push_str("; all look down, so all are used");
        } else if standing.used_rank > 0 && chosen {
            let _ = write!(reason, "; nothing better is left");
        }
        reason
    }
}

fn rule(policy: &Policy, over: Option<&PlaceOverride>, place: &Place) -> String {
    if let Some(over) = over {
        let mut rule = String::from("override for ");
        let mut parts: Vec<String> = over.prefixes.iter().map(ToString::to_string).collect();
        parts.extend(over.countries.iter().map(ToString::to_string));
        parts.extend(over.continents.iter().map(ToString::to_string));
        rule.push_str(&parts.join(", "));
        return rule;
    }
    match policy {
        Policy::Nearest { .. } if place.point.is_none() => "the place is unknown: default order".to_owned(),
        Policy::Nearest { band_km: 0, .. } => "nearest by great circle".to_owned(),
        Policy::Nearest { band_km, .. } => format!("nearest by great circle, weights within {band_km} km"),
        Policy::Weighted { .. } => "weights, by a hash of the client's block".to_owned(),
        Policy::Failover { .. } => "the first of the listed order that serves".to_owned(),
    }
}

/// The block that a scope names.
fn scope_block(address: IpAddr, scope: u8) -> String {
    ipnet::IpNet::new(address, scope).map_or_else(|_| address.to_string(), |net| net.trunc().to_string())
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("the server list");
        writeln!(f, "{name} for {}", self.client)?;
        writeln!(f, "  place   {} (from {})", self.place, self.place_source)?;
        writeln!(f, "  policy  {}: {}", self.policy, self.rule)?;
        let width = self.ranking.iter().map(|ranked| ranked.datacenter.len()).max().unwrap_or(0);
        for (position, ranked) in self.ranking.iter().enumerate() {
            let km = ranked.km.map_or_else(|| "-".to_owned(), |km| format!("{km} km"));
            let mark = if position == 0 { "→" } else { " " };
            let state = ranked.state.to_string();
            let (number, datacenter) = (position + 1, &ranked.datacenter);
            writeln!(f, "  {mark} {number}  {datacenter:<width$}  {state:<12} {km:>9}  {}", ranked.reason)?;
        }
        let answer = self.answer.join(" ");
        let answer = if answer.is_empty() { "nothing of this type".to_owned() } else { answer };
        match self.ttl_seconds {
            Some(ttl) => writeln!(f, "  answer  {answer}  (TTL {ttl} s)")?,
            None => writeln!(f, "  answer  {answer}")?,
        }
        writeln!(f, "  scope   /{}: every address in {} gets this", self.scope, self.scope_block)?;
        write!(f, "  view    generation {}", self.generation)?;
        if self.fail_open {
            write!(f, "; ALL LOOK DOWN: failing open")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
