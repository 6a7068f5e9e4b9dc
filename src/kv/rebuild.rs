//! `daemun kv rebuild`: what to do with a store that is corrupt, or was given up by the others. Nothing is deleted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use daemun_sync::store::sqlite;

use crate::Failure;

/// Stores that were set aside are counted up to here: somebody should look at them.
const ASIDE_MAX: u32 = 1000;

/// Where the store of a process is, in its data directory.
const STORE: &str = "store";

/// Sets the store in a data directory aside.
pub(super) fn rebuild(data: &Path, yes: bool, json: bool) -> Result<(), Failure> {
    let store = data.join(STORE);
    if !store.is_dir() {
        let error =
            anyhow!("there is no store at {}: --data is the data directory of the process", store.display());
        return Err(Failure::Wrong(error));
    }
    let aside = free_name(data)?;
    let next = "at its next start the process has a new store, and takes back from its peers everything that they have: \
                writes of here that no other datacenter has are only in what is set aside";
    if !yes {
        let (from, to) = (store.display(), aside.display());
        let error = anyhow!("this would move {from} to {to}; {next}. Say --yes to do it");
        return Err(Failure::Wrong(error));
    }
    // Not while a process has it.
    let _lock = sqlite::lock(&store)
        .map_err(|error| anyhow!("{error}: stop the process of this data directory first"))?;
    fs::rename(&store, &aside)
        .with_context(|| format!("moving {} to {}", store.display(), aside.display()))?;
    // The move itself must survive a crash.
    fs::File::open(data)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("flushing {}", data.display()))?;
    if json {
        println!("{}", serde_json::json!({ "moved": store, "to": aside }));
    } else {
        println!("moved {} to {}", store.display(), aside.display());
        println!("{next}");
    }
    Ok(())
}

fn free_name(data: &Path) -> Result<PathBuf, Failure> {
    let names = (1..=ASIDE_MAX).map(|number| data.join(format!("{STORE}.broken-{number}")));
    let free = names.into_iter().find(|path| !path.exists());
    free.ok_or_else(|| {
        let error = anyhow!("{} holds {ASIDE_MAX} stores that were set aside: remove some", data.display());
        Failure::Failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(result: Result<(), Failure>) -> (u8, String) {
        match result {
            Ok(()) => (0, String::new()),
            Err(Failure::Failed(error)) => (1, format!("{error:#}")),
            Err(Failure::Wrong(error)) => (2, format!("{error:#}")),
        }
    }

    #[test]
    fn a_store_is_set_aside_once_and_not_under_a_process() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        let (code, error) = told(rebuild(data, true, false));
        assert_eq!((code, error.contains("no store at")), (2, true), "{error}");
        fs::create_dir(data.join("store")).unwrap();
        fs::write(data.join("store/log.db"), "x").unwrap();
        let (code, error) = told(rebuild(data, false, false));
        assert_eq!((code, error.contains("Say --yes")), (2, true), "{error}");
        let lock = sqlite::lock(&data.join("store")).unwrap();
        let (code, error) = told(rebuild(data, true, false));
        assert_eq!((code, error.contains("stop the process")), (1, true), "{error}");
        drop(lock);
        assert_eq!(told(rebuild(data, true, false)).0, 0);
        assert_eq!(fs::read(data.join("store.broken-1/log.db")).unwrap(), b"x");
        assert!(!data.join("store").exists());
        fs::create_dir(data.join("store")).unwrap();
        assert_eq!(told(rebuild(data, true, true)).0, 0);
        assert!(data.join("store.broken-2").exists());
    }
}
