//! `daemun explain`: the placement that the server would take, by the function that takes it, with every reason.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use daemun_dns::cookie::Secrets;
use daemun_dns::{Identity, Peer, Responder, Transport};
use daemun_fleet::{Client, FleetView, Placer};
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};

use crate::client::{self, AdminArguments};
use crate::world::{AgentKeys, Reads, World};
use crate::{Failure, clock};

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
    #[arg(long = "type", value_name = "TYPE", default_value = "A", value_parser = record_type)]
    record_type: RecordType,
    /// Show the whole answer that a query for any name would get over the wire, then the placements in it
    #[arg(long, requires = "name", conflicts_with = "json")]
    wire: bool,
    /// With --wire: the resolver that asks, if it is not the client itself
    #[arg(long, value_name = "ADDRESS", requires = "wire")]
    resolver: Option<IpAddr>,
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

/// A type of a record, or one that only a query has.
fn record_type(word: &str) -> Result<RecordType, String> {
    match word.to_ascii_uppercase().as_str() {
        "ANY" => Ok(RecordType::ANY),
        "AXFR" => Ok(RecordType::AXFR),
        "IXFR" => Ok(RecordType::IXFR),
        _ => daemun_dns::record_type(word),
    }
}

pub(crate) fn explain(arguments: &ExplainArguments) -> Result<(), Failure> {
    let path = arguments.config.clone().unwrap_or_else(default_config);
    let world = World::load(&path, None, Reads::NONE, &AgentKeys::Leave)
        .map_err(|refusal| Failure::Wrong(anyhow!("{refusal}")))?;
    for complaint in &world.complaints {
        eprintln!("daemun: {complaint}");
    }
    let (view, origin) = view(arguments, &world)?;
    let placer = Placer::new(Arc::clone(&world.steering), Arc::new(view));
    if arguments.wire {
        print!("{}", wire(arguments, &world, placer)?);
        println!("  view    {origin}\n  config  {}", path.display());
        return Ok(());
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
    let placement = placer.explain(target, &arguments.client, &arguments.record_type.to_string());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&placement).context("writing JSON")?);
    } else {
        println!("{placement} ({origin})\n  config  {}", path.display());
    }
    Ok(())
}

/// The answer to a query as a name server would give it, and why.
fn wire(arguments: &ExplainArguments, world: &World, placer: Placer) -> anyhow::Result<String> {
    let name = arguments.name.as_deref().unwrap_or_default();
    let asked = daemun_dns::domain_name(name).map_err(anyhow::Error::msg)?;
    let client = arguments.client.first_address();
    let mut query = Message::query();
    query.add_query(Query::query(asked, arguments.record_type));
    let mut edns = Edns::new();
    let is_address = arguments.client == Client::address(client);
    if !is_address || arguments.resolver.is_some() {
        let subnet = ClientSubnet::new(client, arguments.client.prefix_len(), 0);
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
    }
    query.edns = Some(edns);
    let placer = Arc::new(placer);
    let state = daemun_dns::State {
        zones: Arc::clone(&world.zones),
        placer: Arc::clone(&placer),
        identity: Identity { name: "explain".to_owned(), version: "daemun".to_owned() },
        secrets: Secrets::one([0; 16]),
        is_stale: false,
    };
    let metrics = daemun_dns::Metrics::new(&prometheus::Registry::new())?;
    let responder = Responder::new(state, metrics, clock::machine());
    // Over TCP, where it is whole.
    let peer = Peer::new(arguments.resolver.unwrap_or(client), Transport::Tcp);
    let explained = responder.explain(&query.to_vec()?, peer).context("the query cannot be asked")?;
    let mut text = daemun_dns::show::show(&explained.packet);
    if explained.placed.is_empty() {
        text += "  the same for every client\n";
    }
    for target in explained.placed {
        let placement = placer.explain(target, &explained.client, &arguments.record_type.to_string());
        text += &format!("\n{placement}\n");
    }
    Ok(text)
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
        Ok((url, status)) if !arguments.admin.admin.is_empty() => {
            let (theirs, ours) = (status.fleet, &world.config().fleet.name);
            Err(Failure::Failed(anyhow!("{url} is of fleet `{theirs}`, the config of `{ours}`")))
        }
        Err(error) if !arguments.admin.admin.is_empty() => Err(Failure::Failed(error)),
        // A lab that happens to run says nothing about another fleet.
        Ok(_) | Err(_) => {
            let assumed = "no process of this fleet was found: assuming that all serve";
            Ok((FleetView::unobserved(world.config()), assumed.to_owned()))
        }
    }
}
