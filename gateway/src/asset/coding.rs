//! Content codings: which pay, which a client takes, and how they are made.

use std::io::Write as _;

use bytes::Bytes;

use crate::message::Fields;

/// Base two logarithm of the largest window of brotli; a larger one would want more of its client, too.
const WINDOW_MAX: u32 = 22;
/// And of the smallest.
const WINDOW_MIN: u32 = 10;
/// What is larger is coded with less effort: the best takes a second for each megabyte.
const SLOWLY_BYTES_MAX: usize = 128 * 1024;

/// What coding may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Nothing: it is not coded.
    None,
    /// It stays for long: as small as it goes.
    Once,
    /// It changes often: some milliseconds at most.
    Often,
}

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// As it is called in headers.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// A body in this coding; as it was if it cannot be coded, which is then no gain and not kept.
    pub fn encode(self, body: &Bytes, effort: Effort) -> Bytes {
        let is_once = effort == Effort::Once && body.len() <= SLOWLY_BYTES_MAX;
        let coded = match self {
            Coding::Brotli => {
                let (mut input, mut output) = (body.as_ref(), Vec::new());
                let parameters = brotli::enc::BrotliEncoderParams {
                    quality: if is_once { 11 } else { 5 },
                    lgwin: window(body.len()),
                    size_hint: body.len(),
                    ..Default::default()
                };
                brotli::BrotliCompress(&mut input, &mut output, &parameters).map(|_| output)
            }
            // With the size known beforehand its tables are no larger than they need be.
            Coding::Zstd => zstd::bulk::compress(body, if is_once { 19 } else { 3 }),
            Coding::Gzip => {
                let level = flate2::Compression::new(if is_once { 9 } else { 6 });
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
        };
        coded.map_or_else(|_| body.clone(), Bytes::from)
    }
}

/// The window for so many bytes: what it is larger than they are is only memory.
fn window(bytes: usize) -> i32 {
    let bits = usize::BITS - bytes.leading_zeros() + 1;
    bits.clamp(WINDOW_MIN, WINDOW_MAX) as i32
}

/// Whether a media type is not compressed already.
pub(super) fn pays(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default();
    kind.starts_with("text/")
        || ["json", "javascript", "xml", "wasm"].iter().any(|end| kind.ends_with(end))
        || matches!(kind, "application/manifest+json" | "image/svg+xml" | "font/ttf" | "image/x-icon")
}

/// What a client takes, in thousandths; `None`: it did not say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Accepted {
    codings: [Option<u16>; 3],
    identity: Option<u16>,
    any: Option<u16>,
}

impl Accepted {
    /// Reads `Accept-Encoding` (RFC 9110 section 12.5.3). What is not understood is passed over.
    pub(super) fn of(fields: &(impl Fields + ?Sized)) -> Self {
        let mut accepted = Self::default();
        let values = fields.values("accept-encoding").filter_map(|value| std::str::from_utf8(value).ok());
        for one in values.flat_map(|value| value.split(',')) {
            let (name, weight) = one.split_once(';').unwrap_or((one, "q=1"));
            let Some(quality) = quality(weight.trim()) else { continue };
            let name = name.trim();
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            let place = match Coding::ALL.iter().position(|coding| is(coding.name())) {
                Some(at) => accepted.codings.get_mut(at),
                None if is("x-gzip") => accepted.codings.get_mut(2),
                None if is("identity") => Some(&mut accepted.identity),
                None if name == "*" => Some(&mut accepted.any),
                None => None,
            };
            if let Some(place) = place {
                *place = Some(quality);
            }
        }
        accepted
    }

    /// How much a form is wanted; 0: not at all. A coding that nobody asked for is not sent; none at all is always good,
    /// though anything that was asked for is better.
    pub(super) fn quality(&self, coding: Option<Coding>) -> u16 {
        match coding {
            None => self.identity.or(self.any.filter(|any| *any == 0)).unwrap_or(1),
            Some(coding) => {
                let at = Coding::ALL.iter().position(|known| *known == coding).unwrap_or_default();
                self.codings.get(at).copied().flatten().or(self.any).unwrap_or(0)
            }
        }
    }
}

/// `q=0.8` as 800: a digit, and at most three after the point.
fn quality(weight: &str) -> Option<u16> {
    let (name, number) = weight.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, part) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
    let is_right = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    let part: u16 = format!("{part:0<3}").parse().ok().filter(|_| is_right)?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}
