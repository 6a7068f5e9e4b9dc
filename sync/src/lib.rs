//! The agent: probes every front door, tells its peers what it sees as facts, and folds all facts into the fleet view.
//!
//! [`core`] is the agent without its shell, [`health`] the detector, [`facts`] what agents tell each other, [`judge`]
//! the fold. The shell is [`Agent`]: it probes, pulls, serves and keeps the last good on disk.

pub mod core;
pub mod disk;
pub mod facts;
mod follow;
pub mod health;
pub mod judge;
pub mod keys;
mod latest;
mod link;
pub mod listen;
mod probe;
mod refusals;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daemun_fleet::view::Frontier;
use daemun_fleet::{Clock, Config, FleetView};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::core::{Core, Input, LinkStatus};
use crate::facts::{Batch, Facts};
use crate::keys::Keys;

pub use follow::follow;
pub use latest::{last_sent, latest, latest_seen};
pub use refusals::{Refusal, Refusals};

/// What an agent starts from.
#[derive(Debug)]
pub struct Settings {
    /// Name of the datacenter it runs in.
    pub me: String,
    /// The config, and every later one.
    pub configs: watch::Receiver<Arc<Config>>,
    /// Where it keeps its facts.
    pub data_directory: PathBuf,
    /// Where it gets its time from.
    pub clock: Clock,
    /// What it shows the other agents, and every later ones; `None`: they speak plain HTTP.
    pub keys: watch::Receiver<Option<Arc<Keys>>>,
    /// Counts who is not let in.
    pub refusals: Refusals,
}

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its facts could not be read or kept.
    #[error("sync: {0}")]
    Disk(disk::DiskError),
    /// Its address could not be had.
    #[error("sync: cannot listen on {address}: {error}; `ss -tlpn 'sport = :{}'` shows who has it", address.port())]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// No HTTP client could be made.
    #[error("sync: cannot make an HTTP client")]
    Client(#[from] reqwest::Error),
    /// The TLS library refused the keys.
    #[error("sync: cannot make a TLS client")]
    Tls(#[from] rustls::Error),
}

impl From<disk::DiskError> for StartError {
    fn from(error: disk::DiskError) -> Self {
        StartError::Disk(error)
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    me: String,
    core: Mutex<Core>,
    changes: watch::Sender<u64>,
    views: watch::Sender<Arc<FleetView>>,
    facts_file: PathBuf,
    clock: Clock,
    keys: watch::Receiver<Option<Arc<Keys>>>,
    refusals: Refusals,
}

impl Agent {
    /// Reads the last good facts and makes the first view from them.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub fn start(settings: &Settings) -> Result<Arc<Self>, StartError> {
        let config = latest(&settings.configs);
        let facts_file = settings.data_directory.join("facts.json");
        let facts = match disk::read::<Batch>(&facts_file) {
            Ok(batch) => {
                let mut facts = Facts::default();
                facts.merge(&batch.unwrap_or_default());
                facts
            }
            Err(error @ disk::DiskError::Parse { .. }) => {
                // The peers know our facts; we take them back from there.
                tracing::warn!(%error, "starting without the facts on disk");
                Facts::default()
            }
            Err(error) => return Err(error.into()),
        };
        let core = Core::new(&settings.me, config, facts, (settings.clock.monotonic)());
        let agent = Self {
            me: settings.me.clone(),
            views: watch::Sender::new(Arc::clone(core.view())),
            core: Mutex::new(core),
            changes: watch::Sender::new(0),
            facts_file,
            clock: settings.clock,
            keys: settings.keys.clone(),
            refusals: settings.refusals.clone(),
        };
        // A directory that cannot be written must be known now, not at the first failover.
        disk::write(&agent.facts_file, &agent.facts_after(&Frontier::default()))?;
        Ok(Arc::new(agent))
    }

    /// Binds the API's listeners.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
        let mut listeners = Vec::new();
        for &address in addresses {
            let bound = TcpListener::bind(address).await;
            listeners.push(bound.map_err(|error| StartError::Listen { address, error })?);
        }
        Ok(listeners)
    }

    /// Probes, pulls and serves until dropped.
    ///
    /// # Errors
    /// When no client can be made.
    pub async fn run(
        self: Arc<Self>,
        listeners: Vec<TcpListener>,
        mut configs: watch::Receiver<Arc<Config>>,
    ) -> Result<(), StartError> {
        let mut servers = JoinSet::new();
        servers.spawn(Arc::clone(&self).keep());
        for listener in listeners {
            let (keys, refusals) = (self.keys.clone(), self.refusals.clone());
            let door = listen::AgentDoor { keys, fleet: self.config().fleet.name.clone(), refusals };
            servers.spawn(listen::serve_agents(listener, serve::router(Arc::clone(&self)), door));
        }
        let mut keys = self.keys.clone();
        loop {
            let config = latest_seen(&mut configs);
            let work = self.work(&config, latest_seen(&mut keys).as_deref())?;
            let changed = tokio::select! {
                changed = configs.changed() => changed,
                Ok(()) = keys.changed() => continue, // the same work, with the new keys
            };
            if changed.is_err() {
                work.join_all().await;
                return Ok(());
            }
            drop(work); // ends all probes and pulls of the old config
            let config = latest(&configs);
            let mut core = self.lock();
            if core.set_config(config, (self.clock.monotonic)()) {
                self.publish(&core);
            }
        }
    }

    /// One task for each server and each peer.
    fn work(self: &Arc<Self>, config: &Config, keys: Option<&Keys>) -> Result<JoinSet<()>, StartError> {
        let mut work = JoinSet::new();
        for server in &config.fleet.servers {
            if let Some(prober) = probe::Prober::new(server, config.sync.probe.timeout)? {
                work.spawn(Arc::clone(self).watch_server(server.name.clone(), prober, config.sync.probe));
            }
        }
        for peer in config.fleet.datacenters.iter().filter(|datacenter| datacenter.name != self.me) {
            let client = link::client(keys, &peer.name, &config.fleet.name)?;
            work.spawn(link::pull(Arc::clone(self), peer.name.clone(), peer.agent.clone(), client));
        }
        Ok(work)
    }

    /// Probes one server at the pace that its detector asks for.
    async fn watch_server(
        self: Arc<Self>,
        server: String,
        prober: probe::Prober,
        settings: daemun_fleet::config::Probe,
    ) {
        let mut under_way = JoinSet::new();
        let due = tokio::time::sleep(std::time::Duration::ZERO);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => {
                    under_way.spawn(prober.clone().probe());
                    let gap = self.lock().probe_gap(&server, &settings);
                    due.set(tokio::time::sleep(gap));
                }
                Some(ended) = under_way.join_next() => {
                    let outcome = ended.unwrap_or_else(|error| Err(format!("the probe itself failed: {error}")));
                    self.take(Input::Probed { server: server.clone(), outcome });
                    if self.lock().begins_burst(&server) {
                        due.set(tokio::time::sleep(std::time::Duration::ZERO));
                    }
                }
            }
        }
    }

    /// Hands an input to the core; what changed is kept on disk first, then told.
    fn take(&self, input: Input) {
        let mut core = self.lock();
        if core.handle((self.clock.monotonic)(), (self.clock.unix_ms)(), input) {
            self.publish(&core);
        }
    }

    /// Tells of the newest view and facts. The disk follows in its own time: a slow one must not hold up a failover, and
    /// no number is used twice without it, as each start begins a new life.
    fn publish(&self, core: &Core) {
        let view = Arc::clone(core.view());
        tracing::info!(generation = view.generation, fail_open = view.fail_open, states = %states(&view), "view");
        self.views.send_replace(view);
        self.changes.send_modify(|change| *change += 1);
    }

    /// Keeps the newest facts on disk until dropped.
    async fn keep(self: Arc<Self>) {
        let mut changes = self.changes();
        while changes.changed().await.is_ok() {
            let (file, facts) = (self.facts_file.clone(), self.facts_after(&Frontier::default()));
            match tokio::task::spawn_blocking(move || disk::write(&file, &facts)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "keeping the facts"),
                Err(error) => tracing::error!(%error, "keeping the facts"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic while the lock was held was in a pure function on data that is replaced whole.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name of the datacenter.
    pub fn name(&self) -> &str {
        &self.me
    }

    /// The newest view.
    pub fn view(&self) -> Arc<FleetView> {
        Arc::clone(self.lock().view())
    }

    /// The newest view, and every later one.
    pub fn views(&self) -> watch::Receiver<Arc<FleetView>> {
        self.views.subscribe()
    }

    /// The links to the peers.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.lock().links()
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(self.lock().config())
    }

    fn frontier(&self) -> Frontier {
        self.lock().facts().frontier()
    }

    fn facts_after(&self, frontier: &Frontier) -> Batch {
        self.lock().facts().after(frontier)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn states(view: &FleetView) -> String {
    let one = |(name, datacenter): (&String, &daemun_fleet::view::DatacenterView)| {
        format!("{name} {}", datacenter.state)
    };
    view.datacenters.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
