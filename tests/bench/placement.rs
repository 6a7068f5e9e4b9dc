//! What placement costs: compiling the world, looking a client up, going over to a new view.
//!
//! The world is Debian's `tor-geoipdb`. Run with `cargo bench`; figures are reported, never asserted.

use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use daemun_fleet::places::RangeFile;
use daemun_fleet::view::{DatacenterView, State};
use daemun_fleet::{Client, Config, FleetView, Placer, Places, Steering};
use divan::Bencher;

fn main() {
    let (places, steering) = (Arc::clone(WORLD.steering().places()), WORLD.steering());
    println!(
        "places: {:.2} MiB (for explain and `you`), ranking maps: {:.2} MiB",
        mib(places.bytes()),
        mib(steering.bytes())
    );
    divan::main();
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

static TEXTS: LazyLock<[String; 2]> = LazyLock::new(|| {
    ["/usr/share/tor/geoip", "/usr/share/tor/geoip6"].map(|path| {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}: apt install tor-geoipdb"))
    })
});

static WORLD: LazyLock<Placer> = LazyLock::new(|| {
    let steering = Arc::new(Steering::compile(Arc::new(config()), Arc::new(places())));
    let view = Arc::new(FleetView::unobserved(steering.config()));
    Placer::new(steering, view)
});

fn places() -> Places {
    let [v4, v6] = &*TEXTS;
    let files = [RangeFile { name: "geoip", text: v4 }, RangeFile { name: "geoip6", text: v6 }];
    Places::from_ranges(&files).expect("Debian's files are right")
}

fn config() -> Config {
    let mut text = String::from("version = 1\nfleet.name = \"bench\"\n");
    let points = [("seoul", 37.57, 126.98), ("frankfurt", 50.11, 8.68), ("virginia", 39.04, -77.49)];
    for (number, (name, latitude, longitude)) in points.iter().enumerate() {
        text += &format!(
            "[[datacenters]]\nname = \"{name}\"\nlatitude = {latitude}\nlongitude = {longitude}\naddresses = [\"192.0.2.{number}\"]\nagent = \"https://a{number}:1\"\n\
             [[servers]]\nname = \"door-{name}\"\nrole = \"frontdoor\"\ndatacenter = \"{name}\"\ncheck = {{ none = true }}\n"
        );
    }
    text += "[[dns.zones]]\nname = \"shop.test\"\nfile = \"z\"\n[[dns.names]]\nname = \"near.shop.test\"\npolicy = \"nearest\"\n\
             [[dns.names]]\nname = \"share.shop.test\"\npolicy = \"weighted\"\nweights = { seoul = 70, frankfurt = 30 }\n";
    Config::parse("bench", &text).expect("the config is right")
}

/// Clients that look random, the same in every run.
fn clients(v6: bool) -> Vec<Client> {
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state >> 16
    };
    let client = |bits: u64| match v6 {
        false => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        true => IpAddr::V6(Ipv6Addr::from_bits(1 << 125 | u128::from(bits) << 77)),
    };
    (0..4096).map(|_| Client::address(client(random()))).collect()
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn read_the_world(bencher: Bencher<'_, '_>) {
    LazyLock::force(&TEXTS);
    bencher.bench(places);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn compile_the_rankings(bencher: Bencher<'_, '_>) {
    let (config, places) = (Arc::new(config()), Arc::clone(WORLD.steering().places()));
    bencher.bench(|| Steering::compile(Arc::clone(&config), Arc::clone(&places)));
}

#[divan::bench(args = [false, true])]
fn look_up_4096_clients(bencher: Bencher<'_, '_>, v6: bool) {
    let clients = clients(v6);
    let target = WORLD.steering().target("near.shop.test").expect("a steered name");
    bencher.counter(divan::counter::ItemsCount::new(clients.len())).bench(|| {
        clients.iter().map(|client| usize::from(WORLD.choose(target, black_box(client)).scope)).sum::<usize>()
    });
}

#[divan::bench]
fn choose_by_weight_4096_clients(bencher: Bencher<'_, '_>) {
    let clients = clients(false);
    let target = WORLD.steering().target("share.shop.test").expect("a steered name");
    bencher.counter(divan::counter::ItemsCount::new(clients.len())).bench(|| {
        clients.iter().map(|client| WORLD.choose(target, black_box(client)).datacenter).sum::<usize>()
    });
}

#[divan::bench]
fn order_for_one_client(bencher: Bencher<'_, '_>) {
    let client: Client = "91.0.0.1".parse().expect("an address");
    bencher.bench(|| WORLD.order(WORLD.steering().door(), black_box(&client)));
}

#[divan::bench]
fn go_over_to_a_new_view(bencher: Bencher<'_, '_>) {
    let mut view = FleetView::unobserved(WORLD.steering().config());
    let down = DatacenterView::new(State::Down, "for the benchmark");
    view.datacenters.insert("seoul".to_owned(), down);
    let view = Arc::new(view);
    bencher.bench(|| Placer::new(Arc::clone(WORLD.steering()), Arc::clone(&view)));
}
