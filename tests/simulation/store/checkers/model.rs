//! What must be under each key, from all operations that some disk has: by the rules as users are told them, without the
//! code that is checked.

use std::collections::{BTreeMap, BTreeSet};

use daemun_sync::store::op::{Action, Entry, Key};
use daemun_sync::store::stamp::{OriginId, Stamp};

/// What users must see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Value(Stamp),
    Counter(i64),
    Set(BTreeSet<String>),
}

/// By key, in each origin's order.
pub(super) fn by_key<'a>(entries: impl Iterator<Item = &'a Entry>) -> BTreeMap<Key, Vec<&'a Entry>> {
    let mut by_key: BTreeMap<Key, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        if let Some(key) = entry.action.key() {
            by_key.entry(key.clone()).or_default().push(entry);
        }
    }
    by_key
}

/// What must be seen of a key after these operations on it.
pub(super) fn expected(entries: &[&Entry], unix_ms: u64) -> Seen {
    let is_register = |entry: &&&Entry| matches!(entry.action, Action::Put { .. } | Action::Delete { .. });
    let last = entries.iter().filter(is_register).max_by_key(|entry| entry.stamp);
    if let Some(Entry { stamp, action: Action::Put { expires_unix_ms, .. }, .. }) = last
        && (*expires_unix_ms == 0 || *expires_unix_ms > unix_ms)
    {
        return Seen::Value(*stamp);
    }
    let end = last.map_or(Stamp::default(), |entry| entry.stamp);
    // What was counted since a count began that began after the last put or delete.
    let mut counts: BTreeMap<OriginId, (u64, i64)> = BTreeMap::new();
    for entry in entries {
        let Action::Increment { by, since, .. } = entry.action else { continue };
        let origin = entry.stamp.origin;
        if (Stamp { time: since, origin }) > end {
            let count = counts.entry(origin).or_default();
            if since > count.0 {
                *count = (since, 0);
            }
            if since == count.0 {
                count.1 += by;
            }
        }
    }
    if !counts.is_empty() {
        return Seen::Counter(counts.values().map(|(_, sum)| sum).sum());
    }
    let mut set = BTreeSet::new();
    for entry in entries {
        let Action::SetAdd { element: added, .. } = &entry.action else { continue };
        let is_removed = entries.iter().any(|other| match &other.action {
            Action::SetRemove { element, seen, .. } => {
                element == added && seen.of(entry.stamp.origin) >= entry.sequence
            }
            _ => false,
        });
        if entry.stamp > end && !is_removed {
            set.insert(added.clone());
        }
    }
    if set.is_empty() { Seen::Nothing } else { Seen::Set(set) }
}
