//! The static files of a host, in memory and ready to be sent; what is not here is not there. Reading them is another's.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::asset::{Asset, Effort, Kind};

/// Cached for good: its name changes when it does.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";
/// Asked each time whether it is still right.
const ASK: &str = "no-cache";
/// So much of a name tells one version from all others.
const HASH_CHARACTERS_MIN: usize = 8;

/// Files by their path, which begins with a slash.
#[derive(Clone, Debug, Default)]
pub struct Files {
    by_path: HashMap<String, Arc<Asset>>,
}

/// What a path leads to.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// A file.
    File(&'a Arc<Asset>),
    /// A directory, asked without the slash at its end.
    Directory,
}

impl Files {
    /// Adds a file.
    pub fn insert(&mut self, path: String, asset: Arc<Asset>) {
        self.by_path.insert(path, asset);
    }

    /// A file by exactly this path.
    pub fn get(&self, path: &str) -> Option<&Arc<Asset>> {
        self.by_path.get(path)
    }

    /// What a path leads to: a file, or the `index.html` of a directory.
    pub fn find(&self, path: &str) -> Option<Found<'_>> {
        if path.ends_with('/') {
            return self.get(&format!("{path}index.html")).map(Found::File);
        }
        match self.get(path) {
            Some(file) => Some(Found::File(file)),
            None => self.get(&format!("{path}/index.html")).map(|_| Found::Directory),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Asset>)> {
        self.by_path.iter().map(|(path, asset)| (path.as_str(), asset))
    }
}

/// A file, made ready: coded, which takes a while.
pub fn asset(path: &str, body: Bytes, modified_unix: u64, immutable: &[String], effort: Effort) -> Asset {
    let is_immutable = immutable.iter().any(|prefix| path.starts_with(prefix.as_str())) || is_hashed(path);
    let cache = if is_immutable { FOR_GOOD } else { ASK };
    Asset::new(&Kind { media_type: media_type(path), cache, effort }, body, modified_unix)
}

/// Whether a file's name has a hash of its content in it, as bundlers make them: `main.3f2a91bc.js`, `index-BvN3kG2x.js`.
/// Unsure is no: then a browser asks, which costs little.
fn is_hashed(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((stem, _)) = name.split_once('.').and_then(|_| name.rsplit_once('.')) else { return false };
    // A source map has two endings.
    let stem = stem.strip_suffix(".js").or_else(|| stem.strip_suffix(".css")).unwrap_or(stem);
    let Some(at) = stem.rfind(['.', '-']) else { return false };
    let hash = &stem[at + 1..];
    let has = |kind: fn(&char) -> bool| hash.chars().any(|character| kind(&character));
    let is_hex = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_mixed = has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase);
    hash.len() >= HASH_CHARACTERS_MIN
        && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && has(char::is_ascii_digit)
        && has(char::is_ascii_alphabetic)
        && (is_hex || is_mixed)
}

/// The media type of a file by the end of its name (the registry of IANA, and the HTML standard for what browsers take).
pub fn media_type(path: &str) -> &'static str {
    let end = Path::new(path).extension().and_then(|end| end.to_str()).unwrap_or_default();
    match end.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "rss" => "application/rss+xml",
        "atom" => "application/atom+xml",
        "csv" => "text/csv; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_hash_are_for_good() {
        for hashed in [
            "/main.3f2a91bc.js",
            "/a/index-BvN3kG2x.js",
            "/app.0a1b2c3d4e5f.css",
            "/x-Ab3_dE5fG.js",
            "/main.3f2a91bc.js.map",
        ] {
            assert!(is_hashed(hashed), "{hashed}");
        }
        for other in [
            "/main.js",
            "/",
            "/report-20261122.pdf",
            "/jquery-3.7.1.min.js",
            "/documentation.html",
            "/a-deadbeef.png",
            "/v20241122.js",
            "/3f2a91bc.js",
            "/photo-IMG20241122.jpg",
            "/.3f2a91bc",
            "/x.3f2a91bc",
        ] {
            assert!(!is_hashed(other), "{other}");
        }
        let cache = |path: &str| {
            let asset = asset(path, "x".into(), 0, &["/assets/".to_owned()], Effort::Often);
            let reply = asset.answer(&hyper::Method::GET, &hyper::HeaderMap::new());
            reply.head.fields()["cache-control"].to_str().unwrap().to_owned()
        };
        assert_eq!(cache("/main.3f2a91bc.js"), FOR_GOOD);
        assert_eq!(cache("/assets/plain.js"), FOR_GOOD, "as the config says");
        assert_eq!(cache("/plain.js"), ASK);
    }

    #[test]
    fn directories_have_an_index() {
        let mut files = Files::default();
        files.insert(
            "/docs/index.html".to_owned(),
            Arc::new(asset("/docs/index.html", "x".into(), 0, &[], Effort::Often)),
        );
        assert!(matches!(files.find("/docs/"), Some(Found::File(_))));
        assert!(matches!(files.find("/docs"), Some(Found::Directory)));
        assert!(matches!(files.find("/docs/index.html"), Some(Found::File(_))));
        assert!(files.find("/docs/index.html/").is_none() && files.find("/").is_none());
    }
}
