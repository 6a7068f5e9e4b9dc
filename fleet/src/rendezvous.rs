//! Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights after Schindelhauer and Schomaker 2005):
//! each candidate draws a score from the client's hash, the highest wins. When a candidate goes, only its own
//! clients move; when one returns, the same clients return.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// The score of one candidate for one client: `-weight / ln(u)`, u uniform in (0, 1). Weight 0 scores lowest.
///
/// `libm` computes the same bits on every machine, so that name servers agree.
pub(crate) fn score(client_hash: u64, candidate: u64, weight: u32) -> f64 {
    let u = (draw(client_hash, candidate) >> 11) as f64 + 0.5;
    let uniform = u / (1u64 << 53) as f64;
    -f64::from(weight) / libm::log(uniform)
}

/// Whether this client is among the first `percent` of a candidate's clients: the share of a ramp. A client that
/// is in at 10% is in at 25% too.
pub(crate) fn in_share(client_hash: u64, candidate: u64, percent: u8) -> bool {
    // Not the draw of `score`, or a ramp would pick just the clients that score high.
    draw(client_hash, candidate | 1 << 63) % 100 < u64::from(percent)
}

/// How much a server is the one for a key, for example a user's name: the highest has it.
pub fn affinity(key: &str, server: &str, weight: u32) -> f64 {
    score(candidate_id(key), candidate_id(server), weight)
}

fn draw(client_hash: u64, candidate: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(client_hash, candidate);
    hasher.write_u64(candidate);
    hasher.finish()
}

/// What tells candidates apart in the draw: their names, so that their order in the config does not matter.
pub(crate) fn candidate_id(name: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(name.as_bytes());
    hasher.finish() >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: u64 = 40_000;

    fn hash(client: u64) -> u64 {
        draw(client, 99)
    }

    fn winner(client: u64, candidates: &[(u64, u32)]) -> u64 {
        let score = |&(id, weight): &(u64, u32)| score(hash(client), id, weight);
        candidates.iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap().0
    }

    #[test]
    fn shares_follow_weights() {
        let candidates = [(candidate_id("seoul"), 70), (candidate_id("frankfurt"), 30)];
        let wins = (0..CLIENTS).filter(|&client| winner(client, &candidates) == candidates[0].0).count();
        let share = wins as f64 / CLIENTS as f64;
        assert!((share - 0.7).abs() < 0.01, "{share}");
    }

    #[test]
    fn only_the_clients_of_the_lost_one_move() {
        let all = [(candidate_id("a"), 50), (candidate_id("b"), 30), (candidate_id("c"), 20)];
        let without_b = [all[0], all[2]];
        for client in 0..2_000 {
            let before = winner(client, &all);
            if before != all[1].0 {
                assert_eq!(winner(client, &without_b), before);
            }
        }
    }

    #[test]
    fn ramps_grow_and_never_shuffle() {
        let id = candidate_id("seoul");
        for percent in [0, 10, 25, 50, 100] {
            let share = (0..CLIENTS).filter(|&client| in_share(hash(client), id, percent)).count() as f64
                / CLIENTS as f64;
            assert!((share - f64::from(percent) / 100.0).abs() < 0.01, "{percent}: {share}");
        }
        assert!((0..CLIENTS).all(|client| !in_share(hash(client), id, 10) || in_share(hash(client), id, 25)));
    }

    #[test]
    fn weight_zero_never_wins_against_another() {
        assert!((0..1_000).all(|client| score(hash(client), 5, 0) < score(hash(client), 6, 1)));
    }
}
