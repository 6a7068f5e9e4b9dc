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
        Ok(collector.finish(format!("{name} ({kind})")))
    }
}
