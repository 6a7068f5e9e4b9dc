//! Steering as `dig` sees it, with Debian's `tor-geoipdb` as the world. Network 127.22.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::fleet::{CLIENTS, Fleet, NAMES, needs, scope, text};

pub(crate) const GEO: &str = "[geo]\nranges = [\"/usr/share/tor/geoip\", \"/usr/share/tor/geoip6\"]\n";

/// A small generator of numbers that look random, the same in every run.
pub(crate) fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        // splitmix64 (Steele, Lea and Flood 2014)
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[test]
fn three_countries_three_datacenters_one_truth_and_scopes_that_hold() {
    needs("/usr/share/tor/geoip", "tor-geoipdb");
    needs("/usr/bin/dig", "bind9-dnsutils");
    let fleet = Fleet::started(22, GEO);
    let mut random = numbers(7);
    for (client, expected) in CLIENTS.into_iter().zip(NAMES) {
        for server in NAMES {
            let dig = Command::new("dig")
                .args([&format!("@{}", fleet.address(server)), "-p", "5300", "www.shop.test", "A"])
                .arg(format!("+subnet={client}"))
                .output()
                .unwrap();
            let said = text(&dig.stdout);
            let address = fleet.address(expected).to_string();
            assert!(said.contains("status: NOERROR") && said.contains(" aa "), "{said}");
            assert!(
                said.lines().any(|line| line.starts_with("www.shop.test.") && line.ends_with(&address)),
                "{said}"
            );
            assert!(said.contains(&format!("CLIENT-SUBNET: {client}/")), "{said}");
        }
        // Brute force: no address inside the scope gets another answer.
        let answer = fleet.ask("seoul", "www.shop.test.", Some(client)).unwrap();
        let scope = scope(&answer);
        assert!((1..=32).contains(&scope), "{scope}");
        let base: Ipv4Addr = client.split('/').next().unwrap().parse().unwrap();
        let free = u32::MAX.checked_shr(scope.into()).unwrap_or(0);
        for _ in 0..300 {
            let inside = Ipv4Addr::from_bits(base.to_bits() & !free | random() as u32 & free);
            let server = NAMES[(random() % 3) as usize];
            assert_eq!(
                fleet.sent_to(server, &format!("{inside}/32")),
                Some(expected),
                "{inside} in /{scope} of {client}"
            );
        }
        // The same decision, explained.
        let config = fleet.config_path();
        let explain = fleet.tell(
            "virginia",
            &[
                "explain",
                "--name",
                "www.shop.test",
                "--client",
                client,
                "--config",
                config.to_str().unwrap(),
                "--json",
            ],
        );
        let placement: serde_json::Value = serde_json::from_slice(&explain.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&explain.stderr)));
        assert_eq!(placement["ranking"][0]["datacenter"], expected);
        assert_eq!(placement["scope"], scope);
    }
}
