//! A broken twin for each checker, which it must catch: a checker that catches nothing checks nothing.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use daemun_fleet::placement::Choice;
use daemun_fleet::steering::Target;
use daemun_fleet::view::{Health, State};
use daemun_fleet::{Client, Config, FleetView, Placer};
use daemun_sync::admission::Out;
use daemun_sync::facts::{Body, Facts};
use daemun_sync::health::Verdict;
use daemun_sync::judge::{Judgement, judge};

use crate::checkers::Checker;
use crate::checkers::dead_leaves::DeadLeaves;
use crate::checkers::generations::Generations;
use crate::checkers::healthy_stays::HealthyStays;
use crate::checkers::never_empty::{NeverEmpty, Places};
use crate::checkers::no_fast_flip::NoFastFlip;
use crate::checkers::orders::Orders;
use crate::checkers::same_view::SameView;
use crate::story::{Kind, story};
use crate::world::World;

/// So many stories are enough to catch any of them.
const SEEDS_MAX: u64 = 100;

/// The first seed with which a checker finds the twin of this kind.
#[track_caller]
fn caught(kind: Kind, checker: impl Fn(usize) -> Box<dyn Checker>) {
    let finds = |seed: &u64| {
        let (plan, long) = story(*seed, kind);
        let count = plan.config.fleet.datacenters.len();
        let mut world = World::new(plan, vec![checker(count)]);
        world.run(long);
        world.violation.is_some()
    };
    let seed = (0..SEEDS_MAX).find(finds);
    println!("caught by seed {seed:?}");
    assert!(seed.is_some(), "it is not caught within {SEEDS_MAX} stories");
}

fn fold(fold: fn(&Config, &Facts) -> Judgement) -> Kind {
    Kind { fold, ..Kind::default() }
}

/// One vote is enough to take a datacenter out.
fn by_one_vote(config: &Config, facts: &Facts) -> Judgement {
    let mut judgement = judge(config, facts);
    for author in &config.fleet.datacenters {
        for fact in facts.of(&author.name) {
            let Body::Vote { server, verdict: Verdict::Down, .. } = &fact.body else { continue };
            let of = server.trim_start_matches("door-");
            if let Some(at) = judgement.view.datacenters.get_mut(of).filter(|_| of != author.name) {
                at.state = State::Down;
            }
        }
    }
    judgement
}

/// Nobody is ever down.
fn never_down(config: &Config, facts: &Facts) -> Judgement {
    let mut judgement = judge(config, facts);
    for at in judgement.view.datacenters.values_mut().filter(|at| at.state == State::Down) {
        at.state = State::Serving;
    }
    judgement
}

/// Who is not down serves: what the observers say of returns is not heard.
fn without_hold_down(config: &Config, facts: &Facts) -> Judgement {
    let mut judgement = judge(config, facts);
    for at in judgement.view.datacenters.values_mut() {
        if matches!(at.state, State::CatchingUp | State::Ramping(_)) && at.order.is_none() {
            at.state = State::Serving;
        }
    }
    judgement
}

/// The hold-down is waited for, the ramp is not.
fn without_ramp(config: &Config, facts: &Facts) -> Judgement {
    let mut judgement = judge(config, facts);
    for at in judgement.view.datacenters.values_mut() {
        if matches!(at.state, State::Ramping(_)) && at.order.is_none() {
            at.state = State::Serving;
        }
    }
    judgement
}

/// It counts how often it was asked, as a fold would that reads a clock.
fn by_the_clock(config: &Config, facts: &Facts) -> Judgement {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let mut judgement = judge(config, facts);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    for at in judgement.view.datacenters.values_mut() {
        at.since_unix_ms = asked / 50;
    }
    judgement
}

/// What operators say is not heard.
fn without_orders(config: &Config, facts: &Facts) -> Judgement {
    let mut judgement = judge(config, facts);
    for at in judgement.view.datacenters.values_mut() {
        at.order = None;
    }
    judgement.view.paused = None;
    judgement
}

/// A word is shown, and nothing follows from it.
fn orders_in_name_only(config: &Config, facts: &Facts) -> Judgement {
    let mut judgement = judge(config, facts);
    for (name, at) in judgement.view.datacenters.iter_mut().filter(|(_, at)| at.order.is_some()) {
        let is_out = judgement.returns.get(name).is_some_and(|at| matches!(at.out, Out::Down { .. }));
        at.state = if is_out { State::Down } else { State::Serving };
    }
    judgement
}

#[test]
fn one_vote_takes_out_who_is_well() {
    caught(fold(by_one_vote), |_| Box::<HealthyStays>::default());
}

#[test]
fn votes_that_lie_take_out_who_is_well() {
    // Most lie, and the checker is not told: it believes them honest.
    let kind = Kind { most_lie: true, ..Kind::default() };
    caught(kind, |_| Box::new(Gullible(HealthyStays::default())));
}

#[test]
fn the_dead_stay() {
    caught(fold(never_down), |_| Box::<DeadLeaves>::default());
}

#[test]
fn they_flip_at_once() {
    caught(fold(without_hold_down), |_| Box::<NoFastFlip>::default());
}

#[test]
fn they_come_back_without_a_ramp() {
    caught(fold(without_ramp), |_| Box::<NoFastFlip>::default());
}

#[test]
fn a_view_goes_back() {
    fn lower(mut view: FleetView) -> FleetView {
        if view.generation % 7 == 3 {
            view.generation -= 1;
            if let Some(number) = view.frontier.0.values_mut().next() {
                *number = number.saturating_sub(1);
            }
        }
        view
    }
    caught(Kind { tamper: Some(lower), ..Kind::default() }, |_| Box::<Generations>::default());
}

#[test]
fn the_fold_reads_a_clock() {
    caught(fold(by_the_clock), |_| Box::<SameView>::default());
}

#[test]
fn facts_are_not_told() {
    fn forgets_others(mut view: FleetView) -> FleetView {
        let last = view.frontier.0.keys().next_back().cloned();
        last.and_then(|author| view.frontier.0.remove(&author));
        view
    }
    // All views lack the same author but that one's own: the checker misses what was told.
    fn own_only(view: FleetView) -> FleetView {
        if view.generation.is_multiple_of(2) { forgets_others(view) } else { view }
    }
    caught(Kind { tamper: Some(own_only), ..Kind::default() }, |_| Box::<SameView>::default());
}

#[test]
fn orders_are_not_heard() {
    caught(fold(without_orders), |_| Box::<Orders>::default());
}

#[test]
fn orders_are_not_carried_out() {
    caught(fold(orders_in_name_only), |_| Box::<Orders>::default());
}

#[test]
fn nothing_is_answered() {
    /// Answers only from datacenters that serve and whose servers are up: nothing, when there are none.
    struct Strict(Placer);

    impl Strict {
        fn serves(&self, number: usize) -> bool {
            let view = self.0.view();
            let name = &self.0.steering().config().fleet.datacenters[number].name;
            let server = view.servers.get(&format!("door-{name}"));
            view.datacenters[name].state == State::Serving
                && server.is_some_and(|server| server.health != Health::Down)
        }
    }

    impl Places for Strict {
        fn choose(&self, target: Target, client: &Client) -> Option<Choice> {
            let choice = self.0.choose(target, client);
            self.serves(choice.datacenter).then_some(choice)
        }

        fn named(&self, target: Target, client: &Client, choice: Choice) -> Vec<usize> {
            self.0.named(target, client, choice)
        }

        fn order(&self, target: Target, client: &Client) -> Vec<usize> {
            self.0.order(target, client)
        }

        fn addresses(&self, target: Target, datacenter: usize) -> &[IpAddr] {
            self.0.addresses(target, datacenter)
        }
    }

    caught(Kind::default(), |count| {
        Box::new(NeverEmpty::with(count, |steering, view| Box::new(Strict(Placer::new(steering, view)))))
    });
}

/// Shows a checker a truth in which nobody lies.
struct Gullible(HealthyStays);

impl Checker for Gullible {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn look(&mut self, scene: &crate::scene::Scene, changed: Option<usize>) -> Result<(), String> {
        let mut believed = scene.clone();
        for sight in believed.sights.iter_mut().flatten().filter(|sight| sight.value.lies) {
            sight.value.lies = false;
            (sight.since, sight.changes) = (std::time::Duration::ZERO, 0);
        }
        self.0.look(&believed, changed)
    }
}
