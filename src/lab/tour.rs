//! `daemun lab --tour`: the whole story, played and checked. What it prints it has seen, through packets and processes;
//! what was not so ends it with the step's name.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use serde_json::Value;

use super::files::{DATACENTERS, GATEWAY_PORT, LabDatacenter, NAME, STORE_PORT, STORE_TOKEN};
use super::observe;
use super::processes::Processes;
use crate::admin::token;
use crate::clock;

/// Everything answers by then, or the lab is broken.
const START_MAX: Duration = Duration::from_secs(30);
/// A dead datacenter is out by then, or failover is broken; by default it takes about two seconds.
const FAILOVER_MAX: Duration = Duration::from_secs(15);
/// A datacenter that came back gets its users by then.
const RETURN_MAX: Duration = Duration::from_secs(60);
/// Blocks of users that are asked for to see a share.
const BLOCKS: u8 = 100;
/// A key and its value.
const KEY: &str = "carts/42";
const VALUE: &str = "one teapot";
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn tour(processes: &mut Processes) -> anyhow::Result<()> {
    println!("A tour of daemun: three datacenters on this machine, seen as a user sees them.\n");
    let steps = async {
        start(processes).await.context("step 1, start")?;
        steer(processes).await.context("step 2, steer")?;
        list(processes).await.context("step 3, list")?;
        lose(processes).await.context("step 4, lose")?;
        write(processes).await.context("step 5, write")?;
        get_back(processes).await.context("step 6, return")?;
        all_alive(processes).context("step 7, end")
    };
    match steps.await {
        Ok(()) => {
            println!("\nAll of it was so. `daemun lab` leaves the three running for you to try.");
            Ok(())
        }
        Err(error) => {
            println!("\nThe tour failed. Logs: {}", processes.directory().display());
            Err(error.context("the tour failed"))
        }
    }
}

fn say(step: &str, text: &str) {
    println!("{:>6.2} s  {step:<7} {text}", clock::monotonic().as_secs_f64());
}

/// No process may end but by the tour's own hand.
fn all_alive(processes: &mut Processes) -> anyhow::Result<()> {
    match processes.death() {
        None => Ok(()),
        Some(death) => {
            let log = processes.log(death.datacenter);
            Err(anyhow!(
                "the process of {} ended ({}); see {}",
                death.datacenter.name,
                death.how,
                log.display()
            ))
        }
    }
}

/// Looks until `seen` is content; then the time it took. What it last saw is the error.
async fn until(
    processes: &mut Processes,
    longest: Duration,
    mut seen: impl AsyncFnMut(&Processes) -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let begun = clock::monotonic();
    loop {
        all_alive(processes)?;
        let last = match seen(processes).await {
            Ok(()) => return Ok(clock::monotonic().saturating_sub(begun)),
            Err(last) => last,
        };
        if clock::monotonic().saturating_sub(begun) > longest {
            return Err(last.context(format!("not within {} s", longest.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until every datacenter answers DNS and serves its page.
pub(super) async fn all_answer(processes: &mut Processes) -> anyhow::Result<()> {
    for datacenter in &DATACENTERS {
        until(processes, START_MAX, async |processes| {
            resolve(processes, datacenter, datacenter).await?;
            observe::get(processes.at(datacenter, GATEWAY_PORT), "/", datacenter.client).await.map(drop)
        })
        .await?;
    }
    Ok(())
}

async fn start(processes: &mut Processes) -> anyhow::Result<()> {
    for datacenter in &DATACENTERS {
        let pid = processes.start(datacenter)?;
        let address = datacenter.address(processes.network());
        say("start", &format!("{:<10} {address}, pid {pid}", datacenter.name));
    }
    all_answer(processes).await?;
    say("start", "all three answer DNS and serve their page");
    Ok(())
}

/// The address that a datacenter's name server gives to a user.
async fn resolve(
    processes: &Processes,
    server: &LabDatacenter,
    user: &LabDatacenter,
) -> anyhow::Result<IpAddr> {
    let answer = observe::resolve(processes.at(server, processes.dns_port()), NAME, user.client).await?;
    match answer[..] {
        [address] => Ok(address),
        _ => Err(anyhow!(
            "{} gives {answer:?} to a user in {}, expected one address",
            server.name,
            user.country
        )),
    }
}

/// The name of the datacenter that has an address.
fn whose(processes: &Processes, address: IpAddr) -> &'static str {
    let owner = DATACENTERS
        .iter()
        .find(|datacenter| IpAddr::from(datacenter.address(processes.network())) == address);
    owner.map_or("nobody", |datacenter| datacenter.name)
}

async fn sent_to(
    processes: &Processes,
    server: &LabDatacenter,
    user: &LabDatacenter,
    wanted: &LabDatacenter,
) -> anyhow::Result<()> {
    let address = resolve(processes, server, user).await?;
    let got = whose(processes, address);
    ensure!(
        got == wanted.name,
        "{} sends a user in {} to {got}, expected {}",
        server.name,
        user.country,
        wanted.name
    );
    Ok(())
}

async fn steer(processes: &mut Processes) -> anyhow::Result<()> {
    for user in &DATACENTERS {
        until(processes, START_MAX, async |processes| {
            for server in &DATACENTERS {
                sent_to(processes, server, user, user).await?;
            }
            Ok(())
        })
        .await?;
        let country = user.country;
        say(
            "steer",
            &format!(
                "a user in {country} ({}/24) is sent to {}, by all three name servers",
                user.client, user.name
            ),
        );
    }
    Ok(())
}

/// The server list of a door, as a user gets it.
async fn servers(
    processes: &Processes,
    door: &LabDatacenter,
    user: &LabDatacenter,
) -> anyhow::Result<Vec<(String, String)>> {
    let body = observe::get(processes.at(door, GATEWAY_PORT), "/v1/servers", user.client).await?;
    let list: Value = serde_json::from_str(&body).context("the list does not parse")?;
    let field = |server: &Value, name: &str| server[name].as_str().unwrap_or_default().to_owned();
    let servers = list["servers"].as_array().context("the list has no servers")?;
    Ok(servers.iter().map(|server| (field(server, "datacenter"), field(server, "health"))).collect())
}

async fn list(processes: &mut Processes) -> anyhow::Result<()> {
    let [seoul, frankfurt, _] = &DATACENTERS;
    let mut order = String::new();
    until(processes, START_MAX, async |processes| {
        let servers = servers(processes, seoul, frankfurt).await?;
        let up = servers.iter().filter(|(_, health)| health == "up").count();
        ensure!(up == DATACENTERS.len(), "{up} of {} servers are up", DATACENTERS.len());
        order = servers.iter().map(|(datacenter, _)| datacenter.as_str()).collect::<Vec<_>>().join(", ");
        ensure!(order.starts_with(frankfurt.name), "the list for a user in {} is {order}", frankfurt.country);
        Ok(())
    })
    .await?;
    say("list", &format!("the door in Seoul lists for a user in {}: {order}; all up", frankfurt.country));
    Ok(())
}

async fn lose(processes: &mut Processes) -> anyhow::Result<()> {
    let [seoul, frankfurt, virginia] = &DATACENTERS;
    processes.kill(frankfurt).await?;
    let killed = clock::monotonic();
    say("lose", "frankfurt's process is killed (SIGKILL)");
    // Both name servers are watched at once, each for the moment when it stops answering with the dead one.
    let mut left: Vec<&LabDatacenter> = vec![seoul, virginia];
    until(processes, FAILOVER_MAX, async |processes| {
        let mut still = Vec::new();
        let mut last = Ok(());
        for server in left.drain(..) {
            match resolve(processes, server, frankfurt).await {
                Ok(address) if whose(processes, address) != frankfurt.name => {
                    let after = clock::monotonic().saturating_sub(killed).as_secs_f64();
                    let now = whose(processes, address);
                    let country = frankfurt.country;
                    say(
                        "lose",
                        &format!(
                            "{after:.2} s later {}'s name server sends the user in {country} to {now}",
                            server.name
                        ),
                    );
                }
                Ok(_) => {
                    last = Err(anyhow!("{} still sends users to frankfurt", server.name));
                    still.push(server);
                }
                Err(error) => {
                    last = Err(error);
                    still.push(server);
                }
            }
        }
        left = still;
        last
    })
    .await?;
    for user in [seoul, virginia] {
        sent_to(processes, seoul, user, user).await?;
    }
    say("lose", "users elsewhere stayed where they were");
    until(processes, FAILOVER_MAX, async |processes| {
        let servers = servers(processes, seoul, frankfurt).await?;
        let last = servers.last().context("the list is empty")?;
        ensure!(*last == (frankfurt.name.to_owned(), "down".to_owned()), "the list ends with {last:?}");
        Ok(())
    })
    .await?;
    say("lose", "the server list has frankfurt's door last, down");
    Ok(())
}

/// What a datacenter's store has under the tour's key, as an application reads it.
async fn read(processes: &Processes, datacenter: &LabDatacenter) -> anyhow::Result<Option<String>> {
    let token = token::read(&processes.directory().join(STORE_TOKEN))?;
    observe::key(processes.at(datacenter, STORE_PORT), &token, KEY, None).await
}

async fn write(processes: &mut Processes) -> anyhow::Result<()> {
    let [seoul, _, virginia] = &DATACENTERS;
    let token = token::read(&processes.directory().join(STORE_TOKEN))?;
    observe::key(processes.at(seoul, STORE_PORT), &token, KEY, Some(VALUE)).await?;
    let written = clock::monotonic();
    say("write", &format!("{KEY} is written in Seoul, and is on its disk, while frankfurt is dead"));
    until(processes, START_MAX, async |processes| {
        let found = read(processes, virginia).await?;
        ensure!(found.as_deref() == Some(VALUE), "virginia has {found:?} under {KEY}");
        Ok(())
    })
    .await?;
    let after = clock::monotonic().saturating_sub(written).as_secs_f64() * 1000.0;
    say("write", &format!("it is read in Virginia (seen {after:.0} ms later)"));
    Ok(())
}

async fn get_back(processes: &mut Processes) -> anyhow::Result<()> {
    let [seoul, frankfurt, _] = &DATACENTERS;
    let pid = processes.start(frankfurt)?;
    say("return", &format!("frankfurt is started again, pid {pid}"));
    let (mut seen, mut steps) = (0, Vec::new());
    let (mut had_it, mut came_too_early) = (false, false);
    let took = until(processes, RETURN_MAX, async |processes| {
        // First what it has, then who is sent there.
        had_it |= read(processes, frankfurt).await.is_ok_and(|found| found.as_deref() == Some(VALUE));
        let share = share_at_home(processes, seoul, frankfurt).await?;
        ensure!(
            share >= seen,
            "{share}% of the users in {} after {seen}%: a ramp never shuffles",
            frankfurt.country
        );
        came_too_early |= share > 0 && !had_it;
        if share > seen {
            seen = share;
            steps.push(share);
        }
        ensure!(share == 100, "{share}% of the users in {} are back", frankfurt.country);
        for server in &DATACENTERS {
            sent_to(processes, server, frankfurt, frankfurt).await?;
        }
        Ok(())
    })
    .await?;
    ensure!(!came_too_early, "frankfurt was sent users before it had what was written meanwhile");
    ensure!(steps.len() > 1, "its users came back all at once: it was to be ramped in");
    let steps = steps.iter().map(|share| format!("{share}%")).collect::<Vec<_>>().join(", ");
    let (country, took) = (frankfurt.country, took.as_secs_f64());
    say(
        "return",
        &format!(
            "after calm, and once it has what was written meanwhile, {steps} of the users in {country} are sent there"
        ),
    );
    say(
        "return",
        &format!("{took:.2} s later all three name servers send the user in {country} to frankfurt again"),
    );
    Ok(())
}

/// Which percentage of the users near a datacenter a name server sends there, of some blocks asked for.
async fn share_at_home(
    processes: &Processes,
    server: &LabDatacenter,
    home: &LabDatacenter,
) -> anyhow::Result<usize> {
    let [a, b, ..] = home.client.octets();
    let mut at_home = 0;
    for block in 0..BLOCKS {
        let client = std::net::Ipv4Addr::new(a, b, block, 0);
        let answer = observe::resolve(processes.at(server, processes.dns_port()), NAME, client).await?;
        at_home += usize::from(answer.first().is_some_and(|address| whose(processes, *address) == home.name));
    }
    Ok(100 * at_home / usize::from(BLOCKS))
}
