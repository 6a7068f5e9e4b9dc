//! Applications: what they write, on few keys, in every way.

use std::time::Duration;

use daemun_sync::store::cell::Seen;
use daemun_sync::store::op::{Key, Value};
use daemun_sync::store::request::{Change, ChangeKind, Changes, Condition, Durability, Write};
use daemun_sync::store::stamp::Stamp;

use super::ledger::{Asked, Ledger};
use super::story::Sabotage;
use super::world::{Event, World};

/// Keys of many writes at once: few enough that looking through all of them costs little.
const BURST_KEYS: u32 = 100;

/// A cold key is written for so long.
const COLD_US: u64 = 1_000_000;

/// How a key is used, by the first letter of its name.
pub(super) fn key(kind: char, number: u64) -> Key {
    Key::new("b", &format!("{kind}{number}")).expect("a key")
}

impl World {
    /// One datacenter's application writes, and again later.
    pub(super) fn write_something(&mut self, node: usize) {
        if self.healed {
            return;
        }
        let write = self.some_write(node);
        self.hand_in(node, write);
        let pause = self.random.between(1, self.plan.pause_us);
        self.later(pause, Event::Write(node));
    }

    /// Many at once, on keys of their own.
    pub(super) fn burst(&mut self, node: usize, count: u32) {
        for at in 0..count {
            let value = self.value();
            let key = key('x', u64::from(at % BURST_KEYS));
            let kind = ChangeKind::Put { value, ttl: None };
            let what = Changes::Keys(vec![Change { key, condition: Condition::None, kind }]);
            self.hand_in(
                node,
                Write { what, durability: Durability::Local, patience: Duration::from_secs(5) },
            );
        }
    }

    fn hand_in(&mut self, node: usize, write: Write) {
        let moment = self.moment(node);
        let ticket = self.ledger.asked.len() as u64;
        let disk = self.nodes[node].disk.number;
        let Some(alive) = &mut self.nodes[node].alive else { return };
        let mut given = write.clone();
        if self.plan.sabotage == Some(Sabotage::IgnoresConditions)
            && let Changes::Keys(changes) = &mut given.what
        {
            changes.iter_mut().for_each(|change| change.condition = Condition::None);
        }
        self.ledger.asked.push(Asked { node, disk, write, reply: None, is_lost: false });
        alive.replica.write(moment, &mut alive.keys, ticket, &given).expect("cells can be read");
        self.settle(node);
    }

    /// No two values are the same.
    fn value(&mut self) -> Value {
        let text = format!("{{\"write\":{}}}", self.ledger.asked.len());
        Value { is_json: true, bytes: text.into() }
    }

    fn some_write(&mut self, node: usize) -> Write {
        let count = if self.random.chance(100) { self.random.between(2, 4) } else { 1 };
        let changes = (0..count).map(|_| self.some_change(node)).collect();
        let durability = match self.random.below(10) {
            0 => Durability::Memory,
            1..=5 => Durability::Local,
            6 | 7 => Durability::Remote(1),
            8 => Durability::Remote(2),
            _ => Durability::All,
        };
        let patience = Duration::from_millis(self.random.pick(&[50, 1_000, 5_000]));
        Write { what: Changes::Keys(changes), durability, patience }
    }

    fn some_change(&mut self, node: usize) -> Change {
        // Registers, counters that nobody deletes, sets, and keys that are used as anything.
        // Of some nobody speaks any more after a while: what comes back there stays.
        let kind = self.random.pick(&['r', 'r', 'n', 's', 'm', 'c', 'c']);
        let number = if kind == 'c' { self.now_us / COLD_US } else { self.random.below(self.plan.keys) };
        let key = key(kind, number);
        let what = match kind {
            'r' => self.random.pick(&['p', 'p', 'p', 't', 'd', 'j']),
            'c' => self.random.pick(&['p', 't', 'd', 'd']),
            'n' => 'i',
            's' => self.random.pick(&['a', 'a', 'r']),
            _ => self.random.pick(&['p', 't', 'd', 'd', 'i', 'a', 'r']),
        };
        let element = |random: &mut crate::random::Random| format!("e{}", random.below(3));
        let kind = match what {
            'p' => ChangeKind::Put { value: self.value(), ttl: None },
            't' => {
                let ttl = Some(Duration::from_millis(self.random.between(100, 5_000)));
                ChangeKind::Put { value: self.value(), ttl }
            }
            'd' => ChangeKind::Delete,
            'j' => ChangeKind::Patch(serde_json::json!({ "patched": self.ledger.asked.len() })),
            'i' => ChangeKind::Increment(self.random.between(1, 5) as i64 - 2),
            'a' => ChangeKind::Add(element(&mut self.random)),
            _ => ChangeKind::Remove(element(&mut self.random)),
        };
        let condition = self.some_condition(node, &key);
        Change { key, condition, kind }
    }

    fn some_condition(&mut self, node: usize, key: &Key) -> Condition {
        let stamp = self.stamp(node, key).unwrap_or_default();
        match self.random.below(12) {
            0..=2 => Condition::Is(stamp),
            3 => Condition::IsNot(stamp),
            4 => Condition::Exists,
            5 => Condition::Absent,
            _ => Condition::None,
        }
    }

    /// The stamp that a reader there sees.
    fn stamp(&self, node: usize, key: &Key) -> Option<Stamp> {
        let alive = self.nodes[node].alive.as_ref()?;
        let cell = alive.keys.map.get(key)?;
        let seen: Option<Seen<'_>> = cell.seen(self.moment(node).unix_ms);
        seen.map(|_| cell.newest)
    }
}

/// Whether somebody waits whose patience must be over.
pub(super) fn waiting(ledger: &Ledger) -> usize {
    ledger.asked.iter().filter(|asked| asked.reply.is_none() && !asked.is_lost).count()
}
