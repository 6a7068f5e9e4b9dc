//! `daemun lab`: three datacenters on this machine, each its own process on its own loopback address. It needs nothing
//! but this binary, and leaves nothing behind but a directory of logs.

mod files;
mod observe;
mod processes;
mod tour;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Failure, clock};
use files::{ADMIN_PORT, AGENT_PORT, DATACENTERS, DNS_PORT, GATEWAY_PORT, LabDatacenter, NAME, STORE_PORT};
use processes::Processes;

/// Time after which a datacenter that died is started again.
const COMES_BACK: Duration = Duration::from_secs(15);

/// So often it is looked whether a drill lets a datacenter back that it has killed.
const HELD: Duration = Duration::from_millis(100);

/// Three datacenters on this machine.
#[derive(Args, Clone, Debug)]
pub(crate) struct LabArguments {
    /// Play the whole story and exit: steer, kill a datacenter, get it back; exit code 1 if any of it was not so
    #[arg(long)]
    tour: bool,
    /// First half of the addresses, within 127/8: datacenters are at NETWORK.1.1, NETWORK.2.1 and NETWORK.3.1
    #[arg(long, default_value = DEFAULT_NETWORK, value_parser = network)]
    network: String,
    /// The port of plain DNS; 53 takes the right to have it
    #[arg(long, value_name = "PORT", default_value_t = DNS_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    dns_port: u16,
    /// Where config, facts and logs go [default: a directory of the user's own]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

const DEFAULT_NETWORK: &str = "127.0";

fn network(text: &str) -> Result<String, String> {
    let half = text.strip_prefix("127.").and_then(|half| half.parse::<u8>().ok());
    half.map(|half| format!("127.{half}")).ok_or_else(|| "expected 127.0 to 127.255".to_owned())
}

/// Where the lab on a network keeps its files.
fn directory(network: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    state.unwrap_or_else(std::env::temp_dir).join("daemun-lab").join(network)
}

/// The config of the lab at its usual place.
pub(crate) fn config_path() -> PathBuf {
    directory(DEFAULT_NETWORK).join(files::CONFIG)
}

/// The admin token of the lab at its usual place.
pub(crate) fn token_path() -> PathBuf {
    directory(DEFAULT_NETWORK).join(files::TOKEN)
}

/// Admin URLs of the lab at its usual place.
pub(crate) fn admin_urls() -> Vec<String> {
    let url =
        |datacenter: &LabDatacenter| format!("http://{}:{ADMIN_PORT}", datacenter.address(DEFAULT_NETWORK));
    DATACENTERS.iter().map(url).collect()
}

/// The token for applications of the lab at its usual place.
pub(crate) fn store_token_path() -> PathBuf {
    directory(DEFAULT_NETWORK).join(files::STORE_TOKEN)
}

/// URLs of the API for applications of the lab at its usual place.
pub(crate) fn store_urls() -> Vec<String> {
    let url =
        |datacenter: &LabDatacenter| format!("http://{}:{STORE_PORT}", datacenter.address(DEFAULT_NETWORK));
    DATACENTERS.iter().map(url).collect()
}

pub(crate) fn lab(arguments: &LabArguments) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    let directory = arguments.directory.clone().unwrap_or_else(|| directory(&arguments.network));
    runtime.block_on(async {
        // First: a lab that runs must not lose its files to one that cannot.
        processes::check_ports(&arguments.network, arguments.dns_port)?;
        files::write(&directory, &arguments.network, arguments.dns_port)?;
        let mut processes = Processes::new(&arguments.network, arguments.dns_port, &directory)?;
        if arguments.tour {
            tour::tour(&mut processes).await?;
        } else {
            stay(&mut processes).await?;
        }
        Ok(())
    })
}

/// The lab until Ctrl-C: says what happens to its processes, and starts again what died.
async fn stay(processes: &mut Processes) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    for datacenter in &DATACENTERS {
        processes.start(datacenter)?;
    }
    tokio::select! {
        ready = tour::all_answer(processes) => ready?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    }
    introduce(processes);
    let mut to_start: VecDeque<(Duration, &'static LabDatacenter)> = VecDeque::new();
    let mut held: Vec<&'static LabDatacenter> = Vec::new();
    loop {
        // All wait equally long, so the first to die is the first to come back.
        let next = to_start.front().map(|(due, _)| due.saturating_sub(clock::monotonic()));
        let comes_back = async {
            match next {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            died = processes.next_death() => if processes.is_held(died.datacenter) {
                println!("{} was killed by a drill ({}).", died.datacenter.name, died.how);
                held.push(died.datacenter);
            } else {
                let (name, seconds) = (died.datacenter.name, COMES_BACK.as_secs());
                println!("{name} is gone ({}). Watch the others; it comes back in {seconds} s.", died.how);
                to_start.push_back((clock::monotonic() + COMES_BACK, died.datacenter));
            },
            () = tokio::time::sleep(HELD), if !held.is_empty() => {
                for datacenter in held.extract_if(.., |datacenter| !processes.is_held(datacenter)).collect::<Vec<_>>() {
                    let pid = processes.start(datacenter)?;
                    println!("{} is started again by the drill (pid {pid}).", datacenter.name);
                }
            }
            () = comes_back => if let Some((_, datacenter)) = to_start.pop_front() {
                let pid = processes.start(datacenter)?;
                println!("{} is started again (pid {pid}).", datacenter.name);
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    println!("stopping the lab");
    Ok(())
}

fn introduce(processes: &Processes) {
    let (network, dns_port) = (processes.network(), processes.dns_port());
    println!("The lab is up: three datacenters, each a process on its own address.\n");
    for datacenter in &DATACENTERS {
        let pid = processes.pid(datacenter).map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        println!("  {:<10} {:<12} pid {pid}", datacenter.name, datacenter.address(network).to_string());
    }
    let [seoul, frankfurt, virginia] = &DATACENTERS;
    let at = |datacenter: &LabDatacenter| datacenter.address(network);
    println!("\nSteer a user in Korea, in Germany, in the United States:");
    for datacenter in &DATACENTERS {
        println!("  dig @{} -p {dns_port} {NAME} +short +subnet={}/24", at(seoul), datacenter.client);
    }
    println!("The list of servers, as a user in Germany gets it; the index page:");
    println!(
        "  curl -s -H 'X-Forwarded-For: {}' http://{}:{GATEWAY_PORT}/v1/servers",
        frankfurt.client,
        at(seoul)
    );
    println!("  curl -s http://{}:{GATEWAY_PORT}/", at(virginia));
    // As this program was called; where it is not found by itself, it is told where the lab is.
    let program = std::env::args().next().unwrap_or_else(|| "daemun".to_owned());
    let (mut admin, mut config) = (String::new(), String::new());
    if network != DEFAULT_NETWORK || processes.directory() != directory(DEFAULT_NETWORK) {
        let token = processes.directory().join(files::TOKEN);
        admin = format!(" --admin http://{}:{ADMIN_PORT} --token-file {}", at(seoul), token.display());
        config = format!(" --config {}", processes.directory().join(files::CONFIG).display());
    }
    println!("Why, and how the fleet is:");
    println!("  {program} explain --name {NAME} --client {}/24{config}{admin}", frankfurt.client);
    println!("  {program} status --watch{admin}");
    println!("Data that is in all three: written in Seoul, read in Virginia:");
    let token = processes.directory().join(files::STORE_TOKEN);
    let api = |datacenter: &LabDatacenter| match admin.is_empty() {
        true => format!(" --datacenter {}", datacenter.name),
        false => format!(" --api http://{}:{STORE_PORT} --token-file {}", at(datacenter), token.display()),
    };
    println!("  {program} kv put carts 42 teapot{}", api(seoul));
    println!("  {program} kv get carts 42{}", api(virginia));
    println!("Move a datacenter's users away, first as a dry run; let them back:");
    println!("  {program} drain frankfurt --over 30s --dry-run{admin}");
    println!("  {program} restore frankfurt{admin}");
    println!("Lose a datacenter on purpose, for 20 seconds, and read what that cost:");
    println!("  {program} drill run blackhole --target frankfurt --yes{admin}");
    if let Some(pid) = processes.pid(frankfurt) {
        println!("Lose a datacenter without a plan; see how it came about:");
        println!("  kill -9 {pid}");
        println!("  {program} history{admin}");
    }
    println!(
        "\nAgents talk among themselves on port {AGENT_PORT}; admin and metrics are on port {ADMIN_PORT}, \
         the applications' store is on port {STORE_PORT}."
    );
    println!("Config, facts and logs: {}\nCtrl-C stops it all.\n", processes.directory().display());
}
