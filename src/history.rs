//! `daemun history`: how the view came about, as one agent saw it.

use anyhow::Context as _;
use clap::Args;
use daemun_sync::history::{Event, History};

use crate::Failure;
use crate::client::{self, AdminArguments};
use crate::status::table;

/// Show what changed, when and why.
#[derive(Args)]
pub(crate) struct HistoryArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Show only the last so many changes
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn history(arguments: &HistoryArguments) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    let (url, mut history) = runtime.block_on(client::get::<History>(&arguments.admin, "/v1/history"))?;
    let skipped = history.events.len().saturating_sub(arguments.limit);
    history.events.drain(..skipped);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&history).context("writing JSON")?);
        return Ok(());
    }
    let head = ["WHEN (UTC)", "GENERATION", "WHAT", "CHANGE", "WHY"].map(ToOwned::to_owned);
    let row = |event: &Event| {
        let change = format!("{} → {}", event.from, event.to);
        [when(event.at_unix_ms), event.generation.to_string(), event.about.clone(), change, event.why.clone()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(history.events.iter().map(row)).collect();
    let mut text = String::new();
    table(&mut text, &rows);
    print!("{text}");
    let older = skipped as u64 + history.dropped;
    println!(
        "\nas {url} saw it{}",
        if older > 0 { format!("; {older} older changes") } else { String::new() }
    );
    Ok(())
}

/// A moment of Unix time, for people.
fn when(unix_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms);
    let text = humantime::format_rfc3339_millis(at).to_string();
    text.replace('T', " ").trim_end_matches('Z').to_owned()
}
