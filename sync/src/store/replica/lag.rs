//! How far behind this datacenter is, and what is past: from heartbeats in the logs, never from the absence of news.

use serde::{Deserialize, Serialize};

use super::super::heads::Heads;
use super::super::stamp::{Origin, OriginId};
use super::{Phase, Replica, Retention};
use crate::core::Moment;

/// Whether a lag is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Heartbeats arrive.
    Known,
    /// None arrives: the lag is at least what is said, and grows.
    Unknown,
    /// Its operations are from the future, and wait for their time.
    Held,
}

/// How far behind one datacenter's log we are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// The datacenter.
    pub datacenter: String,
    /// Whether it is known.
    pub stage: Stage,
    /// Age of the newest heartbeat applied, milliseconds, corrected for the clocks' difference; at most so far behind are we
    /// while it is known. `None`: none was ever applied.
    pub behind_ms: Option<u64>,
    /// Operations that it has and that are not applied here; `None`: it was not heard of late.
    pub behind_operations: Option<u64>,
    /// Our own operations that it is not known to have: exact, or more than the truth.
    pub unconfirmed: u64,
}

impl Replica {
    /// The lag to each other datacenter that is not forgotten.
    pub fn lags(&self, moment: Moment) -> Vec<Lag> {
        let lag = |(name, peer): (&String, &super::Peer)| {
            let live = peer.origin.clone().or_else(|| self.live(name).cloned());
            let id = live.as_ref().map(Origin::id);
            let is_heard = self.hears(name, moment.now);
            let heartbeat = id.and_then(|id| self.heartbeats.get(&id));
            let behind_ms = heartbeat.map(|(heartbeat, applied_at)| {
                let (offset, doubt) = peer.skew.unwrap_or((0, 0));
                // Their clock's reading, as ours would have read then, and never shorter than the truth.
                let written = heartbeat.saturating_add_signed(offset.saturating_neg());
                let age = moment.unix_ms.saturating_sub(written).saturating_add(doubt);
                // Whatever the clocks say, it is at least as old as it has been here.
                age.max(u64::try_from(moment.now.saturating_sub(*applied_at).as_millis()).unwrap_or(u64::MAX))
            });
            let is_late = behind_ms
                .is_none_or(|behind| behind > u64::try_from(super::SILENCE.as_millis()).unwrap_or(0));
            let is_held = id.is_some_and(|id| self.held.contains_key(&id));
            let stage = match (is_held, is_late || !is_heard) {
                (true, _) => Stage::Held,
                (false, true) => Stage::Unknown,
                (false, false) => Stage::Known,
            };
            let ahead = id.map(|id| peer.received.of(id).saturating_sub(self.applied.of(id)));
            let own = self.accepted.of(self.id);
            Lag {
                datacenter: name.clone(),
                stage,
                behind_ms,
                behind_operations: ahead.filter(|_| is_heard),
                unconfirmed: own.saturating_sub(self.has_received_of(name, self.id)),
            }
        };
        self.counted().map(lag).collect()
    }

    /// The store of a datacenter, and what it said that it has; a store that was replaced took that with it.
    fn said(&self, peer: &str) -> Option<(OriginId, Option<&Heads>)> {
        let live = self.live(peer)?;
        let said = self.peers.get(peer).filter(|peer| peer.origin.as_ref() == Some(live));
        Some((live.id(), said.map(|peer| &peer.received)))
    }

    /// What another datacenter is known to have on its disk: what it said, and what its log shows that it knew.
    pub fn has_received(&self, peer: &str) -> Heads {
        let Some((store, said)) = self.said(peer) else { return Heads::default() };
        let mut received = said.cloned().unwrap_or_default();
        if let Some(known) = self.knew(store) {
            received.join(&known);
        }
        received
    }

    /// [`has_received`](Self::has_received) of one log: asked for each write, so nothing is copied.
    pub(super) fn has_received_of(&self, peer: &str, origin: OriginId) -> u64 {
        let Some((store, said)) = self.said(peer) else { return 0 };
        let known = self.knowledge.get(&store).map_or(0, |(known, sequence)| match store == origin {
            true => *sequence,
            false => known.of(origin),
        });
        said.map_or(0, |said| said.of(origin)).max(known)
    }

    /// What an origin had applied when it wrote the newest entry that is applied here, itself included.
    fn knew(&self, origin: OriginId) -> Option<Heads> {
        let (known, sequence) = self.knowledge.get(&origin)?;
        let mut known = (**known).clone();
        known.raise(origin, *sequence);
        Some(known)
    }

    /// What was applied here when the oldest own operation was stamped that is not applied yet; `None`: one that is not is
    /// still to be read from the log.
    fn knew_when_it_last_wrote(&self) -> Option<Heads> {
        let mut known = self.applied.clone();
        let own = self.applied.of(self.id);
        if own < self.accepted.of(self.id) {
            let first = self.staged.first().filter(|first| first.sequence == own + 1)?;
            let mut before = (*first.known).clone();
            before.raise(self.id, own);
            known.meet(&before);
        }
        Some(known)
    }

    /// What every datacenter that is not forgotten has applied, and nothing older than which can still arrive: what is only
    /// remembered up to here may be forgotten. Each datacenter's newest entry says what it knew; whatever it writes later
    /// is stamped later.
    pub fn stable(&self) -> Heads {
        let Some(mut stable) = self.knew_when_it_last_wrote() else { return Heads::default() };
        let mut known_to_any = Heads::default();
        let mut live = vec![self.id];
        for (name, _) in self.counted() {
            let Some((id, known)) =
                self.live(name).and_then(|origin| Some((origin.id(), self.knew(origin.id())?)))
            else {
                return Heads::default();
            };
            stable.meet(&known);
            known_to_any.join(&known);
            live.push(id);
        }
        // Of a log that is not written any more everything must be here that anyone has.
        let is_whole = |(origin, sequence): (OriginId, u64)| {
            live.contains(&origin) || self.applied.of(origin) >= sequence
        };
        // Each knows every live store: what it had of the earlier lives of that one, it had before.
        let is_known = live.iter().all(|origin| stable.of(*origin) > 0);
        if is_known && known_to_any.iter().all(is_whole) { stable } else { Heads::default() }
    }

    /// Up to where each log has been received by every datacenter that is not forgotten, and applied here: what waits for
    /// its time is read from the log.
    pub fn received_by_all(&self) -> Heads {
        let mut all = self.received.clone();
        all.meet(&self.applied);
        for (name, _) in self.counted() {
            all.meet(&self.has_received(name));
        }
        all
    }

    /// Up to where a log that ends at `head` may go from the disk: what every datacenter has but for the newest entries, and
    /// the oldest of too many, whoever lacks them. `kept` is what the keys on the disk cover: they can be made good from the rest.
    pub fn may_go(&self, origin: OriginId, head: u64, kept: &Heads, retention: Retention) -> u64 {
        let all_have = self.received_by_all().of(origin).min(head.saturating_sub(retention.entries_min));
        let too_many = head.saturating_sub(retention.entries_max);
        all_have.max(too_many).min(kept.of(origin))
    }

    /// What the others had when they could be reached again is applied here, and no lag to those in reach is unknown or
    /// large: the data is here.
    ///
    /// # Errors
    /// What is missing, for people.
    pub fn is_caught_up(&self, moment: Moment) -> Result<(), String> {
        if !matches!(self.phase, Phase::Open) {
            return Err("its store is not open yet".to_owned());
        }
        if let Some(failure) = &self.failure {
            return Err(format!("its store cannot write: {failure}"));
        }
        let name = |origin: OriginId| {
            self.origins.get(&origin).map_or_else(|| origin.to_string(), |origin| origin.datacenter.clone())
        };
        if let Some(&(origin, sequence)) = self.goal.beyond(&self.applied).first() {
            let (missing, whose) = (sequence - self.applied.of(origin), name(origin));
            let from_the_future = if self.held.contains_key(&origin) { ", from the future" } else { "" };
            return Err(format!("{missing} operations of {whose} are missing{from_the_future}"));
        }
        for Lag { datacenter, stage, behind_ms, .. } in self.lags(moment) {
            if !self.hears(&datacenter, moment.now) {
                continue;
            }
            match stage {
                Stage::Held => return Err(format!("operations of {datacenter} are from the future")),
                Stage::Unknown => return Err(format!("its lag to {datacenter} is unknown")),
                Stage::Known => {}
            }
            let behind = std::time::Duration::from_millis(behind_ms.unwrap_or(u64::MAX));
            if behind > super::SILENCE {
                return Err(format!("it is {:.1} s behind {datacenter}", behind.as_secs_f64()));
            }
        }
        Ok(())
    }
}
