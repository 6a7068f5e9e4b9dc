//! The lab's datacenters, and the files it writes for them.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::clock;
use crate::keys::make;

/// Plain DNS, unless told otherwise.
pub(super) const DNS_PORT: u16 = 5300;
/// DNS over TLS and, by UDP, over QUIC.
pub(super) const DNS_TLS_PORT: u16 = 8530;
/// DNS over HTTPS.
pub(super) const DNS_HTTPS_PORT: u16 = 8443;
pub(super) const GATEWAY_PORT: u16 = 8080;
pub(super) const AGENT_PORT: u16 = 7400;
pub(super) const ADMIN_PORT: u16 = 7480;
/// Applications' API.
pub(super) const STORE_PORT: u16 = 7420;

/// The steered name.
pub(super) const NAME: &str = "www.shop.test";
/// File name of the config.
pub(super) const CONFIG: &str = "daemun.toml";
/// File name of the admin token, the same for all three.
pub(super) const TOKEN: &str = "admin.token";
/// File name of the applications' token, the same for all three.
pub(super) const STORE_TOKEN: &str = "store.token";
/// File name of the certificate that the lab's name servers show: its own maker, so that clients can be told to trust it.
pub(super) const CERTIFICATE: &str = "lab.pem";
/// Directory of the agents' keys: nobody else's is called so.
const KEYS: &str = "lab-keys";
/// Name of the fleet.
const FLEET: &str = "lab";
/// How long the agents' keys are valid: a lab that is left alone for longer is started anew.
const KEYS_DAYS: u64 = 365;

/// A datacenter of the lab.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LabDatacenter {
    pub(super) name: &'static str,
    number: u8,
    latitude: &'static str,
    longitude: &'static str,
    /// An address whose user is nearest to it.
    pub(super) client: Ipv4Addr,
    /// Where that user is, for people.
    pub(super) country: &'static str,
}

impl LabDatacenter {
    /// Its address on a network such as `127.0`.
    pub(super) fn address(&self, network: &str) -> Ipv4Addr {
        let half = network.strip_prefix("127.").and_then(|half| half.parse().ok()).unwrap_or(0);
        Ipv4Addr::new(127, half, self.number, 1)
    }
}

pub(super) const DATACENTERS: [LabDatacenter; 3] = [
    LabDatacenter {
        name: "seoul",
        number: 1,
        latitude: "37.57",
        longitude: "126.98",
        client: Ipv4Addr::new(1, 208, 0, 0),
        country: "Korea",
    },
    LabDatacenter {
        name: "frankfurt",
        number: 2,
        latitude: "50.11",
        longitude: "8.68",
        client: Ipv4Addr::new(91, 0, 0, 0),
        country: "Germany",
    },
    LabDatacenter {
        name: "virginia",
        number: 3,
        latitude: "39.04",
        longitude: "-77.49",
        client: Ipv4Addr::new(3, 0, 0, 0),
        country: "the United States",
    },
];

/// Writes config and zone. What an earlier lab left (its facts, its view) is taken away: a lab begins from nothing.
pub(super) fn write(directory: &Path, network: &str, dns_port: u16) -> anyhow::Result<()> {
    let writing = || format!("writing the lab's files to {}", directory.display());
    fs::create_dir_all(directory).with_context(writing)?;
    for datacenter in &DATACENTERS {
        let data = directory.join(datacenter.name);
        let _ = fs::remove_file(held(directory, datacenter));
        if data.join("view.json").exists() || data.join("facts.json").exists() {
            fs::remove_dir_all(&data).with_context(writing)?;
        }
    }
    let (certificate, key) = certificate(network).context("making the lab's certificate")?;
    fs::write(directory.join(CERTIFICATE), certificate).with_context(writing)?;
    write_secret(&directory.join("lab.key"), &key).with_context(writing)?;
    write_secret(&directory.join(TOKEN), &crate::admin::token::make()?).with_context(writing)?;
    write_secret(&directory.join(STORE_TOKEN), &crate::admin::token::make()?).with_context(writing)?;
    write_secret(&directory.join("cookie.secrets"), &cookie_secret()?).with_context(writing)?;
    write_keys(directory)?;
    fs::write(directory.join(CONFIG), config(network, dns_port)).with_context(writing)?;
    fs::write(directory.join("shop.test.zone"), zone(network)).with_context(writing)
}

/// The file that keeps a killed datacenter dead.
pub(super) fn held(directory: &Path, datacenter: &LabDatacenter) -> PathBuf {
    directory.join(datacenter.name).join("held")
}

/// Where the keys of a datacenter's agent are.
pub(super) fn keys(directory: &Path, datacenter: &LabDatacenter) -> PathBuf {
    directory.join(KEYS).join(datacenter.name)
}

/// An authority and a certificate for each datacenter, anew, as `daemun keys` makes them.
fn write_keys(directory: &Path) -> anyhow::Result<()> {
    let directory = directory.join(KEYS);
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    let now_unix_s = clock::unix_ms() / 1000;
    make::init(&directory, FLEET, now_unix_s)?;
    for datacenter in &DATACENTERS {
        make::issue(&directory, datacenter.name, KEYS_DAYS, now_unix_s)?;
    }
    Ok(())
}

/// A file that only its owner reads.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn cookie_secret() -> anyhow::Result<String> {
    let mut secret = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut secret).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(format!("{:032x}\n", u128::from_be_bytes(secret)))
}

/// A certificate for the names and addresses of the lab's name servers, and its key.
fn certificate(network: &str) -> Result<(String, String), rcgen::Error> {
    let names = DATACENTERS.iter().flat_map(|datacenter| {
        [format!("ns-{}.shop.test", datacenter.name), datacenter.address(network).to_string()]
    });
    let made = rcgen::generate_simple_self_signed(names.collect::<Vec<_>>())?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

fn config(network: &str, dns_port: u16) -> String {
    let mut text = format!(
        "# The lab's fleet. Written anew by each `daemun lab`; detection is as by default, the return is shortened.\n\
         version = 1\n\n[fleet]\nname = \"{FLEET}\"\n\n\
         [dns]\nlisten = [\"datacenter:{dns_port}\"]\n\
         tls_listen = [\"datacenter:{DNS_TLS_PORT}\"]\nquic_listen = [\"datacenter:{DNS_TLS_PORT}\"]\n\
         https_listen = [\"datacenter:{DNS_HTTPS_PORT}\"]\n\
         certificate = \"{CERTIFICATE}\"\nkey = \"lab.key\"\ncookie_secrets = \"cookie.secrets\"\n\
         chaos = [\"id\", \"version\"]\n\n\
         [[dns.zones]]\nname = \"shop.test\"\nfile = \"shop.test.zone\"\n\n\
         [[dns.names]]\nname = \"{NAME}\"\npolicy = \"nearest\"\nttl = 5\n\
         types = [\"A\"]\nrecords.HTTPS = \"1 . alpn=h2\"\n\n\
         [[dns.names]] # the apex too\nname = \"shop.test\"\npolicy = \"nearest\"\nttl = 5\n\n\
         [[dns.names]] # a record of another type for each datacenter, the next best behind the best\n\
         name = \"_api._tcp.shop.test\"\npolicy = \"nearest\"\nttl = 5\nanswers = 2\n\
         records.SRV = {{ seoul = \"0 10 8080 ns-seoul\", frankfurt = \"0 10 8080 ns-frankfurt\", virginia = \"0 10 8080 ns-virginia\" }}\n\n\
         [gateway]\nlisten = [\"datacenter:{GATEWAY_PORT}\"]\norder_as = \"{NAME}\"\n\
         trusted_proxies = [\"127.0.0.0/8\"] # so that X-Forwarded-For can play the user\n\n\
         [store]\nlisten = [\"datacenter:{STORE_PORT}\"]\n\n\
         [sync]\nlisten = [\"datacenter:{AGENT_PORT}\"]\nadmin = [\"datacenter:{ADMIN_PORT}\"]\n\
         ca = \"{KEYS}/ca.pem\" # certificate and key are each datacenter's own: `run --keys`\n"
    );
    // Who is killed stays dead while the file is there: the lab starts it again when it is gone.
    text += "\n[drill] # `daemun drill run kill --target frankfurt`\n\
             kill = [\"/bin/sh\", \"-c\", \"touch \\\"$DAEMUN_DATA/held\\\" && kill -KILL $DAEMUN_PID\"]\n\
             start = [\"/bin/sh\", \"-c\", \"rm -f \\\"$DAEMUN_DATA/held\\\"\"]\n";
    text += "\n[sync.return] # else a minute of calm, a minute a step, one return an hour\n\
             hold_down = \"3s\"\nhold_down_max = \"30s\"\nramp_step = \"2s\"\ncatch_up = \"1s\"\nper_hour = 3600\n";
    for datacenter in &DATACENTERS {
        let LabDatacenter { name, latitude, longitude, .. } = datacenter;
        let address = datacenter.address(network);
        text += &format!(
            "\n[[datacenters]]\nname = \"{name}\"\nlatitude = {latitude}\nlongitude = {longitude}\n\
             addresses = [\"{address}\"]\ncapacity_rps = 1000\nagent = \"https://{address}:{AGENT_PORT}\"\n\n\
             [[servers]]\nname = \"door-{name}\"\nrole = \"frontdoor\"\ndatacenter = \"{name}\"\n\
             url = \"http://{address}:{GATEWAY_PORT}/\"\n"
        );
    }
    text
}

fn zone(network: &str) -> String {
    let mut text =
        String::from("$TTL 300\n@ 3600 IN SOA ns-seoul hostmaster 2026112001 14400 3600 1209600 300\n");
    for datacenter in &DATACENTERS {
        text += &format!("@ NS ns-{}\n", datacenter.name);
    }
    for datacenter in &DATACENTERS {
        text += &format!("ns-{} A {}\n", datacenter.name, datacenter.address(network));
    }
    text + "@ MX 10 mail\nmail A 192.0.2.25\n@ TXT \"v=spf1 -all\"\n@ CAA 0 issue \"ca.test\"\nshop CNAME www\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{AgentKeys, Reads, World};

    #[test]
    fn the_labs_config_is_right() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "127.9", DNS_PORT).unwrap();
        let config = directory.path().join(CONFIG);
        for datacenter in &DATACENTERS {
            let keys = AgentKeys::Needed {
                datacenter: datacenter.name.to_owned(),
                directory: Some(keys(directory.path(), datacenter)),
            };
            let world = World::load(&config, None, Reads::ALL, &keys);
            assert!(world.unwrap_or_else(|refusal| panic!("{refusal}")).keys.is_some());
        }
        let world = World::load(&config, None, Reads::ALL, &AgentKeys::IfThere);
        let world = world.unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(world.config().fleet.datacenters.len(), 3);
        assert_eq!(world.config().sync.probe.fall, 8, "detection is not shortened");
        assert!(world.complaints.is_empty());
        assert!(world.steering.target(NAME).is_some());
    }
}
