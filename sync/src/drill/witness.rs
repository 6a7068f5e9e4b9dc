//! A witness: synthetic users who resolve the name, fetch page and list, follow it, and write numbered records where they were
//! served. It sees what users see, through packets, and nothing else. Each visit is of somebody who comes anew: nothing is
//! remembered between two, neither answers of name servers nor connections.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemun_fleet::Clock;
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use ipnet::IpNet;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::course::{Course, DoorAt, User};
use super::samples::{Behind, Found, Named, Recorded, Samples, Visit};
use crate::probe::{innermost, system_roots};

/// How long a name server is waited for, as resolvers do.
const RESOLVE: Duration = Duration::from_millis(400);
/// Time between two questions to each name server.
const ASK: Duration = Duration::from_millis(50);
/// A name server that has not answered so many questions in a row is silent.
const SILENT: u32 = 3;
/// Visits under way at once: slow ones must not hold up the others, nor grow without bound.
const UNDER_WAY_MAX: usize = 400;
/// Samples kept for the one who leads: minutes of them.
const KEPT_MAX: usize = 20_000;
/// The most of a page or list that is read.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Tries of a record: where it was served, then where the list says next.
const TRIES_MAX: u32 = 2;

type Written = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Where records go: datacenter, drill, record, durability and patience in; whether somebody may count on it out.
pub trait Sink: Send + Sync {
    /// Writes a record in a datacenter.
    fn write(&self, datacenter: &str, found: Found, patience: Duration) -> Written;
}

/// A sample, as it is kept until it is fetched.
enum Sample {
    Visit(Visit),
    Named(Named),
    Lag(u64, BTreeMap<String, Behind>),
    Event(u64, String, String),
}

#[derive(Default)]
struct Kept {
    samples: VecDeque<Sample>,
    /// Number of the first that is kept.
    first: u64,
    dropped: u64,
}

/// A witness and what it has seen.
pub struct Witness {
    name: String,
    course: Course,
    clock: Clock,
    sink: Arc<dyn Sink>,
    /// Users of this home are asked for at every name server.
    watched: Option<User>,
    /// When it began, milliseconds of Unix time.
    life: u64,
    /// Number of its first visit: above all of an earlier life.
    first: u64,
    is_stopped: AtomicBool,
    under_way: AtomicU64,
    kept: Mutex<Kept>,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Witness {
    /// A witness; `home`: the datacenter whose users are watched at each name server; `begun_unix_ms`: when the drill began.
    pub fn new(
        name: &str,
        course: Course,
        home: Option<&str>,
        begun_unix_ms: u64,
        clock: Clock,
        sink: Arc<dyn Sink>,
    ) -> Arc<Self> {
        let watched = course.users.iter().find(|user| Some(user.home.as_str()) == home).cloned();
        let life = (clock.unix_ms)();
        // No witness visits a thousand times a second.
        let first = life.saturating_sub(begun_unix_ms);
        Arc::new(Self {
            name: name.to_owned(),
            course,
            clock,
            sink,
            watched,
            life,
            first,
            is_stopped: AtomicBool::new(false),
            under_way: AtomicU64::new(0),
            kept: Mutex::default(),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, sample: Sample) {
        let mut kept = self.kept();
        kept.samples.push_back(sample);
        if kept.samples.len() > KEPT_MAX {
            kept.samples.pop_front();
            kept.first += 1;
            kept.dropped += 1;
        }
    }

    /// No more visits begin; those under way go on.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Notes how far the store here is behind the others.
    pub fn note_lags(&self, lags: BTreeMap<String, Behind>) {
        self.keep(Sample::Lag((self.clock.unix_ms)(), lags));
    }

    /// Notes what the agent here decided.
    pub fn note_event(&self, at_unix_ms: u64, about: &str, to: &str) {
        self.keep(Sample::Event(at_unix_ms, about.to_owned(), to.to_owned()));
    }

    /// What it has seen from a sample on; what is before it is let go. `life`: whose samples were counted.
    pub fn samples(&self, life: u64, from: u64) -> Samples {
        let mut kept = self.kept();
        let from = if life == self.life { from } else { 0 };
        while kept.first < from && kept.samples.pop_front().is_some() {
            kept.first += 1;
        }
        let mut samples = Samples {
            next: kept.first,
            dropped: kept.dropped,
            life: self.life,
            // In this order: what begins after this is not there any more.
            is_stopped: self.is_stopped.load(Ordering::Relaxed),
            under_way: self.under_way.load(Ordering::Relaxed),
            ..Samples::default()
        };
        for sample in &kept.samples {
            samples.next += 1;
            match sample {
                Sample::Visit(visit) => samples.visits.push(visit.clone()),
                Sample::Named(named) => samples.named.push(named.clone()),
                Sample::Lag(at, lags) => samples.lags.push((*at, lags.clone())),
                Sample::Event(at, about, to) => samples.events.push((*at, about.clone(), to.clone())),
            }
        }
        samples
    }

    /// Visits until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        for (datacenter, socket) in &self.course.name_servers {
            let watching = Arc::clone(&self).watch(datacenter.clone(), *socket);
            tasks.spawn(watching);
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = match client {
            Ok(client) => client,
            Err(error) => return tracing::error!(%error, "a witness cannot make an HTTP client"),
        };
        let mut visits = JoinSet::new();
        let period = Duration::from_secs(1) / self.course.visits_per_second.max(1);
        // Witnesses are out of step with each other: together they see more moments.
        let (turn, turns) = self.turn();
        sleep(period * turn / turns).await;
        let (mut number, mut user) = (self.first, usize::try_from(turn).unwrap_or(0));
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            while visits.try_join_next().is_some() {}
            let is_stopped = self.is_stopped.load(Ordering::Relaxed);
            if is_stopped || visits.len() >= UNDER_WAY_MAX {
                continue;
            }
            self.under_way.fetch_add(1, Ordering::Relaxed);
            number += 1;
            user = (user + 1) % self.course.users.len();
            let visit = Arc::clone(&self).visit(client.clone(), user, number);
            visits.spawn(visit);
        }
    }

    /// Which of the witnesses it is, of how many: those of the datacenters, and one at a command line.
    fn turn(&self) -> (u32, u32) {
        let mut names: Vec<&String> = self.course.name_servers.iter().map(|(name, _)| name).collect();
        names.dedup();
        let turn = names.iter().position(|name| **name == self.name).unwrap_or(names.len());
        (u32::try_from(turn).unwrap_or(0), u32::try_from(names.len()).unwrap_or(0) + 1)
    }

    /// Asks a name server for the watched users, again and again, and keeps what changes.
    async fn watch(self: Arc<Self>, datacenter: String, socket: SocketAddr) {
        let Some(user) = self.watched.clone() else { return };
        let mut last: Option<Option<String>> = None;
        let (mut silent, mut silent_since) = (0, 0);
        let mut asked_before = (self.clock.unix_ms)();
        let mut ticks = interval(ASK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let begun = (self.clock.unix_ms)();
            let answer = timeout(RESOLVE, resolve(socket, &self.course.name, user.net)).await;
            let sends_to = match answer {
                Ok(Ok(address)) => {
                    silent = 0;
                    self.course.door(address).map(|door| door.datacenter.clone())
                }
                // One lost datagram is nothing.
                _ => {
                    if silent == 0 {
                        silent_since = begun;
                    }
                    silent += 1;
                    if silent < SILENT {
                        continue;
                    }
                    None
                }
            };
            if last.as_ref() != Some(&sends_to) {
                // An answer is of when it came; a silence began with its first question.
                let at_unix_ms = if sends_to.is_some() { (self.clock.unix_ms)() } else { silent_since };
                let within_ms = at_unix_ms.saturating_sub(asked_before);
                last = Some(sends_to.clone());
                let name_server = datacenter.clone();
                self.keep(Sample::Named(Named { at_unix_ms, name_server, sends_to, within_ms }));
            }
            asked_before = begun;
        }
    }

    async fn visit(self: Arc<Self>, client: reqwest::Client, user: usize, number: u64) {
        let Some(user) = self.course.users.get(user).cloned() else { return };
        let begun = (self.clock.monotonic)();
        let mut visit = Visit {
            at_unix_ms: (self.clock.unix_ms)(),
            ms: 0,
            user: user.net.to_string(),
            home: user.home.clone(),
            placed: None,
            served: None,
            failure: None,
            record: None,
        };
        let seen = self.look(&client, &user, &mut visit).await;
        visit.ms =
            u64::try_from((self.clock.monotonic)().saturating_sub(begun).as_millis()).unwrap_or(u64::MAX);
        match seen {
            Ok(next) => {
                visit.record = Some(self.record(number, &visit, next).await);
            }
            Err(why) => visit.failure = Some(why),
        }
        self.keep(Sample::Visit(visit));
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// Name, page, list: the datacenters where to write, best first.
    async fn look(
        &self,
        client: &reqwest::Client,
        user: &User,
        visit: &mut Visit,
    ) -> Result<Vec<String>, String> {
        let mut address = Err("there are no name servers".to_owned());
        // As a resolver in this place does: the own one first, then the others.
        let own = |(datacenter, _): &&(String, SocketAddr)| *datacenter == self.name;
        let servers = &self.course.name_servers;
        for (datacenter, socket) in
            servers.iter().filter(own).chain(servers.iter().filter(|server| !own(server)))
        {
            address = match timeout(RESOLVE, resolve(*socket, &self.course.name, user.net)).await {
                Ok(Ok(address)) => Ok(address),
                Ok(Err(why)) => Err(format!("name server of {datacenter}: {why}")),
                Err(_) => Err(format!("name server of {datacenter}: no answer within {RESOLVE:?}")),
            };
            if address.is_ok() {
                break;
            }
        }
        let address = address?;
        let door =
            self.course.door(address).ok_or_else(|| format!("{address} is no front door of the fleet"))?;
        visit.placed = Some(door.datacenter.clone());
        let page = self
            .fetch(client, door, "/", user)
            .await
            .map_err(|why| format!("page of {}: {why}", door.datacenter))?;
        if page.is_empty() {
            return Err(format!("page of {}: it is empty", door.datacenter));
        }
        let list = self.fetch(client, door, "/v1/servers", user).await;
        let list = list.map_err(|why| format!("list of {}: {why}", door.datacenter))?;
        let list: serde_json::Value =
            serde_json::from_slice(&list).map_err(|error| format!("list of {}: {error}", door.datacenter))?;
        let listed = list["servers"].as_array().cloned().unwrap_or_default();
        let Some(served) = list["door"]["datacenter"].as_str().filter(|_| !listed.is_empty()) else {
            return Err(format!("list of {}: it names no servers", door.datacenter));
        };
        visit.served = Some(served.to_owned());
        let mut order = vec![served.to_owned()];
        for name in listed.iter().filter_map(|server| server["datacenter"].as_str()) {
            if !order.iter().any(|known| known == name) {
                order.push(name.to_owned());
            }
        }
        Ok(order)
    }

    async fn fetch(
        &self,
        client: &reqwest::Client,
        door: &DoorAt,
        path: &str,
        user: &User,
    ) -> Result<Vec<u8>, String> {
        let socket = SocketAddr::new(door.address, door.port);
        let (client, url) = match door.is_tls {
            false => (client.clone(), format!("http://{socket}{path}")),
            true => {
                let roots = system_roots().await?;
                let config =
                    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
                let client = reqwest::Client::builder()
                    .no_proxy()
                    .tls_backend_preconfigured(config)
                    .redirect(reqwest::redirect::Policy::none())
                    .resolve(&self.course.name, socket)
                    .build();
                let url = format!("https://{}:{}{path}", self.course.name, door.port);
                (client.map_err(|error| innermost(&error))?, url)
            }
        };
        let request = client
            .get(url)
            .header("host", &self.course.name)
            // Where the door trusts us it sees the user in our place.
            .header("x-forwarded-for", user.net.hosts().next().unwrap_or(user.net.addr()).to_string())
            .timeout(Duration::from_millis(self.course.patience_ms));
        let mut response = request.send().await.map_err(|error| innermost(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("status {status}"));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(format!("more than {BODY_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Writes a record where the user was served, then where the list says next, as a client does that gets no reply.
    async fn record(&self, number: u64, visit: &Visit, order: Vec<String>) -> Recorded {
        let patience = Duration::from_millis(self.course.patience_ms);
        let mut record = Recorded {
            number,
            acknowledged: None,
            at_unix_ms: visit.at_unix_ms,
            tries: 0,
            failures: Vec::new(),
        };
        for datacenter in order.iter().take(TRIES_MAX as usize) {
            record.tries += 1;
            let found = Found { witness: self.name.clone(), number, attempt: record.tries };
            // A store that says no to a write at once, says so because of its own state: a moment later is another.
            let written = timeout(patience + RESOLVE, self.sink.write(datacenter, found, patience)).await;
            record.at_unix_ms = (self.clock.unix_ms)();
            match written.unwrap_or_else(|_| Err("no reply in time".to_owned())) {
                Ok(()) => {
                    record.acknowledged = Some(datacenter.clone());
                    return record;
                }
                Err(why) => record.failures.push(format!("{datacenter}: {why}")),
            }
            sleep(Duration::from_millis(20)).await;
        }
        record
    }
}

/// Where a name server sends a network.
async fn resolve(server: SocketAddr, name: &str, user: IpNet) -> Result<IpAddr, String> {
    let mut name = Name::from_ascii(name).map_err(|error| error.to_string())?;
    name.set_fqdn(true);
    let mut query = Message::query(); // its id is random
    query.add_query(Query::query(name, RecordType::A));
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new(user.addr(), user.prefix_len(), 0)));
    query.set_edns(edns);
    let packet = query.to_vec().map_err(|error| error.to_string())?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await.map_err(|error| error.to_string())?;
    socket.connect(server).await.map_err(|error| error.to_string())?;
    socket.send(&packet).await.map_err(|error| error.to_string())?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| error.to_string())?;
        let Ok(answer) = Message::from_vec(&buffer[..length]) else { continue };
        if answer.metadata.id != query.metadata.id || answer.queries != query.queries {
            continue;
        }
        let address = answer.answers.iter().find_map(|record| record.data.ip_addr());
        return address
            .ok_or_else(|| format!("answered {} without an address", answer.metadata.response_code));
    }
}
