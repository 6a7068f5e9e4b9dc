//! What `curl` shows.

use std::process::Command;

use crate::fleet::{needs, text};

/// Status, head in lower case, body.
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    /// A header's value; nothing if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_default()
    }
}

/// Asks as it is told; none: there is no answer.
pub(crate) fn curl(arguments: &[&str]) -> Option<Seen> {
    needs("/usr/bin/curl", "curl");
    let quiet = ["-sS", "-D", "-", "--max-time", "5", "--path-as-is"];
    let output = Command::new("curl").args(quiet).args(arguments).output().unwrap();
    let shown = output.status.success().then(|| text(&output.stdout))?;
    let (head, body) = shown.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Seen { status, head: head.to_lowercase().replace('\r', ""), body: body.to_owned() })
}
