//! Capacity and spill: a datacenter that is asked for more than it can serve keeps a share of its users, the same ones on
//! every name server, and the others go to the next of their order.
//!
//! A pure function of the view: the demand of each ranking class is what all doors together measure for it, whoever
//! serves it, so that spilling does not change what is measured, and nothing swings. (That rates are published only
//! when they have left a band around the last is the hysteresis.)
//!
//! Shares only ever shrink from round to round, so it ends. If all are asked for more than they can serve, the pain is
//! shared: each is loaded alike, and nobody is sent around the world for nothing.

use serde::{Deserialize, Serialize};

use super::{Standing, Way, walk, way};
use crate::steering::{Class, Member, RankingMap, Steering};
use crate::view::FleetView;

/// Above this share of its capacity a datacenter spills: what is measured is some seconds old.
const SPILL_ABOVE: f64 = 0.90;
/// When all together are asked for more than that, each is loaded to the average and this much more.
const SLACK: f64 = 1.05;
/// Shares are cut to steps of this many percent.
const STEP: u8 = 5;
/// A datacenter that serves at all keeps this share.
const KEPT_MIN: u8 = 5;
/// Shares shrink from round to round: after so many they are where they will be.
const ROUNDS_MAX: usize = 16;
/// Clients tried of a class whose users are shared by hash: the error of a share is below two percent.
const SAMPLES: u64 = 1000;
/// So much over the bound is no reason to cut once more.
const SAMPLING_ERROR: f64 = 0.02;

/// What one datacenter is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Its name.
    pub datacenter: String,
    /// Requests per second of the users that would be sent there if it could serve any number.
    pub asked_rps: u32,
    /// Requests per second of those that are.
    pub expected_rps: u32,
    /// What it can serve, if the config says so.
    pub capacity_rps: Option<u32>,
    /// Which percentage of its users it keeps.
    pub kept_percent: u8,
}

/// The load of each datacenter, by its number, under a view.
pub(super) fn loads(steering: &Steering, view: &FleetView) -> Vec<Load> {
    let fleet = &steering.config().fleet;
    let target = &steering.targets[steering.door().0];
    let map = &steering.maps[target.map];
    let demand: Vec<(&Class, f64)> = map
        .classes
        .iter()
        .filter(|class| !class.is_private) // of the same name as one that is not, which has them all
        .filter_map(|class| Some((class, f64::from(*view.requests.get(&steering.class_name(class))?))))
        .collect();
    let standing = Standing::new(steering, view, target, None);
    let of = |standing: &Standing| -> Vec<f64> {
        let mut loads = vec![0.0; fleet.datacenters.len()];
        for (class, rps) in &demand {
            for (load, part) in loads.iter_mut().zip(parts(steering, standing, map, class)) {
                *load += rps * part;
            }
        }
        loads
    };
    let capacity: Vec<Option<f64>> =
        fleet.datacenters.iter().map(|d| d.capacity_rps.map(f64::from)).collect();
    let asked = of(&standing);
    let kept = kept(&capacity, &standing, &asked, of);
    let mut limited = standing.clone();
    limited.limit(&kept);
    let expected = if kept.iter().all(|&share| share == 100) { asked.clone() } else { of(&limited) };
    let load = |(number, datacenter): (usize, &crate::config::Datacenter)| Load {
        datacenter: datacenter.name.clone(),
        asked_rps: asked[number].round() as u32,
        expected_rps: expected[number].round() as u32,
        capacity_rps: datacenter.capacity_rps,
        kept_percent: kept[number],
    };
    fleet.datacenters.iter().enumerate().map(load).collect()
}

/// Which percentage each keeps.
fn kept(
    capacity: &[Option<f64>],
    standing: &Standing,
    asked: &[f64],
    of: impl Fn(&Standing) -> Vec<f64>,
) -> Vec<u8> {
    let mut kept = vec![100u8; capacity.len()];
    let used = |member: usize| (standing.whole | standing.ramping) >> member & 1 == 1;
    let total_capacity: Option<f64> =
        (0..capacity.len()).filter(|&member| used(member)).map(|member| capacity[member]).sum();
    let demand: f64 = asked.iter().sum();
    let mark = total_capacity.map_or(SPILL_ABOVE, |capacity| SPILL_ABOVE.max(demand / capacity * SLACK));
    let mut loads = asked.to_vec();
    for _ in 0..ROUNDS_MAX {
        let mut changed = false;
        for (member, kept) in kept.iter_mut().enumerate() {
            let Some(bound) = capacity[member].map(|capacity| capacity * mark) else { continue };
            if loads[member] <= bound * (1.0 + SAMPLING_ERROR) {
                continue;
            }
            let share = (f64::from(*kept) * bound / loads[member]) as u8;
            let next = (share - share % STEP).max(KEPT_MIN);
            changed |= next < *kept;
            *kept = next.min(*kept);
        }
        if !changed {
            break;
        }
        let mut limited = standing.clone();
        limited.limit(&kept);
        loads = of(&limited);
    }
    kept
}

/// Which part of a class each datacenter gets.
fn parts(steering: &Steering, standing: &Standing, map: &RankingMap, class: &Class) -> Vec<f64> {
    let mut parts = vec![0.0; standing.by_member.len()];
    if let Way::One { member, .. } = way(class, standing, false) {
        parts[usize::from(member)] = 1.0;
        return parts;
    }
    for member in picks(steering, standing, map, class, SAMPLES) {
        parts[usize::from(member)] += 1.0 / SAMPLES as f64;
    }
    parts
}

/// Where each of some clients of a class is sent, the same clients each time.
pub(super) fn picks(
    steering: &Steering,
    standing: &Standing,
    map: &RankingMap,
    class: &Class,
    clients: u64,
) -> Vec<Member> {
    // Any well-mixed number stands for a client's hash.
    let hash = |client: u64| (client + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..clients).map(|client| walk(steering, standing, class, &map.policy, hash(client))).collect()
}
