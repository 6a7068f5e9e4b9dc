//! `daemun run`: the roles of one process, put together.
//!
//! ```text
//!  files ──▶ World ─────┐
//!                       ├──▶ Placer ──▶ dns, gateway
//!  agent or follow ─────┘
//!    └──▶ FleetView
//! ```

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use daemun_dns::Responder;
use daemun_fleet::config::{Datacenter, Listen};
use daemun_fleet::{Config, FleetView, Placer};
use daemun_gateway::Door;
use daemun_sync::{Agent, disk};
use prometheus::Registry;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, Admin, ViewMetrics};
use crate::world::World;
use crate::{Failure, clock};

/// Time between two looks at the files; a change is read when a second look finds it at rest.
const LOOK: Duration = Duration::from_secs(1);

/// Serve DNS, front door and agent of one datacenter.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArguments {
    /// The config file, the same on every machine of the fleet
    #[arg(long, value_name = "FILE", default_value = "daemun.toml")]
    config: PathBuf,
    /// Which datacenter this is
    #[arg(long, value_name = "NAME")]
    datacenter: String,
    /// What this process does
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', default_values = ["dns", "gateway", "sync"])]
    roles: Vec<Role>,
    /// Where the last good facts and view are kept
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/daemun")]
    data: PathBuf,
    /// Listen here for operators instead of at `sync.admin` of the config: for several processes on one machine
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<SocketAddr>,
    /// End when standard input does: for a parent that must not leave us behind
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Answer DNS
    Dns,
    /// Serve the front door
    Gateway,
    /// Probe, vote, publish the view
    Sync,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Dns => "dns",
            Role::Gateway => "gateway",
            Role::Sync => "sync",
        }
    }
}

pub(crate) fn run(arguments: RunArguments) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DAEMUN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let world = World::load(&arguments.config, None)
        .map_err(|problems| Failure::Wrong(anyhow!("{}", problems.join("\n"))))?;
    for complaint in &world.complaints {
        tracing::warn!("{complaint}");
    }
    let fleet = &world.config().fleet;
    if fleet.datacenter(&arguments.datacenter).is_none() {
        let names: Vec<&str> = fleet.datacenters.iter().map(|datacenter| datacenter.name.as_str()).collect();
        let message = "--datacenter: the config has no";
        return Err(Failure::Wrong(anyhow!(
            "{message} `{}`; it has {}",
            arguments.datacenter,
            names.join(", ")
        )));
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting a runtime")?;
    let served = runtime.block_on(serve(arguments, world));
    // A read of standard input cannot be called off: do not wait for it.
    runtime.shutdown_background();
    Ok(served?)
}

/// Everything that listens, bound before anything is served: a port in use must not leave half a process behind.
struct Bound {
    dns: Option<daemun_dns::listen::Listeners>,
    gateway: Vec<TcpListener>,
    agent: Vec<TcpListener>,
    admin: Vec<TcpListener>,
}

impl Bound {
    async fn bind(arguments: &RunArguments, config: &Config, here: &Datacenter) -> anyhow::Result<Self> {
        let sockets = |listens: &[Listen]| -> Vec<SocketAddr> {
            listens.iter().flat_map(|listen| listen.sockets(here)).collect()
        };
        let has = |role| arguments.roles.contains(&role);
        let admin =
            arguments.admin_listen.map_or_else(|| sockets(&config.sync.admin), |address| vec![address]);
        Ok(Self {
            dns: match has(Role::Dns) {
                true => Some(daemun_dns::listen::Listeners::bind(&sockets(&config.dns.listen)).await?),
                false => None,
            },
            gateway: match has(Role::Gateway) {
                true => daemun_gateway::serve::bind(&sockets(&config.gateway.listen)).await?,
                false => Vec::new(),
            },
            agent: match has(Role::Sync) {
                true => Agent::bind(&sockets(&config.sync.listen)).await?,
                false => Vec::new(),
            },
            admin: Agent::bind(&admin).await.context("the admin listener")?,
        })
    }
}

async fn serve(arguments: RunArguments, world: World) -> anyhow::Result<()> {
    let me = arguments.datacenter.as_str();
    let config = Arc::clone(world.config());
    let here =
        config.fleet.datacenters.iter().find(|datacenter| datacenter.name == me).context("checked before")?;
    let bound = Bound::bind(&arguments, &config, here).await?;

    let registry = Registry::new();
    let worlds = watch::Sender::new(Arc::new(world));
    let configs = watch::Sender::new(config);
    let refused = watch::Sender::new(Vec::new());
    let (stop, stopped) = watch::channel(false);
    let mut tasks: JoinSet<anyhow::Result<&'static str>> = JoinSet::new();

    let view_file = arguments.data.join("view.json");
    let (views, agent) = start_view(&arguments, &configs, bound.agent, &view_file, &mut tasks)?;

    let placer = Placer::new(Arc::clone(&worlds.borrow().steering), Arc::clone(&views.borrow()));
    let placer = Arc::new(placer);
    let responder = bound.dns.is_some().then(|| responder(&worlds, &placer, &registry)).transpose()?;
    let door = match bound.gateway.is_empty() {
        true => None,
        false => {
            let page = worlds.borrow().page.clone();
            let metrics = daemun_gateway::Metrics::new(&registry)?;
            Some(Arc::new(Door::new(me, Arc::clone(&placer), page.as_deref(), metrics, clock::machine())))
        }
    };
    if let (Some(listeners), Some(responder)) = (bound.dns, &responder) {
        let responder = Arc::clone(responder);
        tasks.spawn(async move {
            listeners.serve(responder).await;
            Ok("dns")
        });
    }
    // Apart from the others: at the end it is waited for.
    let mut doors: JoinSet<()> = JoinSet::new();
    if let Some(door) = &door {
        doors.spawn(daemun_gateway::serve::serve(bound.gateway, Arc::clone(door), stopped));
    }
    let admin = Arc::new(Admin {
        me: me.to_owned(),
        roles: arguments.roles.iter().map(|role| role.name().to_owned()).collect(),
        worlds: worlds.subscribe(),
        refused_reload: refused.subscribe(),
        views: views.clone(),
        agent,
        registry: registry.clone(),
    });
    for listener in bound.admin {
        let router = admin::router(Arc::clone(&admin));
        tasks.spawn(async move { axum::serve(listener, router).await.map(|()| "admin").context("admin") });
    }
    let follower = Follower {
        worlds: worlds.subscribe(),
        refused: refused.subscribe(),
        views,
        responder,
        door,
        metrics: ViewMetrics::new(&registry)?,
        view_file,
    };
    tasks.spawn(follower.run());
    tasks.spawn(reload(arguments.config.clone(), worlds, configs, refused));
    tracing::info!(datacenter = me, roles = ?admin.roles, "serving");

    tokio::select! {
        told = until_told(&arguments, &mut tasks) => told?,
        Some(_) = doors.join_next() => return Err(anyhow!("the gateway ended, which it never should")),
    }
    tracing::info!("stopping: finishing what is under way");
    stop.send_replace(true);
    tokio::select! {
        _ = doors.join_all() => Ok(()),
        // Told twice: at once.
        told = until_told(&arguments, &mut tasks) => told,
    }
}

fn responder(
    worlds: &watch::Sender<Arc<World>>,
    placer: &Arc<Placer>,
    registry: &Registry,
) -> anyhow::Result<Arc<Responder>> {
    let state = daemun_dns::State { zones: Arc::clone(&worlds.borrow().zones), placer: Arc::clone(placer) };
    Ok(Arc::new(Responder::new(state, daemun_dns::Metrics::new(registry)?)))
}

/// Where views come from: later views, and the agent if it is in this process.
type Views = (watch::Receiver<Arc<FleetView>>, Option<Arc<Agent>>);

/// The agent, or, without one, the view that other agents publish; both begin from the last good on disk.
fn start_view(
    arguments: &RunArguments,
    configs: &watch::Sender<Arc<Config>>,
    listeners: Vec<TcpListener>,
    view_file: &Path,
    tasks: &mut JoinSet<anyhow::Result<&'static str>>,
) -> anyhow::Result<Views> {
    if arguments.roles.contains(&Role::Sync) {
        let settings = daemun_sync::Settings {
            me: arguments.datacenter.clone(),
            configs: configs.subscribe(),
            data_directory: arguments.data.clone(),
            clock: clock::machine(),
        };
        let agent = Agent::start(&settings)?;
        let running = Arc::clone(&agent);
        tasks.spawn(async move {
            running.run(listeners, settings.configs).await.map(|()| "sync").context("sync")
        });
        return Ok((agent.views(), Some(agent)));
    }
    let view = disk::read::<FleetView>(view_file).unwrap_or_else(|error| {
        tracing::warn!(%error, "starting without the last view");
        None
    });
    let view = view.unwrap_or_else(|| FleetView::unobserved(&configs.borrow()));
    let views = watch::Sender::new(Arc::new(view));
    let receiver = views.subscribe();
    let (me, configs) = (arguments.datacenter.clone(), configs.subscribe());
    tasks.spawn(async move {
        daemun_sync::follow(&me, configs, views).await.map(|()| "follow").context("follow")
    });
    Ok((receiver, None))
}

/// Hands each new view and each new world to the data plane.
struct Follower {
    worlds: watch::Receiver<Arc<World>>,
    refused: watch::Receiver<Vec<String>>,
    views: watch::Receiver<Arc<FleetView>>,
    responder: Option<Arc<Responder>>,
    door: Option<Arc<Door>>,
    metrics: ViewMetrics,
    view_file: PathBuf,
}

impl Follower {
    async fn run(mut self) -> anyhow::Result<&'static str> {
        loop {
            let world = Arc::clone(&self.worlds.borrow_and_update());
            let view = Arc::clone(&self.views.borrow_and_update());
            let complaints = world.complaints.len() + self.refused.borrow_and_update().len();
            let placer = Arc::new(Placer::new(Arc::clone(&world.steering), Arc::clone(&view)));
            if let Some(responder) = &self.responder {
                let zones = Arc::clone(&world.zones);
                responder.set_state(daemun_dns::State { zones, placer: Arc::clone(&placer) });
            }
            if let Some(door) = &self.door {
                door.set_state(placer, world.page.as_deref());
            }
            self.metrics.set(&view, complaints);
            // Users first, the disk after.
            if let Err(error) = disk::write(&self.view_file, &*view) {
                tracing::error!(%error, "keeping the last view");
            }
            tokio::select! {
                changed = self.worlds.changed() => changed.context("the files are no longer watched")?,
                changed = self.views.changed() => changed.context("nobody publishes views any more")?,
                changed = self.refused.changed() => changed.context("the files are no longer watched")?,
            }
        }
    }
}

/// Reads the files again when they change, or on SIGHUP; what is wrong is said, and nothing changes.
async fn reload(
    path: PathBuf,
    worlds: watch::Sender<Arc<World>>,
    configs: watch::Sender<Arc<Config>>,
    refused: watch::Sender<Vec<String>>,
) -> anyhow::Result<&'static str> {
    let mut hang_up = signal(SignalKind::hangup()).context("SIGHUP")?;
    let mut read = worlds.borrow().as_read();
    let mut seen = read.clone();
    loop {
        let asked = tokio::select! {
            _ = hang_up.recv() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let world = Arc::clone(&worlds.borrow());
        let now = world.look();
        let at_rest = now == seen;
        seen = now;
        if !asked && (seen == read || !at_rest) {
            continue;
        }
        let last = Arc::clone(&world);
        let from = path.clone();
        // Reading and compiling a world takes up to a second of one core.
        let loaded = tokio::task::spawn_blocking(move || World::load(&from, Some(&last))).await?;
        match loaded {
            Ok(loaded) => {
                for complaint in &loaded.complaints {
                    tracing::warn!("{complaint}");
                }
                if needs_restart(world.config(), loaded.config()) {
                    tracing::warn!("addresses to listen on have changed: restart to use the new ones");
                }
                tracing::info!(digest = loaded.config().digest, "files read again");
                read = loaded.as_read();
                configs.send_if_modified(|config| {
                    let changed = config.digest != loaded.config().digest;
                    *config = Arc::clone(loaded.config());
                    changed
                });
                worlds.send_replace(Arc::new(loaded));
                refused.send_replace(Vec::new());
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!("refused, the last good stays: {problem}");
                }
                read.clone_from(&seen);
                refused.send_replace(problems);
            }
        }
    }
}

fn needs_restart(old: &Config, new: &Config) -> bool {
    old.dns.listen != new.dns.listen
        || old.gateway.listen != new.gateway.listen
        || old.sync.listen != new.sync.listen
        || old.sync.admin != new.sync.admin
}

/// Ends when a signal, the parent, or the end of a part says so.
async fn until_told(
    arguments: &RunArguments,
    tasks: &mut JoinSet<anyhow::Result<&'static str>>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let parent_gone = async {
        if !arguments.end_with_stdin {
            return std::future::pending().await;
        }
        let mut nothing = [0; 64];
        while tokio::io::stdin().read(&mut nothing).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = parent_gone => Ok(()),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(part)) => Err(anyhow!("{part} ended, which it never should")),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(anyhow!("a part of the process failed: {error}")),
        },
    }
}
