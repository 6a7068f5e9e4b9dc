//! Static stability: dns and gateway in processes of their own go on when every agent is dead. Network 127.25.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

use crate::fleet::{CLIENTS, Fleet, NAMES, wait};

/// The front door's answer to a request for its page.
fn page(fleet: &Fleet, name: &str) -> Option<String> {
    let mut stream = TcpStream::connect((fleet.address(name), 8080)).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn answers_go_on_without_any_agent_and_start_from_disk() {
    let mut fleet = Fleet::new(25, "");
    for name in NAMES {
        for role in ["dns", "gateway", "sync"] {
            fleet.start(name, role);
        }
    }
    fleet.wait_until_all_see_all();
    // What name servers and doors see feeds the one vote of their datacenter.
    for name in NAMES {
        wait(&format!("three processes of {name} to take turns looking"), || {
            (fleet.status(name)?["eyes"] == 3).then_some(())
        });
    }

    // One door dies, so that the last view has something to remember.
    fleet.kill("frankfurt", "gateway");
    for server in NAMES {
        wait(&format!("{server} to answer without frankfurt"), || {
            fleet.sent_to(server, CLIENTS[1]).filter(|name| *name != "frankfurt")
        });
    }
    for name in NAMES {
        fleet.kill(name, "sync");
    }
    let expected: Vec<_> = CLIENTS.iter().map(|client| fleet.sent_to("seoul", client)).collect();
    assert_eq!(expected[0], Some("seoul"));
    assert_ne!(expected[1], Some("frankfurt"));
    for _ in 0..200 {
        for server in NAMES {
            let now: Vec<_> = CLIENTS.iter().map(|client| fleet.sent_to(server, client)).collect();
            assert_eq!(now, expected, "{server} without agents");
        }
        let page = page(&fleet, "seoul").expect("a page");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("</html>"), "{page}");
    }

    // That nobody is heard is said to whoever wants to know (RFC 8914: Stale Answer).
    let is_told_stale = || {
        let edns = fleet.ask("virginia", "www.shop.test.", Some(CLIENTS[0])).ok()?.edns?;
        match edns.option(EdnsCode::Unknown(15))? {
            EdnsOption::Unknown(_, error) => error.starts_with(&[0, 3]).then_some(()),
            _ => None,
        }
    };
    wait("an answer that says it is stale", is_told_stale);

    // A name server that starts now has nobody to ask: it answers from what it kept.
    fleet.kill("seoul", "dns");
    fleet.start("seoul", "dns");
    wait("seoul's name server to answer", || fleet.sent_to("seoul", CLIENTS[0]));
    let now: Vec<_> = CLIENTS.iter().map(|client| fleet.sent_to("seoul", client)).collect();
    assert_eq!(now, expected, "from disk");

    // Agents back, the door back: the view goes on.
    for name in NAMES {
        fleet.start(name, "sync");
    }
    fleet.start("frankfurt", "gateway");
    for server in NAMES {
        wait(&format!("{server} to answer with frankfurt"), || {
            fleet.sent_to(server, CLIENTS[1]).filter(|name| *name == "frankfurt")
        });
    }
    assert!(
        fleet.terminate("virginia", "gateway") && fleet.terminate("virginia", "dns"),
        "they end well when asked"
    );
}
