//! Record data from its presentation form: the tokens of a master file's entry to the bytes of RDATA, and these to the
//! library's type for it. Reading them here, not by the library, gives one meaning of escapes and of `@`, every common
//! type, and an error that says which token was wrong. Types that are not known are written `\# LENGTH HEX` (RFC 3597).

mod fields;
mod loc;
mod present;
mod svcb;

use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable as _, BinEncoder, NameEncoding, Restrict};

use crate::answer::is_no_data;
use fields::{Field, Fields};

pub use fields::absolute_name;
pub(crate) use fields::{domain_name, shown, time_to_live};
pub(crate) use present::{name_text, present};

/// Types that the library has no word for, by the word in master files.
const MORE_TYPES: [(&str, u16); 9] = [
    ("AFSDB", 18),
    ("DNAME", DNAME),
    ("EUI48", 108),
    ("EUI64", 109),
    ("KX", 36),
    ("LOC", 29),
    ("RP", 17),
    ("SPF", 99),
    ("URI", 256),
];

/// DNAME (RFC 6672), which makes records of other names.
const DNAME: u16 = 39;

/// The type that a word means, as in a master file: `TYPE65280` too (RFC 3597).
///
/// # Errors
/// What was expected, and what to write in the place of types that are not served.
pub fn type_of(word: &str) -> Result<RecordType, String> {
    let upper = word.to_ascii_uppercase();
    let numbered = upper.strip_prefix("TYPE").and_then(fields::number::<u16>);
    let more = MORE_TYPES.iter().find(|(name, _)| *name == upper).map(|&(_, number)| number);
    let found = match numbered.or(more) {
        Some(number) => RecordType::from(number),
        None => upper.parse().map_err(|_| not_a_type(word))?,
    };
    match found {
        RecordType::ANAME => {
            Err("ANAME is not served: an apex with addresses of a name elsewhere is a name to steer"
                .to_owned())
        }
        found if u16::from(found) == DNAME => {
            Err("DNAME is not served: write a wildcard CNAME, or delegate the name".to_owned())
        }
        found if is_no_data(found) || found == RecordType::ANY => match numbered {
            Some(number) => Err(format!("records of type {number} are for messages, not for zones")),
            None => Err(not_a_type(word)),
        },
        found => Ok(found),
    }
}

fn not_a_type(word: &str) -> String {
    format!("expected a record type such as A or TXT, found `{}`", shown(word))
}

/// The word for a type in messages and answers.
pub(crate) fn type_name(record_type: RecordType) -> String {
    let number = u16::from(record_type);
    match MORE_TYPES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => (*name).to_owned(),
        None if matches!(record_type, RecordType::Unknown(_)) => format!("TYPE{number}"),
        None => record_type.to_string(),
    }
}

/// Record data from its tokens, names relative to `origin`.
///
/// # Errors
/// Which token is wrong and what was expected.
pub(crate) fn record_data(record_type: RecordType, tokens: &[&str], origin: &Name) -> Result<RData, String> {
    let kind = type_name(record_type);
    if tokens.is_empty() {
        return Err(format!("the {kind} record has no data"));
    }
    let wrong =
        |reason: String| format!("not the data of a {kind} record: `{}`: {reason}", shown(&tokens.join(" ")));
    let bytes = match tokens {
        ["\\#", rest @ ..] => generic(rest).map_err(wrong)?,
        _ => plain(record_type, tokens, origin).map_err(wrong)?,
    };
    typed(record_type, &bytes).map_err(wrong)
}

/// The library's data of these bytes; where it would write them otherwise than they are, the bytes.
fn typed(record_type: RecordType, bytes: &[u8]) -> Result<RData, String> {
    if bytes.is_empty() && layout(record_type).is_some() {
        return Err("it has no data".to_owned());
    }
    let length = u16::try_from(bytes.len())
        .map_err(|_| format!("{} bytes of data: a record holds at most 65535", bytes.len()))?;
    let data = RData::read(&mut BinDecoder::new(bytes), record_type, Restrict::new(length))
        .map_err(|error| error.to_string())?;
    let is_same = uncompressed(&data) == bytes;
    Ok(if is_same { data } else { RData::Unknown { code: record_type, rdata: NULL::with(bytes.to_vec()) } })
}

/// The bytes of record data, names in full.
pub(crate) fn uncompressed(data: &RData) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    // What cannot be written is empty, and equal to nothing that was read.
    if data.emit(&mut encoder).is_err() { Vec::new() } else { bytes }
}

/// `\# LENGTH HEX…` (RFC 3597 section 5).
fn generic(tokens: &[&str]) -> Result<Vec<u8>, String> {
    let wrong = || "expected `\\# LENGTH HEX`, the hexadecimal digits being twice the length".to_owned();
    let (length, hex) = tokens.split_first().ok_or_else(wrong)?;
    let length: u16 = fields::number(length).ok_or_else(wrong)?;
    let bytes = fields::hex(&hex.concat()).ok_or_else(wrong)?;
    if bytes.len() == usize::from(length) { Ok(bytes) } else { Err(wrong()) }
}

/// The data of a type whose fields are known.
fn plain(record_type: RecordType, tokens: &[&str], origin: &Name) -> Result<Vec<u8>, String> {
    match u16::from(record_type) {
        29 => return loc::read(tokens),
        64 | 65 => return svcb::read(Fields::new(tokens, origin)),
        _ => {}
    }
    let layout = layout(record_type)
        .ok_or_else(|| "its fields are not known here: write it as `\\# LENGTH HEX`".to_owned())?;
    let mut fields = Fields::new(tokens, origin);
    for field in layout {
        fields.read(*field)?;
    }
    fields.into_bytes()
}

/// The fields of a type, in the order of its RFC.
fn layout(record_type: RecordType) -> Option<&'static [Field]> {
    use Field::{
        Algorithm, Base64, Hex, Ipv4, Ipv6, Name, Tag, Target, Text, TextRest, Texts, Time, U8, U16, U32,
    };
    Some(match u16::from(record_type) {
        1 => &[Ipv4],                                                          // A (RFC 1035)
        28 => &[Ipv6],                                                         // AAAA (RFC 3596)
        2 | 5 | 12 => &[Name],                                                 // NS, CNAME, PTR (RFC 1035)
        6 => &[Name, Name, U32("a serial"), Time, Time, Time, Time],           // SOA (RFC 1035)
        13 => &[Text, Text],                                                   // HINFO (RFC 1035)
        15 | 18 | 36 => &[U16("a preference"), Name],                          // MX, AFSDB, KX
        16 | 99 => &[Texts], // TXT (RFC 1035), SPF (RFC 7208)
        17 => &[Name, Name], // RP (RFC 1183)
        33 => &[U16("a priority"), U16("a weight"), U16("a port"), Name], // SRV (RFC 2782)
        35 => &[U16("an order"), U16("a preference"), Text, Text, Text, Name], // NAPTR (RFC 3403)
        43 | 59 => &[U16("a key tag"), Algorithm, U8("a digest type"), Hex], // DS, CDS (RFC 4034)
        44 => &[U8("an algorithm"), U8("a fingerprint type"), Hex], // SSHFP (RFC 4255)
        48 | 60 => &[U16("flags"), U8("a protocol, 3"), Algorithm, Base64], // DNSKEY, CDNSKEY (RFC 4034)
        // TLSA (RFC 6698), SMIMEA (RFC 8162)
        52 | 53 => &[U8("a usage"), U8("a selector"), U8("a matching type"), Hex],
        61 => &[Base64],                                      // OPENPGPKEY (RFC 7929)
        256 => &[U16("a priority"), U16("a weight"), Target], // URI (RFC 7553)
        257 => &[U8("flags"), Tag, TextRest],                 // CAA (RFC 8659)
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
