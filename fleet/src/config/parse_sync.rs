//! The `[sync]` table: the agent.

use std::net::Ipv4Addr;
use std::time::Duration;

use url::Url;

use super::parse::{Names, listens, url_address};
use super::read::{self, Located, Section, nearest};
use super::*;

/// The URL of an agent, and the path of its key.
pub(super) struct AgentUrl {
    pub(super) path: String,
    pub(super) url: Located<Url>,
}

/// The keys of the agents, if they speak TLS: the scheme of their URLs says so, and it is the same for all. Without TLS
/// whoever reaches the port is believed: only where nobody else does, and only when the operator says so.
fn agent_tls(section: &mut Section<'_>, agents: &[AgentUrl]) -> Option<AgentTls> {
    let pem = read::text("the path of a PEM file");
    let mut file = |key, default: &str| {
        section.optional(key, &pem).map_or_else(|| default.to_owned(), |path| path.value)
    };
    let files = AgentTls {
        ca: file("ca", defaults::AGENT_CA),
        certificate: file("certificate", defaults::AGENT_CERTIFICATE),
        key: file("key", defaults::AGENT_KEY),
    };
    let plain_agents = section.optional("plain_agents", &read::boolean()).is_some_and(|plain| plain.value);
    let is_loopback = |url: &Url| url_address(url).is_some_and(|address| address.is_loopback());
    let mut is_tls = None;
    for AgentUrl { path, url: Located { value: url, span } } in agents {
        let speaks_tls = url.scheme() == "https";
        if *is_tls.get_or_insert(speaks_tls) != speaks_tls {
            let first = agents.first().map_or_else(|| "the first", |first| first.path.as_str());
            let message =
                format!("`{}` here, but not in `{first}`: all agents speak TLS, or none", url.scheme());
            section.source.problem(span, format!("{path}: {message}"));
        } else if !speaks_tls && !plain_agents && !is_loopback(url) {
            let message = "agents speak TLS: write https:// and make keys with `daemun keys init`, or say \
                           `plain_agents = true` under [sync]";
            section.source.problem(span, format!("{path}: {message}"));
        }
    }
    is_tls?.then_some(files)
}

pub(super) fn sync(mut section: Section<'_>, names: &Names, fleet: &Fleet, agents: &[AgentUrl]) -> Sync {
    let datacenters = names.datacenters.len();
    let listen = listens(&mut section, "listen", || {
        vec![Listen { host: ListenHost::Agent, port: defaults::AGENT_PORT }]
    });
    let admin = listens(&mut section, "admin", || {
        vec![Listen { host: ListenHost::Address(Ipv4Addr::LOCALHOST.into()), port: defaults::ADMIN_PORT }]
    });
    let tls = agent_tls(&mut section, agents);
    let mut table = section.table("probe");
    let between = |low, high| read::duration(Duration::from_millis(low)..=Duration::from_millis(high));
    let interval = table.optional("interval", &between(50, 600_000));
    let timeout = table.optional("timeout", &between(50, 60_000));
    let burst_gap = table.optional("burst_gap", &between(10, 60_000));
    let fall = table.optional("fall", &read::integer("failed probes", 1..=100));
    let fall_alone = table.optional("fall_alone", &read::integer("failed probes", 1..=100));
    let rise = table.optional("rise", &read::integer("successful probes", 1..=100));
    let budget = table.optional("budget", &read::integer("probes per second", 1..=100_000));
    table.finish();
    let comeback = comeback(section.table("return"));
    let minimum = i64::try_from(datacenters.max(1)).unwrap_or(1) - 1;
    let minimum_serving =
        section.optional("minimum_serving", &read::integer("a number of datacenters", 0..=minimum));
    let required = required(&mut section, fleet);
    let clock_skew_max = section.optional("clock_skew_max", &between(1, 60_000));
    section.finish();
    let count = |found: Option<Located<i64>>, default| {
        found.map_or(default, |count| u32::try_from(count.value).expect("range checked"))
    };
    let fall = count(fall, defaults::PROBE_FALL);
    // Who decides alone must be surer.
    let fall_alone = count(fall_alone, defaults::PROBE_FALL_ALONE.max(fall));
    let probe = Probe {
        interval: interval.map_or(defaults::PROBE_INTERVAL, |found| found.value),
        timeout: timeout.map_or(defaults::PROBE_TIMEOUT, |found| found.value),
        burst_gap: burst_gap.map_or(defaults::PROBE_BURST_GAP, |found| found.value),
        fall,
        fall_alone,
        rise: count(rise, defaults::PROBE_RISE),
        budget: count(budget, defaults::PROBE_BUDGET),
        flap_penalty: comeback.hold_down / defaults::SERVER_CALM_PARTS,
        flap_penalty_max: comeback.hold_down_max / defaults::SERVER_CALM_PARTS,
    };
    Sync {
        listen,
        admin,
        probe,
        comeback,
        minimum_serving: minimum_serving.map_or(defaults::minimum_serving(datacenters), |found| {
            usize::try_from(found.value).expect("range checked")
        }),
        required,
        tls,
        clock_skew_max: clock_skew_max.map_or(defaults::CLOCK_SKEW_MAX, |found| found.value),
    }
}

/// `[store]`.
pub(super) fn store(mut section: Section<'_>) -> Store {
    let listen = listens(&mut section, "listen", || {
        vec![Listen { host: ListenHost::Address(Ipv4Addr::LOCALHOST.into()), port: defaults::STORE_PORT }]
    });
    let entries = || read::integer("entries of a log", 0..=1_000_000_000_000);
    let least = section.optional("log_entries_min", &entries());
    let most = section.optional("log_entries_max", &entries());
    let count = |found: Option<&Located<i64>>, default| {
        found.map_or(default, |count| u64::try_from(count.value).expect("range checked"))
    };
    let log_entries_min = count(least.as_ref(), defaults::LOG_ENTRIES_MIN);
    let log_entries_max = count(most.as_ref(), defaults::LOG_ENTRIES_MAX.max(log_entries_min));
    if let Some(found) = most.filter(|_| log_entries_max < log_entries_min) {
        let message = format!("`log_entries_max` is below `log_entries_min`, which is {log_entries_min}");
        section.wrong("log_entries_max", &found.span, message);
    }
    section.finish();
    Store { listen, log_entries_min, log_entries_max }
}

/// `[sync.return]`.
fn comeback(mut table: Section<'_>) -> Comeback {
    let day = Duration::from_secs(86_400);
    let up_to_a_day = || read::duration(Duration::ZERO..=day);
    let hold_down = table.optional("hold_down", &up_to_a_day());
    let hold_down_max = table.optional("hold_down_max", &up_to_a_day());
    let ramp = table.list_or_none("ramp", &read::integer("a percentage", 1..=99));
    let ramp_step = table.optional("ramp_step", &up_to_a_day());
    let per_hour = table.optional("per_hour", &read::integer("automatic returns an hour", 0..=3600));
    let catch_up = table.optional("catch_up", &up_to_a_day());
    let rises = |steps: &[Located<i64>]| steps.windows(2).all(|pair| pair[0].value < pair[1].value);
    if let Some(steps) = ramp.as_deref().filter(|steps| !rises(steps)) {
        table.wrong("ramp", &steps[0].span.clone(), "the percentages must rise, such as [10, 25, 50]");
    }
    table.finish();
    let hold_down = hold_down.map_or(defaults::HOLD_DOWN, |found| found.value);
    Comeback {
        hold_down,
        hold_down_max: hold_down_max.map_or(defaults::HOLD_DOWN_MAX, |found| found.value).max(hold_down),
        ramp: ramp.map_or(defaults::RAMP.to_vec(), |steps| {
            steps.iter().map(|step| u8::try_from(step.value).expect("range checked")).collect()
        }),
        ramp_step: ramp_step.map_or(defaults::RAMP_STEP, |found| found.value),
        per_hour: per_hour
            .map_or(defaults::RETURNS_PER_HOUR, |found| u32::try_from(found.value).expect("range checked")),
        catch_up: catch_up.map_or(defaults::CATCH_UP, |found| found.value),
    }
}

/// `required = { api = 50 }`: percentages by role.
fn required(section: &mut Section<'_>, fleet: &Fleet) -> Vec<(String, u8)> {
    let entries = section.entries("required", &read::integer("a percentage", 1..=100)).unwrap_or_default();
    let mut roles: Vec<&str> = fleet.servers.iter().map(|server| server.role.as_str()).collect();
    roles.dedup();
    let mut required = Vec::new();
    for (role, percent) in entries {
        if !roles.contains(&role.value.as_str()) {
            let hint = nearest(&role.value, roles.iter().copied());
            let hint = hint.map(|right| format!(": did you mean `{right}`?")).unwrap_or_default();
            section.wrong("required", &role.span, format!("no server has the role `{}`{hint}", role.value));
        }
        required.push((role.value, u8::try_from(percent.value).expect("range checked")));
    }
    required
}
