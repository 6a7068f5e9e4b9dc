//! The thread that writes what has changed under the keys, and the one that checks what is on the disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::sqlite::cells::CellWriter;
use super::{Store, TICK, TIDY, guard};
use crate::latest::last_sent;

/// Time between two writes of what has changed under the keys: the log has it, and a start reads so much of that again.
const FLUSH: Duration = Duration::from_secs(1);
/// Bytes that have changed and are written sooner.
const FLUSH_BYTES: u64 = 32 << 20;

/// Writes what has changed under the keys, until the store has stopped and all is written.
pub(super) fn keep(store: &Store, mut writer: CellWriter) {
    let inner = &store.0;
    let mut tidied_at = Duration::ZERO;
    let mut unwritten = None;
    loop {
        let is_last = inner.is_stopped.load(Ordering::Acquire);
        let asked = inner.flush_now.load(Ordering::Acquire);
        // First how far it is, then what has changed: what is taken covers it.
        let (kept, conflicts) = {
            let mut to_keep = guard(&inner.to_keep);
            (to_keep.kept.clone(), std::mem::take(&mut to_keep.conflicts))
        };
        let is_news = kept.applied != last_sent(&inner.flushed)
            || !conflicts.is_empty()
            || asked > inner.flush_done.load(Ordering::Acquire);
        // What was taken before and could not be written covers what it covered then, no more.
        let kept = unwritten.take().unwrap_or(kept);
        let taken = writer.take();
        if is_news || !taken.is_empty() {
            match writer.write(taken, &kept, &conflicts, store.unix_ms()) {
                Ok(()) => {
                    inner.flushed.send_replace(kept.applied);
                    inner.flush_done.fetch_max(asked, Ordering::AcqRel);
                    guard(&inner.health).keys = None;
                }
                Err(error) => {
                    let failure = Some(error.to_string());
                    // The same again and again is said once.
                    if std::mem::replace(&mut guard(&inner.health).keys, failure.clone()) != failure {
                        tracing::error!(%error, "the store cannot write its keys");
                    }
                    guard(&inner.to_keep).conflicts.extend(conflicts);
                    unwritten = Some(kept);
                }
            }
        } else {
            writer.is_written();
        }
        if store.now().saturating_sub(tidied_at) >= TIDY {
            tidied_at = store.now();
            let stable = guard(&inner.stable).clone();
            match writer.forget_the_past(&stable, store.unix_ms()) {
                Ok(count) => drop(inner.counts.tidied.fetch_add(count as u64, Ordering::Relaxed)),
                Err(error) => tracing::error!(%error, "the store cannot forget"),
            }
        }
        if is_last {
            writer.settle();
            return;
        }
        let mut waited = Duration::ZERO;
        while waited < FLUSH
            && inner.cells.changed_bytes() < FLUSH_BYTES
            && inner.flush_now.load(Ordering::Acquire) == asked
            && !inner.is_stopped.load(Ordering::Acquire)
        {
            std::thread::sleep(TICK);
            waited += TICK;
        }
    }
}

/// Reads and checks all that is on the disk, once after the start: what is corrupt must be known before it is needed.
pub(super) fn check(store: &Store) {
    let inner = &store.0;
    let is_stopped = || inner.is_stopped.load(Ordering::Acquire);
    let found = inner.log.check(is_stopped).and_then(|records| Ok((records, inner.cells.check(is_stopped)?)));
    match found {
        Ok(checked) => guard(&inner.health).checked = Some(checked),
        Err(error) => {
            tracing::error!(%error, "checking the store");
            guard(&inner.health).corrupt = Some(error.to_string());
        }
    }
}
