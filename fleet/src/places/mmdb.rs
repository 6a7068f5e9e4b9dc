//! MaxMind-format databases (`.mmdb`), Country or City: the whole tree is walked once and copied into our own
//! table. The library's per-lookup network cannot serve as an ECS scope (it is the width of a record, not of an
//! equal answer), and a map of our own looks up an order of magnitude faster.

use std::collections::HashMap;
use std::net::IpAddr;

use maxminddb::{MaxMindDbError, Reader, WithinOptions};
use serde::Deserialize;

use super::{Collector, Place, Places, PlacesError, Range};
use crate::location::{Continent, Country, Point};
use crate::prefix_table::key;

/// What we read of a record; Country and City databases both have this shape.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    continent: Coded<'a>,
    #[serde(borrow, default)]
    country: IsoCoded<'a>,
    #[serde(borrow, default)]
    registered_country: IsoCoded<'a>,
    #[serde(default)]
    location: Location,
}

#[derive(Deserialize, Default)]
struct Coded<'a> {
    code: Option<&'a str>,
}

#[derive(Deserialize, Default)]
struct IsoCoded<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize, Default)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl Record<'_> {
    fn place(&self) -> Place {
        let code = self.country.iso_code.or(self.registered_country.iso_code);
        let country = code.and_then(Country::from_code);
        let known = country.map(Place::of_country).unwrap_or_default();
        let continent = self.continent.code.and_then(Continent::from_code).or(known.continent);
        let point = match (self.location.latitude, self.location.longitude) {
            (Some(latitude), Some(longitude)) if latitude.abs() <= 90.0 && longitude.abs() <= 180.0 => {
                // A tenth of a degree is at most 11 km; finer points would only multiply places.
                let round = |degrees: f64| (degrees * 10.0).round() / 10.0;
                Some(Point { latitude: round(latitude), longitude: round(longitude) })
            }
            _ => known.point,
        };
        Place { country, continent, registry: None, point }
    }

    /// Equal places get one number; floating points are compared by their tenths.
    fn identity(place: &Place) -> PlaceIdentity {
        let tenths = |point: Point| ((point.latitude * 10.0) as i32, (point.longitude * 10.0) as i32);
        (place.country, place.continent, place.point.map(tenths))
    }
}

type PlaceIdentity = (Option<Country>, Option<Continent>, Option<(i32, i32)>);

impl Places {
    /// Places from the bytes of a MaxMind-format database; `name` is for messages.
    ///
    /// # Errors
    /// Anything that the format does not allow, wherever in the file it is: a database is used whole or not at all.
    pub fn from_mmdb(name: &str, bytes: &[u8]) -> Result<Places, PlacesError> {
        let broken =
            |error: MaxMindDbError| PlacesError::Mmdb { file: name.to_owned(), reason: error.to_string() };
        let reader = Reader::from_source(bytes).map_err(broken)?;
        reader.verify().map_err(broken)?;

        let mut collector = Collector::new();
        let mut by_identity: HashMap<PlaceIdentity, u32> = HashMap::new();
        let mut by_offset: HashMap<usize, u32> = HashMap::new();
        for found in reader.networks(WithinOptions::default()).map_err(broken)? {
            let found = found.map_err(broken)?;
            let Some(offset) = found.offset() else { continue };
            let place = match by_offset.get(&offset) {
                Some(&place) => place,
                None => {
                    let record: Record<'_> = match found.decode().map_err(broken)? {
                        Some(record) => record,
                        None => continue,
                    };
                    let place = record.place();
                    let number = match by_identity.get(&Record::identity(&place)) {
                        Some(&number) => number,
                        None => {
                            let identity = Record::identity(&place);
                            let number = collector
                                .place(place)
                                .ok_or_else(|| PlacesError::TooMany { file: name.to_owned() })?;
                            by_identity.insert(identity, number);
                            number
                        }
                    };
                    by_offset.insert(offset, number);
                    number
                }
            };
            let network = found.network().map_err(broken)?;
            let first = key(network.ip());
            // Keys are at the top of 128 bits: below the prefix everything is free.
            let host_bits = u128::MAX.checked_shr(u32::from(network.prefix())).unwrap_or(0);
            let range = |last| Range { first, last, place };
            match network.ip() {
                IpAddr::V4(_) => collector.v4.push(range((first | host_bits) >> 96 << 96)),
                IpAddr::V6(_) => collector.v6.push(range(first | host_bits)),
            }
        }
        if collector.v4.is_empty() && collector.v6.is_empty() {
            return Err(PlacesError::Empty { file: name.to_owned() });
        }
        for ranges in [&mut collector.v4, &mut collector.v6] {
            ranges.sort_by_key(|range| range.first);
            if !ranges.is_sorted_by(|a, b| a.last < b.first) {
                let reason = "two of its networks overlap".to_owned();
                return Err(PlacesError::Mmdb { file: name.to_owned(), reason });
            }
        }
        let kind = &reader.metadata().database_type;
        if collector.list.len() == 1 {
            // Every field of a record is optional: a database of another kind reads as one that knows nothing.
            let reason = format!("it is of type {kind}; no record has a country, a continent or a location");
            return Err(PlacesError::Mmdb { file: name.to_owned(), reason });
        }
        Ok(collector.finish(format!("{name} ({kind})")))
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    /// A writer of small databases, after the MaxMind DB file format specification 2.0: enough to read back.
    mod writer {
        use super::*;

        pub(super) fn string(text: &str) -> Vec<u8> {
            assert!(text.len() < 29, "short strings only");
            [&[2 << 5 | text.len() as u8], text.as_bytes()].concat()
        }

        pub(super) fn double(value: f64) -> Vec<u8> {
            [&[3 << 5 | 8], &value.to_be_bytes()[..]].concat()
        }

        fn number(kind: u8, value: u64) -> Vec<u8> {
            let bytes = value.to_be_bytes();
            let bytes = &bytes[bytes.iter().position(|&byte| byte != 0).unwrap_or(8)..];
            // Types above 7 are extended: type 0, then the type less 7.
            let head = if kind > 7 {
                vec![bytes.len() as u8, kind - 7]
            } else {
                vec![kind << 5 | bytes.len() as u8]
            };
            [&head[..], bytes].concat()
        }

        pub(super) fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
            let body = entries.iter().flat_map(|(name, value)| [string(name), value.clone()].concat());
            std::iter::once(7 << 5 | entries.len() as u8).chain(body).collect()
        }

        /// A database of these networks; an IPv4 network in an IPv6 database goes below `::/96`.
        pub(super) fn database(ip_version: u16, networks: &[(&str, Vec<u8>)]) -> Vec<u8> {
            const EMPTY: usize = usize::MAX;
            const DATA: usize = 1 << 40;
            let mut nodes: Vec<[usize; 2]> = vec![[EMPTY; 2]];
            let mut data = Vec::<u8>::new();
            for (network, record) in networks {
                let network: IpNet = network.parse().unwrap();
                let in_v6 = ip_version == 6 && network.addr().is_ipv4();
                let bits = key(network.addr()) >> if in_v6 { 96 } else { 0 };
                let length = u32::from(network.prefix_len()) + if in_v6 { 96 } else { 0 };
                let mut node = 0;
                for depth in 0..length {
                    let side = (bits >> (127 - depth) & 1) as usize;
                    if depth + 1 == length {
                        nodes[node][side] = DATA + data.len();
                    } else {
                        if nodes[node][side] == EMPTY {
                            nodes[node][side] = nodes.len();
                            nodes.push([EMPTY; 2]);
                        }
                        node = nodes[node][side];
                    }
                }
                data.extend(record);
            }
            let count = nodes.len();
            let pointer = |value: usize| match value {
                EMPTY => count,
                data if data >= DATA => count + 16 + data - DATA,
                node => node,
            };
            let tree =
                nodes.iter().flatten().flat_map(|&value| (pointer(value) as u32).to_be_bytes()[1..].to_vec());
            let mut file: Vec<u8> = tree.collect();
            file.extend([0; 16]);
            file.extend(data);
            file.extend(b"\xab\xcd\xefMaxMind.com");
            file.extend(map(&[
                ("binary_format_major_version", number(5, 2)),
                ("binary_format_minor_version", number(5, 0)),
                ("build_epoch", number(9, 1_700_000_000)),
                ("database_type", string("Test-City")),
                ("description", map(&[("en", string("for tests"))])),
                ("ip_version", number(5, ip_version.into())),
                ("languages", vec![0, 4]),
                ("node_count", number(6, count as u64)),
                ("record_size", number(5, 24)),
            ]));
            file
        }
    }

    use writer::{database, double, map, string};

    fn country(code: &str) -> Vec<u8> {
        map(&[("country", map(&[("iso_code", string(code))]))])
    }

    fn city(code: &str, latitude: f64, longitude: f64) -> Vec<u8> {
        map(&[
            ("country", map(&[("iso_code", string(code))])),
            ("location", map(&[("latitude", double(latitude)), ("longitude", double(longitude))])),
        ])
    }

    fn whole() -> Vec<u8> {
        database(
            6,
            &[
                ("1.0.0.0/8", country("KR")),
                ("2.0.0.0/9", city("US", 37.774_9, -122.419_4)),
                ("2.128.0.0/9", map(&[("registered_country", map(&[("iso_code", string("DE"))]))])),
                ("3.0.0.0/8", map(&[("continent", map(&[("code", string("AF"))]))])),
                ("2001:db8::/32", country("JP")),
            ],
        )
    }

    fn shown(places: &Places, address: &str) -> String {
        places.lookup(address.parse().unwrap()).0.to_string()
    }

    #[test]
    fn country_and_city_records() {
        let places = Places::from_mmdb("test.mmdb", &whole()).unwrap();
        assert_eq!(places.source(), "test.mmdb (Test-City)");
        assert_eq!(shown(&places, "1.2.3.4"), "KR, AS");
        assert_eq!(shown(&places, "2.200.0.1"), "DE, EU", "where it is registered, for want of better");
        assert_eq!(shown(&places, "3.0.0.1"), "AF");
        assert_eq!(shown(&places, "2001:db8::1"), "JP, AS");
        assert_eq!(shown(&places, "9.9.9.9"), "unknown");
        let (san_francisco, prefix_len) = places.lookup("2.1.1.1".parse().unwrap());
        assert_eq!(san_francisco.point, Some(Point { latitude: 37.8, longitude: -122.4 }));
        assert_eq!(prefix_len, 9);
    }

    #[test]
    fn a_v4_database_knows_no_v6() {
        let places = Places::from_mmdb("v4", &database(4, &[("1.0.0.0/8", country("KR"))])).unwrap();
        assert_eq!(shown(&places, "1.2.3.4"), "KR, AS");
        assert_eq!(shown(&places, "2001:db8::1"), "unknown");
    }

    #[test]
    fn what_is_no_database_is_refused_and_said() {
        let refused = |bytes: &[u8]| Places::from_mmdb("geo.mmdb", bytes).unwrap_err().to_string();
        assert!(refused(b"").starts_with("geo.mmdb: not a usable MaxMind-format database: "));
        assert!(refused(b"\x1f\x8b still compressed").contains("not a usable"));
        let of_another_kind = database(6, &[("1.0.0.0/8", map(&[("autonomous_system", string("64496"))]))]);
        let said = refused(&of_another_kind);
        assert!(said.contains("no record has a country, a continent or a location"), "{said}");
    }

    #[test]
    fn cut_or_damaged_anywhere_it_is_refused_or_read_but_never_panics() {
        let whole = whole();
        let marker = whole.windows(3).rposition(|window| window == b"\xab\xcd\xef").unwrap();
        for end in 0..whole.len() - 1 {
            // Without its metadata, which stands last, nothing can be read.
            assert!(Places::from_mmdb("cut", &whole[..end]).is_err(), "{end}");
        }
        // The front cut away: the tree no longer fits its metadata.
        for begin in (1..marker).step_by(7) {
            assert!(Places::from_mmdb("cut", &whole[begin..]).is_err(), "{begin}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = Places::from_mmdb("damaged", &damaged);
        }
    }
}
