//! The admin listener of a process: `/v1/status`, `/v1/view`, `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use daemun_fleet::FleetView;
use daemun_sync::{Agent, latest};
use prometheus::{Encoder as _, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::sync::watch;

use crate::status::{Status, ZoneStatus};
use crate::world::World;
use crate::{clock, keys};

/// What the admin listener shows.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) me: String,
    pub(crate) roles: Vec<String>,
    pub(crate) worlds: watch::Receiver<Arc<World>>,
    pub(crate) refused_reload: watch::Receiver<Vec<String>>,
    pub(crate) views: watch::Receiver<Arc<FleetView>>,
    pub(crate) heard: watch::Receiver<bool>,
    pub(crate) agent: Option<Arc<Agent>>,
    pub(crate) registry: Registry,
}

impl Admin {
    fn status(&self) -> Status {
        let world = latest(&self.worlds);
        let config = world.config();
        let mut complaints = world.complaints.clone();
        complaints.extend(latest(&self.refused_reload));
        complaints
            .extend(world.keys.as_ref().and_then(|agent| keys::complaint(agent, clock::unix_ms() / 1000)));
        if !latest(&self.heard) {
            complaints.push("no agent is heard: the view is the last known".to_owned());
        }
        let zone_file = |origin: &hickory_proto::rr::LowerName| {
            world.zone_files.get(origin.to_string().trim_end_matches('.'))
        };
        let mut zones: Vec<ZoneStatus> = world
            .zones
            .iter()
            .map(|zone| ZoneStatus {
                name: zone.origin().to_string(),
                serial: zone.serial(),
                names: zone.names(),
                loaded_unix_ms: zone_file(zone.origin()).map_or(0, |file| file.loaded_unix_ms),
                is_refused: zone_file(zone.origin()).is_some_and(|file| file.is_refused),
            })
            .collect();
        zones.sort_by(|a, b| a.name.cmp(&b.name));
        Status {
            fleet: config.fleet.name.clone(),
            datacenter: self.me.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            roles: self.roles.clone(),
            config_digest: config.digest.clone(),
            places: world.steering.places().source().to_owned(),
            zones,
            complaints,
            view: FleetView::clone(&latest::<Arc<_>>(&self.views)),
            links: self.agent.as_ref().map(|agent| agent.links()).unwrap_or_default(),
            unix_ms: clock::unix_ms(),
        }
    }
}

/// The routes.
pub(crate) fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/v1/status", get(|State(admin): State<Arc<Admin>>| async move { Json(admin.status()) }))
        .route("/v1/view", get(|State(admin): State<Arc<Admin>>| async move { Json(latest(&admin.views)) }))
        .route("/metrics", get(|State(admin): State<Arc<Admin>>| async move { metrics(&admin.registry) }))
        .with_state(admin)
}

fn metrics(registry: &Registry) -> Response {
    let mut body = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&registry.gather(), &mut body) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Gauges of the view and of reloads.
#[derive(Clone, Debug)]
pub(crate) struct ViewMetrics {
    generation: IntGauge,
    fail_open: IntGauge,
    serving: IntGaugeVec,
    complaints: IntGauge,
}

impl ViewMetrics {
    /// Registers the gauges.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let serving = IntGaugeVec::new(
            Opts::new("daemun_datacenter_serving", "1 while the datacenter is in state serving, else 0."),
            &["datacenter"],
        )?;
        registry.register(Box::new(serving.clone()))?;
        Ok(Self {
            generation: gauge("daemun_view_generation", "Generation of the fleet view in use.")?,
            fail_open: gauge(
                "daemun_view_fail_open",
                "1 while everything looks down and everything is used.",
            )?,
            complaints: gauge(
                "daemun_files_refused",
                "Problems with config, zone, geo or page files; the last good is in use.",
            )?,
            serving,
        })
    }

    /// Takes over a view.
    pub(crate) fn set(&self, view: &FleetView, complaints: usize) {
        self.generation.set(i64::try_from(view.generation).unwrap_or(i64::MAX));
        self.fail_open.set(view.fail_open.into());
        self.complaints.set(i64::try_from(complaints).unwrap_or(i64::MAX));
        self.serving.reset();
        for (name, datacenter) in &view.datacenters {
            let serving = datacenter.state == daemun_fleet::view::State::Serving;
            self.serving.with_label_values(&[name.as_str()]).set(serving.into());
        }
    }
}
