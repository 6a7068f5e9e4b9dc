//! Facts: what agents tell each other. Each author numbers its own; a fact is written only when something changes
//! and replaces the author's earlier fact on the same subject. Who has an author's facts up to number N knows all
//! that the author had to say when it wrote N.
//!
//! An author that starts begins a new *life*: it numbers on from the clock (or from the highest number known of it, if
//! that is higher), and whoever hears a fact of the new life forgets the old ones. So no number is used twice, even when
//! a disk was lost or an old backup put back while no peer could be asked, and whoever has heard the same number of an
//! author has the same facts of it.
//!
//! Pure: no disk, no network. [`Facts::after`] gives what a peer lacks, [`Facts::merge`] takes what a peer gave.

use std::collections::BTreeMap;
use std::net::IpAddr;

use daemun_fleet::view::Frontier;
use serde::{Deserialize, Serialize};

use crate::admission::Admitted;
use crate::health::Verdict;
use crate::orders::{About, Order};

/// One numbered entry of its author's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The datacenter whose agent wrote it.
    pub author: String,
    /// From 1, rising, never used twice.
    pub number: u64,
    /// When, by the author's clock, milliseconds of Unix time: for people, not for decisions.
    pub at_unix_ms: u64,
    /// What it says.
    pub body: Body,
}

/// What a fact says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Body {
    /// How the author sees one address of a server.
    Vote {
        /// Name of the server.
        server: String,
        /// The address.
        address: IpAddr,
        /// Up or down, or unknown: it is no longer looked at.
        verdict: Verdict,
        /// Down by so long a burst that one observer may decide alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_sure: bool,
        /// What the probes said.
        why: String,
    },
    /// The author's private link to another. Who is called cut off is also called *silent*, until a fact of its own with a
    /// number above `heard` refutes that.
    Link {
        /// The other.
        peer: String,
        /// Whether it answers.
        is_up: bool,
        /// Its newest fact known when this was written.
        heard: u64,
        /// What the link said.
        why: String,
    },
    /// I am here: the first word of a life, and what refutes being called silent.
    Here,
    /// How far the author would let a datacenter's users back in.
    Admission {
        /// The datacenter.
        datacenter: String,
        /// How far.
        admitted: Admitted,
    },
    /// Whether the author itself has the data that the others had when its return number `episode` began.
    CaughtUp {
        /// The return.
        episode: u64,
        /// Whether it has.
        is_so: bool,
        /// What it waits for.
        why: String,
    },
    /// An operator's word. Every agent that hears it writes it in its own log too, so that it outlives any of them.
    Order(Order),
    /// How far a datacenter has been drained.
    Drained {
        /// The datacenter.
        datacenter: String,
        /// Revision of the order to drain it.
        revision: u64,
        /// The percentage of its users that it still gets; `None`: it is empty.
        percent: Option<u8>,
    },
    /// What the author's datacenter measured, a second, by ranking class.
    Rates {
        /// Requests at its doors.
        requests: BTreeMap<String, u32>,
        /// Queries for steered names at its name servers.
        queries: BTreeMap<String, u32>,
    },
}

impl Body {
    fn subject(&self) -> Subject {
        match self {
            Body::Vote { server, address, .. } => Subject::Server(server.clone(), *address),
            Body::Link { peer, .. } => Subject::Link(peer.clone()),
            Body::Here => Subject::Oneself,
            Body::Admission { datacenter, .. } => Subject::Admission(datacenter.clone()),
            Body::CaughtUp { .. } => Subject::CaughtUp,
            Body::Order(order) => Subject::Order(order.about.clone()),
            Body::Drained { datacenter, .. } => Subject::Drained(datacenter.clone()),
            Body::Rates { .. } => Subject::Rates,
        }
    }
}

/// What a fact is about: a newer fact of the same author on it replaces the older.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Server(String, IpAddr),
    Link(String),
    Oneself,
    Admission(String),
    CaughtUp,
    Order(About),
    Drained(String),
    Rates,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct AuthorLog {
    /// Number of the newest fact, whether or not it is still the last word on its subject.
    head: u64,
    /// First number of the author's life: facts before it are forgotten.
    birth: u64,
    latest: BTreeMap<Subject, Fact>,
}

/// All facts heard, by author.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    authors: BTreeMap<String, AuthorLog>,
}

/// Facts on their way: to a peer or to the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// What the receiver must know already: the rest is not repeated.
    #[serde(default)]
    pub after: Frontier,
    /// How far the sender has heard each author.
    pub frontier: Frontier,
    /// First number of the life that each author is in.
    #[serde(default)]
    pub births: BTreeMap<String, u64>,
    /// All facts in force that the receiver lacks.
    pub facts: Vec<Fact>,
}

impl Facts {
    /// How far each author is known.
    pub fn frontier(&self) -> Frontier {
        Frontier(self.authors.iter().map(|(author, log)| (author.clone(), log.head)).collect())
    }

    /// All facts in force that one who has heard `frontier` lacks.
    pub fn after(&self, frontier: &Frontier) -> Batch {
        let lacking = |(author, log): (&String, &AuthorLog)| {
            let heard = frontier.of(author);
            log.latest.values().filter(move |fact| fact.number > heard).cloned().collect::<Vec<_>>()
        };
        Batch {
            after: frontier.clone(),
            frontier: self.frontier(),
            births: self.authors.iter().map(|(author, log)| (author.clone(), log.birth)).collect(),
            facts: self.authors.iter().flat_map(lacking).collect(),
        }
    }

    /// Takes in what another gave, asked for with our frontier at that time: true when anything was new. A batch is a
    /// whole: it carries everything up to its frontier. In any order, more than once, it does no harm.
    pub fn merge(&mut self, batch: &Batch) -> bool {
        let mut news = false;
        for (author, &head) in &batch.frontier.0 {
            // Nothing new; or it builds on what is not known here: an answer that was meant for another life.
            if head <= self.head(author) || self.head(author) < batch.after.of(author) {
                continue;
            }
            let log = self.authors.entry(author.clone()).or_default();
            log.birth = log.birth.max(batch.births.get(author).copied().unwrap_or(0));
            log.latest.retain(|_, fact| fact.number >= log.birth);
            for fact in batch.facts.iter().filter(|fact| fact.author == *author && fact.number <= head) {
                let subject = fact.body.subject();
                if log.latest.get(&subject).is_none_or(|known| known.number < fact.number) {
                    log.latest.insert(subject, fact.clone());
                }
            }
            log.head = head;
            news = true;
        }
        news
    }
}

impl Facts {
    /// Number of an author's newest fact.
    pub fn head(&self, author: &str) -> u64 {
        self.authors.get(author).map_or(0, |log| log.head)
    }

    /// Names of all authors, known to the config or not.
    pub fn authors(&self) -> impl Iterator<Item = &str> {
        self.authors.keys().map(String::as_str)
    }

    /// Begins a new life of one's own: what one said before is forgotten. Its first fact is [`Body::Here`], with a number
    /// of at least `at_least`, higher than any that is known.
    pub fn begin_life(&mut self, author: &str, at_least: u64, at_unix_ms: u64) {
        let head = self.head(author).max(at_least.saturating_sub(1));
        self.authors.insert(author.to_owned(), AuthorLog { head, birth: head + 1, latest: BTreeMap::new() });
        self.append(author, at_unix_ms, Body::Here);
    }

    /// Appends a fact of one's own.
    pub fn append(&mut self, author: &str, at_unix_ms: u64, body: Body) {
        let log = self.authors.entry(author.to_owned()).or_default();
        log.head += 1;
        let fact = Fact { author: author.to_owned(), number: log.head, at_unix_ms, body };
        log.latest.insert(fact.body.subject(), fact);
    }

    /// Appends a fact of one's own unless it is in force already; true if it was not.
    pub fn state(&mut self, author: &str, at_unix_ms: u64, body: Body) -> bool {
        let said = self.authors.get(author).and_then(|log| log.latest.get(&body.subject()));
        let is_news = said.is_none_or(|said| said.body != body);
        if is_news {
            self.append(author, at_unix_ms, body);
        }
        is_news
    }

    /// Facts in force of one author.
    pub fn of<'a>(&'a self, author: &str) -> impl Iterator<Item = &'a Fact> {
        self.authors.get(author).into_iter().flat_map(|log| log.latest.values())
    }

    fn on(&self, author: &str, subject: &Subject) -> Option<&Fact> {
        self.authors.get(author)?.latest.get(subject)
    }

    /// An author's vote on an address of a server, and the fact that holds it.
    pub fn vote(&self, author: &str, server: &str, address: IpAddr) -> Option<(Verdict, &Fact)> {
        let fact = self.on(author, &Subject::Server(server.to_owned(), address))?;
        match &fact.body {
            Body::Vote { verdict, .. } => Some((*verdict, fact)),
            _ => None,
        }
    }

    /// Whether a vote for down is by so long a burst that one observer may decide alone.
    pub fn is_sure(fact: &Fact) -> bool {
        matches!(fact.body, Body::Vote { is_sure: true, .. })
    }

    /// How far an author would let a datacenter's users back in.
    pub fn admission(&self, author: &str, datacenter: &str) -> Option<(&Admitted, &Fact)> {
        let fact = self.on(author, &Subject::Admission(datacenter.to_owned()))?;
        match &fact.body {
            Body::Admission { admitted, .. } => Some((admitted, fact)),
            _ => None,
        }
    }

    /// What a datacenter says of its own data: for which return, whether it has it, and what it waits for.
    pub fn caught_up(&self, author: &str) -> Option<(u64, bool, &str)> {
        match &self.on(author, &Subject::CaughtUp)?.body {
            Body::CaughtUp { episode, is_so, why } => Some((*episode, *is_so, why)),
            _ => None,
        }
    }

    /// An author's newest word of an operator about something.
    pub fn order(&self, author: &str, about: &About) -> Option<&Order> {
        match &self.on(author, &Subject::Order(about.clone()))?.body {
            Body::Order(order) => Some(order),
            _ => None,
        }
    }

    /// How far a datacenter has been drained under an order, as far as anyone has said: the least.
    pub fn drained(&self, datacenter: &str, revision: u64) -> Option<(Option<u8>, &Fact)> {
        let subject = Subject::Drained(datacenter.to_owned());
        let said = self.authors.values().filter_map(|log| log.latest.get(&subject));
        let of_order = said.filter_map(|fact| match &fact.body {
            Body::Drained { revision: of, percent, .. } if *of == revision => Some((*percent, fact)),
            _ => None,
        });
        of_order.min_by_key(|(percent, _)| *percent)
    }

    /// What an author says of its link to another, and the fact that holds it.
    pub fn link(&self, author: &str, peer: &str) -> Option<(bool, &Fact)> {
        let fact = self.on(author, &Subject::Link(peer.to_owned()))?;
        match &fact.body {
            Body::Link { is_up, .. } => Some((*is_up, fact)),
            _ => None,
        }
    }

    /// Whether `other` says, without having been refuted, that `author` is silent.
    pub fn is_called_silent_by(&self, author: &str, other: &str) -> bool {
        let claim = self.on(other, &Subject::Link(author.to_owned()));
        claim.is_some_and(|fact| match fact.body {
            Body::Link { is_up: false, heard, .. } => heard >= self.head(author),
            _ => false,
        })
    }

    /// Whether anyone says so.
    pub fn is_called_silent(&self, author: &str) -> bool {
        self.authors.keys().any(|other| other != author && self.is_called_silent_by(author, other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn vote(server: &str, verdict: Verdict) -> Body {
        Body::Vote { server: server.to_owned(), address: ADDRESS, verdict, is_sure: true, why: String::new() }
    }

    fn silent(author: &str, number: u64) -> Body {
        Body::Link { peer: author.to_owned(), is_up: false, heard: number, why: String::new() }
    }

    #[test]
    fn a_newer_fact_replaces_and_numbers_go_on() {
        let mut facts = Facts::default();
        facts.append("seoul", 1, vote("door", Verdict::Up));
        facts.append("seoul", 2, vote("door", Verdict::Down));
        assert_eq!((facts.head("seoul"), facts.of("seoul").count()), (2, 1));
        assert_eq!(
            facts.vote("seoul", "door", ADDRESS).map(|(verdict, fact)| (verdict, fact.number)),
            Some((Verdict::Down, 2))
        );
    }

    #[test]
    fn silence_is_refuted_by_any_later_fact() {
        let mut facts = Facts::default();
        facts.append("virginia", 1, Body::Here);
        facts.append("seoul", 2, silent("virginia", 1));
        assert!(facts.is_called_silent("virginia"));
        facts.append("virginia", 3, Body::Here);
        assert!(!facts.is_called_silent("virginia"));
    }

    /// What was found: an author with an empty disk numbered anew while its peers could not be asked, and two agents had
    /// other facts under the same frontier.
    #[test]
    fn a_new_life_uses_no_number_twice_and_takes_back_old_words() {
        let mut peer = Facts::default();
        peer.append("seoul", 1, vote("door", Verdict::Up));
        peer.append("seoul", 2, silent("virginia", 0));
        let mut born_again = Facts::default();
        born_again.begin_life("seoul", 1000, 8);
        born_again.append("seoul", 9, vote("door", Verdict::Down));
        assert_eq!(born_again.head("seoul"), 1001);
        assert!(peer.is_called_silent("virginia"));
        assert!(peer.merge(&born_again.after(&peer.frontier())));
        assert_eq!(peer, born_again);
        assert!(!peer.is_called_silent("virginia"), "nothing of the old life is left");
        // A clock that went back: what is known counts.
        born_again.begin_life("seoul", 5, 10);
        assert_eq!(born_again.head("seoul"), 1002);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write { author: usize, server: u8, up: bool },
        Restart { author: usize, clock: u64 },
        Pull { from: usize, to: usize, lost: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3usize, 0..4u8, any::<bool>()).prop_map(|(author, server, up)| Step::Write {
                author,
                server,
                up
            }),
            (0..3usize, 0..3usize, any::<bool>()).prop_map(|(from, to, lost)| Step::Pull { from, to, lost }),
            (0..3usize, 0..200u64).prop_map(|(author, clock)| Step::Restart { author, clock }),
        ]
    }

    proptest! {
        /// In any order of writing and pulling, with answers lost or late, heads never fall, and once everyone has
        /// pulled from everyone all have the same facts.
        #[test]
        fn pulling_converges(steps in prop::collection::vec(step(), 0..120)) {
            let names = ["seoul", "frankfurt", "virginia"];
            let mut all = [Facts::default(), Facts::default(), Facts::default()];
            let mut late: Vec<(usize, Batch)> = Vec::new();
            for step in steps {
                match step {
                    Step::Write { author, server, up } => {
                        let verdict = if up { Verdict::Up } else { Verdict::Down };
                        all[author].append(names[author], 0, vote(&server.to_string(), verdict));
                    }
                    Step::Restart { author, clock } => all[author].begin_life(names[author], clock, 0),
                    Step::Pull { from, to, lost } => {
                        let batch = all[from].after(&all[to].frontier());
                        if lost { late.push((to, batch)) } else { all[to].merge(&batch); }
                    }
                }
            }
            for (to, batch) in late {
                let before = all[to].frontier();
                all[to].merge(&batch);
                prop_assert!(all[to].frontier().covers(&before));
            }
            for _ in 0..2 {
                for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
                    let batch = all[from].after(&all[to].frontier());
                    all[to].merge(&batch);
                }
            }
            prop_assert_eq!(&all[0], &all[1]);
            prop_assert_eq!(&all[1], &all[2]);
        }
    }
}
