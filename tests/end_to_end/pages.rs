//! The index page through `curl`: every rung of the ladder that keeps it from being blank, and the forms it is sent in.
//! Network 127.66.

use std::fs;
use std::process::Command;

use crate::fleet::{Fleet, needs, text, wait};

const ALL: &str = "dns,gateway,sync";

/// What `curl` shows: status, head in lower case, body.
struct Seen {
    status: u16,
    head: String,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn source(&self) -> &str {
        self.header("x-door-source").unwrap_or_default()
    }
}

fn curl(fleet: &Fleet, arguments: &[&str]) -> Option<Seen> {
    let url = format!("http://{}:8080/", fleet.address("seoul"));
    let output = Command::new("curl").args(["-sS", "-D", "-"]).args(arguments).arg(url).output().unwrap();
    let shown = output.status.success().then(|| text(&output.stdout))?;
    let (head, body) = shown.split_once("\r\n\r\n")?;
    let head = head.to_lowercase().replace('\r', "");
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Seen { status, head, body: body.to_owned() })
}

fn page_from(fleet: &Fleet, source: &str) -> Seen {
    let seen =
        wait(&format!("the page to be {source}"), || curl(fleet, &[]).filter(|seen| seen.source() == source));
    assert_eq!(seen.status, 200);
    assert!(seen.body.contains("</html>"), "{}", seen.body);
    seen
}

#[test]
fn the_page_is_never_blank_and_sent_as_the_client_likes_it() {
    needs("/usr/bin/curl", "curl");
    let mut fleet = Fleet::new(66, "");
    let config = fs::read_to_string(fleet.config_path()).unwrap();
    fs::write(fleet.config_path(), config.replace("[gateway]\n", "[gateway]\nindex = \"index.html\"\n"))
        .unwrap();
    let page = format!("<html>{}</html>", "<p>The shop is open.</p>\n".repeat(100));
    let index = fleet.path("index.html");
    fs::write(&index, &page).unwrap();
    fleet.start("seoul", ALL);
    let live = page_from(&fleet, "live");
    assert_eq!(live.body, page);
    let tag = live.header("etag").unwrap();

    // As the client likes it.
    let coded = curl(&fleet, &["--compressed"]).unwrap();
    assert_eq!(coded.body, page);
    assert!(
        coded.header("content-encoding").is_some() && coded.header("etag") != Some(tag),
        "{}",
        coded.head
    );
    let length: usize = coded.header("content-length").unwrap().parse().unwrap();
    assert!(length < page.len() / 10, "{length}");
    let known = curl(&fleet, &["-H", &format!("If-None-Match: {tag}")]).unwrap();
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    let part = curl(&fleet, &["-r", "6-24"]).unwrap();
    assert_eq!((part.status, part.body.as_str()), (206, "<p>The shop is open"));
    let head = curl(&fleet, &["--head"]).unwrap();
    assert_eq!(head.header("content-length"), Some(page.len().to_string().as_str()));

    // The file is being written, or is gone.
    fs::write(&index, "").unwrap();
    assert_eq!(page_from(&fleet, "last-good").body, page);
    fs::remove_file(&index).unwrap();
    assert_eq!(page_from(&fleet, "last-good").body, page);

    // So is the process: the next one has what it kept.
    fleet.kill("seoul", ALL);
    fleet.start("seoul", ALL);
    let kept = page_from(&fleet, "kept");
    assert_eq!((kept.body.as_str(), kept.header("etag")), (page.as_str(), Some(tag)));

    // And that is broken too.
    fleet.kill("seoul", ALL);
    let file = fleet.path(&format!("data-seoul-{ALL}")).join("page.json");
    let text = fs::read_to_string(&file).unwrap();
    let changed = text.replacen("digest\":\"", "digest\":\"0", 1);
    assert_ne!(changed, text);
    fs::write(&file, changed).unwrap();
    fleet.start("seoul", ALL);
    assert!(page_from(&fleet, "compiled-in").body.contains("seoul"));
    let log = fs::read_to_string(fleet.log("seoul", ALL)).unwrap();
    assert!(log.contains("its digest is another"), "{log}");

    fs::write(&index, &page).unwrap();
    assert_eq!(page_from(&fleet, "live").body, page);
}
