//! The decision with every reason: for people, and for checking the short form against. The same tables and picks as
//! [`Placer::choose`].

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use serde::Serialize;

use super::{Placer, Standing, takes};
use crate::client::Client;
use crate::config::{AddressType, PlaceOverride, Policy, SteeredName};
use crate::places::Place;
use crate::steering::{Member, Target};
use crate::view::State;

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
        // A type that the name does not answer is answered with nothing, to everyone alike.
        let families = [AddressType::A, AddressType::Aaaa].into_iter();
        let family = families
            .filter(|family| name.is_none_or(|name| name.types.contains(family)))
            .find(|family| family.name() == record_type);
        let choice = self.choose_for(target, client, family);
        let address = client.first_address();
        let (place, place_prefix_len) = self.steering.places().lookup(address);
        let (tiers, over) = self.steering.tiers_at(target, address);
        let standing = &self.targets[target.0].side(family).standing;

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
            ranking: self.order_for(target, client, family).into_iter().enumerate().map(ranked).collect(),
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
            return match (rank >= State::RANK_DOWN, state) {
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
            let hash = client.hash(self.steering.hash_key);
            let is_in = takes(&self.steering, standing, member as Member, hash);
            let state = self.view.datacenters.get(&config.fleet.datacenters[member].name).map(|d| d.state);
            let (what, out) = match state {
                Some(State::Ramping(_)) => ("ramping at", "waits"),
                Some(State::Draining(_)) => ("draining, still at", "has moved on"),
                _ => ("over its capacity, keeps", "spills over"),
            };
            let _ = write!(reason, "; {what} {share}%: this client {}", if is_in { "is in" } else { out });
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
