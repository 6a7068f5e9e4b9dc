//! The second stage of placement: under one fleet view, which member of its ranking class a client gets.
//!
//! A [`Placer`] is made for each new view: for every class of every target, the pick is made ready. It is small,
//! immutable and shared by the DNS server and the front door, so that one generation gives one truth.
//!
//! **Never empty.** States have ranks (see [`State`]); the members of the lowest rank that has any are used. When
//! that is the rank of the dead, everything is used as if it were well: more likely our own eyes are bad.

mod blast;
mod explain;
mod spill;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::client::Client;
use crate::config::{AddressType, DOOR_ROLE, Policy, Server};
use crate::meter::Counted;
use crate::rendezvous;
use crate::steering::{Class, Member, Members, Steering, Target, TargetRanking};
use crate::view::{FleetView, Health, State};

pub use blast::{Blast, Move};
pub use explain::{Placement, Ranked};
pub use spill::Load;

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
    /// The address family it was made for; none: for any.
    pub family: Option<AddressType>,
}

/// Placement under one view.
#[derive(Debug)]
pub struct Placer {
    steering: Arc<Steering>,
    view: Arc<FleetView>,
    targets: Vec<Arc<TargetPicks>>,
    loads: Vec<Load>,
}

#[derive(Debug)]
struct TargetPicks {
    any: Side,
    /// For answers of one address family, where its addresses fare otherwise than the rest.
    v4: Option<Side>,
    v6: Option<Side>,
    /// By datacenter: addresses to answer.
    addresses: Vec<Vec<IpAddr>>,
}

/// Who is used, and what follows for each class.
#[derive(Debug)]
struct Side {
    standing: Standing,
    /// By class.
    picks: Vec<Pick>,
}

/// Which members are used for a target under a view.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    /// Lowest rank that has members.
    used_rank: u8,
    /// Members of that rank that take every client.
    whole: Members,
    /// Members of that rank that take a share of theirs: they ramp, are being drained, or spill.
    ramping: Members,
    /// All that could answer.
    members: Members,
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
        let mut made: HashMap<(usize, &str, Members, bool, Members), Arc<TargetPicks>> = HashMap::new();
        let mut targets = Vec::with_capacity(steering.targets.len());
        let loads = spill::loads(&steering, &view);
        let kept: Vec<u8> = loads.iter().map(|load| load.kept_percent).collect();
        for target in &steering.targets {
            let key =
                (target.map, target.role.as_str(), target.members, target.answers > 1, target.last_resort);
            let picks = made
                .entry(key)
                .or_insert_with(|| Arc::new(TargetPicks::new(&steering, &view, target, &kept)));
            targets.push(Arc::clone(picks));
        }
        drop(made);
        Self { steering, view, targets, loads }
    }

    /// The view behind this placer.
    pub fn view(&self) -> &Arc<FleetView> {
        &self.view
    }

    /// Counts a query or request of a client that was given this choice.
    pub fn count(&self, target: Target, choice: &Choice, what: Counted) {
        self.steering.meter.count(self.steering.targets[target.0].map, choice.class, what);
    }

    /// What each datacenter is asked to do, by its number, and how much of it it keeps.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// The compiled tables behind this placer.
    pub fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// The datacenter for a client, and the scope of the answer.
    pub fn choose(&self, target: Target, client: &Client) -> Choice {
        self.choose_for(target, client, None)
    }

    /// The same for an answer with addresses of one family: where none of a datacenter's can be reached, it is as down.
    pub fn choose_for(&self, target: Target, client: &Client, family: Option<AddressType>) -> Choice {
        let ranking = &self.steering.targets[target.0];
        let map = &self.steering.maps[ranking.map];
        let side = self.targets[target.0].side(family);
        let found = map.table.lookup(client.first_address());
        let at_least = found.prefix_len.max(client.hash_prefix_len());
        let pick = side.picks[found.value as usize];
        let (member, scope) = match pick.way {
            Way::One { member, hashed_scope } => {
                (member, if hashed_scope { at_least } else { found.prefix_len })
            }
            Way::ByHash => {
                let hash = client.hash(self.steering.hash_key);
                let class = &map.classes[found.value as usize];
                (walk(&self.steering, &side.standing, class, &map.policy, hash), at_least)
            }
        };
        Choice { datacenter: member.into(), scope, class: found.value, settled: pick.settled, family }
    }

    /// The datacenters that an answer names: the choice first, then the next best of those that are used, as many as the
    /// name asks for. One prefix of the choice's scope has one list.
    pub fn named(&self, target: Target, client: &Client, choice: Choice) -> Vec<usize> {
        let answers = self.steering.targets[target.0].answers;
        if answers == 1 {
            return vec![choice.datacenter];
        }
        let hash = client.hash(self.steering.hash_key);
        let standing = &self.targets[target.0].side(choice.family).standing;
        let used = |member: &usize| {
            let member = *member as Member;
            standing.by_member[usize::from(member)].0 == standing.used_rank
                && takes(&self.steering, standing, member, hash)
        };
        let order = self.order_for(target, client, choice.family);
        let others = order.into_iter().filter(|member| *member != choice.datacenter);
        std::iter::once(choice.datacenter).chain(others.filter(used)).take(answers).collect()
    }

    /// Every datacenter of the target in the order in which this client should try them; the first is the choice.
    pub fn order(&self, target: Target, client: &Client) -> Vec<usize> {
        self.order_for(target, client, None)
    }

    fn order_for(&self, target: Target, client: &Client, family: Option<AddressType>) -> Vec<usize> {
        let ranking = &self.steering.targets[target.0];
        let map = &self.steering.maps[ranking.map];
        let class = &map.classes[map.table.lookup(client.first_address()).value as usize];
        let standing = &self.targets[target.0].side(family).standing;
        let hash = client.hash(self.steering.hash_key);
        let mut order: Vec<(u8, usize, f64, Member)> = Vec::new();
        for (tier_number, tier) in class.tiers.iter().enumerate() {
            for &member in tier {
                let turn = match standing.by_member[usize::from(member)].0 {
                    rank if rank != standing.used_rank => 2 + rank,
                    _ if takes(&self.steering, standing, member, hash) => 0,
                    _ => 1,
                };
                let score = score(&self.steering, &map.policy, member, hash);
                order.push((turn, tier_number, -score, member));
            }
        }
        order.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)).then(a.3.cmp(&b.3)));
        order.into_iter().map(|(_, _, _, member)| member.into()).collect()
    }

    /// Whether all that could answer for a target look down, and are used as if they were well.
    pub fn is_fail_open(&self, target: Target) -> bool {
        self.targets[target.0].any.standing.used_rank == State::RANK_DOWN
    }

    /// Why a choice is what it is, in one of a few words: for counting.
    pub fn reason_label(&self, target: Target, choice: &Choice) -> &'static str {
        let map = &self.steering.maps[self.steering.targets[target.0].map];
        let standing = &self.targets[target.0].side(choice.family).standing;
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
}

/// Whether a member takes a client with this hash.
fn takes(steering: &Steering, standing: &Standing, member: Member, hash: u64) -> bool {
    let (_, share) = standing.by_member[usize::from(member)];
    standing.whole >> member & 1 == 1
        || rendezvous::in_share(hash, steering.candidate_ids[usize::from(member)], share)
}

fn score(steering: &Steering, policy: &Policy, member: Member, hash: u64) -> f64 {
    let weight = match policy {
        Policy::Nearest { weights, .. } | Policy::Weighted { weights } => weights[usize::from(member)],
        Policy::Failover { .. } => 1,
    };
    rendezvous::score(hash, steering.candidate_ids[usize::from(member)], weight)
}

/// The first tier in which someone takes the client; if nobody does (all that are left take a share), the first tier
/// that has anyone.
fn walk(steering: &Steering, standing: &Standing, class: &Class, policy: &Policy, hash: u64) -> Member {
    let used = standing.whole | standing.ramping;
    let best = |tier: &[Member], wanted: &dyn Fn(Member) -> bool| {
        tier.iter()
            .copied()
            .filter(|&member| used >> member & 1 == 1 && wanted(member))
            .map(|member| (score(steering, policy, member, hash), member))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
            .map(|(_, member)| member)
    };
    let takes = |member| takes(steering, standing, member, hash);
    class
        .tiers
        .iter()
        .find_map(|tier| best(tier, &takes))
        .or_else(|| class.tiers.iter().find_map(|tier| best(tier, &|_| true)))
        .expect("some rank has members, and a class ranks them all")
}

impl TargetPicks {
    fn new(steering: &Steering, view: &FleetView, target: &TargetRanking, kept: &[u8]) -> Self {
        let fleet = &steering.config().fleet;
        let side = |family| Side::new(steering, view, target, family, kept);
        let any = side(None);
        let family = |family| Some(side(Some(family))).filter(|side| side.standing != any.standing);
        let (v4, v6) = (family(AddressType::A), family(AddressType::Aaaa));
        let addresses = (0..fleet.datacenters.len())
            .map(|datacenter| {
                let all = || fleet.servers_of(datacenter, &target.role);
                let mut up: Vec<IpAddr> = all()
                    .flat_map(|server| server.addresses.iter().filter(move |ip| is_up(view, server, ip)))
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
        Self { v4, v6, any, addresses }
    }

    fn side(&self, family: Option<AddressType>) -> &Side {
        let own = match family {
            Some(AddressType::A) => self.v4.as_ref(),
            Some(AddressType::Aaaa) => self.v6.as_ref(),
            None => None,
        };
        own.unwrap_or(&self.any)
    }
}

impl Side {
    fn new(
        steering: &Steering,
        view: &FleetView,
        target: &TargetRanking,
        family: Option<AddressType>,
        kept: &[u8],
    ) -> Self {
        let mut standing = Standing::new(steering, view, target, family);
        // Capacity is of doors: what other roles can bear is not known.
        if target.role == DOOR_ROLE {
            standing.limit(kept);
        }
        let several = target.answers > 1;
        let pick = |class: &Class| Pick {
            way: way(class, &standing, several),
            settled: is_settled(class, &standing, several),
        };
        let picks = steering.maps[target.map].classes.iter().map(pick).collect();
        Self { standing, picks }
    }
}

impl Standing {
    fn new(
        steering: &Steering,
        view: &FleetView,
        target: &TargetRanking,
        family: Option<AddressType>,
    ) -> Self {
        let fleet = &steering.config().fleet;
        let mut by_member: Vec<(u8, u8)> = fleet
            .datacenters
            .iter()
            .enumerate()
            .map(|(number, datacenter)| {
                let state =
                    view.datacenters.get(&datacenter.name).map_or(State::Serving, |found| found.state);
                let of_family = |address: &&IpAddr| family.is_none_or(|family| family.holds(address));
                let mut addresses = fleet
                    .servers_of(number, &target.role)
                    .flat_map(|server| server.addresses.iter().filter(of_family).map(move |ip| (server, ip)))
                    .peekable();
                // Who has none of a family answers that family with nothing, and is not down for it.
                let unable =
                    addresses.peek().is_some() && !addresses.any(|(server, ip)| is_up(view, server, ip));
                let is_forgotten =
                    view.datacenters.get(&datacenter.name).is_some_and(|found| found.is_forgotten);
                let rank = match (is_forgotten, unable) {
                    // Who will not return comes after the dead: its addresses may be somebody else's by now.
                    (true, _) => State::RANK_DOWN + 1,
                    (false, true) => State::RANK_DOWN,
                    (false, false) => state.rank(),
                };
                (rank, state.share())
            })
            .collect();
        let count = by_member.len();
        let members = || (0..count).filter(|member| target.members >> member & 1 == 1);
        let best = |by_member: &[(u8, u8)]| members().map(|member| by_member[member].0).min();
        // When all look down, only those that the operator has named for it, if any are.
        if best(&by_member) == Some(State::RANK_DOWN) && target.last_resort != 0 {
            for member in members().filter(|member| target.last_resort >> member & 1 == 0) {
                by_member[member].0 = State::RANK_DOWN + 1;
            }
        }
        let used_rank = best(&by_member).unwrap_or(State::RANK_DOWN);
        let is_changing = |member: &usize| {
            let view = view.datacenters.get(&fleet.datacenters[*member].name);
            view.is_some_and(|view| view.state.is_between() || (view.suspected && view.state != State::Down))
        };
        let mut standing = Self {
            changing: members().filter(is_changing).fold(0, |set, member| set | 1 << member),
            members: target.members,
            used_rank,
            whole: 0,
            ramping: 0,
            by_member,
        };
        standing.sort();
        standing
    }

    /// Who takes all of its clients, and who a share.
    fn sort(&mut self) {
        (self.whole, self.ramping) = (0, 0);
        for (member, &(rank, share)) in self.by_member.iter().enumerate() {
            if self.members >> member & 1 == 1 && rank == self.used_rank {
                *(if share >= 100 { &mut self.whole } else { &mut self.ramping }) |= 1 << member;
            }
        }
    }

    /// Lets each member take at most a share.
    fn limit(&mut self, shares: &[u8]) {
        for ((_, share), &limit) in self.by_member.iter_mut().zip(shares) {
            *share = (*share).min(limit);
        }
        self.sort();
    }
}

/// Whether an address of a server is not known to be down.
fn is_up(view: &FleetView, server: &Server, address: &IpAddr) -> bool {
    let found = view.servers.get(&server.name);
    !found.is_some_and(|found| found.health == Health::Down || found.down.contains(address))
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

#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod tests;
