//! `daemun status`: the fleet view as one process has it, and why it is so.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use daemun_fleet::FleetView;
use daemun_fleet::placement::Load;
use daemun_fleet::view::OrderView;
use daemun_sync::core::LinkStatus;
use daemun_sync::store::status::StoreStatus;
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::client::{self, AdminArguments};
use crate::store;

/// Pause between two looks of `--watch`.
const WATCH: Duration = Duration::from_millis(500);

/// Show the fleet view.
#[derive(Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Print it as JSON
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Print it again whenever it changes
    #[arg(long)]
    watch: bool,
}

/// What a process says of itself and of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Name of the fleet.
    pub(crate) fleet: String,
    /// The datacenter it runs in.
    pub(crate) datacenter: String,
    /// Version of the program.
    pub(crate) version: String,
    /// The roles it has.
    pub(crate) roles: Vec<String>,
    /// Digest of its config.
    pub(crate) config_digest: String,
    /// Where its places come from.
    pub(crate) places: String,
    /// Its zones.
    pub(crate) zones: Vec<ZoneStatus>,
    /// What is wrong with files it reads; the last good is in use.
    pub(crate) complaints: Vec<String>,
    /// The fleet view.
    pub(crate) view: FleetView,
    /// Links to the other agents; empty without the role sync.
    pub(crate) links: Vec<LinkStatus>,
    /// How many processes of its datacenter look at the others; 0: it has no agent to count them.
    #[serde(default)]
    pub(crate) eyes: u32,
    /// What each datacenter is asked to do.
    #[serde(default)]
    pub(crate) loads: Vec<Load>,
    /// Its store, if it has one.
    #[serde(default)]
    pub(crate) store: Option<StoreStatus>,
    /// Its clock, milliseconds of Unix time.
    pub(crate) unix_ms: u64,
}

/// A zone, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ZoneStatus {
    /// Apex.
    pub(crate) name: String,
    /// Serial number.
    pub(crate) serial: u32,
    /// Number of names.
    pub(crate) names: usize,
    /// When its file was read, milliseconds of Unix time.
    #[serde(default)]
    pub(crate) loaded_unix_ms: u64,
    /// A newer file is refused.
    #[serde(default)]
    pub(crate) is_refused: bool,
}

pub(crate) fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(async {
        let mut shown: Option<String> = None;
        loop {
            let (text, key) = match client::status(&arguments.admin).await {
                Ok((_, status)) if arguments.json => {
                    (serde_json::to_string_pretty(&status).context("writing JSON")? + "\n", String::new())
                }
                Ok((url, status)) => {
                    let text = describe(&url, &status);
                    // In a pipe, that time has passed is no change.
                    let timeless = describe(&url, &Status { unix_ms: 0, ..status });
                    let key = if std::io::stdout().is_terminal() { text.clone() } else { timeless };
                    (text, key)
                }
                Err(error) if arguments.watch => (format!("{error:#}\n"), format!("{error:#}\n")),
                Err(error) => return Err(Failure::Failed(error)),
            };
            if !arguments.watch {
                print!("{text}");
                return Ok(());
            }
            if shown.as_ref() != Some(&key) {
                // On a terminal the new takes the place of the old; in a pipe it follows.
                let clear = if std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
                println!("{clear}{text}");
                shown = Some(key);
            }
            tokio::time::sleep(WATCH).await;
        }
    })
}

fn describe(url: &str, status: &Status) -> String {
    let view = &status.view;
    let mut text = format!(
        "fleet {}, generation {}, as seen by {} at {url}\n\n",
        status.fleet, view.generation, status.datacenter
    );
    if view.fail_open {
        text.push_str("EVERYTHING LOOKS DOWN: failing open, all datacenters are used\n\n");
    }
    let mut rows = vec![["DATACENTER".to_owned(), "STATE".to_owned(), "FOR".to_owned(), "WHY".to_owned()]];
    for (name, datacenter) in &view.datacenters {
        let since = age(status.unix_ms, datacenter.since_unix_ms);
        rows.push([name.clone(), datacenter.state.to_string(), since, datacenter.why.clone()]);
    }
    table(&mut text, &rows);
    words(&mut text, status);
    text.push('\n');
    let mut rows = vec![["SERVER".to_owned(), "HEALTH".to_owned(), "FOR".to_owned(), "WHY".to_owned()]];
    for (name, server) in &view.servers {
        let since = age(status.unix_ms, server.since_unix_ms);
        rows.push([name.clone(), server.health.to_string(), since, server.why.clone()]);
    }
    table(&mut text, &rows);
    text.push('\n');
    if status.eyes > 1 {
        let _ = writeln!(text, "{} processes of {} take turns looking", status.eyes, status.datacenter);
    }
    loads(&mut text, &status.loads);
    links(&mut text, status);
    if let Some(store) = &status.store {
        store::describe(&mut text, store);
    }
    for zone in &status.zones {
        let (name, serial, names) = (zone.name.trim_end_matches('.'), zone.serial, zone.names);
        let age = age(status.unix_ms, zone.loaded_unix_ms);
        let refused = if zone.is_refused { "; A NEWER FILE IS REFUSED" } else { "" };
        let _ = writeln!(text, "zone {name}: serial {serial}, {names} names, read {age} ago{refused}");
    }
    let _ = writeln!(text, "places: {}", status.places);
    for complaint in &status.complaints {
        let _ = writeln!(text, "ATTENTION: {complaint}");
    }
    text
}

/// The operators' words in force, doubts, and links that are cut between others too.
fn words(text: &mut String, status: &Status) {
    let view = &status.view;
    let word = |order: &OrderView| {
        let since = age(status.unix_ms, order.at_unix_ms);
        let mut word = format!("{} by {}, {since} ago", order.verb, order.by);
        if let Some(ms) = order.for_ms {
            let _ = write!(word, ", for {}", humantime::format_duration(Duration::from_millis(ms)));
        }
        if !order.reason.is_empty() {
            let _ = write!(word, ": {}", order.reason);
        }
        if order.break_glass {
            word.push_str(" (AGAINST THE RULES)");
        }
        word
    };
    if let Some(order) = &view.paused {
        let _ = writeln!(text, "\nAUTOMATION IS OFF: {}", word(order));
    }
    if let Some(drill) = &view.drill {
        let faults: Vec<String> = drill.faults.iter().map(ToString::to_string).collect();
        let stage = match drill.step {
            None => "armed".to_owned(),
            Some(step) => format!("step {}: {}", step + 1, faults.join(", ")),
        };
        let (scenario, target, by, leader) = (&drill.scenario, &drill.target, &drill.by, &drill.conductor);
        let _ = writeln!(text, "\nA DRILL: {scenario} of {target} by {by}, led by {leader}; {stage}");
    }
    for (name, datacenter) in &view.datacenters {
        if let Some(order) = &datacenter.order {
            let _ = writeln!(text, "word about {name}: {}", word(order));
        }
        if !datacenter.cut_from.is_empty() {
            let from = datacenter.cut_from.join(", ");
            let _ =
                writeln!(text, "ALARM: the private link to {name} is cut from {from}: lag there is unknown");
        }
    }
    for (name, observer) in &view.observers {
        if let Some(why) = &observer.doubted {
            let _ = writeln!(text, "the eyes of {name} are doubted: {why}");
        }
        if !observer.is_heard {
            let _ = writeln!(text, "{name} is not heard: the others decide without it");
        }
    }
}

fn loads(text: &mut String, loads: &[Load]) {
    for load in loads.iter().filter(|load| load.asked_rps > 0) {
        let capacity = load.capacity_rps.map_or_else(String::new, |rps| format!(" of {rps}"));
        let _ = write!(text, "load of {}: {}{capacity} requests/s", load.datacenter, load.expected_rps);
        if load.kept_percent < 100 {
            let _ = write!(
                text,
                "; IT SPILLS: asked for {}, it keeps {}% of its users",
                load.asked_rps, load.kept_percent
            );
        }
        text.push('\n');
    }
}

fn links(text: &mut String, status: &Status) {
    for link in &status.links {
        let _ = match (link.is_up, &link.failure, &link.config_digest) {
            (true, _, Some(digest)) if *digest != status.config_digest => {
                write!(text, "link to {}: up, but ITS CONFIG DIFFERS from the one here", link.peer)
            }
            (true, ..) => write!(text, "link to {}: up", link.peer),
            (false, Some(failure), _) => write!(text, "link to {}: DOWN, lag unknown: {failure}", link.peer),
            (false, None, _) => write!(text, "link to {}: not heard yet", link.peer),
        };
        if let (true, Some(ahead), Some(error)) = (link.is_up, link.clock_ahead_ms, link.clock_error_ms) {
            let alarm = if link.is_clock_off { "ITS CLOCK IS OFF: " } else { "" };
            let _ = write!(text, "; {alarm}clock {ahead:+} ms (±{error})");
        }
        text.push('\n');
    }
}

/// Time since a moment, in one or two units; a dash when it is not known.
fn age(now_unix_ms: u64, since_unix_ms: u64) -> String {
    if since_unix_ms == 0 {
        return "-".to_owned();
    }
    let seconds = now_unix_ms.saturating_sub(since_unix_ms) / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Rows in columns as wide as they must be.
pub(crate) fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
}
