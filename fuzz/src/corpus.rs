//! Seeds out of binlog files of real servers, and what runs have found, into the committed corpus: only what reaches
//! something that nothing before it reaches. Must not know what the targets assert.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use driftless::change::{Change, ChangeKind, Value};
use driftless::source::binlog::event::RowsEvent;
use driftless::source::binlog::payload::Inflater;
use driftless::source::binlog::rows::{Plan, Reader};
use driftless::source::binlog::{Body, FormatDescription, Header, TableMap};
use driftless::source::from_table_map::definition;
use driftless::table::ColumnType;

use crate::run::{folder, found, home, process};
use crate::targets::{self, INPUT_BYTES_MAX};

const MAGIC: &[u8] = b"\xfebin";
const HEADER_LEN: usize = 19;
const INNER_EVENT_BYTES_MAX: usize = 1 << 20;
const PAYLOAD: u8 = 40;

/// Cuts the logs into seeds and keeps those that reach something new.
pub fn take(logs: &[&str]) -> Result<(), String> {
    let taken = std::env::temp_dir().join(format!("driftless-fuzz-{}", std::process::id()));
    let mut seeds =
        Seeds { below: folder(taken.clone())?, group: Vec::new(), maps: HashMap::new() };
    for path in logs {
        let log = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let events = log.strip_prefix(MAGIC).ok_or_else(|| format!("{path} is no binlog file"))?;
        seeds.take(events).map_err(|error| format!("{path}: {error}"))?;
    }
    let merged = targets::names().into_iter().try_for_each(|target| {
        let taken = taken.join(target);
        if taken.is_dir() { merge(target, &taken) } else { Ok(()) }
    });
    let _ = fs::remove_dir_all(&taken);
    merged
}

/// Takes over what runs have found.
pub fn keep() -> Result<(), String> {
    targets::names().into_iter().try_for_each(|target| merge(target, &found(target)?))
}

fn merge(target: &str, from: &Path) -> Result<(), String> {
    let corpus = folder(home().join("corpus").join(target))?;
    let count = || fs::read_dir(&corpus).map_or(0, Iterator::count);
    let before = count();
    let status = process(target)?
        .stderr(Stdio::null())
        .args(["-merge=1".to_owned(), format!("-max_len={INPUT_BYTES_MAX}")])
        .args([&corpus, from])
        .status()
        .map_err(|error| error.to_string())?;
    println!("{target:<12} {before} inputs, {} now", count());
    if status.success() { Ok(()) } else { Err(format!("{target}: {status}")) }
}

struct Seeds {
    /// Where they are written, in a folder for each target.
    below: PathBuf,
    /// Events of the open transaction, without checksums.
    group: Vec<u8>,
    /// Layouts with the data that they were read from.
    maps: HashMap<u64, (TableMap, Vec<u8>)>,
}

impl Seeds {
    fn take(&mut self, mut rest: &[u8]) -> Result<(), String> {
        let mut format = FormatDescription::assumed();
        while !rest.is_empty() {
            let size = rest.get(9..13).and_then(|bytes| bytes.first_chunk::<4>());
            let size = size.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
            let (bytes, behind) = rest.split_at_checked(size).ok_or("it ends within an event")?;
            rest = behind;
            // Other servers have events that we refuse; what they have in common is worth taking.
            let Ok(event) = format.read(bytes) else { continue };
            let (header, plain) = (event.header, event.bytes.to_vec());
            if let Body::FormatDescription(announced) = event.body {
                // As it stands, for it says itself that it has a checksum.
                self.write("log", bytes)?;
                format = *announced;
                continue;
            }
            let begins = matches!(event.body, Body::GroupStart(_));
            if begins {
                self.end_group()?;
            }
            let plain = resized(&plain);
            self.group.extend_from_slice(&plain);
            if header.kind.0 == PAYLOAD {
                self.take_payload(&format, &plain)?;
                continue;
            }
            self.take_event(&format, header, &plain)?;
        }
        self.end_group()
    }

    fn end_group(&mut self) -> Result<(), String> {
        let group = std::mem::take(&mut self.group);
        self.write("log", &group)
    }

    /// `event` has no checksum.
    fn take_event(
        &mut self,
        format: &FormatDescription,
        header: Header,
        event: &[u8],
    ) -> Result<(), String> {
        let read = format.read_inner(event).map_err(|error| error.report())?;
        let data = event.get(HEADER_LEN..).unwrap_or_default();
        match read.body {
            Body::PreviousGtids(set) => {
                self.write("gtid", data)?;
                self.write("gtid", set.to_string().as_bytes())?;
            }
            Body::Query(query) => self.write("ddl", query.statement)?,
            Body::TableMap(announced) => {
                let map = TableMap::parse(&announced).map_err(|error| error.report())?;
                self.write("table_map", data)?;
                self.maps.insert(announced.table_id, (map, data.to_vec()));
            }
            Body::Rows(rows) => self.take_rows(header.kind.0, data, &rows)?,
            _ => (),
        }
        Ok(())
    }

    fn take_rows(&mut self, kind: u8, data: &[u8], rows: &RowsEvent<'_>) -> Result<(), String> {
        let Some((map, layout)) = self.maps.get(&rows.table_id) else { return Ok(()) };
        let mut seed = vec![0, kind];
        seed.extend_from_slice(&(layout.len() as u16).to_le_bytes());
        seed.extend_from_slice(layout);
        seed.extend_from_slice(data);
        let documents = documents(map, rows).unwrap_or_default();
        self.write("rows", &seed)?;
        documents.iter().try_for_each(|document| self.write("jsonb", document))
    }

    /// The transaction as it is, and once more unpacked, for changed bytes of a packed one seldom mean anything.
    fn take_payload(&mut self, format: &FormatDescription, event: &[u8]) -> Result<(), String> {
        let read = format.read_inner(event).map_err(|error| error.report())?;
        let Body::Payload(payload) = read.body else { return Ok(()) };
        let tried = |error: driftless::error::Error| error.report();
        let mut inflater = Inflater::new(INNER_EVENT_BYTES_MAX).map_err(tried)?;
        let mut unpacked = Vec::new();
        let mut events = inflater.open(&payload).map_err(tried)?;
        while let Some(inner) = events.next().map_err(tried)? {
            unpacked.push(inner.to_vec());
        }
        for inner in &unpacked {
            let header = Header::parse(inner).map_err(tried)?;
            self.take_event(format, header, inner)?;
        }
        // Fields: the algorithm is none (lenenc 255), no more of them.
        let mut data = vec![2, 3, 252, 255, 0, 0];
        data.extend_from_slice(&unpacked.concat());
        self.write("log", &targets::log::event(PAYLOAD, &data))
    }

    fn write(&self, target: &str, seed: &[u8]) -> Result<(), String> {
        if seed.is_empty() || seed.len() > INPUT_BYTES_MAX {
            return Ok(());
        }
        let mut hash = std::hash::DefaultHasher::new();
        std::hash::Hasher::write(&mut hash, seed);
        let name = format!("{:016x}", std::hash::Hasher::finish(&hash));
        let path = folder(self.below.join(target))?.join(name);
        fs::write(&path, seed).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// The event with its length as it is without its checksum.
fn resized(event: &[u8]) -> Vec<u8> {
    let mut event = event.to_vec();
    let size = (event.len() as u32).to_le_bytes();
    if let Some(field) = event.get_mut(9..13) {
        field.copy_from_slice(&size);
    }
    event
}

/// The binary JSON in the rows of a table whose layout names everything.
fn documents(map: &TableMap, rows: &RowsEvent<'_>) -> Option<Vec<Vec<u8>>> {
    let def = definition(map).ok()?;
    let is_json = |at: &usize| def.columns[*at].ty == ColumnType::Json;
    let wanted: Vec<usize> = (0..def.columns.len()).filter(is_json).collect();
    let plan = Plan::new(&def, &wanted, map).ok()?;
    let mut reader = Reader::new(rows, &plan).ok()?;
    let mut change = Change::reusable(ChangeKind::Insert);
    let mut documents = Vec::new();
    while reader.next(&mut change).ok()? {
        for value in change.before.values.iter().chain(&change.after.values) {
            if let Value::JsonBinary(bytes) = value {
                documents.push(bytes.to_vec());
            }
        }
    }
    Some(documents)
}
