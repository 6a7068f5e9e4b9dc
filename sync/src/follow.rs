//! For a process without an agent of its own: the view, by long poll from an agent, the own datacenter's first. When
//! no agent answers, nothing happens: the last view stays.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::{Config, FleetView};
use tokio::sync::watch;

use crate::keys::Keys;
use crate::latest::{last_sent, latest_seen};
use crate::serve::{Asked, write_frontier};
use crate::{StartError, link};

/// How long an agent may hold a poll.
const POLL: Duration = Duration::from_secs(2);
/// An agent that has said nothing for so long after that has failed; then the next is asked.
const GRACE: Duration = Duration::from_millis(800);
/// Pause after an answer, so that an agent that answers at once does not keep a core busy.
const BREATH: Duration = Duration::from_millis(20);
/// Rounds without an answer from any agent after which what is known counts as old: at least two seconds.
const ROUNDS_UNHEARD_MAX: u32 = 4;
/// Pause when no agent answered.
const RETRY: Duration = Duration::from_millis(500);

/// Follows the agents until dropped, showing them `keys` if there are any; each newer view goes to `views`, and whether
/// any agent is heard to `heard`.
///
/// # Errors
/// When no client can be made.
pub async fn follow(
    me: &str,
    mut configs: watch::Receiver<Arc<Config>>,
    mut keys: watch::Receiver<Option<Arc<Keys>>>,
    views: watch::Sender<Arc<FleetView>>,
    heard: watch::Sender<bool>,
) -> Result<(), StartError> {
    let mut clients: HashMap<String, reqwest::Client> = HashMap::new();
    let mut rounds_unheard = 0;
    loop {
        let config = latest_seen(&mut configs);
        if keys.has_changed().unwrap_or(false) {
            clients.clear();
        }
        let keys = latest_seen(&mut keys);
        let mut agents: Vec<_> = config.fleet.datacenters.iter().collect();
        agents.sort_by_key(|datacenter| datacenter.name != me);
        let mut answered = false;
        for datacenter in agents {
            let Ok(url) = datacenter.agent.join("/v1/view") else { continue };
            let asked = Asked {
                fleet: config.fleet.name.clone(),
                from: String::new(),
                after: write_frontier(&last_sent(&views).frontier),
                wait_ms: u64::try_from(POLL.as_millis()).unwrap_or(u64::MAX),
            };
            let client = match clients.entry(datacenter.name.clone()) {
                Entry::Occupied(made) => made.into_mut(),
                Entry::Vacant(place) => {
                    place.insert(link::client(keys.as_deref(), &datacenter.name, &config.fleet.name)?)
                }
            };
            match link::fetch::<FleetView>(client, url, &asked, POLL + GRACE).await {
                Ok(view) => {
                    views.send_if_modified(|current| {
                        let newer = current.is_superseded_by(&view);
                        if newer {
                            *current = Arc::new(view);
                        }
                        newer
                    });
                    answered = true;
                    break;
                }
                Err(why) => tracing::debug!(agent = datacenter.name, why, "following the view"),
            }
        }
        rounds_unheard = if answered { 0 } else { rounds_unheard + 1 };
        heard.send_if_modified(|heard| {
            let is_heard = rounds_unheard < ROUNDS_UNHEARD_MAX;
            std::mem::replace(heard, is_heard) != is_heard
        });
        tokio::time::sleep(if answered { BREATH } else { RETRY }).await;
    }
}
