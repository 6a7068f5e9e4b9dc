//! Where a process has its view from, and where it goes: the agent, or the agents of others, to the data plane and the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use daemun_fleet::{FleetView, Placer};
use daemun_sync::store::engine::Store;
use daemun_sync::{Agent, Refusals, disk, last_sent, latest_seen};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::admin::ViewMetrics;
use crate::clock;
use crate::door::OpenDoor;
use crate::drill::part::InDrill;
use crate::name_server::NameServer;
use crate::reload::Files;
use crate::run::{Role, RunArguments, Tasks};
use crate::sampler::{self, Sampler};
use crate::world::World;

/// Where views come from.
pub(crate) struct Views {
    pub(crate) views: watch::Receiver<Arc<FleetView>>,
    /// Whether anybody says what the newest is.
    pub(crate) heard: watch::Receiver<bool>,
    /// The agent, if it is in this process.
    pub(crate) agent: Option<Arc<Agent>>,
}

/// The agent, or, without one, the view that other agents publish; both begin from the last good on disk.
pub(crate) fn start_view(
    arguments: &RunArguments,
    files: &Files,
    listeners: Vec<TcpListener>,
    view_file: &Path,
    registry: &Registry,
    store: Option<Store>,
    tasks: &mut Tasks,
) -> anyhow::Result<Views> {
    let Files { worlds, configs, keys } = files;
    if arguments.roles().contains(&Role::Sync) {
        let settings = daemun_sync::Settings {
            me: arguments.datacenter().to_owned(),
            configs: configs.subscribe(),
            data_directory: arguments.data().to_owned(),
            clock: clock::machine(),
            keys: keys.subscribe(),
            refusals: Refusals::new(registry)?,
            probes: daemun_sync::probe_counter(registry)?,
            store,
        };
        let agent = Agent::start(&settings)?;
        let running = Arc::clone(&agent);
        tasks.spawn(async move {
            running.run(listeners, settings.configs).await.map(|()| "sync").context("sync")
        });
        let (measuring, mut sampler) = (Arc::clone(&agent), Sampler::new(worlds.clone()));
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(sampler::WINDOW).await;
                measuring.measured("agent", sampler.measure());
            }
        });
        let (_, heard) = watch::channel(true); // it hears itself
        return Ok(Views { views: agent.views(), heard, agent: Some(agent) });
    }
    let view = disk::read::<FleetView>(view_file).unwrap_or_else(|error| {
        tracing::warn!(%error, "starting without the last view");
        None
    });
    let view = view.unwrap_or_else(|| FleetView::unobserved(&last_sent::<Arc<_>>(configs)));
    let views = watch::Sender::new(Arc::new(view));
    let receiver = views.subscribe();
    let (hear, heard) = watch::channel(true);
    let (me, configs, keys) = (arguments.datacenter().to_owned(), configs.subscribe(), keys.subscribe());
    let mut sampler = Sampler::new(worlds.clone());
    let node = node(arguments);
    let (near, looked_for, shown) = (me.clone(), configs.clone(), keys.clone());
    tasks.spawn(async move {
        let looking =
            daemun_sync::look(&near, &node, looked_for, shown, clock::machine(), move || sampler.measure());
        looking.await.map(|()| "look").context("look")
    });
    tasks.spawn(async move {
        daemun_sync::follow(&me, configs, keys, views, hear).await.map(|()| "follow").context("follow")
    });
    Ok(Views { views: receiver, heard, agent: None })
}

/// What a process without an agent calls itself to the agent of its datacenter.
fn node(arguments: &RunArguments) -> String {
    let roles: Vec<&str> = arguments.roles().iter().map(|role| role.name()).collect();
    let name = arguments.id().unwrap_or("");
    format!("{name} {} {}", roles.join(","), std::process::id())
}

/// Keeps the newest view on disk, in the disk's own time: users do not wait for it.
pub(crate) async fn keep_view(
    mut views: watch::Receiver<Arc<FleetView>>,
    file: PathBuf,
) -> anyhow::Result<&'static str> {
    loop {
        let view = latest_seen(&mut views);
        let to = file.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || disk::write(&to, &*view)).await? {
            tracing::error!(%error, "keeping the last view");
        }
        views.changed().await.context("nobody publishes views any more")?;
    }
}

/// Hands each new view and each new world to the data plane.
pub(crate) struct Follower {
    pub(crate) placers: watch::Sender<Arc<Placer>>,
    pub(crate) worlds: watch::Receiver<Arc<World>>,
    pub(crate) refused: watch::Receiver<Vec<String>>,
    pub(crate) views: watch::Receiver<Arc<FleetView>>,
    pub(crate) heard: watch::Receiver<bool>,
    pub(crate) name_server: Option<NameServer>,
    pub(crate) door: Option<OpenDoor>,
    pub(crate) metrics: ViewMetrics,
    pub(crate) in_drill: InDrill,
}

impl Follower {
    pub(crate) async fn run(mut self) -> anyhow::Result<&'static str> {
        let mut shown: Option<Arc<World>> = None;
        loop {
            let world = latest_seen(&mut self.worlds);
            let view = latest_seen(&mut self.views);
            let complaints = world.complaints.len() + latest_seen(&mut self.refused).len();
            let mut again = self.in_drill.look(world.config(), &view);
            let followed = self.in_drill.followed(&view);
            let placer = Arc::new(Placer::new(Arc::clone(&world.steering), Arc::clone(&followed)));
            if let Some(server) = &self.name_server {
                if !shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &world)) {
                    server.show_zones(&world);
                    shown = Some(Arc::clone(&world));
                }
                server.set(&world, &placer, !latest_seen(&mut self.heard));
            }
            self.metrics.set(&placer, complaints);
            self.placers.send_replace(Arc::clone(&placer));
            if let Some(door) = &self.door {
                door.show(&world, placer);
            }
            // What a drill does here is looked at more often than anything else changes.
            while let Some(pause) = again {
                if let Ok(changed) = timeout(pause, self.changed()).await {
                    changed?;
                    break;
                }
                again = self.in_drill.look(world.config(), &view);
                if self.in_drill.followed(&view) != followed {
                    break;
                }
            }
            if again.is_none() {
                self.changed().await?;
            }
        }
    }

    /// Waits for something new.
    async fn changed(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            changed = self.worlds.changed() => changed.context("the files are no longer watched")?,
            changed = self.views.changed() => changed.context("nobody publishes views any more")?,
            Ok(()) = self.heard.changed() => {}
            changed = self.refused.changed() => changed.context("the files are no longer watched")?,
        }
        Ok(())
    }
}
