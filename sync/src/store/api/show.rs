//! What is under a key as JSON: the same form in lists, events and answers.

use data_encoding::BASE64;

use super::super::cell::{Cell, Seen};
use super::super::op::{Key, Value};

/// What is under a key, for whoever asks for it alone: the bytes, and their type.
pub fn value(seen: &Seen<'_>) -> (bytes::Bytes, &'static str) {
    match seen {
        Seen::Value(Value { is_json, bytes }) => {
            (bytes.clone(), if *is_json { "application/json" } else { "application/octet-stream" })
        }
        Seen::Counter(_) | Seen::Set(_) => {
            let mut body = Vec::new();
            match seen {
                Seen::Counter(sum) => body.extend(format!("{{\"counter\":{sum}}}").bytes()),
                Seen::Set(elements) => {
                    body.extend(b"{\"set\":");
                    json(&mut body, elements);
                    body.push(b'}');
                }
                Seen::Value(_) => {}
            }
            (body.into(), "application/json")
        }
    }
}

/// Writes a key and what is seen of it: `{"key", "stamp", "kind", "value" or "base64", "expires_unix_ms"}`; with
/// nothing under it, the first two.
pub fn key(body: &mut Vec<u8>, key: &Key, cell: &Cell, seen: Option<&Seen<'_>>, with_value: bool) {
    body.extend(b"{\"key\":");
    json(body, key.name());
    body.extend(format!(",\"stamp\":\"{}\"", cell.newest).bytes());
    if let Some(seen) = seen {
        show(body, seen, with_value);
        let expires = cell.expires_unix_ms();
        if expires > 0 && matches!(seen, Seen::Value(_)) {
            body.extend(format!(",\"expires_unix_ms\":{expires}").bytes());
        }
    }
    body.push(b'}');
}

fn show(body: &mut Vec<u8>, seen: &Seen<'_>, with_value: bool) {
    let text = match seen {
        Seen::Value(Value { is_json: false, bytes }) => std::str::from_utf8(bytes).ok(),
        _ => None,
    };
    let kind = match seen {
        Seen::Value(Value { is_json: true, .. }) => "json",
        Seen::Value(_) if text.is_some() => "text",
        Seen::Value(_) => "bytes",
        Seen::Counter(_) => "counter",
        Seen::Set(_) => "set",
    };
    body.extend(format!(",\"kind\":\"{kind}\"").bytes());
    if !with_value {
        return;
    }
    match (seen, text) {
        (Seen::Value(Value { is_json: true, bytes }), _) => {
            body.extend(b",\"value\":");
            // Between its words JSON may have line ends, which would end an event; within strings it has none.
            body.extend(bytes.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        }
        (Seen::Value(_), Some(text)) => {
            body.extend(b",\"value\":");
            json(body, text);
        }
        (Seen::Value(Value { bytes, .. }), None) => {
            body.extend(b",\"base64\":\"");
            body.extend(BASE64.encode(bytes).bytes());
            body.push(b'"');
        }
        (Seen::Counter(sum), _) => body.extend(format!(",\"value\":{sum}").bytes()),
        (Seen::Set(elements), _) => {
            body.extend(b",\"value\":");
            json(body, elements);
        }
    }
}

/// Writes a value as JSON.
pub(super) fn json<T: serde::Serialize + ?Sized>(body: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(body, value).expect("what is written here can be, and to memory");
}
