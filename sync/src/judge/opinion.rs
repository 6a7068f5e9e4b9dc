//! What one observer says of a datacenter by its votes on the servers there, and what a majority of observers makes of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use daemun_fleet::Config;
use daemun_fleet::config::{Check, DOOR_ROLE, Server};
use daemun_fleet::view::{Health, ServerView};

use super::Bench;
use crate::facts::{Body, Fact, Facts};
use crate::health::Verdict;

/// What an observer says of a datacenter, and the vote that decided.
pub(super) struct Opinion<'a> {
    pub(super) verdict: Verdict,
    /// Down by so long bursts that it may decide alone.
    pub(super) is_sure: bool,
    pub(super) fact: &'a Fact,
}

/// A datacenter is down when all its front doors are, or when of a required role too few servers are up. None: the
/// observer has not voted on enough of them.
pub(super) fn opinion<'a>(
    config: &Config,
    facts: &'a Facts,
    author: &str,
    subject: usize,
) -> Option<Opinion<'a>> {
    let of_role = |role: &str| -> Vec<Option<Opinion<'a>>> {
        let servers = config.fleet.servers_of(subject, role).filter(|server| server.check != Check::None);
        servers.map(|server| of_server(facts, author, server)).collect()
    };
    let doors = of_role(DOOR_ROLE);
    // A door that nobody looks at counts as up.
    let mut all_doors = config.fleet.servers_of(subject, DOOR_ROLE);
    let has_unchecked = all_doors.any(|door| door.check == Check::None);
    let by_doors = share(&doors, usize::from(!has_unchecked)).or_else(|| newest(&doors, Verdict::Up));
    let short = config.sync.required.iter().find_map(|(role, percent)| {
        let servers = of_role(role);
        let needed = (servers.len() * usize::from(*percent)).div_ceil(100);
        share(&servers, needed)
    });
    match (by_doors, short) {
        (Some(doors), Some(short)) if doors.verdict == Verdict::Up => Some(short),
        (None, short) => short,
        (doors, _) => doors,
    }
}

/// Down, if fewer than `needed` can be up; none else.
fn share<'a>(servers: &[Option<Opinion<'a>>], needed: usize) -> Option<Opinion<'a>> {
    let down = servers.iter().flatten().filter(|opinion| opinion.verdict == Verdict::Down).count();
    if servers.is_empty() || servers.len() - down >= needed {
        return None;
    }
    newest(servers, Verdict::Down)
}

/// The last of the votes that say so.
fn newest<'a>(servers: &[Option<Opinion<'a>>], verdict: Verdict) -> Option<Opinion<'a>> {
    let of = servers.iter().flatten().filter(|opinion| opinion.verdict == verdict);
    let is_sure = of.clone().all(|opinion| opinion.is_sure);
    of.max_by_key(|opinion| opinion.fact.at_unix_ms).map(|opinion| Opinion {
        verdict,
        is_sure,
        fact: opinion.fact,
    })
}

/// A server is up when any of its addresses is, and down when all are.
fn of_server<'a>(facts: &'a Facts, author: &str, server: &Server) -> Option<Opinion<'a>> {
    let votes: Vec<_> =
        server.addresses.iter().map(|address| facts.vote(author, &server.name, *address)).collect();
    if let Some((verdict, fact)) = votes.iter().flatten().find(|(verdict, _)| *verdict == Verdict::Up) {
        return Some(Opinion { verdict: *verdict, is_sure: false, fact });
    }
    let all = votes.into_iter().collect::<Option<Vec<_>>>()?;
    if all.iter().any(|(verdict, _)| *verdict == Verdict::Unknown) {
        return None;
    }
    // The last to go decided.
    let is_sure = all.iter().all(|(_, fact)| Facts::is_sure(fact));
    let (verdict, fact) = all.into_iter().max_by_key(|(_, fact)| fact.at_unix_ms)?;
    Some(Opinion { verdict, is_sure, fact })
}

/// Somebody says down, of a door or of the whole: what is answered may change soon.
pub(super) fn is_suspected(bench: &Bench<'_>, subject: usize, deciding: &[usize]) -> bool {
    let says_down = |author: &usize| {
        let name = bench.names[*author];
        let is_down = |opinion: &Opinion<'_>| opinion.verdict == Verdict::Down;
        let mut doors = bench.config.fleet.servers_of(subject, DOOR_ROLE);
        bench.opinions[*author][subject].as_ref().is_some_and(is_down)
            || doors.any(|door| of_server(bench.facts, name, door).as_ref().is_some_and(is_down))
    };
    deciding.iter().any(says_down)
}

/// The views of a datacenter's servers.
pub(super) fn servers(bench: &Bench<'_>, subject: usize) -> Vec<(String, ServerView)> {
    let deciding = bench.deciding(subject);
    let servers = bench.config.fleet.servers.iter().filter(|server| server.datacenter == subject);
    servers.map(|server| (server.name.clone(), server_view(bench, server, &deciding))).collect()
}

fn server_view(bench: &Bench<'_>, server: &Server, deciding: &[usize]) -> ServerView {
    if server.check == Check::None {
        return ServerView::new(Health::Unknown, "not checked");
    }
    let tally = |address: &IpAddr| {
        let votes = deciding
            .iter()
            .filter(|&&author| !bench.is_blind(author, address))
            .filter_map(|&author| bench.facts.vote(bench.names[author], &server.name, *address));
        let votes = votes.filter(|(verdict, _)| *verdict != Verdict::Unknown);
        Tally::of(votes.map(|(verdict, fact)| (verdict, Facts::is_sure(fact), fact)))
    };
    let tallies: Vec<(IpAddr, Tally)> =
        server.addresses.iter().map(|address| (*address, tally(address))).collect();
    let down: Vec<IpAddr> =
        tallies.iter().filter(|(_, tally)| tally.is_down).map(|(address, _)| *address).collect();
    // What is shown is what decided: a vote for up, else the last that went down.
    let is_up = |tally: &Tally| !tally.is_down && tally.all > 0;
    let shown = tallies
        .iter()
        .find(|(_, tally)| is_up(tally))
        .or_else(|| tallies.iter().max_by_key(|(_, tally)| (tally.all > 0, tally.since)));
    let Some((_, tally)) = shown.filter(|(_, tally)| tally.all > 0) else {
        let nobody = if deciding.is_empty() { "nobody else is left to look" } else { "not observed" };
        return ServerView::new(Health::Unknown, nobody);
    };
    let all_down = down.len() == tallies.len();
    let health = if all_down { Health::Down } else { Health::Up };
    let why = match down.is_empty() || all_down {
        true => tally.why.clone(),
        false => {
            let list = down.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("{}; but not at {list}", tally.why)
        }
    };
    let down = if all_down { Vec::new() } else { down };
    ServerView { since_unix_ms: tally.since, down, ..ServerView::new(health, why) }
}

/// While automation is paused, addresses of servers are as they were.
pub(super) fn keep(config: &Config, servers: &mut BTreeMap<String, ServerView>, down: &[(String, IpAddr)]) {
    for server in config.fleet.servers.iter().filter(|server| server.check != Check::None) {
        let Some(view) = servers.get_mut(&server.name) else { continue };
        let of_server = down.iter().filter(|(name, _)| *name == server.name).map(|(_, address)| *address);
        let kept: Vec<IpAddr> = of_server.filter(|address| server.addresses.contains(address)).collect();
        let all_down = kept.len() == server.addresses.len();
        let health = match (all_down, view.health) {
            (true, _) => Health::Down,
            (false, Health::Unknown) => Health::Unknown,
            (false, _) => Health::Up,
        };
        let kept = if all_down { Vec::new() } else { kept };
        if (health, &kept) != (view.health, &view.down) {
            view.why = format!("automation is paused; else: {}", view.why);
            (view.health, view.down) = (health, kept);
        }
    }
}

/// In a datacenter that is pinned to a state in which it is used, a role whose servers are all down is used all the same:
/// else the pin would say one thing and the answers another. While some are up they do.
pub(super) fn use_all(config: &Config, datacenter: usize, servers: &mut BTreeMap<String, ServerView>) {
    let is_down = |servers: &BTreeMap<String, ServerView>, name: &str| {
        servers.get(name).is_some_and(|view| view.health == Health::Down)
    };
    let of_datacenter = config.fleet.servers.iter().filter(|server| server.datacenter == datacenter);
    for role in of_datacenter.map(|server| server.role.as_str()) {
        let of_role = || config.fleet.servers_of(datacenter, role).map(|server| server.name.as_str());
        if !of_role().all(|name| is_down(servers, name)) {
            continue;
        }
        for name in of_role() {
            if let Some(view) = servers.get_mut(name) {
                view.health = Health::Up;
                view.why = format!("the datacenter is pinned; else: {}", view.why);
            }
        }
    }
}

/// A majority, and its reasons.
pub(super) struct Tally {
    pub(super) is_down: bool,
    /// How many say down.
    pub(super) down: usize,
    /// How many say anything.
    pub(super) all: usize,
    pub(super) why: String,
    pub(super) since: u64,
}

impl Tally {
    /// Of votes, whether each is sure, and their facts.
    pub(super) fn of<'a>(votes: impl Iterator<Item = (Verdict, bool, &'a Fact)>) -> Self {
        let votes: Vec<(Verdict, bool, &Fact)> = votes.collect();
        let says_down = || votes.iter().filter(|(verdict, ..)| *verdict == Verdict::Down);
        let down: Vec<&Fact> = says_down().map(|(.., fact)| *fact).collect();
        // Two have looked for themselves; one alone must have looked for longer.
        let is_enough = down.len() > 1 || says_down().all(|(_, is_sure, _)| *is_sure);
        let is_down = down.len() * 2 > votes.len() && is_enough;
        let deciding = votes.iter().filter(|(verdict, ..)| (*verdict == Verdict::Down) == is_down);
        let since = deciding.map(|(.., fact)| fact.at_unix_ms).max().unwrap_or(0);
        let authors =
            |facts: &[&Fact]| facts.iter().map(|fact| fact.author.as_str()).collect::<Vec<_>>().join(", ");
        let reason = |fact: &Fact| match &fact.body {
            Body::Vote { why, .. } => why.clone(),
            _ => String::new(),
        };
        let why = match down.first() {
            None if votes.is_empty() => "not observed".to_owned(),
            None => {
                let up: Vec<&Fact> = votes.iter().map(|(.., fact)| *fact).collect();
                format!("seen by {}", authors(&up))
            }
            Some(first) => {
                format!("{} of {} say down ({}): {}", down.len(), votes.len(), authors(&down), reason(first))
            }
        };
        Self { is_down, down: down.len(), all: votes.len(), why, since }
    }
}
