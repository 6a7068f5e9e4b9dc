//! `[drill]`: what is read, what holds in silence, and what is said of each way to be wrong.

use super::*;
use crate::Config;
use crate::config::Problems;
use crate::drill::{BUILTINS, Fault, Limits, Load, Step};

const FLEET: &str = r#"version = 1
fleet.name = "two"
[[datacenters]]
name = "seoul"
latitude = 37
longitude = 126
addresses = "192.0.2.1"
agent = "https://192.0.2.1:7400"
[[datacenters]]
name = "frankfurt"
latitude = 50
longitude = 8
addresses = "192.0.2.2"
agent = "https://192.0.2.2:7400"
[[servers]]
name = "api"
role = "api"
datacenter = "seoul"
check = { none = true }
[[servers]]
name = "door-1"
role = "frontdoor"
datacenter = "seoul"
check = { none = true }
[[servers]]
name = "door-2"
role = "frontdoor"
datacenter = "frankfurt"
check = { none = true }
[[dns.zones]]
name = "shop.example"
file = "shop.zone"
"#;

/// Only the last is for users at the front door.
const NAMES: &str = r#"[[dns.names]]
name = "api.shop.example"
policy = "failover"
order = ["seoul"]
role = "api"
types = "A"
[[dns.names]]
name = "*.shop.example"
policy = "nearest"
[[dns.names]]
name = "www.shop.example"
policy = "nearest"
"#;

/// Everything is used.
const DRILL: &str = r#"[drill]
rto = "15s"
rpo = 2
name = "WWW.shop.example."
blocked = ["fri 15:00-24:00", "2026-12-24..2026-12-27"]
kill = ["/bin/systemctl", "kill", "-s", "KILL", "daemun@seoul"]
start = "/usr/local/bin/start"

[[drill.scenarios]]
name = "ramp"
fault = "blackhole"
target = "frankfurt"
shares = [10, 100]
hold = "30s"
durability = "all"
users = 3
visits = 20
patience = "2s"
baseline = "5s"
recover = "0s"
rto = "20s"
rpo = 0
abort = { errors = 70, p99 = "3s", lag = "1m" }

[[drill.scenarios]]
name = "link"
target = "seoul:frankfurt"
[[drill.scenarios.steps]]
faults = ["partition", "slow"]
delay = "50ms"
hold = "1m"
[[drill.scenarios.steps]]
faults = "partition"

[[drill.schedules]]
scenario = "ramp"
window = "tue 10:00-11:00"

[[drill.schedules]]
scenario = "agent-dead"
target = "seoul"
window = "sun 23:00-01:00"
"#;

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse("daemun.toml", text)
}

fn with_drill(drill: &str) -> Result<Config, Problems> {
    parse(&format!("{FLEET}{NAMES}{drill}"))
}

fn read(text: &str) -> Scenario {
    Scenario::parse("test.toml", text, None).unwrap_or_else(|said| panic!("{text}: {said}"))
}

#[test]
fn everything_is_read() {
    let drill = with_drill(DRILL).unwrap().drill;
    assert_eq!(drill.objectives, Objectives { rto_ms: 15_000, rpo: 2 });
    assert_eq!(drill.name.as_deref(), Some("www.shop.example"));
    let blocked: Vec<_> = drill.blocked.iter().map(Blocked::to_string).collect();
    assert_eq!(blocked, ["fri 15:00-24:00", "2026-12-24..2026-12-27"]);
    let commands = drill.commands.as_ref().unwrap();
    assert_eq!((commands.kill.len(), &commands.start[..]), (5, &["/usr/local/bin/start".to_owned()][..]));

    let ramp = drill.scenario("ramp").unwrap();
    let step = |share| Step { faults: vec![Fault::Blackhole { share }], hold_ms: 30_000 };
    let expected = Scenario {
        name: "ramp".to_owned(),
        target: Some(Target::Datacenter("frankfurt".to_owned())),
        steps: vec![step(10), step(100)],
        load: Load { users: 3, visits_per_second: 20, patience_ms: 2000 },
        durability: "all".to_owned(),
        limits: Limits { errors_percent: 70, p99_ms: 3000, lag_ms: 60_000 },
        objectives: Objectives { rto_ms: 20_000, rpo: 0 },
        baseline_ms: 5000,
        recover_ms: 0,
    };
    assert_eq!(ramp, expected);

    let link = drill.scenario("link").unwrap();
    assert_eq!(link.target, Some(Target::Link("seoul".to_owned(), "frankfurt".to_owned())));
    assert_eq!(link.steps[0].faults, [Fault::Partition, Fault::Slow { delay_ms: 50 }]);
    assert_eq!((link.steps[0].hold_ms, link.steps[1].hold_ms), (60_000, 20_000));
    assert_eq!(link.objectives, drill.objectives, "the config's");

    let [first, second] = &drill.schedules[..] else { panic!("two schedules") };
    assert_eq!((first.scenario.as_str(), first.target.to_string()), ("ramp", "frankfurt".to_owned()));
    assert_eq!(
        (second.target.to_string(), second.window.to_string()),
        ("seoul".into(), "sun 23:00-01:00".into())
    );
    let is_blocked = |unix_ms: u64| drill.blocked_between(unix_ms, unix_ms + 1).is_some();
    let (begin, _) = drill.blocked[1].next(0).unwrap();
    assert!(is_blocked(begin) && !is_blocked(0));
    // Also what would be over only after a blocked time has begun.
    assert!(drill.blocked_between(begin - 10, begin - 5).is_none());
    assert!(drill.blocked_between(begin - 10, begin + 1).is_some());
}

#[test]
fn silence_means_defaults() {
    let drill = with_drill("").unwrap().drill;
    let expected = DrillConfig {
        objectives: Objectives { rto_ms: 10_000, rpo: 0 },
        name: Some("www.shop.example".to_owned()),
        blocked: Vec::new(),
        commands: None,
        schedules: Vec::new(),
        scenarios: Vec::new(),
    };
    assert_eq!(drill, expected, "the first name of the front door that is no wildcard");
    assert_eq!(parse(FLEET).unwrap().drill.name, None);
    assert_eq!(with_drill("[drill]\nblocked = []\n").unwrap().drill, drill);
    let scenario = read("name = \"a\"\nfault = \"blackhole\"\n");
    assert_eq!(scenario.load, Load { users: 8, visits_per_second: 10, patience_ms: 1000 });
    assert_eq!((scenario.baseline_ms, scenario.recover_ms), (3000, 120_000));
    assert_eq!((scenario.objectives, scenario.durability.as_str()), (drill.objectives, "remote:1"));
}

#[test]
fn built_in_scenarios_as_they_would_be_written() {
    let drill = with_drill("[drill]\nrto = \"7s\"\nrpo = 1\n").unwrap().drill;
    let written =
        ["shares = [10, 50, 100]\nhold = \"10s\"", "shares = [100]", "", "", "delay = \"200ms\"", ""];
    for ((name, what), rest) in BUILTINS.into_iter().zip(written) {
        let text = format!("name = \"{name}\"\nfault = \"{name}\"\nrto = \"7s\"\nrpo = 1\n{rest}\n");
        assert_eq!(drill.scenario(name), Some(read(&text)), "{name}");
        assert!(!what.is_empty() && what.len() < 100, "{name}");
    }
    assert_eq!(drill.scenario("blackhol"), None);
    let own = "[[drill.scenarios]]\nname = \"drain\"\nfault = \"drain\"\nshares = 5\n";
    let own = with_drill(own).unwrap().drill.scenario("drain").unwrap();
    assert_eq!(own.steps.len(), 1, "the operator's own comes first");
}

#[test]
fn a_file_of_its_own_knows_the_config() {
    let config = with_drill("[drill]\nrto = \"7s\"\n").unwrap();
    let text = "name = \"cut\"\ntarget = \"frankfrut\"\nfault = \"partition\"\n";
    assert_eq!(
        Scenario::parse("cut.toml", text, Some(&config)).unwrap_err().to_string(),
        "cut.toml:2:10: target: unknown datacenter `frankfrut`: did you mean `frankfurt`?"
    );
    assert_eq!(read(text).target, Some(Target::Datacenter("frankfrut".to_owned())), "nobody knows better");
    let right = Scenario::parse("cut.toml", &text.replace("frankfrut", "seoul:frankfurt"), Some(&config));
    assert_eq!(right.unwrap().objectives, Objectives { rto_ms: 7000, rpo: 0 });
}

#[test]
fn what_can_be_made_on_a_link() {
    let link = Target::parse("seoul:frankfurt");
    let misfit = |name| builtin(name, crate::config::parse_drill::OBJECTIVES).unwrap().misfit(&link).copied();
    assert_eq!((misfit("partition"), misfit("slow")), (None, None));
    assert_eq!(misfit("kill"), Some(Fault::Kill));
    assert_eq!(misfit("drain"), Some(Fault::Drain { share: 10 }));
}

#[test]
fn the_example_is_right_where_it_is_a_comment_too() {
    let example = include_str!("../../../../deploy/example/daemun.toml");
    let (before, drill) = example.split_once("\n[drill]").unwrap();
    let is_key = |line: &&str| line.starts_with("[[") || line.split(' ').nth(1) == Some("=");
    let bare = |line| str::strip_prefix(line, "# ").filter(is_key).unwrap_or(line);
    let drill: Vec<&str> = drill.lines().map(bare).collect();
    let drill = parse(&format!("{before}\n[drill]{}", drill.join("\n"))).unwrap().drill;
    assert_eq!((drill.schedules.len(), drill.scenarios.len()), (1, 1));
    assert!(drill.commands.is_some());
}

/// What is put in the place of what in `DRILL`, its line there, and a part of what must be said.
const WRONG: &[(&str, &str, usize, &str)] = &[
    (
        "rto = \"15s\"",
        "rto = \"0s\"",
        2,
        "drill.rto: expected a duration from \"1ms\" to \"1h\", found \"0s\"",
    ),
    ("rpo = 2", "rpo = -1", 3, "drill.rpo: expected writes from 0 to 1000000000, found the integer -1"),
    (
        "WWW.shop.example.",
        "ww.shop.example",
        4,
        "name: `ww.shop.example` is not a steered name: did you mean",
    ),
    ("WWW.shop.example.", "*.shop.example", 4, "drill.name: expected a domain name"),
    (
        "\"fri 15:00-24:00\"",
        "\"fri 15:00-15:00\"",
        5,
        "drill.blocked[0]: expected a time of the week such as",
    ),
    ("2026-12-24..", "2026-12-28..", 5, "drill.blocked[1]: expected a time of the week such as"),
    ("\"/bin/systemctl\"", "\"systemctl\"", 6, "drill.kill: expected the absolute path of a program"),
    (
        "kill = [\"/bin/systemctl\", \"kill\", \"-s\", \"KILL\", \"daemun@seoul\"]",
        "",
        1,
        "drill.kill: missing",
    ),
    (
        "start = \"/usr/local/bin/start\"",
        "",
        1,
        "start: missing: expected a command, as there is one for `kill`",
    ),
    ("start = \"/usr/local/bin/start\"", "start = []", 7, "drill.start: expected at least one"),
    ("rpo = 2", "rppo = 2", 3, "unknown key `drill.rppo`: did you mean `rpo`?"),
    ("[[drill.schedules]]\nscenario = \"ramp\"", "[[drill.schedule]]", 35, "did you mean `schedules`?"),
    ("name = \"ramp\"", "name = \"Ramp\"", 10, "drill.scenarios[0].name: expected a name of 1 to 63"),
    ("name = \"link\"", "name = \"ramp\"", 26, "scenario `ramp` is already given at line 54"),
    ("name = \"link\"", "", 25, "drill.scenarios[1].name: missing"),
    ("target = \"frankfurt\"", "target = \"frankfrut\"", 12, "`frankfrut`: did you mean `frankfurt`?"),
    ("target = \"frankfurt\"", "target = \"busan\"", 12, "the datacenters are seoul, frankfurt"),
    (
        "target = \"frankfurt\"",
        "target = \"a:b:c\"",
        12,
        "expected the name of a datacenter, or two as \"one:other\"",
    ),
    ("target = \"frankfurt\"", "target = \"seoul:seoul\"", 12, "or two as \"one:other\" for the link"),
    (
        "target = \"frankfurt\"",
        "target = \"seoul:frankfurt\"",
        12,
        "`seoul:frankfurt` is a link: it can have a `partition` or be `slow`, `blackhole` is of a datacenter",
    ),
    ("seoul:frankfurt", "seoul:frankfrut", 27, "scenarios[1].target: unknown datacenter `frankfrut`"),
    ("faults = \"partition\"", "faults = \"kill\"", 27, "`kill` is of a datacenter"),
    ("fault = \"blackhole\"", "fault = \"blackhol\"", 11, "expected one of \"drain\", \"blackhole\""),
    (
        "fault = \"blackhole\"",
        "",
        9,
        "fault: missing: expected what fails, or a [[steps]] table for each step",
    ),
    (
        "fault = \"blackhole\"",
        "fault = \"kill\"",
        13,
        "scenarios[0].shares: goes with `drain` and `blackhole`",
    ),
    (
        "fault = \"blackhole\"",
        "fault = \"slow\"",
        9,
        "drill.scenarios[0].delay: missing: expected a duration",
    ),
    ("[10, 100]", "[10, 10]", 13, "shares: the percentages must rise, such as [10, 50, 100]"),
    ("[10, 100]", "[10, 101]", 13, "shares[1]: expected a percentage from 1 to 100, found the integer 101"),
    ("[10, 100]", "[]", 13, "shares: expected at least one"),
    ("hold = \"30s\"", "delay = \"1s\"", 14, "drill.scenarios[0].delay: goes with `slow`"),
    ("hold = \"30s\"", "hold = \"2h\"", 14, "hold: expected a duration from \"1s\" to \"1h\""),
    ("hold = \"30s\"", "steps = [{ faults = \"kill\" }]", 11, "either `fault` or `[[steps]]`, not both"),
    (
        "durability = \"all\"",
        "durability = \"remote:64\"",
        15,
        "\"remote:N\" with N from 1 to 63, or \"all\"",
    ),
    ("durability = \"all\"", "durability = \"remote:01\"", 15, "durability: expected \"memory\", \"local\""),
    ("durability = \"all\"", "durability = \"disk\"", 15, "found \"disk\""),
    ("users = 3", "users = 0", 16, "users: expected networks from 1 to 100"),
    ("visits = 20", "visits = 201", 17, "visits: expected visits a second from 1 to 200"),
    ("patience = \"2s\"", "patience = \"1ms\"", 18, "patience: expected a duration from \"10ms\" to \"1m\""),
    ("baseline = \"5s\"", "baseline = \"0s\"", 19, "baseline: expected a duration from \"1s\" to \"10m\""),
    ("recover = \"0s\"", "recover = \"61m\"", 20, "recover: expected a duration from \"0s\" to \"1h\""),
    ("rto = \"20s\"", "rto = 20", 21, "drill.scenarios[0].rto: expected a duration"),
    ("errors = 70", "errors = 0", 23, "scenarios[0].abort.errors: expected a percentage from 1 to 100"),
    ("p99 = \"3s\"", "p99 = \"2m\"", 23, "abort.p99: expected a duration from \"1ms\" to \"1m\""),
    ("lag = \"1m\"", "leg = \"1m\"", 23, "unknown key `drill.scenarios[0].abort.leg`: did you mean `lag`?"),
    ("delay = \"50ms\"", "", 28, "drill.scenarios[1].steps[0].delay: missing"),
    ("delay = \"50ms\"", "delay = \"0s\"", 30, "steps[0].delay: expected a duration from \"1ms\" to \"1m\""),
    ("hold = \"1m\"", "share = 10", 31, "steps[0].share: goes with `drain` and `blackhole`"),
    ("\"partition\", \"slow\"", "\"slow\", \"slow\"", 29, "steps[0].faults: `slow` stands here twice"),
    ("\"partition\", \"slow\"", "", 29, "steps[0].faults: expected at least one"),
    ("faults = \"partition\"", "faults = \"partitoin\"", 33, "steps[1].faults: expected one of"),
    ("faults = \"partition\"", "", 32, "steps[1].faults: missing: expected what fails"),
    ("faults = \"partition\"", "fault = \"partition\"", 33, "steps[1].fault`: did you mean `faults`?"),
    (
        "name = \"link\"",
        "name = \"link\"\nhold = \"2s\"",
        27,
        "goes with `fault`: each of the `[[steps]]` has",
    ),
    (
        "scenario = \"ramp\"",
        "scenario = \"blackhol\"",
        36,
        "unknown scenario `blackhol`: did you mean `blackhole`?",
    ),
    (
        "scenario = \"ramp\"",
        "scenario = \"nothing-like-it\"",
        36,
        "the scenarios are ramp, link, drain, blackhole",
    ),
    ("scenario = \"ramp\"", "", 35, "drill.schedules[0].scenario: missing"),
    (
        "target = \"seoul\"\n",
        "",
        39,
        "target: missing: expected a target, as the scenario `agent-dead` has none",
    ),
    ("target = \"seoul\"\n", "target = \"soul\"\n", 41, "schedules[1].target: unknown datacenter `soul`"),
    ("target = \"seoul\"\n", "target = \"frankfurt:seoul\"\n", 41, "`agent-dead` is of a datacenter"),
    (
        "window = \"tue 10:00-11:00\"",
        "window = \"tue 10:00\"",
        37,
        "window: expected a time of the week such as",
    ),
    ("window = \"tue 10:00-11:00\"", "window = \"tue 10:00-10:00\"", 37, "in UTC, not empty"),
    ("window = \"tue 10:00-11:00\"", "", 35, "drill.schedules[0].window: missing"),
];

#[test]
fn every_key_says_what_it_wants() {
    let before = FLEET.lines().count() + NAMES.lines().count();
    for (from, to, line, part) in WRONG {
        assert_eq!(DRILL.matches(from).count(), 1, "`{from}` stands once");
        let said = with_drill(&DRILL.replace(from, to)).expect_err(to);
        let place = format!("daemun.toml:{}:", before + line);
        let is_said = |problem: &str| problem.starts_with(&place) && problem.contains(part);
        assert!(
            said.to_string().lines().any(is_said),
            "`{from}` → `{to}`: expected to be told `{part}` at {place}, was told\n{said}"
        );
    }
}

#[test]
fn a_problem_brings_no_others() {
    for (from, to) in [
        ("fault = \"blackhole\"", "fault = \"blackhol\""),
        ("faults = \"partition\"", "faults = \"partitoin\""),
        ("name = \"ramp\"", "name = \"ramp\"\nuser = 1"),
        ("\"partition\", \"slow\"", "\"partition\", \"slow\", \"kil\""),
        ("scenario = \"ramp\"", "scenario = \"rampp\""),
        ("window = \"tue 10:00-11:00\"", "window = 10"),
    ] {
        let said = with_drill(&DRILL.replace(from, to)).expect_err(to);
        assert_eq!(said.0.len(), 1, "{to}: {said}");
    }
}

#[test]
fn many_are_too_many() {
    let blocked = vec!["\"mon 01:00-02:00\""; 257].join(", ");
    let said = with_drill(&format!("[drill]\nblocked = [{blocked}]\n")).unwrap_err();
    assert!(said.to_string().contains("drill.blocked: at most 256 are supported"), "{said}");
    let schedules =
        "[[drill.schedules]]\nscenario = \"kill\"\ntarget = \"seoul\"\nwindow = \"mon 01:00-02:00\"\n";
    let said = with_drill(&schedules.repeat(257)).unwrap_err().to_string();
    assert!(said.contains("drill.schedules: at most 256 are supported"), "{said}");
}
