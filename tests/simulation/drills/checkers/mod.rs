//! What must be so of drills, beside what must be so anyway.

pub(crate) mod abort_obeyed;
pub(crate) mod all_back;
pub(crate) mod armed_first;
pub(crate) mod on_time;
pub(crate) mod one_at_a_time;

use crate::checkers::{self, Checker};

/// All of them.
pub(crate) fn all(datacenters: usize) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(on_time::OnTime),
        Box::new(armed_first::ArmedFirst::default()),
        Box::new(one_at_a_time::OneAtATime::default()),
        Box::new(abort_obeyed::AbortObeyed::default()),
        Box::new(all_back::AllBack::default()),
        Box::new(checkers::healthy_stays::HealthyStays::default()),
        Box::new(checkers::dead_leaves::DeadLeaves),
        Box::new(checkers::no_fast_flip::NoFastFlip::default()),
        Box::new(checkers::generations::Generations::default()),
        Box::new(checkers::same_view::SameView::default()),
        Box::new(checkers::never_empty::NeverEmpty::new(datacenters)),
    ]
}
