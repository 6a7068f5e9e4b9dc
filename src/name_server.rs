//! The name server of a process, as `run` puts it together: what it answers from, and what it shows.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use daemun_dns::cookie::Secrets;
use daemun_dns::listen::Listeners;
use daemun_dns::{Identity, Responder, ZoneMetrics};
use daemun_fleet::Placer;
use daemun_fleet::tls::TlsIdentity;
use prometheus::Registry;

use crate::clock;
use crate::run::Tasks;
use crate::world::World;

/// The name server of this process, but for its sockets.
pub(crate) struct NameServer {
    pub(crate) responder: Arc<Responder>,
    pub(crate) identity: Option<Arc<TlsIdentity>>,
    name: Identity,
    /// Of this process, for when the fleet has none.
    own_secret: Secrets,
}

impl NameServer {
    /// Makes it; `id` is what it calls itself.
    pub(crate) fn new(
        id: &str,
        world: &World,
        placer: &Arc<Placer>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let mut secret = [0; 16];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut secret).map_err(|_| anyhow!("the system gives no random numbers"))?;
        let own_secret = Secrets::one(secret);
        let name = Identity { name: id.to_owned(), version: format!("daemun {}", env!("CARGO_PKG_VERSION")) };
        let state = dns_state(world, placer, &name, &own_secret, false);
        let responder = Responder::new(state, daemun_dns::Metrics::new(registry)?, clock::machine());
        let identity = world.certificate.clone().map(TlsIdentity::new);
        Ok(Self { responder: Arc::new(responder), identity, name, own_secret })
    }

    /// Answers at these listeners, as one of `tasks`.
    pub(crate) fn serve(&self, listeners: Listeners, tasks: &mut Tasks) {
        let (responder, identity) = (Arc::clone(&self.responder), self.identity.clone());
        tasks.spawn(async move { listeners.serve(responder, identity).await.context("dns").map(|()| "dns") });
    }

    /// From now on answers from these.
    pub(crate) fn set(&self, world: &World, placer: &Arc<Placer>, is_stale: bool) {
        self.responder.set_state(dns_state(world, placer, &self.name, &self.own_secret, is_stale));
        if let (Some(identity), Some(certificate)) = (&self.identity, &world.certificate) {
            identity.set(certificate.clone());
        }
    }

    /// From now on shows these zones in the metrics.
    pub(crate) fn show_zones(&self, world: &World) {
        let zones = world.zone_files.iter().map(|(name, file)| ZoneMetrics {
            name,
            serial: world.zones.get(name).map_or(0, |zone| zone.serial()),
            loaded_unix_ms: file.loaded_unix_ms,
            is_refused: file.is_refused,
        });
        self.responder.metrics().set_zones(zones);
    }
}

fn dns_state(
    world: &World,
    placer: &Arc<Placer>,
    name: &Identity,
    own_secret: &Secrets,
    is_stale: bool,
) -> daemun_dns::State {
    daemun_dns::State {
        zones: Arc::clone(&world.zones),
        placer: Arc::clone(placer),
        identity: name.clone(),
        secrets: world.secrets.clone().unwrap_or_else(|| own_secret.clone()),
        is_stale,
    }
}
