//! Record data as master files write it: the way back from the bytes of RDATA, by the same layouts.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::{BASE64, HEXLOWER};
use hickory_proto::rr::{Name, RecordType};

use super::fields::Field;
use super::layout;
use super::svcb::KEYS;

/// A name, absolute, with `\DDD` and `\X` where needed (RFC 1035 section 5.1).
pub(crate) fn name_text(name: &Name) -> String {
    labels_text(name.iter())
}

fn labels_text<'a>(labels: impl Iterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for label in labels {
        for &byte in label {
            push_escaped(&mut text, byte, b".\\\"();@$", b'!');
        }
        text.push('.');
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// The data of a record; what is of no known form as `\# LENGTH HEX` (RFC 3597).
pub(crate) fn present(record_type: RecordType, bytes: &[u8]) -> String {
    let mut reader = Reader { bytes };
    let text = match u16::from(record_type) {
        64 | 65 => reader.service(),
        _ => layout(record_type).and_then(|layout| reader.fields(layout)),
    };
    text.filter(|_| reader.bytes.is_empty()).unwrap_or_else(|| {
        let hex = HEXLOWER.encode(bytes);
        format!("\\# {} {hex}", bytes.len()).trim_end().to_owned()
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn fields(&mut self, layout: &[Field]) -> Option<String> {
        let parts = layout.iter().map(|field| self.field(*field)).collect::<Option<Vec<_>>>()?;
        Some(parts.join(" "))
    }

    fn field(&mut self, field: Field) -> Option<String> {
        Some(match field {
            Field::Ipv4 => Ipv4Addr::from(*self.array::<4>()?).to_string(),
            Field::Ipv6 => Ipv6Addr::from(*self.array::<16>()?).to_string(),
            Field::Name => self.name()?,
            Field::U8(_) | Field::Algorithm => self.array::<1>()?[0].to_string(),
            Field::U16(_) => u16::from_be_bytes(*self.array()?).to_string(),
            Field::U32(_) | Field::Time => u32::from_be_bytes(*self.array()?).to_string(),
            Field::Text => quoted(self.string()?),
            Field::Texts => {
                let mut texts = vec![quoted(self.string()?)];
                while !self.bytes.is_empty() {
                    texts.push(quoted(self.string()?));
                }
                texts.join(" ")
            }
            Field::Tag => String::from_utf8(self.string()?.to_vec()).ok()?,
            Field::TextRest | Field::Target => quoted(self.rest()),
            Field::Hex => HEXLOWER.encode(self.rest()),
            Field::Base64 => BASE64.encode(self.rest()),
        })
    }

    /// Priority, target, parameters (RFC 9460 section 2.1).
    fn service(&mut self) -> Option<String> {
        let mut text = format!("{} {}", u16::from_be_bytes(*self.array()?), self.name()?);
        while !self.bytes.is_empty() {
            let key = u16::from_be_bytes(*self.array()?);
            let length = usize::from(u16::from_be_bytes(*self.array()?));
            let value = self.take(length)?;
            let _ = write!(text, " {}", key_word(key));
            let shown = Reader { bytes: value }.parameter(key)?;
            if !shown.is_empty() {
                let _ = write!(text, "={shown}");
            }
        }
        Some(text)
    }

    fn parameter(mut self, key: u16) -> Option<String> {
        let mut items: Vec<String> = Vec::new();
        match key {
            0 | 1 | 4 | 6 => {
                while !self.bytes.is_empty() {
                    items.push(match key {
                        0 => key_word(u16::from_be_bytes(*self.array()?)),
                        1 => protocol(self.string()?),
                        4 => Ipv4Addr::from(*self.array::<4>()?).to_string(),
                        _ => Ipv6Addr::from(*self.array::<16>()?).to_string(),
                    });
                }
                let list = items.join(",");
                return Some(if list.contains('\\') { format!("\"{list}\"") } else { list });
            }
            3 => return Some(u16::from_be_bytes(*self.array()?).to_string()),
            5 => return Some(BASE64.encode(self.rest())),
            _ => {}
        }
        Some(if self.bytes.is_empty() { String::new() } else { quoted(self.rest()) })
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.array::<1>()?[0];
        self.take(length.into())
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// A name as it stands in data that is not compressed.
    fn name(&mut self) -> Option<String> {
        let mut labels = Vec::new();
        loop {
            match self.string()? {
                [] => return Some(labels_text(labels.into_iter())),
                label => labels.push(label),
            }
        }
    }
}

fn key_word(key: u16) -> String {
    let known = KEYS.iter().find(|(_, known)| *known == key);
    known.map_or_else(|| format!("key{key}"), |(word, _)| (*word).to_owned())
}

/// A protocol within a list: commas and backslashes are escaped once for the list and once for the text (appendix A.1).
fn protocol(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if matches!(byte, b',' | b'\\') {
            push_escaped(&mut text, b'\\', TEXT_SIGNS, b'!');
        }
        push_escaped(&mut text, byte, TEXT_SIGNS, b'!');
    }
    text
}

fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        push_escaped(&mut text, byte, TEXT_SIGNS, b' ');
    }
    text.push('"');
    text
}

/// What ends a text, or escapes in it.
const TEXT_SIGNS: &[u8] = b"\"\\";

/// A byte as it is from `first` to `~`, a sign behind a backslash, any other by its number (RFC 1035 section 5.1).
fn push_escaped(text: &mut String, byte: u8, signs: &[u8], first: u8) {
    if signs.contains(&byte) {
        text.push('\\');
    }
    if (first..=b'~').contains(&byte) {
        text.push(char::from(byte));
    } else {
        let _ = write!(text, "\\{byte:03}");
    }
}
