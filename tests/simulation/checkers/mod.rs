//! What must be so. Each checker sees the [`Scene`] alone: what is true, and what each agent has published.

pub(crate) mod dead_leaves;
pub(crate) mod generations;
pub(crate) mod healthy_stays;
pub(crate) mod knowledge;
pub(crate) mod never_empty;
pub(crate) mod no_fast_flip;
pub(crate) mod orders;
pub(crate) mod same_view;

use crate::scene::Scene;

/// A rule that is looked after.
pub(crate) trait Checker {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Looks: after each change of the truth, each new view (of agent `changed`), and now and then.
    ///
    /// # Errors
    /// What is not as it must be.
    fn look(&mut self, scene: &Scene, changed: Option<usize>) -> Result<(), String>;
}

/// All of them.
pub(crate) fn all(datacenters: usize) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(healthy_stays::HealthyStays::default()),
        Box::new(dead_leaves::DeadLeaves),
        Box::new(no_fast_flip::NoFastFlip::default()),
        Box::new(generations::Generations::default()),
        Box::new(same_view::SameView::default()),
        Box::new(never_empty::NeverEmpty::new(datacenters)),
        Box::new(orders::Orders::default()),
    ]
}
