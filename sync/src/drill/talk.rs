//! What agents ask each other about drills, over the agents' port.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use super::samples::{Found, Samples};
use crate::{Agent, link};

/// How long a peer is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The same where it reads its disk.
pub(crate) const LONG_PATIENCE: Duration = Duration::from_secs(20);

/// The parameters of all questions; each has use for some.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// Name of the asker's fleet.
    pub(crate) fleet: String,
    /// Which drill.
    #[serde(default)]
    pub(crate) id: String,
    /// Whose samples were counted.
    #[serde(default)]
    pub(crate) life: u64,
    /// From which on.
    #[serde(default)]
    pub(crate) from: u64,
    /// What ends is seen as at this moment, milliseconds of Unix time.
    #[serde(default)]
    pub(crate) as_of_unix_ms: u64,
    /// No more visits are to begin.
    #[serde(default)]
    pub(crate) is_last: bool,
}

/// A record to write.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToWrite {
    /// Name of the asker's fleet.
    pub(crate) fleet: String,
    /// Which drill.
    pub(crate) id: String,
    /// Which record.
    pub(crate) found: Found,
    /// At which durability.
    pub(crate) durability: String,
    /// How long to wait for that, milliseconds.
    pub(crate) patience_ms: u64,
}

/// What a witness at a command line has seen.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HandedIn {
    /// Name of the asker's fleet.
    pub(crate) fleet: String,
    /// Which drill.
    pub(crate) id: String,
    /// The datacenter whose agent was told.
    pub(crate) by: String,
    /// What it has seen.
    pub(crate) samples: Samples,
    /// How far its clock is ahead of that agent's, milliseconds.
    pub(crate) ahead_ms: i64,
}

/// What became of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct WhatCame {
    /// Why nobody may count on it; none: one may.
    pub(crate) failure: Option<String>,
}

/// The agents of the others, as they can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    fleet: String,
    clients: BTreeMap<String, (Url, reqwest::Client)>,
}

impl Peers {
    /// With the keys and the config of now.
    pub(crate) fn of(agent: &Arc<Agent>) -> Self {
        let (config, keys) = (agent.config(), agent.keys());
        let fleet = config.fleet.name.clone();
        let mut clients = BTreeMap::new();
        let view = agent.view();
        let is_forgotten = |name: &str| view.datacenters.get(name).is_some_and(|known| known.is_forgotten);
        let others = config.fleet.datacenters.iter().filter(|peer| peer.name != agent.name());
        for peer in others.filter(|peer| !is_forgotten(&peer.name)) {
            match link::client(keys.as_deref(), &peer.name, &fleet) {
                Ok(client) => _ = clients.insert(peer.name.clone(), (peer.agent.clone(), client)),
                Err(error) => tracing::error!(%error, peer = peer.name, "a drill's client"),
            }
        }
        Self { fleet, clients }
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.clients.keys()
    }

    /// Asks one of them.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        peer: &str,
        path: &str,
        asked: Asked,
        patience: Duration,
    ) -> Result<T, String> {
        let (url, client) = self.clients.get(peer).ok_or_else(|| format!("there is no agent of {peer}"))?;
        let url = url.join(path).map_err(|error| error.to_string())?;
        let asked = Asked { fleet: self.fleet.clone(), ..asked };
        link::read(client.get(url.clone()).query(&asked).timeout(patience), &url).await
    }

    /// Has one of them write a record.
    pub(crate) async fn write(&self, peer: &str, write: ToWrite) -> Result<(), String> {
        let (url, client) = self.clients.get(peer).ok_or_else(|| format!("there is no agent of {peer}"))?;
        let url = url.join("/v1/drill/record").map_err(|error| error.to_string())?;
        let patience = Duration::from_millis(write.patience_ms) + PATIENCE;
        let write = ToWrite { fleet: self.fleet.clone(), ..write };
        let came: WhatCame =
            link::read(client.post(url.clone()).json(&write).timeout(patience), &url).await?;
        came.failure.map_or(Ok(()), Err)
    }

    /// Hands one of them what a witness has seen.
    pub(crate) async fn hand_in(&self, peer: &str, handed: HandedIn) -> Result<(), String> {
        let (url, client) = self.clients.get(peer).ok_or_else(|| format!("there is no agent of {peer}"))?;
        let url = url.join("/v1/drill/witnessed").map_err(|error| error.to_string())?;
        let handed = HandedIn { fleet: self.fleet.clone(), ..handed };
        let request = client.post(url.clone()).json(&handed).timeout(PATIENCE);
        let came: WhatCame = link::read(request, &url).await?;
        came.failure.map_or(Ok(()), Err)
    }
}
