//! Resolvers that people run, between daemun and its users: unbound and PowerDNS Recursor, which send EDNS
//! client subnets and cache by our scopes, and Knot Resolver, which does neither. What is judged is what
//! their clients are told. Networks 127.40 (unbound), 127.41 (pdns-recursor) and 127.42 (knot-resolver).

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::fleet::{CLIENTS, Fleet, NAMES, needs, scope, text, wait};
use crate::steering::numbers;

const ALL: &str = "dns,gateway,sync";
/// Where resolvers listen: not where multicast DNS does, which a desktop may have on every address.
const PORT: u16 = 5301;
/// Seconds in the harness's config.
const TTL: u32 = 5;
/// Fellows who ask after the first of their network. A resolver may now and then ask upstream twice, when a
/// server was slow, but not once for each of them.
const FELLOWS: u8 = 20;

/// A network of clients for each datacenter, and a name that no cache forgets while a test runs.
fn extra(half: u8) -> String {
    let mut extra =
        String::from("[[dns.names]]\nname = \"lasting.shop.test\"\npolicy = \"nearest\"\nttl = 86400\n");
    for name in NAMES {
        let network = client(half, name, 0);
        extra += &format!("[[dns.overrides]]\nprefixes = [\"{network}/24\"]\norder = [\"{name}\"]\n");
    }
    extra
}

/// An address in the network whose clients are a datacenter's.
fn client(half: u8, name: &str, host: u8) -> Ipv4Addr {
    let number = NAMES.iter().position(|known| *known == name).expect("one of the three");
    Ipv4Addr::new(127, half, number as u8 + 101, host)
}

/// A running resolver; it ends with this.
struct Resolver {
    half: u8,
    child: Child,
}

impl Resolver {
    /// Runs a resolver in a directory of its own, with `config` in `file` there, and waits until it answers.
    fn started(half: u8, fleet: &Fleet, file: &str, config: &str, command: &[&str]) -> Self {
        needs("/usr/bin/dig", "bind9-dnsutils");
        needs("/usr/bin/setpriv", "util-linux");
        let directory = fleet.path("resolver");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(file), config).unwrap();
        let log = File::create(fleet.path("log-resolver")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"]) // it cannot outlive a test that is killed
            .args(command)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let resolver = Self { half, child };
        let anyone = client(half, "seoul", 1);
        let (address, _) = wait("the resolver to answer", || resolver.ask(anyone, "static.shop.test", None));
        assert_eq!(address, IpAddr::from([192, 0, 2, 77]));
        resolver
    }

    /// What a client is told: an address, and for how many seconds. `subnet` is what it says of itself.
    fn ask(&self, client: Ipv4Addr, name: &str, subnet: Option<&str>) -> Option<(IpAddr, u32)> {
        let dig = Command::new("dig")
            .args(["-b", &client.to_string(), &format!("@127.{}.9.1", self.half), "-p", &PORT.to_string()])
            .args([name, "A", "+noall", "+answer", "+tries=1", "+time=5"])
            .args(subnet.map(|subnet| format!("+subnet={subnet}")))
            .output()
            .unwrap();
        let said = text(&dig.stdout);
        let fields: Vec<&str> =
            said.lines().find(|line| line.starts_with(name))?.split_whitespace().collect();
        Some((fields.last()?.parse().ok()?, fields.get(1)?.parse().ok()?))
    }

    /// Where a client is sent for a name.
    fn sends(&self, fleet: &Fleet, client: Ipv4Addr, name: &str, subnet: Option<&str>) -> &'static str {
        let (address, _) =
            wait(&format!("an answer for {client}, {subnet:?}"), || self.ask(client, name, subnet));
        fleet.whose(address)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many questions the three name servers have answered.
fn asked(fleet: &Fleet) -> u64 {
    NAMES.into_iter().map(|name| fleet.metric(name, "daemun_dns_queries_total", "") as u64).sum()
}

/// Clients of three networks, told apart by the address they ask from: each network is asked for upstream,
/// and the answer serves the others in it.
fn sends_each_network_to_its_own_and_asks_once(fleet: &Fleet, resolver: &Resolver) {
    for name in NAMES {
        let before = asked(fleet);
        let first = client(resolver.half, name, 1);
        assert_eq!(resolver.sends(fleet, first, "lasting.shop.test", None), name);
        let after = asked(fleet);
        assert!(after > before, "{first} is outside of every scope so far, and nobody was asked");
        for host in 2..2 + FELLOWS {
            let fellow = client(resolver.half, name, host);
            assert_eq!(resolver.sends(fleet, fellow, "lasting.shop.test", None), name);
        }
        let more = asked(fleet) - after;
        assert!(more < u64::from(FELLOWS), "{more} questions for {FELLOWS} fellows of {first}");
    }
}

/// Clients that name their own subnet, and scopes wider than it: whoever is inside is served from the cache,
/// and rightly.
fn caches_by_scope(fleet: &Fleet, resolver: &Resolver) {
    let anyone = client(resolver.half, "seoul", 1);
    let mut random = numbers(41);
    for (subnet, expected) in CLIENTS.into_iter().zip(NAMES) {
        let scope = scope(&fleet.ask("seoul", "lasting.shop.test.", Some(subnet)).unwrap());
        assert!((1..=16).contains(&scope), "{scope}");
        let before = asked(fleet);
        assert_eq!(resolver.sends(fleet, anyone, "lasting.shop.test", Some(subnet)), expected);
        let after = asked(fleet);
        assert!(after > before, "{subnet} is outside of every scope so far, and nobody was asked");
        let base: Ipv4Addr = subnet.split('/').next().unwrap().parse().unwrap();
        let free = u32::MAX >> scope;
        for _ in 0..FELLOWS {
            let inside = Ipv4Addr::from_bits(base.to_bits() & !free | random() as u32 & free);
            let fellow = format!("{inside}/24");
            let sent = resolver.sends(fleet, anyone, "lasting.shop.test", Some(&fellow));
            assert_eq!(sent, expected, "{inside} in /{scope} of {subnet}");
        }
        let more = asked(fleet) - after;
        assert!(more < u64::from(FELLOWS), "{more} questions for {FELLOWS} in /{scope} of {subnet}");
    }
}

/// One answer for all, and no answer for all, are cached for all: their scope is 0.
fn asks_once_for_what_is_the_same_for_all(fleet: &Fleet, resolver: &Resolver) {
    let told = |client: Ipv4Addr| {
        let told = wait("the same for all", || resolver.ask(client, "static.shop.test", None));
        assert_eq!(told.0, IpAddr::from([192, 0, 2, 77]));
        assert_eq!(resolver.ask(client, "nothing.shop.test", None), None);
    };
    told(client(resolver.half, "seoul", 1));
    let before = asked(fleet);
    for network in 110..110 + FELLOWS {
        told(Ipv4Addr::new(127, resolver.half, network, 1));
    }
    let more = asked(fleet) - before;
    assert!(more < u64::from(FELLOWS), "{more} questions for what was in the cache");
}

/// A power cut in Frankfurt, as a client of Frankfurt sees it; the time it took is printed, not judged.
fn follows_a_failover(fleet: &mut Fleet, resolver: &Resolver) {
    let user = client(resolver.half, "frankfurt", 1);
    assert_eq!(resolver.sends(fleet, user, "www.shop.test", None), "frankfurt");
    fleet.kill("frankfurt", ALL);
    let begun = Instant::now();
    let elsewhere = |fleet: &Fleet| {
        let (address, ttl) = resolver.ask(user, "www.shop.test", None)?;
        assert!(ttl <= TTL, "nobody may keep an answer longer than the {TTL} s that we said: {ttl}");
        Some(fleet.whose(address)).filter(|name| *name != "frankfurt")
    };
    wait("the client to be sent elsewhere", || elsewhere(fleet));
    println!("SIGKILL: the client is elsewhere after {:.2} s", begun.elapsed().as_secs_f64());
    fleet.start("frankfurt", ALL);
    wait("the client to be sent to frankfurt again", || {
        let (address, _) = resolver.ask(user, "www.shop.test", None)?;
        (fleet.whose(address) == "frankfurt").then_some(())
    });
}

#[test]
fn unbound_steers_by_client_caches_by_scope_and_fails_over() {
    needs("/usr/sbin/unbound", "unbound");
    let half = 40;
    let mut fleet = Fleet::started(half, &extra(half));
    let mut config = format!(
        "server:\n\
         directory: \"{directory}\"\nchroot: \"\"\nusername: \"\"\npidfile: \"\"\n\
         use-syslog: no\nlogfile: \"\"\nnum-threads: 1\ndo-ip6: no\n\
         interface: 127.{half}.9.1\nport: {PORT}\noutgoing-interface: 127.{half}.9.1\n\
         access-control: 127.0.0.0/8 allow\ndo-not-query-localhost: no\n\
         local-zone: \"test.\" nodefault\n\
         module-config: \"subnetcache iterator\"\nsend-client-subnet: 127.{half}.0.0/16\n\
         remote-control:\ncontrol-enable: no\n\
         stub-zone:\nname: \"shop.test\"\n",
        directory = fleet.path("resolver").display()
    );
    for name in NAMES {
        config += &format!("stub-addr: {}@5300\n", fleet.address(name));
    }
    let command = ["/usr/sbin/unbound", "-d", "-p", "-c", "unbound.conf"];
    let resolver = Resolver::started(half, &fleet, "unbound.conf", &config, &command);
    sends_each_network_to_its_own_and_asks_once(&fleet, &resolver);
    caches_by_scope(&fleet, &resolver);
    asks_once_for_what_is_the_same_for_all(&fleet, &resolver);
    follows_a_failover(&mut fleet, &resolver);
}

#[test]
fn pdns_recursor_steers_by_client_caches_by_scope_and_fails_over() {
    needs("/usr/sbin/pdns_recursor", "pdns-recursor");
    let half = 41;
    let mut fleet = Fleet::started(half, &extra(half));
    let servers = NAMES.map(|name| format!("{}:5300", fleet.address(name))).join(";");
    // Without hints, and from a loopback address, it can ask nobody else; it complains of that in its log.
    let config = format!(
        "daemon=no\ndisable-syslog=yes\nwrite-pid=no\nthreads=1\nsocket-dir={directory}\n\
         local-address=127.{half}.9.1\nlocal-port={PORT}\nquery-local-address=127.{half}.9.1\n\
         allow-from=127.0.0.0/8\ndont-query=\nhint-file=no\nsecurity-poll-suffix=\ndnssec=off\n\
         forward-zones=shop.test={servers}\n\
         edns-subnet-allow-list=shop.test\necs-add-for=0.0.0.0/0\nuse-incoming-edns-subnet=yes\n\
         ecs-ipv4-bits=24\necs-ipv4-cache-bits=24\n",
        directory = fleet.path("resolver").display()
    );
    let command = ["/usr/sbin/pdns_recursor", "--config-dir=."];
    let resolver = Resolver::started(half, &fleet, "recursor.conf", &config, &command);
    sends_each_network_to_its_own_and_asks_once(&fleet, &resolver);
    caches_by_scope(&fleet, &resolver);
    asks_once_for_what_is_the_same_for_all(&fleet, &resolver);
    follows_a_failover(&mut fleet, &resolver);
}

/// It sends no client subnets, so that all its clients are sent where it is itself.
#[test]
fn knot_resolver_is_steered_by_its_own_address_and_fails_over() {
    needs("/usr/sbin/kresd", "knot-resolver");
    let half = 42;
    let mut fleet = Fleet::started(half, &extra(half));
    let servers = NAMES.map(|name| format!("'{}@5300'", fleet.address(name))).join(", ");
    let config = format!(
        "net.ipv6 = false\n\
         net.outgoing_v4('{outgoing}')\n\
         net.listen('127.{half}.9.1', {PORT}, {{ kind = 'dns' }})\n\
         cache.size = 10 * MB\n\
         trust_anchors.remove('.')\n\
         modules.unload('ta_update')\nmodules.unload('ta_signal_query')\nmodules.unload('priming')\n\
         modules.unload('detect_time_skew')\n\
         policy.add(policy.suffix(policy.STUB({{ {servers} }}), policy.todnames({{ 'shop.test' }})))\n",
        outgoing = client(half, "frankfurt", 9)
    );
    let command = ["/usr/sbin/kresd", "--noninteractive", "--config=kresd.conf", "."];
    let resolver = Resolver::started(half, &fleet, "kresd.conf", &config, &command);
    for name in NAMES {
        let user = client(half, name, 1);
        assert_eq!(resolver.sends(&fleet, user, "lasting.shop.test", None), "frankfurt");
    }
    assert_eq!(resolver.ask(client(half, "seoul", 1), "nothing.shop.test", None), None);
    follows_a_failover(&mut fleet, &resolver);
}
