//! What holds when the config is silent, each with its reason.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A failover reaches users after detection plus this, so it is short; resolvers bear it well.
pub(super) const TTL_SECONDS: u32 = 30;
/// While an answer may change soon: long enough for a page and its parts, short enough that the change is felt.
pub(super) const TTL_CHANGING_SECONDS: u32 = 5;
/// One datacenter: what is named is what was chosen.
pub(super) const ANSWERS: usize = 1;
/// More than this is a list, not an answer.
pub(super) const ANSWERS_MAX: i64 = 8;
/// Same answers a second to a network: far above what a network of resolvers asks of one name with its time to live,
/// and still only a few megabits a second for whoever's address is forged.
pub(super) const ANSWERS_PER_SECOND: u32 = 1000;
/// Every second one cut: a real client gets through with its second try.
pub(super) const SLIP: u32 = 2;
/// Nobody can forge a source within the machine.
pub(super) const RATE_LIMIT_EXEMPT: [&str; 2] = ["127.0.0.0/8", "::1/128"];
/// Holds the name servers of a zone with their addresses for the shortest question; below what open amplifiers give.
pub(super) const AMPLIFICATION_MAX: u16 = 12;

/// Below a minute's traffic nothing is gained by caching longer than a day.
pub(super) const TTL_SECONDS_MAX: i64 = 86_400;
/// The role whose servers a steered name answers with.
pub(super) const ROLE: &str = super::DOOR_ROLE;
/// Equal shares.
pub(super) const WEIGHT: u32 = 100;
/// Room for fine shares, and sums far from overflow.
pub(super) const WEIGHT_MAX: i64 = 1_000_000;
/// Half the circumference of the Earth: a band that holds everyone.
pub(super) const BAND_KM_MAX: i64 = 20_038;
/// No band: the nearest gets them all.
pub(super) const BAND_KM: u32 = 0;
/// Success and redirects: a door that redirects is alive.
pub(super) const STATUS: RangeInclusive<u16> = 200..=399;
/// What nearly every name that users ask for has.
pub(super) const CHECK_RECORD_TYPE: &str = "A";

/// DNS, on every address of the datacenter.
pub(super) const DNS_PORT: u16 = 53;
/// Plain HTTP of the front door.
pub(super) const GATEWAY_PORT: u16 = 80;
/// How a page ends: one that was cut short has it not.
pub(super) const MARKER: &str = "</html>";
/// Long enough for clients with a kept connection to see that it closes; a quiet door stops sooner.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(5);
/// Agents among themselves, at the address in their `agent` URL: not at the public ones.
pub(super) const AGENT_PORT: u16 = 7400;
/// Operators; on loopback unless told otherwise.
pub(super) const ADMIN_PORT: u16 = 7480;

/// Where `daemun keys` puts them on the machine that makes them, and where it says to copy them.
pub(super) const AGENT_CA: &str = "keys/ca.pem";
/// Beside it.
pub(super) const AGENT_CERTIFICATE: &str = "keys/agent.pem";
/// Beside it.
pub(super) const AGENT_KEY: &str = "keys/agent.key";

/// Twice a second: a dead door is suspected within half a second, for a few hundred bytes each time.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Longer than a packet lost and sent again across the world.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_millis(800);
/// At 20% loss, eight in a row fail by chance once in 390,000 tries, and two observers must agree.
pub(super) const PROBE_FALL: u32 = 8;
/// When one observer decides alone (two datacenters), the burst is longer: 14 fail by chance once in 6e9.
pub(super) const PROBE_FALL_ALONE: u32 = 14;
/// Apart enough not to share one moment of congestion; the burst ends in about a second.
pub(super) const PROBE_BURST_GAP: Duration = Duration::from_millis(150);
/// One success may be luck.
pub(super) const PROBE_RISE: u32 = 3;
/// Less than one percent of a core, and a hundred servers looked at twice a second.
pub(super) const PROBE_BUDGET: u32 = 200;

/// Where applications reach the store.
pub(super) const STORE_PORT: u16 = 7420;
/// Some 50 MB of small values, and minutes of a busy log.
pub(super) const LOG_ENTRIES_MIN: u64 = 100_000;
/// Some gigabytes of small values: a day at a hundred writes a second, half an hour at five thousand.
pub(super) const LOG_ENTRIES_MAX: u64 = 10_000_000;

/// What comes back flaps most often within its first minute.
pub(super) const HOLD_DOWN: Duration = Duration::from_secs(60);
/// A server that flaps costs fewer users than a datacenter: a twelfth of the calm is asked of it.
pub(super) const SERVER_CALM_PARTS: u32 = 12;
/// After an hour a human has been called.
pub(super) const HOLD_DOWN_MAX: Duration = Duration::from_secs(3600);
/// A cold cache shows at a tenth of the users; then steps that at most double or so.
pub(super) const RAMP: [u8; 3] = [10, 25, 50];
/// Longer than a time to live, so that each step is felt before the next.
pub(super) const RAMP_STEP: Duration = Duration::from_secs(60);
/// The second failure within an hour is no accident.
pub(super) const RETURNS_PER_HOUR: u32 = 1;
/// Some exchanges with every peer.
pub(super) const CATCH_UP: Duration = Duration::from_secs(5);
/// One of two, two of more: who is left must be able to lose one more where that is possible at all.
pub(super) fn minimum_serving(datacenters: usize) -> usize {
    if datacenters <= 2 { 1 } else { 2 }
}
/// Operations from farther in the future are held back.
pub(super) const CLOCK_SKEW_MAX: Duration = Duration::from_millis(500);

/// The longest until users are served elsewhere: detection under default settings, and a changing answer's time to live.
pub(crate) const RTO_MS: u64 = 10_000;
/// Nothing acknowledged may be lost.
pub(crate) const RPO: u64 = 0;
/// Longer than detection and the time to live of a changing answer.
pub(crate) const HOLD_MS: u64 = 20_000;
/// Of the built-in drain, which waits for no detection.
pub(crate) const DRAIN_HOLD_MS: u64 = 10_000;
/// Of the built-in drain: some, half, all.
pub(crate) const DRAIN_SHARES: [u8; 3] = [10, 50, 100];
/// All of it.
pub(crate) const SHARE: u8 = 100;
/// Of the built-in slowness: felt, yet not taken for death.
pub(crate) const DELAY_MS: u32 = 200;
/// One other datacenter has it: what any one fault may not lose.
pub(crate) const DURABILITY: &str = "remote:1";
/// Enough networks that a datacenter's users are not all in one country.
pub(crate) const USERS: u32 = 8;
/// A hundredth of the visits of ten seconds is one.
pub(crate) const VISITS_PER_SECOND: u32 = 10;
/// Who waits longer has gone.
pub(crate) const PATIENCE_MS: u64 = 1000;
/// Some dozens of visits before anything fails.
pub(crate) const BASELINE_MS: u64 = 3000;
/// A minute of calm, and the first steps of the return.
pub(crate) const RECOVER_MS: u64 = 120_000;
/// Where users are not meant to notice: more than chance.
pub(crate) const ERRORS_PERCENT: u8 = 5;
/// Where they fail until the fault is noticed: of three datacenters one fails a third of the visits, of two a half.
pub(crate) const ERRORS_PERCENT_FELT: u8 = 60;
/// Far above a page from the other side of the world.
pub(crate) const P99_MS: u64 = 2000;
/// Stores that are not cut off and are so far behind are in trouble of their own.
pub(crate) const LAG_MS: u64 = 30_000;
