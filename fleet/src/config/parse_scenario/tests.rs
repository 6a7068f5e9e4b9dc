//! Scenarios as text: what holds in silence, how long one may last, and that no text makes it panic.

use proptest::prelude::*;

use super::*;

/// A fleet in which any scenario may stand.
const FLEET: &str = "version = 1\nfleet.name = \"one\"\n[[datacenters]]\nname = \"seoul\"\nlatitude = 37\nlongitude = 126\n\
    addresses = \"192.0.2.1\"\nagent = \"https://192.0.2.1:7400\"\n";

fn read(text: &str) -> Scenario {
    Scenario::parse("test.toml", text, None).unwrap_or_else(|said| panic!("{text}: {said}"))
}

#[test]
fn users_may_fail_more_where_they_are_meant_to() {
    for (rest, percent) in [
        ("fault = \"kill\"", 60),
        ("fault = \"blackhole\"\nshares = 1", 60),
        ("fault = \"drain\"", 5),
        ("fault = \"partition\"", 5),
        ("fault = \"slow\"\ndelay = \"1s\"", 5),
        ("fault = \"agent-dead\"", 5),
        ("steps = [{ faults = \"partition\" }, { faults = [\"drain\", \"kill\"], share = 7 }]", 60),
        ("fault = \"kill\"\nabort.errors = 9", 9),
    ] {
        let limits = read(&format!("name = \"a\"\n{rest}\n")).limits;
        assert_eq!(limits, Limits { errors_percent: percent, p99_ms: 2000, lag_ms: 30_000 }, "{rest}");
    }
}

#[test]
fn steps_have_an_end() {
    let said = |text: &str| Scenario::parse("a.toml", text, None).unwrap_err().to_string();
    let step = "[[steps]]\nfaults = \"kill\"\nhold = \"1h\"\n";
    read(&format!("name = \"a\"\n{}", step.repeat(4)));
    assert_eq!(
        said(&format!("name = \"a\"\n{}", step.repeat(6))),
        "a.toml:14:1: steps: all steps together last longer than 4h"
    );
    let short = format!("name = \"a\"\n{}", step.replace("1h", "1s").repeat(21));
    assert_eq!(said(&short), "a.toml:62:1: steps: at most 20 steps are supported");
    let shares = (1..=21).map(|share| share.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!("name = \"a\"\nfault = \"drain\"\nhold = \"13m\"\nshares = [{shares}]\n");
    let told = said(&text);
    assert!(told.contains("a.toml:4:") && told.contains("fault: at most 20 steps are supported"), "{told}");
    assert!(told.contains("fault: all steps together last longer than 4h"), "{told}");
    assert_eq!(
        said("name = \"a\"\nsteps = []\n"),
        "a.toml:2:9: steps: expected at least one [[steps]] table"
    );
    assert!(said("name = \"a\"\nsteps = 1\n").contains("steps: expected `[[steps]]` tables"));
    assert!(said("name = \"a\"\nfault = \n").contains("a.toml:2:9: not TOML"));
    assert!(said("").contains("a.toml:1:1: name: missing"), "{}", said(""));
}

/// Keys of all tables, and values right and wrong.
const KEYS: &str =
    "target fault shares delay hold faults share durability users visits patience baseline recover rto";
const VALUES: &str = r#""a" "a:b" "seoul" "kill" "drain" "slow" "partition" ["slow","kill"] [10,100] [1,1] [] "200ms" "1h" "0s"
    "584542046y" "remote:1" "all" 7 -7 100 0x7fffffffffffffff 1e300 true {errors=1} [{faults="kill",hold="1h"}]"#;

/// Lines of a table, no key twice: TOML, and perhaps a scenario.
fn lines() -> impl Strategy<Value = String> {
    let word = |words: &'static str| proptest::sample::select(words.split_whitespace().collect::<Vec<_>>());
    let lines = prop::collection::btree_map(word(KEYS), word(VALUES), 0..5);
    lines.prop_map(|lines| lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect())
}

/// A scenario or nearly, or no TOML at all.
fn text() -> impl Strategy<Value = String> {
    let steps = prop::collection::vec(lines(), 0..4);
    let tables =
        (lines(), prop_oneof![Just(String::new()), lines()], steps).prop_map(|(top, abort, steps)| {
            let steps: String = steps.iter().map(|step| format!("[[steps]]\n{step}")).collect();
            format!("name = \"a\"\n{top}{steps}[abort]\n{abort}")
        });
    let right = (1..=100_u8, 1..=3600_u16).prop_map(|(share, hold)| {
        format!("name = \"a\"\nfault = \"drain\"\nshares = {share}\nhold = \"{hold}s\"\n")
    });
    prop_oneof![8 => tables, 1 => right, 1 => "[a-z\\[\\]{}=\". ,0-9é#\n]{0,60}"]
}

proptest! {
    /// What is read can be made; all else is said, with its place; nothing panics.
    #[test]
    fn any_text_is_a_scenario_or_has_problems(text in text()) {
        match Scenario::parse("a.toml", &text, None) {
            Ok(scenario) => {
                prop_assert!((1..=20).contains(&scenario.steps.len()));
                prop_assert!(scenario.steps.iter().all(|step| !step.faults.is_empty()));
                prop_assert!(scenario.fails_for_ms() <= 4 * 3_600_000);
                prop_assert_eq!(scenario.target.as_ref().and_then(|target| scenario.misfit(target)), None);
            }
            Err(problems) => prop_assert!(!problems.0.is_empty()),
        }
    }

    /// The same where there is a config, in a table of it.
    #[test]
    fn any_text_is_a_config_or_has_problems(text in text()) {
        let text = text.replace("[[steps]]", "[[drill.scenarios.steps]]").replace("[abort]", "[drill.scenarios.abort]");
        if let Err(problems) = Config::parse("daemun.toml", &format!("{FLEET}[[drill.scenarios]]\n{text}")) {
            prop_assert!(!problems.0.is_empty());
        }
    }
}
