//! What the tests of this crate share: a fleet with a door in each datacenter.

use daemun_fleet::Config;

/// A config with these datacenters, each with one checked front door `door-NAME`.
pub(crate) fn config(names: &[&str]) -> Config {
    let mut text = String::from("version = 1\nfleet.name = \"shop\"\n");
    for (number, name) in names.iter().enumerate() {
        text += &format!(
            "[[datacenters]]\nname = \"{name}\"\nlatitude = 0\nlongitude = {number}\naddresses = [\"192.0.2.{number}\"]\nagent = \"https://192.0.2.{number}:7400\"\n"
        );
    }
    for name in names {
        text += &format!(
            "[[servers]]\nname = \"door-{name}\"\nrole = \"frontdoor\"\ndatacenter = \"{name}\"\ncheck = {{ tcp = 80 }}\n"
        );
    }
    text += "[sync.probe]\nfall = 8\nrise = 3\n";
    Config::parse("daemun.toml", &text).expect("the config is right")
}
