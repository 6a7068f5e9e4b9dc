//! What the one who leads a drill asks all agents.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;

use super::super::drills::Drills;
use super::super::plan::Ready;
use super::super::records::{self, Holds};
use super::super::report::{Ended, Report};
use super::super::samples::Found;
use super::super::talk::{Asked, LONG_PATIENCE, PATIENCE, Peers};
use super::{Lead, QUIET_MS};
use crate::store::replica::{Lag, Stage as Known};

impl Lead {
    /// Asks all agents the same, our own left out; who does not answer says why not.
    pub(super) async fn ask_all<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        path: &'static str,
        asked: impl Fn(&str) -> Option<Asked>,
        patience: Duration,
    ) -> BTreeMap<String, Result<T, String>> {
        let mut asking = JoinSet::new();
        for peer in self.peers.names() {
            let Some(asked) = asked(peer) else { continue };
            let (peers, peer) = (self.peers.clone(), peer.clone());
            asking.spawn(async move {
                let answer = peers.ask(&peer, path, asked, patience).await;
                (peer, answer)
            });
        }
        asking.join_all().await.into_iter().collect()
    }

    /// The drill's records in each datacenter but one.
    pub(super) async fn found(
        &self,
        but: Option<&str>,
        patience: Duration,
    ) -> BTreeMap<String, Result<Vec<Found>, String>> {
        let id = self.word.id.clone();
        let asked = |name: &str| (Some(name) != but).then(|| Asked { id: id.clone(), ..Asked::default() });
        let mut all: BTreeMap<String, Result<Vec<Found>, String>> =
            self.ask_all("/v1/drill/found", asked, patience).await;
        if let Some(store) = self.drills.agent.store().cloned() {
            let own = tokio::task::spawn_blocking(move || records::found(&store, &id)).await;
            let own = own.unwrap_or_else(|error| Err(error.to_string()));
            all.insert(self.drills.agent.name().to_owned(), own);
        }
        all
    }

    /// Lag is known and small everywhere, and all stores hold the same.
    pub(super) async fn has_converged(&self) -> bool {
        let mut ready: BTreeMap<String, Result<Ready, String>> =
            self.ask_all("/v1/drill/ready", |_| Some(Asked::default()), PATIENCE).await;
        ready.insert(self.drills.agent.name().to_owned(), Ok(self.drills.ready()));
        let is_well = |ready: &Result<Ready, String>| {
            let store = ready.as_ref().ok().and_then(|ready| ready.store.as_ref());
            store.is_some_and(|store| {
                let is_near = |lag: &Lag| {
                    lag.stage == Known::Known && lag.behind_ms.is_some_and(|behind| behind < QUIET_MS)
                };
                store.is_open && store.waits_for.is_none() && store.lags.iter().all(is_near)
            })
        };
        ready.values().all(is_well) && self.drills.same().await.is_ok()
    }

    /// The drill of the same name and target before this one.
    pub(super) async fn previous(&self) -> Option<Report> {
        let store = self.drills.agent.store().cloned()?;
        let (name, target) = (self.word.scenario.name.clone(), self.word.target.to_string());
        let id = self.word.id.clone();
        let earlier = tokio::task::spawn_blocking(move || {
            let reports = records::reports(&store).unwrap_or_default();
            reports.into_iter().rfind(|report| {
                let is_same = report.scenario.as_ref().is_some_and(|scenario| scenario.name == name);
                is_same
                    && report.target == target
                    && report.id != id
                    && report.outcome.ended != Ended::Skipped
            })
        });
        earlier.await.ok()?
    }
}

impl Drills {
    /// Whether all stores hold the same.
    ///
    /// # Errors
    /// Which two differ, or who could not be asked.
    pub async fn same(&self) -> Result<String, Vec<String>> {
        let peers = Peers::of(&self.agent);
        let now = (self.agent.clock().unix_ms)();
        // What ends soon ends at other moments by other clocks: all look as of the same.
        let (quiet_unix_ms, as_of_unix_ms) = (now.saturating_sub(QUIET_MS), now + 60_000);
        let mut asking = JoinSet::new();
        for peer in peers.names() {
            let (peers, peer) = (peers.clone(), peer.clone());
            asking.spawn(async move {
                let asked = Asked { as_of_unix_ms, ..Asked::default() };
                let held = peers.ask::<Holds>(&peer, "/v1/drill/holds", asked, LONG_PATIENCE).await;
                (peer, held)
            });
        }
        let store = self.agent.store().cloned().ok_or_else(|| vec!["the agent has no store".to_owned()])?;
        let own = tokio::task::spawn_blocking(move || records::holds(&store, as_of_unix_ms)).await;
        let own = own.unwrap_or_else(|error| Err(error.to_string()));
        let all = asking.join_all().await.into_iter().chain([(self.agent.name().to_owned(), own)]);
        let (mut held, mut failed) = (BTreeMap::new(), Vec::new());
        for (name, one) in all {
            match one {
                Ok(one) => _ = held.insert(name, one),
                Err(why) => failed.push(format!("{name}: {why}")),
            }
        }
        if failed.is_empty() { records::same(&held, quiet_unix_ms) } else { Err(failed) }
    }

    /// Conflicts that each store knows of since its start.
    pub(super) async fn conflicts(&self) -> BTreeMap<String, u64> {
        let all = self.ready_all().await.into_iter();
        all.filter_map(|(name, ready)| Some((name, ready.ok()?.store?.conflicts))).collect()
    }

    /// How all agents and their stores are.
    pub async fn ready_all(&self) -> BTreeMap<String, Result<Ready, String>> {
        let peers = Peers::of(&self.agent);
        let mut asking = JoinSet::new();
        for peer in peers.names() {
            let (peers, peer) = (peers.clone(), peer.clone());
            asking.spawn(async move {
                let ready = peers.ask(&peer, "/v1/drill/ready", Asked::default(), PATIENCE).await;
                (peer, ready)
            });
        }
        let mut all: BTreeMap<String, Result<Ready, String>> = asking.join_all().await.into_iter().collect();
        all.insert(self.agent.name().to_owned(), Ok(self.ready()));
        all
    }
}
