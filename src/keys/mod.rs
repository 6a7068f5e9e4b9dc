//! `daemun keys`: the fleet's own authority and the certificates by which agents know each other. It works on files in a
//! directory, which is best kept off the machines that serve: whoever has `ca.key` can be any datacenter.

pub(crate) mod make;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use daemun_fleet::config::is_name;
use daemun_sync::keys::{self, CertificateInfo, PemFile};
use serde::Serialize;

use crate::{Failure, clock};
use make::{Authorities, CA, CA_KEY, CA_KEY_OLD, CERTIFICATE, DAY_SECONDS, KEY};

/// From here on a certificate that ends is spoken of: time for a person to be back from leave.
const WARN_DAYS: u64 = 30;

/// The fleet's certificates.
#[derive(Args)]
pub(crate) struct KeysArguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make the fleet's authority, once; keep its key safe
    Init {
        /// Name of the fleet, as `fleet.name` in the config has it
        #[arg(long, value_name = "NAME", value_parser = name)]
        fleet: String,
        #[command(flatten)]
        place: Place,
    },
    /// Make the certificate and the key of a datacenter's agents
    Issue {
        /// Name of the datacenter, as the config has it
        #[arg(value_name = "DATACENTER", value_parser = name)]
        datacenter: String,
        #[command(flatten)]
        place: Place,
        /// How long it is valid
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
    },
    /// Make a new authority; the old one is still trusted until --finish
    Rotate {
        #[command(flatten)]
        place: Place,
        /// Trust the old one no longer: once every datacenter has a certificate of the new one
        #[arg(long)]
        finish: bool,
    },
    /// Show every certificate and when it ends
    Show {
        #[command(flatten)]
        place: Place,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Place {
    /// Where the authority is, and a directory for each datacenter
    #[arg(long, value_name = "DIRECTORY", default_value = "keys")]
    directory: PathBuf,
}

fn name(text: &str) -> Result<String, String> {
    let expected =
        || "expected 1 to 63 lower-case letters, digits and inner hyphens, as in the config".to_owned();
    is_name(text).then(|| text.to_owned()).ok_or_else(expected)
}

pub(crate) fn keys(arguments: &KeysArguments) -> Result<(), Failure> {
    let now_unix_s = clock::unix_ms() / 1000;
    let said = match &arguments.verb {
        Verb::Init { fleet, place } => {
            make::init(&place.directory, fleet, now_unix_s)?;
            after_init(&place.directory, fleet)
        }
        Verb::Issue { datacenter, place, days } => {
            let issued = make::issue(&place.directory, datacenter, *days, now_unix_s)?;
            after_issue(&place.directory, datacenter, &issued)
        }
        Verb::Rotate { place, finish: false } => {
            make::rotate(&place.directory, now_unix_s)?;
            after_rotate(&place.directory)
        }
        Verb::Rotate { place, finish: true } => {
            make::finish(&place.directory)?;
            after_finish(&place.directory)
        }
        Verb::Show { place, json } => {
            let shown = show(&place.directory, now_unix_s)?;
            match json {
                true => serde_json::to_string_pretty(&shown).map_err(anyhow::Error::from)? + "\n",
                false => table(&shown),
            }
        }
    };
    print!("{said}");
    Ok(())
}

fn after_init(directory: &Path, fleet: &str) -> String {
    let directory = directory.display();
    format!(
        "The authority of fleet {fleet} is made:\n  \
         {directory}/{CA}   is copied to every machine\n  \
         {directory}/{CA_KEY}   stays here, and safe: whoever has it can be any datacenter\n\
         Next, for each datacenter: daemun keys issue DATACENTER --directory {directory}\n"
    )
}

fn after_issue(directory: &Path, datacenter: &str, issued: &make::Issued) -> String {
    let (own, directory) = (issued.directory.display(), directory.display());
    format!(
        "The keys of {datacenter}, until {}. Copy to its machines, where the config has `sync.certificate`, `sync.key` and \
         `sync.ca`:\n  \
         {own}/{CERTIFICATE}   to keys/{CERTIFICATE} beside daemun.toml\n  \
         {own}/{KEY}   to keys/{KEY}, readable by daemun alone\n  \
         {directory}/{CA}   to keys/{CA}\n\
         A daemun that runs takes them over by itself; under the systemd units, which hand them over at start, restart it.\n",
        date(issued.keys.expires_unix_s())
    )
}

fn after_rotate(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "There is a new authority; the old one is still trusted, its key is now {directory}/{CA_KEY_OLD}. In this order:\n  \
         1. copy {directory}/{CA}, which holds both, to every machine, and wait for `daemun status` to be without complaints\n  \
         2. daemun keys issue DATACENTER --directory {directory}, for each, and copy its keys to its machines\n  \
         3. daemun keys rotate --finish --directory {directory}, and copy {directory}/{CA} again\n"
    )
}

fn after_finish(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "Only the new authority is left in {directory}/{CA}: copy it to every machine. {directory}/{CA_KEY_OLD} is of no \
         use any more.\n"
    )
}

/// A certificate that was found.
#[derive(Debug, Serialize)]
struct Shown {
    /// Its file.
    file: String,
    /// `authority`, or the datacenter it is for.
    subject: String,
    /// Whether it is an authority.
    is_authority: bool,
    /// SHA-256 of it.
    fingerprint: String,
    /// SHA-256 of the authority that signed it; none if that is not trusted.
    authority: Option<String>,
    /// When it ends.
    not_after_unix_s: u64,
    /// The same as a date, UTC.
    valid_until: String,
    /// Days until then; negative after it.
    days_left: i64,
    /// What is to be done about it.
    warning: Option<String>,
}

fn show(directory: &Path, now_unix_s: u64) -> anyhow::Result<Vec<Shown>> {
    let authorities = Authorities::read(directory)?;
    let mut shown = Vec::new();
    for (number, info) in authorities.infos.iter().enumerate() {
        let subject = format!("authority of {}", info.fleet().unwrap_or(&info.common_name));
        let mut one = describe(&authorities.path, subject, info, Some(info), now_unix_s);
        if number > 0 {
            one.warning.get_or_insert_with(|| "old: `daemun keys rotate --finish` drops it".to_owned());
        }
        shown.push(one);
    }
    let here = directory.join(CERTIFICATE);
    let mut paths: Vec<PathBuf> = make::issued(directory)?.into_iter().map(|(_, path)| path).collect();
    paths.extend(here.is_file().then_some(here));
    for path in paths {
        let file = path.display().to_string();
        let bytes = std::fs::read(&path).map_err(|error| anyhow::anyhow!("reading {file}: {error}"))?;
        let chain = keys::certificates(PemFile { name: &file, bytes: &bytes })?;
        let info = CertificateInfo::read(&chain[0]).map_err(|error| anyhow::anyhow!("{file}: {error}"))?;
        let of_fleet = keys::datacenter_in(&chain[0], &authorities.fleet);
        let subject = of_fleet.clone().unwrap_or_else(|| info.names.join(", "));
        let signer = keys::signer(&chain, &authorities.certificates).map(|at| &authorities.infos[at]);
        let mut one = describe(&path, subject, &info, signer, now_unix_s);
        if of_fleet.is_none() || signer.is_none() {
            one.warning = Some("the fleet refuses it: `daemun keys issue` makes a new one".to_owned());
        }
        shown.push(one);
    }
    Ok(shown)
}

fn describe(
    path: &Path,
    subject: String,
    info: &CertificateInfo,
    signer: Option<&CertificateInfo>,
    now_unix_s: u64,
) -> Shown {
    let make = if info.is_authority { "daemun keys rotate" } else { "daemun keys issue" };
    let left = i64::try_from(info.not_after_unix_s).unwrap_or(i64::MAX).saturating_sub_unsigned(now_unix_s);
    Shown {
        file: path.display().to_string(),
        subject,
        is_authority: info.is_authority,
        fingerprint: info.fingerprint.clone(),
        authority: signer.map(|signer| signer.fingerprint.clone()),
        not_after_unix_s: info.not_after_unix_s,
        valid_until: date(info.not_after_unix_s),
        days_left: left.div_euclid(DAY_SECONDS as i64),
        warning: ends(info, now_unix_s).map(|ends| format!("{ends}: `{make}` makes a new one")),
    }
}

fn table(shown: &[Shown]) -> String {
    let mut rows = vec![["SUBJECT", "VALID UNTIL", "DAYS", "AUTHORITY", "FILE"].map(str::to_owned)];
    for one in shown {
        let authority = one.authority.as_deref().map_or("unknown", |fingerprint| &fingerprint[..16]);
        let (subject, until) = (one.subject.clone(), one.valid_until.clone());
        rows.push([subject, until, one.days_left.to_string(), authority.to_owned(), one.file.clone()]);
    }
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    for one in shown {
        if let Some(warning) = &one.warning {
            text += &format!("ATTENTION: {} ({}): {warning}\n", one.subject, one.file);
        }
    }
    text
}

/// A day, UTC.
fn date(unix_s: u64) -> String {
    // The last second that the format can show.
    let time = UNIX_EPOCH + Duration::from_secs(unix_s.min(253_402_300_799));
    humantime::format_rfc3339_seconds(time).to_string().chars().take(10).collect()
}

/// That a certificate has ended, or soon will.
fn ends(info: &CertificateInfo, now_unix_s: u64) -> Option<String> {
    let end = info.not_after_unix_s;
    let left = end.saturating_sub(now_unix_s);
    match left {
        0 => Some(format!("it ended on {}", date(end))),
        _ if now_unix_s < info.not_before_unix_s => {
            Some(format!("it begins on {}: is the clock right?", date(info.not_before_unix_s)))
        }
        _ if left < WARN_DAYS * DAY_SECONDS => {
            Some(format!("it ends on {}, in {} days", date(end), left / DAY_SECONDS))
        }
        _ => None,
    }
}

/// What is to be said of the certificate that an agent uses.
pub(crate) fn complaint(keys: &keys::Keys, now_unix_s: u64) -> Option<String> {
    let info = keys.info();
    let ends = ends(info, now_unix_s)?;
    Some(format!(
        "certificate of the agent ({}): {ends}: `daemun keys issue` makes a new one",
        info.names.join(", ")
    ))
}
