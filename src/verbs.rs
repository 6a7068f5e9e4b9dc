//! `daemun drain`, `restore`, `pin`, `forget`, `pause`, `resume`: an operator's words. Each says what it will do before it
//! does it, and is a fact in every agent's log afterwards.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use daemun_fleet::placement::{Load, Move};
use daemun_fleet::view::State;
use daemun_sync::orders::Verb as Said;
use daemun_sync::verbs::{Told, What};

use crate::Failure;
use crate::admin::orders::Done;
use crate::client::{self, AdminArguments, Told as Answer};
use crate::status::table;

/// The verbs that change the fleet.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Move a datacenter's users to the others
    Drain {
        /// The datacenter
        #[arg(value_name = "DATACENTER")]
        target: String,
        /// Move them in steps over this time, such as 5m [default: at once]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        over: Option<Duration>,
        #[command(flatten)]
        words: Words,
    },
    /// Let a datacenter's users back: once its data is there, in steps; it also takes back every other word about it
    Restore {
        /// The datacenter
        #[arg(value_name = "DATACENTER")]
        target: String,
        #[command(flatten)]
        words: Words,
    },
    /// Keep a datacenter in its state, whatever the probes say; for a day unless told otherwise
    Pin {
        /// The datacenter
        #[arg(value_name = "DATACENTER")]
        target: String,
        /// Keep it in another state than it is in
        #[arg(long, value_name = "STATE")]
        state: Option<PinState>,
        #[command(flatten)]
        words: Words,
    },
    /// A datacenter will not return: it has no say any more
    Forget {
        /// The datacenter
        #[arg(value_name = "DATACENTER")]
        target: String,
        #[command(flatten)]
        words: Words,
    },
    /// Automation off: every datacenter stays as it is; for an hour unless told otherwise
    Pause {
        #[command(flatten)]
        words: Words,
    },
    /// Automation on
    Resume {
        #[command(flatten)]
        words: Words,
    },
}

/// What all verbs take.
#[derive(Args)]
pub(crate) struct Words {
    /// Why: it is shown to everyone
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    reason: String,
    /// Who says so
    #[arg(long, env = "USER", default_value = "somebody", hide_default_value = true, value_name = "NAME")]
    by: String,
    /// It is over by itself after this time, such as 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasts: Option<Duration>,
    /// Refuse if the fleet view has another generation
    #[arg(long, value_name = "N")]
    expect_generation: Option<u64>,
    /// Say what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it against the safety rules; that is written down
    #[arg(long)]
    break_glass: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArguments,
}

/// The states in which one can pin.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum PinState {
    /// It gets all of its users
    Serving,
    /// It gets none while others serve
    Drained,
    /// As if it were dead
    Down,
}

/// A duration as people write it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a time such as 90s, 5m or 2h".to_owned())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn verb(verb: Verb) -> Result<(), Failure> {
    let (what, target, words) = match verb {
        Verb::Drain { target, over, words } => {
            (What::Drain { over_ms: milliseconds(over.unwrap_or_default()) }, Some(target), words)
        }
        Verb::Restore { target, words } => (What::Restore, Some(target), words),
        Verb::Pin { target, state, words } => {
            let state = state.map(|state| match state {
                PinState::Serving => State::Serving,
                PinState::Drained => State::Drained,
                PinState::Down => State::Down,
            });
            (What::Pin { state }, Some(target), words)
        }
        Verb::Forget { target, words } => (What::Forget, Some(target), words),
        Verb::Pause { words } => (What::Pause, None, words),
        Verb::Resume { words } => (What::Resume, None, words),
    };
    let told = Told {
        what,
        datacenter: target,
        by: words.by,
        reason: words.reason,
        for_ms: words.lasts.map(milliseconds),
        expect_generation: words.expect_generation,
        dry_run: words.dry_run,
        break_glass: words.break_glass,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    let answer = runtime.block_on(client::tell(&words.admin, &told))?;
    let (done, is_refused) = match answer {
        Answer::Done(done) => (done, false),
        Answer::Broken(done) => (done, true),
        Answer::Wrong(error) => return Err(Failure::Wrong(anyhow!("{error}"))),
    };
    if words.json {
        println!("{}", serde_json::to_string_pretty(&done).context("writing JSON")?);
    } else {
        print!("{}", describe(&done, told.dry_run));
    }
    if is_refused {
        let message = "refused, nothing was done: change that, or say --break-glass, which is written down";
        return Err(Failure::Failed(anyhow!("{message}")));
    }
    Ok(())
}

fn describe(done: &Done, is_dry: bool) -> String {
    let order = &done.order;
    let mut text = order.verb.name().to_owned();
    if let daemun_sync::orders::About::Datacenter(name) = &order.about {
        let _ = write!(text, " {name}");
    }
    let show = |ms: u64| humantime::format_duration(Duration::from_millis(ms)).to_string();
    match &order.verb {
        Said::Drain { over_ms: over @ 1.. } => _ = write!(text, " over {}", show(*over)),
        Said::Pin { state } => _ = write!(text, " in state {state}"),
        _ => {}
    }
    if let Some(ms) = order.for_ms {
        let _ = write!(text, " for {}", show(ms));
    }
    let _ = write!(text, ", said by {}", order.by);
    if !order.reason.is_empty() {
        let _ = write!(text, ": {}", order.reason);
    }
    let _ = write!(text, "\n  view    generation {}", done.generation);
    if let Some((was, is)) = done.states {
        let _ = write!(text, "; it is {was}, and will be {is}");
    }
    text.push('\n');
    if done.blast.moves.is_empty() {
        text.push_str("  moves   nobody\n");
    } else {
        text.push_str("  moves\n");
        moves(&mut text, &done.blast.moves);
    }
    if done.blast.loads.iter().chain(&done.loads_before).all(|load| load.asked_rps == 0) {
        text.push_str("  load    nothing has been measured\n");
    }
    loads(&mut text, &done.loads_before, &done.blast.loads);
    for rule in &done.broken {
        let _ = writeln!(text, "  AGAINST THE RULES: {rule}");
    }
    if done.is_done {
        let _ = writeln!(text, "  done    heard by {}", done.heard_by.join(", "));
        if !done.not_heard_by.is_empty() {
            let _ = writeln!(
                text,
                "  NOT HEARD YET by {}: they will, once they are reached",
                done.not_heard_by.join(", ")
            );
        }
    } else if is_dry {
        text.push_str("  a dry run: nothing was done\n");
    }
    text
}

pub(crate) fn moves(text: &mut String, moves: &[Move]) {
    let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1}%"));
    let head = ["  FROM", "TO", "ADDRESSES", "QUERIES", "REQUESTS"].map(ToOwned::to_owned);
    let row = |one: &Move| {
        let [from, to] = [format!("  {}", one.from), one.to.clone()];
        let addresses = percent(Some(one.addresses_percent));
        [from, to, addresses, percent(one.queries_percent), percent(one.requests_percent)]
    };
    let rows: Vec<_> = std::iter::once(head).chain(moves.iter().map(row)).collect();
    table(text, &rows);
}

pub(crate) fn loads(text: &mut String, before: &[Load], after: &[Load]) {
    for (before, after) in before.iter().zip(after) {
        if after.asked_rps == 0 && before.asked_rps == 0 {
            continue;
        }
        let capacity = after.capacity_rps.map_or_else(String::new, |rps| format!(", can serve {rps}"));
        let (name, now, then) = (&after.datacenter, before.asked_rps, after.asked_rps);
        let _ = writeln!(text, "  load    {name}: {then} requests a second (now {now}{capacity})");
    }
}
