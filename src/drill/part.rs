//! The part of this process in a drill: what the view says is done to door, name server, store and agent, until the view or our
//! own timer says that it is over.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use daemun_fleet::config::DrillCommands;
use daemun_fleet::drill::{DrillView, EVERYONE, Fault, Handicap, Part};
use daemun_fleet::impaired::Impaired;
use daemun_fleet::view::State;
use daemun_fleet::{Config, FleetView};
use daemun_sync::Agent;
use daemun_sync::store::engine::Links;
use tokio::process::Command;

use crate::clock;

/// While a drill is armed or under way it is looked so often whether it still is.
const LOOK: Duration = Duration::from_millis(100);

/// What of this process can fail on purpose.
pub(crate) struct InDrill {
    me: String,
    data: PathBuf,
    agent: Option<Arc<Agent>>,
    /// Of door and name server, as far as they are here.
    impaired: Vec<Arc<Impaired>>,
    part: Part,
    now: Handicap,
}

impl InDrill {
    pub(crate) fn new(
        me: &str,
        data: &Path,
        agent: Option<Arc<Agent>>,
        impaired: Vec<Arc<Impaired>>,
    ) -> Self {
        Self {
            me: me.to_owned(),
            data: data.to_owned(),
            agent,
            impaired,
            part: Part::default(),
            now: Handicap::default(),
        }
    }

    /// Does what is to be done under a view; when to look again, if before the next.
    pub(crate) fn look(&mut self, config: &Config, view: &FleetView) -> Option<Duration> {
        // Without an agent here our own timer is all there is.
        let agent = self.agent.as_ref().zip(view.drill.as_ref());
        let left = agent.map(|(agent, drill)| agent.drill_left_of(&drill.id));
        let (handicap, _) = self.part.look(&self.me, view.drill.as_ref(), left, clock::monotonic());
        if handicap != self.now {
            tracing::warn!(?handicap, "a drill: this process fails on purpose");
            self.make(&handicap, config.drill.commands.as_ref());
            self.now = handicap;
        }
        view.drill.is_some().then_some(LOOK)
    }

    /// The view as it is to be followed: where a drill's time is over and no agent is left to say so, its drain is too.
    pub(crate) fn followed(&self, view: &Arc<FleetView>) -> Arc<FleetView> {
        let drill = view.drill.as_ref().filter(|drill| self.part.is_over(drill, clock::monotonic()));
        let drains =
            |drill: &&DrillView| drill.faults.iter().any(|fault| matches!(fault, Fault::Drain { .. }));
        let Some(target) = drill.filter(drains).and_then(|drill| drill.target.datacenter()) else {
            return Arc::clone(view);
        };
        let mut followed = (**view).clone();
        if let Some(datacenter) = followed.datacenters.get_mut(target)
            && matches!(datacenter.state, State::Draining(_))
            && datacenter.order.is_none()
        {
            datacenter.state = State::Serving;
        }
        Arc::new(followed)
    }

    fn make(&self, handicap: &Handicap, commands: Option<&DrillCommands>) {
        for impaired in &self.impaired {
            impaired.set(handicap);
        }
        let Some(agent) = &self.agent else { return };
        if let Some(store) = agent.store() {
            let mut cut = handicap.cut.clone();
            if handicap.is_mute {
                cut.insert(EVERYONE.to_owned());
            }
            let slow = handicap.slow_links.iter();
            let slow = slow.map(|(name, ms)| (name.clone(), Duration::from_millis((*ms).into()))).collect();
            store.set_links(Links { cut, slow });
        }
        agent.mute(handicap.is_mute);
        if let (Some(rest_ms), None) = (handicap.killed_for_ms, self.now.killed_for_ms) {
            match commands {
                Some(commands) => {
                    if let Err(error) = self.kill(commands, rest_ms) {
                        tracing::error!(error = format!("{error:#}"), "a drill: this process is not killed");
                    }
                }
                None => {
                    tracing::error!("a drill: `drill.kill` is not configured, this process is not killed")
                }
            }
        }
    }

    /// First a process of its own that starts us again when the time is over, whatever becomes of us; then the end.
    fn kill(&self, commands: &DrillCommands, rest_ms: u64) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut guard = Command::new(program);
        guard.args(["drill", "guard", "--after-ms", &rest_ms.to_string(), "--"]).args(&commands.start);
        self.spawn(guard, rest_ms).context("the guard that starts it again")?;
        let mut kill = Command::new(commands.kill.first().context("`drill.kill` is empty")?);
        kill.args(&commands.kill[1..]);
        self.spawn(kill, rest_ms).context("`drill.kill`")
    }

    fn spawn(&self, mut command: Command, rest_ms: u64) -> anyhow::Result<()> {
        command
            .env("DAEMUN_PID", std::process::id().to_string())
            .env("DAEMUN_DATACENTER", &self.me)
            .env("DAEMUN_DATA", &self.data)
            .env("DAEMUN_FOR_MS", rest_ms.to_string())
            .stdin(Stdio::null())
            // Of another group: what is sent to ours does not reach it.
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map(drop)
            .context("starting it")
    }
}
