//! What goes over the streams.

use daemun_sync::store::feed::{Down, Feeder, Up, VERSION, compare};
use daemun_sync::store::journal::Journal as _;
use daemun_sync::store::verify;

use super::stream::{Message, Pair, Stream, WINDOW};
use super::world::{Event, Node, World};

/// Time between two words of a feeder that has nothing to send.
const WORD_US: u64 = 500_000;
/// Pause after a stream that ended.
const RETRY_US: u64 = 300_000;
/// A stream that is cut in one way is given up after so long, at most.
const NOTICED_US: u64 = 3_000_000;
const FLEET: &str = "shop";

impl World {
    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from][to].value.cuts > 0
    }

    pub(super) fn connect(&mut self, pair: Pair) {
        let (follower, feeder) = pair;
        if self.nodes[follower].alive.is_none() || self.streams.contains_key(&pair) {
            return;
        }
        let is_there = self.nodes[feeder].alive.is_some();
        if !is_there || self.is_cut(follower, feeder) || self.is_cut(feeder, follower) {
            let wait = self.random.between(RETRY_US, 4 * RETRY_US);
            self.later(wait, Event::Connect(pair));
            return;
        }
        let now = self.moment(follower).now;
        let id = self.number();
        self.streams.insert(pair, Stream::new(id, self.now_us));
        let name = self.nodes[feeder].name.clone();
        let Some(alive) = &self.nodes[follower].alive else { return };
        let wants = alive.replica.wants(&name, now);
        let (word, after) = (alive.replica.word(), alive.replica.after());
        let begin =
            Up::Begin { version: VERSION, fleet: FLEET.to_owned(), word, after, wants: wants.clone() };
        if let Some(stream) = self.streams.get_mut(&pair) {
            stream.wants = wants;
        }
        self.send_up(pair, begin);
    }

    pub(super) fn hang_up(&mut self, pair: Pair, why: &str) {
        if self.streams.remove(&pair).is_none() {
            return;
        }
        self.tell(|| format!("dc{} follows dc{} no more: {why}", pair.0, pair.1));
        let wait = self.random.between(RETRY_US, 2 * RETRY_US);
        self.later(wait, Event::Connect(pair));
    }

    /// A way is cut: what is on it is gone, and nothing that comes after it arrives.
    pub(super) fn break_streams(&mut self, from: usize, to: usize) {
        let noticed = self.random.below(NOTICED_US);
        let at_us = self.now_us + noticed;
        let mut ends = Vec::new();
        for (pair, is_up) in [((from, to), true), ((to, from), false)] {
            if let Some(stream) = self.streams.get_mut(&pair) {
                *(if is_up { &mut stream.is_up_broken } else { &mut stream.is_down_broken }) = true;
                ends.push(Event::Ends(pair, stream.id));
            }
        }
        for end in ends {
            self.schedule(at_us, end);
        }
    }

    fn send_up(&mut self, pair: Pair, message: Up) {
        let delay = self.delay(pair.0, pair.1);
        let now_us = self.now_us;
        let Some(stream) = self.streams.get_mut(&pair).filter(|stream| !stream.is_up_broken) else { return };
        stream.last_up_us = stream.last_up_us.max(now_us + delay);
        let (at, id) = (stream.last_up_us, stream.id);
        self.schedule(at, Event::Arrive(pair, id, Box::new(Message::Up(message))));
    }

    fn send_down(&mut self, pair: Pair, message: Down) {
        let delay = self.delay(pair.1, pair.0);
        let now_us = self.now_us;
        let Some(stream) = self.streams.get_mut(&pair).filter(|stream| !stream.is_down_broken) else {
            return;
        };
        stream.under_way += 1;
        stream.last_down_us = stream.last_down_us.max(now_us + delay);
        let (at, id) = (stream.last_down_us, stream.id);
        self.schedule(at, Event::Arrive(pair, id, Box::new(Message::Down(message))));
    }

    fn delay(&mut self, from: usize, to: usize) -> u64 {
        let link = self.links[from][to].value;
        link.delay_us + link.slow_us + self.random.below(1 + link.delay_us / 10)
    }

    pub(super) fn arrive(&mut self, pair: Pair, id: u64, message: Message) {
        let Some(stream) = self.streams.get_mut(&pair).filter(|stream| stream.id == id) else { return };
        match message {
            // Lost on the way, when the way was cut.
            Message::Up(_) if stream.is_up_broken => {}
            Message::Down(_) if stream.is_down_broken => {}
            Message::Up(message) => self.up(pair, message),
            Message::Down(message) => {
                stream.under_way -= 1;
                self.down(pair, message);
                self.pump(pair);
            }
        }
    }

    /// At the feeder.
    fn up(&mut self, pair: Pair, message: Up) {
        let (follower, feeder) = pair;
        let moment = self.moment(feeder);
        let name = self.nodes[follower].name.clone();
        let Some(alive) = &mut self.nodes[feeder].alive else { return };
        let Some(stream) = self.streams.get_mut(&pair) else { return };
        match message {
            Up::Begin { word, after, wants, .. } => {
                if let Err(why) = alive.replica.hear(moment, &name, &word) {
                    return self.hang_up(pair, &why.to_string());
                }
                stream.feeder = Some(Feeder::new(&word.me, after, wants));
                stream.follower = Some(word.me);
                let word = alive.replica.word();
                self.send_down(pair, Down::Begin { version: VERSION, fleet: FLEET.to_owned(), word });
                self.renew_if_other(feeder);
            }
            Up::After { received, wants } => {
                if let Some(follower) = &stream.follower {
                    alive.replica.confirmed(moment, &name, follower, &received);
                }
                if let (Some(feeder), Some(wants)) = (&mut stream.feeder, wants) {
                    feeder.want(wants);
                }
            }
            Up::Compare(range) => {
                let answer = compare(&alive.keys, range).expect("cells can be read");
                self.send_down(pair, answer);
            }
        }
        self.settle(feeder);
        self.pump(pair);
    }

    /// At the follower.
    fn down(&mut self, pair: Pair, message: Down) {
        let (follower, feeder) = pair;
        let moment = self.moment(follower);
        let name = self.nodes[feeder].name.clone();
        let Node { disk, alive: Some(alive), .. } = &mut self.nodes[follower] else { return };
        if let (Down::Begin { .. }, Some(stream)) = (&message, self.streams.get_mut(&pair)) {
            stream.has_begun = true;
        }
        match alive.replica.take(moment, &mut alive.keys, &name, message) {
            Ok(took) => {
                if took.is_end_of_cells {
                    disk.keep(&alive.replica, &alive.keys);
                    for (origin, floor) in alive.replica.to_begin_at() {
                        disk.journal.begin_at(origin, floor).expect("in memory");
                    }
                }
            }
            Err(why) => self.hang_up(pair, &why.to_string()),
        }
        self.renew_if_other(follower);
        self.settle(follower);
    }

    /// A store that has become another one begins all its streams anew.
    fn renew_if_other(&mut self, node: usize) {
        let Some(alive) = &self.nodes[node].alive else { return };
        if self.nodes[node].disk.origin.as_ref() == Some(alive.replica.origin()) {
            return;
        }
        let me = alive.replica.origin().clone();
        self.tell(|| format!("dc{node} is {me} now"));
        self.nodes[node].disk.origin = Some(me);
        self.nodes[node].disk.is_new = true;
        for pair in self.pairs_of(node) {
            self.hang_up(pair, "a new incarnation");
        }
    }

    /// Sends what there is room for.
    pub(super) fn pump(&mut self, pair: Pair) {
        let Node { disk, alive: Some(alive), .. } = &mut self.nodes[pair.1] else { return };
        if alive.replica.origins().count() != alive.origins.len() {
            alive.origins = alive.replica.origins().map(|origin| (origin.id(), origin.clone())).collect();
        }
        let mut messages = Vec::new();
        let Some(stream) = self.streams.get_mut(&pair) else { return };
        let Some(feeder) = &mut stream.feeder else { return };
        while stream.under_way + messages.len() < WINDOW {
            match feeder.next(&disk.journal, &alive.keys, &alive.origins).expect("the journal can be read") {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        for message in messages {
            self.send_down(pair, message);
        }
    }

    /// Who it is and what it has, again, to those who have not heard it for long.
    pub(super) fn say_words(&mut self, node: usize) {
        let now_us = self.now_us;
        for pair in self.pairs_of(node) {
            let Some(alive) = &self.nodes[node].alive else { return };
            let Some(stream) = self.streams.get_mut(&pair) else { continue };
            if pair.1 == node && stream.feeder.is_some() && now_us >= stream.word_at_us {
                stream.word_at_us = now_us + WORD_US;
                let word = alive.replica.word();
                self.send_down(pair, Down::Heard(word));
            } else if pair.0 == node && stream.has_begun && now_us >= stream.compare_at_us {
                self.compare(pair);
            }
        }
        self.say_after(node, true);
    }

    fn compare(&mut self, pair: Pair) {
        let unix_ms = self.moment(pair.0).unix_ms;
        let wait = self.plan.compare_us;
        let Some(alive) = &self.nodes[pair.0].alive else { return };
        let Some(stream) = self.streams.get_mut(&pair) else { return };
        stream.compare_at_us = self.now_us + wait;
        let range = verify::next(&alive.keys, stream.compared.clone(), unix_ms).expect("cells can be read");
        stream.compared.clone_from(&range.upto);
        self.send_up(pair, Up::Compare(range));
    }

    /// What has become durable, and whose logs are wanted.
    pub(super) fn say_after(&mut self, node: usize, with_wants: bool) {
        let now = self.moment(node).now;
        for pair in self.pairs_of(node).into_iter().filter(|(follower, _)| *follower == node) {
            let peer = self.nodes[pair.1].name.clone();
            let Some(alive) = &self.nodes[node].alive else { return };
            let Some(stream) = self.streams.get_mut(&pair).filter(|stream| stream.has_begun) else {
                continue;
            };
            let wants = if with_wants { alive.replica.wants(&peer, now) } else { stream.wants.clone() };
            let received = alive.replica.received();
            if stream.said == *received && stream.wants == wants {
                continue;
            }
            stream.said.clone_from(received);
            let news = (stream.wants != wants).then(|| wants.clone());
            stream.wants = wants;
            let after = Up::After { received: received.clone(), wants: news };
            self.send_up(pair, after);
        }
    }
}
