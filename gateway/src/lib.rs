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

pub use metrics::Metrics;
use page::{LastGood, Page, PageFile, PageSource};

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
    last_good: ArcSwapOption<LastGood>,
    metrics: Metrics,
    clock: Clock,
}

impl Door {
    /// A door in datacenter `me`, ready to answer; `kept` is the page that an earlier process has kept.
    pub fn new(
        me: &str,
        placer: Arc<Placer>,
        file: Option<&PageFile>,
        kept: Option<LastGood>,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        let page = page::choose(file, kept.as_ref(), None, &placer, (clock.unix_ms)() / 1000);
        let door = Self {
            me: me.to_owned(),
            state: ArcSwap::from_pointee(State { placer, page: page.clone() }),
            last_good: ArcSwapOption::new(kept.map(Arc::new)),
            metrics,
            clock,
        };
        door.remember(&page);
        door
    }

    fn remember(&self, page: &Page) {
        if page.source == PageSource::Live {
            let asset = Arc::clone(&page.asset);
            self.last_good.store(Some(Arc::new(LastGood { asset, is_kept: false })));
        }
    }

    /// The last good page, for the next process to begin with.
    pub fn last_good(&self) -> Option<Arc<LastGood>> {
        self.last_good.load_full()
    }

    /// Replaces what answers are made from; requests under way finish with the old.
    pub fn set_state(&self, placer: Arc<Placer>, file: Option<&PageFile>) {
        let last_good = self.last_good.load_full();
        let before = self.state.load_full();
        let now_unix = (self.clock.unix_ms)() / 1000;
        let page = page::choose(file, last_good.as_deref(), Some(&before.page), &placer, now_unix);
        self.remember(&page);
        self.state.store(Arc::new(State { placer, page }));
    }
}

#[cfg(test)]
mod tests;
