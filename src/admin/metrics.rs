//! Metrics of the view and of the links between agents.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use daemun_fleet::Placer;
use daemun_fleet::view::State;
use daemun_sync::core::LinkStatus;
use prometheus::{Encoder as _, GaugeVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::Admin;

/// Gauges of the view and of reloads.
#[derive(Clone, Debug)]
pub(crate) struct ViewMetrics {
    generation: IntGauge,
    fail_open: IntGauge,
    states: IntGaugeVec,
    shares: IntGaugeVec,
    paused: IntGauge,
    doubted: IntGaugeVec,
    loads: IntGaugeVec,
    complaints: IntGauge,
    drill: IntGauge,
}

impl ViewMetrics {
    /// Registers the gauges.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        Ok(Self {
            generation: gauge("daemun_view_generation", "Generation of the fleet view in use.")?,
            fail_open: gauge(
                "daemun_view_fail_open",
                "1 while everything looks down and everything is used.",
            )?,
            drill: gauge("daemun_drill", "1 while a drill is armed, 2 while something fails by it, else 0.")?,
            complaints: gauge(
                "daemun_files_refused",
                "Problems with config, zone, geo or page files; the last good is in use.",
            )?,
            states: gauges(
                "daemun_datacenter_state",
                "1 for the state that the datacenter is in, 0 for the others.",
                &["datacenter", "state"],
            )?,
            shares: gauges(
                "daemun_datacenter_share_percent",
                "Percentage of its users that the datacenter is given while it ramps, is drained or spills.",
                &["datacenter"],
            )?,
            paused: gauge("daemun_automation_paused", "1 while automation is off.")?,
            doubted: gauges(
                "daemun_observer_doubted",
                "1 while the datacenter's own eyes are doubted and others decide without it.",
                &["datacenter"],
            )?,
            loads: gauges(
                "daemun_datacenter_asked_rps",
                "Requests per second of the users that would be sent there if it could serve any number.",
                &["datacenter"],
            )?,
        })
    }

    /// Takes over a view, as it is placed.
    pub(crate) fn set(&self, placer: &Placer, complaints: usize) {
        let view = placer.view();
        self.generation.set(i64::try_from(view.generation).unwrap_or(i64::MAX));
        self.fail_open.set(view.fail_open.into());
        let drill = view.drill.as_ref().map_or(0, |drill| 1 + i64::from(drill.step.is_some()));
        self.drill.set(drill);
        self.paused.set(view.paused.is_some().into());
        self.complaints.set(i64::try_from(complaints).unwrap_or(i64::MAX));
        for gauges in [&self.states, &self.shares, &self.doubted, &self.loads] {
            gauges.reset();
        }
        for (name, datacenter) in &view.datacenters {
            for word in State::WORDS {
                self.states
                    .with_label_values(&[name.as_str(), word])
                    .set((datacenter.state.word() == word).into());
            }
        }
        for (name, observer) in &view.observers {
            self.doubted.with_label_values(&[name]).set(observer.doubted.is_some().into());
        }
        for load in placer.loads() {
            let state = view.datacenters.get(&load.datacenter).map_or(State::Serving, |found| found.state);
            let share = state.share().min(load.kept_percent);
            self.shares.with_label_values(&[&load.datacenter]).set(share.into());
            self.loads.with_label_values(&[&load.datacenter]).set(load.asked_rps.into());
        }
    }
}

/// Gauges of the links to the other agents, set when they are looked at.
#[derive(Clone, Debug)]
pub(crate) struct LinkMetrics {
    up: IntGaugeVec,
    clock_ahead: GaugeVec,
    clock_off: IntGaugeVec,
}

impl LinkMetrics {
    /// Registers the gauges.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["peer"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let help = "How far the peer's clock is ahead of ours, seconds, from the last exchanges.";
        let clock_ahead = GaugeVec::new(Opts::new("daemun_peer_clock_ahead_seconds", help), &["peer"])?;
        registry.register(Box::new(clock_ahead.clone()))?;
        Ok(Self {
            up: gauges(
                "daemun_link_up",
                "1 while the peer's agent answers; else its data is of unknown age.",
            )?,
            clock_ahead,
            clock_off: gauges(
                "daemun_peer_clock_off",
                "1 while the peer's clock is off by more than the bound.",
            )?,
        })
    }

    fn set(&self, links: &[LinkStatus]) {
        self.up.reset();
        self.clock_ahead.reset();
        self.clock_off.reset();
        for link in links {
            self.up.with_label_values(&[&link.peer]).set(link.is_up.into());
            self.clock_off.with_label_values(&[&link.peer]).set(link.is_clock_off.into());
            if let Some(ms) = link.clock_ahead_ms {
                self.clock_ahead.with_label_values(&[&link.peer]).set(ms as f64 / 1000.0);
            }
        }
    }
}

pub(super) async fn show(axum::extract::State(admin): axum::extract::State<Arc<Admin>>) -> Response {
    admin.link_metrics.set(&admin.agent.as_ref().map(|agent| agent.links()).unwrap_or_default());
    admin.store_metrics.set(&admin.store);
    let mut body = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&admin.registry.gather(), &mut body) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
