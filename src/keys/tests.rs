//! The verb, on files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use daemun_sync::keys::Keys;

use super::*;
use crate::world::{AgentKeys, Reads, World};

/// A day in 2026.
const NOW: u64 = 1_800_000_000;

fn agent(directory: &Path, datacenter: &str) -> Result<Keys, String> {
    let paths = [
        directory.join(CA),
        directory.join(datacenter).join(CERTIFICATE),
        directory.join(datacenter).join(KEY),
    ];
    let read = paths.each_ref().map(|path| fs::read(path).unwrap());
    let [ca, certificate, key] = [0, 1, 2].map(|at| PemFile { name: "a file", bytes: &read[at] });
    Keys::parse(datacenter, "shop", ca, certificate, key).map_err(|error| error.to_string())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn keys_are_made_and_kept() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("keys");
    let without = make::issue(&directory, "seoul", 365, NOW).err().unwrap();
    assert!(format!("{without:#}").contains("daemun keys init"), "{without:#}");
    make::init(&directory, "shop", NOW).unwrap();
    let again = make::init(&directory, "shop", NOW).unwrap_err();
    assert!(again.to_string().contains("ca.pem is already there and stays"), "{again}");
    let issued = make::issue(&directory, "seoul", 365, NOW).unwrap();
    assert_eq!(issued.keys.expires_unix_s(), NOW + 365 * DAY_SECONDS);
    assert_eq!(issued.keys.info().not_before_unix_s, NOW - 3600, "for clocks that are behind");
    assert_eq!(agent(&directory, "seoul").unwrap(), issued.keys);
    assert_eq!(mode(&directory.join(CA_KEY)), 0o600);
    assert_eq!(mode(&directory.join("seoul").join(KEY)), 0o600);
    let renewed = make::issue(&directory, "seoul", 9000, NOW).unwrap();
    assert!(renewed.keys != issued.keys && agent(&directory, "seoul").unwrap() == renewed.keys);
    assert_eq!(renewed.keys.expires_unix_s(), NOW + 3650 * DAY_SECONDS, "no longer than the authority");
    let late = make::issue(&directory, "seoul", 365, NOW + 4000 * DAY_SECONDS).err().unwrap();
    assert!(late.to_string().contains("daemun keys rotate"), "{late}");
    // The key of another authority.
    make::init(&place.path().join("other"), "shop", NOW).unwrap();
    fs::copy(place.path().join("other").join(CA_KEY), directory.join(CA_KEY)).unwrap();
    let mixed = make::issue(&directory, "seoul", 365, NOW).err().unwrap();
    assert!(mixed.to_string().contains("is not the key of"), "{mixed}");
    assert_eq!(agent(&directory, "seoul").unwrap(), renewed.keys, "nothing is replaced by what is not good");
}

#[test]
fn an_authority_follows_another() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path();
    make::init(directory, "shop", NOW).unwrap();
    make::issue(directory, "seoul", 365, NOW).unwrap();
    make::issue(directory, "virginia", 365, NOW).unwrap();
    assert!(make::finish(directory).unwrap_err().to_string().contains("no rotation to finish"));
    make::rotate(directory, NOW).unwrap();
    assert!(make::rotate(directory, NOW).unwrap_err().to_string().contains("rotation is under way"));
    assert_eq!(mode(&directory.join(CA_KEY_OLD)), 0o600);
    agent(directory, "seoul").expect("the old one is trusted");
    make::issue(directory, "seoul", 365, NOW).unwrap();
    let early = make::finish(directory).unwrap_err().to_string();
    assert!(early.starts_with("virginia still have certificates of the old authority"), "{early}");
    make::issue(directory, "virginia", 365, NOW).unwrap();
    make::finish(directory).unwrap();
    agent(directory, "seoul").unwrap();
    agent(directory, "virginia").unwrap();
    assert_eq!(Authorities::read(directory).unwrap().certificates.len(), 1);
    make::issue(directory, "frankfurt", 365, NOW).expect("the new one signs");
}

#[test]
fn all_is_shown_with_what_is_to_be_done() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path();
    make::init(directory, "shop", NOW).unwrap();
    make::issue(directory, "seoul", 29, NOW).unwrap();
    make::issue(directory, "virginia", 365, NOW).unwrap();
    let shown = show(directory, NOW).unwrap();
    let subjects: Vec<_> = shown.iter().map(|one| (one.subject.as_str(), one.days_left)).collect();
    assert_eq!(subjects, [("authority of shop", 3650), ("seoul", 29), ("virginia", 365)]);
    assert_eq!(shown[2].authority.as_ref(), Some(&shown[0].fingerprint));
    assert_eq!(shown[2].valid_until, "2028-01-15");
    let text = table(&shown);
    assert_eq!(text.lines().filter(|line| line.starts_with("ATTENTION")).count(), 1, "{text}");
    assert!(
        text.contains("it ends on 2027-02-13, in 29 days: `daemun keys issue` makes a new one"),
        "{text}"
    );
    let late = show(directory, NOW + 400 * DAY_SECONDS).unwrap();
    assert_eq!(late[2].days_left, -35);
    assert!(late[2].warning.as_ref().unwrap().contains("it ended on 2028-01-15"));
    make::rotate(directory, NOW).unwrap();
    fs::remove_file(directory.join("virginia").join(CERTIFICATE)).unwrap();
    make::init(&directory.join("busan"), "other", NOW).unwrap();
    make::issue(&directory.join("busan"), "busan", 365, NOW).unwrap();
    let stranger = directory.join("busan").join("busan").join(CERTIFICATE);
    fs::copy(stranger, directory.join("busan").join(CERTIFICATE)).unwrap();
    let text = table(&show(directory, NOW).unwrap());
    assert!(text.contains("old: `daemun keys rotate --finish` drops it"), "{text}");
    assert!(text.contains("busan.other.daemun.internal") && text.contains("the fleet refuses it"), "{text}");
}

const CONFIG: &str = "version = 1\n[fleet]\nname = \"shop\"\n[[datacenters]]\nname = \"seoul\"\nlatitude = 0\n\
                      longitude = 0\naddresses = \"192.0.2.1\"\nagent = \"https://192.0.2.1:7400\"\n\
                      [[servers]]\nname = \"door\"\nrole = \"frontdoor\"\ndatacenter = \"seoul\"\ncheck = { tcp = 80 }\n";

#[test]
fn a_process_keeps_its_last_good_keys() {
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("daemun.toml");
    fs::write(&config, CONFIG).unwrap();
    let directory = place.path().join("keys");
    let load = |last: Option<&World>, keys: &AgentKeys| World::load(&config, last, Reads::NONE, keys);
    let needed = |directory: Option<&Path>| AgentKeys::Needed {
        datacenter: "seoul".to_owned(),
        directory: directory.map(Path::to_owned),
    };

    let refusal = load(None, &needed(None)).unwrap_err();
    assert_eq!(refusal.problems.len(), 1, "{refusal}");
    assert!(
        refusal.problems[0].contains("keys/ca.pem: cannot read") && refusal.problems[0].contains("keys init")
    );
    assert!(load(None, &AgentKeys::IfThere).unwrap().complaints.is_empty(), "none are there");

    make::init(&directory, "shop", NOW).unwrap();
    make::issue(&directory, "seoul", 365, NOW).unwrap();
    make::issue(&directory, "virginia", 365, NOW).unwrap();
    assert!(load(None, &AgentKeys::IfThere).unwrap().keys.is_none(), "an authority alone is nobody's keys");
    let elsewhere = load(None, &needed(Some(&directory.join("virginia")))).unwrap_err();
    assert!(elsewhere.problems[0].contains("is for virginia.shop.daemun.internal"), "{elsewhere}");
    for file in [CERTIFICATE, KEY] {
        fs::copy(directory.join("seoul").join(file), directory.join(file)).unwrap();
    }
    let good = load(None, &needed(None)).unwrap();
    assert!(good.keys.is_some() && good.complaints.is_empty());
    assert_eq!(load(None, &AgentKeys::IfThere).unwrap().keys, good.keys);
    assert!(load(None, &AgentKeys::Leave).unwrap().keys.is_none());

    fs::write(directory.join(KEY), "half of a k").unwrap();
    let held = load(Some(&good), &needed(None)).unwrap();
    assert_eq!(held.keys, good.keys);
    assert!(held.complaints[0].starts_with("keys of the agent refused, the last good is used: "));
    let said = load(None, &AgentKeys::IfThere).unwrap_err();
    assert!(said.problems[0].contains("agent.key: holds no private key"), "{said}");
}

#[test]
fn what_ends_soon_is_said() {
    let place = tempfile::tempdir().unwrap();
    make::init(place.path(), "shop", NOW).unwrap();
    let keys = make::issue(place.path(), "seoul", 60, NOW).unwrap().keys;
    assert_eq!(complaint(&keys, NOW), None);
    let soon = complaint(&keys, NOW + 31 * DAY_SECONDS).unwrap();
    assert!(soon.contains("seoul.shop.daemun.internal") && soon.contains("in 29 days"), "{soon}");
    assert!(complaint(&keys, NOW + 61 * DAY_SECONDS).unwrap().contains("it ended on"));
    assert!(complaint(&keys, NOW - 86_400).unwrap().contains("is the clock right?"));
}
