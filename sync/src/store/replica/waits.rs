//! Writers that wait until their write is as durable as they asked.

use std::time::Duration;

use super::super::request::{Durability, Refusal, Reply, Whereabouts};
use super::super::stamp::Stamp;
use super::{Phase, Replica};

/// A write and who waits for it.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    pub(super) ticket: u64,
    pub(super) stamps: Vec<Stamp>,
    pub(super) durability: Durability,
    pub(super) until: Duration,
}

impl Replica {
    /// Lets somebody wait for the last operation that was staged.
    pub(super) fn wait(&mut self, wait: Wait) {
        let sequence = self.accepted.of(self.id);
        if wait.durability == Durability::Memory {
            return self.reply(sequence, wait, true);
        }
        self.waits.entry(sequence).or_default().push(wait);
    }

    fn reply(&mut self, sequence: u64, wait: Wait, is_done: bool) {
        let whereabouts = self.whereabouts(sequence);
        self.replies.push((wait.ticket, Reply::Written { stamps: wait.stamps, is_done, whereabouts }));
    }

    /// Where our own operations up to a number are known to be.
    pub fn whereabouts(&self, sequence: u64) -> Whereabouts {
        let mut whereabouts = Whereabouts {
            local: self.received.of(self.id) >= sequence,
            remote: Vec::new(),
            missing: Vec::new(),
        };
        for (name, _) in self.counted() {
            let has = self.has_received_of(name, self.id) >= sequence;
            if has { &mut whereabouts.remote } else { &mut whereabouts.missing }.push(name.clone());
        }
        whereabouts
    }

    /// Ends the waits of writes that are as durable as asked.
    pub(super) fn end_done_waits(&mut self) {
        if self.waits.is_empty() {
            return;
        }
        let local = self.received.of(self.id);
        let remote: Vec<u64> = self.counted().map(|(name, _)| self.has_received_of(name, self.id)).collect();
        let is_done = |durability: Durability, sequence: u64| {
            sequence <= local
                && match durability {
                    Durability::Memory | Durability::Local => true,
                    Durability::Remote(count) => {
                        remote.iter().filter(|received| **received >= sequence).count() >= count as usize
                    }
                    Durability::All => remote.iter().all(|received| *received >= sequence),
                }
        };
        let mut done = Vec::new();
        for (sequence, waits) in self.waits.range_mut(..=local) {
            done.extend(
                waits
                    .extract_if(.., |wait| is_done(wait.durability, *sequence))
                    .map(|wait| (*sequence, wait)),
            );
        }
        self.waits.retain(|_, waits| !waits.is_empty());
        for (sequence, wait) in done {
            self.reply(sequence, wait, true);
        }
    }

    /// Tells those who have waited long enough what is known. Nobody is told anything before it is known whether the
    /// write is on the disk here.
    pub(super) fn end_waits(&mut self, now: Duration) {
        let local = self.received.of(self.id);
        let mut over = Vec::new();
        for (sequence, waits) in self.waits.range_mut(..=local) {
            over.extend(waits.extract_if(.., |wait| wait.until <= now).map(|wait| (*sequence, wait)));
        }
        self.waits.retain(|_, waits| !waits.is_empty());
        for (sequence, wait) in over {
            self.reply(sequence, wait, false);
        }
    }

    /// Answers everybody: what comes after belongs to another origin. What is not on the disk never will be.
    pub(super) fn end_all_waits(&mut self) {
        let local = self.received.of(self.id);
        for (sequence, waits) in std::mem::take(&mut self.waits) {
            for wait in waits {
                if sequence <= local {
                    self.reply(sequence, wait, false);
                } else {
                    let why = "others know more of it than it does itself".to_owned();
                    self.replies.push((wait.ticket, Reply::Refused(Refusal::NotOpen(why))));
                }
            }
        }
    }

    /// When the next of them has waited long enough.
    pub fn wake_at(&self) -> Duration {
        let waits = self.waits.values().flatten().map(|wait| wait.until).min();
        let heartbeat = matches!(self.phase, Phase::Open).then_some(self.heartbeat_at);
        waits.into_iter().chain(heartbeat).min().unwrap_or(Duration::MAX)
    }
}
