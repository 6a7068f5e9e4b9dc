//! The drills of one agent, as far as they take sockets: it begins a witness when it hears of a drill, and leads one if the
//! word says that it is to.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemun_fleet::drill::Target;
use daemun_fleet::placement::Placer;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::course::Course;
use super::observed::SUSPECTED;
use super::plan::Ready;
use super::records;
use super::report::Ended;
use super::samples::{Behind, Found, Samples};
use super::talk::{Asked, HandedIn, PATIENCE, Peers, ToWrite};
use super::witness::{Sink, Witness};
use super::word::{Stage, Word};
use crate::Agent;
use crate::latest::{latest, latest_seen};
use crate::orders::Order;
use crate::store::replica::Stage as Known;

/// Something is looked at so often, whatever happens.
const LOOK: Duration = Duration::from_millis(200);
/// A witness whose drill is never closed ends so long after its return could have taken.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Between two notes of how far the store is behind.
const NOTE: Duration = Duration::from_millis(250);
/// Samples handed in that wait for the next round.
const HANDED_IN_MAX: usize = 100;
/// The most lines of progress that are kept.
const LINES_MAX: usize = 2000;

/// How a drill that is led here goes, for who watches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Which; empty: none was led here yet.
    pub id: String,
    /// Its stage, for people.
    pub stage: String,
    /// When the faults end at the latest, milliseconds from now; none: nothing fails.
    pub left_ms: Option<u64>,
    /// What has happened: number, milliseconds of Unix time, text. Those from the number asked for.
    pub lines: Vec<(u64, u64, String)>,
    /// By witness: visits of the last ten seconds that went well, and that failed.
    pub witnesses: BTreeMap<String, (u64, u64)>,
    /// By datacenter: visits of the last ten seconds that it served.
    pub served: BTreeMap<String, u64>,
    /// State of each datacenter.
    pub states: BTreeMap<String, String>,
    /// Records acknowledged so far, and tries that failed.
    pub records: (u64, u64),
    /// Witnesses are to stop: what was written is counted.
    pub is_counting: bool,
    /// The report is in the store.
    pub is_reported: bool,
}

/// The witness that visits, or did last.
struct Witnessing {
    id: String,
    witness: Arc<Witness>,
}

/// The drills of an agent.
pub struct Drills {
    pub(super) agent: Arc<Agent>,
    placers: watch::Receiver<Arc<Placer>>,
    witness: Mutex<Option<Witnessing>>,
    progress: Mutex<Progress>,
    leads: Mutex<Option<String>>,
    /// What witnesses at command lines have seen, by whom it was handed in and how far their clocks are ahead.
    handed_in: Mutex<Vec<HandedIn>>,
}

impl std::fmt::Debug for Drills {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Drills")
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drills {
    /// The drills of an agent; from now on it answers others about them.
    pub fn new(agent: Arc<Agent>, placers: watch::Receiver<Arc<Placer>>) -> Arc<Self> {
        let drills = Arc::new(Self {
            agent: Arc::clone(&agent),
            placers,
            witness: Mutex::default(),
            progress: Mutex::default(),
            leads: Mutex::default(),
            handed_in: Mutex::default(),
        });
        agent.set_drills(Arc::clone(&drills));
        drills
    }

    /// Takes its part in drills until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut changes = self.agent.changes();
        let mut visiting: JoinSet<()> = JoinSet::new();
        let mut leading: JoinSet<()> = JoinSet::new();
        let mut led = String::new();
        let mut ends_at: Option<Duration> = None;
        loop {
            let now = (self.agent.clock().monotonic)();
            let drill = self.agent.drill().filter(|(_, word)| !matches!(word.stage, Stage::Closed(_)));
            // Who begins after the end has nothing to see.
            if let Some((order, word)) = &drill
                && word.binds()
                && self.is_new(&word.id)
            {
                visiting = JoinSet::new();
                self.begin(order, word, &mut visiting);
                let scenario = &word.scenario;
                let all = scenario.baseline_ms + scenario.fails_for_ms() + scenario.recover_ms;
                ends_at = Some(now + Duration::from_millis(all) + FORGOTTEN);
            }
            if drill.is_none() || ends_at.is_some_and(|at| now >= at) {
                visiting.abort_all();
                ends_at = None;
            }
            if let Some((order, word)) = drill
                && word.conductor == self.agent.name()
                && led != word.id
                && self.is_worth_leading(&order, &word)
            {
                led.clone_from(&word.id);
                *guard(&self.leads) = Some(word.id.clone());
                leading.spawn(Arc::clone(&self).lead(order, word));
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                Some(_) = leading.join_next() => if leading.is_empty() {
                    *guard(&self.leads) = None;
                    guard(&self.handed_in).clear();
                },
                () = sleep(LOOK) => {}
            }
            while visiting.try_join_next().is_some() {}
            if latest(&self.agent.mutes()) {
                self.listen().await;
            }
        }
    }

    /// An end that was long ago, as of a leader that was away for days, makes no report.
    fn is_worth_leading(&self, order: &Order, word: &Word) -> bool {
        let scenario = &word.scenario;
        let lasts = order.for_ms.unwrap_or(0) + scenario.fails_for_ms() + scenario.recover_ms;
        let age = (self.agent.clock().unix_ms)().saturating_sub(order.at_unix_ms);
        let is_worth = age <= lasts.saturating_mul(2);
        if !is_worth {
            self.agent.close_drill(&word.id);
        }
        is_worth
    }

    fn is_new(&self, id: &str) -> bool {
        guard(&self.witness).as_ref().is_none_or(|known| known.id != id)
    }

    /// Begins to witness a drill.
    fn begin(self: &Arc<Self>, order: &Order, word: &Word, tasks: &mut JoinSet<()>) {
        let course = match self.course(word) {
            Ok(course) => course,
            Err(why) => return tracing::error!(why, drill = word.id, "no witness of this drill"),
        };
        let sink = Records {
            drills: Arc::clone(self),
            peers: Peers::of(&self.agent),
            id: word.id.clone(),
            durability: word.scenario.durability.clone(),
        };
        let (me, clock) = (self.agent.name(), self.agent.clock());
        let witness =
            Witness::new(me, course, word.target.datacenter(), order.at_unix_ms, clock, Arc::new(sink));
        tracing::info!(drill = word.id, "a witness of a drill");
        *guard(&self.witness) = Some(Witnessing { id: word.id.clone(), witness: Arc::clone(&witness) });
        tasks.spawn(Arc::clone(&witness).run());
        tasks.spawn(Arc::clone(self).note(witness, word.target.clone(), order.at_unix_ms));
    }

    /// What witnesses of a drill go by.
    ///
    /// # Errors
    /// Why nobody could visit.
    pub fn course(&self, word: &Word) -> Result<Course, String> {
        let (config, placer) = (self.agent.config(), self.placer());
        Course::of(&config, &placer, &word.scenario, config.drill.name.as_deref())
    }

    /// The placement in use.
    pub fn placer(&self) -> Arc<Placer> {
        latest(&self.placers)
    }

    /// Notes beside the visits how far the store here is behind, and what the agent here sees and decides.
    async fn note(self: Arc<Self>, witness: Arc<Witness>, target: Target, since_unix_ms: u64) {
        let config = self.agent.config();
        let is_of_target = |server: &str| {
            let known = config.fleet.servers.iter().find(|known| known.name == server);
            let name = known.map(|known| config.fleet.datacenters[known.datacenter].name.as_str());
            name.is_some() && name == target.datacenter()
        };
        let history = self.agent.history();
        let before = history.events.iter().take_while(|event| event.at_unix_ms < since_unix_ms).count();
        let mut seen = history.dropped + before as u64;
        let mut failing: BTreeMap<String, u64> = BTreeMap::new();
        loop {
            if let Some(store) = self.agent.store() {
                let status = store.status();
                let lags = status.lags.iter().map(|lag| {
                    let is_known = lag.stage == Known::Known;
                    (lag.datacenter.clone(), Behind { ms: lag.behind_ms, is_known })
                });
                witness.note_lags(lags.collect());
            }
            let now_failing = self.agent.failing();
            let news = now_failing.iter().filter(|(server, at)| failing.get(*server) != Some(at));
            for (server, at) in news.filter(|(server, _)| is_of_target(server)) {
                witness.note_event(*at, server, SUSPECTED);
            }
            failing = now_failing;
            let history = self.agent.history();
            let skip = usize::try_from(seen.saturating_sub(history.dropped)).unwrap_or(usize::MAX);
            for event in history.events.iter().skip(skip) {
                witness.note_event(event.at_unix_ms, &event.about, &event.to);
            }
            seen = history.dropped + history.events.len() as u64;
            sleep(NOTE).await;
        }
    }

    /// While the agent is silenced it hears nothing of the end but this way.
    async fn listen(&self) {
        let Some((_, word)) = self.agent.drill() else { return };
        let peers = Peers::of(&self.agent);
        let mut mute = self.agent.mutes();
        while latest_seen(&mut mute) {
            for peer in peers.names() {
                let said: Result<Option<Word>, String> =
                    peers.ask(peer, "/v1/drill/word", Asked::default(), PATIENCE).await;
                let Ok(Some(said)) = said else { continue };
                match said.stage.outcome() {
                    Some(outcome) if said.id == word.id => {
                        self.agent.end_drill(&word.id, outcome.ended, &outcome.why);
                    }
                    _ if said.id > word.id => {
                        self.agent.end_drill(&word.id, Ended::Aborted, "another drill has begun since");
                    }
                    _ => {}
                }
            }
            tokio::select! {
                changed = mute.changed() => if changed.is_err() { return },
                () = sleep(LOOK) => {}
            }
        }
    }

    /// How the agent and its store are.
    pub(crate) fn ready(&self) -> Ready {
        let store = self.agent.store();
        Ready {
            store: store.map(|store| (*store.status()).clone()),
            no_store: if store.is_some() { String::new() } else { "it has none".to_owned() },
            leads: guard(&self.leads).clone(),
        }
    }

    /// What the witness of a drill here has seen.
    pub(crate) fn samples(&self, id: &str, life: u64, from: u64, is_last: bool) -> Option<Samples> {
        let witness = guard(&self.witness);
        let known = witness.as_ref().filter(|known| known.id == id)?;
        if is_last {
            known.witness.stop();
        }
        Some(known.witness.samples(life, from))
    }

    /// How the drill that is led here goes, with its lines from a number on.
    pub fn progress(&self, from: u64) -> Progress {
        let mut progress = guard(&self.progress).clone();
        progress.lines.retain(|(number, ..)| *number >= from);
        progress
    }

    pub(super) fn show(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = guard(&self.progress);
        change(&mut progress);
        let over = progress.lines.len().saturating_sub(LINES_MAX);
        progress.lines.drain(..over);
    }

    /// How the drill that is under way goes, asked of who leads it.
    ///
    /// # Errors
    /// Why that one does not say.
    pub async fn progress_of(&self, conductor: &str, from: u64) -> Result<Progress, String> {
        if conductor == self.agent.name() {
            return Ok(self.progress(from));
        }
        let asked = Asked { from, ..Asked::default() };
        Peers::of(&self.agent).ask(conductor, "/v1/drill/progress", asked, PATIENCE).await
    }

    /// Ends the drill that is under way, if there is one.
    pub fn abort(&self, why: &str) -> Option<String> {
        let (_, word) = self.agent.drill().filter(|(_, word)| word.binds())?;
        self.agent.end_drill(&word.id, Ended::Aborted, why).then_some(word.id)
    }

    /// Writes a record in a datacenter for a witness that is no agent.
    ///
    /// # Errors
    /// Why nobody may count on it.
    pub async fn record(
        &self,
        datacenter: &str,
        id: &str,
        found: Found,
        durability: String,
        patience: Duration,
    ) -> Result<(), String> {
        if !self.is_under_way(id) {
            return Err("this drill is not under way".to_owned());
        }
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let write = ToWrite { fleet: String::new(), id: id.to_owned(), found, durability, patience_ms };
        self.write(&Peers::of(&self.agent), datacenter, write).await
    }

    /// Hands what a witness at a command line has seen to who leads the drill; its clock is so far ahead of ours.
    ///
    /// # Errors
    /// Why it did not get there.
    pub async fn hand_in(&self, id: &str, samples: Samples, ahead_ms: i64) -> Result<(), String> {
        let (_, word) =
            self.agent.drill().filter(|(_, word)| word.id == id).ok_or("there is no such drill")?;
        let by = self.agent.name().to_owned();
        let handed = HandedIn { fleet: String::new(), id: id.to_owned(), by, samples, ahead_ms };
        if word.conductor == self.agent.name() {
            return self.take(handed);
        }
        Peers::of(&self.agent).hand_in(&word.conductor, handed).await
    }

    /// Whether a drill is the newest, and not over for good.
    pub(super) fn is_under_way(&self, id: &str) -> bool {
        self.agent.drill().is_some_and(|(_, word)| word.id == id && !matches!(word.stage, Stage::Closed(_)))
    }

    /// Takes in what a witness at a command line has seen.
    ///
    /// # Errors
    /// When this drill is not led here, or too much is waiting.
    pub(super) fn take(&self, handed: HandedIn) -> Result<(), String> {
        if guard(&self.leads).as_ref() != Some(&handed.id) {
            return Err("this drill is not led here".to_owned());
        }
        let mut all = guard(&self.handed_in);
        if all.len() >= HANDED_IN_MAX {
            return Err("too much is waiting already".to_owned());
        }
        all.push(handed);
        Ok(())
    }

    pub(super) fn take_handed_in(&self) -> Vec<HandedIn> {
        std::mem::take(&mut *guard(&self.handed_in))
    }

    /// Writes a record in a datacenter, here or there.
    pub(super) async fn write(&self, peers: &Peers, datacenter: &str, write: ToWrite) -> Result<(), String> {
        if datacenter != self.agent.name() {
            return peers.write(datacenter, write).await;
        }
        // A stopped process takes nothing.
        if latest(&self.agent.mutes()) {
            return Err("the agent does not answer".to_owned());
        }
        let store = self.agent.store().cloned().ok_or("it has no store")?;
        let patience = Duration::from_millis(write.patience_ms);
        records::write(&store, &write.id, &write.found, &write.durability, patience).await
    }
}

/// Records go to the store of the datacenter that served.
struct Records {
    drills: Arc<Drills>,
    peers: Peers,
    id: String,
    durability: String,
}

impl Sink for Records {
    fn write(
        &self,
        datacenter: &str,
        found: Found,
        patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        let (drills, peers, datacenter) =
            (Arc::clone(&self.drills), self.peers.clone(), datacenter.to_owned());
        let write = ToWrite {
            fleet: String::new(),
            id: self.id.clone(),
            found,
            durability: self.durability.clone(),
            patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        };
        Box::pin(async move { drills.write(&peers, &datacenter, write).await })
    }
}
