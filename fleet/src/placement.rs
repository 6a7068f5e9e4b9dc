//! The second stage of placement: under one fleet view, which member of its ranking class a client gets.
//!
//! A [`Placer`] is made for each new view: for every class of every target, the pick is made ready. It is small,
//! immutable and shared by the DNS server and the front door, so that one generation gives one truth.
//!
//! **Never empty.** States have ranks (see [`State`]); the members of the lowest rank that has any are used. When
//! that is the rank of the dead, everything is used as if it were well: more likely our own eyes are bad.

mod explain;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::client::Client;
use crate::config::{AddressType, Policy};
use crate::rendezvous;
use crate::steering::{Class, Member, Members, Steering, Target, TargetRanking};
use crate::view::{FleetView, Health, State};

pub use explain::{Placement, Ranked};

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
        let mut made: HashMap<(usize, &str, Members, bool, Members), Arc<TargetPicks>> = HashMap::new();
        let mut targets = Vec::with_capacity(steering.targets.len());
        for target in &steering.targets {
            let key =
                (target.map, target.role.as_str(), target.members, target.answers > 1, target.last_resort);
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
        let mut by_member: Vec<(u8, u8)> = fleet
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

#[cfg(test)]
mod tests;
