//! The fleets that are simulated: their configs, and the steering compiled from them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use daemun_fleet::{Config, Places, Steering};

/// Names and places of datacenters: a fleet has the first few of them.
pub(crate) const PLACES: [(&str, f32, f32); 5] = [
    ("seoul", 37.57, 126.98),
    ("frankfurt", 50.11, 8.68),
    ("virginia", 39.04, -77.49),
    ("sydney", -33.87, 151.21),
    ("mumbai", 19.08, 72.88),
];

/// What differs between fleets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) datacenters: usize,
    /// Of front doors.
    pub(crate) check: &'static str,
    /// Seconds; none: as in production.
    pub(crate) hold_down: Option<u64>,
    pub(crate) ramp_step: u64,
    pub(crate) returns_per_hour: u32,
}

impl Fleet {
    /// As in production.
    pub(crate) fn usual(datacenters: usize) -> Self {
        Self { datacenters, check: "tcp = 80", hold_down: None, ramp_step: 60, returns_per_hour: 1 }
    }

    /// The config.
    pub(crate) fn config(&self) -> Config {
        let mut text = String::from("version = 1\nfleet.name = \"shop\"\n");
        for (number, (name, latitude, longitude)) in PLACES[..self.datacenters].iter().enumerate() {
            text += &format!(
                "[[datacenters]]\nname = \"{name}\"\nlatitude = {latitude:.2}\nlongitude = {longitude:.2}\n\
                 addresses = [\"{}\"]\nagent = \"https://{0}:7400\"\n\
                 [[servers]]\nname = \"door-{name}\"\nrole = \"frontdoor\"\ndatacenter = \"{name}\"\n\
                 check = {{ {1} }}\n",
                address(number),
                self.check
            );
        }
        text += "[[dns.zones]]\nname = \"shop.test\"\nfile = \"zone\"\n\
                 [[dns.names]]\nname = \"near.shop.test\"\npolicy = \"nearest\"\nttl = 5\nanswers = 2\n\
                 [[dns.names]]\nname = \"share.shop.test\"\npolicy = \"weighted\"\nttl = 5\n\
                 weights = { seoul = 70, frankfurt = 30 }\n";
        if let Some(seconds) = self.hold_down {
            text += &format!(
                "[sync.return]\nhold_down = \"{seconds}s\"\nhold_down_max = \"{}s\"\nramp_step = \"{}s\"\n\
                 catch_up = \"2s\"\nper_hour = {}\n",
                8 * seconds,
                self.ramp_step,
                self.returns_per_hour
            );
        }
        Config::parse("simulation", &text).unwrap_or_else(|problems| panic!("{problems}"))
    }
}

/// The address of a datacenter.
pub(crate) fn address(number: usize) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number as u8 + 1).into()
}

/// The number of the datacenter with this address.
pub(crate) fn datacenter_at(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => usize::from(v4.octets()[3]) - 1,
        IpAddr::V6(_) => unreachable!("all are IPv4"),
    }
}

static STEERINGS: LazyLock<Mutex<BTreeMap<usize, Arc<Steering>>>> = LazyLock::new(Mutex::default);

/// The steering of a fleet of so many: it does not depend on anything else that differs.
pub(crate) fn steering(datacenters: usize) -> Arc<Steering> {
    let mut known = STEERINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let compile = || {
        let config = Arc::new(Fleet::usual(datacenters).config());
        Arc::new(Steering::compile(config, Arc::new(Places::builtin())))
    };
    Arc::clone(known.entry(datacenters).or_insert_with(compile))
}
