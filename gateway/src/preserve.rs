//! Self-preservation of the server list: when a new config has no more than half of the servers that a role had, that is more
//! likely a mistake in what writes the config than the end of most servers. Those that went stay listed, their health
//! unknown, until an operator says that it is meant, or for a time: a list that never forgets is wrong too.

use daemun_fleet::config::{Fleet, Server};

/// How long who went stays listed.
const STAY_MS: u64 = 5 * 60 * 1000;

/// A server that the config has no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// As the config had it; its datacenter is a number of the config of now.
    pub server: Server,
    datacenter: String,
    until_unix_ms: u64,
}

/// Who stays listed when the fleet changes, though it is not in the new one. `is_meant`: an operator has said so.
pub fn kept(
    before: &Fleet,
    kept_before: &[Kept],
    now: &Fleet,
    is_meant: bool,
    now_unix_ms: u64,
) -> Vec<Kept> {
    if is_meant {
        return Vec::new();
    }
    let is_gone = |server: &Server| now.servers.iter().all(|other| other.name != server.name);
    let earlier = kept_before.iter().filter(|kept| kept.until_unix_ms > now_unix_ms && is_gone(&kept.server));
    let mut all: Vec<Kept> = earlier.cloned().collect();
    for server in before.servers.iter().filter(|server| is_gone(server)) {
        let of_role = |other: &&Server| other.role == server.role;
        let (had, went) = (
            before.servers.iter().filter(of_role).count(),
            before.servers.iter().filter(of_role).filter(|other| is_gone(other)).count(),
        );
        if went * 2 > had {
            let datacenter = before.datacenters[server.datacenter].name.clone();
            all.push(Kept { server: server.clone(), datacenter, until_unix_ms: now_unix_ms + STAY_MS });
        }
    }
    // A datacenter that is no more takes its servers along: nobody could say where they are.
    all.retain_mut(|kept| match now.datacenter(&kept.datacenter) {
        Some(number) => {
            kept.server.datacenter = number;
            true
        }
        None => false,
    });
    all
}

/// Those whose time is not over.
pub fn still(kept: &[Kept], now_unix_ms: u64) -> Vec<Kept> {
    kept.iter().filter(|kept| kept.until_unix_ms > now_unix_ms).cloned().collect()
}

#[cfg(test)]
mod tests {
    use daemun_fleet::Config;

    use super::*;

    fn fleet(servers: &[&str]) -> Fleet {
        let mut text = String::from(
            "version = 1\nfleet.name = \"shop\"\n[[datacenters]]\nname = \"seoul\"\nlatitude = 37.5\n\
             longitude = 127.0\naddresses = [\"192.0.2.1\"]\nagent = \"https://a:7400\"\n",
        );
        for name in servers {
            text += &format!(
                "[[servers]]\nname = \"{name}\"\nrole = \"api\"\ndatacenter = \"seoul\"\ncheck = {{ none = true }}\n"
            );
        }
        Config::parse("daemun.toml", &text).unwrap().fleet
    }

    fn names(kept: &[Kept]) -> Vec<&str> {
        kept.iter().map(|kept| kept.server.name.as_str()).collect()
    }

    #[test]
    fn most_of_a_role_does_not_vanish_at_once() {
        let four = fleet(&["a", "b", "c", "d"]);
        assert!(names(&kept(&four, &[], &fleet(&["a", "b"]), false, 0)).is_empty(), "half may");
        let stay = kept(&four, &[], &fleet(&["a"]), false, 0);
        assert_eq!(names(&stay), ["b", "c", "d"]);
        assert!(kept(&four, &[], &fleet(&["a"]), true, 0).is_empty(), "it is meant");
        let again = kept(&fleet(&["a"]), &stay, &fleet(&["a", "c"]), false, STAY_MS - 1);
        assert_eq!(names(&again), ["b", "d"], "one is back");
        assert!(still(&again, STAY_MS).is_empty(), "not for ever");
        assert!(kept(&fleet(&["a"]), &stay, &fleet(&["a"]), false, STAY_MS).is_empty());
    }
}
