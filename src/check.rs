//! `daemun check`: the config and every file it names, without starting anything.

use std::path::PathBuf;

use clap::Args;

use crate::Failure;
use crate::world::{AgentKeys, Reads, World};

/// Check a config and the files it names.
#[derive(Args)]
pub(crate) struct CheckArguments {
    /// The config file
    #[arg(default_value = "daemun.toml")]
    config: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let (summary, problems) = match World::load(&arguments.config, None, Reads::ALL, &AgentKeys::IfThere) {
        Ok(world) => {
            let config = world.config();
            let summary = format!(
                "{}: {} datacenters, {} servers, {} zones, {} steered names; places from {}; digest {}",
                arguments.config.display(),
                config.fleet.datacenters.len(),
                config.fleet.servers.len(),
                config.dns.zones.len(),
                config.dns.names.len(),
                world.steering.places().source(),
                config.digest,
            );
            (Some(summary), world.complaints)
        }
        Err(refusal) => (None, refusal.problems),
    };
    if arguments.json {
        println!("{}", serde_json::json!({ "ok": problems.is_empty(), "problems": problems }));
    } else {
        problems.iter().for_each(|problem| println!("{problem}"));
        if let Some(summary) = summary.filter(|_| problems.is_empty()) {
            println!("{summary}");
        }
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(Failure::Wrong(anyhow::anyhow!("1 problem: mend it and check again"))),
        many => Err(Failure::Wrong(anyhow::anyhow!("{many} problems: mend them and check again"))),
    }
}
