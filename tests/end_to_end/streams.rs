//! Many queries on one connection, many slow connections, and reloads under fire. Networks 127.47, 127.51 and 127.52.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::fleet::{Fleet, ask, wait};
use crate::transports::{answer, query};

const ALL: &str = "dns,gateway,sync";

#[test]
fn pipelined_queries_are_all_answered() {
    let mut fleet = Fleet::new(51, "");
    fleet.start("seoul", ALL);
    wait("seoul's name server", || fleet.ask("seoul", "static.shop.test.", None).ok());
    let mut stream = TcpStream::connect((fleet.address("seoul"), 5300)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut all: Vec<u8> = (0..500).flat_map(|id| query("static.shop.test.", id)).collect();
    let last = all.split_off(all.len() - 3);
    stream.write_all(&all).unwrap();
    for id in 0..499 {
        assert_eq!(answer(&mut stream).unwrap().metadata.id, id);
    }
    // The rest of the last, and no more: who has said all still gets its answer.
    stream.write_all(&last).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(&mut stream).unwrap().metadata.id, 499);
    assert!(answer(&mut stream).is_err(), "then it is over");
    // What is no query ends the connection at once.
    for nonsense in [&[0, 0][..], &[0, 3, 1, 2, 3], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut lost = TcpStream::connect((fleet.address("seoul"), 5300)).unwrap();
        lost.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        lost.write_all(nonsense).unwrap();
        assert!(answer(&mut lost).is_err());
    }
}

/// How long 99 of 100 answers took at most, over UDP and TCP; every query is answered.
fn p99(server: SocketAddr, rounds: usize) -> Duration {
    let mut took: Vec<Duration> = (0..rounds)
        .map(|round| {
            let begun = Instant::now();
            if round % 2 == 0 {
                ask(server, "static.shop.test.", None).expect("an answer over UDP");
            } else {
                let mut stream = TcpStream::connect(server).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                stream.write_all(&query("static.shop.test.", 1)).unwrap();
                answer(&mut stream).expect("an answer over TCP");
            }
            begun.elapsed()
        })
        .collect();
    took.sort();
    took[rounds * 99 / 100]
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_slow_clients_hold_up_nobody() {
    const SLOW: u16 = 1000;
    /// What a thousand connections may cost: 64 KiB each.
    const KIB_MAX: u64 = 64 * 1024;
    // A connection is a file: here, and there, where it raises the limit by itself.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let mut fleet = Fleet::new(52, "");
    fleet.start("seoul", ALL);
    let server = SocketAddr::from((fleet.address("seoul"), 5300));
    wait("seoul's name server", || fleet.ask("seoul", "static.shop.test.", None).ok());
    let alone = p99(server, 400);
    let before = resident_kib(fleet.pid("seoul", ALL));
    let mut slow: Vec<TcpStream> = (0..SLOW)
        .map(|number| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let source = Ipv4Addr::new(127, 52, 100 + (number / 250) as u8, 1 + (number % 250) as u8);
            socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
            socket.connect(&server.into()).unwrap();
            TcpStream::from(socket)
        })
        .collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let dripping = scope.spawn(|| {
            let whole = query("static.shop.test.", 1);
            for at in 0.. {
                if over.load(Relaxed) {
                    break;
                }
                for stream in &mut slow {
                    let _ = stream.write_all(&whole[at % (whole.len() - 1)..=at % (whole.len() - 1)]);
                }
                std::thread::sleep(Duration::from_secs(1)); // the rate of the clients, not a wait
            }
        });
        wait("them all to be connected", || {
            (fleet.metric("seoul", "daemun_dns_connections", "tcp") >= f64::from(SLOW)).then_some(())
        });
        let among = p99(server, 400);
        let after = resident_kib(fleet.pid("seoul", ALL));
        println!(
            "p99 {alone:?} alone, {among:?} among {SLOW} slow clients; {} KiB more",
            after.saturating_sub(before)
        );
        assert!(after < before + KIB_MAX, "{before} KiB before, {after} KiB with them");
        // A byte now and then is no query: they all lose their place, and the others never waited.
        wait("the slow to be dropped", || {
            (fleet.metric("seoul", "daemun_dns_connections_closed_total", "idle") >= f64::from(SLOW) * 0.9)
                .then_some(())
        });
        over.store(true, Relaxed);
        dripping.join().unwrap();
    });
    // More than there may be: newcomers take the places of the longest idle.
    let many: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(server).unwrap()).collect();
    wait("the client's limit", || {
        (fleet.metric("seoul", "daemun_dns_connections_closed_total", "client_limit") >= 72.0).then_some(())
    });
    p99(server, 20);
    drop(many);
}

fn serial(server: SocketAddr) -> Option<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("shop.test.").unwrap(), RecordType::SOA));
    socket.connect(server).ok()?;
    socket.send(&message.to_vec().unwrap()).ok()?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).ok()?;
    match &Message::from_vec(&buffer[..length]).ok()?.answers.first()?.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    }
}

#[test]
fn zones_are_reloaded_without_losing_a_query() {
    const RELOADS: u32 = 10;
    let mut fleet = Fleet::new(47, "");
    fleet.start("seoul", ALL);
    let server = SocketAddr::from((fleet.address("seoul"), 5300));
    wait("seoul's name server", || serial(server));
    let zone = fleet.zone();
    let (over, asked, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    asked.fetch_add(1, Relaxed);
                    lost.fetch_add(serial(server).is_none().into(), Relaxed);
                }
            });
        }
        for number in 2..=RELOADS {
            fs::write(
                fleet.path("shop.test.zone"),
                zone.replace("hostmaster 1 ", &format!("hostmaster {number} ")),
            )
            .unwrap();
            fleet.signal("seoul", ALL, Signal::SIGHUP);
            wait(&format!("serial {number}"), || (serial(server) == Some(number)).then_some(()));
        }
        over.store(true, Relaxed);
    });
    println!("{} queries during {} reloads, {} lost", asked.load(Relaxed), RELOADS - 1, lost.load(Relaxed));
    assert_eq!(lost.load(Relaxed), 0);
    assert!(fleet.metric("seoul", "daemun_dns_zone_serial", "shop.test") == f64::from(RELOADS));
    // A bad file: the last good stays, and it shows.
    let loaded = fleet.metric("seoul", "daemun_dns_zone_loaded_timestamp_seconds", "shop.test");
    fs::write(fleet.path("shop.test.zone"), zone.replace("static A", "static AA")).unwrap();
    wait("the refusal in the metrics", || {
        (fleet.metric("seoul", "daemun_dns_zone_refused", "shop.test") == 1.0).then_some(())
    });
    assert_eq!(serial(server), Some(RELOADS));
    assert!(fleet.metric("seoul", "daemun_dns_zone_loaded_timestamp_seconds", "shop.test") == loaded);
    let status = fleet.status("seoul").unwrap();
    assert_eq!(status["zones"][0]["is_refused"], true, "{status}");
    assert!(status["complaints"].to_string().contains("record type"), "{status}");
}
