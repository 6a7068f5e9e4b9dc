//! Reading the files again: on SIGHUP, or when they have changed and are at rest.

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::Config;
use daemun_sync::keys::Keys;
use daemun_sync::last_sent;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

use crate::run::RunArguments;
use crate::world::{self, Refusal, World};

/// Time between two looks at the files; a change is read when a second look finds it at rest.
const LOOK: Duration = Duration::from_secs(1);

/// The newest of what was read, each for who wants to know when it changes.
#[derive(Debug)]
pub(crate) struct Files {
    /// All of it.
    pub(crate) worlds: watch::Sender<Arc<World>>,
    /// The config in it.
    pub(crate) configs: watch::Sender<Arc<Config>>,
    /// The agents' keys in it.
    pub(crate) keys: watch::Sender<Option<Arc<Keys>>>,
}

impl Files {
    /// Begins with what was read at the start.
    pub(crate) fn new(world: World) -> Self {
        let (config, keys) = (Arc::clone(world.config()), world.keys.clone());
        Self {
            worlds: watch::Sender::new(Arc::new(world)),
            configs: watch::Sender::new(config),
            keys: watch::Sender::new(keys),
        }
    }
}

/// Reads the files again when they change, or on SIGHUP; what is wrong is said, and nothing changes.
pub(crate) async fn reload(
    arguments: RunArguments,
    mut hang_up: Signal,
    files: Files,
    refused: watch::Sender<Vec<String>>,
) -> anyhow::Result<&'static str> {
    let Files { worlds, configs, keys } = files;
    let at_start = Arc::clone(last_sent(&worlds).config());
    let mut read = last_sent(&worlds).as_read();
    let mut seen = read.clone();
    loop {
        let asked = tokio::select! {
            _ = hang_up.recv() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let now = world::look(&read);
        let at_rest = now == seen;
        seen = now;
        if !asked && (seen == read || !at_rest) {
            continue;
        }
        let (from, me) = (arguments.config().to_owned(), arguments.datacenter().to_owned());
        let (reads, agent_keys) = (arguments.reads(), arguments.agent_keys());
        let (last, first) = (last_sent(&worlds), Arc::clone(&at_start));
        // Reading and compiling a world takes up to a second of one core.
        let loaded = tokio::task::spawn_blocking(move || {
            World::load(&from, Some(&last), reads, &agent_keys)
                .map(|world| if asked { world.meant() } else { world })
                .and_then(|world| stays_the_same_process(world, &first, &me))
        });
        match loaded.await? {
            Ok(loaded) => {
                for complaint in &loaded.complaints {
                    tracing::warn!("{complaint}");
                }
                tracing::info!(digest = loaded.config().digest, "files read again");
                read = loaded.as_read();
                // Before the config that may want them.
                keys.send_if_modified(|keys| {
                    let changed = *keys != loaded.keys;
                    keys.clone_from(&loaded.keys);
                    changed
                });
                configs.send_if_modified(|config| {
                    let changed = config.digest != loaded.config().digest;
                    *config = Arc::clone(loaded.config());
                    changed
                });
                let mut notices = Vec::new();
                if needs_restart(&at_start, loaded.config()) {
                    notices
                        .push("addresses to listen on have changed: restart to use the new ones".to_owned());
                    tracing::warn!("{}", notices[0]);
                }
                worlds.send_replace(Arc::new(loaded));
                refused.send_replace(notices);
            }
            Err(refusal) => {
                for problem in &refusal.problems {
                    tracing::error!("refused, the last good stays: {problem}");
                }
                // The files of what was refused are watched too: the one that is missing may come.
                read = last_sent(&worlds).as_read();
                read.extend(refusal.stamps);
                refused.send_replace(refusal.problems);
            }
        }
        seen = world::look(&read);
    }
}

/// A running process keeps its fleet and its datacenter.
fn stays_the_same_process(world: World, at_start: &Config, me: &str) -> Result<World, Refusal> {
    let fleet = &world.config().fleet;
    let mut problems = Vec::new();
    if fleet.datacenter(me).is_none() {
        problems.push(format!(
            "the config no longer has datacenter `{me}`, which this process is; end the process first"
        ));
    }
    if fleet.name != at_start.fleet.name {
        let (old, new) = (&at_start.fleet.name, &fleet.name);
        problems.push(format!(
            "the fleet's name has changed from `{old}` to `{new}`, which moves users: restart to mean it"
        ));
    }
    if problems.is_empty() { Ok(world) } else { Err(Refusal { problems, stamps: world.as_read() }) }
}

fn needs_restart(old: &Config, new: &Config) -> bool {
    old.dns.listen != new.dns.listen
        || old.dns.tls_listen != new.dns.tls_listen
        || old.dns.https_listen != new.dns.https_listen
        || old.dns.quic_listen != new.dns.quic_listen
        || old.dns.certificate.is_some() != new.dns.certificate.is_some()
        || old.gateway.listen != new.gateway.listen
        || old.gateway.tls_listen != new.gateway.tls_listen
        || old.gateway.certificate.is_some() != new.gateway.certificate.is_some()
        || old.sync.listen != new.sync.listen
        || old.sync.admin != new.sync.admin
}
