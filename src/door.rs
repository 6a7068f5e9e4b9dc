//! The front door's part of `daemun run`: what it begins with, what it is shown, what is kept of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use daemun_fleet::Placer;
use daemun_fleet::tls::TlsIdentity;
use daemun_gateway::page::{KeptPage, LastGood};
use daemun_gateway::serve::{Listeners, ServeError, serve};
use daemun_gateway::{Door, Settings};
use daemun_sync::{disk, latest, latest_seen};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;
use crate::run::Tasks;
use crate::world::World;

/// The tasks of the front door.
pub(crate) type Doors = JoinSet<Result<(), ServeError>>;

type Pages = Arc<BTreeMap<String, LastGood>>;

/// A front door that is open.
pub(crate) struct OpenDoor {
    pub(crate) door: Arc<Door>,
    identity: Option<Arc<TlsIdentity>>,
    /// The last good pages, to be kept.
    pages: watch::Sender<Pages>,
}

impl OpenDoor {
    /// With the pages and the placement of now, and what an earlier process has kept.
    pub(crate) fn new(
        me: &str,
        world: &World,
        placer: &Arc<Placer>,
        page_file: &Path,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let metrics = daemun_gateway::Metrics::new(registry)?;
        let settings =
            Settings { me: me.to_owned(), metrics, clock: clock::machine(), kept: kept_pages(page_file) };
        let door = Door::new(settings, Arc::clone(placer), Arc::clone(&world.door));
        let identity = world.door_certificate.clone().map(TlsIdentity::new);
        Ok(Self { door, identity, pages: watch::Sender::new(Pages::default()) })
    }

    /// Opens it: its sockets as one of `doors`, what it does beside as some of `tasks`.
    pub(crate) fn serve(
        &self,
        listeners: Listeners,
        worlds: watch::Receiver<Arc<World>>,
        stopped: watch::Receiver<bool>,
        page_file: PathBuf,
        doors: &mut Doors,
        tasks: &mut Tasks,
    ) {
        let grace = move || latest(&worlds).config().gateway.stop_grace;
        let (door, identity) = (Arc::clone(&self.door), self.identity.clone());
        doors.spawn(serve(listeners, door, identity, stopped, grace));
        tasks.spawn(keep_pages(self.pages.subscribe(), page_file));
        tasks.spawn(fetch(Arc::clone(&self.door)));
    }

    /// Answers from now on by these.
    pub(crate) fn show(&self, world: &World, placer: Arc<Placer>) {
        if let (Some(identity), Some(certificate)) = (&self.identity, &world.door_certificate) {
            identity.set(certificate.clone());
        }
        self.door.set_state(placer, Arc::clone(&world.door));
        let mut last_good = self.door.last_good();
        // What was kept already need not be kept again.
        last_good.retain(|_, page| !page.is_kept);
        self.pages.send_if_modified(|pages| {
            let is_same = |(host, page): (&String, &LastGood)| {
                pages.get(host).is_some_and(|kept| Arc::ptr_eq(&kept.asset, &page.asset))
            };
            let is_new = !last_good.iter().all(is_same);
            if is_new {
                *pages = Arc::new(last_good);
            }
            is_new
        });
    }
}

/// Fetches what pages need from elsewhere.
async fn fetch(door: Arc<Door>) -> anyhow::Result<&'static str> {
    daemun_gateway::fetch::fetch(door).await.context("the front door's fetching").map(|()| "fetch")
}

/// Keeps the last good pages on disk, for the next process to begin with.
async fn keep_pages(mut pages: watch::Receiver<Pages>, file: PathBuf) -> anyhow::Result<&'static str> {
    loop {
        pages.changed().await.context("nobody shows pages any more")?;
        let (pages, to) = (latest_seen(&mut pages), file.clone());
        let kept = tokio::task::spawn_blocking(move || {
            // Those of hosts that have no good page now stay.
            let mut all = disk::read::<BTreeMap<String, KeptPage>>(&to).ok().flatten().unwrap_or_default();
            all.extend(pages.iter().map(|(host, page)| (host.clone(), KeptPage::of(&page.asset))));
            disk::write(&to, &all)
        });
        if let Err(error) = kept.await? {
            tracing::error!(%error, "keeping the last good pages");
        }
    }
}

/// The pages that an earlier process has kept, those that are whole.
fn kept_pages(file: &Path) -> BTreeMap<String, LastGood> {
    let kept = disk::read::<BTreeMap<String, KeptPage>>(file).unwrap_or_else(|error| {
        tracing::warn!(%error, "the last good pages");
        None
    });
    let whole = kept.unwrap_or_default().into_iter().filter_map(|(host, page)| {
        let page = page.page();
        let page = page.inspect_err(|why| tracing::warn!(why, file = %file.display(), "a last good page"));
        Some((host, page.ok()?))
    });
    whole.collect()
}
