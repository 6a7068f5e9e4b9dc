//! SVCB and HTTPS (RFC 9460): priority, target, parameters.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::BASE64;

use super::fields::{Fields, number, unescape, unquoted};
use super::shown;

/// Parameters by their words (section 14.3.2; RFC 9461 for dohpath, RFC 9540 for ohttp).
pub(super) const KEYS: [(&str, u16); 9] = [
    ("mandatory", 0),
    ("alpn", 1),
    ("no-default-alpn", 2),
    ("port", 3),
    ("ipv4hint", 4),
    ("ech", 5),
    ("ipv6hint", 6),
    ("dohpath", 7),
    ("ohttp", 8),
];

/// Reads all fields.
pub(super) fn read(mut fields: Fields<'_>) -> Result<Vec<u8>, String> {
    let priority = fields.u16("a priority")?;
    fields.name()?;
    let mut parameters: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    while let Some(token) = fields.maybe() {
        let (word, value) = match token.split_once('=') {
            Some((word, value)) => (word, Some(unquoted(value))),
            None => (token, None),
        };
        let key = key(word).ok_or_else(|| format!("`{}` is not a parameter", shown(word)))?;
        let value = parameter(key, value).map_err(|reason| format!("{}: {reason}", shown(word)))?;
        if parameters.insert(key, value).is_some() {
            return Err(format!("`{}` stands here twice", shown(word)));
        }
    }
    if priority == 0 && !parameters.is_empty() {
        return Err(
            "with priority 0 it is an alias, which has no parameters (RFC 9460 section 2.4.2)".to_owned()
        );
    }
    check(&parameters)?;
    for (key, value) in parameters {
        let length = u16::try_from(value.len()).map_err(|_| "a parameter is too long".to_owned())?;
        fields.put(&key.to_be_bytes());
        fields.put(&length.to_be_bytes());
        fields.put(&value);
    }
    fields.into_bytes()
}

/// What holds between parameters (sections 7.1.1 and 8).
fn check(parameters: &BTreeMap<u16, Vec<u8>>) -> Result<(), String> {
    if parameters.contains_key(&2) && !parameters.contains_key(&1) {
        return Err("no-default-alpn needs alpn".to_owned());
    }
    let mandatory = parameters.get(&0).map(Vec::as_slice).unwrap_or_default();
    for pair in mandatory.chunks_exact(2) {
        let key = u16::from_be_bytes([pair[0], pair[1]]);
        if !parameters.contains_key(&key) {
            return Err(format!("mandatory names parameter {key}, which is not there"));
        }
    }
    Ok(())
}

fn key(word: &str) -> Option<u16> {
    let by_word = KEYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word));
    let by_number = || word.strip_prefix("key").and_then(number);
    by_word.map(|&(_, key)| key).or_else(by_number)
}

fn parameter(key_number: u16, value: Option<&str>) -> Result<Vec<u8>, String> {
    let needed = || value.ok_or_else(|| "needs a value".to_owned());
    let each = |text: &str, read: &dyn Fn(&str) -> Option<Vec<u8>>| -> Result<Vec<u8>, String> {
        let items = text
            .split(',')
            .map(|item| read(item).ok_or_else(|| format!("`{}` is not what it may hold", shown(item))));
        Ok(items.collect::<Result<Vec<_>, _>>()?.concat())
    };
    match key_number {
        0 => {
            let mut keys: Vec<u16> = Vec::new();
            for word in needed()?.split(',') {
                let found = key(word).filter(|found| *found != 0 && !keys.contains(found));
                keys.push(found.ok_or_else(|| format!("`{}` cannot be mandatory", shown(word)))?);
            }
            keys.sort_unstable();
            Ok(keys.iter().flat_map(|key| key.to_be_bytes()).collect())
        }
        1 => alpn(needed()?),
        2 | 8 => match value {
            None => Ok(Vec::new()),
            Some(_) => Err("has no value".to_owned()),
        },
        3 => {
            let port: u16 = number(needed()?).ok_or("expected a port")?;
            Ok(port.to_be_bytes().to_vec())
        }
        4 => each(needed()?, &|item| Some(item.parse::<Ipv4Addr>().ok()?.octets().to_vec())),
        5 => BASE64.decode(needed()?.as_bytes()).map_err(|_| "expected base64".to_owned()),
        6 => each(needed()?, &|item| Some(item.parse::<Ipv6Addr>().ok()?.octets().to_vec())),
        _ => Ok(unescape(value.unwrap_or_default())?.into_iter().map(|(byte, _)| byte).collect()),
    }
}

/// Protocols between commas; a comma or backslash within one is escaped once more than in other texts (appendix A.1).
fn alpn(text: &str) -> Result<Vec<u8>, String> {
    let mut protocols: Vec<Vec<u8>> = vec![Vec::new()];
    let mut bytes = unescape(text)?.into_iter().map(|(byte, _)| byte);
    while let Some(byte) = bytes.next() {
        let last = protocols.last_mut().expect("begins with one, and only grows");
        match byte {
            b',' => protocols.push(Vec::new()),
            b'\\' => last.push(bytes.next().ok_or("a `\\` at the end")?),
            byte => last.push(byte),
        }
    }
    let mut wire = Vec::new();
    for protocol in protocols {
        let length = u8::try_from(protocol.len()).ok().filter(|length| *length > 0);
        wire.push(length.ok_or("a protocol has 1 to 255 bytes")?);
        wire.extend(protocol);
    }
    Ok(wire)
}
