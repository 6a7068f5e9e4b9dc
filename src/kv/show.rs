//! What the store says, for people; and its changes as they come.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use daemun_fleet::shorten;
use serde_json::Value;

use super::ask::{Ask, Asker, encoded};
use crate::Failure;
use crate::status::table;

/// A pause before a watch that was cut is taken up again.
const RETRY: Duration = Duration::from_secs(1);
/// The stream says something every ten seconds: one that does not for so long is dead.
const SILENCE: Duration = Duration::from_secs(25);
/// Characters of a JSON value that are shown in a list.
const JSON_SHOWN_MAX: usize = 60;

/// Where a write is.
pub(super) fn places(durable: &Value) -> String {
    let names = |of: &str| {
        let names = durable[of].as_array().map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let mut there = names("remote");
    if durable["local"] == true {
        there.insert(0, "here".to_owned());
    }
    let missing = names("missing");
    let there = if there.is_empty() { "nowhere for sure".to_owned() } else { there.join(", ") };
    match missing.is_empty() {
        true => format!("on the disk {there}"),
        false => format!("on the disk {there}; not known to be in {}", missing.join(", ")),
    }
}

fn value_of(item: &Value) -> String {
    match (&item["value"], &item["base64"]) {
        (Value::String(text), _) if item["kind"] == "text" => shorten(text),
        (Value::Null, Value::String(text)) => format!("base64 {}", shorten(text)),
        (value, _) => cut(&value.to_string()),
    }
}

/// JSON, cut to what a person reads: its quotes stay, what would move a terminal's cursor does not.
fn cut(json: &str) -> String {
    let mut shown: String = json.chars().take(JSON_SHOWN_MAX).filter(|found| !found.is_control()).collect();
    if json.chars().count() > JSON_SHOWN_MAX {
        shown.push('…');
    }
    shown
}

/// A key and what is under it, a line.
pub(super) fn key(item: &Value) -> String {
    let name = item["key"].as_str().unwrap_or_default();
    format!("{name}\t{}\t{}\n", item["kind"].as_str().unwrap_or_default(), value_of(item))
}

fn rows<const N: usize>(head: [&str; N], found: &Value, row: impl Fn(&Value) -> [String; N]) -> String {
    let items = found.as_array().map(Vec::as_slice).unwrap_or_default();
    let head = head.map(ToOwned::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(items.iter().map(row)).collect();
    let mut text = String::new();
    table(&mut text, &rows);
    text
}

fn text_of(item: &Value, name: &str) -> String {
    match &item[name] {
        Value::String(text) => shorten(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn time_of(item: &Value, name: &str) -> String {
    let at = std::time::UNIX_EPOCH + Duration::from_millis(item[name].as_u64().unwrap_or(0));
    humantime::format_rfc3339_seconds(at).to_string()
}

/// What lost.
pub(super) fn conflicts(found: &Value) -> String {
    let empty = found["conflicts"].as_array().is_none_or(Vec::is_empty);
    let mut text = if empty {
        "no conflicts\n".to_owned()
    } else {
        rows(["NUMBER", "AT", "KEY", "LOST", "WON", "VALUE THAT LOST"], &found["conflicts"], |item| {
            let key = format!("{}/{}", text_of(item, "bucket"), text_of(item, "key"));
            let [number, lost, won, value] =
                ["number", "loser", "winner", "value"].map(|name| text_of(item, name));
            [number, time_of(item, "at_unix_ms"), key, lost, won, value]
        })
    };
    if let Some(next) = found["next"].as_u64() {
        let _ = writeln!(text, "older ones: --before {next}");
    }
    if let Some(evicted @ 1..) = found["evicted"].as_u64() {
        let _ = writeln!(text, "{evicted} older ones were let go");
    }
    text
}

/// What waits.
pub(super) fn held(found: &Value) -> String {
    if found["held"].as_array().is_none_or(Vec::is_empty) {
        return "nothing waits\n".to_owned();
    }
    rows(["ORIGIN", "SEQUENCE", "DATACENTER", "DUE", "WHAT", "KEY"], &found["held"], |item| {
        let [origin, sequence, datacenter, op] =
            ["origin", "sequence", "datacenter", "op"].map(|name| text_of(item, name));
        let key = format!("{}/{}", text_of(item, "bucket"), text_of(item, "key"));
        [origin, sequence, datacenter, time_of(item, "due_unix_ms"), op, key]
    })
}

/// Changes as they come; where the stream is cut it is taken up again, at another datacenter if need be.
pub(super) async fn watch(
    ask: &Ask,
    bucket: &str,
    prefix: &str,
    from: Option<String>,
) -> Result<(), Failure> {
    let path = format!("/v1/kv/{}/watch?prefix={}", encoded(bucket), encoded(prefix));
    let asker = Asker::new(ask).await?;
    let (mut id, mut has_begun) = (from, false);
    loop {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(id.as_deref().map(|id| ("last-event-id", id)));
        match asker.stream(&path, &headers).await {
            Ok(mut response) => {
                has_begun = true;
                let mut read = Vec::new();
                while let Ok(Ok(Some(chunk))) = tokio::time::timeout(SILENCE, response.chunk()).await {
                    read.extend_from_slice(&chunk);
                    while let Some(end) = read.windows(2).position(|window| window == b"\n\n") {
                        let block: Vec<u8> = read.drain(..end + 2).collect();
                        tell(&String::from_utf8_lossy(&block), &mut id, ask.json)?;
                    }
                }
                eprintln!("daemun: the watch was cut; going on after the last change that was shown");
            }
            // What is wrong with the question stays wrong.
            Err(Failure::Failed(error)) if has_begun => eprintln!("daemun: {error:#}; trying again"),
            Err(failure) => return Err(failure),
        }
        if id.is_none() {
            return Err(Failure::Failed(anyhow!("the watch was cut before it began: try again")));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Prints an event and remembers its id.
fn tell(block: &str, id: &mut Option<String>, json: bool) -> Result<(), Failure> {
    let of = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if let Some(new) = of("id:") {
        *id = Some(new.to_owned());
    }
    let (Some(name), Some(data)) = (of("event:"), of("data:")) else { return Ok(()) };
    let item: Value = serde_json::from_str(data).unwrap_or_default();
    let line = match name {
        _ if json => {
            let id = id.as_deref().unwrap_or_default();
            format!("{}\n", serde_json::json!({ "event": name, "id": id, "data": item }))
        }
        "put" => format!("put\t{}", key(&item)),
        "delete" => format!("delete\t{}\n", item["key"].as_str().unwrap_or_default()),
        "reset" => {
            eprintln!("daemun: {}", item["error"].as_str().unwrap_or_default());
            return Ok(());
        }
        _ => return Ok(()),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("writing to stdout")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn where_a_write_is_is_said_in_words() {
        let durable = json!({ "local": true, "remote": ["frankfurt"], "missing": ["virginia"] });
        assert_eq!(places(&durable), "on the disk here, frankfurt; not known to be in virginia");
        let durable = json!({ "local": false, "remote": [], "missing": [] });
        assert_eq!(places(&durable), "on the disk nowhere for sure");
    }

    #[test]
    fn keys_and_conflicts_are_lines() {
        assert_eq!(key(&json!({ "key": "a", "kind": "text", "value": "x\ny" })), "a\ttext\tx\\ny\n");
        assert_eq!(key(&json!({ "key": "a", "kind": "json", "value": null })), "a\tjson\tnull\n");
        assert_eq!(key(&json!({ "key": "a", "kind": "bytes", "base64": "/wA=" })), "a\tbytes\tbase64 /wA=\n");
        let one = json!({ "number": 7, "at_unix_ms": 0, "bucket": "b", "key": "k", "loser": "l", "winner": "w", "value": "v" });
        let text = conflicts(&json!({ "conflicts": [one], "next": 7, "evicted": 2 }));
        assert!(
            text.contains("1970-01-01T00:00:00Z") && text.contains("b/k") && text.contains("--before 7"),
            "{text}"
        );
        assert!(text.contains("2 older ones were let go"));
        assert_eq!(conflicts(&json!({ "conflicts": [], "evicted": 0 })), "no conflicts\n");
        assert_eq!(held(&json!({ "held": [] })), "nothing waits\n");
    }
}
