//! A fleet of real processes on loopback addresses, and a user's eyes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::network::{Net, Network, USERS, number};

/// Longest wait for anything; a test that needs it fails, naming what it waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// The admin token of all processes, and the file that it is in.
pub(crate) const TOKEN: &str = "the-token-of-the-tests";
pub(crate) const TOKEN_FILE: &str = "admin.token";
/// What applications show.
pub(crate) const STORE_TOKEN: &str = "the-applications-token";
const STORE_TOKEN_FILE: &str = "store.token";
const ASK: Duration = Duration::from_millis(500);

pub(crate) const NAMES: [&str; 3] = ["seoul", "frankfurt", "virginia"];
const POINTS: [(&str, &str); 3] = [("37.57", "126.98"), ("50.11", "8.68"), ("39.04", "-77.49")];

/// Clients that the built-in table and Debian's `tor-geoipdb` both place in Korea, Germany and the United States.
pub(crate) const CLIENTS: [&str; 3] = ["1.208.0.0/16", "91.0.0.0/16", "12.0.0.0/16"];

/// The program under test.
pub(crate) fn daemun() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daemun"));
    for variable in ["DAEMUN_API", "DAEMUN_ADMIN", "DAEMUN_TOKEN_FILE", "DAEMUN_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    daemun().args(arguments).output().expect("the program runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until `seen` gives something; `what` is said when it never does.
pub(crate) fn wait<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = seen() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Three datacenters; their processes end with this.
pub(crate) struct Fleet {
    pub(crate) directory: TempDir,
    half: u8,
    /// None: it is on loopback.
    network: Option<Network>,
    /// By name of datacenter and roles.
    processes: BTreeMap<(String, String), Child>,
}

impl Fleet {
    /// A fleet at 127.`half`, with `extra` at the end of its config. Nothing is started.
    pub(crate) fn new(half: u8, extra: &str) -> Self {
        Self::with_dns(half, "listen = [\"datacenter:5300\"]\n", extra)
    }

    /// The same with these lines in the `[dns]` section of its config.
    pub(crate) fn with_dns(half: u8, dns: &str, extra: &str) -> Self {
        Self::made(half, None, dns, extra)
    }

    /// A fleet in namespaces, with `extra` at the end of its config. Nothing is started.
    pub(crate) fn apart(extra: &str) -> Self {
        Self::made(0, Some(Network::new()), "listen = [\"datacenter:5300\"]\n", extra)
    }

    fn made(half: u8, network: Option<Network>, dns: &str, extra: &str) -> Self {
        let fleet = Self { directory: TempDir::new().unwrap(), half, network, processes: BTreeMap::new() };
        let config = fleet.config(extra).replace("listen = [\"datacenter:5300\"]\n", dns);
        fs::write(fleet.config_path(), config).unwrap();
        fs::write(fleet.path("shop.test.zone"), fleet.zone()).unwrap();
        fs::write(fleet.path(TOKEN_FILE), TOKEN).unwrap();
        fs::write(fleet.path(STORE_TOKEN_FILE), STORE_TOKEN).unwrap();
        let keys = fleet.path("keys");
        let make = |arguments: &[&str]| {
            let made = daemun().arg("keys").args(arguments).arg("--directory").arg(&keys).output().unwrap();
            assert!(made.status.success(), "{}", text(&made.stderr));
        };
        make(&["init", "--fleet", "test"]);
        NAMES.iter().for_each(|name| make(&["issue", name]));
        fleet
    }

    /// The same, with all three running and answering.
    pub(crate) fn started(half: u8, extra: &str) -> Self {
        let mut fleet = Self::new(half, extra);
        fleet.start_all();
        fleet
    }

    /// Starts all three, and waits until they know of each other.
    pub(crate) fn start_all(&mut self) {
        for name in NAMES {
            self.start(name, "dns,gateway,sync");
        }
        self.wait_until_all_see_all();
    }

    /// The networks of a fleet in namespaces.
    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().expect("a fleet in namespaces")
    }

    /// Does something in a datacenter, or where the users are.
    pub(crate) fn inside<T: Send>(&self, name: &str, act: impl FnOnce() -> T + Send) -> T {
        match &self.network {
            Some(network) => network.inside(name, act),
            None => act(),
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.path("daemun.toml")
    }

    pub(crate) fn address(&self, name: &str) -> Ipv4Addr {
        match self.network {
            Some(_) => Net::Public.address(number(name)),
            None => Ipv4Addr::new(127, self.half, number(name) + 1, 1),
        }
    }

    /// Where its agent is for the others.
    pub(crate) fn agent(&self, name: &str) -> Ipv4Addr {
        match self.network {
            Some(_) => Net::Private.address(number(name)),
            None => self.address(name),
        }
    }

    /// Name of the datacenter with an address.
    pub(crate) fn whose(&self, address: IpAddr) -> &'static str {
        NAMES
            .into_iter()
            .find(|name| IpAddr::from(self.address(name)) == address)
            .expect("an address of the fleet")
    }

    pub(crate) fn config(&self, extra: &str) -> String {
        let mut config = String::from("version = 1\n[fleet]\nname = \"test\"\n");
        for (name, (latitude, longitude)) in NAMES.iter().zip(POINTS) {
            let (address, agent) = (self.address(name), self.agent(name));
            config += &format!(
                "[[datacenters]]\nname = \"{name}\"\nlatitude = {latitude}\nlongitude = {longitude}\n\
                 addresses = [\"{address}\"]\nagent = \"https://{agent}:7400\"\n\
                 [[servers]]\nname = \"door-{name}\"\nrole = \"frontdoor\"\ndatacenter = \"{name}\"\n\
                 url = \"http://{address}:8080/\"\n"
            );
        }
        config += "[dns]\nlisten = [\"datacenter:5300\"]\n\
                   [[dns.zones]]\nname = \"shop.test\"\nfile = \"shop.test.zone\"\n\
                   [[dns.names]]\nname = \"www.shop.test\"\npolicy = \"nearest\"\nttl = 5\n\
                   [gateway]\nlisten = [\"datacenter:8080\"]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.77.1.0/24\"]\n\
                   [store]\nlisten = [\"datacenter:7420\"]\n\
                   [sync]\nlisten = [\"agent:7400\"]\nadmin = [\"datacenter:7480\"]\n\
                   return = { hold_down = \"1s\", hold_down_max = \"2s\", ramp_step = \"500ms\", catch_up = \"500ms\", per_hour = 3600 }\n";
        config + extra
    }

    pub(crate) fn zone(&self) -> String {
        let mut zone = String::from("$TTL 300\n@ SOA ns-seoul hostmaster 1 7200 1800 259200 60\n");
        for name in NAMES {
            zone += &format!("@ NS ns-{name}\nns-{name} A {}\n", self.address(name));
        }
        zone + "static A 192.0.2.77\n"
    }

    /// Starts roles of a datacenter.
    pub(crate) fn start(&mut self, name: &str, roles: &str) {
        // Processes that share a machine cannot share an admin port.
        let admin = match roles {
            "dns" => 7481,
            "gateway" => 7482,
            _ => 7480,
        };
        let key = (name.to_owned(), roles.to_owned());
        let log = self.log(name, roles);
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = daemun();
        command
            .args(["run", "--datacenter", name, "--role", roles, "--end-with-stdin", "--config"])
            .arg(self.config_path())
            .arg("--data")
            .arg(self.path(&format!("data-{name}-{roles}")))
            .arg("--keys")
            .arg(self.path("keys").join(name))
            .arg("--admin-token")
            .arg(self.path(TOKEN_FILE))
            .arg("--store-token")
            .arg(self.path(STORE_TOKEN_FILE))
            .arg("--admin-listen")
            .arg(SocketAddr::from((self.address(name), admin)).to_string())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = self.inside(name, || command.spawn()).unwrap();
        assert!(self.processes.insert(key, child).is_none(), "{name} {roles} runs already");
    }

    pub(crate) fn log(&self, name: &str, roles: &str) -> PathBuf {
        self.path(&format!("log-{name}-{roles}"))
    }

    pub(crate) fn signal(&self, name: &str, roles: &str, signal: Signal) {
        let child = &self.processes[&(name.to_owned(), roles.to_owned())];
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }

    /// Ends roles of a datacenter as a power cut would.
    pub(crate) fn kill(&mut self, name: &str, roles: &str) {
        let mut child = self.processes.remove(&(name.to_owned(), roles.to_owned())).expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks roles of a datacenter to end; true if it ends well.
    pub(crate) fn terminate(&mut self, name: &str, roles: &str) -> bool {
        self.signal(name, roles, Signal::SIGTERM);
        self.ended(name, roles)
    }

    /// Waits until roles of a datacenter have ended by themselves; true if they ended well.
    pub(crate) fn ended(&mut self, name: &str, roles: &str) -> bool {
        let key = (name.to_owned(), roles.to_owned());
        let child = self.processes.get_mut(&key).expect("it runs");
        let ended = wait("the process to end", || child.try_wait().unwrap());
        self.processes.remove(&key);
        ended.success()
    }

    /// Waits until every agent has seen every door up: what a test changes later is then the only change.
    pub(crate) fn wait_until_all_see_all(&self) {
        for name in NAMES {
            wait(&format!("{name} to see all doors"), || {
                let status = self.status(name)?;
                let view = &status["view"];
                let all_up = NAMES.iter().all(|door| {
                    let why = view["servers"][format!("door-{door}")]["why"].as_str().unwrap_or_default();
                    NAMES.iter().filter(|observer| *observer != door).all(|observer| why.contains(observer))
                });
                all_up.then_some(())
            });
        }
    }

    /// Runs a verb that asks a datacenter's main process.
    pub(crate) fn tell(&self, name: &str, arguments: &[&str]) -> Output {
        let url = format!("http://{}:7480", self.address(name));
        let mut command = daemun();
        command.args(arguments).args(["--admin", &url, "--token-file"]).arg(self.path(TOKEN_FILE));
        self.inside(name, || command.output()).expect("the program runs")
    }

    /// The status of a datacenter's main process.
    pub(crate) fn status(&self, name: &str) -> Option<serde_json::Value> {
        let output = self.tell(name, &["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// The metrics of a datacenter's main process.
    pub(crate) fn metrics(&self, name: &str) -> String {
        let mut stream = self.inside(name, || TcpStream::connect((self.address(name), 7480))).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).unwrap();
        metrics
    }

    /// The sum of a metric over its labels that contain `labels`.
    pub(crate) fn metric(&self, name: &str, metric: &str, labels: &str) -> f64 {
        let metrics = self.metrics(name);
        let of_metric = metrics.lines().filter(|line| {
            line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(labels)
        });
        of_metric.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The number of the process that has these roles.
    pub(crate) fn pid(&self, name: &str, roles: &str) -> u32 {
        self.processes[&(name.to_owned(), roles.to_owned())].id()
    }

    /// The answer of a datacenter's name server.
    pub(crate) fn ask(&self, server: &str, name: &str, client: Option<&str>) -> io::Result<Message> {
        self.inside(USERS, || ask(SocketAddr::from((self.address(server), 5300)), name, client))
    }

    /// Where a datacenter's name server sends a client.
    pub(crate) fn sent_to(&self, server: &str, client: &str) -> Option<&'static str> {
        let answer = self.ask(server, "www.shop.test.", Some(client)).ok()?;
        let address = answer.answers.first()?.data.ip_addr()?;
        Some(self.whose(address))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for entry in fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with("log-") {
                    let log = fs::read_to_string(entry.path()).unwrap_or_default();
                    eprintln!("---- {}\n{log}", entry.file_name().to_string_lossy());
                }
            }
        }
    }
}

/// One query over UDP, for a client subnet if one is given.
pub(crate) fn ask(server: SocketAddr, name: &str, client: Option<&str>) -> io::Result<Message> {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if let Some(client) = client {
        let net: ipnet::IpNet = client.parse().unwrap();
        let mut edns = Edns::new();
        let subnet = ClientSubnet::new(net.addr(), net.prefix_len(), 0);
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
        query.edns = Some(edns);
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(ASK))?;
    socket.connect(server)?;
    socket.send(&query.to_vec().unwrap())?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer)?;
    Ok(Message::from_vec(&buffer[..length]).expect("answers parse"))
}

/// Scope of an answer's client subnet.
pub(crate) fn scope(answer: &Message) -> u8 {
    match answer.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Subnet)) {
        Some(EdnsOption::Subnet(subnet)) => subnet.scope_prefix(),
        other => panic!("no client subnet in the answer: {other:?}"),
    }
}

/// Fails, saying what to install, when a file that `./tests/run` installs is not there.
pub(crate) fn needs(path: &str, package: &str) {
    assert!(Path::new(path).exists(), "{path} is missing: install Debian's `{package}`, as ./tests/run does");
}
