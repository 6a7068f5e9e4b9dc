use proptest::prelude::*;

use super::*;
use crate::tests::config;

fn vote(facts: &mut Facts, author: &str, of: &str, verdict: Verdict) {
    let why = "connection refused".to_owned();
    let address = crate::tests::address(of);
    facts.append(
        author,
        1000,
        Body::Vote { server: format!("door-{of}"), address, verdict, is_sure: true, why },
    );
}

const NAMES: [&str; 3] = ["seoul", "frankfurt", "virginia"];

fn all_up(names: &[&str]) -> Facts {
    let mut facts = Facts::default();
    for author in names {
        for of in names {
            vote(&mut facts, author, of, Verdict::Up);
        }
    }
    facts
}

fn silent(facts: &mut Facts, by: &str, author: &str) {
    let heard = facts.head(author);
    let (peer, why) = (author.to_owned(), "timed out".to_owned());
    facts.append(by, 2000, Body::Link { peer, is_up: false, heard, why });
}

fn admit(facts: &mut Facts, by: &str, of: &str, episode: u64, is_sure: bool, percent: u8) {
    let admitted = Admitted {
        episode,
        is_sure,
        percent,
        is_planned: false,
        flaps: 0,
        restored: 0,
        returned_unix_ms: Vec::new(),
        is_held: false,
        why: String::new(),
    };
    facts.append(by, 3000, Body::Admission { datacenter: of.to_owned(), admitted });
}

fn order(facts: &mut Facts, author: &str, about: About, revision: u64, verb: Verb) {
    let order = Order {
        about,
        revision,
        verb,
        by: "ann".to_owned(),
        reason: "works".to_owned(),
        for_ms: None,
        told: author.to_owned(),
        at_unix_ms: 4000,
        break_glass: false,
    };
    facts.append(author, 4000, Body::Order(order));
}

fn state(config: &Config, facts: &Facts, of: &str) -> State {
    judge(config, facts).view.datacenters[of].state
}

fn down(config: &Config, facts: &Facts) -> Vec<String> {
    let view = judge(config, facts).view;
    let down =
        |(name, datacenter): (String, DatacenterView)| (datacenter.state == State::Down).then_some(name);
    view.datacenters.into_iter().filter_map(down).collect()
}

#[test]
fn a_majority_of_the_others_decides() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
    assert!(down(&config, &facts).is_empty(), "one of two is no majority");
    vote(&mut facts, "frankfurt", "frankfurt", Verdict::Down);
    assert!(down(&config, &facts).is_empty(), "nobody votes on itself");
    vote(&mut facts, "virginia", "frankfurt", Verdict::Down);
    assert_eq!(down(&config, &facts), ["frankfurt"]);
    let view = judge(&config, &facts).view;
    let why = &view.datacenters["frankfurt"].why;
    assert_eq!(why, "2 of 2 say down (seoul, virginia): connection refused");
    assert_eq!(view.generation, facts.frontier().generation());
}

#[test]
fn the_silent_do_not_vote_until_they_speak() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
    silent(&mut facts, "seoul", "virginia");
    silent(&mut facts, "frankfurt", "virginia");
    assert_eq!(down(&config, &facts), ["frankfurt"], "seoul is the only observer left");
    facts.append("virginia", 3000, Body::Here);
    assert!(down(&config, &facts).is_empty(), "virginia still sees frankfurt");
}

/// Found by the simulator: whoever came back from a partition with bad eyes silenced the others for a moment, and took out
/// alone who was well.
#[test]
fn a_claim_that_a_third_does_not_share_silences_nobody() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
    silent(&mut facts, "seoul", "virginia");
    assert!(down(&config, &facts).is_empty(), "frankfurt hears virginia");
    silent(&mut facts, "seoul", "frankfurt");
    assert_eq!(down(&config, &facts), ["frankfurt"], "what it heard there may be old");
    facts.append("frankfurt", 3000, Body::Here);
    assert!(down(&config, &facts).is_empty(), "it has been heard since, and still hears virginia");
}

#[test]
fn one_that_sees_nobody_is_not_believed_while_others_see() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
    vote(&mut facts, "seoul", "virginia", Verdict::Down);
    assert!(down(&config, &facts).is_empty());
    // The same eyes, but the others are silent: now they are the only ones.
    silent(&mut facts, "seoul", "frankfurt");
    silent(&mut facts, "seoul", "virginia");
    assert_eq!(down(&config, &facts), ["frankfurt", "virginia"]);
}

#[test]
fn with_two_the_survivor_decides() {
    let names = ["seoul", "frankfurt"];
    let (config, mut facts) = (config(&names), all_up(&names));
    vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
    assert_eq!(down(&config, &facts), ["frankfurt"]);
}

#[test]
fn one_alone_must_be_surer_than_two() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    let unsure = |facts: &mut Facts, author: &str| {
        let (server, address) = ("door-frankfurt".to_owned(), crate::tests::address("frankfurt"));
        let (verdict, why) = (Verdict::Down, "refused".to_owned());
        facts.append(author, 1000, Body::Vote { server, address, verdict, is_sure: false, why });
    };
    unsure(&mut facts, "seoul");
    silent(&mut facts, "seoul", "virginia");
    assert!(down(&config, &facts).is_empty(), "eight failures, and nobody else to look");
    facts.append("virginia", 3000, Body::Here);
    unsure(&mut facts, "virginia");
    assert_eq!(down(&config, &facts), ["frankfurt"], "two of two");
    silent(&mut facts, "seoul", "virginia");
    vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
    assert_eq!(down(&config, &facts), ["frankfurt"], "fourteen");
}

#[test]
fn alone_one_judges_oneself_and_all_down_fails_open() {
    let names = ["seoul"];
    let (config, mut facts) = (config(&names), all_up(&names));
    assert!(!judge(&config, &facts).view.fail_open);
    vote(&mut facts, "seoul", "seoul", Verdict::Down);
    assert!(judge(&config, &facts).view.fail_open);
}

#[test]
fn nothing_heard_is_nothing_down() {
    let view = judge(&config(&NAMES), &Facts::default()).view;
    assert!(view.datacenters.values().all(|datacenter| datacenter.state == State::Serving));
    assert_eq!(view.generation, 0);
}

#[test]
fn one_that_sees_most_fail_discounts_itself() {
    let names = ["seoul", "frankfurt", "virginia", "tokyo", "sydney"];
    let (config, mut facts) = (config(&names), all_up(&names));
    for of in ["frankfurt", "virginia", "tokyo"] {
        vote(&mut facts, "seoul", of, Verdict::Down);
    }
    let view = judge(&config, &facts).view;
    assert_eq!(view.observers["seoul"].doubted.as_deref(), Some("it sees 3 of 4 others down"));
    assert!(view.observers["tokyo"].doubted.is_none() && view.observers["seoul"].is_heard);
    // Without seoul two of three are a majority.
    vote(&mut facts, "virginia", "tokyo", Verdict::Down);
    assert!(down(&config, &facts).is_empty());
    vote(&mut facts, "sydney", "tokyo", Verdict::Down);
    assert_eq!(down(&config, &facts), ["tokyo"]);
}

#[test]
fn what_is_unknown_is_neither_up_nor_down() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
    vote(&mut facts, "virginia", "frankfurt", Verdict::Unknown);
    assert_eq!(down(&config, &facts), ["frankfurt"], "seoul alone has an opinion");
    vote(&mut facts, "seoul", "frankfurt", Verdict::Unknown);
    let view = judge(&config, &facts).view;
    assert_eq!(view.servers["door-frankfurt"].health, daemun_fleet::view::Health::Unknown);
    assert_eq!(view.datacenters["frankfurt"].state, State::Serving);
}

#[test]
fn a_cut_private_link_moves_nobody() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    silent(&mut facts, "seoul", "frankfurt");
    facts.append("frankfurt", 2500, Body::Here);
    let view = judge(&config, &facts).view;
    assert_eq!(view.datacenters["frankfurt"].state, State::Serving);
    assert_eq!(view.datacenters["frankfurt"].cut_from, ["seoul"]);
    assert!(view.observers["frankfurt"].is_heard);
}

#[test]
fn users_are_held_back_only_by_a_majority() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    for author in ["seoul", "virginia"] {
        admit(&mut facts, author, "frankfurt", 0, false, 100);
    }
    admit(&mut facts, "seoul", "frankfurt", 1, false, 0);
    assert_eq!(state(&config, &facts, "frankfurt"), State::Serving, "one that was alone");
    admit(&mut facts, "seoul", "frankfurt", 1, true, 0);
    assert_eq!(state(&config, &facts, "frankfurt"), State::CatchingUp, "virginia has not heard of it yet");
    admit(&mut facts, "virginia", "frankfurt", 1, true, 0);
    assert_eq!(state(&config, &facts, "frankfurt"), State::CatchingUp);
    admit(&mut facts, "virginia", "frankfurt", 1, true, 25);
    assert_eq!(state(&config, &facts, "frankfurt"), State::Ramping(25), "who is first leads");
    for author in ["seoul", "virginia"] {
        vote(&mut facts, author, "frankfurt", Verdict::Down);
    }
    assert_eq!(state(&config, &facts, "frankfurt"), State::Down);
}

#[test]
fn an_operators_word_outlives_its_author_and_the_newest_holds() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    let frankfurt = || About::Datacenter("frankfurt".to_owned());
    order(&mut facts, "seoul", frankfurt(), 1, Verb::Drain { over_ms: 0 });
    silent(&mut facts, "virginia", "seoul");
    silent(&mut facts, "frankfurt", "seoul");
    assert_eq!(state(&config, &facts, "frankfurt"), State::Draining(0));
    let drained = Body::Drained { datacenter: "frankfurt".to_owned(), revision: 1, percent: None };
    facts.append("virginia", 4500, drained);
    assert_eq!(state(&config, &facts, "frankfurt"), State::Drained);
    vote(&mut facts, "virginia", "frankfurt", Verdict::Down);
    assert_eq!(state(&config, &facts, "frankfurt"), State::Down, "dead is dead");
    order(&mut facts, "frankfurt", frankfurt(), 2, Verb::Pin { state: State::Serving });
    let view = judge(&config, &facts).view;
    assert_eq!(view.datacenters["frankfurt"].state, State::Serving, "the operator knows better");
    let door = &view.servers["door-frankfurt"];
    assert_eq!(door.health, daemun_fleet::view::Health::Up, "else nobody would be sent there");
    assert!(door.why.starts_with("the datacenter is pinned; else: 1 of 1 say down"), "{}", door.why);
    order(&mut facts, "virginia", frankfurt(), 3, Verb::Restore);
    assert_eq!(state(&config, &facts, "frankfurt"), State::Down);
}

#[test]
fn what_is_forgotten_has_no_say() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    order(&mut facts, "seoul", About::Datacenter("virginia".to_owned()), 1, Verb::Forget);
    vote(&mut facts, "seoul", "frankfurt", Verdict::Down);
    assert_eq!(down(&config, &facts), ["frankfurt"], "seoul is the only other");
    let view = judge(&config, &facts).view;
    assert!(view.datacenters["virginia"].is_forgotten);
}

#[test]
fn a_pause_keeps_states_and_servers_but_not_the_operator() {
    let (config, mut facts) = (config(&NAMES), all_up(&NAMES));
    let states = NAMES.map(|name| (name.to_owned(), State::Serving)).into();
    order(&mut facts, "seoul", About::Fleet, 1, Verb::Pause { states, down: Vec::new() });
    for author in ["seoul", "virginia"] {
        vote(&mut facts, author, "frankfurt", Verdict::Down);
    }
    let view = judge(&config, &facts).view;
    assert_eq!(view.datacenters["frankfurt"].state, State::Serving);
    assert_eq!(view.servers["door-frankfurt"].health, daemun_fleet::view::Health::Up);
    assert!(view.paused.is_some());
    order(&mut facts, "seoul", About::Datacenter("virginia".to_owned()), 1, Verb::Drain { over_ms: 0 });
    assert_eq!(state(&config, &facts, "virginia"), State::Draining(0));
    order(&mut facts, "virginia", About::Fleet, 2, Verb::Resume);
    assert_eq!(state(&config, &facts, "frankfurt"), State::Down);
}

#[test]
fn too_few_of_a_required_role_take_a_datacenter_out_and_one_address_of_two_does_not() {
    let mut text = crate::tests::text(&NAMES);
    for number in 0..4 {
        text += &format!(
            "[[servers]]\nname = \"api-{number}\"\nrole = \"api\"\ndatacenter = \"frankfurt\"\n\
             addresses = [\"192.0.2.2\", \"2001:db8::2\"]\ncheck = {{ tcp = 81 }}\n"
        );
    }
    text += "[sync.required]\napi = 50\n";
    let config = Config::parse("daemun.toml", &text).expect("the config is right");
    let mut facts = all_up(&NAMES);
    let mut api = |server: usize, address: &str, verdict| {
        for author in ["seoul", "virginia"] {
            let (server, address) = (format!("api-{server}"), address.parse().unwrap());
            let why = "refused".to_owned();
            facts.append(author, 5000, Body::Vote { server, address, verdict, is_sure: true, why });
        }
        judge(&config, &facts).view
    };
    for server in 0..4 {
        api(server, "192.0.2.2", Verdict::Down);
        let view = api(server, "2001:db8::2", Verdict::Up);
        assert_eq!(
            view.servers[&format!("api-{server}")].down,
            ["192.0.2.2".parse::<std::net::IpAddr>().unwrap()]
        );
    }
    api(0, "2001:db8::2", Verdict::Down);
    let view = api(1, "2001:db8::2", Verdict::Down);
    assert_eq!(view.datacenters["frankfurt"].state, State::Serving, "half are up");
    let view = api(2, "2001:db8::2", Verdict::Down);
    assert_eq!(view.datacenters["frankfurt"].state, State::Down);
}

fn body() -> impl Strategy<Value = Body> {
    let name = prop::sample::select(&NAMES[..]);
    let verdict = prop_oneof![Just(Verdict::Up), Just(Verdict::Down), Just(Verdict::Unknown)];
    let about = name.clone().prop_map(|name| About::Datacenter(name.to_owned()));
    let verb = prop_oneof![
        Just(Verb::Drain { over_ms: 0 }),
        Just(Verb::Restore),
        Just(Verb::Pin { state: State::Drained }),
        Just(Verb::Forget),
        Just(Verb::Expired),
    ];
    prop_oneof![
        (name.clone(), verdict).prop_map(|(of, verdict)| Body::Vote {
            server: format!("door-{of}"),
            address: crate::tests::address(of),
            verdict,
            is_sure: true,
            why: String::new()
        }),
        (name.clone(), 0..20u64, any::<bool>()).prop_map(|(peer, heard, is_up)| Body::Link {
            peer: peer.to_owned(),
            is_up,
            heard,
            why: String::new()
        }),
        (name, 0..4u64, any::<bool>(), 0..=100u8).prop_map(|(datacenter, episode, is_sure, percent)| {
            let admitted = Admitted {
                episode,
                is_sure,
                percent,
                is_planned: false,
                flaps: 0,
                restored: 0,
                returned_unix_ms: Vec::new(),
                is_held: false,
                why: String::new(),
            };
            Body::Admission { datacenter: datacenter.to_owned(), admitted }
        }),
        (about, 1..5u64, verb).prop_map(|(about, revision, verb)| Body::Order(Order {
            about,
            revision,
            verb,
            by: "ann".to_owned(),
            reason: String::new(),
            for_ms: None,
            told: "seoul".to_owned(),
            at_unix_ms: 0,
            break_glass: false,
        })),
        Just(Body::Here),
    ]
}

proptest! {
    /// The same facts give the same view, by whatever way they came; any newly heard fact raises the generation.
    #[test]
    fn same_facts_same_view(written in prop::collection::vec((0..3usize, body()), 0..60), order in any::<u64>()) {
        let config = config(&NAMES);
        let mut whole = Facts::default();
        let mut pieces = Facts::default();
        let mut generation = 0;
        for (at, (author, body)) in written.into_iter().enumerate() {
            whole.append(NAMES[author], at as u64, body);
            prop_assert!(judge(&config, &whole).view.generation > generation);
            generation = judge(&config, &whole).view.generation;
            if order >> (at % 64) & 1 == 1 {
                pieces.merge(&whole.after(&pieces.frontier()));
            }
        }
        pieces.merge(&whole.after(&pieces.frontier()));
        prop_assert_eq!(judge(&config, &whole), judge(&config, &pieces));
    }
}
