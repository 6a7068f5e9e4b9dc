//! The blast radius of a change: which share of the address space, of the measured queries and of the measured requests
//! goes elsewhere, and what load that makes. The same tables and the same walk as the answers themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Load, Placer, Way, spill, way};
use crate::steering::Target;

/// Clients tried of each class: the error of a share is below one percent. It is looked at rarely.
const SAMPLES: u64 = 10_000;

/// Users that go from one datacenter to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Where they are sent now.
    pub from: String,
    /// Where they will be.
    pub to: String,
    /// Percentage of the IPv4 address space that is known to be somewhere.
    pub addresses_percent: f64,
    /// Percentage of the DNS queries for steered names that were measured; none: nothing was.
    pub queries_percent: Option<f64>,
    /// Percentage of the requests at the doors that were measured; none: nothing was.
    pub requests_percent: Option<f64>,
}

/// What a change does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blast {
    /// Who moves; empty: nobody.
    pub moves: Vec<Move>,
    /// The load of each datacenter afterwards.
    pub loads: Vec<Load>,
}

impl Blast {
    /// What going from one view to another does, for the users of the front door.
    pub fn between(before: &Placer, after: &Placer) -> Self {
        let steering = before.steering();
        let door = steering.door();
        let map = &steering.maps[steering.targets[door.0].map];
        let mut weights = vec![0.0; map.classes.len()];
        let segments = map.table.v4_segments();
        let ends = segments.iter().skip(1).map(|segment| segment.start).chain([u128::MAX]);
        for (segment, end) in segments.iter().zip(ends) {
            weights[segment.value as usize] += end.saturating_sub(segment.start) as f64;
        }
        for (weight, _) in weights.iter_mut().zip(&map.classes).filter(|(_, class)| class.is_private) {
            *weight = 0.0;
        }
        let names: Vec<String> = map.classes.iter().map(|class| steering.class_name(class)).collect();
        let by_rate = |rates: &BTreeMap<String, u32>| -> Vec<f64> {
            let rate = |(number, name): (usize, &String)| {
                if map.classes[number].is_private {
                    0.0
                } else {
                    rates.get(name).copied().map_or(0.0, f64::from)
                }
            };
            names.iter().enumerate().map(rate).collect()
        };
        let queries = by_rate(&before.view().queries);
        let requests = by_rate(&before.view().requests);
        let mut moved: BTreeMap<(usize, usize), [f64; 3]> = BTreeMap::new();
        for number in 0..map.classes.len() {
            for ((from, to), part) in flows(before, after, door, number) {
                let sums = moved.entry((from, to)).or_default();
                for (sum, of) in sums.iter_mut().zip([&weights, &queries, &requests]) {
                    *sum += of[number] * part;
                }
            }
        }
        let percent = |sum: f64, of: &[f64]| {
            let all: f64 = of.iter().sum();
            (all > 0.0).then(|| 100.0 * sum / all)
        };
        let name = |number: usize| steering.config().fleet.datacenters[number].name.clone();
        let moves = moved.into_iter().filter(|((from, to), _)| from != to).map(|((from, to), sums)| Move {
            from: name(from),
            to: name(to),
            addresses_percent: percent(sums[0], &weights).unwrap_or(0.0),
            queries_percent: percent(sums[1], &queries),
            requests_percent: percent(sums[2], &requests),
        });
        Self { moves: moves.collect(), loads: after.loads().to_vec() }
    }
}

/// Which part of a class goes from where to where, staying included.
fn flows(before: &Placer, after: &Placer, door: Target, class: usize) -> BTreeMap<(usize, usize), f64> {
    let ways = |placer: &Placer| {
        let steering = placer.steering();
        let map = &steering.maps[steering.targets[door.0].map];
        spill::picks(steering, &placer.targets[door.0].any.standing, map, &map.classes[class], SAMPLES)
    };
    let certain = |placer: &Placer| {
        let steering = placer.steering();
        let map = &steering.maps[steering.targets[door.0].map];
        match way(&map.classes[class], &placer.targets[door.0].any.standing, false) {
            Way::One { member, .. } => Some(usize::from(member)),
            Way::ByHash => None,
        }
    };
    if let (Some(from), Some(to)) = (certain(before), certain(after)) {
        return [((from, to), 1.0)].into();
    }
    let (then, now) = (ways(before), ways(after));
    let mut flows = BTreeMap::new();
    for (from, to) in then.iter().zip(&now) {
        *flows.entry((usize::from(*from), usize::from(*to))).or_insert(0.0) += 1.0 / then.len() as f64;
    }
    flows
}
