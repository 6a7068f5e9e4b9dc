//! How a datacenter comes back, as the config says it.

use super::*;

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse("daemun.toml", text)
}

const PAIR: &str = "version = 1\nfleet.name = \"two\"\n\
    [[datacenters]]\nname = \"a\"\nlatitude = 0\nlongitude = 0\naddresses = \"192.0.2.1\"\nagent = \"https://192.0.2.1:7400\"\n\
    [[datacenters]]\nname = \"b\"\nlatitude = 0\nlongitude = 9\naddresses = \"192.0.2.2\"\nagent = \"https://192.0.2.2:7400\"\n\
    [[servers]]\nname = \"api-a\"\nrole = \"api\"\ndatacenter = \"a\"\ncheck = { tcp = 80 }\n";

#[test]
fn how_a_datacenter_comes_back() {
    let config = parse(PAIR).unwrap();
    let Sync { comeback, minimum_serving, required, .. } = config.sync;
    assert_eq!((comeback.hold_down.as_secs(), comeback.ramp, comeback.per_hour), (60, vec![10, 25, 50], 1));
    assert_eq!((minimum_serving, required), (1, Vec::new()));
    let text = format!(
        "{PAIR}[sync]\nminimum_serving = 0\nrequired = {{ api = 75 }}\n\
         [sync.return]\nhold_down = \"2h\"\nramp = []\nper_hour = 0\n"
    );
    let config = parse(&text).unwrap();
    let Sync { comeback, minimum_serving, required, .. } = config.sync;
    assert_eq!((comeback.ramp.len(), comeback.per_hour, minimum_serving), (0, 0, 0));
    assert_eq!(comeback.hold_down_max, comeback.hold_down, "it is never less");
    assert_eq!(required, [("api".to_owned(), 75)]);
    for (extra, said) in [
        ("[sync.return]\nramp = [50, 25]\n", "sync.return.ramp: the percentages must rise"),
        ("[sync.return]\nramp = 100\n", "a percentage from 1 to 99"),
        ("[sync.return]\nholddown = \"1s\"\n", "did you mean `hold_down`?"),
        ("[sync]\nminimum_serving = 2\n", "a number of datacenters from 0 to 1"),
        ("[sync]\nrequired = { apj = 50 }\n", "no server has the role `apj`: did you mean `api`?"),
        ("[sync]\nrequired = { api = 101 }\n", "a percentage from 1 to 100"),
        ("[sync]\nclock_skew_max = \"0s\"\n", "a duration from \"1ms\""),
        ("[sync.probe]\nbudget = 0\n", "probes per second from 1"),
    ] {
        let problems = parse(&format!("{PAIR}{extra}")).unwrap_err().to_string();
        assert!(problems.contains(said), "{extra}: {problems}");
    }
}
