//! What the front door serves, read from disk: index pages, and directories of static files, whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use daemun_fleet::Config;
use daemun_fleet::config::VirtualHost;
use daemun_gateway::asset::{Asset, Effort};
use daemun_gateway::files::{self, Files};
use daemun_gateway::page::PageFile;
use daemun_gateway::{DoorFiles, HostFiles};

use super::{Loader, TEXT_BYTES_MAX, read_file, stamp};

/// The largest file: what is larger belongs where it is not held in memory.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// All files of a host.
const HOST_BYTES_MAX: u64 = 512 << 20;
const HOST_FILES_MAX: usize = 50_000;
/// Directories within directories.
const DEPTH_MAX: usize = 32;
/// Bytes of a host's files that are coded as small as it goes, which takes a second and a half; the rest is coded well.
const CODED_SLOWLY_BYTES: u64 = 1 << 20;

/// The files of one directory as they were read, to read again only what has changed.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    host: VirtualHost,
    read: BTreeMap<PathBuf, ReadFile>,
    files: Arc<Files>,
}

#[derive(Clone, Debug)]
struct ReadFile {
    stamp: super::Stamp,
    path: String,
    asset: Arc<Asset>,
}

/// By name of the host.
pub(super) type Directories = BTreeMap<String, Directory>;

/// A file that is there.
struct Entry {
    file: PathBuf,
    path: String,
}

impl Loader {
    /// Nothing, unless it is wanted; what has not changed since the `last` time is not read again.
    pub(super) fn door(
        &mut self,
        config: &Config,
        is_wanted: bool,
        last: Option<&Directories>,
    ) -> (DoorFiles, Directories) {
        let mut directories = Directories::new();
        let mut hosts = Vec::new();
        for host in config.gateway.hosts.iter().filter(|_| is_wanted) {
            let directory = host.directory.as_ref().map(|directory| self.path(directory));
            let page = match (&host.index, &directory) {
                (Some(file), _) => Some(self.path(file)),
                (None, Some(directory)) => Some(directory.join("index.html")),
                (None, None) => None,
            };
            let page = page.map(|file| self.page(&file));
            let files = match directory {
                Some(path) => {
                    let name = host.names.first().cloned().unwrap_or_default();
                    let before = last.and_then(|last| last.get(&name)).filter(|before| before.host == *host);
                    let read = self.directory(&path, host, before);
                    let files = Arc::clone(&read.files);
                    directories.insert(name, read);
                    files
                }
                None => Arc::default(),
            };
            hosts.push(HostFiles { host: host.clone(), page, files });
        }
        (DoorFiles { hosts, is_meant: false }, directories)
    }

    /// The index page. Whether it is good, the door decides.
    fn page(&mut self, path: &Path) -> PageFile {
        self.stamps.insert(path.to_owned(), stamp(path));
        let read = read_file(path, TEXT_BYTES_MAX);
        if let Err(error) = &read {
            self.complaints.push(format!("index page refused: {error}"));
        }
        read.map(Into::into)
    }

    fn directory(&mut self, root: &Path, host: &VirtualHost, before: Option<&Directory>) -> Directory {
        let mut entries = Vec::new();
        let real = match fs::canonicalize(root) {
            Ok(real) => real,
            Err(error) => {
                self.stamps.insert(root.to_owned(), stamp(root));
                self.complaints.push(format!("{}: cannot read the directory: {error}", root.display()));
                let nothing =
                    || Directory { host: host.clone(), read: BTreeMap::new(), files: Arc::default() };
                return before.cloned().unwrap_or_else(nothing);
            }
        };
        self.walk(root, "/", &mut vec![real], &mut entries);
        if entries.len() > HOST_FILES_MAX {
            let (count, name) = (entries.len(), root.display());
            self.complaints.push(format!("{name}: has {count} files; the first {HOST_FILES_MAX} are served"));
            entries.truncate(HOST_FILES_MAX);
        }
        let mut read = BTreeMap::new();
        let (mut bytes, mut slowly) = (0, CODED_SLOWLY_BYTES);
        for Entry { file, path } in entries {
            let now = stamp(&file);
            self.stamps.insert(file.clone(), now);
            let last = before.and_then(|before| before.read.get(&file));
            let found = match last.filter(|last| last.stamp == now) {
                Some(unchanged) => Some(unchanged.clone()),
                None => self.file(&file, now, path, host, &mut slowly).or_else(|| last.cloned()),
            };
            let Some(found) = found else { continue };
            bytes += found.asset.bytes() as u64;
            if bytes > HOST_BYTES_MAX {
                let limit = HOST_BYTES_MAX >> 20;
                self.complaints.push(format!(
                    "{}: has more than {limit} MiB of files, coded forms included: {} and what comes after it is not served",
                    root.display(),
                    file.display()
                ));
                break;
            }
            read.insert(file, found);
        }
        let mut files = Files::default();
        for found in read.values() {
            files.insert(found.path.clone(), Arc::clone(&found.asset));
        }
        Directory { host: host.clone(), read, files: Arc::new(files) }
    }

    fn file(
        &mut self,
        file: &Path,
        stamp: super::Stamp,
        path: String,
        host: &VirtualHost,
        slowly: &mut u64,
    ) -> Option<ReadFile> {
        let body = match read_file(file, FILE_BYTES_MAX) {
            Ok(body) => body,
            Err(error) => {
                self.complaints.push(error);
                return None;
            }
        };
        let modified = stamp.and_then(|stamp| stamp.modified.duration_since(UNIX_EPOCH).ok());
        let effort = if body.len() as u64 <= *slowly { Effort::Once } else { Effort::Often };
        *slowly = slowly.saturating_sub(body.len() as u64);
        let modified_unix = modified.map_or(0, |since| since.as_secs());
        let asset = files::asset(&path, body.into(), modified_unix, &host.immutable, effort);
        let headers = daemun_gateway::headers(host);
        let asset = asset.with_headers(headers.iter().map(|(name, value)| (name, value)));
        Some(ReadFile { stamp, path, asset: Arc::new(asset) })
    }

    /// All files below a directory, in order. Hidden ones are not served, nor what links lead to outside of the first of the
    /// directories that it is `within`.
    fn walk(&mut self, directory: &Path, path: &str, within: &mut Vec<PathBuf>, entries: &mut Vec<Entry>) {
        self.stamps.insert(directory.to_owned(), stamp(directory));
        let names = fs::read_dir(directory).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<BTreeSet<_>>>()
        });
        let names = match names {
            Ok(names) => names,
            Err(error) => {
                let name = directory.display();
                return self.complaints.push(format!("{name}: cannot read the directory: {error}"));
            }
        };
        for name in names {
            let file = directory.join(&name);
            let Some(name) = name.to_str() else {
                self.complaints.push(format!("{}: not served: its name is not UTF-8", file.display()));
                continue;
            };
            if name.starts_with('.') && name != ".well-known" {
                continue;
            }
            let real = match fs::canonicalize(&file) {
                Ok(real) => real,
                Err(error) => {
                    self.complaints.push(format!("{}: cannot read: {error}", file.display()));
                    continue;
                }
            };
            if !within.first().is_some_and(|root| real.starts_with(root)) {
                let name = file.display();
                self.complaints.push(format!("{name}: not served: it is a link to outside of the directory"));
                continue;
            }
            let path = format!("{path}{name}");
            match fs::metadata(&real) {
                // A link back up would go round for ever.
                Ok(found) if found.is_dir() && within.contains(&real) => {}
                Ok(found) if found.is_dir() && within.len() < DEPTH_MAX => {
                    within.push(real);
                    self.walk(&file, &format!("{path}/"), within, entries);
                    within.pop();
                }
                Ok(found) if found.is_file() => entries.push(Entry { file, path }),
                _ => self.complaints.push(format!("{}: not served: it is no regular file", file.display())),
            }
        }
    }
}
