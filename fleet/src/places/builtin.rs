//! The table for a fresh machine: blocks of the regional registries. Coarse (five regions), but it steers.

use std::net::{IpAddr, Ipv4Addr};

use super::{Collector, Place, Places, Range};
use crate::location::{Continent, Country, Registry};
use crate::prefix_table::key;
use crate::tables::{self, REGISTRY_V4, REGISTRY_V6};

/// The country whose point stands for a registry's whole region: the one with the most addresses there.
/// A block of a registry may be used anywhere in its region; only the region is known.
fn reference(registry: Registry) -> (&'static str, Continent) {
    match registry {
        Registry::Afrinic => ("ZA", Continent::Africa),
        Registry::Apnic => ("CN", Continent::Asia),
        Registry::Arin => ("US", Continent::NorthAmerica),
        Registry::Lacnic => ("BR", Continent::SouthAmerica),
        Registry::RipeNcc => ("DE", Continent::Europe),
    }
}

impl Places {
    /// Places from the blocks of the regional registries.
    pub fn builtin() -> Places {
        let mut collector = Collector::new();
        let mut numbers = [0u32; 5];
        for registry in
            [Registry::Afrinic, Registry::Apnic, Registry::Arin, Registry::Lacnic, Registry::RipeNcc]
        {
            let (code, continent) = reference(registry);
            let country = Country::from_code(code).expect("a two-letter code");
            let point = tables::country(country).map(|(_, point)| point);
            let place = Place { country: None, continent: Some(continent), registry: Some(registry), point };
            numbers[registry as usize] = collector.place(place).expect("five places");
        }
        for &(octet, registry) in REGISTRY_V4 {
            let first = key(IpAddr::V4(Ipv4Addr::new(octet, 0, 0, 0)));
            let last = key(IpAddr::V4(Ipv4Addr::new(octet, 255, 255, 255)));
            collector.v4.push(Range { first, last, place: numbers[registry as usize] });
        }
        for &(first, prefix_len, registry) in REGISTRY_V6 {
            let last = first | (u128::MAX >> prefix_len);
            collector.v6.push(Range { first, last, place: numbers[registry as usize] });
        }
        collector.finish("built-in registry blocks".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_blocks_are_in_their_regions() {
        let places = Places::builtin();
        let registry = |address: &str| places.lookup(address.parse().unwrap()).0.registry;
        assert_eq!(registry("1.208.0.1"), Some(Registry::Apnic)); // KR
        assert_eq!(registry("91.0.0.1"), Some(Registry::RipeNcc)); // DE
        assert_eq!(registry("3.0.0.1"), Some(Registry::Arin)); // US
        assert_eq!(registry("200.0.0.1"), Some(Registry::Lacnic));
        assert_eq!(registry("41.0.0.1"), Some(Registry::Afrinic));
        assert_eq!(registry("2a00::1"), Some(Registry::RipeNcc));
        assert_eq!(registry("2400::1"), Some(Registry::Apnic));
        assert_eq!(registry("10.0.0.1"), None);
        assert_eq!(registry("::1"), None);
        assert_eq!(registry("224.0.0.1"), None);
    }
}
