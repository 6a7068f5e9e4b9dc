//! The lab's processes: one for each datacenter, ended with us whatever ends us (their standard input is a pipe from
//! here).

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::files::{
    ADMIN_PORT, AGENT_PORT, CONFIG, DATACENTERS, DNS_HTTPS_PORT, DNS_TLS_PORT, GATEWAY_PORT, LabDatacenter,
    STORE_TOKEN, TOKEN, held, keys,
};

/// Pause between two looks at the processes.
const LOOK: Duration = Duration::from_millis(50);

/// Fails, naming all ports that are not free, before anything is started.
pub(super) fn check_ports(network: &str, dns_port: u16) -> anyhow::Result<()> {
    let mut taken = Vec::new();
    for datacenter in &DATACENTERS {
        let address = datacenter.address(network);
        let name = datacenter.name;
        for (port, what) in [(dns_port, "DNS"), (DNS_TLS_PORT, "DNS over QUIC")] {
            if let Err(error) = UdpSocket::bind((address, port)) {
                taken.push(format!("  {address}:{port} udp, {what} of {name}: {error}"));
            }
        }
        for (port, what) in [
            (dns_port, "DNS"),
            (DNS_TLS_PORT, "DNS over TLS"),
            (DNS_HTTPS_PORT, "DNS over HTTPS"),
            (GATEWAY_PORT, "front door"),
            (AGENT_PORT, "agent"),
            (ADMIN_PORT, "admin"),
        ] {
            if let Err(error) = TcpListener::bind((address, port)) {
                taken.push(format!("  {address}:{port} tcp, {what} of {name}: {error}"));
            }
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    Err(anyhow!(
        "the lab cannot have all its ports:\n{}\nIs another lab running? End it, or take other addresses: \
         `daemun lab --network 127.1`. `ss -tulpn` shows who has a port.",
        taken.join("\n")
    ))
}

/// A process that ended.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) datacenter: &'static LabDatacenter,
    pub(super) how: String,
}

/// The processes that are meant to run.
#[derive(Debug)]
pub(super) struct Processes {
    network: String,
    dns_port: u16,
    directory: PathBuf,
    program: PathBuf,
    running: Vec<(&'static LabDatacenter, Child)>,
}

impl Processes {
    pub(super) fn new(network: &str, dns_port: u16, directory: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        Ok(Self {
            network: network.to_owned(),
            dns_port,
            directory: directory.to_owned(),
            program,
            running: Vec::new(),
        })
    }

    /// The port of plain DNS.
    pub(super) fn dns_port(&self) -> u16 {
        self.dns_port
    }

    pub(super) fn network(&self) -> &str {
        &self.network
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a datacenter answers on a port.
    pub(super) fn at(&self, datacenter: &LabDatacenter, port: u16) -> SocketAddr {
        SocketAddr::from((datacenter.address(&self.network), port))
    }

    /// Starts a datacenter; its process id.
    pub(super) fn start(&mut self, datacenter: &'static LabDatacenter) -> anyhow::Result<u32> {
        let log = self.log(datacenter);
        let starting = || format!("starting {}", datacenter.name);
        let log = File::options().create(true).append(true).open(log).with_context(starting)?;
        let child = Command::new(&self.program)
            .args(["run", "--end-with-stdin", "--datacenter", datacenter.name, "--config"])
            .arg(self.directory.join(CONFIG))
            .arg("--data")
            .arg(self.directory.join(datacenter.name))
            .arg("--admin-token")
            .arg(self.directory.join(TOKEN))
            .arg("--store-token")
            .arg(self.directory.join(STORE_TOKEN))
            .arg("--keys")
            .arg(keys(&self.directory, datacenter))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().with_context(starting)?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(starting)?;
        let pid = child.id().with_context(starting)?;
        self.running.push((datacenter, child));
        Ok(pid)
    }

    /// Whether a drill keeps a datacenter dead.
    pub(super) fn is_held(&self, datacenter: &LabDatacenter) -> bool {
        held(&self.directory, datacenter).exists()
    }

    /// Where a datacenter's log goes.
    pub(super) fn log(&self, datacenter: &LabDatacenter) -> PathBuf {
        self.directory.join(format!("{}.log", datacenter.name))
    }

    pub(super) fn pid(&self, datacenter: &LabDatacenter) -> Option<u32> {
        self.running.iter().find(|(running, _)| *running == datacenter)?.1.id()
    }

    /// Ends a datacenter as a power cut would.
    pub(super) async fn kill(&mut self, datacenter: &LabDatacenter) -> anyhow::Result<()> {
        let killing = || format!("killing {}", datacenter.name);
        let at = self.running.iter().position(|(running, _)| *running == datacenter).with_context(killing)?;
        let (_, mut child) = self.running.remove(at);
        let pid = child.id().with_context(killing)?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL).with_context(killing)?;
        child.wait().await.with_context(killing)?;
        Ok(())
    }

    /// A process that ended without having been told to.
    pub(super) fn death(&mut self) -> Option<Death> {
        for at in 0..self.running.len() {
            let (datacenter, child) = &mut self.running[at];
            let (datacenter, ended) = (*datacenter, child.try_wait());
            let how = match ended {
                Ok(None) => continue,
                Ok(Some(status)) => status.to_string(),
                Err(error) => error.to_string(),
            };
            self.running.remove(at);
            return Some(Death { datacenter, how });
        }
        None
    }

    /// The next process to end.
    pub(super) async fn next_death(&mut self) -> Death {
        loop {
            if let Some(death) = self.death() {
                return death;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
