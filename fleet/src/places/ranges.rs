//! Range files, `first,last,country` a line, as Debian's `tor-geoipdb` ships them: IPv4 ends as decimal numbers
//! or dotted, IPv6 ends as addresses. `#` opens a comment; `??` is an unknown country.

use std::net::{IpAddr, Ipv4Addr};

use super::{Collector, Countries, Places, PlacesError, Range};
use crate::location::Country;
use crate::prefix_table::key;

/// One range file: its name, for errors, and its text.
#[derive(Clone, Copy, Debug)]
pub struct RangeFile<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// The whole text.
    pub text: &'a str,
}

impl Places {
    /// Places from range files of either family. Ranges may come in any order.
    ///
    /// # Errors
    /// The first line that does not parse, or that overlaps another, with file and line; a source without ranges.
    pub fn from_ranges(files: &[RangeFile<'_>]) -> Result<Places, PlacesError> {
        let mut collector = Collector::new();
        let mut countries = Countries::default();
        // Where each range stands, beside the ranges themselves, to name both lines of an overlap.
        let mut lines = [Vec::new(), Vec::new()];
        for (file_number, file) in files.iter().enumerate() {
            for (at, line) in file.text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let wrong = |reason| PlacesError::Range { file: file.name.to_owned(), line: at + 1, reason };
                let (first, last, country) = parse(line).map_err(wrong)?;
                let place = country.map_or(Places::UNKNOWN, |code| countries.number(&mut collector, code));
                let family = usize::from(first.is_ipv6());
                let ranges = if family == 1 { &mut collector.v6 } else { &mut collector.v4 };
                ranges.push(Range { first: key(first), last: key(last), place });
                lines[family].push((file_number, at + 1));
            }
        }
        let names = files.iter().map(|file| file.name).collect::<Vec<_>>().join(", ");
        if collector.v4.is_empty() && collector.v6.is_empty() {
            return Err(PlacesError::Empty { file: names });
        }
        sort_and_check(files, &mut collector.v4, &lines[0])?;
        sort_and_check(files, &mut collector.v6, &lines[1])?;
        Ok(collector.finish(names))
    }
}

fn parse(line: &str) -> Result<(IpAddr, IpAddr, Option<Country>), String> {
    let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
    let (Some(first), Some(last), Some(code), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(format!("expected `first,last,country`, found `{}`", crate::shorten(line)));
    };
    let (first, last) = (end(first)?, end(last)?);
    if first.is_ipv4() != last.is_ipv4() {
        return Err(format!("the range begins at {first} and ends at {last}, of another address family"));
    }
    if last < first {
        return Err(format!("the range ends at {last}, before it begins at {first}"));
    }
    let country = match code {
        "??" | "" => None,
        code => Some(Country::from_code(code).ok_or_else(|| {
            format!("expected a two-letter country code or `??`, found `{}`", crate::shorten(code))
        })?),
    };
    Ok((first, last, country))
}

fn end(text: &str) -> Result<IpAddr, String> {
    let number = || text.parse::<u32>().ok().map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    number().or_else(|| text.parse().ok()).ok_or_else(|| {
        format!("expected an address or a number up to 4294967295, found `{}`", crate::shorten(text))
    })
}

fn sort_and_check(
    files: &[RangeFile<'_>],
    ranges: &mut Vec<Range>,
    lines: &[(usize, usize)],
) -> Result<(), PlacesError> {
    // Real files are sorted: then the lines still belong to the ranges and nothing has to be moved.
    if ranges.is_sorted_by(|a, b| a.last < b.first) {
        return Ok(());
    }
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&at| ranges[at].first);
    for pair in order.windows(2) {
        let (low, high) = (&ranges[pair[0]], &ranges[pair[1]]);
        if high.first <= low.last {
            let ((other_file, other_line), (file, line)) = (lines[pair[0]], lines[pair[1]]);
            return Err(PlacesError::Range {
                file: files[file].name.to_owned(),
                line,
                reason: format!(
                    "this range overlaps the one at {}:{other_line}; an address can be in one country only",
                    files[other_file].name
                ),
            });
        }
    }
    *ranges = order.into_iter().map(|at| ranges[at]).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Places, PlacesError> {
        Places::from_ranges(&[RangeFile { name: "geoip", text }])
    }

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn both_families_and_both_notations() {
        let places = read("# head\n16777216,16777471,AU\n2.0.0.0,2.255.255.255,FR\n2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP\n5.0.0.0,5.0.0.255,??\n").unwrap();
        let country =
            |address: &str| places.lookup(address.parse().unwrap()).0.country.map(|c| c.to_string());
        assert_eq!(country("1.0.0.77").as_deref(), Some("AU"));
        assert_eq!(country("2.77.0.1").as_deref(), Some("FR"));
        assert_eq!(country("2001:200::1").as_deref(), Some("JP"));
        assert_eq!(country("5.0.0.1"), None);
        assert_eq!(country("9.9.9.9"), None);
        assert_eq!(places.lookup("2.1.1.1".parse().unwrap()).1, 8);
    }

    #[test]
    fn any_order_is_read() {
        let places = read("2.0.0.0,2.0.0.255,FR\n1.0.0.0,1.0.0.255,AU\n").unwrap();
        assert_eq!(places.lookup("1.0.0.1".parse().unwrap()).0.country, Country::from_code("AU"));
    }

    #[test]
    fn v4_only_knows_no_v6() {
        let places = read("1.0.0.0,1.0.0.255,AU\n").unwrap();
        let (place, prefix_len) = places.lookup("2001:db8::1".parse().unwrap());
        assert!(place.is_unknown());
        assert_eq!(prefix_len, 0);
    }

    #[test]
    fn errors_name_file_line_and_reason() {
        assert_eq!(
            error("1.0.0.0,1.0.0.255,AU\n1.0.0.9\n"),
            "geoip:2: expected `first,last,country`, found `1.0.0.9`"
        );
        assert!(error("1.0.0.0,0.255.0.0,AU").contains("before it begins"));
        assert!(error("1.0.0.0,2001::,AU").contains("another address family"));
        assert!(error("1.0.0.0,1.0.0.9,AUS").contains("two-letter country code"));
        assert!(error("1.0.0.x,1.0.0.9,AU").contains("expected an address or a number"));
        assert!(error("").contains("no address ranges"));
        assert_eq!(
            error("1.0.0.0,1.0.0.255,AU\n\n1.0.0.128,1.0.1.0,NZ\n"),
            "geoip:3: this range overlaps the one at geoip:1; an address can be in one country only"
        );
    }
}
