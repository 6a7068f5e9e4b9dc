//! The compiled map against a straightforward reference over the raw ranges, with Debian's `tor-geoipdb` as the world:
//! 100,000 random addresses of both families get the same ranking, and the scope property holds.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use daemun_fleet::places::RangeFile;
use daemun_fleet::{Client, Config, FleetView, Placer, Places, Steering};

use crate::fleet::needs;
use crate::steering::numbers;

const ADDRESSES: usize = 100_000;

/// Datacenters near and far from each other, so that there are many rankings.
const DATACENTERS: [(&str, f64, f64); 6] = [
    ("seoul", 37.57, 126.98),
    ("frankfurt", 50.11, 8.68),
    ("virginia", 39.04, -77.49),
    ("saopaulo", -23.55, -46.63),
    ("mumbai", 19.08, 72.88),
    ("sydney", -33.87, 151.21),
];

fn config() -> Config {
    let mut text = String::from("version = 1\nfleet.name = \"world\"\n");
    for (number, (name, latitude, longitude)) in DATACENTERS.iter().enumerate() {
        text += &format!(
            "[[datacenters]]\nname = \"{name}\"\nlatitude = {latitude}\nlongitude = {longitude}\naddresses = [\"192.0.2.{number}\"]\nagent = \"https://a{number}:1\"\n"
        );
        text += &format!(
            "[[servers]]\nname = \"d-{name}\"\nrole = \"frontdoor\"\ndatacenter = \"{name}\"\ncheck = {{ none = true }}\n"
        );
    }
    Config::parse("world", &text).unwrap()
}

/// Raw ranges as they stand in the files, by first address: last address and country.
type Ranges = BTreeMap<u128, (u128, String)>;

fn read_ranges(text: &str) -> Ranges {
    let number = |text: &str| match (text.parse::<u128>(), text.parse::<Ipv6Addr>()) {
        (Ok(number), _) => number,
        (_, Ok(address)) => address.to_bits(),
        _ => panic!("{text}"),
    };
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let mut fields = line.split(',');
            let (first, last) = (number(fields.next().unwrap()), number(fields.next().unwrap()));
            (first, (last, fields.next().unwrap().to_owned()))
        })
        .collect()
}

fn raw_country(ranges: &Ranges, address: u128) -> &str {
    match ranges.range(..=address).next_back() {
        Some((_, (last, country))) if address <= *last => country,
        _ => "??",
    }
}

struct World {
    placer: Placer,
    v4: Ranges,
    v6: Ranges,
    /// The order of datacenters for each country, computed apart from the map.
    orders: BTreeMap<String, Vec<usize>>,
}

impl World {
    fn read() -> Self {
        needs("/usr/share/tor/geoip", "tor-geoipdb");
        let v4 = fs::read_to_string("/usr/share/tor/geoip").unwrap();
        let v6 = fs::read_to_string("/usr/share/tor/geoip6").unwrap();
        let files = [RangeFile { name: "geoip", text: &v4 }, RangeFile { name: "geoip6", text: &v6 }];
        let places = Places::from_ranges(&files).unwrap();
        let steering = Arc::new(Steering::compile(Arc::new(config()), Arc::new(places)));
        let view = Arc::new(FleetView::unobserved(steering.config()));
        let (v4, v6) = (read_ranges(&v4), read_ranges(&v6));
        let mut orders = BTreeMap::new();
        for country in v4.values().chain(v6.values()).map(|(_, country)| country) {
            orders.entry(country.clone()).or_insert_with(|| order_of(country));
        }
        orders.insert("??".to_owned(), order_of("??"));
        Self { placer: Placer::new(steering, view), v4, v6, orders }
    }

    fn reference(&self, address: IpAddr) -> &[usize] {
        let country = match address {
            IpAddr::V4(v4) => raw_country(&self.v4, v4.to_bits().into()),
            IpAddr::V6(v6) => raw_country(&self.v6, v6.to_bits()),
        };
        &self.orders[country]
    }

    fn compiled(&self, address: IpAddr) -> Vec<usize> {
        self.placer.order(self.placer.steering().door(), &Client::address(address))
    }
}

/// The order for one country: through the places of one tiny map that holds nothing else.
fn order_of(country: &str) -> Vec<usize> {
    let text = format!("1.0.0.0,1.0.0.255,{country}\n");
    let places = Places::from_ranges(&[RangeFile { name: "one", text: &text }]).unwrap();
    let (place, _) = places.lookup(IpAddr::V4(Ipv4Addr::new(1, 0, 0, 1)));
    let mut order: Vec<usize> = (0..DATACENTERS.len()).collect();
    if let Some(point) = place.point {
        order.sort_by_key(|&number| {
            let (_, latitude, longitude) = DATACENTERS[number];
            point.distance_km(daemun_fleet::location::Point { latitude, longitude })
        });
    }
    order
}

/// Random addresses: half anywhere, half at the borders of ranges, where a map goes wrong if it does.
fn addresses(world: &World) -> Vec<IpAddr> {
    let mut random = numbers(11);
    let v4: Vec<u128> = world.v4.iter().flat_map(|(&first, &(last, _))| [first, last]).collect();
    let v6: Vec<u128> = world.v6.iter().flat_map(|(&first, &(last, _))| [first, last]).collect();
    let mut wide = move || u128::from(random()) << 64 | u128::from(random());
    (0..ADDRESSES)
        .map(|number| {
            let step = (wide() % 3).wrapping_sub(1); // one before, on, or one after a border
            match number % 4 {
                0 => IpAddr::V4(Ipv4Addr::from_bits(wide() as u32)),
                1 => {
                    IpAddr::V4(Ipv4Addr::from_bits(v4[wide() as usize % v4.len()].wrapping_add(step) as u32))
                }
                // Global unicast: the rest of the space is empty.
                2 => IpAddr::V6(Ipv6Addr::from_bits(wide() >> 3 | 1 << 125)),
                _ => IpAddr::V6(Ipv6Addr::from_bits(v6[wide() as usize % v6.len()].wrapping_add(step))),
            }
        })
        .collect()
}

#[test]
fn the_map_agrees_with_the_raw_ranges() {
    let world = World::read();
    let mut differ = 0;
    for address in addresses(&world) {
        let (compiled, reference) = (world.compiled(address), world.reference(address));
        if compiled != reference {
            eprintln!("{address}: the map says {compiled:?}, the ranges {reference:?}");
            differ += 1;
        }
    }
    assert_eq!(differ, 0);
    println!("{ADDRESSES} addresses, no difference in ranking");
}

#[test]
fn no_scope_holds_two_rankings() {
    let world = World::read();
    let mut random = numbers(13);
    let target = world.placer.steering().door();
    // Every third of a cycle of four: all kinds.
    for address in addresses(&world).into_iter().step_by(3) {
        let scope = world.placer.choose(target, &Client::address(address)).scope;
        let ranking = world.reference(address);
        // The two ends of the block and a few inside, judged by the raw ranges.
        let bits = u128::from(random()) << 64 | u128::from(random());
        for bits in [0, u128::MAX, bits, bits.rotate_left(64)] {
            let inside = match address {
                IpAddr::V4(v4) => {
                    let free = u32::MAX.checked_shr(scope.into()).unwrap_or(0);
                    IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !free | bits as u32 & free))
                }
                IpAddr::V6(v6) => {
                    let free = u128::MAX.checked_shr(scope.into()).unwrap_or(0);
                    IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !free | bits & free))
                }
            };
            assert_eq!(world.reference(inside), ranking, "{inside} in /{scope} of {address}");
        }
    }
}

/// The check can fail: a reference with one range moved by one address is told apart.
#[test]
fn a_wrong_map_is_caught() {
    let mut world = World::read();
    let (&first, (last, country)) =
        world.v4.iter().find(|(first, (last, country))| country == "KR" && *last - **first > 1000).unwrap();
    let (last, country) = (*last, country.clone());
    let other = if country == "KR" { "US" } else { "KR" };
    world.v4.insert(first, (last, other.to_owned()));
    let address = IpAddr::V4(Ipv4Addr::from_bits(first as u32));
    assert_ne!(world.compiled(address), world.reference(address));
}
