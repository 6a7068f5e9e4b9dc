//! Capacity, spill, the blast radius of a change, and address families that fare otherwise than each other.

use std::sync::Arc;

use super::*;
use crate::config::Config;
use crate::meter::Counted;
use crate::places::{Places, RangeFile};
use crate::view::{DatacenterView, ServerView};

const RANGES: &str = "1.0.0.0,1.255.255.255,KR\n2.0.0.0,2.255.255.255,DE\n3.0.0.0,3.255.255.255,US\n";

fn steering(capacities: [u32; 3]) -> Arc<Steering> {
    let mut text = String::from("version = 1\nfleet.name = \"shop\"\n");
    let places = [("seoul", 37.57, 126.98), ("frankfurt", 50.11, 8.68), ("virginia", 39.04, -77.49)];
    for (number, (name, latitude, longitude)) in places.iter().enumerate() {
        text += &format!(
            "[[datacenters]]\nname = \"{name}\"\nlatitude = {latitude}\nlongitude = {longitude}\n\
             addresses = [\"192.0.2.{number}\", \"2001:db8::{number}\"]\ncapacity_rps = {}\n\
             agent = \"https://agent-{number}:7400\"\n\
             [[servers]]\nname = \"door-{name}\"\nrole = \"frontdoor\"\ndatacenter = \"{name}\"\n\
             check = {{ none = true }}\n",
            capacities[number]
        );
    }
    text += "[[dns.zones]]\nname = \"shop.test\"\nfile = \"zone\"\n\
             [[dns.names]]\nname = \"www.shop.test\"\npolicy = \"nearest\"\n";
    let config = Config::parse("daemun.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    let places = Places::from_ranges(&[RangeFile { name: "ranges", text: RANGES }]).unwrap();
    Arc::new(Steering::compile(Arc::new(config), Arc::new(places)))
}

/// A view in which so much comes in from Korea, Germany and the United States.
fn view(steering: &Steering, rates: [u32; 3]) -> FleetView {
    let mut view = FleetView::unobserved(steering.config());
    let classes = ["seoul>frankfurt>virginia", "frankfurt>virginia>seoul", "virginia>frankfurt>seoul"];
    for (class, rate) in classes.into_iter().zip(rates) {
        view.requests.insert(class.to_owned(), rate);
        view.queries.insert(class.to_owned(), rate / 10);
    }
    view
}

fn placer(capacities: [u32; 3], rates: [u32; 3], states: &[(&str, State)]) -> Placer {
    let steering = steering(capacities);
    let mut view = view(&steering, rates);
    for &(name, state) in states {
        view.datacenters.insert(name.to_owned(), DatacenterView::new(state, "for the test"));
    }
    Placer::new(steering, Arc::new(view))
}

fn kept(placer: &Placer) -> [u8; 3] {
    let kept: Vec<u8> = placer.loads().iter().map(|load| load.kept_percent).collect();
    kept.try_into().unwrap()
}

/// The percentage of a country's clients that each datacenter gets.
fn shares(placer: &Placer, first_octet: u8) -> [usize; 3] {
    let target = placer.steering().target("www.shop.test").unwrap();
    let mut counts = [0; 3];
    for block in 0..10_000u32 {
        let address = IpAddr::V4((u32::from(first_octet) << 24 | block << 8).into());
        counts[placer.choose(target, &Client::address(address)).datacenter] += 1;
    }
    counts.map(|count| count / 100)
}

#[test]
fn within_its_capacity_nobody_spills() {
    let placer = placer([1000, 1000, 1000], [900, 400, 100], &[]);
    assert_eq!(kept(&placer), [100; 3]);
    let asked: Vec<u32> = placer.loads().iter().map(|load| load.asked_rps).collect();
    assert_eq!(asked, [900, 400, 100]);
    assert_eq!(shares(&placer, 1), [100, 0, 0]);
}

#[test]
fn over_it_a_share_goes_to_the_next_best_and_the_others_stay() {
    let placer = placer([1000, 1000, 1000], [1200, 400, 100], &[]);
    assert_eq!(kept(&placer), [75, 100, 100]);
    let [seoul, frankfurt, virginia] = shares(&placer, 1);
    assert!((74..=76).contains(&seoul) && (24..=26).contains(&frankfurt) && virginia == 0);
    assert_eq!(shares(&placer, 2), [0, 100, 0], "users elsewhere stay where they are");
    let load = &placer.loads()[0];
    assert!(load.asked_rps == 1200 && load.expected_rps.abs_diff(900) <= 20, "{load:?}");
    let target = placer.steering().target("www.shop.test").unwrap();
    let text = placer.explain(target, &"1.0.0.0/24".parse().unwrap(), "A").to_string();
    assert!(text.contains("over its capacity, keeps 75%"), "{text}");
}

#[test]
fn what_spills_does_not_drown_the_next() {
    let placer = placer([1000, 1000, 3000], [1800, 850, 100], &[]);
    let loads: Vec<u32> = placer.loads().iter().map(|load| load.expected_rps).collect();
    assert!(loads[0] <= 930 && loads[1] <= 930 && loads[2] > 700, "{:?}", placer.loads());
}

#[test]
fn when_all_are_asked_too_much_the_pain_is_shared_and_nobody_is_empty() {
    let placer = placer([1000, 1000, 1000], [6000, 100, 100], &[]);
    let loads: Vec<u32> = placer.loads().iter().map(|load| load.expected_rps).collect();
    assert!(loads.iter().all(|load| (1500..=2700).contains(load)), "{loads:?}");
}

#[test]
fn a_dead_one_s_users_count_where_they_go() {
    let placer = placer([1000, 1000, 1000], [500, 600, 500], &[("frankfurt", State::Down)]);
    assert_eq!(kept(&placer), [100, 100, 80]);
    assert_eq!(placer.loads()[2].asked_rps, 1100);
}

/// What is counted is by client, whoever serves: spilling does not change it, so it does not swing.
#[test]
fn what_is_counted_does_not_depend_on_who_serves() {
    let placer = placer([1000; 3], [3000, 0, 0], &[]);
    let target = placer.steering().door();
    for block in 0..100u32 {
        let client = Client::address(IpAddr::V4((1 << 24 | block << 8).into()));
        placer.count(target, &placer.choose(target, &client), Counted::Request);
    }
    let counted = placer.steering().counted(Counted::Request);
    assert_eq!(counted, [("seoul>frankfurt>virginia".to_owned(), 100)].into());
    assert!(placer.steering().counted(Counted::Query).is_empty());
}

#[test]
fn the_blast_radius_is_what_then_happens() {
    let before = placer([1000; 3], [300, 600, 500], &[]);
    let after = placer([1000; 3], [300, 600, 500], &[("frankfurt", State::Drained)]);
    let blast = Blast::between(&before, &after);
    let moved: Vec<(&str, &str)> =
        blast.moves.iter().map(|one| (one.from.as_str(), one.to.as_str())).collect();
    let expected = [("frankfurt", "seoul"), ("frankfurt", "virginia"), ("virginia", "seoul")];
    assert_eq!(moved, expected, "virginia cannot take them all, and a share of its own spills too");
    let of_frankfurt = blast.moves.iter().filter(|one| one.from == "frankfurt");
    let total: f64 = of_frankfurt.filter_map(|one| one.requests_percent).sum();
    assert!((total - 100.0 * 600.0 / 1400.0).abs() < 2.0, "{blast:?}");
    assert_eq!(blast.loads[2].asked_rps, 1100);
    // Of the German blocks as many go to Virginia as was said of their queries.
    let said = blast.moves[1].queries_percent.unwrap() / (100.0 * 60.0 / 140.0) * 100.0;
    let seen = shares(&after, 2)[2] as f64;
    assert!((said - seen).abs() <= 2.0, "said {said}, seen {seen}");
    assert!(Blast::between(&before, &before).moves.is_empty());
}

#[test]
fn a_family_whose_addresses_are_all_down_is_answered_from_elsewhere() {
    let steering = steering([1000; 3]);
    let mut view = FleetView::unobserved(steering.config());
    let down = vec!["2001:db8::".parse().unwrap()];
    view.servers.insert("door-seoul".to_owned(), ServerView { down, ..ServerView::new(Health::Up, "") });
    let placer = Placer::new(Arc::clone(&steering), Arc::new(view));
    let target = steering.target("www.shop.test").unwrap();
    let client = "1.0.0.0/24".parse().unwrap();
    let choose = |family| placer.choose_for(target, &client, family).datacenter;
    assert_eq!([choose(None), choose(Some(AddressType::A)), choose(Some(AddressType::Aaaa))], [0, 0, 1]);
    let explained = placer.explain(target, &client, "AAAA");
    assert_eq!(explained.answer, ["2001:db8::1"]);
    assert_eq!(placer.explain(target, &client, "A").answer, ["192.0.2.0"]);
}
