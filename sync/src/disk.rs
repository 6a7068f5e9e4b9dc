//! The last good of what must survive a restart: small JSON files, replaced whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Reading or writing failed.
    #[error("{}: cannot {operation} it: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{}: does not parse: {error}; it is set aside as .broken", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: serde_json::Error,
    },
}

/// Writes a value so that after a crash the file holds the old or the new one, never a part (a sibling file, flushed,
/// then renamed).
///
/// # Errors
/// What the system says; the old file stays.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let fail = |operation| move |error| DiskError::Io { path: path.to_owned(), operation, error };
    let bytes = serde_json::to_vec(value).map_err(io::Error::other).map_err(fail("encode"))?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail("create the directory of"))?;
    }
    let sibling = path.with_extension("new");
    let mut file = File::create(&sibling).map_err(fail("create a sibling of"))?;
    file.write_all(&bytes).map_err(fail("write"))?;
    file.sync_all().map_err(fail("flush"))?;
    fs::rename(&sibling, path).map_err(fail("replace"))?;
    // The rename itself must survive too.
    if let Some(parent) = path.parent() {
        File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(fail("flush the directory of"))?;
    }
    Ok(())
}

/// Reads a value; `None` when there is no file yet. A file that does not parse is set aside, for people to look at.
///
/// # Errors
/// What the system says, or where the file is broken.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::Io { path: path.to_owned(), operation: "read", error }),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let aside = path.with_extension("broken");
        if let Err(error) = fs::rename(path, &aside) {
            tracing::warn!(%error, path = %path.display(), "setting a broken file aside");
        }
        DiskError::Parse { path: path.to_owned(), error }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("value.json");
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write(&path, &7u32).unwrap();
        write(&path, &8u32).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), Some(8));
        fs::write(&path, b"{broken").unwrap();
        assert!(read::<u32>(&path).unwrap_err().to_string().contains("set aside"));
        assert_eq!(read::<u32>(&path).unwrap(), None, "the next start is not stopped by it");
        assert!(path.with_extension("broken").exists());
    }
}
