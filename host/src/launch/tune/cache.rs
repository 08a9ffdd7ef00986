use super::{Cost, TuneKey, Tuning};
use crate::whole_file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Environment variable that names the folder of the user's cache; an empty value disables the cache.
pub const CACHE_VARIABLE: &str = "BITNET_CACHE_DIR";

const FILE: &str = "tuning.json";
const LOCK: &str = "tuning.lock";
const FORMAT: &str = "bitnet-tuning";
const VERSION: u32 = 1;

/// Why a measurement could not be stored. The file is unchanged.
#[derive(Debug, thiserror::Error)]
#[error("{action} {} failed; the file is unchanged; free space, or set {CACHE_VARIABLE} to another folder", .path.display())]
pub struct CacheError {
    /// What was tried.
    pub action: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// How it failed.
    pub source: io::Error,
}

/// A folder with `tuning.json`, the file of recorded measurements.
///
/// Any number of threads and processes may use one folder at the same time. Readers always see a complete file, since writers
/// replace it by renaming; writers merge their entry with the file's, one after the other, under a lock on `tuning.lock`. A file
/// that is damaged, or of another format or version, is renamed, with a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuneCache {
    folder: PathBuf,
}

/// The file as JSON.
#[derive(Serialize, Deserialize)]
struct Document {
    format: String,
    version: u32,
    entries: Vec<Entry>,
}

/// A measurement that was kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) key: TuneKey,
    pub(super) variant: String,
    pub(super) cost: Cost,
}

/// What a file held.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Table(BTreeMap<TuneKey, Entry>);

impl Table {
    pub(super) fn get(&self, key: &TuneKey) -> Option<&Entry> {
        self.0.get(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TuneCache {
    /// The cache in `folder`, which [`TuneCache::store`] creates if it does not exist.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The user's cache: in the folder that [`CACHE_VARIABLE`] names, else in `bitnet` in the user's cache directory. `None` if
    /// the variable is empty, or the user has no home directory.
    pub fn user() -> Option<Self> {
        match std::env::var_os(CACHE_VARIABLE) {
            Some(folder) if folder.is_empty() => None,
            Some(folder) => Some(Self::at(folder)),
            None => directories::BaseDirs::new()
                .map(|folders| Self::at(folders.cache_dir().join("bitnet"))),
        }
    }

    /// Path of the file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Adds a measurement, or replaces an older one with the same key.
    ///
    /// # Errors
    /// [`CacheError`] if the folder cannot be created or written, such as on a full disk; the file is unchanged then.
    pub fn store(&self, tuning: &Tuning) -> Result<(), CacheError> {
        fs::create_dir_all(&self.folder).map_err(failed("creating", &self.folder))?;
        let _lock = self.lock()?;
        let mut table = match self.read() {
            Ok(table) => table,
            Err(Unfit::Unreadable(source)) => return Err(failed("reading", &self.path())(source)),
            Err(Unfit::Content(reason)) => {
                self.set_aside(&reason)?;
                Table::default()
            }
        };
        let best = tuning.best();
        let entry = Entry {
            key: tuning.key.clone(),
            variant: best.variant.name().to_owned(),
            cost: best.cost,
        };
        table.0.insert(entry.key.clone(), entry);
        self.write(&table)
    }

    /// What the file holds; nothing where there is none, or none that can be used.
    pub(super) fn load(&self) -> Table {
        match self.read() {
            Ok(table) => table,
            Err(Unfit::Unreadable(error)) => {
                tracing::warn!(path = %self.path().display(), %error, "the tuning cache cannot be read; using heuristics");
                Table::default()
            }
            Err(Unfit::Content(_)) => self.recover().unwrap_or_else(|error| {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "the tuning cache is damaged and cannot be set aside; using heuristics"
                );
                Table::default()
            }),
        }
    }

    /// Sets an unfit file aside, unless another process has just replaced it by a good one.
    pub(super) fn recover(&self) -> Result<Table, CacheError> {
        let _lock = self.lock()?;
        match self.read() {
            Ok(table) => Ok(table),
            Err(Unfit::Unreadable(source)) => Err(failed("reading", &self.path())(source)),
            Err(Unfit::Content(reason)) => self.set_aside(&reason).map(|()| Table::default()),
        }
    }

    /// Waits until no other thread or process has the lock. The lock ends with the returned file, or the process.
    fn lock(&self) -> Result<File, CacheError> {
        let path = self.folder.join(LOCK);
        // Not truncated: the file has no content.
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("opening", &path))?;
        file.lock().map_err(failed("locking", &path))?;
        Ok(file)
    }

    fn read(&self) -> Result<Table, Unfit> {
        let text = match whole_file::read(&self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Table::default()),
            Err(error) => return Err(Unfit::Unreadable(error)),
        };
        // Format and version first: another version's entries need not be ours.
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| Unfit::Content(error.to_string()))?;
        let (format, version) = (&value["format"], &value["version"]);
        if format != FORMAT || version != VERSION {
            let reason = format!(
                "it says format {format}, version {version}, not \"{FORMAT}\", version {VERSION}"
            );
            return Err(Unfit::Content(reason));
        }
        let document: Document =
            serde_json::from_value(value).map_err(|error| Unfit::Content(error.to_string()))?;
        Ok(Table(
            document
                .entries
                .into_iter()
                .map(|entry| (entry.key.clone(), entry))
                .collect(),
        ))
    }

    /// Renames the file to the first free of `tuning.set-aside-0.json`, `-1`, ...; only with the lock.
    fn set_aside(&self, reason: &str) -> Result<(), CacheError> {
        let path = self.path();
        let aside = (0..)
            .map(|number| self.folder.join(format!("tuning.set-aside-{number}.json")))
            .find(|path| !path.exists())
            .expect("some name is free");
        fs::rename(&path, &aside).map_err(failed("setting aside", &path))?;
        tracing::warn!(path = %path.display(), aside = %aside.display(), reason, "the tuning cache cannot be used and was set aside");
        Ok(())
    }

    /// Replaces the file in one step; only with the lock.
    fn write(&self, table: &Table) -> Result<(), CacheError> {
        let document = Document {
            format: FORMAT.to_owned(),
            version: VERSION,
            entries: table.0.values().cloned().collect(),
        };
        let path = self.path();
        let written = || -> io::Result<()> {
            let mut text = serde_json::to_vec_pretty(&document)?;
            text.push(b'\n');
            whole_file::write(&path, &text)
        };
        written().map_err(failed("writing", &path))
    }
}

/// Why a file is not used.
enum Unfit {
    Unreadable(io::Error),
    Content(String),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError {
        action,
        path,
        source,
    }
}
