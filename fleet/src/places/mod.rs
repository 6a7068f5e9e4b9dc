//! The client map's first half: address → place.
//!
//! A [`Places`] is made from one of three sources ([`mmdb`](Places::from_mmdb), [`ranges`](Places::from_ranges),
//! [`builtin`](Places::builtin)) and never changes. The second half, place → ranking class, is
//! [`steering`](crate::steering), which walks the same segments; what is kept here is for `explain` and for telling a
//! client where we think it is.
//!
//! Files are read by the caller. A source that is broken anywhere is refused whole: half a world would send the
//! other half's users astray, and the caller has the last good one.

mod builtin;
mod mmdb;
mod ranges;

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::location::{Continent, Country, Point, Registry};
use crate::prefix_table::{Found, PrefixTable, Segment, VALUE_MAX};
use crate::tables;

pub use ranges::RangeFile;

/// Where an address is, as well as the source knows. All fields empty: unknown.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct Place {
    /// The country.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<Country>,
    /// The continent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continent: Option<Continent>,
    /// The registry, when the source knows no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<Registry>,
    /// The point that distances are measured from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point: Option<Point>,
}

impl Place {
    /// Nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Place::default()
    }

    /// A country with its continent and point from the table; a country that the table lacks has neither.
    fn of_country(country: Country) -> Place {
        let (continent, point) = tables::country(country).unzip();
        Place { country: Some(country), continent, registry: None, point }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.country, self.continent, self.registry) {
            (Some(country), Some(continent), _) => write!(f, "{country}, {continent}"),
            (Some(country), None, _) => write!(f, "{country}"),
            (None, _, Some(registry)) => write!(f, "the {} region", registry.name()),
            (None, Some(continent), None) => write!(f, "{continent}"),
            (None, None, None) => match self.point {
                Some(Point { latitude, longitude }) => write!(f, "{latitude}, {longitude}"),
                None => f.write_str("unknown"),
            },
        }
    }
}

/// Why a geo source was refused.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// A MaxMind-format file that is not one, is cut short, or holds what the format does not allow.
    #[error("{file}: not a usable MaxMind-format database: {reason}. Fetch it again; the one in use stays")]
    Mmdb {
        /// Name of the file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A line of a range file.
    #[error("{file}:{line}: {reason}")]
    Range {
        /// Name of the file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A source that holds no range at all.
    #[error("{file}: holds no address ranges; is this the right file?")]
    Empty {
        /// Name of the file or files.
        file: String,
    },
    /// More distinct places than a leaf can number.
    #[error("{file}: more than {VALUE_MAX} distinct places")]
    TooMany {
        /// Name of the file.
        file: String,
    },
}

/// Every address and its place.
#[derive(Debug)]
pub struct Places {
    source: String,
    list: Vec<Place>,
    table: PrefixTable,
}

impl Places {
    /// The number of "unknown" in the list of places, and thus the value of unlisted segments.
    const UNKNOWN: u32 = 0;

    /// The place of an address, and the widest prefix around it that shares the place.
    pub fn lookup(&self, address: IpAddr) -> (&Place, u8) {
        let Found { value, prefix_len } = self.table.lookup(address);
        (&self.list[value as usize], prefix_len)
    }

    /// What these places were read from, for people: file names, or that they are built in.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// All places, by number.
    pub(crate) fn list(&self) -> &[Place] {
        &self.list
    }

    /// IPv4 segments; values are numbers in [`list`](Self::list).
    pub(crate) fn v4(&self) -> Vec<Segment> {
        self.table.v4_segments()
    }

    /// IPv6 segments.
    pub(crate) fn v6(&self) -> Vec<Segment> {
        self.table.v6_segments()
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.table.bytes() + size_of_val(&*self.list)
    }
}

/// Both ends of a range, as keys, and the number of its place.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u128,
    last: u128,
    place: u32,
}

/// Collects ranges of one source.
#[derive(Default)]
struct Collector {
    list: Vec<Place>,
    v4: Vec<Range>,
    v6: Vec<Range>,
}

impl Collector {
    fn new() -> Self {
        Self { list: vec![Place::default()], ..Self::default() }
    }

    /// The number of a new place.
    fn place(&mut self, place: Place) -> Option<u32> {
        if place.is_unknown() {
            return Some(Places::UNKNOWN);
        }
        let number = u32::try_from(self.list.len()).ok().filter(|&number| number <= VALUE_MAX)?;
        self.list.push(place);
        Some(number)
    }

    /// The places, if no two ranges overlap (the callers have checked).
    fn finish(self, source: String) -> Places {
        let v4 = segments(self.v4, 32);
        let v6 = segments(self.v6, 128);
        let table = PrefixTable::build(&v4, &v6);
        Places { source, list: self.list, table }
    }
}

/// Sorted, disjoint ranges as segments that cover the whole space, gaps being unknown, equal neighbours merged.
fn segments(ranges: Vec<Range>, bits: u32) -> Vec<Segment> {
    let mut all = Vec::with_capacity(ranges.len() + 1);
    let mut push = |start, value| {
        if all.last().is_none_or(|last: &Segment| last.value != value) {
            all.push(Segment { start, value });
        }
    };
    // The key that follows a range; `None` at the end of the space. Keys of IPv4 step by 2^96.
    let step = 1u128 << (128 - bits);
    let mut next = Some(0);
    for range in ranges {
        match next {
            Some(next) if next < range.first => push(next, Places::UNKNOWN),
            _ => {}
        }
        push(range.first, range.place);
        next = range.last.checked_add(step);
    }
    if let Some(next) = next {
        push(next, Places::UNKNOWN);
    }
    all.shrink_to_fit();
    all
}

/// Numbers of country places within one source.
#[derive(Default)]
struct Countries(HashMap<Country, u32>);

impl Countries {
    fn number(&mut self, collector: &mut Collector, country: Country) -> u32 {
        *self.0.entry(country).or_insert_with(|| {
            collector.place(Place::of_country(country)).expect("there are at most 676 two-letter codes")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_segments_without_gaps() {
        let range = |first: u32, last: u32, place| Range {
            first: u128::from(first) << 96,
            last: u128::from(last) << 96,
            place,
        };
        let all = segments(vec![range(0, 9, 1), range(10, 19, 1), range(30, u32::MAX, 2)], 32);
        let plain: Vec<_> = all.iter().map(|segment| ((segment.start >> 96) as u32, segment.value)).collect();
        assert_eq!(plain, [(0, 1), (20, 0), (30, 2)]);
    }

    #[test]
    fn places_print_what_is_known() {
        let korea = Place::of_country(Country::from_code("KR").unwrap());
        assert_eq!(korea.to_string(), "KR, AS");
        let nowhere = Place::of_country(Country::from_code("ZZ").unwrap());
        assert_eq!((nowhere.to_string(), nowhere.point), ("ZZ".to_owned(), None));
        assert_eq!(Place::default().to_string(), "unknown");
    }
}
