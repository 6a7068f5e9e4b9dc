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
use daemun_fleet::{Config, Placer};
use daemun_sync::drill::drills::Drills;
use daemun_sync::{Agent, last_sent, latest};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus::Registry;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, Admin, LinkMetrics, ViewMetrics};
use crate::door::{Doors, OpenDoor};
use crate::drill::part::InDrill;
use crate::name_server::NameServer;
use crate::reload::{Files, reload};
use crate::store::StoreMetrics;
use crate::views::{Follower, Views, keep_view, start_view};
use crate::world::{AgentKeys, Reads, World};
use crate::{Failure, clock, drill, keys, store};

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
    /// File of the token that operators show [default: admin.token in the data directory, made at the first start]
    #[arg(long, value_name = "FILE")]
    admin_token: Option<PathBuf>,
    /// File of the token that applications show [default: store.token in the data directory, made at the first start]
    #[arg(long, value_name = "FILE")]
    store_token: Option<PathBuf>,
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

    /// What this process does.
    pub(crate) fn roles(&self) -> &[Role] {
        &self.roles
    }

    fn role_names(&self) -> Vec<String> {
        self.roles.iter().map(|role| role.name().to_owned()).collect()
    }

    /// Where the last good facts and view are kept.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Where the last good index pages are kept.
    fn page_file(&self) -> PathBuf {
        self.data.join("page.json")
    }

    /// The file of the token that applications show.
    pub(crate) fn store_token(&self) -> PathBuf {
        self.store_token.clone().unwrap_or_else(|| self.data.join("store.token"))
    }

    /// What this name server calls itself, if it was told.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Only the name server has need of its secrets, only the front door of its pages; on other machines they need not be.
    pub(crate) fn reads(&self) -> Reads {
        Reads { dns: self.roles.contains(&Role::Dns), door: self.roles.contains(&Role::Gateway) }
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

/// The parts of the process: none should end, and what it says is its name.
pub(crate) type Tasks = JoinSet<anyhow::Result<&'static str>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Answer DNS
    Dns,
    /// Serve the front door
    Gateway,
    /// Probe, vote, publish the view
    Sync,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
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
    let world = World::load(&arguments.config, None, arguments.reads(), &arguments.agent_keys())
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
    gateway: Option<daemun_gateway::serve::Listeners>,
    agent: Vec<TcpListener>,
    store: Vec<TcpListener>,
    admin: Vec<TcpListener>,
}

impl Bound {
    async fn bind(arguments: &RunArguments, config: &Config) -> anyhow::Result<Self> {
        let mine = |datacenter: &&Datacenter| datacenter.name == arguments.datacenter;
        let here = config.fleet.datacenters.iter().find(mine).context("checked before")?;
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
                true => Some(daemun_gateway::serve::bind(
                    &sockets(&config.gateway.listen),
                    &sockets(&config.gateway.tls_listen),
                )?),
                false => None,
            },
            agent: match has(Role::Sync) {
                true => Agent::bind(&sockets(&config.sync.listen)).await?,
                false => Vec::new(),
            },
            store: match has(Role::Sync) {
                true => Agent::bind(&sockets(&config.store.listen)).await.context("the store's listener")?,
                false => Vec::new(),
            },
            admin: Agent::bind(&admin).await.context("the admin listener")?,
        })
    }
}

async fn serve(arguments: RunArguments, world: World, signals: Signals) -> anyhow::Result<()> {
    let Signals { hang_up, end } = signals;
    let me = arguments.datacenter.as_str();
    let bound = Bound::bind(&arguments, world.config()).await?;

    let registry = Registry::new();
    let files = Files::new(world);
    let worlds = files.worlds.clone();
    let refused = watch::Sender::new(Vec::new());
    let (stop, stopped) = watch::channel(false);
    let mut tasks: Tasks = JoinSet::new();

    let opened = store::open(&arguments, &files)?;
    let view_file = arguments.data.join("view.json");
    let Views { views, heard, agent } = start_view(
        &arguments,
        &files,
        bound.agent,
        &view_file,
        &registry,
        opened.store.clone().ok(),
        &mut tasks,
    )?;
    let _applications = store::serve(&arguments, bound.store, &opened.store, &mut tasks)?;

    let placer = Arc::new(Placer::new(Arc::clone(&last_sent(&worlds).steering), latest(&views)));
    let placers = watch::Sender::new(Arc::clone(&placer));
    let name_server = match bound.dns {
        Some(listeners) => {
            let id = arguments.id.as_deref().unwrap_or(me);
            let server = NameServer::new(id, &last_sent::<Arc<_>>(&worlds), &placer, &registry)?;
            server.serve(listeners, &mut tasks);
            Some(server)
        }
        None => None,
    };
    // Apart from the others: at the end it is waited for.
    let mut doors = Doors::new();
    let door = match bound.gateway {
        Some(listeners) => {
            let (now, page_file) = (last_sent::<Arc<_>>(&worlds), arguments.page_file());
            let door = OpenDoor::new(me, &now, &placer, &page_file, &registry)?;
            door.serve(listeners, worlds.subscribe(), stopped, page_file, &mut doors, &mut tasks);
            Some(door)
        }
        None => None,
    };
    let in_drill = in_drill(&arguments, agent.as_ref(), door.as_ref(), name_server.as_ref());
    let drills = agent.as_ref().map(|agent| Drills::new(Arc::clone(agent), placers.subscribe()));
    let admin = Arc::new(Admin {
        me: me.to_owned(),
        roles: arguments.role_names(),
        worlds: worlds.subscribe(),
        refused_reload: refused.subscribe(),
        views: views.clone(),
        placers: placers.subscribe(),
        heard: heard.clone(),
        agent,
        drills,
        registry: registry.clone(),
        link_metrics: LinkMetrics::new(&registry)?,
        store: opened.store.clone(),
        door: door.as_ref().map(|door| Arc::clone(&door.door)),
        store_metrics: StoreMetrics::new(&registry)?,
    });
    serve_admin(&arguments, bound.admin, &admin, &mut tasks)?;
    run_drills(&admin, &mut tasks);
    let follower = Follower {
        placers,
        worlds: worlds.subscribe(),
        refused: refused.subscribe(),
        views,
        heard,
        name_server,
        door,
        metrics: ViewMetrics::new(&registry)?,
        in_drill,
    };
    tasks.spawn(keep_view(admin.views.clone(), view_file));
    tasks.spawn(follower.run());
    tasks.spawn(reload(arguments.clone(), hang_up, files, refused));
    tracing::info!(datacenter = me, roles = ?admin.roles, "serving");

    until_over(&arguments, end, tasks, doors, &stop).await
}

/// What of this process can fail on purpose.
fn in_drill(
    arguments: &RunArguments,
    agent: Option<&Arc<Agent>>,
    door: Option<&OpenDoor>,
    name_server: Option<&NameServer>,
) -> InDrill {
    let door = door.map(|door| Arc::clone(door.door.impaired()));
    let name_server = name_server.map(|server| Arc::clone(server.responder.impaired()));
    let (me, data) = (arguments.datacenter(), arguments.data());
    InDrill::new(me, data, agent.cloned(), door.into_iter().chain(name_server).collect())
}

/// Drills that are heard of, and those that begin by themselves.
fn run_drills(admin: &Arc<Admin>, tasks: &mut Tasks) {
    let Some(drills) = admin.drills.clone() else { return };
    tasks.spawn(async move {
        drills.run().await;
        Ok("drills")
    });
    tasks.spawn(drill::schedule::run(Arc::clone(admin)));
}

/// Answers operators who show the token.
fn serve_admin(
    arguments: &RunArguments,
    listeners: Vec<TcpListener>,
    admin: &Arc<Admin>,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let token_file = arguments.admin_token.clone().unwrap_or_else(|| arguments.data.join("admin.token"));
    let token: Arc<str> = admin::token::read_or_make(&token_file)?.into();
    for listener in listeners {
        let router = admin::router(Arc::clone(admin), Arc::clone(&token));
        tasks.spawn(async move {
            daemun_sync::listen::serve(listener, router).await;
            Ok("admin")
        });
    }
    Ok(())
}

/// Waits for a reason to end, then for what is under way.
async fn until_over(
    arguments: &RunArguments,
    mut signals: EndSignals,
    mut tasks: Tasks,
    mut doors: Doors,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<()> {
    tokio::select! {
        told = until_told(arguments, &mut signals, &mut tasks) => told?,
        Some(ended) = doors.join_next() => {
            ended.context("the gateway")??;
            return Err(anyhow!("the gateway ended, which it never should"));
        }
    }
    tracing::info!("stopping: finishing what is under way");
    stop.send_replace(true);
    tokio::select! {
        _ = doors.join_all() => Ok(()),
        // Told twice: at once.
        told = until_told(arguments, &mut signals, &mut tasks) => told,
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
    tasks: &mut Tasks,
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
