//! The store of this process: opened, served to applications, shown in metrics.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use daemun_fleet::Config;
use daemun_sync::store::api::Served;
use daemun_sync::store::engine::{Store, StoreSettings, Threads};
use daemun_sync::store::journal::JournalError;
use daemun_sync::store::replica::Retention;
use daemun_sync::store::replica::{Lag, Stage};
use daemun_sync::store::sqlite::OpenError;
use daemun_sync::store::status::StoreStatus;
use daemun_sync::{SingleThread, last_sent};
use prometheus::{Gauge, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tokio::net::TcpListener;

use crate::admin::token;
use crate::clock;
use crate::reload::Files;
use crate::run::{Role, RunArguments, Tasks};

/// A store that is open, or why there is none; and what ends with it.
pub(crate) struct Opened {
    pub(crate) store: Served,
    /// What keeps it: at the end it is dropped, and all is written.
    _threads: Option<Threads>,
}

/// Opens the store of a process that has an agent. A store whose disk is corrupt does not keep the rest of the process from
/// serving; anything else that is wrong with it does.
pub(crate) fn open(arguments: &RunArguments, files: &Files) -> anyhow::Result<Opened> {
    if !arguments.roles().contains(&Role::Sync) {
        return Ok(Opened { store: Err("there is no agent in this process".to_owned()), _threads: None });
    }
    let config: Arc<Config> = last_sent(&files.configs);
    let settings = StoreSettings {
        directory: arguments.data().join("store"),
        datacenter: arguments.datacenter().to_owned(),
        peers: config.fleet.datacenters.iter().map(|datacenter| datacenter.name.clone()).collect(),
        clock: clock::machine(),
        retention: Retention {
            entries_min: config.store.log_entries_min,
            entries_max: config.store.log_entries_max,
        },
    };
    match Store::open(&settings) {
        Ok((store, threads)) => Ok(Opened { store: Ok(store), _threads: Some(threads) }),
        Err(error @ OpenError::Database { error: JournalError::Corrupt(_), .. }) => {
            tracing::error!(%error, "serving without the store");
            Ok(Opened { store: Err(error.to_string()), _threads: None })
        }
        Err(error) => Err(anyhow!(error).context("the store")),
    }
}

/// Answers applications that show the token, on a thread of its own: as long as that is there.
pub(crate) fn serve(
    arguments: &RunArguments,
    listeners: Vec<TcpListener>,
    store: &Served,
    tasks: &mut Tasks,
) -> anyhow::Result<Option<SingleThread>> {
    if listeners.is_empty() {
        return Ok(None);
    }
    let thread = SingleThread::start("store-api").context("a thread for applications")?;
    let token: Arc<str> = token::read_or_make(&arguments.store_token()).context("the store's token")?.into();
    for listener in listeners {
        let (store, token) = (store.clone(), Arc::clone(&token));
        thread.serve(tasks, listener, |listener| async move {
            daemun_sync::store::api::serve(listener, store, token).await;
            Ok("store")
        })?;
    }
    Ok(Some(thread))
}

/// Gauges of the store, set when they are looked at.
#[derive(Clone, Debug)]
pub(crate) struct StoreMetrics {
    is_open: IntGauge,
    can_write: IntGauge,
    lag_seconds: GaugeVec,
    lag_known: IntGaugeVec,
    lag_operations: IntGaugeVec,
    unconfirmed: IntGaugeVec,
    held: IntGaugeVec,
    log_entries: IntGauge,
    checked: Gauge,
    totals: IntCounterVec,
}

impl StoreMetrics {
    /// Registers the gauges.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["datacenter"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let help = "Age of the newest heartbeat applied of the datacenter's log, seconds; NaN: none was ever applied.";
        let lag_seconds = GaugeVec::new(Opts::new("daemun_store_lag_seconds", help), &["datacenter"])?;
        registry.register(Box::new(lag_seconds.clone()))?;
        let checked = Gauge::new(
            "daemun_store_checked_records",
            "Records that the full check has read since the start.",
        )?;
        registry.register(Box::new(checked.clone()))?;
        let help = "What the store did since the start, by what.";
        let totals = IntCounterVec::new(Opts::new("daemun_store_total", help), &["what"])?;
        registry.register(Box::new(totals.clone()))?;
        Ok(Self {
            is_open: gauge("daemun_store_open", "1 while the store takes writes.")?,
            can_write: gauge("daemun_store_writable", "1 unless its disk is full, failed or corrupt.")?,
            lag_seconds,
            lag_known: gauges("daemun_store_lag_known", "1 while heartbeats of the datacenter arrive.")?,
            lag_operations: gauges(
                "daemun_store_lag_operations",
                "Operations of the datacenter that are not applied here; -1: not known.",
            )?,
            unconfirmed: gauges(
                "daemun_store_unconfirmed_operations",
                "Own operations that the datacenter is not known to have.",
            )?,
            held: gauges(
                "daemun_store_held_operations",
                "Operations of the datacenter from the future, which wait.",
            )?,
            log_entries: gauge("daemun_store_log_entries", "Entries of all logs on the disk.")?,
            checked,
            totals,
        })
    }

    /// Takes over how the store is.
    pub(crate) fn set(&self, store: &Served) {
        let Ok(store) = store else {
            self.is_open.set(0);
            return self.can_write.set(0);
        };
        let status = store.status();
        self.is_open.set(status.is_open.into());
        self.can_write.set(status.failure.is_none().into());
        self.log_entries.set(i64::try_from(status.log_entries).unwrap_or(i64::MAX));
        self.checked.set(status.checked.map_or(f64::NAN, |(records, _)| records as f64));
        for gauges in [&self.lag_known, &self.lag_operations, &self.unconfirmed, &self.held] {
            gauges.reset();
        }
        self.lag_seconds.reset();
        for lag in &status.lags {
            self.set_lag(lag);
        }
        for held in &status.held {
            let of = self.held.with_label_values(&[&held.datacenter]);
            of.set(i64::try_from(held.operations).unwrap_or(i64::MAX));
        }
        self.count(&status);
    }

    fn set_lag(&self, lag: &Lag) {
        let name = lag.datacenter.as_str();
        let seconds = lag.behind_ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0);
        self.lag_seconds.with_label_values(&[name]).set(seconds);
        self.lag_known.with_label_values(&[name]).set((lag.stage == Stage::Known).into());
        let operations = lag.behind_operations.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX));
        self.lag_operations.with_label_values(&[name]).set(operations);
        self.unconfirmed.with_label_values(&[name]).set(i64::try_from(lag.unconfirmed).unwrap_or(i64::MAX));
    }

    fn count(&self, status: &StoreStatus) {
        let totals = [
            ("writes", status.writes),
            ("flushes", status.commits),
            ("operations", status.operations),
            ("conflicts", status.conflicts),
            ("conflicts_evicted", status.conflicts_evicted),
            ("compared", status.compared),
            ("healed", status.healed),
        ];
        for (what, total) in totals {
            let counter = self.totals.with_label_values(&[what]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}

/// What people read of a store in `status`.
pub(crate) fn describe(text: &mut String, store: &StoreStatus) {
    use std::fmt::Write as _;
    let _ = write!(text, "store {}: ", store.origin);
    let _ = match (&store.failure, store.is_open) {
        (Some(failure), _) => writeln!(text, "DOES NOT WRITE: {failure}"),
        (None, false) => writeln!(text, "not open for writes yet"),
        (None, true) => writeln!(text, "open; acknowledged means {}", store.acknowledged),
    };
    for lag in &store.lags {
        let Lag { datacenter, stage, behind_ms, behind_operations, unconfirmed } = lag;
        let behind = behind_ms
            .map_or_else(|| "no heartbeat yet".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        let operations = behind_operations.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        let _ = match stage {
            Stage::Known => write!(text, "  behind {datacenter}: at most {behind}, {operations} operations"),
            Stage::Unknown => {
                write!(text, "  behind {datacenter}: UNKNOWN, at least {behind}, {operations} operations")
            }
            Stage::Held => write!(text, "  behind {datacenter}: ITS OPERATIONS ARE FROM THE FUTURE and wait"),
        };
        let _ = writeln!(text, "; of ours it lacks at most {unconfirmed}");
    }
    for held in &store.held {
        let _ = writeln!(
            text,
            "  {} operations of {} wait for their time: `daemun kv held`",
            held.operations, held.datacenter
        );
    }
    if store.conflicts + store.conflicts_evicted > 0 {
        let _ = writeln!(
            text,
            "  {} conflicts since the start, {} let go for good: `daemun kv conflicts`",
            store.conflicts, store.conflicts_evicted
        );
    }
    if store.healed > 0 {
        let _ = writeln!(text, "  {} keys differed from another datacenter's and were mended", store.healed);
    }
    if let Some(why) = &store.waits_for {
        let _ = writeln!(text, "  not all data is here: {why}");
    }
}
