//! Placement against its own long form, and the properties that must hold whatever the view.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::places::{Places, RangeFile};
use crate::view::{DatacenterView, ServerView};

const DATACENTERS: [(&str, f64, f64); 4] = [
    ("seoul", 37.57, 126.98),
    ("frankfurt", 50.11, 8.68),
    ("virginia", 39.04, -77.49),
    ("tokyo", 35.68, 139.69),
];

const RANGES: &str = "1.0.0.0,1.255.255.255,KR\n2.0.0.0,2.15.255.255,DE\n2.16.0.0,2.16.0.255,FR\n3.0.0.0,3.127.255.255,US\n2001:200::,2001:2ff:ffff:ffff:ffff:ffff:ffff:ffff,JP\n2a00::,2a00:ffff:ffff:ffff:ffff:ffff:ffff:ffff,DE\n";

fn config(extra: &str) -> Config {
    let mut text = String::from("version = 1\nfleet.name = \"shop\"\n");
    for (number, (name, latitude, longitude)) in DATACENTERS.iter().enumerate() {
        text += &format!(
            "[[datacenters]]\nname = \"{name}\"\nlatitude = {latitude}\nlongitude = {longitude}\naddresses = [\"192.0.2.{number}\", \"2001:db8::{number}\"]\nagent = \"https://agent-{number}:7400\"\n"
        );
    }
    for (name, _, _) in DATACENTERS {
        for number in 1..3 {
            text += &format!(
                "[[servers]]\nname = \"{name}-{number}\"\nrole = \"frontdoor\"\ndatacenter = \"{name}\"\ncheck = {{ none = true }}\n"
            );
        }
    }
    text += "[[dns.zones]]\nname = \"shop.test\"\nfile = \"zone\"\n";
    text += extra;
    Config::parse("daemun.toml", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

const NAMES: &str = r#"
[dns]
default_order = ["virginia", "frankfurt"]
[[dns.names]]
name = "near.shop.test"
policy = "nearest"
[[dns.names]]
name = "share.shop.test"
policy = "weighted"
weights = { seoul = 70, frankfurt = 30 }
[[dns.names]]
name = "first.shop.test"
policy = "failover"
order = ["tokyo", "seoul"]
[[dns.names]]
name = "band.shop.test"
policy = "nearest"
band_km = 1500
weights = { seoul = 50, tokyo = 50, frankfurt = 1, virginia = 1 }
[[dns.names]]
name = "two.shop.test"
policy = "nearest"
answers = 2
[[dns.names]]
name = "three.shop.test"
policy = "weighted"
weights = { seoul = 1, frankfurt = 1, virginia = 1 }
answers = 3
[[dns.overrides]]
names = ["near.shop.test"]
prefixes = ["1.2.0.0/16"]
order = ["virginia"]
[[dns.overrides]]
names = ["near.shop.test"]
prefixes = ["1.2.3.0/24"]
order = ["tokyo"]
[[dns.overrides]]
names = ["near.shop.test"]
countries = ["FR"]
order = ["seoul"]
[[dns.overrides]]
names = ["near.shop.test"]
continents = ["EU"]
order = ["virginia", "seoul"]
"#;

fn steering() -> Arc<Steering> {
    let places = Places::from_ranges(&[RangeFile { name: "ranges", text: RANGES }]).unwrap();
    Arc::new(Steering::compile(Arc::new(config(NAMES)), Arc::new(places)))
}

fn placer(states: &[(&str, State)]) -> Placer {
    placer_on(&steering(), states)
}

fn placer_on(steering: &Arc<Steering>, states: &[(&str, State)]) -> Placer {
    let mut view = FleetView::unobserved(steering.config());
    for &(name, state) in states {
        let why = String::from("for the test");
        view.datacenters.insert(name.to_owned(), DatacenterView::new(state, why));
    }
    Placer::new(Arc::clone(steering), Arc::new(view))
}

fn choose(placer: &Placer, name: &str, client: &str) -> (&'static str, u8) {
    let target = placer.steering().target(&format!("{name}.shop.test")).expect("a steered name");
    let choice = placer.choose(target, &client.parse().unwrap());
    (DATACENTERS[choice.datacenter].0, choice.scope)
}

#[test]
fn nearest_goes_by_distance() {
    let placer = placer(&[]);
    assert_eq!(choose(&placer, "near", "1.9.9.9").0, "seoul");
    assert_eq!(choose(&placer, "near", "3.1.1.1").0, "virginia");
    assert_eq!(choose(&placer, "near", "2001:200::1").0, "tokyo");
}

#[test]
fn unknown_places_take_the_default_order() {
    let placer = placer(&[]);
    assert_eq!(choose(&placer, "near", "9.9.9.9").0, "virginia");
    let without = placer_on(placer.steering(), &[("virginia", State::Down)]);
    assert_eq!(choose(&without, "near", "9.9.9.9").0, "frankfurt");
}

#[test]
fn overrides_most_specific_first() {
    let placer = placer(&[]);
    assert_eq!(choose(&placer, "near", "1.2.9.9").0, "virginia", "prefix");
    assert_eq!(choose(&placer, "near", "1.2.3.9"), ("tokyo", 24), "longer prefix");
    assert_eq!(choose(&placer, "near", "2.16.0.9").0, "seoul", "country before continent");
    assert_eq!(choose(&placer, "near", "2.1.1.1").0, "virginia", "continent");
    let without = placer_on(placer.steering(), &[("virginia", State::Down)]);
    assert_eq!(choose(&without, "near", "2.1.1.1").0, "seoul", "second of the override");
    assert_eq!(choose(&without, "near", "1.2.9.9").0, "seoul", "then the policy goes on: nearest to KR");
    assert_eq!(choose(&placer, "band", "2.1.1.1").0, "frankfurt", "overrides for other names do not hold");
}

#[test]
fn failover_takes_the_first_and_needs_no_scope() {
    let first = placer(&[]);
    assert_eq!(choose(&first, "first", "3.1.1.1"), ("tokyo", 0));
    let second = placer_on(first.steering(), &[("tokyo", State::Drained)]);
    assert_eq!(choose(&second, "first", "3.1.1.1"), ("seoul", 0));
}

#[test]
fn weights_share_and_scopes_are_at_least_the_hashed_block() {
    let placer = placer(&[]);
    let mut count = HashMap::new();
    for block in 0..10_000u32 {
        let (name, scope) = choose(
            &placer,
            "share",
            &format!("{}.{}.{}.7", 10 + (block >> 16), block >> 8 & 255, block & 255),
        );
        assert_eq!(scope, 24);
        *count.entry(name).or_insert(0) += 1;
    }
    assert_eq!(count.len(), 2);
    assert!((6_800..7_200).contains(&count["seoul"]), "{count:?}");
    assert_eq!(choose(&placer, "share", "2001:db8::1").1, 56);
    let rest = placer_on(placer.steering(), &[("seoul", State::Down), ("frankfurt", State::Down)]);
    assert_eq!(choose(&rest, "share", "9.9.9.9").0, "virginia", "weight 0 only when no other is left");
}

#[test]
fn a_band_shares_its_own_users_only() {
    let placer = placer(&[]);
    let korean: Vec<_> = (0..200).map(|n| choose(&placer, "band", &format!("1.3.{n}.1")).0).collect();
    assert!(korean.contains(&"seoul") && korean.contains(&"tokyo"), "within 1500 km of each other");
    assert!(korean.iter().all(|name| ["seoul", "tokyo"].contains(name)));
    assert!((0..200).all(|n| choose(&placer, "band", &format!("2.1.{n}.1")).0 == "frankfurt"));
}

#[test]
fn ramping_takes_its_share_and_keeps_it() {
    let steering = steering();
    let in_seoul = |percent| {
        let placer = placer_on(&steering, &[("seoul", State::Ramping(percent))]);
        (0..2_000u32)
            .filter(|n| choose(&placer, "near", &format!("1.{}.{}.1", 3 + (n >> 8), n & 255)).0 == "seoul")
            .collect::<Vec<_>>()
    };
    let (ten, fifty) = (in_seoul(10), in_seoul(50));
    assert!(
        (150..250).contains(&ten.len()) && (900..1_100).contains(&fifty.len()),
        "{} {}",
        ten.len(),
        fifty.len()
    );
    assert!(ten.iter().all(|client| fifty.contains(client)), "nobody who is in is sent away again");
    let all_ramping: Vec<_> = DATACENTERS.iter().map(|&(name, ..)| (name, State::Ramping(0))).collect();
    assert_eq!(choose(&placer_on(&steering, &all_ramping), "near", "1.9.9.9").0, "seoul", "never empty");
}

#[test]
fn all_down_fails_open_and_rests_in_order() {
    let all = |state| DATACENTERS.iter().map(|&(name, ..)| (name, state)).collect::<Vec<_>>();
    let dead = placer(&all(State::Down));
    assert_eq!(choose(&dead, "near", "1.9.9.9").0, "seoul");
    let target = dead.steering().target("near.shop.test").unwrap();
    let placement = dead.explain(target, &"1.9.9.9".parse().unwrap(), "A");
    assert!(placement.fail_open && placement.to_string().contains("ALL LOOK DOWN"));
    let mut states = all(State::Down);
    states[1].1 = State::Drained;
    states[2].1 = State::Draining(0);
    assert_eq!(
        choose(&placer(&states), "near", "1.9.9.9").0,
        "virginia",
        "alive and draining beats drained and dead"
    );
}

#[test]
fn when_all_look_down_those_named_for_it_are_used() {
    let over = NAMES.replace("[[dns.overrides]]\nnames = [\"near.shop.test\"]\nprefixes = [\"1.2.0.0/16\"]", "[[dns.names]]\nname = \"last.shop.test\"\npolicy = \"nearest\"\nwhen_all_down = [\"virginia\", \"frankfurt\"]\n[[dns.overrides]]\nnames = [\"near.shop.test\"]\nprefixes = [\"1.2.0.0/16\"]");
    let places = Places::from_ranges(&[RangeFile { name: "ranges", text: RANGES }]).unwrap();
    let steering = Arc::new(Steering::compile(Arc::new(config(&over)), Arc::new(places)));
    let all_down = placer_on(&steering, &DATACENTERS.map(|(name, ..)| (name, State::Down)));
    assert_eq!(choose(&all_down, "last", "1.9.9.9").0, "frankfurt", "the nearer of the two");
    assert_eq!(choose(&all_down, "near", "1.9.9.9").0, "seoul", "else as if all were well");
    let target = steering.target("last.shop.test").unwrap();
    assert!(all_down.is_fail_open(target));
    let korea = "1.9.9.9".parse().unwrap();
    let order: Vec<_> =
        all_down.order(target, &korea).into_iter().map(|member| DATACENTERS[member].0).collect();
    assert_eq!(order, ["frankfurt", "virginia", "seoul", "tokyo"]);
    let one_left = placer_on(&steering, &[("virginia", State::Down), ("frankfurt", State::Down)]);
    assert_eq!(choose(&one_left, "last", "3.1.1.1").0, "tokyo", "not all are down: nearest of the others");
}

#[test]
fn several_are_named_best_first_and_only_who_is_used() {
    let named = |placer: &Placer, name: &str, client: &str| -> Vec<&'static str> {
        let (target, client) = (placer.steering().target(name).unwrap(), client.parse().unwrap());
        let choice = placer.choose(target, &client);
        placer.named(target, &client, choice).into_iter().map(|member| DATACENTERS[member].0).collect()
    };
    let well = placer(&[]);
    assert_eq!(named(&well, "two.shop.test", "1.9.9.9"), ["seoul", "tokyo"]);
    assert_eq!(named(&well, "near.shop.test", "1.9.9.9"), ["seoul"]);
    let ill = placer(&[("tokyo", State::Draining(0))]);
    assert_eq!(named(&ill, "two.shop.test", "1.9.9.9"), ["seoul", "frankfurt"]);
    let last = placer(&[("tokyo", State::Down), ("frankfurt", State::Down), ("virginia", State::Drained)]);
    assert_eq!(named(&last, "two.shop.test", "1.9.9.9"), ["seoul"], "nobody is named who is not used");
    let all = named(&well, "three.shop.test", "9.9.9.9");
    assert!(all.len() == 3 && !all.contains(&"tokyo"), "{all:?}");
}

#[test]
fn an_answer_is_settled_unless_who_decides_it_is_between_two_states() {
    let settled = |placer: &Placer, name: &str, client: &str| {
        let target = placer.steering().target(&format!("{name}.shop.test")).unwrap();
        placer.choose(target, &client.parse().unwrap()).settled
    };
    let korea = "1.9.9.9";
    assert!(settled(&placer(&[]), "near", korea));
    for state in [State::Draining(0), State::Draining(40), State::Ramping(50), State::CatchingUp] {
        let placer = placer(&[("seoul", state)]);
        assert!(!settled(&placer, "near", korea), "{state}: its own users may soon move");
        assert!(settled(&placer, "near", "3.1.1.1"), "{state}: users elsewhere have nothing to do with it");
        assert!(!settled(&placer, "share", "3.1.1.1"), "{state}: shares are everyone's");
    }
    let behind = placer(&[("tokyo", State::Ramping(50))]);
    assert!(settled(&behind, "near", korea), "behind the choice");
    assert!(!settled(&behind, "two", korea), "named as well");
    assert!(settled(&placer(&[("seoul", State::Down)]), "near", korea), "what is down stays down");
    let nothing_well = placer(&DATACENTERS.map(|(name, ..)| (name, State::Drained)));
    assert!(!settled(&nothing_well, "near", korea));
    let steering = steering();
    let mut view = FleetView::unobserved(steering.config());
    view.datacenters.get_mut("seoul").unwrap().suspected = true;
    let suspected = Placer::new(steering, Arc::new(view));
    assert!(!settled(&suspected, "near", korea) && settled(&suspected, "near", "3.1.1.1"));
}

#[test]
fn private_blocks_are_apart_unless_an_override_is_about_them() {
    let plain = steering();
    let block = |steering: &Steering, client: &str| steering.private_block(&client.parse().unwrap());
    assert_eq!(block(&plain, "10.1.2.0/24"), Some("10.0.0.0/8".parse().unwrap()));
    assert_eq!(block(&plain, "fd00::/48"), Some("fc00::/7".parse().unwrap()));
    assert_eq!(block(&plain, "192.168.0.0/15"), None, "not all of it");
    assert_eq!(block(&plain, "11.0.0.0/24"), None);
    // Around a block no scope holds it, wherever neighbours are placed alike.
    let placer = placer(&[]);
    for (client, length) in
        [("100.0.0.1", 10), ("100.128.0.1", 9), ("172.32.0.1", 11), ("169.253.0.1", 15), ("169.255.0.1", 16)]
    {
        assert!(choose(&placer, "near", client).1 >= length, "{client}");
    }
    let over = format!("{NAMES}[[dns.overrides]]\nprefixes = [\"10.1.0.0/16\"]\norder = [\"tokyo\"]\n");
    let places = Places::from_ranges(&[RangeFile { name: "ranges", text: RANGES }]).unwrap();
    let steering = Arc::new(Steering::compile(Arc::new(config(&over)), Arc::new(places)));
    assert_eq!(block(&steering, "10.1.2.0/24"), None, "the operator knows who is there");
    assert!(block(&steering, "192.168.1.0/24").is_some());
    assert_eq!(choose(&placer_on(&steering, &[]), "first", "10.1.2.3").0, "tokyo");
}

#[test]
fn a_datacenter_without_a_server_of_the_role_that_is_up_is_out() {
    let steering = steering();
    let mut view = FleetView::unobserved(steering.config());
    let down = ServerView::new(Health::Down, "refused");
    view.servers.insert("seoul-1".into(), down.clone());
    let half = Placer::new(Arc::clone(&steering), Arc::new(view.clone()));
    assert_eq!(choose(&half, "near", "1.9.9.9").0, "seoul");
    view.servers.insert("seoul-2".into(), down);
    let none = Placer::new(steering, Arc::new(view));
    assert_eq!(choose(&none, "near", "1.9.9.9").0, "tokyo");
    let target = none.steering().target("near.shop.test").unwrap();
    let placement = none.explain(target, &"1.9.9.9".parse().unwrap(), "A");
    assert_eq!(
        placement.ranking.last().map(|last| last.reason.as_str()),
        Some("no server of the role is up")
    );
    assert_eq!(
        none.addresses(target, 0),
        ["192.0.2.0".parse::<IpAddr>().unwrap(), "2001:db8::".parse().unwrap()]
    );
}

#[test]
fn explain_reads_well() {
    let placer = placer(&[("seoul", State::Down)]);
    let target = placer.steering().target("near.shop.test").unwrap();
    let text = placer.explain(target, &"1.9.9.0/24".parse().unwrap(), "A").to_string();
    let expected = "\
near.shop.test for 1.9.9.0/24
  place   KR, AS (from ranges)
  policy  nearest: nearest by great circle
  → 1  tokyo      serving        1062 km  by distance
    2  frankfurt  serving        8703 km  by distance
    3  virginia   serving       11232 km  by distance
    4  seoul      down            154 km  for the test
  answer  192.0.2.3  (TTL 30 s)
  scope   /13: every address in 1.8.0.0/13 gets this
  view    generation 0";
    assert_eq!(text, expected);
}

/// Clients in IPv4 clothes are placed as IPv4, so no scope of an IPv6 client may hold them.
#[test]
fn no_v6_scope_holds_mapped_addresses() {
    let placer = placer(&[]);
    for client in ["::1", "::/90", "::fffe:ffff:ffff", "::1:0:0:0", "64:ff9b::1", "2001:db8::1"] {
        let client: Client = client.parse().unwrap();
        for name in ["near", "band"] {
            let target = placer.steering().target(&format!("{name}.shop.test")).unwrap();
            let scope = placer.choose(target, &client).scope;
            let block = ipnet::IpNet::new(client.first_address(), scope).unwrap();
            let mapped: IpAddr = std::net::Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped().into();
            assert!(!block.contains(&mapped), "{client}: {block}");
        }
    }
}

#[test]
fn a_type_that_is_not_answered_is_so_for_everyone() {
    let places = Arc::new(Places::builtin());
    let only_v4 = NAMES.replacen("policy = \"nearest\"", "policy = \"nearest\"\ntypes = \"A\"", 1);
    let steering = Arc::new(Steering::compile(Arc::new(config(&only_v4)), places));
    let placer = placer_on(&steering, &[]);
    let target = steering.target("near.shop.test").unwrap();
    let placement = placer.explain(target, &"91.0.0.0/16".parse().unwrap(), "AAAA");
    assert_eq!((placement.answer.len(), placement.scope, placement.ttl_seconds), (0, 0, None));
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        3 => Just(State::Serving),
        1 => Just(State::Draining(0)),
        1 => (1u8..100).prop_map(State::Draining),
        1 => Just(State::Drained),
        2 => Just(State::Down),
        1 => Just(State::CatchingUp),
        2 => (0u8..=100).prop_map(State::Ramping),
    ]
}

fn client() -> impl Strategy<Value = Client> {
    let known = prop::sample::select(vec![
        0x0102_0300u32,
        0x0102_0000,
        0x0200_0000,
        0x0210_0000,
        0x0300_0000,
        0x0100_0000,
    ]);
    prop_oneof![
        any::<u32>().prop_map(|bits| Client::address(IpAddr::V4(bits.into()))),
        (known, any::<u16>())
            .prop_map(|(base, low)| Client::address(IpAddr::V4((base | u32::from(low)).into()))),
        any::<u128>().prop_map(|bits| Client::address(IpAddr::V6(bits.into()))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    /// Short and long form agree, the answer is never empty and never worse than what is left.
    #[test]
    fn choice_is_first_of_order_and_of_explain(states in prop::collection::vec(state(), 4), client in client()) {
        let names: Vec<_> = DATACENTERS.iter().zip(states).map(|(&(name, ..), state)| (name, state)).collect();
        let placer = placer(&names);
        for name in ["near", "share", "first", "band", "two", "three"] {
            let target = placer.steering().target(&format!("{name}.shop.test")).unwrap();
            let choice = placer.choose(target, &client);
            let order = placer.order(target, &client);
            prop_assert_eq!(order[0], choice.datacenter);
            prop_assert_eq!(order.len(), 4);
            let placement = placer.explain(target, &client, "A");
            prop_assert_eq!(&placement.ranking[0].datacenter, DATACENTERS[choice.datacenter].0);
            prop_assert!(!placement.answer.is_empty());
            let best = names.iter().map(|(_, state)| state.rank()).min().unwrap();
            prop_assert_eq!(names[choice.datacenter].1.rank(), best);
        }
    }

    /// Every address inside the scope gets the same choice.
    #[test]
    fn the_scope_holds(states in prop::collection::vec(state(), 4), client in client(), bits in prop::collection::vec(any::<u128>(), 16)) {
        let names: Vec<_> = DATACENTERS.iter().zip(states).map(|(&(name, ..), state)| (name, state)).collect();
        let placer = placer(&names);
        for name in ["near", "share", "first", "band", "two", "three"] {
            let target = placer.steering().target(&format!("{name}.shop.test")).unwrap();
            let choice = placer.choose(target, &client);
            for &bits in &bits {
                let other = match client.first_address() {
                    IpAddr::V4(v4) => {
                        let free = u32::MAX.checked_shr(choice.scope.into()).unwrap_or(0);
                        IpAddr::V4((v4.to_bits() & !free | bits as u32 & free).into())
                    }
                    IpAddr::V6(v6) => {
                        let free = u128::MAX.checked_shr(choice.scope.into()).unwrap_or(0);
                        IpAddr::V6((v6.to_bits() & !free | bits & free).into())
                    }
                };
                // Mapped addresses are IPv4 and not in this block.
                if other.to_canonical().is_ipv4() == client.first_address().is_ipv4() {
                    let found = placer.choose(target, &Client::address(other));
                    prop_assert_eq!(found.datacenter, choice.datacenter, "{} in /{} of {}", other, choice.scope, client);
                    let others = placer.named(target, &Client::address(other), found);
                    prop_assert_eq!(others, placer.named(target, &client, choice), "{} in /{} of {}", other, choice.scope, client);
                    prop_assert_eq!(found.settled, choice.settled);
                }
            }
        }
    }

    /// The compiled tables against the ranking computed from scratch.
    #[test]
    fn tables_agree_with_places(client in client()) {
        let placer = placer(&[]);
        for name in ["near", "share", "first", "band", "two", "three"] {
            let target = placer.steering().target(&format!("{name}.shop.test")).unwrap();
            let (tiers, _) = placer.steering().tiers_at(target, client.first_address());
            let choice = placer.choose(target, &client);
            prop_assert!(tiers[0].contains(&choice.datacenter));
            let order = placer.order(target, &client);
            let flat: Vec<usize> = tiers.iter().flat_map(|tier| order.iter().copied().filter(|member| tier.contains(member))).collect();
            prop_assert_eq!(order, flat);
        }
    }
}
