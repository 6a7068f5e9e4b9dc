//! `daemun drill guard`: waits, then starts again what a drill has killed. A process of its own, so that it outlives what it
//! guards.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;

use crate::Failure;

/// What does not start is tried again: a port may still be held, a lock be kept.
const TRIES: u32 = 300;
/// Time between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Start again what a drill has killed.
#[derive(Args)]
pub(crate) struct GuardArguments {
    /// How long to wait
    #[arg(long)]
    after_ms: u64,
    /// The command that starts it
    #[arg(trailing_var_arg = true, required = true)]
    start: Vec<String>,
}

pub(super) fn guard(arguments: &GuardArguments) -> Result<(), Failure> {
    std::thread::sleep(Duration::from_millis(arguments.after_ms));
    let program = arguments.start.first().context("a command")?;
    let mut last = anyhow!("it was not tried");
    for _ in 0..TRIES {
        match Command::new(program).args(&arguments.start[1..]).status() {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => last = anyhow!("`{program}` ended with {status}"),
            Err(error) => last = anyhow::Error::from(error).context(format!("`{program}`")),
        }
        eprintln!("daemun drill guard: {last:#}; again in a second");
        std::thread::sleep(PAUSE);
    }
    Err(last.into())
}
