//! `daemun drill`: failures on purpose. Planned, guarded, watched, undone, reported.

pub(crate) mod guard;
mod live;
pub(crate) mod part;
pub(crate) mod schedule;
mod show;

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use daemun_fleet::drill::{Scenario, Target};
use daemun_sync::drill::plan::Asked;
use daemun_sync::drill::report::Report;
use daemun_sync::drill::show as report;
use reqwest::StatusCode;

use crate::Failure;
use crate::admin::drills::{Aborted, Listed, Planned, ToAbort, ToRead};
use crate::client::{AdminArguments, Line};

/// Failures on purpose that undo themselves, and end in a report.
#[derive(Args)]
pub(crate) struct DrillArguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show what a drill would do, and the rules it must keep; nothing is done
    Plan {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        asking: Asking,
    },
    /// Run a drill: exit code 0 if its objectives hold, 1 if they do not
    Run {
        #[command(flatten)]
        what: What,
        /// Do not ask whether to
        #[arg(long)]
        yes: bool,
        /// Say what it would do, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Run it against the rules; that is written down
        #[arg(long)]
        break_glass: bool,
        /// Do not visit from here as well
        #[arg(long)]
        no_witness: bool,
        /// Write the report as a page to this file
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        #[command(flatten)]
        asking: Asking,
    },
    /// End the drill that is under way, wherever it is led
    Abort {
        /// Why
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
        /// Who says so
        #[arg(
            long,
            env = "USER",
            default_value = "somebody",
            hide_default_value = true,
            value_name = "NAME"
        )]
        by: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// List the scenarios that there are
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// Show a report
    Report {
        /// Which: as `daemun drill history` lists them, the beginning is enough
        #[arg(value_name = "ID", default_value = "latest")]
        id: String,
        /// Write it as a page to this file
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        #[command(flatten)]
        asking: Asking,
    },
    /// List the drills that were run, and how they went
    History {
        /// Only those of this scenario
        #[arg(value_name = "SCENARIO")]
        scenario: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Show the drills that begin by themselves, and what became of the last of each
    Schedule {
        #[command(flatten)]
        asking: Asking,
    },
    #[command(hide = true)]
    Guard(guard::GuardArguments),
}

/// Which drill.
#[derive(Args)]
struct What {
    /// Name of a scenario (`daemun drill list`), or a TOML file
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// The datacenter, or A:B for the link between two
    #[arg(long, value_name = "DATACENTER")]
    target: Option<String>,
    /// The durability at which records are written: memory, local, remote:N, all
    #[arg(long, value_name = "DURABILITY")]
    durability: Option<String>,
    /// How long each step lasts, such as 20s
    #[arg(long, value_name = "TIME", value_parser = crate::verbs::duration)]
    hold: Option<std::time::Duration>,
    /// Why: it is shown to everyone
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    reason: String,
    /// Who says so
    #[arg(long, env = "USER", default_value = "somebody", hide_default_value = true, value_name = "NAME")]
    by: String,
    /// Refuse if the fleet view has another generation
    #[arg(long, value_name = "N")]
    expect_generation: Option<u64>,
}

#[derive(Args)]
struct Asking {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArguments,
}

impl What {
    /// The drill that is meant, as the fleet understands it.
    async fn asked(&self, line: &Line) -> Result<Asked, Failure> {
        let is_file = self.scenario.ends_with(".toml") || self.scenario.contains('/');
        let said = if is_file {
            let text = std::fs::read_to_string(&self.scenario)
                .map_err(|error| Failure::Wrong(anyhow!("{}: {error}", self.scenario)))?;
            line.post("/v1/drills/scenario", &ToRead { file: self.scenario.clone(), text }).await?
        } else {
            line.get(&format!("/v1/drills/scenario?id={}", encoded(&self.scenario))).await?
        };
        if !said.code.is_success() {
            return Err(Failure::Wrong(said.error()));
        }
        let mut scenario: Scenario = said.read()?;
        if let Some(target) = &self.target {
            scenario.target = Some(Target::parse(target));
        }
        if let Some(durability) = &self.durability {
            scenario.durability.clone_from(durability);
        }
        if let Some(hold) = self.hold {
            let hold_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
            scenario.steps.iter_mut().for_each(|step| step.hold_ms = hold_ms);
        }
        Ok(Asked {
            scenario,
            by: self.by.clone(),
            reason: self.reason.clone(),
            expect_generation: self.expect_generation,
            dry_run: true,
            break_glass: false,
        })
    }
}

/// A text as part of a query.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

pub(crate) fn drill(arguments: DrillArguments) -> Result<(), Failure> {
    if let Verb::Guard(arguments) = arguments.verb {
        return guard::guard(&arguments);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(verb(arguments.verb))
}

async fn verb(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Plan { what, asking } => {
            let line = Line::new(&asking.admin).await?;
            let asked = what.asked(&line).await?;
            let (planned, is_kept) = planned(&line, &asked).await?;
            print(&asking, &planned, show::plan)?;
            if is_kept { Ok(()) } else { Err(refused()) }
        }
        Verb::Run { what, yes, dry_run, break_glass, no_witness, html, asking } => {
            let line = Line::new(&asking.admin).await?;
            let asked = Asked { break_glass, ..what.asked(&line).await? };
            let (planned, is_kept) = planned(&line, &asked).await?;
            if dry_run || (!is_kept && !break_glass) {
                print(&asking, &planned, show::plan)?;
                return if is_kept { Ok(()) } else { Err(refused()) };
            }
            eprint!("{}", show::plan(&planned));
            if !yes && !live::is_confirmed(&planned)? {
                return Err(Failure::Failed(anyhow!("nothing was done")));
            }
            let report = live::run(&line, &Asked { dry_run: false, ..asked }, !no_witness).await?;
            output(&asking, &report, html.as_deref())?;
            if report.verdict.is_met {
                Ok(())
            } else {
                Err(Failure::Failed(anyhow!("the objectives of {} do not hold", report.id)))
            }
        }
        Verb::Abort { reason, by, asking } => {
            let line = Line::new(&asking.admin).await?;
            let aborted = abort(&line, &ToAbort { by, reason }).await?;
            print(&asking, &aborted, |aborted| match &aborted.id {
                Some(id) => {
                    format!("{id} is aborted: its faults end now, `daemun drill report` has the rest soon\n")
                }
                None => "no drill is under way\n".to_owned(),
            })?;
            Ok(())
        }
        Verb::List { asking } => print(&asking, &listed(&asking).await?, show::scenarios),
        Verb::Schedule { asking } => print(&asking, &listed(&asking).await?, show::schedules),
        Verb::History { scenario, asking } => {
            let mut listed = listed(&asking).await?;
            if let Some(name) = scenario {
                let is_it =
                    |report: &Report| report.scenario.as_ref().is_some_and(|found| found.name == name);
                listed.reports.retain(is_it);
            }
            print(&asking, &listed.reports, |reports| show::history(reports))
        }
        Verb::Report { id, html, asking } => {
            let listed = listed(&asking).await?;
            let newest = |id: &str| match id {
                "latest" => listed.reports.last().map(|report| report.id.clone()),
                id => listed
                    .reports
                    .iter()
                    .rev()
                    .map(|report| &report.id)
                    .find(|known| known.starts_with(id))
                    .cloned(),
            };
            let id = newest(&id).unwrap_or(id);
            let line = Line::new(&asking.admin).await?;
            let report: Report = line.get(&format!("/v1/drills/report?id={}", encoded(&id))).await?.done()?;
            output(&asking, &report, html.as_deref())
        }
        Verb::Guard(arguments) => guard::guard(&arguments),
    }
}

/// Tells every agent that can be reached: one is enough, but which of them is heard nobody knows.
async fn abort(line: &Line, told: &ToAbort) -> anyhow::Result<Aborted> {
    let mut last = anyhow!("nobody to tell");
    let mut heard = None;
    for said in line.post_all("/v1/drills/abort", told).await {
        match said.and_then(|said| said.done::<Aborted>()) {
            Ok(aborted) => heard = heard.filter(|heard: &Aborted| heard.id.is_some()).or(Some(aborted)),
            Err(error) => last = error,
        }
    }
    heard.ok_or(last)
}

fn refused() -> Failure {
    let message = "refused, nothing was done: change that, or say --break-glass, which is written down";
    Failure::Failed(anyhow!("{message}"))
}

async fn listed(asking: &Asking) -> Result<Listed, Failure> {
    Ok(Line::new(&asking.admin).await?.get("/v1/drills").await?.done()?)
}

/// The plan, and whether it keeps the rules.
async fn planned(line: &Line, asked: &Asked) -> Result<(Planned, bool), Failure> {
    let said = line.post("/v1/drills", &Asked { dry_run: true, ..asked.clone() }).await?;
    match said.code {
        StatusCode::OK | StatusCode::CONFLICT => {
            let planned: Planned = said.read()?;
            let is_kept = planned.checks.iter().all(|check| check.holds);
            Ok((planned, is_kept))
        }
        StatusCode::UNPROCESSABLE_ENTITY => Err(Failure::Wrong(said.error())),
        _ => Err(Failure::Failed(said.error())),
    }
}

fn print<T: serde::Serialize>(
    asking: &Asking,
    found: &T,
    text: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    if asking.json {
        println!("{}", serde_json::to_string_pretty(found).context("writing JSON")?);
    } else {
        print!("{}", text(found));
    }
    Ok(())
}

fn output(asking: &Asking, shown: &Report, html: Option<&std::path::Path>) -> Result<(), Failure> {
    if let Some(file) = html {
        let written = std::fs::write(file, report::html(shown));
        written.with_context(|| format!("writing {}", file.display()))?;
        eprintln!("the report as a page: {}", file.display());
    }
    print(asking, shown, report::text)
}
