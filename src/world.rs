//! What is read from disk: the config and the files it names. Read whole, checked, swapped; what is broken is refused
//! and the last good stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use daemun_dns::zone::{Zone, Zones};
use daemun_dns::zone_file;
use daemun_fleet::config::GeoSource;
use daemun_fleet::places::{PlacesError, RangeFile};
use daemun_fleet::{Config, Places, Steering};
use daemun_gateway::page::PageFile;

/// Everything that came from disk.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// Config and geo data, compiled.
    pub(crate) steering: Arc<Steering>,
    /// The zones.
    pub(crate) zones: Arc<Zones>,
    /// The index page, if the config names one.
    pub(crate) page: Option<Arc<PageFile>>,
    /// What was wrong, but not wrong enough to refuse the rest: the last good is used in its place.
    pub(crate) complaints: Vec<String>,
    /// The files that were read, with their size and time of change, to see when to read again.
    stamps: Stamps,
    geo_stamps: Stamps,
}

/// Size and time of change of files; `None`: not there.
pub(crate) type Stamps = BTreeMap<PathBuf, Option<(SystemTime, u64)>>;

impl World {
    /// The config.
    pub(crate) fn config(&self) -> &Arc<Config> {
        self.steering.config()
    }

    /// Reads everything. `last` is what was good before: it stands in for zone and geo files that are broken now.
    ///
    /// # Errors
    /// Everything that is wrong, if the config is, or a zone that has no last good.
    pub(crate) fn load(path: &Path, last: Option<&World>) -> Result<World, Vec<String>> {
        let mut loader = Loader {
            directory: path.parent().map(Path::to_owned).unwrap_or_default(),
            stamps: Stamps::new(),
            complaints: Vec::new(),
            errors: Vec::new(),
        };
        loader.stamps.insert(path.to_owned(), stamp(path));
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| vec![cannot_read(&name, &error)])?;
        let config = Config::parse(&name, &text)
            .map_err(|problems| problems.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let config = Arc::new(config);

        let (places, geo_stamps) = loader.places(&config, last);
        let unchanged = last.filter(|last| {
            last.config().digest == config.digest && Arc::ptr_eq(last.steering.places(), &places)
        });
        let steering = match unchanged {
            Some(last) => Arc::clone(&last.steering),
            None => Arc::new(Steering::compile(Arc::clone(&config), places)),
        };
        let zones = loader.zones(&config, &steering, last);
        let page = config.gateway.index.as_ref().map(|file| Arc::new(loader.page(file)));
        let Loader { stamps, complaints, errors, .. } = loader;
        match zones {
            Some(zones) if errors.is_empty() => {
                Ok(World { steering, zones: Arc::new(zones), page, complaints, stamps, geo_stamps })
            }
            _ => Err(errors),
        }
    }

    /// The files as they were when they were read.
    pub(crate) fn as_read(&self) -> Stamps {
        self.stamps.iter().chain(&self.geo_stamps).map(|(path, stamp)| (path.clone(), *stamp)).collect()
    }

    /// The files as they are now.
    pub(crate) fn look(&self) -> Stamps {
        self.as_read().into_keys().map(|path| (path.clone(), stamp(&path))).collect()
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn cannot_read(name: &str, error: &std::io::Error) -> String {
    format!("{name}: cannot read: {error}")
}

struct Loader {
    directory: PathBuf,
    stamps: Stamps,
    complaints: Vec<String>,
    errors: Vec<String>,
}

impl Loader {
    /// A path in the config is relative to the config.
    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// Places, read again only if their files have changed. Broken files are refused: the last good places stay,
    /// and on a first start the built-in table steers.
    fn places(&mut self, config: &Config, last: Option<&World>) -> (Arc<Places>, Stamps) {
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

    fn zones(&mut self, config: &Config, steering: &Steering, last: Option<&World>) -> Option<Zones> {
        let mut zones = Vec::new();
        for zone in &config.dns.zones {
            match self.zone(&zone.name, &zone.file) {
                Ok(parsed) => zones.push(parsed),
                Err(errors) => match last.and_then(|last| last.zones.get(&zone.name)) {
                    Some(last_good) => {
                        zones.push(last_good.clone());
                        self.complaints.extend(errors.into_iter().map(|error| {
                            format!("zone {} refused, the last good is served: {error}", zone.name)
                        }));
                    }
                    None => self.errors.extend(errors),
                },
            }
        }
        match Zones::new(zones, steering) {
            Ok(zones) => Some(zones),
            Err(errors) => {
                self.errors.extend(errors.iter().map(ToString::to_string));
                None
            }
        }
    }

    fn zone(&mut self, name: &str, file: &str) -> Result<Zone, Vec<String>> {
        let path = self.path(file);
        self.stamps.insert(path.clone(), stamp(&path));
        let text = fs::read_to_string(&path)
            .map_err(|error| vec![cannot_read(&path.display().to_string(), &error)])?;
        let base = path.parent().map(Path::to_owned).unwrap_or_default();
        let included = std::cell::RefCell::new(Vec::new());
        let load = |file: &str| {
            let path = base.join(file);
            included.borrow_mut().push(path.clone());
            fs::read_to_string(&path).map_err(|error| error.to_string())
        };
        let zone = zone_file::parse(&path.display().to_string(), &text, name, &load);
        for path in included.into_inner() {
            let stamp = stamp(&path);
            self.stamps.insert(path, stamp);
        }
        zone.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn page(&mut self, file: &str) -> PageFile {
        let path = self.path(file);
        self.stamps.insert(path.clone(), stamp(&path));
        let read =
            fs::read(&path).map(Into::into).map_err(|error| cannot_read(&path.display().to_string(), &error));
        if let Err(error) = &read {
            self.complaints.push(format!("index page refused: {error}"));
        }
        read
    }
}

/// How a complaint about geo data begins.
const GEO_REFUSED: &str = "geo data refused: ";

fn read_places(source: &GeoSource, files: &[PathBuf]) -> Result<Places, GeoError> {
    let unreadable = |path: &Path, error: std::io::Error| {
        GeoError::Unreadable(cannot_read(&path.display().to_string(), &error))
    };
    match source {
        GeoSource::Builtin => Ok(Places::builtin()),
        GeoSource::Database(file) => {
            // Read into memory, not mapped: a file replaced in place must not change under us.
            let bytes = fs::read(&files[0]).map_err(|error| unreadable(&files[0], error))?;
            Ok(Places::from_mmdb(file, &bytes)?)
        }
        GeoSource::Ranges(names) => {
            let read = |path: &PathBuf| fs::read_to_string(path).map_err(|error| unreadable(path, error));
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
