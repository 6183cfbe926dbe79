//! Opens the database of a state directory: format version, lock, damage. Must not know any record.

use std::fs;
use std::path::Path;

use rocksdb::{ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, LogLevel, Options};

use super::Family;
use crate::error::{Error, ErrorKind, Result};

/// The layout of the directory. It grows when families or keys change their meaning, not when records do.
const FORMAT_VERSION: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
const DEFAULT_FAMILY: &str = "default";

/// The state is small and written about once a second: two little buffers are enough.
const WRITE_BUFFER_BYTES: usize = 4 << 20;
const WAL_BYTES: u64 = 16 << 20;

/// Opens the database in `dir`, made first if there is none, and checks its format.
pub(super) fn open(dir: &Path) -> Result<DB> {
    make_private(dir)?;
    let path = dir.join("db");
    let is_there = path.join("CURRENT").exists();
    if !is_there && holds_data(&path) {
        return Err(damaged(dir, "its file CURRENT is missing"));
    }
    let found = if is_there {
        DB::list_cf(&options(), &path).map_err(|cause| explain(dir, cause))?
    } else {
        Vec::new()
    };
    let ours = |name: &str| Family::ALL.iter().any(|family| family.name() == name);
    if found.iter().any(|name| name != DEFAULT_FAMILY && !ours(name)) {
        return Err(newer(dir, read_format_only(&path, &found)));
    }
    let names = Family::ALL.iter().map(|family| family.name()).chain([DEFAULT_FAMILY]);
    let families = names.map(|name| ColumnFamilyDescriptor::new(name, options()));
    let db = DB::open_cf_descriptors(&options(), &path, families)
        .map_err(|cause| explain(dir, cause))?;
    check_format(dir, &db)?;
    Ok(db)
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_open_files(64);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    // Families never run ahead of each other on the disk.
    options.set_atomic_flush(true);
    // A record that a crash cut off at the log's end was never synced, so it may go. The default would also take
    // damage in the middle for the end, and silently forget an epoch that was synced behind it.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options
}

fn check_format(dir: &Path, db: &DB) -> Result<()> {
    let stored = db.get(FORMAT_KEY).map_err(|cause| explain(dir, cause))?;
    let Some(stored) = stored else {
        // Also the way of a process that was killed between making the database and writing the format.
        if !is_empty(db) {
            return Err(damaged(dir, "it holds records, but no format version"));
        }
        let mut sync = rocksdb::WriteOptions::default();
        sync.set_sync(true);
        return db
            .put_opt(FORMAT_KEY, FORMAT_VERSION.to_string(), &sync)
            .map_err(|cause| explain(dir, cause));
    };
    let version = parse_format(&stored);
    match version {
        Some(FORMAT_VERSION) => Ok(()),
        Some(version) if version > FORMAT_VERSION => Err(newer(dir, Some(version))),
        _ => Err(damaged(dir, "its format version makes no sense")),
    }
}

fn parse_format(stored: &[u8]) -> Option<u32> {
    std::str::from_utf8(stored).ok()?.parse().ok()
}

fn is_empty(db: &DB) -> bool {
    Family::ALL.iter().all(|family| {
        db.cf_handle(family.name()).is_some_and(|handle| {
            db.iterator_cf(handle, rocksdb::IteratorMode::Start).next().is_none()
        })
    })
}

/// The format of a database that has families we do not know, read without changing it.
fn read_format_only(path: &Path, families: &[String]) -> Option<u32> {
    let db = DB::open_cf_for_read_only(&options(), path, families, false).ok()?;
    parse_format(&db.get(FORMAT_KEY).ok()??)
}

/// Tables or logs without the file that names the current ones. A manifest alone is what a process leaves that was
/// killed while it made the database.
fn holds_data(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.ends_with(".sst") || name.ends_with(".log")
    })
}

/// Makes the directory, readable by its owner only: the key of the secrets may lie in it.
pub(super) fn make_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|cause| {
        Error::new(ErrorKind::Io, format!("cannot make the state directory {}", dir.display()))
            .caused_by(cause)
            .with_advice("give `state_dir` a directory that this account may write to")
    })
}

fn explain(dir: &Path, cause: rocksdb::Error) -> Error {
    let text = cause.to_string();
    let is_locked =
        text.contains("lock hold by current process") || text.contains("While lock file");
    if is_locked {
        return Error::new(
            ErrorKind::State,
            format!("the state directory {} is in use by another process", dir.display()),
        )
        .with_advice("stop the other driftless, or give this one a `state_dir` of its own");
    }
    match cause.kind() {
        rocksdb::ErrorKind::Corruption => damaged(dir, &text),
        _ => Error::new(ErrorKind::State, format!("cannot open the state in {}", dir.display()))
            .caused_by(cause)
            .with_advice("look at the rights and the space of that directory"),
    }
}

fn damaged(dir: &Path, how: &str) -> Error {
    Error::new(ErrorKind::State, format!("the state in {} is damaged: {how}", dir.display()))
        .with_advice(
            "restore the directory from a copy, or move it away: links are then made anew and copy their tables again",
        )
}

fn newer(dir: &Path, version: Option<u32>) -> Error {
    let version = version.map_or_else(|| "a newer format".into(), |v| format!("format {v}"));
    Error::new(
        ErrorKind::State,
        format!(
            "the state in {} has {version}, and this driftless reads format {FORMAT_VERSION}",
            dir.display()
        ),
    )
    .with_advice("run the newer driftless that wrote it, or give this one a `state_dir` of its own")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(dir: &Path) -> String {
        let error = open(dir).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::State);
        assert!(error.advice().is_some());
        error.report()
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        open(dir.path()).expect("opens").put(FORMAT_KEY, "2").expect("writes");
        assert!(refused(dir.path()).contains("format 2"));
    }

    #[test]
    fn a_family_of_a_newer_program_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut db = open(dir.path()).expect("opens");
        db.create_cf("vectors", &options()).expect("made");
        db.put(FORMAT_KEY, "3").expect("writes");
        drop(db);
        assert!(refused(dir.path()).contains("format 3"));
    }

    #[test]
    fn a_directory_in_use_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let _held = open(dir.path()).expect("opens");
        let report = refused(dir.path());
        assert!(report.contains("in use by another process"), "{report}");
        assert!(report.contains(&dir.path().display().to_string()), "{report}");
    }

    #[test]
    fn records_without_a_format_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(dir.path()).expect("opens");
        db.delete(FORMAT_KEY).expect("deletes");
        drop(db);
        let db = open(dir.path()).expect("an empty database counts as new");
        db.delete(FORMAT_KEY).expect("deletes");
        db.put_cf(db.cf_handle("links").expect("is there"), "1", "{}").expect("writes");
        drop(db);
        assert!(refused(dir.path()).contains("damaged"));
    }

    #[test]
    fn damage_in_the_middle_of_the_log_is_refused_and_a_cut_end_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(dir.path()).expect("opens");
        for number in 0..200 {
            let links = db.cf_handle("links").expect("is there");
            db.put_cf(links, format!("{number:04}"), "x".repeat(500)).expect("writes");
        }
        drop(db);
        let wal = newest_log(&dir.path().join("db"));
        let whole = fs::read(&wal).expect("reads");

        let mut bytes = whole.clone();
        bytes.truncate(whole.len() - 100);
        fs::write(&wal, &bytes).expect("writes");
        let copy = copy_of(dir.path());
        open(copy.path()).expect("a cut end is what a crash leaves");

        let mut bytes = whole;
        bytes[40_000] ^= 0xff;
        fs::write(&wal, &bytes).expect("writes");
        assert!(refused(dir.path()).contains("damaged"));
    }

    #[test]
    fn a_missing_current_file_is_damage() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path()).expect("opens"));
        fs::remove_file(dir.path().join("db/CURRENT")).expect("removes");
        assert!(refused(dir.path()).contains("CURRENT"));
    }

    fn newest_log(path: &Path) -> std::path::PathBuf {
        let logs = fs::read_dir(path).expect("reads").flatten().map(|entry| entry.path());
        logs.filter(|log| log.extension().is_some_and(|end| end == "log")).max().expect("a log")
    }

    fn copy_of(dir: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().expect("a directory");
        fs::create_dir(copy.path().join("db")).expect("makes");
        for entry in fs::read_dir(dir.join("db")).expect("reads").flatten() {
            fs::copy(entry.path(), copy.path().join("db").join(entry.file_name())).expect("copies");
        }
        copy
    }
}
