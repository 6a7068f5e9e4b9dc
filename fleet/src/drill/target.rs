//! Which failures can be made where.

use super::{Fault, Scenario, Target};

impl Fault {
    /// Whether it can be made on a link: the others are of a whole datacenter.
    pub fn fits_link(&self) -> bool {
        matches!(self, Fault::Partition | Fault::Slow { .. })
    }
}

impl Scenario {
    /// The first of its faults that cannot be made there.
    pub fn misfit(&self, target: &Target) -> Option<&Fault> {
        match target {
            Target::Datacenter(_) => None,
            Target::Link(..) => self.faults().find(|fault| !fault.fits_link()),
        }
    }
}
