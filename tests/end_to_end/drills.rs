//! Drills, beside an observer who knows nothing of them: it polls name servers and doors itself, and counts records in the
//! stores' own files. Networks 127.76 to 127.83.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::browser::Browser;
use crate::drains::until;
use crate::fleet::{CLIENTS, Fleet, NAMES, TOKEN_FILE, daemun, text, wait};
use crate::observer::{Observed, POLL, Seen, agrees, observe, page, records, unix_ms};

const ALL: &str = "dns,gateway,sync";
const TARGET: &str = "frankfurt";
/// What a drill's bound does not count: the observer's own looking, on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// Drills are longer than a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(150);

/// The scenarios of these tests: the built-in ones, with limits and objectives that a busy machine keeps too.
fn scenarios() -> String {
    let mut text = String::from("[drill]\nrto = \"1h\"\n");
    for (name, more) in [
        ("blackhole", "hold = \"12s\""),
        ("drain", "shares = [10, 50, 100]\nhold = \"3s\""),
        ("drain-at-once", "hold = \"5s\""),
        ("partition", "hold = \"5s\""),
        ("slow", "delay = \"200ms\"\nhold = \"5s\""),
        ("agent-dead", "hold = \"6s\""),
    ] {
        let fault = name.trim_end_matches("-at-once");
        text += &format!(
            "[[drill.scenarios]]\nname = \"{name}\"\nfault = \"{fault}\"\n{more}\n\
             abort = {{ errors = 100, p99 = \"1m\", lag = \"1h\" }}\n"
        );
    }
    text
}

/// A verb of `daemun drill` on its way, told to these datacenters in turn.
fn begin(fleet: &Fleet, to: &[&str], arguments: &[&str]) -> Child {
    let urls: Vec<String> = to.iter().map(|name| format!("http://{}:7480", fleet.address(name))).collect();
    let mut command = daemun();
    command.arg("drill").args(arguments).args(["--by", "the tests", "--json"]);
    command.args(["--admin", &urls.join(","), "--token-file"]).arg(fleet.path(TOKEN_FILE));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Its end, and the report that it printed.
fn ended(child: Child) -> (Output, Value) {
    let output = child.wait_with_output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)));
    (output, report)
}

fn run(fleet: &Fleet, to: &str, arguments: &[&str]) -> (Output, Value) {
    ended(begin(fleet, &[to], &[&["run"], arguments, &["--yes"]].concat()))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Moments of a report: the first mark of a kind, and of somebody; and how much earlier it may have been.
fn mark(report: &Value, what: &str, who: &str) -> Option<(u64, u64)> {
    let marks = report["timeline"].as_array().unwrap();
    let found = marks.iter().find(|mark| mark["what"] == what && (who.is_empty() || mark["who"] == who));
    found.map(|mark| (number(&mark["at_unix_ms"]), number(&mark["within_ms"])))
}

/// Waits until a datacenter's own users are sent there by all name servers.
fn until_home(fleet: &Fleet) {
    for server in NAMES {
        for (name, client) in NAMES.iter().zip(CLIENTS) {
            wait(&format!("{server} to send the users of {name} home"), || {
                (fleet.sent_to(server, client) == Some(*name)).then_some(())
            });
        }
    }
}

/// The report's counts are what is in the files.
fn counts_agree(fleet: &Fleet, report: &Value) {
    let (id, ledger) = (report["id"].as_str().unwrap(), &report["ledger"]);
    // Keys follow the log within a second or so.
    let all = wait("all stores to have the same records on disk", || {
        let all = NAMES.map(|name| records(fleet, name, id));
        let counted =
            number(&ledger["acknowledged"]) + number(&ledger["unacknowledged"]) - number(&ledger["lost"]);
        (all.iter().all(|one| one.len() as u64 == counted) && all[0] == all[1] && all[1] == all[2])
            .then_some(all)
    });
    println!("  ledger: {} distinct records in each of three files, as the report says", all[0].len());
    for lost in ledger["lost_records"].as_array().unwrap() {
        let (witness, record) = lost.as_str().unwrap().split_once('/').unwrap();
        let key = (witness.to_owned(), format!("{:0>10}", record));
        assert!(!all[0].contains(&key), "{lost} is there");
    }
}

/// Runs a drill beside the observer; its report's moments and counts are the observer's.
fn run_observed(fleet: &Fleet, scenario: &str) -> (Value, Observed) {
    until_home(fleet);
    let stop = AtomicBool::new(false);
    let ((output, report), observed) = thread::scope(|scope| {
        let watching = scope.spawn(|| observe(fleet, &stop));
        let ran = run(fleet, "seoul", &[scenario, "--target", TARGET]);
        stop.store(true, Relaxed);
        (ran, watching.join().unwrap())
    });
    assert!(output.status.success(), "{}{report:#}", text(&output.stderr));
    println!("{}", report["id"]);
    let injected = number(&report["injected_unix_ms"]);
    let undone = number(&report["undone_unix_ms"]);
    for server in ["seoul", "virginia"] {
        let changed = observed.named[server]
            .iter()
            .find(|(seen, to)| seen.at >= injected && to.is_some_and(|to| to != TARGET));
        let reported = mark(&report, "name-server-changed", server);
        agrees(&format!("name server of {server} changed"), reported, changed.map(|(seen, _)| *seen));
    }
    let first = |from: u64, is_it: &dyn Fn(&str) -> bool| {
        let found = observed.served.iter().find(|(at, by)| *at >= from && is_it(by));
        found.map(|(at, _)| Seen { at: *at, gap: POLL.as_millis() as u64 })
    };
    let elsewhere = first(injected, &|by| by != TARGET);
    agrees("first user elsewhere", mark(&report, "first-user-elsewhere", ""), elsewhere);
    // A ramp lets one in ten in first: which, the hash says. That they are back is what both see.
    let (restored, _) = mark(&report, "restored", TARGET).unwrap();
    assert!(restored >= undone && first(undone, &|by| by == TARGET).is_some());
    counts_agree(fleet, &report);
    assert_eq!(report["ledger"]["lost"], 0);
    (report, observed)
}

#[test]
fn drills_are_reported_as_an_observer_sees_them() {
    let fleet = Fleet::started(76, &scenarios());
    run_observed(&fleet, "drain-at-once");
    let (report, observed) = run_observed(&fleet, "blackhole");
    let injected = number(&report["injected_unix_ms"]);
    let silent = observed.named[TARGET].iter().find(|(seen, to)| seen.at >= injected && to.is_none());
    let silent = silent.map(|(seen, _)| seen.at - injected);
    println!("  the target's name server: silent for the observer {silent:?} ms after the fault");
    assert!(silent.is_some() && mark(&report, "name-server-silent", TARGET).is_some());
    shows(&fleet, &report);
}

/// The page of a report, as a browser shows it: on a desk, on a phone. Any datacenter has it.
fn shows(fleet: &Fleet, report: &Value) {
    let id = report["id"].as_str().unwrap();
    let file = fleet.path("report.html");
    let written = fleet.tell("virginia", &["drill", "report", id, "--html", file.to_str().unwrap()]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    println!("{}", text(&written.stdout));
    let browser = Browser::start(fleet.directory.path());
    browser.open(&format!("file://{}", file.display()));
    let title = browser.eval("return document.title");
    assert!(title.as_str().unwrap().contains("blackhole"), "{title}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (width, name) in [(1280, "desk"), (390, "phone")] {
        browser.resize(width, 2400);
        // Nothing sticks out of the page, on any screen.
        let over = browser
            .eval("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(over, 0, "on a {name}");
        browser.screenshot(&target.join(format!("drill-report-{name}.png")));
    }
    let text = browser.eval("return document.body.innerText");
    let text = text.as_str().unwrap();
    for part in [id, TARGET, "99% moved", "acknowledged"] {
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "no `{part}` in {text}");
    }
}

#[test]
fn each_other_fault_ends_by_itself() {
    let fleet = Fleet::started(77, &scenarios());
    until_home(&fleet);
    for (arguments, moves) in [
        (["drain", "--target", TARGET], true),
        (["partition", "--target", TARGET], false),
        (["partition", "--target", "seoul:virginia"], false),
        (["slow", "--target", TARGET], false),
        (["agent-dead", "--target", TARGET], false),
    ] {
        // What is about one datacenter is told to it: another leads.
        let (output, report) = run(&fleet, TARGET, &arguments);
        assert!(output.status.success(), "{arguments:?}: {}{report:#}", text(&output.stderr));
        let (ledger, visits) = (&report["ledger"], &report["visits"]);
        println!(
            "{}: {} acknowledged, {} lost, {} late, {} duplicated; {} of {} visits failed; p99 {} ms",
            report["id"],
            ledger["acknowledged"],
            ledger["lost"],
            ledger["late"],
            ledger["duplicated"],
            visits["failed"],
            visits["all"],
            visits["p99_ms"]
        );
        assert_eq!(ledger["lost"], 0, "{report:#}");
        assert_eq!(mark(&report, "first-user-elsewhere", "").is_some(), moves);
        counts_agree(&fleet, &report);
        until_home(&fleet);
    }
    // All of it is in the store: another datacenter lists it, with what differs from the one before.
    let (output, again) = run(&fleet, "virginia", &["slow", "--target", TARGET, "--hold", "2s"]);
    assert!(output.status.success(), "{again:#}");
    assert!(again["previous"]["id"].as_str().unwrap().contains("-slow-frankfurt"), "{again:#}");
    let listed = fleet.tell("seoul", &["drill", "history"]);
    let listed = text(&listed.stdout);
    assert_eq!(listed.lines().count(), 7, "{listed}");
    println!("{listed}");
}

/// Door and name server of the target are processes of their own: they know of the drill from the view alone, and end it by
/// their own timers.
#[test]
fn processes_without_an_agent_take_their_part() {
    let mut fleet = Fleet::new(82, &scenarios());
    for (name, roles) in
        [("seoul", ALL), ("virginia", ALL), (TARGET, "sync"), (TARGET, "dns"), (TARGET, "gateway")]
    {
        fleet.start(name, roles);
    }
    fleet.wait_until_all_see_all();
    until_home(&fleet);
    let (output, report) = run(&fleet, "virginia", &["blackhole", "--target", TARGET, "--hold", "5s"]);
    assert!(output.status.success(), "{}{report:#}", text(&output.stderr));
    assert!(mark(&report, "name-server-silent", TARGET).is_some() && mark(&report, "moved", "").is_some());
    until_home(&fleet);
    // All agents die in the middle: nobody is left to say that it is over.
    let mut drill =
        begin(&fleet, &["seoul"], &["run", "blackhole", "--target", TARGET, "--hold", "5s", "--yes"]);
    wait("the door to fail", || page(IpAddr::from(fleet.address(TARGET))).is_none().then_some(()));
    for (name, roles) in [("seoul", ALL), ("virginia", ALL), (TARGET, "sync")] {
        fleet.kill(name, roles);
    }
    wait("the door to answer again", || page(IpAddr::from(fleet.address(TARGET))));
    wait("the name server to answer again", || fleet.ask(TARGET, "www.shop.test.", None).ok());
    drill.kill().unwrap();
    drill.wait().unwrap();
}

/// Commands by which this test kills and starts a datacenter, and destroys what it holds.
fn commands(fleet: &Fleet) -> String {
    let began = fleet.path("start-it");
    format!(
        "[drill]\nkill = [\"/bin/sh\", \"-c\", \"rm -rf \\\"$DAEMUN_DATA/store\\\"; kill -KILL $DAEMUN_PID\"]\n\
         start = [\"/usr/bin/touch\", \"{}\"]\n",
        began.display()
    )
}

#[test]
fn what_a_destroyed_disk_took_is_reported_with_its_numbers() {
    let mut fleet = Fleet::new(78, "");
    std::fs::write(fleet.config_path(), fleet.config(&commands(&fleet))).unwrap();
    fleet.start_all();
    until_home(&fleet);
    let scenario = "name = \"broken\"\ndurability = \"local\"\nbaseline = \"2s\"\n\
                    abort = { errors = 100, p99 = \"1m\", lag = \"1h\" }\n\
                    [[steps]]\nfaults = [\"partition\"]\nhold = \"4s\"\n\
                    [[steps]]\nfaults = [\"partition\", \"kill\"]\nhold = \"6s\"\n";
    std::fs::write(fleet.path("broken.toml"), scenario).unwrap();
    let file = fleet.path("broken.toml");
    let run = ["run", file.to_str().unwrap(), "--target", TARGET, "--yes"];
    let drill = begin(&fleet, &["seoul"], &run);
    // The guard outlives who began it, and says when to start.
    let asked = fleet.path("start-it");
    wait("the guard to start it again", || asked.exists().then_some(()));
    assert!(!fleet.ended(TARGET, ALL), "it was killed");
    fleet.start(TARGET, ALL);
    let (output, report) = ended(drill);
    assert_eq!(output.status.code(), Some(1), "{}{report:#}", text(&output.stderr));
    let ledger = &report["ledger"];
    let lost = number(&ledger["lost"]);
    println!(
        "destroyed: {} acknowledged, {lost} lost, the first {}; found in each: {}",
        ledger["acknowledged"], ledger["lost_records"][0], ledger["counted"]
    );
    assert!(lost > 0, "{report:#}");
    assert_eq!(ledger["lost_records"].as_array().unwrap().len() as u64, lost);
    let objective = |name: &str| {
        let all = report["verdict"]["objectives"].as_array().unwrap();
        all.iter().find(|objective| objective["name"] == name).unwrap()["is_met"].clone()
    };
    assert_eq!(objective("rpo"), false);
    counts_agree(&fleet, &report);
}

#[test]
fn a_limit_that_does_not_hold_ends_it_and_a_rule_that_does_not_refuses_it() {
    let fleet = Fleet::started(79, &scenarios());
    until_home(&fleet);
    let scenario = "name = \"careful\"\nfault = \"blackhole\"\nhold = \"60s\"\nabort = { errors = 5 }\n";
    std::fs::write(fleet.path("careful.toml"), scenario).unwrap();
    let file = fleet.path("careful.toml");
    let (output, report) = run(&fleet, "seoul", &[file.to_str().unwrap(), "--target", TARGET]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    println!("{}: {}", report["outcome"]["ended"], report["outcome"]["why"]);
    assert_eq!(report["outcome"]["ended"], "aborted", "{report:#}");
    assert!(report["outcome"]["why"].as_str().unwrap().contains("% are allowed"), "{report:#}");
    until_home(&fleet);

    // Not while another datacenter is out; not while another drill is under way; not what cannot be.
    let refused = |arguments: &[&str], code: i32, part: &str| {
        let output = fleet.tell("virginia", &[&["drill"], arguments].concat());
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: no `{part}` in {said}");
        println!(
            "{}: {}",
            arguments.join(" "),
            said.lines().find(|line| line.contains(part)).unwrap().trim()
        );
    };
    refused(&["plan", "blackhole", "--target", "frankfort"], 2, "there is no datacenter `frankfort`");
    refused(&["plan", "blackhol", "--target", TARGET], 2, "there is no scenario `blackhol`");
    refused(&["plan", "kill", "--target", "seoul:virginia"], 2, "is about a datacenter");
    refused(&["plan", "kill", "--target", TARGET], 1, "`drill.kill` and `drill.start` are not configured");
    refused(&["plan", "drain", "--target", TARGET, "--expect-generation", "1"], 1, "not 1 as expected");
    refused(
        &["plan", "partition", "--target", TARGET, "--durability", "remote:2"],
        1,
        "remote:2 cannot be while it fails",
    );
    let long = begin(&fleet, &["seoul"], &["run", "blackhole", "--target", TARGET, "--hold", "60s", "--yes"]);
    wait("the drill to be heard of", || {
        fleet.status("virginia")?["view"]["drill"]["id"].is_string().then_some(())
    });
    refused(&["plan", "slow", "--target", "seoul"], 1, "is under way, begun by the tests");
    refused(&["run", "slow", "--target", "seoul", "--yes"], 1, "is under way, begun by the tests");
    // An operator's word waits too. And one abort from anywhere ends it.
    let drain = fleet.tell("seoul", &["drain", "virginia", "--by", "the tests"]);
    assert_eq!(drain.status.code(), Some(1), "{}", text(&drain.stdout));
    let aborted = fleet.tell("virginia", &["drill", "abort", "--reason", "enough", "--by", "the tests"]);
    println!("{}", text(&aborted.stdout).trim());
    let (_, report) = ended(long);
    assert_eq!(report["outcome"]["why"], "by the tests: enough", "{report:#}");
    until_home(&fleet);
    let drained = fleet.tell("seoul", &["drain", "virginia", "--by", "the tests"]);
    assert!(drained.status.success(), "{}", text(&drained.stdout));
    until(&fleet, "virginia", "drained");
    refused(&["plan", "blackhole", "--target", TARGET], 1, "virginia is drained");
}

/// Whoever dies in the middle of a drill: all is as before, by the time that was said.
#[test]
fn whoever_dies_in_the_middle_it_is_undone_on_time() {
    let mut fleet = Fleet::started(80, "");
    let rounds: usize =
        std::env::var("DAEMUN_ROUNDS").map_or(1, |rounds| rounds.parse::<usize>().unwrap().div_ceil(5));
    for round in 0..rounds {
        for dies in ["the command line", "seoul", TARGET, "virginia", "the network to the command line"] {
            until_home(&fleet);
            let to = if dies == "the command line" { ["virginia"] } else { ["seoul"] };
            let begun = Instant::now();
            let run = ["run", "blackhole", "--target", TARGET, "--hold", "8s", "--yes", "--no-witness"];
            let mut drill = begin(&fleet, &to, &run);
            wait("the door to fail", || page(IpAddr::from(fleet.address(TARGET))).is_none().then_some(()));
            match dies {
                "the command line" => drill.kill().unwrap(),
                "the network to the command line" => {
                    let pid = nix::unistd::Pid::from_raw(drill.id() as i32);
                    nix::sys::signal::kill(pid, Signal::SIGSTOP).unwrap();
                }
                name => {
                    fleet.kill(name, ALL);
                    fleet.start(name, ALL);
                }
            }
            wait("the door to answer again", || page(IpAddr::from(fleet.address(TARGET))));
            let took = begun.elapsed();
            // Arming, watching, the step, the margin: 10 + 3 + 8 + 3 seconds.
            println!(
                "round {round}: {dies} dies; the door answers again {took:?} after the drill began, 24 s are its bound"
            );
            assert!(took < Duration::from_secs(24) + SLACK, "{dies}: {took:?}");
            until_home(&fleet);
            drill.kill().unwrap();
            drill.wait().unwrap();
            fleet.wait_until_all_see_all();
            until_quiet(&fleet);
        }
    }
}

/// Waits until nobody leads a drill any more, and a new one could begin.
fn until_quiet(fleet: &Fleet) {
    let begun = Instant::now();
    loop {
        let output = fleet.tell("seoul", &["drill", "plan", "blackhole", "--target", TARGET]);
        if output.status.success() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", text(&output.stdout));
        sleep(Duration::from_millis(200));
    }
}

/// A window of the minutes around now, in UTC.
fn window(minutes: u64) -> String {
    let minute = unix_ms() / 60_000;
    let day = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"][(minute / 1440 % 7) as usize];
    let at = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    format!("{day} {}-{}", at(minute), at(minute + minutes))
}

#[test]
fn scheduled_drills_begin_by_themselves_or_are_skipped_with_a_reason() {
    let schedule = |window: &str, more: &str| {
        format!(
            "[drill]\n{more}[[drill.schedules]]\nscenario = \"slow\"\ntarget = \"seoul\"\nwindow = \"{window}\"\n\
             [[drill.scenarios]]\nname = \"slow\"\nfault = \"slow\"\ndelay = \"50ms\"\nhold = \"2s\"\n"
        )
    };
    let fleet = Fleet::started(81, &schedule(&window(30), ""));
    let reports = || {
        let output = fleet.tell("virginia", &["drill", "history", "--json"]);
        serde_json::from_slice::<Vec<Value>>(&output.stdout).ok()
    };
    let report = wait("the scheduled drill", || reports()?.first().cloned());
    assert_eq!(
        (&report["by"], &report["outcome"]["ended"]),
        (&"the schedule".into(), &"done".into()),
        "{report:#}"
    );
    // Not led by its target, which is the first in the config.
    assert_eq!(report["conductor"], TARGET);
    let listed = text(&fleet.tell("seoul", &["drill", "schedule"]).stdout);
    println!("{listed}");
    assert!(listed.contains("slow") && listed.contains(": met"), "{listed}");

    // The last minute of a window, in which no drill may begin.
    let blocked = format!("blocked = [\"{}\"]\n", window(60));
    std::fs::write(fleet.config_path(), fleet.config(&schedule(&window(1), &blocked))).unwrap();
    // It is kept when the window is over.
    let begun = Instant::now();
    let skipped = loop {
        // A new minute is a new window.
        let config = fleet.config(&schedule(&window(1), &blocked));
        if std::fs::read_to_string(fleet.config_path()).unwrap() != config {
            std::fs::write(fleet.config_path(), config).unwrap();
        }
        let is_skipped = |report: &Value| report["outcome"]["ended"] == "skipped";
        if let Some(skipped) = reports().and_then(|all| all.into_iter().find(is_skipped)) {
            break skipped;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing is skipped");
        sleep(Duration::from_millis(500));
    };
    println!("skipped: {}", skipped["outcome"]["why"]);
    assert!(skipped["outcome"]["why"].as_str().unwrap().contains("`drill.blocked` has"), "{skipped:#}");
}
