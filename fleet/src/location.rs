//! Where things are: continents, registries, points on the globe and the distance between them.
//!
//! Distances are great circles on a sphere: within half a percent of the truth, and what a user's packets
//! do differs from it by far more.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Mean radius of the Earth in kilometres (IUGG).
const EARTH_RADIUS_KM: f64 = 6371.0088;

/// A continent, written as its two-letter code (`AF AN AS EU NA OC SA`), as geo databases do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Continent {
    /// `AF`
    #[serde(rename = "AF")]
    Africa,
    /// `AN`
    #[serde(rename = "AN")]
    Antarctica,
    /// `AS`
    #[serde(rename = "AS")]
    Asia,
    /// `EU`
    #[serde(rename = "EU")]
    Europe,
    /// `NA`
    #[serde(rename = "NA")]
    NorthAmerica,
    /// `OC`
    #[serde(rename = "OC")]
    Oceania,
    /// `SA`
    #[serde(rename = "SA")]
    SouthAmerica,
}

impl Continent {
    /// All continents, in the order of their codes.
    pub const ALL: [Continent; 7] = [
        Continent::Africa,
        Continent::Antarctica,
        Continent::Asia,
        Continent::Europe,
        Continent::NorthAmerica,
        Continent::Oceania,
        Continent::SouthAmerica,
    ];

    /// The two-letter code.
    pub fn code(self) -> &'static str {
        match self {
            Continent::Africa => "AF",
            Continent::Antarctica => "AN",
            Continent::Asia => "AS",
            Continent::Europe => "EU",
            Continent::NorthAmerica => "NA",
            Continent::Oceania => "OC",
            Continent::SouthAmerica => "SA",
        }
    }

    /// The continent with this two-letter code, if there is one.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|continent| continent.code() == code)
    }
}

impl fmt::Display for Continent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An ISO 3166-1 alpha-2 country code, upper case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// The country with this code: two ASCII letters, else `None`. Whether the country exists is not asked.
    pub fn from_code(code: &str) -> Option<Self> {
        match code.as_bytes() {
            &[a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    /// The two letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("built from two ASCII letters")
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Country {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// A regional Internet registry: all that is known of an address when no geo data is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// Africa
    Afrinic,
    /// Asia and Oceania
    Apnic,
    /// The United States, Canada and parts of the Caribbean
    Arin,
    /// Latin America and parts of the Caribbean
    Lacnic,
    /// Europe, the Middle East and parts of Central Asia
    RipeNcc,
}

impl Registry {
    /// The name that the registry uses for itself.
    pub fn name(self) -> &'static str {
        match self {
            Registry::Afrinic => "AFRINIC",
            Registry::Apnic => "APNIC",
            Registry::Arin => "ARIN",
            Registry::Lacnic => "LACNIC",
            Registry::RipeNcc => "RIPE NCC",
        }
    }
}

/// A point on the globe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Degrees north, -90 to 90.
    pub latitude: f64,
    /// Degrees east, -180 to 180.
    pub longitude: f64,
}

impl Point {
    /// Great-circle distance in kilometres, rounded, so that machines agree on which of two is nearer
    /// (haversine formula; `libm` has the same bits everywhere).
    pub fn distance_km(self, other: Point) -> u32 {
        let (lat1, lat2) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_lat = libm::sin((lat2 - lat1) / 2.0);
        let half_lon = libm::sin((other.longitude - self.longitude).to_radians() / 2.0);
        let h = half_lat * half_lat + libm::cos(lat1) * libm::cos(lat2) * half_lon * half_lon;
        let angle = 2.0 * libm::asin(libm::sqrt(h.clamp(0.0, 1.0)));
        (EARTH_RADIUS_KM * angle + 0.5) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_between_known_cities() {
        let seoul = Point { latitude: 37.57, longitude: 126.98 };
        let frankfurt = Point { latitude: 50.11, longitude: 8.68 };
        let ashburn = Point { latitude: 39.04, longitude: -77.49 };
        assert_eq!(seoul.distance_km(seoul), 0);
        assert!((8500..8620).contains(&seoul.distance_km(frankfurt)), "{}", seoul.distance_km(frankfurt));
        assert!((6480..6620).contains(&frankfurt.distance_km(ashburn)));
        assert_eq!(seoul.distance_km(ashburn), ashburn.distance_km(seoul));
    }

    #[test]
    fn antipodes_and_the_date_line() {
        let west = Point { latitude: 0.0, longitude: -179.5 };
        let east = Point { latitude: 0.0, longitude: 179.5 };
        assert!(west.distance_km(east) < 120);
        let north = Point { latitude: 90.0, longitude: 0.0 };
        let south = Point { latitude: -90.0, longitude: 0.0 };
        assert_eq!(north.distance_km(south), 20015);
    }

    #[test]
    fn codes_round_trip() {
        for continent in Continent::ALL {
            assert_eq!(Continent::from_code(continent.code()), Some(continent));
        }
        assert_eq!(Country::from_code("kr").unwrap().code(), "KR");
        assert_eq!(Country::from_code("K"), None);
        assert_eq!(Country::from_code("é"), None);
        assert_eq!(Country::from_code("??"), None);
    }
}
