//! `daemun explain`: the placement that the server would take, by the function that takes it, with every reason.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use daemun_fleet::config::AddressType;
use daemun_fleet::{Client, FleetView, Placer};

use crate::Failure;
use crate::client::{self, AdminArguments};
use crate::world::World;

/// Show where a client is sent, and why.
#[derive(Args)]
pub(crate) struct ExplainArguments {
    /// The steered name; none: the server list
    #[arg(long)]
    name: Option<String>,
    /// The client: an address, or a prefix as resolvers send it
    #[arg(long, value_name = "ADDRESS[/LENGTH]")]
    client: Client,
    /// The record type
    #[arg(long = "type", value_name = "TYPE", default_value = "A", ignore_case = true)]
    record_type: RecordType,
    /// The config file [default: daemun.toml here, else the lab's]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A fleet view to assume, as JSON [default: that of the running fleet; if there is none, that all serve]
    #[arg(long, value_name = "FILE")]
    view: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArguments,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum RecordType {
    #[value(name = "A")]
    A,
    #[value(name = "AAAA")]
    Aaaa,
}

pub(crate) fn explain(arguments: &ExplainArguments) -> Result<(), Failure> {
    let path = arguments.config.clone().unwrap_or_else(default_config);
    let world = World::load(&path, None).map_err(|refusal| Failure::Wrong(anyhow!("{refusal}")))?;
    for complaint in &world.complaints {
        eprintln!("daemun: {complaint}");
    }
    let config = world.config();
    let target = match &arguments.name {
        None => world.steering.door(),
        Some(name) => {
            let canonical = name.trim_end_matches('.').to_ascii_lowercase();
            world.steering.target(&canonical).ok_or_else(|| {
                let names: Vec<&str> = config.dns.names.iter().map(|name| name.name.as_str()).collect();
                Failure::Wrong(anyhow!(
                    "`{name}` is not a steered name; those of {} are: {}",
                    path.display(),
                    names.join(", ")
                ))
            })?
        }
    };
    let (view, origin) = view(arguments, &world)?;
    let placer = Placer::new(Arc::clone(&world.steering), Arc::new(view));
    let family = match arguments.record_type {
        RecordType::A => AddressType::A,
        RecordType::Aaaa => AddressType::Aaaa,
    };
    let placement = placer.explain(target, &arguments.client, family);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&placement).context("writing JSON")?);
    } else {
        println!("{placement} ({origin})\n  config  {}", path.display());
    }
    Ok(())
}

fn default_config() -> PathBuf {
    let here = PathBuf::from("daemun.toml");
    let lab = crate::lab::config_path();
    if !here.exists() && lab.exists() { lab } else { here }
}

/// The view to explain under, and where it came from.
fn view(arguments: &ExplainArguments, world: &World) -> Result<(FleetView, String), Failure> {
    if let Some(path) = &arguments.view {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let view = serde_json::from_str(&text).with_context(|| {
            format!("{} is not a fleet view; `/v1/view` of the admin address gives one", path.display())
        });
        return Ok((view.map_err(Failure::Wrong)?, format!("from {}", path.display())));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    match runtime.block_on(client::status(&arguments.admin)) {
        Ok((url, status)) if status.fleet == world.config().fleet.name => {
            Ok((status.view, format!("from {url}")))
        }
        Ok((url, status)) if arguments.admin.admin.is_some() => {
            let (theirs, ours) = (status.fleet, &world.config().fleet.name);
            Err(Failure::Failed(anyhow!("{url} is of fleet `{theirs}`, the config of `{ours}`")))
        }
        Err(error) if arguments.admin.admin.is_some() => Err(Failure::Failed(error)),
        // A lab that happens to run says nothing about another fleet.
        Ok(_) | Err(_) => {
            let assumed = "no process of this fleet was found: assuming that all serve";
            Ok((FleetView::unobserved(world.config()), assumed.to_owned()))
        }
    }
}
