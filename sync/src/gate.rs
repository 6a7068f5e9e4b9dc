//! Does this datacenter have the data? What its return waits for while it is catching up.

use std::fmt::Debug;
use std::time::Duration;

use crate::latest::latest;
use crate::store::status::StoreStatus;

/// A peer's link, as the gate sees it.
#[derive(Clone, Copy, Debug)]
pub struct PeerLink<'a> {
    /// The peer.
    pub peer: &'a str,
    /// Since when all questions to it were answered; none: they are not.
    pub up_since: Option<Duration>,
    /// Its front door is down too: it is not waited for.
    pub is_down: bool,
}

/// Whether the own data is what the others had when the return began.
pub trait Gate: Debug + Send {
    /// Asked again and again while a return is under way.
    ///
    /// # Errors
    /// What it waits for, for people.
    fn caught_up(&mut self, now: Duration, peers: &[PeerLink<'_>]) -> Result<(), String>;
}

/// Caught up is who has had its living peers' answers without a gap for some time. That is enough for an agent without a
/// store; with one, [`Watermark`] asks for more.
#[derive(Clone, Copy, Debug)]
pub struct PeersReachable {
    /// For how long.
    pub needed: Duration,
}

impl Gate for PeersReachable {
    fn caught_up(&mut self, now: Duration, peers: &[PeerLink<'_>]) -> Result<(), String> {
        if peers.iter().all(|peer| peer.up_since.is_none()) && !peers.is_empty() {
            return Err("no peer can be reached".to_owned());
        }
        for peer in peers {
            match peer.up_since {
                None if !peer.is_down => return Err(format!("{} cannot be reached", peer.peer)),
                Some(since) if now.saturating_sub(since) < self.needed => {
                    let seconds = self.needed.as_secs_f64();
                    return Err(format!("{} has not been reachable for {seconds} s", peer.peer));
                }
                None | Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Caught up is who can reach its living peers, and whose store says that it has what they had when it could reach them
/// again, and is close behind them now.
#[derive(Debug)]
pub struct Watermark {
    /// The peers.
    pub reachable: PeersReachable,
    /// What the store says of itself, always the newest.
    pub store: tokio::sync::watch::Receiver<std::sync::Arc<StoreStatus>>,
}

impl Gate for Watermark {
    fn caught_up(&mut self, now: Duration, peers: &[PeerLink<'_>]) -> Result<(), String> {
        self.reachable.caught_up(now, peers)?;
        match &latest(&self.store).waits_for {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_living_peer_must_have_answered_for_a_while() {
        let second = Duration::from_secs(1);
        let mut gate = PeersReachable { needed: 5 * second };
        let peer = |up: Option<u32>, is_down| PeerLink {
            peer: "seoul",
            up_since: up.map(|at| at * second),
            is_down,
        };
        let mut ask = |peers: &[PeerLink<'_>]| gate.caught_up(10 * second, peers).is_ok();
        assert!(ask(&[peer(Some(5), false)]) && !ask(&[peer(Some(6), false)]));
        assert!(!ask(&[peer(Some(1), false), peer(None, false)]), "one is cut off and alive");
        assert!(ask(&[peer(Some(1), false), peer(None, true)]), "one is dead");
        assert!(!ask(&[peer(None, true)]), "nobody to catch up with");
        assert!(ask(&[]), "alone in the fleet");
    }
}
