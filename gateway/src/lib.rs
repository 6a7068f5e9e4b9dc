//! The front door: the index page and the list of servers, under the same view as the DNS answers.
//!
//! [`list`] and [`forwarded`] are pure, [`page`] is made ahead of the requests, in every form that an [`asset`] is sent in,
//! [`serve`] owns the sockets.

pub mod asset;
pub mod forwarded;
pub mod list;
mod metrics;
pub mod page;
pub mod serve;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use daemun_fleet::{Clock, Placer};

use asset::Asset;
pub use metrics::Metrics;
use page::{Page, PageFile, PageSource};

/// All that an answer is made from; swapped as one.
#[derive(Debug)]
struct State {
    placer: Arc<Placer>,
    page: Page,
}

/// The front door of one datacenter.
#[derive(Debug)]
pub struct Door {
    me: String,
    state: ArcSwap<State>,
    last_good: ArcSwapOption<Asset>,
    metrics: Metrics,
    clock: Clock,
}

impl Door {
    /// A door in datacenter `me`, ready to answer.
    pub fn new(
        me: &str,
        placer: Arc<Placer>,
        file: Option<&PageFile>,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        let page = page::choose(file, None, None, &placer, (clock.unix_ms)() / 1000);
        let last_good = (page.source == PageSource::Live).then(|| Arc::clone(&page.asset));
        Self {
            me: me.to_owned(),
            state: ArcSwap::from_pointee(State { placer, page }),
            last_good: ArcSwapOption::new(last_good),
            metrics,
            clock,
        }
    }

    /// Replaces what answers are made from; requests under way finish with the old.
    pub fn set_state(&self, placer: Arc<Placer>, file: Option<&PageFile>) {
        let last_good = self.last_good.load_full();
        let before = self.state.load_full();
        let now_unix = (self.clock.unix_ms)() / 1000;
        let page = page::choose(file, last_good.as_ref(), Some(&before.page), &placer, now_unix);
        if page.source == PageSource::Live {
            self.last_good.store(Some(Arc::clone(&page.asset)));
        }
        self.state.store(Arc::new(State { placer, page }));
    }
}

#[cfg(test)]
mod tests;
