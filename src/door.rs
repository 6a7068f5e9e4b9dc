//! The front door's part of `daemun run`: what it begins with, what it is shown, what is kept of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use daemun_fleet::Placer;
use daemun_fleet::tls::TlsIdentity;
use daemun_gateway::page::{KeptPage, LastGood};
use daemun_gateway::serve::{Listeners, ServeError, serve};
use daemun_gateway::{Door, Settings};
use daemun_sync::{disk, latest};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;
use crate::run::Tasks;
use crate::world::World;

/// The tasks of the front door.
pub(crate) type Doors = JoinSet<Result<(), ServeError>>;

/// Between two times that pages are kept.
const KEEP_PAUSE: Duration = Duration::from_secs(1);

/// A front door that is open.
pub(crate) struct OpenDoor {
    pub(crate) door: Arc<Door>,
    identity: Option<Arc<TlsIdentity>>,
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
        Ok(Self { door, identity })
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
        tasks.spawn(keep_pages(Arc::clone(&self.door), page_file));
        tasks.spawn(fetch(Arc::clone(&self.door)));
    }

    /// Answers from now on by these.
    pub(crate) fn show(&self, world: &World, placer: Arc<Placer>) {
        if let (Some(identity), Some(certificate)) = (&self.identity, &world.door_certificate) {
            identity.set(certificate.clone());
        }
        self.door.set_state(placer, Arc::clone(&world.door));
    }
}

/// Fetches what pages need from elsewhere.
async fn fetch(door: Arc<Door>) -> anyhow::Result<&'static str> {
    daemun_gateway::fetch::fetch(door).await;
    Ok("fetch")
}

/// Keeps the last good pages on disk, for the next process to begin with.
async fn keep_pages(door: Arc<Door>, file: PathBuf) -> anyhow::Result<&'static str> {
    let mut changes = door.changes();
    let mut kept = BTreeMap::new();
    loop {
        let mut pages = door.last_good();
        // What was kept already need not be kept again.
        pages.retain(|_, page| !page.is_kept);
        let is_same = |(host, page): (&String, &LastGood)| {
            kept.get(host).is_some_and(|kept: &LastGood| Arc::ptr_eq(&kept.asset, &page.asset))
        };
        if !pages.iter().all(is_same) {
            let (to, shown) = (file.clone(), pages.clone());
            let written = tokio::task::spawn_blocking(move || {
                // Those of hosts that have no good page now stay.
                let all = disk::read::<BTreeMap<String, KeptPage>>(&to).ok().flatten();
                let mut all = all.unwrap_or_default();
                all.extend(shown.iter().map(|(host, page)| (host.clone(), KeptPage::of(&page.asset))));
                disk::write(&to, &all)
            });
            match written.await? {
                Ok(()) => kept = pages,
                Err(error) => tracing::error!(%error, "keeping the last good pages"),
            }
        }
        changes.changed().await.context("nobody shows pages any more")?;
        // Pages that change with their fragments change often.
        tokio::time::sleep(KEEP_PAUSE).await;
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
