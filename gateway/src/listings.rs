//! Server lists, made once for all who rank alike: a request picks one that is ready.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use daemun_fleet::location::Country;
use hyper::header::{HeaderName, HeaderValue};

use crate::asset::{Asset, Effort, Kind};
use crate::list::{Lister, ServerList, Wanted};
use crate::message::Fields;

/// A list is made anew when it is older, so that what it says of its age is about right.
const AGE_MAX_MS: u64 = 5_000;
/// Lists of one view: more than a world of countries has.
const LISTINGS_MAX: usize = 4_096;
/// Locks: more than cores.
const SHARDS: usize = 16;

/// The list is for one client: no shared cache may keep it.
const KIND: Kind = Kind { media_type: "application/json", cache: "private, no-cache", effort: Effort::Often };

/// A list, ready to be sent.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) asset: Asset,
    /// Of what matters in it: not of the moment, nor of a generation that changed something else.
    pub(crate) likeness: String,
    pub(crate) generation: u64,
    made_unix_ms: u64,
}

/// Who gets the same list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RankAlike {
    order: Box<[u8]>,
    country: Option<Country>,
    point: Option<(u64, u64)>,
    role: Option<Box<str>>,
}

impl RankAlike {
    pub(crate) fn of(asked: &Wanted<'_>) -> Self {
        Self {
            order: asked.order.iter().map(|&number| number as u8).collect(),
            country: asked.place.country,
            point: asked.place.point.map(|point| (point.latitude.to_bits(), point.longitude.to_bits())),
            role: asked.role.map(Into::into),
        }
    }
}

/// The lists of one view.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    shards: [Mutex<HashMap<RankAlike, Arc<Listing>>>; SHARDS],
    hasher: RandomState,
}

impl Listings {
    /// The list for this one, made by `make` if it is not there or too old.
    pub(crate) fn get(
        &self,
        key: RankAlike,
        now_unix_ms: u64,
        make: impl FnOnce() -> Listing,
    ) -> Arc<Listing> {
        let shard = &self.shards[self.hasher.hash_one(&key) as usize % SHARDS];
        let mut lists = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lists.get(&key)
            && now_unix_ms.abs_diff(found.made_unix_ms) < AGE_MAX_MS
        {
            return Arc::clone(found);
        }
        if lists.len() >= LISTINGS_MAX / SHARDS {
            lists.clear();
        }
        let listing = Arc::new(make());
        lists.insert(key, Arc::clone(&listing));
        listing
    }
}

/// For one client alone: to code it would cost more than to send it.
const OF_ONE: Kind = Kind { effort: Effort::None, ..KIND };

impl Listing {
    /// For all who rank alike.
    pub(crate) fn made(
        lister: &Lister<'_>,
        asked: &Wanted<'_>,
        headers: &[(HeaderName, HeaderValue)],
        now_unix_ms: u64,
    ) -> Self {
        Self::new(&lister.list(asked, now_unix_ms), &KIND, headers, now_unix_ms)
    }

    /// In the order of one client's key.
    pub(crate) fn of_one(list: &ServerList, headers: &[(HeaderName, HeaderValue)]) -> Self {
        Self::new(list, &OF_ONE, headers, 0)
    }

    fn new(list: &ServerList, kind: &Kind, headers: &[(HeaderName, HeaderValue)], made_unix_ms: u64) -> Self {
        let body = serde_json::to_vec(list).unwrap_or_default();
        let likeness = likeness(&body);
        let asset = Asset::alike(kind, body.into(), likeness.as_bytes());
        let asset = asset.with_headers(headers.iter().map(|(name, value)| (name, value)));
        Self { asset, likeness, generation: list.generation, made_unix_ms }
    }
}

/// What two lists, as JSON, have in common that differ in nothing that matters: all that comes after the generation and the
/// moment.
pub(crate) fn likeness(list: &[u8]) -> String {
    const AFTER: &[u8] = b",\"ttl\":";
    let at = list.windows(AFTER.len()).position(|window| window == AFTER).unwrap_or_default();
    crate::asset::digest(&list[at..])
}

/// Whether what a client has is this.
pub(crate) fn is_known(fields: &(impl Fields + ?Sized), tag: &HeaderValue) -> bool {
    let bare = |tag: &'_ [u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    // Every form of a list has the tag of the plain one, and an end.
    let known = bare(tag.as_bytes());
    let stem = known.strip_suffix(b"\"").unwrap_or(&known).to_vec();
    fields
        .values("if-none-match")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|one| bare(one.trim_ascii()).starts_with(&stem))
}
