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

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use daemun_dns::listen::{Addresses, Listeners};
use daemun_fleet::config::{Datacenter, Listen};
use daemun_fleet::{Config, FleetView, Placer};
use daemun_gateway::Door;
use daemun_sync::keys::Keys;
use daemun_sync::{Agent, Refusals, disk, last_sent, latest, latest_seen};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus::Registry;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, Admin, ViewMetrics};
use crate::name_server::NameServer;
use crate::reload::reload;
use crate::world::{AgentKeys, Secret, World};
use crate::{Failure, clock, keys};

/// What the caps on connections add up to, with room for probes and files.
const FILES_WANTED: u64 = 12_000;

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
    /// What this name server calls itself to those who ask it (NSID, id.server) [default: the datacenter's name]
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    id: Option<String>,
    /// Where agent.pem and agent.key are, in the place of the config's sync.certificate and sync.key
    #[arg(long, value_name = "DIRECTORY")]
    keys: Option<PathBuf>,
    /// Listen here for operators instead of at `sync.admin` of the config: for several processes on one machine
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<SocketAddr>,
    /// End when standard input does: for a parent that must not leave us behind
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

impl RunArguments {
    /// The config file.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Which datacenter this is.
    pub(crate) fn datacenter(&self) -> &str {
        &self.datacenter
    }

    /// Only the name server has need of its secrets; on other machines they need not be.
    pub(crate) fn secret(&self) -> Secret {
        if self.roles.contains(&Role::Dns) { Secret::Read } else { Secret::Leave }
    }

    /// Every role has need of the agents' keys.
    pub(crate) fn agent_keys(&self) -> AgentKeys {
        AgentKeys::Needed { datacenter: self.datacenter.clone(), directory: self.keys.clone() }
    }
}

fn server_name(text: &str) -> Result<String, String> {
    let is_fit = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_fit.then(|| text.to_owned()).ok_or_else(|| "expected 1 to 64 letters, digits and signs".to_owned())
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

/// Raises the limit of open files as far as it goes: connections are capped by ourselves, and a flood at one door must
/// not take the files of the others.
fn raise_file_limit() {
    let (_, most) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return tracing::warn!(%error, "asking for the limit of open files"),
    };
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        tracing::warn!(%error, "raising the limit of open files");
    }
    if most < FILES_WANTED {
        tracing::warn!(
            most,
            wanted = FILES_WANTED,
            "the limit of open files is low: raise it (systemd: LimitNOFILE)"
        );
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
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting a runtime")?;
    // Reading the files takes its time; a signal in it must not be the end.
    let signals = {
        let _within = runtime.enter();
        Signals::catch()?
    };
    let world = World::load(&arguments.config, None, arguments.secret(), &arguments.agent_keys())
        .map_err(|refusal| Failure::Wrong(anyhow!("{refusal}")))?;
    let ends = world.keys.as_ref().and_then(|agent| keys::complaint(agent, clock::unix_ms() / 1000));
    for complaint in world.complaints.iter().chain(&ends) {
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
    let served = runtime.block_on(serve(arguments, world, signals));
    // A read of standard input cannot be called off: do not wait for it.
    runtime.shutdown_background();
    Ok(served?)
}

/// Everything that listens, bound before anything is served: a port in use must not leave half a process behind.
struct Bound {
    dns: Option<Listeners>,
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
                true => Some(Listeners::bind(&Addresses {
                    plain: sockets(&config.dns.listen),
                    tls: sockets(&config.dns.tls_listen),
                    https: sockets(&config.dns.https_listen),
                    quic: sockets(&config.dns.quic_listen),
                })?),
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

async fn serve(arguments: RunArguments, world: World, signals: Signals) -> anyhow::Result<()> {
    let Signals { hang_up, end } = signals;
    let me = arguments.datacenter.as_str();
    let config = Arc::clone(world.config());
    let here =
        config.fleet.datacenters.iter().find(|datacenter| datacenter.name == me).context("checked before")?;
    let bound = Bound::bind(&arguments, &config, here).await?;

    let registry = Registry::new();
    let worlds = watch::Sender::new(Arc::new(world));
    let configs = watch::Sender::new(config);
    let keys = watch::Sender::new(last_sent(&worlds).keys.clone());
    let refused = watch::Sender::new(Vec::new());
    let (stop, stopped) = watch::channel(false);
    let mut tasks: JoinSet<anyhow::Result<&'static str>> = JoinSet::new();

    let view_file = arguments.data.join("view.json");
    let Views { views, heard, agent } =
        start_view(&arguments, (&configs, &keys), bound.agent, &view_file, &registry, &mut tasks)?;

    let placer = Placer::new(Arc::clone(&last_sent(&worlds).steering), latest(&views));
    let placer = Arc::new(placer);
    let name_server = match bound.dns {
        Some(listeners) => {
            let id = arguments.id.as_deref().unwrap_or(me);
            let server = NameServer::new(id, &last_sent::<Arc<_>>(&worlds), &placer, &registry)?;
            let (responder, identity) = (Arc::clone(&server.responder), server.identity.clone());
            tasks.spawn(
                async move { listeners.serve(responder, identity).await.context("dns").map(|()| "dns") },
            );
            Some(server)
        }
        None => None,
    };
    let door = match bound.gateway.is_empty() {
        true => None,
        false => {
            let page = last_sent(&worlds).page.clone();
            let metrics = daemun_gateway::Metrics::new(&registry)?;
            Some(Arc::new(Door::new(me, Arc::clone(&placer), page.as_deref(), metrics, clock::machine())))
        }
    };
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
        heard: heard.clone(),
        agent,
        registry: registry.clone(),
    });
    for listener in bound.admin {
        let router = admin::router(Arc::clone(&admin));
        tasks.spawn(async move {
            daemun_sync::listen::serve(listener, router).await;
            Ok("admin")
        });
    }
    let follower = Follower {
        worlds: worlds.subscribe(),
        refused: refused.subscribe(),
        views,
        heard,
        name_server,
        door,
        metrics: ViewMetrics::new(&registry)?,
    };
    tasks.spawn(keep_view(admin.views.clone(), view_file));
    tasks.spawn(follower.run());
    tasks.spawn(reload(arguments.clone(), hang_up, worlds, configs, keys, refused));
    tracing::info!(datacenter = me, roles = ?admin.roles, "serving");

    until_over(&arguments, end, tasks, doors, &stop).await
}

/// Waits for a reason to end, then for what is under way.
async fn until_over(
    arguments: &RunArguments,
    mut signals: EndSignals,
    mut tasks: JoinSet<anyhow::Result<&'static str>>,
    mut doors: JoinSet<()>,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<()> {
    tokio::select! {
        told = until_told(arguments, &mut signals, &mut tasks) => told?,
        Some(_) = doors.join_next() => return Err(anyhow!("the gateway ended, which it never should")),
    }
    tracing::info!("stopping: finishing what is under way");
    stop.send_replace(true);
    tokio::select! {
        _ = doors.join_all() => Ok(()),
        // Told twice: at once.
        told = until_told(arguments, &mut signals, &mut tasks) => told,
    }
}

/// Where views come from.
struct Views {
    views: watch::Receiver<Arc<FleetView>>,
    /// Whether anybody says what the newest is.
    heard: watch::Receiver<bool>,
    /// The agent, if it is in this process.
    agent: Option<Arc<Agent>>,
}

/// The agent, or, without one, the view that other agents publish; both begin from the last good on disk.
fn start_view(
    arguments: &RunArguments,
    (configs, keys): (&watch::Sender<Arc<Config>>, &watch::Sender<Option<Arc<Keys>>>),
    listeners: Vec<TcpListener>,
    view_file: &Path,
    registry: &Registry,
    tasks: &mut JoinSet<anyhow::Result<&'static str>>,
) -> anyhow::Result<Views> {
    if arguments.roles.contains(&Role::Sync) {
        let settings = daemun_sync::Settings {
            me: arguments.datacenter.clone(),
            configs: configs.subscribe(),
            data_directory: arguments.data.clone(),
            clock: clock::machine(),
            keys: keys.subscribe(),
            refusals: Refusals::new(registry)?,
        };
        let agent = Agent::start(&settings)?;
        let running = Arc::clone(&agent);
        tasks.spawn(async move {
            running.run(listeners, settings.configs).await.map(|()| "sync").context("sync")
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
    let (me, configs, keys) = (arguments.datacenter.clone(), configs.subscribe(), keys.subscribe());
    tasks.spawn(async move {
        daemun_sync::follow(&me, configs, keys, views, hear).await.map(|()| "follow").context("follow")
    });
    Ok(Views { views: receiver, heard, agent: None })
}

/// Keeps the newest view on disk, in the disk's own time: users do not wait for it.
async fn keep_view(
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
struct Follower {
    worlds: watch::Receiver<Arc<World>>,
    refused: watch::Receiver<Vec<String>>,
    views: watch::Receiver<Arc<FleetView>>,
    heard: watch::Receiver<bool>,
    name_server: Option<NameServer>,
    door: Option<Arc<Door>>,
    metrics: ViewMetrics,
}

impl Follower {
    async fn run(mut self) -> anyhow::Result<&'static str> {
        let mut shown: Option<Arc<World>> = None;
        loop {
            let world = latest_seen(&mut self.worlds);
            let view = latest_seen(&mut self.views);
            let complaints = world.complaints.len() + latest_seen(&mut self.refused).len();
            let placer = Arc::new(Placer::new(Arc::clone(&world.steering), Arc::clone(&view)));
            if let Some(server) = &self.name_server {
                if !shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &world)) {
                    server.show_zones(&world);
                    shown = Some(Arc::clone(&world));
                }
                server.set(&world, &placer, !latest_seen(&mut self.heard));
            }
            if let Some(door) = &self.door {
                door.set_state(placer, world.page.as_deref());
            }
            self.metrics.set(&view, complaints);
            tokio::select! {
                changed = self.worlds.changed() => changed.context("the files are no longer watched")?,
                changed = self.views.changed() => changed.context("nobody publishes views any more")?,
                Ok(()) = self.heard.changed() => {}
                changed = self.refused.changed() => changed.context("the files are no longer watched")?,
            }
        }
    }
}

/// The signals that mean something to us; caught from before anything is read.
struct Signals {
    hang_up: Signal,
    end: EndSignals,
}

/// Those that end us well.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let hang_up = signal(SignalKind::hangup()).context("SIGHUP")?;
        Ok(Self { hang_up, end: EndSignals { terminate, interrupt } })
    }
}

/// Ends when a signal, the parent, or the end of a part says so.
async fn until_told(
    arguments: &RunArguments,
    signals: &mut EndSignals,
    tasks: &mut JoinSet<anyhow::Result<&'static str>>,
) -> anyhow::Result<()> {
    let parent_gone = async {
        if !arguments.end_with_stdin {
            return std::future::pending().await;
        }
        let mut nothing = [0; 64];
        while tokio::io::stdin().read(&mut nothing).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        _ = signals.terminate.recv() => Ok(()),
        _ = signals.interrupt.recv() => Ok(()),
        () = parent_gone => Ok(()),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(part)) => Err(anyhow!("{part} ended, which it never should")),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(anyhow!("a part of the process failed: {error}")),
        },
    }
}
