//! Where addresses are, read from disk.

use std::path::PathBuf;
use std::sync::Arc;

use daemun_fleet::config::GeoSource;
use daemun_fleet::places::{PlacesError, RangeFile};
use daemun_fleet::{Config, Places};

use super::{Loader, Stamps, World, read_file, read_text, stamp};

/// The largest geo file: ten times today's largest.
const GEO_BYTES_MAX: u64 = 1 << 30;
/// How a complaint about geo data begins.
const GEO_REFUSED: &str = "geo data refused: ";

impl Loader {
    /// Places, read again only if their files have changed. Broken files are refused: the last good places stay,
    /// and on a first start the built-in table steers.
    pub(super) fn places(&mut self, config: &Config, last: Option<&World>) -> (Arc<Places>, Stamps) {
        let files: Vec<PathBuf> = match &config.geo {
            GeoSource::Database(file) => vec![self.path(file)],
            GeoSource::Ranges(files) => files.iter().map(|file| self.path(file)).collect(),
            GeoSource::Builtin => Vec::new(),
        };
        let stamps: Stamps = files.iter().map(|path| (path.clone(), stamp(path))).collect();
        if let Some(last) = last.filter(|last| last.config().geo == config.geo && last.geo_stamps == stamps) {
            self.complaints
                .extend(last.complaints.iter().filter(|said| said.starts_with(GEO_REFUSED)).cloned());
            return (Arc::clone(last.steering.places()), stamps);
        }
        let places = match read_places(&config.geo, &files) {
            Ok(places) => Arc::new(places),
            Err(error) => {
                let instead = last
                    .map_or_else(|| Arc::new(Places::builtin()), |last| Arc::clone(last.steering.places()));
                self.complaints.push(format!("{GEO_REFUSED}{error}; in use: {}", instead.source()));
                instead
            }
        };
        (places, stamps)
    }
}

fn read_places(source: &GeoSource, files: &[PathBuf]) -> Result<Places, GeoError> {
    match source {
        GeoSource::Builtin => Ok(Places::builtin()),
        GeoSource::Database(file) => {
            // Read into memory, not mapped: a file replaced in place must not change under us.
            let bytes = read_file(&files[0], GEO_BYTES_MAX).map_err(GeoError::Unreadable)?;
            Ok(Places::from_mmdb(file, &bytes)?)
        }
        GeoSource::Ranges(names) => {
            let read = |path: &PathBuf| read_text(path, GEO_BYTES_MAX).map_err(GeoError::Unreadable);
            let texts: Vec<String> = files.iter().map(read).collect::<Result<_, _>>()?;
            let files: Vec<RangeFile<'_>> =
                names.iter().zip(&texts).map(|(name, text)| RangeFile { name, text }).collect();
            Ok(Places::from_ranges(&files)?)
        }
    }
}

/// Why there are no places.
#[derive(Debug)]
enum GeoError {
    Unreadable(String),
    Refused(PlacesError),
}

impl From<PlacesError> for GeoError {
    fn from(error: PlacesError) -> Self {
        GeoError::Refused(error)
    }
}

impl std::fmt::Display for GeoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GeoError::Unreadable(error) => f.write_str(error),
            GeoError::Refused(error) => error.fmt(f),
        }
    }
}
