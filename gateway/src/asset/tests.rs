use std::sync::LazyLock;

use http_body_util::BodyExt as _;
use hyper::Request;
use proptest::prelude::*;

use super::*;

const MODIFIED: u64 = 1_800_000_000;

const HTML: Kind = Kind { media_type: "text/html; charset=utf-8", cache: "no-cache", effort: Effort::Once };

static PAGE: LazyLock<Asset> = LazyLock::new(|| {
    let body = "<p>hello, hello, hello</p>\n".repeat(40);
    Asset::new(&HTML, body.into(), MODIFIED)
});

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn ask(asset: &Asset, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = asset.answer(&Method::GET, request.body(()).unwrap().headers()).into_response(false);
    let (parts, body) = response.into_parts();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let body = runtime.block_on(body.collect()).unwrap().to_bytes().to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn decode(answer: &Answer) -> Vec<u8> {
    use std::io::Read as _;
    let mut plain = Vec::new();
    match answer.header("content-encoding") {
        None => plain.clone_from(&answer.body),
        Some("br") => {
            let mut decoder = brotli::Decompressor::new(answer.body.as_slice(), 4096);
            decoder.read_to_end(&mut plain).unwrap();
        }
        Some("zstd") => plain = zstd::decode_all(answer.body.as_slice()).unwrap(),
        Some("gzip") => {
            flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_end(&mut plain).unwrap();
        }
        Some(other) => panic!("{other}"),
    }
    plain
}

#[test]
fn the_form_is_the_one_that_the_client_likes_best() {
    for (accepted, wanted) in [
        ("", None),
        ("gzip", Some("gzip")),
        ("x-gzip", Some("gzip")),
        ("GZIP;Q=0.5", Some("gzip")),
        ("gzip;q=1.0, br;q=0.5", Some("gzip")),
        ("zstd;q=0.2", Some("zstd")),
        ("gzip;q=0", None),
        ("*;q=0.3, zstd;q=0, gzip;q=0", Some("br")),
        ("*;q=0.1, br;q=0, zstd;q=0", Some("gzip")),
        ("*;q=0", None),
        ("identity, gzip;q=0.1", None),
        ("identity;q=0, gzip;q=0.001", Some("gzip")),
        ("nonsense", None),
        ("gzip;q=2", None),
        ("gzip;q=0.0001", None),
        ("gzip;level=9", None),
        (",,;=,q", None),
    ] {
        let answer = ask(&PAGE, &[("accept-encoding", accepted)]);
        assert_eq!(answer.header("content-encoding"), wanted, "{accepted}");
        assert_eq!(decode(&answer), PAGE.body().as_ref(), "{accepted}");
        assert_eq!(answer.header("vary"), Some("accept-encoding, origin"));
    }
    let answer = ask(&PAGE, &[("accept-encoding", "br, zstd, gzip")]);
    assert!(answer.body.len() < 100, "the smallest: {}", answer.body.len());
}

#[test]
fn each_form_has_its_own_strong_tag() {
    let mut tags = Vec::new();
    for accepted in ["", "br", "zstd", "gzip"] {
        let answer = ask(&PAGE, &[("accept-encoding", accepted)]);
        let tag = answer.header("etag").unwrap().to_owned();
        assert!(tag.starts_with('"'), "strong: {tag}");
        let again = ask(&PAGE, &[("accept-encoding", accepted), ("if-none-match", &tag)]);
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag.as_str())));
        assert_eq!(again.header("vary"), Some("accept-encoding, origin"));
        tags.push(tag);
    }
    let other = Asset::new(&HTML, "<p>other</p>".into(), MODIFIED);
    tags.push(ask(&other, &[]).header("etag").unwrap().to_owned());
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 5);
}

#[test]
fn conditions_hold_in_their_order() {
    let plain = ask(&PAGE, &[]);
    let tag = plain.header("etag").unwrap();
    assert_eq!(plain.header("last-modified"), Some("Fri, 15 Jan 2027 08:00:00 GMT"));
    let (then, before) = ("Fri, 15 Jan 2027 08:00:00 GMT", "Fri, 15 Jan 2027 07:59:59 GMT");
    let (weak, list) = (format!("W/{tag}"), format!("\"a\", {tag}"));
    for (headers, wanted) in [
        (vec![("if-none-match", tag)], 304),
        (vec![("if-none-match", weak.as_str())], 304),
        (vec![("if-none-match", list.as_str())], 304),
        (vec![("if-none-match", "\"a\""), ("if-none-match", tag)], 304),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-none-match", "\"a\"")], 200),
        (vec![("if-none-match", "nonsense")], 200),
        (vec![("if-modified-since", then)], 304),
        (vec![("if-modified-since", before)], 200),
        (vec![("if-modified-since", "yesterday")], 200),
        // The tag is weighed, the date passed over.
        (vec![("if-none-match", "\"a\""), ("if-modified-since", then)], 200),
        (vec![("if-match", tag)], 200),
        (vec![("if-match", weak.as_str())], 412),
        (vec![("if-match", "\"a\"")], 412),
        (vec![("if-match", tag), ("if-none-match", tag)], 304),
        (vec![("if-unmodified-since", then)], 200),
        (vec![("if-unmodified-since", before)], 412),
        (vec![("if-match", tag), ("if-unmodified-since", before)], 200),
    ] {
        assert_eq!(ask(&PAGE, &headers).status, wanted, "{headers:?}");
    }
}

#[test]
fn a_part_is_sent_of_what_the_client_has_the_rest_of() {
    let size = PAGE.body().len();
    let tag = ask(&PAGE, &[]).header("etag").unwrap().to_owned();
    let part = ask(&PAGE, &[("range", "bytes=3-7"), ("accept-encoding", "br")]);
    assert_eq!((part.status, part.body.as_slice()), (206, b"hello".as_slice()));
    assert_eq!(part.header("content-range"), Some(format!("bytes 3-7/{size}").as_str()));
    assert_eq!(part.header("content-encoding"), None);
    assert_eq!(ask(&PAGE, &[("range", "bytes=-5")]).body, b"</p>\n");
    let all = ask(&PAGE, &[("range", "bytes=-99999")]);
    assert_eq!((all.status, all.body.len()), (206, PAGE.body().len()), "the last of fewer are all");
    assert_eq!(ask(&PAGE, &[("range", "bytes=0-99999999")]).body.len(), size);
    assert_eq!(ask(&PAGE, &[("range", "bytes=7-3")]).status, 416, "it may be refused or passed over");
    let beyond = ask(&PAGE, &[("range", &format!("bytes={size}-"))]);
    assert_eq!((beyond.status, beyond.body.len()), (416, 0));
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{size}").as_str()));
    assert_eq!(ask(&PAGE, &[("range", "bytes=0-1"), ("if-range", &tag)]).status, 206);
    for whole in [
        vec![("range", "bytes=0-1"), ("if-range", "\"a\"")],
        vec![("range", "bytes=0-1"), ("if-range", "Fri, 15 Jan 2027 08:00:00 GMT")],
        vec![("range", "bytes=0-1, 5-6")],
        vec![("range", "bytes=0-1"), ("range", "bytes=5-6")],
        vec![("range", "lines=0-1")],
        vec![("range", "nonsense")],
    ] {
        let answer = ask(&PAGE, &whole);
        assert_eq!((answer.status, answer.body.len()), (200, size), "{whole:?}");
    }
}

#[test]
fn what_holds_for_one_request_is_not_kept_for_others() {
    let for_good = Asset::new(&Kind { cache: "public, immutable", ..HTML }, "a".repeat(500).into(), MODIFIED);
    let cache = |headers: &[(&str, &str)]| {
        let answer = ask(&for_good, headers);
        (answer.status, answer.header("cache-control").unwrap().to_owned())
    };
    assert_eq!(cache(&[("if-match", "\"x\"")]), (412, "no-store".to_owned()));
    assert_eq!(cache(&[("range", "bytes=9999-")]), (416, "no-store".to_owned()));
    assert_eq!(cache(&[("if-none-match", "*")]), (304, "public, immutable".to_owned()));
    let without_date = Asset::alike(&HTML, "<p>list</p>".into(), b"");
    assert_eq!(ask(&without_date, &[("if-unmodified-since", "Wed, 01 Jan 2048 00:00:00 GMT")]).status, 200);
}

#[test]
fn what_is_small_or_compressed_already_is_not_coded() {
    let small = Asset::new(&Kind { media_type: "text/plain", ..HTML }, "hello".into(), MODIFIED);
    let image = Asset::new(&Kind { media_type: "image/png", ..HTML }, "a".repeat(5000).into(), MODIFIED);
    for asset in [small, image] {
        let answer = ask(&asset, &[("accept-encoding", "br, gzip")]);
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, Some("origin")));
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_the_answer_is_right(
        range in "(bytes=)?[0-9,-]{0,12}|[ -~]{0,20}",
        accepted in "((br|gzip|zstd|\\*|identity)(;q=[01](\\.[0-9]{1,3})?)?,? ?){0,5}|[ -~]{0,20}",
        tag in "[ -~]{0,20}",
    ) {
            let headers = [("range", range.as_str()), ("accept-encoding", &accepted), ("if-none-match", &tag)];
        let answer = ask(&PAGE, &headers);
        let body = PAGE.body();
        match answer.status {
            200 => prop_assert_eq!(decode(&answer), body.as_ref()),
            206 => {
                let text = answer.header("content-range").unwrap().strip_prefix("bytes ").unwrap();
                let (part, size) = text.split_once('/').unwrap();
                let (first, last) = part.split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                prop_assert_eq!(size.parse::<usize>().unwrap(), body.len());
                prop_assert_eq!(answer.body, &body[first..=last]);
            }
            304 | 416 => prop_assert!(answer.body.is_empty()),
            other => prop_assert!(false, "{}", other),
        }
    }
}
