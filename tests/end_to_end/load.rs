//! Users: where DNS sends them they go, a few hundred times a second, and count what fails.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, NAMES, wait};

/// Longer than anything takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause of a user after each page.
const PAUSE: Duration = Duration::from_millis(8);
/// So many users at once.
const THREADS: usize = 3;

/// A kept connection to a front door.
pub(crate) struct Door {
    address: Ipv4Addr,
    stream: Option<TcpStream>,
}

impl Door {
    pub(crate) fn new(address: Ipv4Addr) -> Self {
        Self { address, stream: None }
    }

    /// Asks for a path on behalf of a client: status code and body. As browsers do, it asks once more when a kept
    /// connection was closed meanwhile.
    pub(crate) fn get(&mut self, path: &str, client: &str) -> io::Result<(u16, String)> {
        let was_kept = self.stream.is_some();
        let got = self.ask(path, client);
        let got = if got.is_err() && was_kept { self.ask(path, client) } else { got };
        if got.is_err() {
            self.stream = None;
        }
        got
    }

    fn ask(&mut self, path: &str, client: &str) -> io::Result<(u16, String)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let address = SocketAddr::from((self.address, 8080));
                let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\nx-forwarded-for: {client}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let answer = read_answer(&mut stream)?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

/// Status code and body of an answer with a length.
fn read_answer(stream: &mut TcpStream) -> io::Result<(u16, String)> {
    let mut answer = Vec::new();
    let mut more = [0; 16 << 10];
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
                return code.map(|code| (code, body.to_owned())).ok_or(io::ErrorKind::InvalidData.into());
            }
        }
        match stream.read(&mut more)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&more[..read]),
        }
    }
}

/// What users saw: how many times each datacenter was in the answer, and then served the page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    /// Which percentage was a datacenter's.
    pub(crate) fn share(&self, name: &str) -> f64 {
        let all: u64 = self.0.values().sum();
        100.0 * self.0.get(name).copied().unwrap_or(0) as f64 / all as f64
    }
}

/// Runs `act` under a steady load of these clients in turn; nothing of it may fail.
pub(crate) fn under_load<T>(fleet: &Fleet, clients: &[Ipv4Addr], act: impl FnOnce(&Load<'_>) -> T) -> T {
    let load = Load {
        fleet,
        clients,
        begun: Instant::now(),
        count: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        seen: Mutex::default(),
        failures: Mutex::default(),
    };
    let done = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let load = &load;
            scope.spawn(move || load.visit(thread));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&load)));
        load.is_over.store(true, Relaxed);
        done
    });
    let (count, rate) = (load.count.load(Relaxed), load.rate());
    let failures = load.failures.into_inner().unwrap();
    println!("load: {count} queries and as many requests, {rate:.0} a second, {} failed", failures.len());
    let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(
        failures.is_empty(),
        "{} failed, such as {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    done
}

/// A load that goes on.
pub(crate) struct Load<'a> {
    fleet: &'a Fleet,
    clients: &'a [Ipv4Addr],
    begun: Instant,
    count: AtomicU64,
    is_over: AtomicBool,
    seen: Mutex<Seen>,
    failures: Mutex<Vec<String>>,
}

impl Load<'_> {
    /// Queries a second, and requests.
    pub(crate) fn rate(&self) -> f64 {
        self.count.load(Relaxed) as f64 / self.begun.elapsed().as_secs_f64()
    }

    /// What users see from now on, in some rounds through all clients.
    pub(crate) fn look(&self, rounds: usize) -> Seen {
        self.take();
        let until = self.count.load(Relaxed) + (rounds * self.clients.len()) as u64;
        wait("so many users", || (self.count.load(Relaxed) >= until).then_some(()));
        self.take()
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    fn visit(&self, thread: usize) {
        let mut doors: BTreeMap<_, _> =
            NAMES.iter().map(|name| (*name, Door::new(self.fleet.address(name)))).collect();
        // Each goes through all clients, beginning somewhere else.
        let clients = self.clients.iter().cycle().skip(thread * self.clients.len() / THREADS);
        for (turn, client) in clients.enumerate() {
            if self.is_over.load(Relaxed) {
                return;
            }
            if let Err(what) = self.visit_once(NAMES[turn % NAMES.len()], *client, &mut doors) {
                self.failures.lock().unwrap().push(what);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn visit_once(
        &self,
        server: &str,
        client: Ipv4Addr,
        doors: &mut BTreeMap<&'static str, Door>,
    ) -> Result<(), String> {
        let answer = self.fleet.ask(server, "www.shop.test.", Some(&format!("{client}/24")));
        let answer = answer.map_err(|error| format!("{server}, asked for {client}: {error}"))?;
        let address = answer.answers.first().and_then(|record| record.data.ip_addr());
        let address = address.ok_or_else(|| format!("{server} gives {client} no address"))?;
        let went = self.fleet.whose(address);
        let page = doors.get_mut(went).unwrap().get("/", &client.to_string());
        match page {
            Ok((200, body)) if body.contains("</html>") => {}
            other => return Err(format!("the door of {went}, for {client}: {other:?}")),
        }
        *self.seen.lock().unwrap().0.entry(went).or_default() += 1;
        self.count.fetch_add(1, Relaxed);
        Ok(())
    }
}
