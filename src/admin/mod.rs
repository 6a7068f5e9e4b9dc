//! The admin listener of a process: `/v1/status`, `/v1/view`, `/v1/history`, `/v1/verbs`, `/v1/drills`, `/metrics`. All but the last take
//! the admin token.

pub(crate) mod drills;
mod metrics;
pub(crate) mod orders;
pub(crate) mod token;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::from_fn_with_state;
use axum::response::Json;
use axum::routing::{get, post};
use daemun_fleet::{FleetView, Placer};
use daemun_gateway::Door;
use daemun_sync::drill::drills::Drills;
use daemun_sync::history::History;
use daemun_sync::store::api::Served;
use daemun_sync::{Agent, latest};
use prometheus::Registry;
use tokio::sync::watch;

pub(crate) use metrics::{LinkMetrics, ViewMetrics};

use crate::status::{Status, ZoneStatus};
use crate::store::StoreMetrics;
use crate::world::World;
use crate::{clock, keys};

/// A word of an operator is short.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Some seconds of what a witness has seen.
const WITNESSED_BYTES_MAX: usize = 8 << 20;

/// What the admin listener shows.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) me: String,
    pub(crate) roles: Vec<String>,
    pub(crate) worlds: watch::Receiver<Arc<World>>,
    pub(crate) refused_reload: watch::Receiver<Vec<String>>,
    pub(crate) views: watch::Receiver<Arc<FleetView>>,
    pub(crate) placers: watch::Receiver<Arc<Placer>>,
    pub(crate) heard: watch::Receiver<bool>,
    pub(crate) agent: Option<Arc<Agent>>,
    pub(crate) drills: Option<Arc<Drills>>,
    pub(crate) registry: Registry,
    pub(crate) link_metrics: LinkMetrics,
    pub(crate) store: Served,
    pub(crate) store_metrics: StoreMetrics,
    pub(crate) door: Option<Arc<Door>>,
}

impl Admin {
    fn history(&self) -> History {
        self.agent.as_ref().map(|agent| agent.history()).unwrap_or_default()
    }

    fn status(&self) -> Status {
        let world = latest(&self.worlds);
        let config = world.config();
        let mut complaints = world.complaints.clone();
        complaints.extend(latest(&self.refused_reload));
        complaints.extend(self.door.iter().flat_map(|door| door.complaints()));
        complaints
            .extend(world.keys.as_ref().and_then(|agent| keys::complaint(agent, clock::unix_ms() / 1000)));
        if let (Some(_), Err(why)) = (&self.agent, &self.store) {
            complaints.push(format!("there is no store: {why}"));
        }
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
            eyes: self.agent.as_ref().map_or(0, |agent| agent.eyes()),
            loads: latest::<Arc<Placer>>(&self.placers).loads().to_vec(),
            store: self.store.as_ref().ok().map(|store| (*store.status()).clone()),
            unix_ms: clock::unix_ms(),
        }
    }
}

/// The routes, for who shows the token.
pub(crate) fn router(admin: Arc<Admin>, token: Arc<str>) -> Router {
    Router::new()
        .route("/v1/status", get(|State(admin): State<Arc<Admin>>| async move { Json(admin.status()) }))
        .route("/v1/view", get(|State(admin): State<Arc<Admin>>| async move { Json(latest(&admin.views)) }))
        .route("/v1/history", get(|State(admin): State<Arc<Admin>>| async move { Json(admin.history()) }))
        .route("/v1/verbs", post(orders::tell))
        .route("/v1/drills", get(drills::list).post(drills::begin))
        .route("/v1/drills/now", get(drills::now))
        .route("/v1/drills/scenario", get(drills::scenario).post(drills::read))
        .route("/v1/drills/report", get(drills::report))
        .route("/v1/drills/course", get(drills::course))
        .route("/v1/drills/abort", post(drills::abort))
        .route("/v1/drills/record", post(drills::record))
        .route(
            "/v1/drills/witnessed",
            post(drills::witnessed).layer(DefaultBodyLimit::max(WITNESSED_BYTES_MAX)),
        )
        .route("/metrics", get(metrics::show))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(token, token::check))
        .with_state(admin)
}
