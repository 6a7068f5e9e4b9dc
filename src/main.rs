//! The command line of daemun: one file per verb, no policy.

mod admin;
mod check;
mod client;
mod clock;
mod door;
mod drill;
mod explain;
mod history;
mod keys;
mod kv;
mod lab;
mod name_server;
mod reload;
mod run;
mod sampler;
mod status;
mod store;
mod verbs;
mod views;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One program for a service in two or more datacenters: GeoDNS, front door, replicated data, failover.
#[derive(Parser)]
#[command(name = "daemun", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve: DNS, front door and agent of one datacenter
    Run(run::RunArguments),
    /// Try it: three datacenters on this machine, nothing to install
    Lab(lab::LabArguments),
    /// Check a config and the files it names; every problem with its place
    Check(check::CheckArguments),
    /// Show where a client is sent, and why
    Explain(explain::ExplainArguments),
    /// Show the fleet view, and why it is so
    Status(status::StatusArguments),
    /// Show how the fleet view came about
    History(history::HistoryArguments),
    #[command(flatten)]
    Fleet(verbs::Verb),
    /// Read and write the store: data that is in every datacenter
    Kv(kv::KvArguments),
    /// Failures on purpose that undo themselves, and end in a report
    Drill(drill::DrillArguments),
    /// Make and show the certificates by which agents know each other
    Keys(keys::KeysArguments),
}

/// Why a verb did not do what it should.
enum Failure {
    /// It was asked well and could not: exit code 1.
    Failed(anyhow::Error),
    /// The command line or the config is wrong: exit code 2.
    Wrong(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Failed(error)
    }
}

/// A panic ends the process, wherever it is, but for where it is caught: half a process is worse than none.
fn end_with_panics() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        if !daemun_gateway::is_guarded() {
            std::process::abort();
        }
    }));
}

fn main() -> ExitCode {
    end_with_panics();
    // The one TLS provider of the process, before anything makes a client or a server.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
    let result = match Arguments::parse().verb {
        Verb::Run(arguments) => run::run(arguments),
        Verb::Lab(arguments) => lab::lab(&arguments),
        Verb::Check(arguments) => check::check(&arguments),
        Verb::Explain(arguments) => explain::explain(&arguments),
        Verb::Status(arguments) => status::status(&arguments),
        Verb::History(arguments) => history::history(&arguments),
        Verb::Fleet(verb) => verbs::verb(verb),
        Verb::Kv(arguments) => kv::kv(arguments),
        Verb::Drill(arguments) => drill::drill(arguments),
        Verb::Keys(arguments) => keys::keys(&arguments),
    };
    let (error, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => (error, 1),
        Err(Failure::Wrong(error)) => (error, 2),
    };
    eprintln!("daemun: {error:#}");
    ExitCode::from(code)
}
