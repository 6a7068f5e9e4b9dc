//! What is read from disk: the config and the files it names. Read whole, checked, swapped; what is broken is refused
//! and the last good stays.

mod door;
mod places;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use daemun_dns::cookie::Secrets;
use daemun_dns::zone::{Zone, Zones};
use daemun_dns::zone_file;
use daemun_fleet::config::{CertificateFiles, DOOR_ROLE, Problems};
use daemun_fleet::tls::Certificate;
use daemun_fleet::{Config, Steering};
use daemun_gateway::DoorFiles;
use daemun_sync::keys::{Keys, PemFile};

use crate::keys::make;

/// Everything that came from disk.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// Config and geo data, compiled.
    pub(crate) steering: Arc<Steering>,
    /// The zones.
    pub(crate) zones: Arc<Zones>,
    /// What is known of each zone's file, by apex without its dot.
    pub(crate) zone_files: BTreeMap<String, ZoneFileState>,
    /// The certificate of the encrypted DNS listeners, if the config names one.
    pub(crate) certificate: Option<Certificate>,
    /// The fleet's cookie secrets, if the config names their file.
    pub(crate) secrets: Option<Secrets>,
    /// What the agents prove to each other who they are with, if they speak TLS.
    pub(crate) keys: Option<Arc<Keys>>,
    /// What the front door serves.
    pub(crate) door: Arc<DoorFiles>,
    /// The certificate of the front door, if the config names one.
    pub(crate) door_certificate: Option<Certificate>,
    directories: door::Directories,
    /// What was wrong, but not wrong enough to refuse the rest: the last good is used in its place.
    pub(crate) complaints: Vec<String>,
    /// The files that were read, with their size and time of change, to see when to read again.
    stamps: Stamps,
    geo_stamps: Stamps,
}

/// What tells whether files are as they were; `None`: not there.
pub(crate) type Stamps = BTreeMap<PathBuf, Stamp>;

type Stamp = Option<FileStamp>;

/// Another file, or the same one changed, has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
    /// Of anything about it, seconds and nanoseconds: who copies can set the other time.
    changed: (i64, i64),
}

/// For whom to read what not everybody needs, or may: private keys, secrets, pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reads {
    /// For the name server: its certificate with the private key, and its cookie secrets.
    pub(crate) dns: bool,
    /// For the front door: its certificate with the private key, pages and files.
    pub(crate) door: bool,
}

impl Reads {
    /// For both.
    pub(crate) const ALL: Self = Self { dns: true, door: true };
    /// For neither.
    pub(crate) const NONE: Self = Self { dns: false, door: false };
}

/// Whose keys to read when agents speak TLS. All roles need them: who follows the view asks an agent too.
#[derive(Clone, Debug)]
pub(crate) enum AgentKeys {
    /// Those of this datacenter; without them nothing is begun.
    Needed {
        /// Its name.
        datacenter: String,
        /// Where certificate and key are, in the place of what the config says.
        directory: Option<PathBuf>,
    },
    /// Whoever's they are, if they are there.
    IfThere,
    /// Nobody's.
    Leave,
}

/// A zone's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZoneFileState {
    /// When what is served was read, milliseconds of Unix time.
    pub(crate) loaded_unix_ms: u64,
    /// A newer file was refused.
    pub(crate) is_refused: bool,
}

impl World {
    /// The config.
    pub(crate) fn config(&self) -> &Arc<Config> {
        self.steering.config()
    }

    /// Reads everything. `last` is what was good before: it stands in for zone and geo files that are broken now.
    ///
    /// # Errors
    /// Everything that is wrong, if the config is, or a zone that has no last good.
    pub(crate) fn load(
        path: &Path,
        last: Option<&World>,
        reads: Reads,
        keys: &AgentKeys,
    ) -> Result<World, Refusal> {
        let mut loader = Loader {
            config_file: path.display().to_string(),
            directory: path.parent().map(Path::to_owned).unwrap_or_default(),
            stamps: Stamps::new(),
            complaints: Vec::new(),
            errors: Vec::new(),
            zone_files: BTreeMap::new(),
        };
        loader.stamps.insert(path.to_owned(), stamp(path));
        let name = path.display().to_string();
        let config = read_text(path, TEXT_BYTES_MAX).map_err(|error| vec![error]).and_then(|text| {
            let told = |problems: Problems| problems.0.iter().map(ToString::to_string).collect();
            Config::parse(&name, &text).map_err(told)
        });
        let config = match (config, last) {
            (Ok(config), _) => Arc::new(config),
            // The other files may well be good, and what they hold is wanted.
            (Err(problems), Some(last)) => {
                let refused = |problem| format!("config refused, the last good is used: {problem}");
                loader.complaints.extend(problems.into_iter().map(refused));
                Arc::clone(last.config())
            }
            (Err(problems), None) => return Err(Refusal { problems, stamps: loader.stamps }),
        };

        for (number, datacenter) in config.fleet.datacenters.iter().enumerate() {
            if config.fleet.servers_of(number, DOOR_ROLE).next().is_none() {
                let datacenter = &datacenter.name;
                loader.complaints.push(format!(
                    "{name}: no server of datacenter `{datacenter}` has the role `{DOOR_ROLE}`: nobody would see it fail"
                ));
            }
        }

        let (places, geo_stamps) = loader.places(&config, last);
        let unchanged = last.filter(|last| {
            last.config().digest == config.digest && Arc::ptr_eq(last.steering.places(), &places)
        });
        let steering = match unchanged {
            Some(last) => Arc::clone(&last.steering),
            None => Arc::new(Steering::compile(Arc::clone(&config), places)),
        };
        let zones = loader.zones(&config, &steering, last);
        let files = config.dns.certificate.as_ref().filter(|_| reads.dns);
        let before = last.and_then(|last| last.certificate.clone());
        let certificate = loader.certificate_or_last("certificate", files, before);
        let files = config.gateway.certificate.as_ref().filter(|_| reads.door);
        let before = last.and_then(|last| last.door_certificate.clone());
        let door_certificate = loader.certificate_or_last("certificate of the front door", files, before);
        let secrets = config.dns.cookie_secrets.as_ref().filter(|_| reads.dns).and_then(|file| {
            let read = loader.secrets(file);
            loader.or_last("cookie secrets", read, last.and_then(|last| last.secrets.clone()))
        });
        let keys = loader.agent_keys(&config, keys, last);
        let (door, directories) = loader.door(&config, reads.door, last.map(|last| &last.directories));
        let Loader { stamps, complaints, errors, zone_files, .. } = loader;
        match zones {
            Some(zones) if errors.is_empty() => {
                let zones = Arc::new(zones);
                Ok(World {
                    steering,
                    zones,
                    zone_files,
                    certificate,
                    secrets,
                    keys,
                    door: Arc::new(door),
                    door_certificate,
                    directories,
                    complaints,
                    stamps,
                    geo_stamps,
                })
            }
            _ => {
                let problems = errors.into_iter().chain(complaints).collect();
                let stamps = stamps.into_iter().chain(geo_stamps).collect();
                Err(Refusal { problems, stamps })
            }
        }
    }

    /// The same, as an operator has meant it.
    pub(crate) fn meant(mut self) -> Self {
        self.door = Arc::new(DoorFiles { is_meant: true, ..DoorFiles::clone(&self.door) });
        self
    }

    /// The files as they were when they were read.
    pub(crate) fn as_read(&self) -> Stamps {
        self.stamps.iter().chain(&self.geo_stamps).map(|(path, stamp)| (path.clone(), *stamp)).collect()
    }
}

/// Files that were read before, as they are now.
pub(crate) fn look(stamps: &Stamps) -> Stamps {
    stamps.keys().map(|path| (path.clone(), stamp(path))).collect()
}

/// Why nothing of what was read is used.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Everything that is wrong.
    pub(crate) problems: Vec<String>,
    /// The files that were read, or that should have been there.
    pub(crate) stamps: Stamps,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

/// The largest config, zone or page: a zone of a million names.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// The bytes of a regular file: what is none (a pipe, a device) could be read forever.
fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let name = path.display();
    let metadata = fs::metadata(path).map_err(|error| format!("{name}: cannot read: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{name}: cannot read: it is not a regular file"));
    }
    if metadata.len() > bytes_max {
        return Err(format!("{name}: is {} bytes long; at most {bytes_max} are read", metadata.len()));
    }
    fs::read(path).map_err(|error| format!("{name}: cannot read: {error}"))
}

/// The text of a regular file.
fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    String::from_utf8(read_file(path, bytes_max)?).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}: is not UTF-8 text", path.display())
    })
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some(FileStamp {
        modified: metadata.modified().ok()?,
        bytes: metadata.len(),
        inode: metadata.ino(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

struct Loader {
    config_file: String,
    directory: PathBuf,
    stamps: Stamps,
    complaints: Vec<String>,
    errors: Vec<String>,
    zone_files: BTreeMap<String, ZoneFileState>,
}

impl Loader {
    /// A path in the config is relative to the config.
    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn zones(&mut self, config: &Config, steering: &Steering, last: Option<&World>) -> Option<Zones> {
        let mut zones = Vec::new();
        for zone in &config.dns.zones {
            match self.zone(&zone.name, &zone.file) {
                Ok(parsed) => {
                    let loaded_unix_ms = crate::clock::unix_ms();
                    let state = ZoneFileState { loaded_unix_ms, is_refused: false };
                    self.zone_files.insert(zone.name.clone(), state);
                    zones.push(parsed);
                }
                Err(errors) => match last.and_then(|last| last.zones.get(&zone.name)) {
                    Some(last_good) => {
                        zones.push(last_good.clone());
                        let before = last.and_then(|last| last.zone_files.get(&zone.name));
                        let loaded_unix_ms = before.map_or(0, |before| before.loaded_unix_ms);
                        let state = ZoneFileState { loaded_unix_ms, is_refused: true };
                        self.zone_files.insert(zone.name.clone(), state);
                        self.complaints.extend(errors.into_iter().map(|error| {
                            format!("zone {} refused, the last good is served: {error}", zone.name)
                        }));
                    }
                    None => self.errors.extend(errors),
                },
            }
        }
        let conflicts = match Zones::new(zones, steering, &self.config_file) {
            Ok(zones) => return Some(zones),
            Err(conflicts) => conflicts,
        };
        // A new file that clashes with a steered name is as bad as one that cannot be read: its last good stays.
        let mut zones = conflicts.zones;
        for conflict in conflicts.all {
            let last_good = last.and_then(|last| Some((last, last.zones.get(&conflict.zone)?)));
            let at = zones.iter().position(|zone| zone.is(&conflict.zone));
            match (last_good, at) {
                (Some((last, last_good)), Some(at)) => {
                    let (zone, error) = (&conflict.zone, &conflict.error);
                    self.complaints.push(format!("zone {zone} refused, the last good is served: {error}"));
                    zones[at] = last_good.clone();
                    let before = last.zone_files.get(zone).map_or(0, |before| before.loaded_unix_ms);
                    let state = ZoneFileState { loaded_unix_ms: before, is_refused: true };
                    self.zone_files.insert(zone.clone(), state);
                }
                _ => self.errors.push(conflict.error.to_string()),
            }
        }
        match Zones::new(zones, steering, &self.config_file) {
            Ok(zones) => Some(zones),
            // Not the file but the config is wrong.
            Err(conflicts) => {
                self.errors.extend(conflicts.all.iter().map(|conflict| conflict.error.to_string()));
                None
            }
        }
    }

    fn zone(&mut self, name: &str, file: &str) -> Result<Zone, Vec<String>> {
        let path = self.path(file);
        self.stamps.insert(path.clone(), stamp(&path));
        let text = read_text(&path, TEXT_BYTES_MAX).map_err(|error| vec![error])?;
        let base = path.parent().map(Path::to_owned).unwrap_or_default();
        let included = std::cell::RefCell::new(Vec::new());
        let load = |file: &str| {
            let path = base.join(file);
            // As it was before it is read: what changes from now on is seen.
            included.borrow_mut().push((path.clone(), stamp(&path)));
            read_text(&path, TEXT_BYTES_MAX)
        };
        let zone = zone_file::parse(&path.display().to_string(), &text, name, &load);
        self.stamps.extend(included.into_inner());
        zone.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    /// What was read, or the last good in its place, with a complaint; without either the whole is refused.
    fn or_last<T>(&mut self, what: &str, read: Result<T, String>, last: Option<T>) -> Option<T> {
        match (read, last) {
            (Ok(read), _) => Some(read),
            (Err(error), Some(last)) => {
                self.complaints.push(format!("{what} refused, the last good is used: {error}"));
                Some(last)
            }
            (Err(error), None) => {
                self.errors.push(error);
                None
            }
        }
    }

    fn certificate_or_last(
        &mut self,
        what: &str,
        files: Option<&CertificateFiles>,
        last: Option<Certificate>,
    ) -> Option<Certificate> {
        let read = self.certificate(files?);
        self.or_last(what, read, last)
    }

    fn certificate(&mut self, files: &CertificateFiles) -> Result<Certificate, String> {
        let (chain, key) = (self.path(&files.chain), self.path(&files.key));
        for path in [&chain, &key] {
            self.stamps.insert(path.clone(), stamp(path));
        }
        let (chain_pem, key_pem) = (read_file(&chain, TEXT_BYTES_MAX)?, read_file(&key, TEXT_BYTES_MAX)?);
        let refused = |error| format!("{} and {}: {error}", chain.display(), key.display());
        Certificate::parse(&chain_pem, &key_pem).map_err(refused)
    }

    /// The keys of the agent; the same ones if they have not changed.
    fn agent_keys(&mut self, config: &Config, keys: &AgentKeys, last: Option<&World>) -> Option<Arc<Keys>> {
        let tls = config.sync.tls.as_ref()?;
        let fleet = &config.fleet.name;
        let (ca, mut certificate, mut key) =
            (self.path(&tls.ca), self.path(&tls.certificate), self.path(&tls.key));
        let datacenter = match keys {
            AgentKeys::Leave => return None,
            // Whoever is not in the config is told that first.
            AgentKeys::Needed { datacenter, .. } if config.fleet.datacenter(datacenter).is_none() => {
                return None;
            }
            // On the machine of who makes the keys there is an authority, and no agent.
            AgentKeys::IfThere if !certificate.exists() && !key.exists() => return None,
            AgentKeys::IfThere => None,
            AgentKeys::Needed { datacenter, directory } => {
                if let Some(directory) = directory {
                    (certificate, key) = (directory.join(make::CERTIFICATE), directory.join(make::KEY));
                }
                Some(datacenter.as_str())
            }
        };
        for path in [&ca, &certificate, &key] {
            self.stamps.insert(path.clone(), stamp(path));
        }
        let read = read_keys(datacenter, fleet, [&ca, &certificate, &key]).map(Arc::new);
        let last = last.and_then(|last| last.keys.clone());
        match (read, last) {
            (Ok(read), Some(last)) if *read == *last => Some(last),
            (read, last) => self.or_last("keys of the agent", read, last),
        }
    }

    fn secrets(&mut self, file: &str) -> Result<Secrets, String> {
        let path = self.path(file);
        self.stamps.insert(path.clone(), stamp(&path));
        let text = read_text(&path, TEXT_BYTES_MAX)?;
        Secrets::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// The keys in three files: authorities, certificate, private key. Without a datacenter: of whichever it is.
fn read_keys(datacenter: Option<&str>, fleet: &str, paths: [&Path; 3]) -> Result<Keys, String> {
    let names = paths.map(|path| path.display().to_string());
    let mut read = Vec::new();
    for path in paths {
        read.push(read_file(path, TEXT_BYTES_MAX).map_err(|error| {
            format!(
                "{error}; agents speak TLS: `daemun keys init` and `daemun keys issue` make what they need"
            )
        })?);
    }
    let file = |at: usize| PemFile { name: &names[at], bytes: &read[at] };
    let (ca, certificate, key) = (file(0), file(1), file(2));
    let in_it = match datacenter {
        Some(_) => None,
        None => {
            let chain = daemun_sync::keys::certificates(certificate).map_err(|error| error.to_string())?;
            daemun_sync::keys::datacenter_in(&chain[0], fleet)
        }
    };
    // Without any the message is about the one that is missing.
    let datacenter = datacenter.or(in_it.as_deref()).unwrap_or("DATACENTER");
    Keys::parse(datacenter, fleet, ca, certificate, key).map_err(|error| error.to_string())
}
