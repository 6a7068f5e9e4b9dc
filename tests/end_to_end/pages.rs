//! The index page through `curl`: every rung of the ladder that keeps it from being blank, and the forms it is sent in.
//! Network 127.66.

use std::fs;

use crate::curl::Seen;
use crate::fleet::{Fleet, wait};

const ALL: &str = "dns,gateway,sync";

fn curl(fleet: &Fleet, arguments: &[&str]) -> Option<Seen> {
    let url = format!("http://{}:8080/", fleet.address("seoul"));
    crate::curl::curl(&[arguments, &[&url]].concat())
}

fn page_from(fleet: &Fleet, source: &str) -> Seen {
    let seen = wait(&format!("the page to be {source}"), || {
        curl(fleet, &[]).filter(|seen| seen.header("x-door-source") == source)
    });
    assert_eq!(seen.status, 200);
    assert!(seen.body.contains("</html>"), "{}", seen.body);
    seen
}

#[test]
fn the_page_is_never_blank_and_sent_as_the_client_likes_it() {
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
    let tag = live.header("etag");

    // As the client likes it.
    let coded = curl(&fleet, &["--compressed"]).unwrap();
    assert_eq!(coded.body, page);
    assert!(!coded.header("content-encoding").is_empty() && coded.header("etag") != tag, "{}", coded.head);
    let length: usize = coded.header("content-length").parse().unwrap();
    assert!(length < page.len() / 10, "{length}");
    let known = curl(&fleet, &["-H", &format!("If-None-Match: {tag}")]).unwrap();
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    let part = curl(&fleet, &["-r", "6-24"]).unwrap();
    assert_eq!((part.status, part.body.as_str()), (206, "<p>The shop is open"));
    let head = curl(&fleet, &["--head"]).unwrap();
    assert_eq!(head.header("content-length"), page.len().to_string());

    // The file is being written, or is gone.
    fs::write(&index, "").unwrap();
    assert_eq!(page_from(&fleet, "last-good").body, page);
    fs::remove_file(&index).unwrap();
    assert_eq!(page_from(&fleet, "last-good").body, page);

    // So is the process: the next one has what it kept.
    fleet.kill("seoul", ALL);
    fleet.start("seoul", ALL);
    let kept = page_from(&fleet, "kept");
    assert_eq!((kept.body.as_str(), kept.header("etag")), (page.as_str(), tag));

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
