//! What the tests of this crate share: a fleet with a door in each datacenter.

use daemun_fleet::Config;

/// The address of a datacenter of [`config`] with the names of these tests.
pub(crate) fn address(name: &str) -> std::net::IpAddr {
    let names = ["seoul", "frankfurt", "virginia", "tokyo", "sydney"];
    let number = names.iter().position(|known| *known == name).expect("one of the names");
    std::net::Ipv4Addr::new(192, 0, 2, number as u8 + 1).into()
}

/// A config with these datacenters, each with one checked front door `door-NAME`.
pub(crate) fn config(names: &[&str]) -> Config {
    Config::parse("daemun.toml", &text(names)).expect("the config is right")
}

/// Its text.
pub(crate) fn text(names: &[&str]) -> String {
    let mut text = String::from("version = 1\nfleet.name = \"shop\"\n");
    for name in names {
        let (number, at) = (address(name), names.iter().position(|known| known == name).unwrap_or(0));
        text += &format!(
            "[[datacenters]]\nname = \"{name}\"\nlatitude = 0\nlongitude = {at}\naddresses = [\"{number}\"]\nagent = \"https://{number}:7400\"\n"
        );
    }
    for name in names {
        text += &format!(
            "[[servers]]\nname = \"door-{name}\"\nrole = \"frontdoor\"\ndatacenter = \"{name}\"\ncheck = {{ tcp = 80 }}\n"
        );
    }
    text + "[sync.probe]\nfall = 8\nrise = 3\n"
}
