//! For a name server or a door that runs apart from its datacenter's agent: it looks too, in turn with the others, and what it
//! sees and measures goes to the agent, whose vote is the datacenter's. The agent alone decides: what one pair of eyes
//! fails to see makes it look itself.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemun_fleet::{Clock, Config};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use url::Url;

use crate::keys::Keys;
use crate::latest::latest;
use crate::probe::Target;
use crate::rates::Measured;
use crate::serve::{Report, Reported, SEEN_MAX, Seen};
use crate::{StartError, link};

/// Time between two reports while nothing has failed.
const REPORT: Duration = Duration::from_secs(1);
/// How long the agent may take to answer one.
const PATIENCE: Duration = Duration::from_secs(2);
/// Moments within a gap at which looking may begin.
const PHASES: u32 = 64;
/// Reports without an answer after which it no longer looks: nobody would know of it.
const UNANSWERED_MAX: u32 = 3;

/// What was seen since the last report, each with its moment.
#[derive(Debug, Default)]
struct Notes {
    seen: Mutex<Vec<(Duration, Seen)>>,
    failed: Notify,
}

impl Notes {
    fn add(&self, now: Duration, one: Seen) {
        let is_failure = one.why.is_some();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((now, one));
        if is_failure {
            self.failed.notify_one();
        }
    }

    fn take(&self, now: Duration) -> Vec<Seen> {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        // While nobody listens the oldest go.
        let over = seen.len().saturating_sub(SEEN_MAX);
        seen.drain(..over);
        let aged = |(at, one): (Duration, Seen)| {
            let old = now.saturating_sub(at).as_millis();
            Seen { old_ms: u64::try_from(old).unwrap_or(u64::MAX), ..one }
        };
        seen.into_iter().map(aged).collect()
    }
}

/// Looks, measures and reports to the agent of datacenter `me` as `node` until dropped.
///
/// # Errors
/// When no client can be made.
pub async fn look(
    me: &str,
    node: &str,
    configs: watch::Receiver<Arc<Config>>,
    keys: watch::Receiver<Option<Arc<Keys>>>,
    clock: Clock,
    mut measured: impl FnMut() -> Measured + Send,
) -> Result<(), StartError> {
    let seen: Arc<Notes> = Arc::default();
    let mut looking = JoinSet::new();
    let mut looked_for: Option<(String, u32)> = None;
    let mut unanswered = 0;
    loop {
        let config = latest(&configs);
        let Some(number) = config.fleet.datacenter(me) else { return Ok(()) };
        let client = link::client(latest(&keys).as_deref(), me, &config.fleet.name)?;
        let report = Report {
            fleet: config.fleet.name.clone(),
            node: node.to_owned(),
            seen: seen.take((clock.monotonic)()),
            measured: measured(),
        };
        match send(&client, &config.fleet.datacenters[number].agent, &report).await {
            Ok(Reported { eyes }) => {
                unanswered = 0;
                let wanted = Some((config.digest.clone(), eyes));
                if looked_for != wanted {
                    looked_for = wanted;
                    looking = look_at_all(&config, node, eyes, clock, &seen);
                }
            }
            Err(why) => {
                tracing::debug!(why, "reporting to the agent");
                unanswered += 1;
                if unanswered >= UNANSWERED_MAX {
                    looking = JoinSet::new();
                    looked_for = None;
                }
            }
        }
        // A failure is told at once.
        let _ = tokio::time::timeout(REPORT, seen.failed.notified()).await;
        while looking.try_join_next().is_some() {}
    }
}

async fn send(client: &reqwest::Client, agent: &Url, report: &Report) -> Result<Reported, String> {
    let url = agent.join("/v1/report").map_err(|error| error.to_string())?;
    link::read(client.post(url.clone()).json(report).timeout(PATIENCE), &url).await
}

/// One task for each target, each in turn with `eyes` observers in all.
fn look_at_all(config: &Config, node: &str, eyes: u32, clock: Clock, seen: &Arc<Notes>) -> JoinSet<()> {
    let mut looking = JoinSet::new();
    let probe = config.sync.probe;
    let gap = probe.interval * eyes.max(1);
    for server in &config.fleet.servers {
        // Front doors only: whatever else there is the agent looks at within its budget.
        if server.role != daemun_fleet::config::DOOR_ROLE {
            continue;
        }
        for (address, target) in Target::all(server, &config.fleet.datacenters[server.datacenter].name) {
            let (server, seen) = (server.name.clone(), Arc::clone(seen));
            let clock = clock.monotonic;
            // Each begins at another moment, so that they do not look all at once and then not at all.
            let mut hasher = DefaultHasher::new();
            (node, &server, address).hash(&mut hasher);
            let phase = u32::try_from(hasher.finish() % u64::from(PHASES)).unwrap_or(0);
            looking.spawn(async move {
                tokio::time::sleep(gap / PHASES * phase).await;
                loop {
                    let begun = clock();
                    let why = target.probe(probe.timeout).await.err();
                    seen.add(clock(), Seen { server: server.clone(), address, old_ms: 0, why });
                    tokio::time::sleep(gap.saturating_sub(clock().saturating_sub(begun))).await;
                }
            });
        }
    }
    looking
}
