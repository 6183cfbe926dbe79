//! Rows of a group of MariaDB, held until its end says whether they happened (rule 9). Beyond a bound they go to a file.
//!
//! MariaDB logs groups that end in ROLLBACK, where a temporary table was made or dropped in the transaction, and groups in
//! which SAVEPOINT and ROLLBACK TO stand, where a table without transactions was changed beside it. Rows of tables without
//! transactions stand in groups of their own, which end in COMMIT, so nothing in a group that is rolled back has happened.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, BufReader};

use crate::error::{Error, ErrorKind, Result};
use crate::source::binlog::TableMap;
use crate::source::stream::Rows;

/// What of an open group is held in memory.
const HELD_BYTES_MAX: usize = 16 << 20;

/// Rows of the open group, in the order of the log.
#[derive(Default)]
pub struct Held {
    /// What the rows that were spilled have in common with those to come.
    tables: Vec<(Arc<TableMap>, Arc<[usize]>)>,
    rows: Vec<HeldRows>,
    bytes: usize,
    savepoints: Vec<Savepoint>,
    file: Option<Spilled>,
    /// What all rows of the group have in common, of the first that was spilled.
    like: Option<Rows>,
}

/// A rows event, and the subscribers that it is for.
#[derive(Clone)]
pub struct HeldRows {
    pub rows: Rows,
    pub subscribers: Arc<[usize]>,
    table: usize,
}

struct Savepoint {
    name: String,
    /// How much of the file, and how many rows in memory, are before it.
    file_len: u64,
    rows: usize,
}

/// The first part of the rows: for each the table, `n`, the length and the event.
struct Spilled {
    file: File,
    len: u64,
}

const HEAD_LEN: usize = 4 + 8 + 4;

impl Held {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.file.is_none()
    }

    pub fn take(&mut self, rows: Rows, subscribers: Vec<usize>) {
        if subscribers.is_empty() {
            return;
        }
        let is_known = |(map, known): &(Arc<TableMap>, Arc<[usize]>)| {
            Arc::ptr_eq(map, &rows.map) && **known == *subscribers
        };
        let table = self.tables.iter().rposition(is_known).unwrap_or_else(|| {
            self.tables.push((rows.map.clone(), subscribers.into()));
            self.tables.len() - 1
        });
        self.bytes += rows.held_bytes + size_of::<HeldRows>();
        self.rows.push(HeldRows { rows, subscribers: self.tables[table].1.clone(), table });
    }

    /// SAVEPOINT, ROLLBACK TO or RELEASE SAVEPOINT; false where it is one to roll back to and is not known.
    pub fn follow_savepoint(&mut self, statement: &str) -> bool {
        let words: Vec<&str> = statement.split_whitespace().collect();
        let (Some(verb), Some(name)) = (words.first(), name_of(statement)) else { return true };
        let known = self.savepoints.iter().rposition(|one| one.name == name);
        if verb.eq_ignore_ascii_case("SAVEPOINT") {
            if let Some(known) = known {
                self.savepoints.remove(known);
            }
            let file_len = self.file.as_ref().map_or(0, |file| file.len);
            self.savepoints.push(Savepoint { name, file_len, rows: self.rows.len() });
            return true;
        }
        let is_rollback = verb.eq_ignore_ascii_case("ROLLBACK");
        let Some(known) = known else { return !is_rollback || self.is_empty() };
        if !is_rollback {
            self.savepoints.truncate(known);
            return true;
        }
        self.savepoints.truncate(known + 1);
        let (file_len, rows) = (self.savepoints[known].file_len, self.savepoints[known].rows);
        if let Some(file) = &mut self.file
            && file.len > file_len
        {
            // All in memory is behind it.
            file.len = file_len;
            self.rows.clear();
        } else {
            self.rows.truncate(rows);
        }
        let size = |row: &HeldRows| row.rows.held_bytes + size_of::<HeldRows>();
        self.bytes = self.rows.iter().map(size).sum();
        true
    }

    /// Writes what is in memory to a file where that is much. `dir` is where; the file has no name there.
    pub async fn spill_if_large(&mut self, dir: &Path) -> Result<()> {
        if self.bytes <= HELD_BYTES_MAX {
            return Ok(());
        }
        self.spill(dir).await
    }

    async fn spill(&mut self, dir: &Path) -> Result<()> {
        let mut spilled = match self.file.take() {
            Some(spilled) => spilled,
            None => Spilled { file: unnamed(dir.to_owned()).await?, len: 0 },
        };
        let mut ends = vec![spilled.len];
        let mut bytes = Vec::with_capacity(self.bytes);
        for row in &self.rows {
            bytes.extend_from_slice(&(row.table as u32).to_le_bytes());
            bytes.extend_from_slice(&row.rows.n.to_le_bytes());
            bytes.extend_from_slice(&(row.rows.event.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&row.rows.event);
            ends.push(spilled.len + bytes.len() as u64);
        }
        // Something that was rolled back may stand behind.
        spilled.file.seek(SeekFrom::Start(spilled.len)).await.map_err(unwritten)?;
        spilled.file.write_all(&bytes).await.map_err(unwritten)?;
        spilled.file.flush().await.map_err(unwritten)?;
        for savepoint in &mut self.savepoints {
            // Those that were set before an earlier spill stay where they are.
            if savepoint.file_len == spilled.len {
                savepoint.file_len = ends[savepoint.rows];
            }
            savepoint.rows = 0;
        }
        spilled.len = *ends.last().expect("it begins with one");
        self.file = Some(spilled);
        let first = self.rows.first().map(|first| first.rows.clone());
        self.rows.clear();
        self.bytes = 0;
        if let Some(first) = first {
            self.like.get_or_insert(Rows { event: Bytes::new(), ..first });
        }
        Ok(())
    }

    /// The group is committed.
    pub async fn release(self) -> Result<Released> {
        let file = match self.file {
            Some(mut spilled) => {
                spilled.file.rewind().await.map_err(unread)?;
                Some((BufReader::with_capacity(READ_BYTES, spilled.file), spilled.len))
            }
            None => None,
        };
        Ok(Released { file, tables: self.tables, like: self.like, rows: self.rows.into_iter() })
    }
}

const READ_BYTES: usize = 1 << 20;

/// Rows that happened, from the first to the last.
pub struct Released {
    file: Option<(BufReader<File>, u64)>,
    tables: Vec<(Arc<TableMap>, Arc<[usize]>)>,
    like: Option<Rows>,
    rows: std::vec::IntoIter<HeldRows>,
}

impl Released {
    pub async fn next(&mut self) -> Result<Option<HeldRows>> {
        match (&mut self.file, &self.like) {
            (Some((file, left)), Some(like)) if *left > 0 => {
                let mut head = [0; HEAD_LEN];
                file.read_exact(&mut head).await.map_err(unread)?;
                let mut head = &head[..];
                let (table, n, len) =
                    (head.get_u32_le() as usize, head.get_u64_le(), head.get_u32_le());
                let mut event = vec![0; len as usize];
                file.read_exact(&mut event).await.map_err(unread)?;
                *left = left.saturating_sub((HEAD_LEN + event.len()) as u64);
                let (map, subscribers) = self.tables.get(table).cloned().ok_or_else(damaged)?;
                let held_bytes = event.len();
                let rows = Rows { map, n, event: event.into(), held_bytes, ..like.clone() };
                Ok(Some(HeldRows { rows, subscribers, table }))
            }
            _ => Ok(self.rows.next()),
        }
    }
}

/// The last word, without its quotes; names of savepoints are compared without case.
fn name_of(statement: &str) -> Option<String> {
    let text = statement.trim();
    let name = match text.strip_suffix('`') {
        Some(quoted) => &quoted[quoted.find('`')? + 1..],
        None => text.split_whitespace().last()?,
    };
    Some(name.to_lowercase())
}

async fn unnamed(dir: PathBuf) -> Result<File> {
    let made = tokio::task::spawn_blocking(move || tempfile::tempfile_in(dir)).await;
    let made = made.map_err(|cause| {
        Error::new(ErrorKind::Stopped, "the file of a large transaction was not made")
            .caused_by(cause)
    })?;
    made.map(File::from_std).map_err(unwritten)
}

fn unwritten(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot write a large transaction to the state directory")
        .caused_by(cause)
        .with_advice(
            "give the disk of state_dir more room than the largest transaction of the source has",
        )
}

fn unread(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot read a large transaction from the state directory")
        .caused_by(cause)
}

fn damaged() -> Error {
    Error::new(ErrorKind::Io, "a large transaction was not read as it was written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::binlog::header::HEADER_LEN;
    use crate::source::binlog::{Body, FormatDescription, Kind};

    fn rows(event: &'static str) -> Rows {
        let data = b"\x01\0\0\0\0\0\0\0\x01d\0\x01t\0\0\0";
        let len = HEADER_LEN + data.len();
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4] = Kind::TABLE_MAP.0;
        bytes[9] = len as u8;
        bytes.extend_from_slice(data);
        let found = FormatDescription::assumed().read_inner(&bytes).expect("an event").body;
        let Body::TableMap(map) = found else { panic!("not a table's layout") };
        let map = Arc::new(TableMap::parse(&map).expect("a table without columns"));
        Rows {
            map,
            event: Bytes::from_static(event.as_bytes()),
            held_bytes: event.len(),
            n: 7,
            committed_at_us: 1,
            gtid: None,
        }
    }

    async fn released(held: Held) -> Vec<String> {
        let mut released = held.release().await.expect("is released");
        let mut events = Vec::new();
        while let Some(row) = released.next().await.expect("is read") {
            assert_eq!((row.rows.n, row.subscribers.as_ref()), (7, &[0, 2][..]));
            events.push(String::from_utf8(row.rows.event.to_vec()).expect("text"));
        }
        events
    }

    /// Every script, with a spill behind none, each or all of its steps.
    #[tokio::test]
    async fn what_was_rolled_back_is_gone_wherever_it_was_held() {
        let dir = tempfile::tempdir().expect("a directory");
        let scripts: [(&[&str], &[&str]); 4] = [
            (&["a", "b"], &["a", "b"]),
            (&["a", "SAVEPOINT `s`", "b", "ROLLBACK TO `S`", "c"], &["a", "c"]),
            (
                &[
                    "a",
                    "SAVEPOINT s",
                    "b",
                    "SAVEPOINT t",
                    "c",
                    "ROLLBACK TO t",
                    "d",
                    "ROLLBACK TO SAVEPOINT s",
                    "e",
                ],
                &["a", "e"],
            ),
            (
                &[
                    "SAVEPOINT s",
                    "a",
                    "SAVEPOINT s",
                    "b",
                    "ROLLBACK TO s",
                    "c",
                    "SAVEPOINT u",
                    "RELEASE SAVEPOINT u",
                ],
                &["a", "c"],
            ),
        ];
        for (script, left) in scripts {
            for spills in 0..1u32 << script.len() {
                let mut held = Held::default();
                for (at, step) in script.iter().enumerate() {
                    match step.len() {
                        1 => held.take(rows(step), vec![0, 2]),
                        _ => assert!(held.follow_savepoint(step), "{step}"),
                    }
                    if spills & 1 << at != 0 {
                        held.spill(dir.path()).await.expect("is written");
                    }
                }
                assert_eq!(released(held).await, left, "{script:?} spilled at {spills:b}");
            }
        }
    }

    #[test]
    fn a_savepoint_that_is_not_known_is_told() {
        let mut held = Held::default();
        assert!(held.follow_savepoint("ROLLBACK TO `s`"), "nothing to lose");
        held.take(rows("a"), vec![0]);
        assert!(!held.follow_savepoint("ROLLBACK TO `s`"));
    }
}
