//! Networks to cut: each datacenter in a network namespace of its own, and the users in one. Two switches join them, one for
//! what is public (doors, DNS), one for what is private (agents among themselves):
//!
//! ```text
//!  seoul ──┬──────────── public  10.77.1.0/24 ──┬── users
//!          └──────────── private 10.77.2.0/24   │
//!  frankfurt, virginia: the same                └── …
//! ```
//!
//! The namespaces have no names: they end with the file descriptors that hold them, whatever becomes of the test.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

use crate::fleet::{NAMES, needs};

/// Where users are.
pub(crate) const USERS: &str = "users";
/// Where the switches are.
const BETWEEN: &str = "between";
/// A neighbour that is not there: what is sent to it is lost without a word.
const NOBODY: &str = "02:00:00:00:00:99";

/// One of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    /// Users, doors, DNS.
    Public,
    /// Agents.
    Private,
}

impl Net {
    fn name(self) -> &'static str {
        match self {
            Net::Public => "public",
            Net::Private => "private",
        }
    }

    /// The address there of the datacenter with this number.
    pub(crate) fn address(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, if self == Net::Public { 1 } else { 2 }, number + 1)
    }
}

/// The namespaces, by who is in them.
#[derive(Debug)]
pub(crate) struct Network(BTreeMap<&'static str, File>);

impl Network {
    /// Makes them all, with every link up.
    pub(crate) fn new() -> Self {
        needs("/usr/sbin/ip", "iproute2");
        let names = NAMES.into_iter().chain([USERS, BETWEEN]);
        let network = Self(names.map(|name| (name, namespace())).collect());
        let mut between = String::from("link set lo up\n");
        for net in ["public", "private"] {
            between += &format!("link add {net} type bridge\nlink set {net} up\n");
        }
        for (number, name) in (0..).zip(NAMES) {
            let mut within = String::new();
            for net in [Net::Public, Net::Private] {
                between += &network.cable(name, net);
                within += &up(net, net.address(number));
            }
            network.after(BETWEEN, &std::mem::take(&mut between));
            network.after(name, &within);
        }
        network.after(BETWEEN, &network.cable(USERS, Net::Public));
        network.after(USERS, &up(Net::Public, Net::Public.address(99)));
        network
    }

    /// A cable from somewhere to a switch.
    fn cable(&self, name: &str, net: Net) -> String {
        let (end, net) = (port(name, net), net.name());
        let there = format!("/proc/{}/fd/{}", std::process::id(), self.0[name].as_raw_fd());
        format!(
            "link add {end} type veth peer name {net} netns {there}\nlink set {end} master {net}\nlink set {end} up\n"
        )
    }

    /// What `act` gives when it is done by somebody within; what it starts stays there.
    pub(crate) fn inside<T: Send>(&self, name: &str, act: impl FnOnce() -> T + Send) -> T {
        let namespace = &self.0[name];
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("entering a network namespace");
                act()
            });
            done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Waits until `ip` has done these lines within.
    fn after(&self, name: &str, lines: &str) {
        let output = self.inside(name, || {
            let mut ip = Command::new("ip");
            ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = ip.spawn().unwrap();
            child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip in {name}: {said}\n{lines}");
    }

    /// Pulls the cable of a datacenter out of a switch.
    pub(crate) fn pull_out(&self, name: &str, net: Net) {
        self.after(BETWEEN, &format!("link set {} down\n", port(name, net)));
    }

    /// Plugs it in again.
    pub(crate) fn plug_in(&self, name: &str, net: Net) {
        self.after(BETWEEN, &format!("link set {} up\n", port(name, net)));
    }

    /// From now on, whatever one sends another there is lost; what the other sends still comes.
    pub(crate) fn lose(&self, from: &str, to: &str, net: Net) {
        let (to, dev) = (net.address(number(to)), net.name());
        self.after(from, &format!("neigh replace {to} lladdr {NOBODY} dev {dev} nud permanent\n"));
    }

    /// Nothing is lost any more.
    pub(crate) fn find(&self, from: &str, to: &str, net: Net) {
        let (to, dev) = (net.address(number(to)), net.name());
        self.after(from, &format!("neigh del {to} dev {dev}\n"));
    }
}

/// Number of a datacenter.
pub(crate) fn number(name: &str) -> u8 {
    NAMES.iter().position(|known| *known == name).expect("one of the three") as u8
}

/// The end at the switch: names of interfaces have at most 15 letters.
fn port(name: &str, net: Net) -> String {
    format!("{}-{}", &net.name()[..3], name)
}

fn up(net: Net, address: Ipv4Addr) -> String {
    let net = net.name();
    format!("link set lo up\naddr add {address}/24 dev {net}\nlink set {net} up\n")
}

/// A network namespace with nothing in it.
fn namespace() -> File {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
            panic!("a network namespace takes root ({error}): run the tests as root, or by `unshare --map-root-user`")
        });
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
