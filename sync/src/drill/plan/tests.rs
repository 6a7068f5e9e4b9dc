use daemun_fleet::drill::{Limits, Load, Objectives, Step};

use super::*;
use crate::core::{Input, Kept};
use crate::drill::report::Ended;
use crate::store::replica::Lag;

const START: Moment = Moment { now: Duration::ZERO, unix_ms: 5 };
/// It has looked for long enough to speak.
const MOMENT: Moment = Moment { now: Duration::from_secs(6), unix_ms: 6005 };

fn core(names: &[&str]) -> Core {
    let config = Config::parse("daemun.toml", &crate::tests::text(names)).expect("the config is right");
    let mut core = Core::new(names[0], Arc::new(config), Kept::default(), START);
    core.handle(MOMENT, Input::Tick);
    core
}

fn scenario(faults: &[Fault], target: &str) -> Scenario {
    Scenario {
        name: "test".to_owned(),
        target: Some(Target::parse(target)),
        steps: faults.iter().map(|fault| Step { faults: vec![*fault], hold_ms: 5_000 }).collect(),
        load: Load { users: 8, visits_per_second: 10, patience_ms: 1_000 },
        durability: "remote:1".to_owned(),
        limits: Limits { errors_percent: 60, p99_ms: 5_000, lag_ms: 30_000 },
        objectives: Objectives { rto_ms: 10_000, rpo: 0 },
        baseline_ms: 3_000,
        recover_ms: 60_000,
    }
}

fn asked(scenario: Scenario) -> Asked {
    Asked {
        scenario,
        by: "ann".to_owned(),
        reason: String::new(),
        expect_generation: None,
        dry_run: false,
        break_glass: false,
    }
}

fn broken(plan: &Plan) -> Vec<&str> {
    plan.checks.iter().filter(|check| !check.holds).map(|check| check.rule.as_str()).collect()
}

const BLACKHOLE: Fault = Fault::Blackhole { share: 100 };

#[test]
fn the_plan_says_who_leads_how_long_and_what_the_worst_is() {
    let core = core(&["seoul", "frankfurt", "virginia"]);
    let of = |target: &str, faults: &[Fault]| plan(&core, &asked(scenario(faults, target)), MOMENT).unwrap();
    let planned = of("seoul", &[Fault::Drain { share: 10 }, BLACKHOLE]);
    assert_eq!(planned.word.conductor, "frankfurt", "whoever fails does not lead");
    assert_eq!(planned.order.for_ms, Some(10_000 + 3_000 + 3_000 + 10_000));
    assert_eq!(planned.after.datacenters["seoul"].state, State::Down);
    assert_eq!(planned.word.id, "19700101T000006005Z-test-seoul");
    assert_eq!(of("frankfurt", &[Fault::Partition]).word.conductor, "seoul");
    assert_eq!(of("frankfurt", &[Fault::Partition]).after.datacenters["frankfurt"].state, State::Serving);
    assert_eq!(of("seoul:virginia", &[Fault::Partition]).word.conductor, "seoul");
}

#[test]
fn what_cannot_be_is_wrong_and_says_why() {
    let core = core(&["seoul", "frankfurt"]);
    let wrong = |scenario: Scenario, part: &str| {
        let said = plan(&core, &asked(scenario), MOMENT).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    };
    wrong(scenario(&[BLACKHOLE], "frankfort"), "there is no datacenter `frankfort`");
    wrong(scenario(&[BLACKHOLE], "seoul:frankfurt"), "`blackhole` is about a datacenter");
    wrong(scenario(&[Fault::Partition], "seoul:seoul"), "between two datacenters");
    wrong(scenario(&[], "seoul"), "1 to 20 steps");
    wrong(
        Scenario { durability: "remote:x".to_owned(), ..scenario(&[BLACKHOLE], "seoul") },
        "found `remote:x`",
    );
    wrong(Scenario { target: None, ..scenario(&[BLACKHOLE], "seoul") }, "--target");
    wrong(Scenario { recover_ms: u64::MAX / 2, ..scenario(&[BLACKHOLE], "seoul") }, "at most 4 hours");
    let unsigned = Asked { by: " ".to_owned(), ..asked(scenario(&[BLACKHOLE], "seoul")) };
    assert!(plan(&core, &unsigned, MOMENT).unwrap_err().to_string().contains("who says so"));
    let late = Asked { expect_generation: Some(1), ..asked(scenario(&[BLACKHOLE], "seoul")) };
    assert!(matches!(plan(&core, &late, MOMENT).unwrap_err(), Wrong::Changed { expected: 1, .. }));
}

#[test]
fn the_rules_before() {
    let three = core(&["seoul", "frankfurt", "virginia"]);
    let planned = plan(&three, &asked(scenario(&[BLACKHOLE], "frankfurt")), MOMENT).unwrap();
    // Nobody has been heard of yet, and a check by TCP does not see a door that takes connections and says nothing.
    assert_eq!(broken(&planned), ["agents", "the fault can be made"]);
    let mut two = core(&["seoul", "frankfurt"]);
    let kept = two.config().sync.minimum_serving;
    let planned = plan(&two, &asked(scenario(&[Fault::Kill], "frankfurt")), MOMENT).unwrap();
    assert_eq!(broken(&planned).contains(&"enough datacenters"), kept > 1);
    two.handle(MOMENT, Input::Order(planned.arming()));
    let second = plan(&two, &asked(scenario(&[Fault::Kill], "seoul")), MOMENT).unwrap();
    assert!(broken(&second).contains(&"no other drill"), "{:?}", second.checks);
    assert!(!is_current(&two, &planned), "it has begun");
    let ended = two.drill_ended(&planned.word.id, Ended::Aborted, "enough").unwrap();
    two.handle(MOMENT, Input::Order(ended));
    let third = plan(&two, &asked(scenario(&[Fault::Kill], "seoul")), MOMENT).unwrap();
    assert!(!broken(&third).contains(&"no other drill") && third.order.revision == 2);
}

#[test]
fn the_rules_about_stores() {
    let core = core(&["seoul", "frankfurt", "virginia"]);
    let word = |fault: Fault, durability: &str| Word {
        scenario: Scenario { durability: durability.to_owned(), ..scenario(&[fault], "frankfurt") },
        ..plan(&core, &asked(scenario(&[fault], "frankfurt")), MOMENT).unwrap().word
    };
    let lag = |stage: Known, behind_ms: Option<u64>| Lag {
        datacenter: "virginia".to_owned(),
        stage,
        behind_ms,
        behind_operations: Some(0),
        unconfirmed: 0,
    };
    let store = |lags: Vec<Lag>| StoreStatus { is_open: true, lags, ..StoreStatus::default() };
    let ready = |store: Option<StoreStatus>, leads: Option<&str>| {
        let leads = leads.map(ToOwned::to_owned);
        let ready = Ready { store, no_store: "its disk is corrupt".to_owned(), leads };
        BTreeMap::from([("seoul".to_owned(), Ok(ready))])
    };
    let found = |word: &Word, ready: &BTreeMap<String, Result<Ready, String>>| {
        let checks = stores(core.config(), word, ready);
        let broken = checks.into_iter().filter(|check| !check.holds).map(|check| check.found);
        broken.collect::<Vec<_>>().join("; ")
    };
    let usual = word(BLACKHOLE, "remote:1");
    assert_eq!(found(&usual, &ready(Some(store(vec![lag(Known::Known, Some(900))])), None)), "");
    let late = found(&usual, &ready(Some(store(vec![lag(Known::Known, Some(9000))])), None));
    assert_eq!(late, "seoul is 9000 ms behind virginia");
    let unknown = found(&usual, &ready(Some(store(vec![lag(Known::Unknown, Some(9))])), None));
    assert_eq!(unknown, "how far seoul is behind virginia is not known");
    assert_eq!(found(&usual, &ready(None, None)), "seoul has no store: its disk is corrupt");
    assert_eq!(found(&usual, &ready(Some(store(Vec::new())), Some("one"))), "seoul still leads one");
    let silent = BTreeMap::from([("seoul".to_owned(), Err("it is not there".to_owned()))]);
    assert_eq!(found(&usual, &silent), "seoul: it is not there");
    let well = ready(Some(store(Vec::new())), None);
    assert_eq!(found(&word(Fault::Partition, "remote:1"), &well), "");
    assert_eq!(
        found(&word(Fault::Partition, "remote:2"), &well),
        "remote:2 cannot be while it fails: 1 others are left"
    );
    assert!(found(&word(Fault::Kill, "all"), &well).contains("`all` cannot be"));
    assert_eq!(found(&word(BLACKHOLE, "all"), &well), "");
}
