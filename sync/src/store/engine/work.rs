//! The thread that owns the replica and its journal.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::heads::Heads;
use super::super::journal::{Journal as _, JournalError, Logs as _};
use super::super::replica::{Denied, Replica, Retention};
use super::super::request::{Refusal, Reply};
use super::super::sqlite::cells::SqliteCells;
use super::super::sqlite::log::SqliteLog;
use super::super::sqlite::mark_stale;
use super::super::status::StoreStatus;
use super::{Input, Progress, Store, TICK, TIDY, guard};
use crate::core::Moment;
use crate::latest::last_sent;

/// Time between two flushes for what is durable elsewhere already: nobody here waits for it.
const PACE: Duration = Duration::from_millis(3);
/// How long a write waits at most for those who are expected to write too, so that they share a flush and all that follows
/// from it. They are those who were answered of late, and those who came meanwhile.
const CROWD_PACE: Duration = Duration::from_millis(1);
/// So many share a flush well enough: while it lasts, the next come together.
const CROWD: usize = 8;
/// Time between two tellings of streams and watches how far it is: what they do then is done for all that came meanwhile.
/// A store that is not busy tells at once.
const TELL_PACE: Duration = Duration::from_millis(1);
/// Bytes that have changed and are not written: over it writers wait.
const CHANGED_BYTES_MAX: u64 = 256 << 20;

/// The thread's state.
pub(super) struct Engine {
    store: Store,
    directory: PathBuf,
    replica: Replica,
    log: SqliteLog,
    cells: SqliteCells,
    tickets: HashMap<u64, oneshot::Sender<Reply>>,
    next_ticket: u64,
    committed_at: Duration,
    /// How many writes are expected to come together, and since when.
    crowd: usize,
    answered_at: Duration,
    published_at: Duration,
    /// What streams have been told.
    told_durable: Heads,
    /// There is progress that others have not been told of.
    has_untold: bool,
    tidy_at: Duration,
    ticked_at: Duration,
    told_at: Duration,
    retention: Retention,
}

impl Engine {
    pub(super) fn new(
        store: Store,
        directory: PathBuf,
        replica: Replica,
        log: SqliteLog,
        retention: Retention,
    ) -> Self {
        let cells = store.0.cells.clone();
        let now = store.now();
        Self {
            store,
            directory,
            replica,
            log,
            cells,
            tickets: HashMap::new(),
            next_ticket: 0,
            committed_at: Duration::ZERO,
            crowd: 0,
            answered_at: Duration::ZERO,
            published_at: Duration::ZERO,
            told_durable: Heads::default(),
            has_untold: false,
            tidy_at: now,
            ticked_at: Duration::ZERO,
            told_at: Duration::ZERO,
            retention,
        }
    }

    /// Does everything in order until it is told to stop.
    pub(super) fn run(mut self, has_replayed: &std::sync::mpsc::Sender<()>) {
        self.replay();
        // Whoever waited may be gone.
        let _ = has_replayed.send(());
        loop {
            let inputs = self.wait();
            let moment = self.moment();
            let mut is_stopping = false;
            let has_come = !inputs.is_empty();
            for input in inputs {
                is_stopping |= matches!(input, Input::Stop);
                self.take(input, moment);
            }
            if moment.now.saturating_sub(self.ticked_at) >= TICK
                || self.replica.wake_at() <= moment.now
                || self.replica.has_more(moment.unix_ms)
            {
                self.ticked_at = moment.now;
                self.tick(moment);
            }
            let is_due = self.commit_at().is_some_and(|at| at <= moment.now) || is_stopping;
            if self.replica.has_outgoing() && is_due {
                self.commit(moment);
            }
            self.answer();
            self.tell(has_come);
            if is_stopping {
                self.log.settle();
                self.store.0.is_stopped.store(true, Ordering::Release);
                return;
            }
        }
    }

    /// Applies what is in the log and not in the keys.
    fn replay(&mut self) {
        let mut failures = 0;
        while self.replica.has_more(self.store.unix_ms()) && failures < 3 {
            // The keys are written meanwhile.
            while self.cells.changed_bytes() > CHANGED_BYTES_MAX {
                std::thread::sleep(Duration::from_millis(5));
            }
            if let Err(error) = self.replica.tick(self.moment(), &self.log, &mut self.cells) {
                failures += 1;
                self.fail(&error);
            }
            self.publish();
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.store.now(), unix_ms: self.store.unix_ms() }
    }

    /// When what is to be made durable next goes to the disk, if there is anything.
    fn commit_at(&self) -> Option<Duration> {
        if !self.replica.has_outgoing() {
            return None;
        }
        let pace = match self.replica.is_waited_for() {
            false => PACE,
            true if self.replica.staged() < self.awaited() => {
                return Some((self.answered_at + CROWD_PACE).max(self.committed_at));
            }
            true => Duration::ZERO,
        };
        Some(self.committed_at + pace)
    }

    /// How many are to be staged before a flush is worth it.
    fn awaited(&self) -> usize {
        self.crowd.min(CROWD)
    }

    /// Whether streams have not been told of a flush yet.
    fn is_flushed(&self) -> bool {
        self.told_durable != *self.replica.received()
    }

    fn tell_pace(&self) -> Duration {
        let has_listeners = self.is_flushed() || self.store.0.progress.receiver_count() > 0;
        if has_listeners { TELL_PACE } else { TICK }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) -> Vec<Input> {
        let inner = Arc::clone(&self.store.0);
        let now = self.store.now();
        let mut until = self.replica.wake_at().min(self.ticked_at + TICK);
        until = self.commit_at().into_iter().chain([until]).min().unwrap_or(until);
        if self.has_untold || self.is_flushed() {
            until = until.min(self.published_at + self.tell_pace());
        }
        if self.replica.has_more((inner.clock.unix_ms)()) {
            until = now;
        }
        // The disk of the keys is behind: whoever wants to write waits.
        let is_behind = inner.cells.changed_bytes() > CHANGED_BYTES_MAX;
        let mut inbox = guard(&inner.inbox);
        // While those who have come wait for others, the last of these is to wake us.
        let awaited = match self.replica.is_waited_for() {
            true => self.awaited().saturating_sub(self.replica.staged()),
            false => 1,
        };
        if inbox.inputs.len() < awaited || is_behind {
            let nap = if is_behind { Duration::from_millis(5) } else { until.saturating_sub(now) };
            if !nap.is_zero() {
                inbox.wake_at = awaited.max(1);
                let woken = inner.woken.wait_timeout(inbox, nap);
                inbox = woken.unwrap_or_else(PoisonError::into_inner).0;
                inbox.wake_at = 0;
            }
        }
        std::mem::take(&mut inbox.inputs)
    }

    fn take(&mut self, input: Input, moment: Moment) {
        let refusal = self.store.refusal();
        match (refusal, input) {
            // Whoever waits may be gone.
            (Some(why), Input::Write(_, reply)) => drop(reply.send(Reply::Refused(Refusal::Disk(why)))),
            (Some(why), Input::Down(_, _, done)) => drop(done.send(Err(JournalError::Corrupt(why).into()))),
            (Some(why), Input::Heard(_, _, done)) => drop(done.send(Err(JournalError::Corrupt(why).into()))),
            (_, input) => self.take_in(input, moment),
        }
    }

    fn take_in(&mut self, input: Input, moment: Moment) {
        match input {
            Input::Write(write, reply) => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.tickets.insert(ticket, reply);
                if let Err(error) = self.replica.write(moment, &mut self.cells, ticket, &write) {
                    self.fail(&error);
                }
            }
            Input::Down(peer, message, done) => {
                let mut took = self.replica.take(moment, &mut self.cells, &peer, message);
                if let Ok(taken) = &took {
                    self.store.0.counts.healed.fetch_add(taken.healed, Ordering::Relaxed);
                    self.store.0.counts.compared.fetch_add(taken.compared, Ordering::Relaxed);
                    if taken.is_end_of_cells
                        && let Err(error) = self.end_of_cells()
                    {
                        took = Err(error.into());
                    }
                }
                if let Err(Denied::Journal(error)) = &took {
                    self.fail(error);
                }
                // Whoever asked may be gone.
                let _ = done.send(took);
            }
            Input::Heard(peer, word, done) => {
                let _ = done.send(self.replica.hear(moment, &peer, &word));
            }
            Input::After(peer, origin, received) => self.replica.confirmed(moment, &peer, &origin, &received),
            Input::Fleet { peers, forgotten, skews } => {
                self.replica.set_peers(peers);
                self.replica.set_forgotten(forgotten);
                skews.iter().for_each(|(peer, skew)| self.replica.set_skew(peer, *skew));
            }
            Input::Stop => {}
        }
    }

    fn tick(&mut self, moment: Moment) {
        if let Err(error) = self.replica.tick(moment, &self.log, &mut self.cells) {
            self.fail(&error);
        }
        if !self.is_stale()
            && self.replica.is_open()
            && let Err(error) = self.log.has_opened()
        {
            self.fail(&error);
        }
        let conflicts = self.replica.conflicts();
        self.store.0.counts.conflicts.fetch_add(conflicts.len() as u64, Ordering::Relaxed);
        let mut to_keep = guard(&self.store.0.to_keep);
        to_keep.conflicts.extend(conflicts);
        drop(to_keep);
        if self.tidy_at <= moment.now {
            self.tidy_at = moment.now + TIDY;
            self.tidy();
        }
    }

    fn commit(&mut self, moment: Moment) {
        self.committed_at = moment.now;
        if self.is_stale() {
            return;
        }
        let append = |engine: &mut Self| -> Result<(), JournalError> {
            for origin in engine.replica.to_name() {
                engine.log.name(&origin)?;
            }
            let batches = engine.replica.to_append();
            engine.log.append(&batches)
        };
        match append(self) {
            Ok(()) => {
                self.store.0.counts.commits.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = self.replica.committed(self.moment(), &mut self.cells) {
                    self.fail(&error);
                }
            }
            Err(error) => {
                self.replica.not_committed(&self.log, &error);
                self.fail(&error);
                // Not at once again.
                self.committed_at = moment.now + TICK;
            }
        }
    }

    /// Others know more of this store than it does: an old copy of its disk was put in its place while it ran elsewhere.
    /// Whatever it says may be what all others have forgotten: it says nothing more.
    fn is_stale(&mut self) -> bool {
        let me = self.replica.origin().clone();
        if me == *self.log.me() {
            return false;
        }
        // One that has nothing is only named anew: others know of a later life than the clock here says.
        if self.log.is_new() && self.log.heads().is_empty() {
            if let Err(error) = self.log.set_me(&me) {
                self.fail(&error);
            }
            return false;
        }
        // What is on its way stays there.
        drop(self.replica.to_append());
        let mut health = guard(&self.store.0.health);
        if health.corrupt.is_none() {
            let why = "the disk is older than what others know of it: start the process again, and the store begins anew from them";
            tracing::error!("the store: {why}");
            health.corrupt = Some(why.to_owned());
            if let Err(error) = mark_stale(&self.directory) {
                tracing::error!(%error, "marking the store as stale");
            }
        }
        true
    }

    /// The cells of a snapshot are made durable, then the logs begin behind them.
    fn end_of_cells(&mut self) -> Result<(), JournalError> {
        // Nobody is told before it is so.
        self.keep_frontier();
        let inner = Arc::clone(&self.store.0);
        let wanted = inner.flush_now.fetch_add(1, Ordering::AcqRel) + 1;
        // Two rounds of the writer of the keys: one may have been under way.
        let mut rounds = 0;
        while inner.flush_done.load(Ordering::Acquire) < wanted {
            std::thread::sleep(Duration::from_millis(5));
            rounds += 1;
            if rounds > 12_000 {
                return Err(JournalError::Io("the keys of a snapshot cannot be written".to_owned()));
            }
        }
        for origin in self.replica.to_name() {
            self.log.name(&origin)?;
        }
        for (origin, floor) in self.replica.to_begin_at() {
            self.log.begin_at(origin, floor)?;
        }
        Ok(())
    }

    fn fail(&self, error: &JournalError) {
        tracing::error!(%error, "the store");
        if matches!(error, JournalError::Corrupt(_)) {
            guard(&self.store.0.health).corrupt = Some(error.to_string());
        }
    }

    fn answer(&mut self) {
        let before = self.tickets.len();
        self.answer_all();
        let answered = before - self.tickets.len();
        if answered > 0 {
            let waiting = guard(&self.store.0.inbox).inputs.len();
            // One alone waits for nobody; many that come in their own time are seen as many after the moment too.
            self.crowd = (answered + waiting).max(self.crowd * 3 / 4);
            self.answered_at = self.store.now();
            if self.crowd == 1 {
                self.crowd = 0;
            }
        }
    }

    fn answer_all(&mut self) {
        let replies = self.replica.replies();
        if replies.is_empty() {
            return;
        }
        let waiting = |(ticket, reply)| Some((self.tickets.remove(&ticket)?, reply));
        let answers: Vec<_> = replies.into_iter().filter_map(waiting).collect();
        let send = move || {
            for (waiting, reply) in answers {
                // Whoever waited may be gone.
                let _ = waiting.send(reply);
            }
        };
        match self.store.0.answers.get() {
            Some(runtime) => drop(runtime.spawn(async move { send() })),
            None => send(),
        }
    }

    /// Tells those around how far it is.
    fn publish(&mut self) {
        let inner = &self.store.0;
        inner.cells.set_applied(self.replica.applied());
        let progress = Progress {
            received: self.replica.received().clone(),
            accepted: self.replica.after(),
            applied: self.replica.applied().clone(),
        };
        self.has_untold = false;
        if *last_sent(&inner.progress) != progress {
            self.keep_frontier();
            if self.told_durable != progress.received {
                self.told_durable.clone_from(&progress.received);
                self.tell_streams(progress.received.clone());
            }
            inner.progress.send_replace(Arc::new(progress));
        }
    }

    fn tell_streams(&self, durable: Heads) {
        let inner = Arc::clone(&self.store.0);
        let mut of_others = durable.clone();
        of_others.remove(self.replica.origin().id());
        let send = move || {
            if *last_sent(&inner.durable_of_others) != of_others {
                inner.durable_of_others.send_replace(Arc::new(of_others));
            }
            inner.durable.send_replace(Arc::new(durable));
        };
        match self.store.0.streams.get() {
            Some(runtime) => drop(runtime.spawn(async move { send() })),
            None => send(),
        }
    }

    /// What the keys cover when they are written next.
    fn keep_frontier(&self) {
        let mut to_keep = guard(&self.store.0.to_keep);
        self.replica.applied().clone_into(&mut to_keep.kept.applied);
        to_keep.kept.applied.meet(self.replica.received());
        to_keep.kept.clock = self.replica.time();
    }

    fn tell(&mut self, has_come: bool) {
        let moment = self.moment();
        self.has_untold |= has_come;
        if moment.now.saturating_sub(self.published_at) < self.tell_pace() {
            return;
        }
        self.published_at = moment.now;
        self.publish();
        // What people and metrics look at need not be of this very moment.
        if moment.now.saturating_sub(self.told_at) < TICK && has_come {
            return;
        }
        self.told_at = moment.now;
        let inner = &self.store.0;
        inner.words.send_replace(Arc::new(self.replica.word()));
        let status = StoreStatus::new(&self.replica, moment).with(&self.store, &guard(&inner.health));
        inner.status.send_replace(Arc::new(status));
        let peers: Vec<String> = self.replica.peers().map(str::to_owned).collect();
        let wants = peers.into_iter().map(|peer| (peer.clone(), self.replica.wants(&peer, moment.now)));
        *guard(&inner.wants) = wants.collect();
        guard(&inner.to_keep).kept.forgotten.clone_from(self.replica.forgotten());
        *guard(&inner.stable) = self.replica.stable();
    }

    /// Lets go of what all have and nobody needs.
    fn tidy(&mut self) {
        let flushed = last_sent(&self.store.0.flushed);
        let floors = self.log.floors();
        for (origin, head) in self.log.heads().iter() {
            let floor = floors.get(&origin).map_or(0, |floor| floor.sequence);
            let upto = self.replica.may_go(origin, head, &flushed, self.retention);
            if upto > floor
                && let Err(error) = self.log.trim(origin, upto)
            {
                self.fail(&error);
            }
        }
    }
}
