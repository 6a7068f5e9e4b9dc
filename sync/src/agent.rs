//! The agent's shell: it sends the probes and questions that the [`Core`] asks for, hands in what comes of them, and tells
//! of each new view. No policy.

mod drill;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use daemun_fleet::view::Frontier;
use daemun_fleet::{Clock, Config, FleetView};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use url::Url;

use crate::core::{Answer, Core, Input, Kept, LinkStatus, Moment, Output, TICK};
use crate::drill::drills::Drills;
use crate::gate::{PeersReachable, Watermark};
use crate::history::{Event, History};
use crate::keys::Keys;
use crate::latest::{last_sent, latest, latest_seen};
use crate::orders::Order;
use crate::probe::Target;
use crate::pull::{Ask, Greeting};
use crate::rates::Measured;
use crate::store::engine::Store;
use crate::store::link::Link;
use crate::verbs::{self, Plan, Told};
use crate::{Refusals, Settings, SingleThread, StartError, disk, link, listen, serve};

/// Time between two writes of what is kept, if there is anything new.
const KEEP_PAUSE: Duration = Duration::from_millis(200);

/// Time between two tellings of the store how its peers are.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    me: String,
    core: Mutex<Core>,
    changes: watch::Sender<u64>,
    views: watch::Sender<Arc<FleetView>>,
    history: Mutex<History>,
    facts_file: PathBuf,
    history_file: PathBuf,
    clock: Clock,
    keys: watch::Receiver<Option<Arc<Keys>>>,
    refusals: Refusals,
    probes: IntCounterVec,
    store: Option<Store>,
    drills: OnceLock<Arc<Drills>>,
    is_mute: watch::Sender<bool>,
    /// Servers whose probes fail, and when the first of these ended, milliseconds of Unix time.
    failing: Mutex<BTreeMap<String, u64>>,
}

/// The counter of probes.
///
/// # Errors
/// When the registry has a counter of this name already.
pub fn probe_counter(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let options = Opts::new("daemun_probes_total", "Probes that ended, by server and result.");
    let counter = IntCounterVec::new(options, &["server", "result"])?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// What the config says of probes and peers, ready to use.
struct Work {
    targets: HashMap<(String, IpAddr), Target>,
    peers: HashMap<String, (Url, reqwest::Client)>,
    probe_timeout: Duration,
}

impl Agent {
    /// Reads the last good facts and makes the first view from them.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub fn start(settings: &Settings) -> Result<Arc<Self>, StartError> {
        let config = latest(&settings.configs);
        let facts_file = settings.data_directory.join("facts.json");
        let history_file = settings.data_directory.join("history.json");
        // The peers know our facts; what is broken here we take back from there.
        let kept = or_empty(disk::read::<Kept>(&facts_file))?;
        let history = or_empty(disk::read::<History>(&history_file))?;
        let clock = settings.clock;
        let moment = Moment { now: (clock.monotonic)(), unix_ms: (clock.unix_ms)() };
        let reachable = PeersReachable { needed: config.sync.comeback.catch_up };
        let mut core = Core::new(&settings.me, config, kept, moment);
        if let Some(store) = &settings.store {
            core.set_gate(Box::new(Watermark { reachable, store: store.statuses() }));
        }
        let agent = Self {
            me: settings.me.clone(),
            views: watch::Sender::new(Arc::clone(core.view())),
            core: Mutex::new(core),
            changes: watch::Sender::new(0),
            history: Mutex::new(history),
            facts_file,
            history_file,
            clock,
            keys: settings.keys.clone(),
            refusals: settings.refusals.clone(),
            probes: settings.probes.clone(),
            store: settings.store.clone(),
            drills: OnceLock::new(),
            is_mute: watch::Sender::new(false),
            failing: Mutex::default(),
        };
        // A directory that cannot be written must be known now, not at the first failover.
        disk::write(&agent.facts_file, &agent.lock().kept(moment))?;
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
        // Votes and logs: what the stores say to each other are small messages, many of them.
        let streams = SingleThread::start("agents").map_err(StartError::Thread)?;
        let mut servers = JoinSet::new();
        servers.spawn(Arc::clone(&self).keep());
        for listener in listeners {
            let (keys, refusals) = (self.keys.clone(), self.refusals.clone());
            let door = listen::AgentDoor { keys, fleet: self.config().fleet.name.clone(), refusals };
            let router = serve::router(Arc::clone(&self));
            let serve = |listener| listen::serve_agents(listener, router, door);
            streams.serve(&mut servers, listener, serve).map_err(StartError::Thread)?;
        }
        if let Some(store) = self.store.clone() {
            store.stream_on(streams.handle().clone());
            servers.spawn(Arc::clone(&self).tell_store(store));
        }
        let mut links = self.follow_stores(&streams);
        let mut keys = self.keys.clone();
        let shown = latest_seen(&mut keys);
        let mut work = Work::new(&self.me, &latest_seen::<Arc<_>>(&mut configs), shown.as_deref())?;
        let mut probes: JoinSet<Input> = JoinSet::new();
        let mut asks: JoinSet<Input> = JoinSet::new();
        let mut mute = self.mutes();
        loop {
            if latest_seen(&mut mute) {
                // As a stopped process: what was under way is lost, and when it goes on it knows that it slept.
                probes = JoinSet::new();
                asks = JoinSet::new();
                if mute.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let moment = self.moment();
            let (outputs, wake_at) = {
                let mut core = self.lock();
                (core.poll(moment), core.wake_at())
            };
            for output in outputs {
                self.begin(output, &work, &mut probes, &mut asks);
            }
            let nap = wake_at.saturating_sub(self.moment().now).min(TICK);
            tokio::select! {
                () = tokio::time::sleep(nap) => self.take(Input::Tick),
                Some(ended) = probes.join_next() => {
                    self.take_ended(ended);
                    // All that have ended, before more are begun.
                    while let Some(ended) = probes.try_join_next() {
                        self.take_ended(ended);
                    }
                }
                Some(ended) = asks.join_next() => self.take_ended(ended),
                Ok(()) = mute.changed() => {}
                Ok(()) = keys.changed() => {
                    // What is under way ends as it began.
                    work = Work::new(&self.me, &self.config(), latest_seen(&mut keys).as_deref())?;
                }
                changed = configs.changed() => {
                    if changed.is_err() {
                        return Ok(()); // the process ends
                    }
                    let config = latest_seen(&mut configs);
                    work = Work::new(&self.me, &config, latest_seen(&mut keys).as_deref())?;
                    // Whatever was under way for the old config is of no interest.
                    probes = JoinSet::new();
                    links.abort_all();
                    links = self.follow_stores(&streams);
                    let mut core = self.lock();
                    if core.set_config(config, self.moment()) {
                        self.publish(&mut core);
                    }
                }
            }
        }
    }

    /// Follows the stores of all other datacenters: to a config that has changed, anew.
    fn follow_stores(&self, streams: &SingleThread) -> JoinSet<()> {
        let mut links = JoinSet::new();
        let Some(store) = &self.store else { return links };
        let config = self.config();
        for peer in config.fleet.datacenters.iter().filter(|peer| peer.name != self.me) {
            let link = Link {
                store: store.clone(),
                fleet: config.fleet.name.clone(),
                peer: peer.name.clone(),
                url: peer.agent.clone(),
                keys: self.keys.clone(),
            };
            streams.spawn(&mut links, link.follow());
        }
        links
    }

    /// Tells the store what the agents know: who else there is, who is forgotten, how far clocks are off.
    async fn tell_store(self: Arc<Self>, store: Store) {
        loop {
            let config = self.config();
            let peers = config.fleet.datacenters.iter().map(|peer| peer.name.clone());
            let view = self.view();
            let forgotten = view.datacenters.iter().filter(|(_, datacenter)| datacenter.is_forgotten);
            let forgotten = forgotten.map(|(name, _)| name.clone()).collect();
            let skews = self.links().into_iter().map(|link| {
                let skew = link.clock_ahead_ms.map(|ahead| (ahead, link.clock_error_ms.unwrap_or_default()));
                (link.peer, skew)
            });
            store.set_fleet(peers.collect(), forgotten, skews.collect());
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    /// Begins a probe or a question.
    fn begin(
        self: &Arc<Self>,
        output: Output,
        work: &Work,
        probes: &mut JoinSet<Input>,
        asks: &mut JoinSet<Input>,
    ) {
        match output {
            Output::Probe { server, address } => {
                let Some(target) = work.targets.get(&(server.clone(), address)).cloned() else { return };
                let timeout = work.probe_timeout;
                probes.spawn(async move {
                    let outcome = target.probe(timeout).await;
                    Input::Probed { server, address, old: Duration::ZERO, outcome }
                });
            }
            Output::Ask { peer, ask } => {
                let Some((url, client)) = work.peers.get(&peer).cloned() else { return };
                let fleet = self.config().fleet.name.clone();
                let me = self.me.clone();
                asks.spawn(async move { ask_peer(&client, &url, &fleet, &me, peer, ask).await });
            }
        }
    }

    fn take_ended(&self, ended: Result<Input, JoinError>) {
        match ended {
            Ok(input) => self.take(input),
            // A probe that panicked leaves no outcome; its target's observation grows old, which is seen.
            Err(error) => tracing::error!(%error, "a task of the agent"),
        }
    }

    /// Hands an input to the core; what changed is told.
    pub(crate) fn take(&self, input: Input) {
        // Whatever comes to a stopped process is lost.
        if last_sent(&self.is_mute) {
            return;
        }
        let mut core = self.lock();
        if let Input::Probed { server, address, outcome, .. } = &input
            && core.looks_at(server, *address)
        {
            let result = if outcome.is_ok() { "up" } else { "down" };
            self.note_probe(server, outcome.is_ok());
            self.probes.with_label_values(&[server.as_str(), result]).inc();
        }
        if core.handle(self.moment(), input) {
            self.publish(&mut core);
        }
    }

    /// Tells of the newest view and facts. The disk follows in its own time: a slow one must not hold up a failover, and
    /// no number is used twice without it, as each start begins a new life.
    fn publish(&self, core: &mut Core) {
        let view = Arc::clone(core.view());
        let events = core.take_events();
        for Event { about, from, to, why, generation, .. } in &events {
            tracing::info!(generation, about, from, to, why, "view");
        }
        if !events.is_empty() {
            self.history.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
        }
        self.views.send_replace(view);
        self.changes.send_modify(|change| *change += 1);
    }

    /// Keeps the newest facts and the history on disk until dropped.
    async fn keep(self: Arc<Self>) {
        let mut changes = self.changes();
        let mut history = self.history();
        while changes.changed().await.is_ok() {
            let (file, kept) = (self.facts_file.clone(), self.lock().kept(self.moment()));
            written(tokio::task::spawn_blocking(move || disk::write(&file, &kept)).await);
            let now = self.history();
            if now != history {
                history.clone_from(&now);
                let file = self.history_file.clone();
                written(tokio::task::spawn_blocking(move || disk::write(&file, &now)).await);
            }
            tokio::time::sleep(KEEP_PAUSE).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic while the lock was held was in a pure function on data that is replaced whole.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> Moment {
        Moment { now: (self.clock.monotonic)(), unix_ms: (self.clock.unix_ms)() }
    }

    /// Name of the datacenter.
    pub fn name(&self) -> &str {
        &self.me
    }

    /// The store that it keeps.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
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

    /// How the view came about.
    pub fn history(&self) -> History {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what this datacenter's processes measured.
    pub fn measured(&self, node: &str, measured: Measured) {
        self.take(Input::Measured { node: node.to_owned(), measured });
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn keys(&self) -> Option<Arc<Keys>> {
        latest(&self.keys)
    }

    /// What an operator's word would do; nothing is done yet.
    ///
    /// # Errors
    /// What is wrong with the word itself.
    pub fn plan(&self, told: &Told) -> Result<Plan, verbs::Wrong> {
        verbs::plan(&self.lock(), told, self.moment())
    }

    /// Does it, unless the fleet has changed since it was planned: then `false`.
    pub fn carry_out(&self, plan: &Plan, order: Order) -> bool {
        let mut core = self.lock();
        // Rates change all the time; what the plan goes by are states and words.
        if !verbs::is_current(&core, plan) {
            return false;
        }
        if core.handle(self.moment(), Input::Order(order)) {
            self.publish(&mut core);
        }
        true
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(self.lock().config())
    }

    /// How many processes of this datacenter look, this one included.
    pub fn eyes(&self) -> u32 {
        self.lock().eyes()
    }

    /// The answer to a question that came at some moment: `is_last` when it can be held no longer.
    pub(crate) fn answer(&self, after: &Frontier, received_unix_ms: u64, is_last: bool) -> Option<Answer> {
        let core = self.lock();
        let found = core.answer(after);
        let (batch, left) = if is_last { found.or_else(|| Some(core.answer_anyway(after))) } else { found }?;
        let greeting = Greeting {
            datacenter: self.me.clone(),
            config_digest: core.config().digest.clone(),
            received_unix_ms,
            sent_unix_ms: (self.clock.unix_ms)(),
        };
        Some(Answer { greeting, batch, left })
    }

    pub(crate) fn unix_ms(&self) -> u64 {
        (self.clock.unix_ms)()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Work {
    fn new(me: &str, config: &Config, keys: Option<&Keys>) -> Result<Self, StartError> {
        let fleet = &config.fleet;
        let mut targets = HashMap::new();
        for server in &fleet.servers {
            for (address, target) in Target::all(server, &fleet.datacenters[server.datacenter].name) {
                targets.insert((server.name.clone(), address), target);
            }
        }
        let mut peers = HashMap::new();
        for peer in fleet.datacenters.iter().filter(|datacenter| datacenter.name != me) {
            let client = link::client(keys, &peer.name, &fleet.name)?;
            peers.insert(peer.name.clone(), (peer.agent.clone(), client));
        }
        Ok(Self { targets, peers, probe_timeout: config.sync.probe.timeout })
    }
}

/// One question, and what came of it.
async fn ask_peer(
    client: &reqwest::Client,
    url: &Url,
    fleet: &str,
    me: &str,
    peer: String,
    ask: Ask,
) -> Input {
    let number = ask.number;
    match link::ask(client, url, fleet, me, &ask).await {
        Ok(answer) if answer.greeting.datacenter != peer => {
            let why =
                format!("{url} is the agent of `{}`: check `agent` of {peer}", answer.greeting.datacenter);
            Input::Failed { peer, number, why }
        }
        Ok(answer) => Input::Answered { peer, number, answer },
        Err(why) => Input::Failed { peer, number, why },
    }
}

fn or_empty<T: Default>(read: Result<Option<T>, disk::DiskError>) -> Result<T, StartError> {
    match read {
        Ok(found) => Ok(found.unwrap_or_default()),
        Err(error @ disk::DiskError::Parse { .. }) => {
            tracing::warn!(%error, "starting without it");
            Ok(T::default())
        }
        Err(error) => Err(error.into()),
    }
}

fn written(result: Result<Result<(), disk::DiskError>, JoinError>) {
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "keeping the facts"),
        Err(error) => tracing::error!(%error, "keeping the facts"),
    }
}
