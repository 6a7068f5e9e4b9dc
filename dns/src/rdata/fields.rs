//! The fields of record data, one token after the other.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder, NameEncoding};
use hickory_proto::serialize::txt::parse_ttl;

/// RFC 1035 section 2.3.4.
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 255;

/// Algorithms of DNSSEC by their words (RFC 8624).
const ALGORITHMS: [(&str, u8); 8] = [
    ("RSASHA1", 5),
    ("RSASHA1-NSEC3-SHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
];

/// A kind of field, with the word for it where numbers need one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Ipv4,
    Ipv6,
    Name,
    U8(&'static str),
    U16(&'static str),
    U32(&'static str),
    /// Seconds, or units such as `1h30m`.
    Time,
    /// A text of at most 255 bytes.
    Text,
    /// One such text or more.
    Texts,
    /// A text to the end of the data, of any length.
    TextRest,
    /// The same, not empty.
    Target,
    /// A property of CAA.
    Tag,
    /// An algorithm of DNSSEC.
    Algorithm,
    /// Hexadecimal digits to the end.
    Hex,
    /// Base64 to the end.
    Base64,
}

/// Tokens that are read, and the bytes that they make.
pub(super) struct Fields<'a> {
    tokens: std::slice::Iter<'a, &'a str>,
    origin: &'a Name,
    bytes: Vec<u8>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(tokens: &'a [&'a str], origin: &'a Name) -> Self {
        Self { tokens: tokens.iter(), origin, bytes: Vec::new() }
    }

    /// The bytes, if no token is left.
    pub(super) fn into_bytes(mut self) -> Result<Vec<u8>, String> {
        match self.tokens.next() {
            Some(more) => Err(format!("`{}` is more than was expected", shown(more))),
            None => Ok(self.bytes),
        }
    }

    /// Reads a field of a kind.
    pub(super) fn read(&mut self, field: Field) -> Result<(), String> {
        match field {
            Field::Ipv4 => self.ipv4(),
            Field::Ipv6 => self.ipv6(),
            Field::Name => self.name().map(|_| ()),
            Field::U8(what) => self.u8(what),
            Field::U16(what) => self.u16(what).map(|_| ()),
            Field::U32(what) => self.u32(what),
            Field::Time => self.time(),
            Field::Text => self.string(),
            Field::Texts => self.strings(),
            Field::TextRest => self.text_rest(true),
            Field::Target => self.text_rest(false),
            Field::Tag => self.tag(),
            Field::Algorithm => self.algorithm(),
            Field::Hex => self.hex_rest(),
            Field::Base64 => self.base64_rest(),
        }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    fn next(&mut self, expected: &str) -> Result<&'a str, String> {
        self.tokens.next().copied().ok_or_else(|| format!("expected {expected}, found the end"))
    }

    /// The next token, if there is one.
    pub(super) fn maybe(&mut self) -> Option<&'a str> {
        self.tokens.next().copied()
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str, most: &str) -> Result<T, String> {
        let token = self.next(what)?;
        number(token).ok_or_else(|| format!("expected {what} from 0 to {most}, found `{}`", shown(token)))
    }

    fn u8(&mut self, what: &str) -> Result<(), String> {
        let number: u8 = self.number(what, "255")?;
        self.bytes.push(number);
        Ok(())
    }

    pub(super) fn u16(&mut self, what: &str) -> Result<u16, String> {
        let number: u16 = self.number(what, "65535")?;
        self.put(&number.to_be_bytes());
        Ok(number)
    }

    fn u32(&mut self, what: &str) -> Result<(), String> {
        let number: u32 = self.number(what, "4294967295")?;
        self.put(&number.to_be_bytes());
        Ok(())
    }

    /// Seconds, or units such as `1h30m`.
    fn time(&mut self) -> Result<(), String> {
        let seconds = time_to_live(self.next("a time")?)?;
        self.put(&seconds.to_be_bytes());
        Ok(())
    }

    fn ipv4(&mut self) -> Result<(), String> {
        let token = self.next("an IPv4 address")?;
        let address: std::net::Ipv4Addr =
            token.parse().map_err(|_| format!("expected an IPv4 address, found `{}`", shown(token)))?;
        self.put(&address.octets());
        Ok(())
    }

    fn ipv6(&mut self) -> Result<(), String> {
        let token = self.next("an IPv6 address")?;
        let address: std::net::Ipv6Addr =
            token.parse().map_err(|_| format!("expected an IPv6 address, found `{}`", shown(token)))?;
        self.put(&address.octets());
        Ok(())
    }

    pub(super) fn name(&mut self) -> Result<Name, String> {
        let name = domain_name(self.next("a domain name")?, self.origin)?;
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_name_encoding(NameEncoding::Uncompressed);
        name.emit(&mut encoder).map_err(|error| error.to_string())?;
        self.bytes.extend(bytes);
        Ok(name)
    }

    fn string(&mut self) -> Result<(), String> {
        let bytes = character_string(self.next("a text")?)?;
        self.bytes.push(bytes.len() as u8); // at most 255
        self.put(&bytes);
        Ok(())
    }

    /// One text or more.
    fn strings(&mut self) -> Result<(), String> {
        self.string()?;
        while self.tokens.len() > 0 {
            self.string()?;
        }
        Ok(())
    }

    /// A text to the end of the data, of any length.
    fn text_rest(&mut self, may_be_empty: bool) -> Result<(), String> {
        let bytes = text(self.next("a text")?)?;
        if bytes.is_empty() && !may_be_empty {
            return Err("the text is empty".to_owned());
        }
        self.put(&bytes);
        Ok(())
    }

    /// A property of CAA: letters and digits (RFC 8659 section 4.1).
    fn tag(&mut self) -> Result<(), String> {
        let token = self.next("a property such as issue")?;
        if token.len() > 255 || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("expected a property such as issue, found `{}`", shown(token)));
        }
        self.bytes.push(token.len() as u8);
        self.put(token.as_bytes());
        Ok(())
    }

    fn algorithm(&mut self) -> Result<(), String> {
        let token = self.next("an algorithm")?;
        let by_word = ALGORITHMS.iter().find(|(word, _)| word.eq_ignore_ascii_case(token));
        let number = by_word.map(|&(_, number)| number).or_else(|| self::number(token));
        self.bytes.push(number.ok_or_else(|| {
            format!("expected the number of an algorithm or a word such as ED25519, found `{}`", shown(token))
        })?);
        Ok(())
    }

    fn rest(&mut self) -> String {
        self.tokens.by_ref().copied().collect()
    }

    fn hex_rest(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let bytes = hex(&rest).filter(|bytes| !bytes.is_empty());
        let bytes = bytes.ok_or_else(|| format!("expected hexadecimal digits, found `{}`", shown(&rest)))?;
        self.put(&bytes);
        Ok(())
    }

    fn base64_rest(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let bytes = BASE64.decode(rest.as_bytes()).ok().filter(|bytes| !bytes.is_empty());
        let bytes = bytes.ok_or_else(|| format!("expected base64, found `{}`", shown(&rest)))?;
        self.put(&bytes);
        Ok(())
    }
}

pub(crate) fn shown(text: &str) -> String {
    daemun_fleet::shorten(text)
}

/// A number of decimal digits: `+5` is one to Rust only.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Bytes of pairs of hexadecimal digits.
pub(super) fn hex(digits: &str) -> Option<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()
}

/// Seconds, or units such as `1h30m`; at most 2^31 - 1 (RFC 2181 section 8).
pub(crate) fn time_to_live(text: &str) -> Result<u32, String> {
    match parse_ttl(text) {
        Ok(ttl) if i32::try_from(ttl).is_ok() => Ok(ttl),
        Ok(_) => Err(format!("a time to live is at most 2147483647 seconds, found `{}`", shown(text))),
        Err(_) => Err(format!("expected a time to live, found `{}`", shown(text))),
    }
}

/// A domain name as master files write it: `@` is the origin, a name without a dot at its end is below it, `\DDD` is a
/// decimal byte, `\X` is X (RFC 1035 section 5.1). Any byte may stand in a label (RFC 2181 section 11).
pub(crate) fn domain_name(text: &str, origin: &Name) -> Result<Name, String> {
    let wrong = |reason: &str| format!("`{}` is not a domain name: {reason}", shown(text));
    if text == "@" {
        return Ok(origin.clone());
    }
    if text == "." {
        return Ok(Name::root());
    }
    if text.starts_with('"') {
        return Err(wrong("quotes are for texts"));
    }
    let mut labels: Vec<Vec<u8>> = vec![Vec::new()];
    for (byte, is_escaped) in unescape(text).map_err(|reason| wrong(&reason))? {
        match (byte, labels.last_mut()) {
            (b'.', _) if !is_escaped => labels.push(Vec::new()),
            (byte, Some(label)) => label.push(byte),
            (_, None) => {}
        }
    }
    let is_whole = labels.last().is_some_and(Vec::is_empty) && labels.pop().is_some();
    if labels.iter().any(Vec::is_empty) {
        return Err(wrong("a label is empty"));
    }
    let tail = if is_whole { Vec::new() } else { origin.iter().map(<[u8]>::to_vec).collect() };
    if let Some(long) = labels.iter().find(|label| label.len() > LABEL_BYTES_MAX) {
        return Err(wrong(&format!("a label has {} bytes; at most {LABEL_BYTES_MAX} may be", long.len())));
    }
    let bytes = 1 + labels.iter().chain(&tail).map(|label| label.len() + 1).sum::<usize>();
    if bytes > NAME_BYTES_MAX {
        return Err(wrong(&format!("with its origin it has {bytes} bytes; at most {NAME_BYTES_MAX} may be")));
    }
    let all = labels.iter().chain(&tail).map(Vec::as_slice);
    let mut name = Name::from_labels(all).map_err(|error| wrong(&error.to_string()))?;
    name.set_fqdn(true);
    Ok(name)
}

/// A domain name as master files write it, taken as whole with or without its last dot.
///
/// # Errors
/// Why it is none.
pub fn absolute_name(text: &str) -> Result<Name, String> {
    domain_name(text, &Name::root())
}

/// Bytes of a token, and whether each was escaped.
pub(super) fn unescape(text: &str) -> Result<Vec<(u8, bool)>, String> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push((*first, false));
            continue;
        }
        match after {
            [a, b, c, after @ ..] if a.is_ascii_digit() && b.is_ascii_digit() && c.is_ascii_digit() => {
                let number = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
                let byte = u8::try_from(number).map_err(|_| format!("\\{number} is more than a byte"))?;
                bytes.push((byte, true));
                rest = after;
            }
            [byte, after @ ..] if !byte.is_ascii_digit() => {
                bytes.push((*byte, true));
                rest = after;
            }
            _ => return Err("a `\\` needs three digits or a character after it".to_owned()),
        }
    }
    Ok(bytes)
}

/// A token's inside, without its quotes.
pub(super) fn unquoted(token: &str) -> &str {
    token.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(token)
}

fn text(token: &str) -> Result<Vec<u8>, String> {
    Ok(unescape(unquoted(token))?.into_iter().map(|(byte, _)| byte).collect())
}

/// A character-string: at most 255 bytes (RFC 1035 section 3.3).
fn character_string(token: &str) -> Result<Vec<u8>, String> {
    let bytes = text(token)?;
    if bytes.len() > usize::from(u8::MAX) {
        return Err(format!(
            "a text of {} bytes: at most 255 fit; write several, each in quotes",
            bytes.len()
        ));
    }
    Ok(bytes)
}
