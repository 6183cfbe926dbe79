//! A folder of binlog files as the stream of events that a server would send of them: in order, without the transactions
//! that are had already, and never a part of a transaction. Knows nothing of what the events mean for a link.
//!
//! The last file may still grow. Where it ends, be it in the middle of an event or of a transaction, the stream has an end
//! for now ([`LogFiles::next_event`] gives none) and goes on there when more has come.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{ErrorKind as IoKind, Read as _};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};
use crate::position::GtidSet;
use crate::source::binlog::header::HEADER_LEN;
use crate::source::binlog::payload::{Inflater, Payload};
use crate::source::binlog::{Body, FormatDescription, Kind, TableMap};
use crate::source::from_table_map;
use crate::table::{TableDef, TableId};

const MAGIC: &[u8; 4] = b"\xfebin";
const ENCRYPTED: &[u8; 4] = b"\xfdbin";
/// The server's own bound of an event, and its header.
const EVENT_BYTES_MAX: usize = (1 << 30) + (1 << 20);
/// What is read of a file at once.
const READ_BYTES: usize = 1 << 20;
/// Where an event's flags stand, and the one that says that the file was not closed. The server leaves it out of the
/// checksum.
const FLAGS_AT: usize = 17;
const IN_USE: u8 = 1;
const ARTIFICIAL: u16 = 0x20;

/// The events of the files of a folder.
pub struct LogFiles {
    dir: PathBuf,
    /// The file that is read.
    name: String,
    file: File,
    /// Bytes of it that were read and not given out.
    buffer: BytesMut,
    /// Where `buffer` begins in the file.
    offset: u64,
    format: FormatDescription,
    /// Transactions that are not given out.
    passed: GtidSet,
    /// The transaction that is read is among them.
    is_skipping: bool,
    /// Events that stand in no file.
    made_up: VecDeque<Bytes>,
}

impl LogFiles {
    /// Begins behind the transactions in `passed`, in the last file that has none before it which are not among them.
    pub fn open(dir: &Path, passed: &GtidSet) -> Result<Self> {
        let names = names(dir)?;
        let mut begin = None;
        for name in &names {
            if !passed.covers(&gtids_before(&dir.join(name))?) {
                break;
            }
            begin = Some(name.clone());
        }
        let name = begin.ok_or_else(|| {
            let what = format!(
                "the log files in {} begin behind the checkpoint ({passed})",
                dir.display()
            );
            Error::new(ErrorKind::SourceLost, what)
                .with_advice("add the files before them, or drop the link and create it again")
        })?;
        let mut files = Self {
            file: open(&dir.join(&name))?,
            dir: dir.to_owned(),
            name,
            buffer: BytesMut::new(),
            offset: MAGIC.len() as u64,
            format: FormatDescription::assumed(),
            passed: passed.clone(),
            is_skipping: false,
            made_up: VecDeque::new(),
        };
        files.announce();
        Ok(files)
    }

    /// The next whole event; None where there is none for now.
    pub fn next_event(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(event) = self.made_up.pop_front() {
                return Ok(Some(event));
            }
            let Some(size) = self.whole()? else {
                if self.go_on()? {
                    continue;
                }
                return Ok(None);
            };
            let event = self.buffer.split_to(size);
            self.offset += size as u64;
            if let Some(event) = self.look_at(event)? {
                return Ok(Some(event));
            }
        }
    }

    /// The size of the event that is next, if it is there whole.
    fn whole(&mut self) -> Result<Option<usize>> {
        if !self.fill(HEADER_LEN)? {
            return Ok(None);
        }
        let size = self.buffer.get(9..13).and_then(<[u8]>::first_chunk::<4>);
        let size = size.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        if !(HEADER_LEN..=EVENT_BYTES_MAX).contains(&size) {
            return Err(self.damaged(&format!("an event of {size} bytes")));
        }
        if !self.fill(size)? || !self.has_whole_transaction(size)? {
            return Ok(None);
        }
        Ok(Some(size))
    }

    /// Reads until `wanted` bytes are there; false where the file ends before.
    fn fill(&mut self, wanted: usize) -> Result<bool> {
        while self.buffer.len() < wanted {
            let held = self.buffer.len();
            self.buffer.resize(held + READ_BYTES, 0);
            let read = self.file.read(&mut self.buffer[held..]);
            self.buffer.truncate(held + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => return Ok(false),
                Ok(_) => (),
                Err(error) if error.kind() == IoKind::Interrupted => (),
                Err(cause) => return Err(unreadable(&self.dir.join(&self.name), cause)),
            }
        }
        Ok(true)
    }

    /// Where a transaction begins, whether it ends in the file too: a server that died may have written a part of it,
    /// which it takes away when it starts again.
    fn has_whole_transaction(&self, size: usize) -> Result<bool> {
        let event = self.buffer.get(..size).unwrap_or_default();
        if !matches!(kind(event), Kind::GTID | Kind::GTID_TAGGED | Kind::ANONYMOUS_GTID) {
            return Ok(true);
        }
        let Body::GroupStart(start) = self.format.read(event)?.body else { return Ok(true) };
        let path = self.dir.join(&self.name);
        let length = self.file.metadata().map_err(|cause| unreadable(&path, cause))?.len();
        Ok(self.offset + start.transaction_bytes.max(size as u64) <= length)
    }

    /// Gives the event out as the server would; None for one that is had already.
    fn look_at(&mut self, mut event: BytesMut) -> Result<Option<Bytes>> {
        let is_kept = match kind(&event) {
            Kind::FORMAT_DESCRIPTION => {
                if let Some(flags) = event.get_mut(FLAGS_AT) {
                    *flags &= !IN_USE;
                }
                if let Body::FormatDescription(format) = self.format.read(&event)?.body {
                    self.format = *format;
                }
                true
            }
            Kind::GTID | Kind::GTID_TAGGED | Kind::ANONYMOUS_GTID => {
                if let Body::GroupStart(start) = self.format.read(&event)?.body {
                    let is_had = |gtid| self.passed.contains(gtid);
                    self.is_skipping = start.gtid.as_ref().is_some_and(is_had);
                }
                !self.is_skipping
            }
            Kind::ROTATE | Kind::PREVIOUS_GTIDS | Kind::STOP => true,
            _ => !self.is_skipping,
        };
        Ok(is_kept.then(|| event.freeze()))
    }

    /// Goes over to the next file, if there is one. Only the last may end before its last event does.
    fn go_on(&mut self) -> Result<bool> {
        let names = names(&self.dir)?;
        let Some(at) = names.iter().position(|name| *name == self.name) else {
            // Which file follows is found by what they have.
            let what = format!("{} is not among the log files any more", self.name);
            return Err(Error::new(ErrorKind::SourceUnreachable, what));
        };
        let Some(next) = names.get(at + 1) else { return Ok(false) };
        // The server makes the next file when it has written all of this one.
        if self.whole()?.is_some() {
            return Ok(true);
        }
        if !self.buffer.is_empty() {
            return Err(self.damaged(&format!("it ends within a transaction, and {next} follows")));
        }
        self.file = open(&self.dir.join(next))?;
        self.name.clone_from(next);
        self.offset = MAGIC.len() as u64;
        self.is_skipping = false;
        self.announce();
        Ok(true)
    }

    /// Tells the name of the file as the server does where it begins with one.
    fn announce(&mut self) {
        let checksum_len = if self.format.checksums { 4 } else { 0 };
        let size = HEADER_LEN + 8 + self.name.len() + checksum_len;
        let mut event = vec![0; 4];
        event.push(Kind::ROTATE.0);
        event.extend_from_slice(&[0; 4]);
        event.extend_from_slice(&(size as u32).to_le_bytes());
        event.extend_from_slice(&[0; 4]);
        event.extend_from_slice(&ARTIFICIAL.to_le_bytes());
        event.extend_from_slice(&(MAGIC.len() as u64).to_le_bytes());
        event.extend_from_slice(self.name.as_bytes());
        if self.format.checksums {
            let sum = crc32fast::hash(&event);
            event.extend_from_slice(&sum.to_le_bytes());
        }
        self.made_up.push_back(event.into());
    }

    fn damaged(&self, what: &str) -> Error {
        let place = format!("{} at offset {}", self.dir.join(&self.name).display(), self.offset);
        Error::new(ErrorKind::Undecodable, format!("{place}: {what}"))
            .with_advice("the file is damaged or was not copied whole: copy it again")
    }
}

/// The transactions before the first file.
pub fn gtids_before_first(dir: &Path) -> Result<GtidSet> {
    match names(dir)?.first() {
        Some(first) => gtids_before(&dir.join(first)),
        None => Ok(GtidSet::default()),
    }
}

/// What stands for the server's identity: the folder.
pub fn identity(dir: &Path) -> Result<String> {
    let whole = fs::canonicalize(dir).map_err(|cause| unreadable(dir, cause))?;
    Ok(format!("files:{}", whole.display()))
}

/// The definition of the table by its first layout in the files.
pub fn first_definition(dir: &Path, table: &TableId) -> Result<TableDef> {
    let mut files = LogFiles::open(dir, &gtids_before_first(dir)?)?;
    let mut inflater = Inflater::new(EVENT_BYTES_MAX)?;
    while let Some(event) = files.next_event()? {
        let is_looked_at = matches!(kind(&event), Kind::TABLE_MAP | Kind::TRANSACTION_PAYLOAD);
        if !is_looked_at {
            continue;
        }
        let found = match files.format.read(&event)?.body {
            Body::Payload(payload) => inside(&mut inflater, &files.format, &payload, table)?,
            body => layout(&body, table)?,
        };
        if let Some(map) = found {
            return from_table_map::definition(&map);
        }
    }
    let message = format!("no row of {table} is in the log files in {}", dir.display());
    Err(Error::new(ErrorKind::SourceRefused, message)
        .with_advice("check the name, or add the files in which its rows are"))
}

fn inside(
    inflater: &mut Inflater,
    format: &FormatDescription,
    payload: &Payload<'_>,
    table: &TableId,
) -> Result<Option<TableMap>> {
    let mut events = inflater.open(payload)?;
    while let Some(event) = events.next()? {
        if kind(event) == Kind::TABLE_MAP
            && let Some(map) = layout(&format.read_inner(event)?.body, table)?
        {
            return Ok(Some(map));
        }
    }
    Ok(None)
}

fn layout(body: &Body<'_>, table: &TableId) -> Result<Option<TableMap>> {
    match body {
        Body::TableMap(map) if map.table == table.name && map.db == table.db => {
            TableMap::parse(map).map(Some)
        }
        _ => Ok(None),
    }
}

fn kind(event: &[u8]) -> Kind {
    Kind(event.get(4).copied().unwrap_or_default())
}

/// The transactions before those of a file, as it says itself.
fn gtids_before(path: &Path) -> Result<GtidSet> {
    let dir = path.parent().unwrap_or(Path::new(".")).to_owned();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut files = LogFiles {
        file: open(path)?,
        dir,
        name,
        buffer: BytesMut::new(),
        offset: MAGIC.len() as u64,
        format: FormatDescription::assumed(),
        passed: GtidSet::default(),
        is_skipping: false,
        made_up: VecDeque::new(),
    };
    while let Some(size) = files.whole()? {
        let event = files.buffer.split_to(size);
        files.offset += size as u64;
        let Some(event) = files.look_at(event)? else { continue };
        match files.format.read(&event)?.body {
            Body::FormatDescription(_) => {}
            Body::PreviousGtids(set) => return Ok(set),
            _ => break,
        }
    }
    Err(Error::new(
        ErrorKind::SourceRefused,
        format!("{} does not say which transactions are before it", path.display()),
    )
    .with_advice("the log must be of MySQL with gtid_mode = ON"))
}

/// The files' names in their order: as the index beside them has them, else by their numbers.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut indexes = Vec::new();
    let mut numbered = Vec::new();
    let listed = fs::read_dir(dir).map_err(|cause| unreadable(dir, cause))?;
    for entry in listed {
        let entry = entry.map_err(|cause| unreadable(dir, cause))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((stem, extension)) = name.rsplit_once('.') else { continue };
        let is_number = !extension.is_empty() && extension.bytes().all(|b| b.is_ascii_digit());
        if extension == "index" {
            indexes.push(name);
        } else if is_number && let Ok(number) = extension.parse::<u64>() {
            numbered.push((stem.to_owned(), number, name));
        }
    }
    let refused = |what: String, advice: &str| {
        let message = format!("{}: {what}", dir.display());
        Err(Error::new(ErrorKind::SourceRefused, message).with_advice(advice))
    };
    if let [index] = indexes.as_slice() {
        let path = dir.join(index);
        let text = fs::read_to_string(&path).map_err(|cause| unreadable(&path, cause))?;
        let base = |line: &str| line.trim().rsplit('/').next().unwrap_or_default().to_owned();
        return Ok(text.lines().map(base).filter(|name| !name.is_empty()).collect());
    }
    numbered.sort_by_key(|(_, number, _)| *number);
    match numbered.as_slice() {
        [] => {
            refused("no binlog file is there".into(), "name the folder of binlog.000001 and so on")
        }
        [(first, _, _), rest @ ..] if rest.iter().any(|(stem, _, _)| stem != first) => refused(
            "files of several logs are there".into(),
            "keep those of one server in a folder of their own",
        ),
        _ => Ok(numbered.into_iter().map(|(_, _, name)| name).collect()),
    }
}

fn open(path: &Path) -> Result<File> {
    let mut file = File::open(path).map_err(|cause| unreadable(path, cause))?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(|cause| unreadable(path, cause))?;
    match &magic {
        MAGIC => Ok(file),
        ENCRYPTED => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} is encrypted (binlog_encryption)", path.display()),
        )
        .with_advice("have the server decrypt it: mysqlbinlog --read-from-remote-server --raw")),
        _ => Err(Error::new(
            ErrorKind::SourceRefused,
            format!("{} is no binlog file", path.display()),
        )
        .with_advice("name a folder that holds nothing but the log's files and their index")),
    }
}

fn unreadable(path: &Path, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::SourceRefused, format!("cannot read {}", path.display()))
        .caused_by(cause)
        .with_advice("see that it is there and that this account may read it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn event(kind: Kind, data: &[u8]) -> Vec<u8> {
        let mut event = vec![0; 4];
        event.push(kind.0);
        event.extend_from_slice(&[0; 4]);
        event.extend_from_slice(&((HEADER_LEN + data.len() + 4) as u32).to_le_bytes());
        event.extend_from_slice(&[0; 6]);
        event.extend_from_slice(data);
        let sum = crc32fast::hash(&event);
        event.extend_from_slice(&sum.to_le_bytes());
        event
    }

    /// The head of a file behind the transactions in `before`, as the server leaves it while it writes.
    fn head(before: &str) -> Vec<u8> {
        let mut data = 4_u16.to_le_bytes().to_vec();
        data.extend_from_slice(&[0; 54]);
        data.push(HEADER_LEN as u8);
        data.extend_from_slice(&[0; 42]);
        data.push(1);
        let mut format = event(Kind::FORMAT_DESCRIPTION, &data);
        format[FLAGS_AT] |= IN_USE;
        let set = before.parse().expect("a set");
        let previous = crate::source::binlog::gtid_set::encode(&set);
        [MAGIC.to_vec(), format, event(Kind::PREVIOUS_GTIDS, &previous)].concat()
    }

    /// A transaction with two events.
    fn transaction(gno: u64) -> Vec<u8> {
        let commit = event(Kind::XID, &gno.to_le_bytes());
        let mut data = vec![0];
        let uuid = crate::position::parse_uuid(A).expect("a server");
        data.extend_from_slice(&uuid);
        data.extend_from_slice(&gno.to_le_bytes());
        data.push(2);
        data.extend_from_slice(&[0; 16]);
        data.extend_from_slice(&[0; 7]);
        let size = HEADER_LEN + data.len() + 1 + 4 + commit.len();
        data.push(size as u8);
        [event(Kind::GTID, &data), commit].concat()
    }

    /// What comes until there is nothing for now: a transaction by its number, a file by its name.
    fn read(files: &mut LogFiles) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(bytes) = files.next_event().expect("is readable") {
            match files.format.read(&bytes).expect("is an event").body {
                Body::GroupStart(start) => seen.push(start.gtid.expect("has one").gno.to_string()),
                Body::Rotate(rotate) => seen.push(rotate.file.to_owned()),
                Body::Xid(number) => seen.push(format!("/{number}")),
                _ => (),
            }
        }
        seen
    }

    fn set(ranges: &str) -> GtidSet {
        format!("{A}:{ranges}").parse().expect("a set")
    }

    #[test]
    fn a_part_of_a_transaction_is_not_given_out_until_it_is_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let whole = [head(""), transaction(1), transaction(2)].concat();
        let path = dir.path().join("binlog.000001");
        let first_ends = head("").len() + transaction(1).len();
        for cut in [first_ends + 5, first_ends + 50, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).expect("writes");
            let mut files = LogFiles::open(dir.path(), &GtidSet::default()).expect("opens");
            assert_eq!(read(&mut files), ["binlog.000001", "1", "/1"], "cut at {cut}");
            let mut file = fs::OpenOptions::new().append(true).open(&path).expect("opens");
            file.write_all(&whole[cut..]).expect("grows");
            assert_eq!(read(&mut files), ["2", "/2"], "cut at {cut}");
        }
    }

    #[test]
    fn what_is_had_is_left_out_and_files_before_it_are_not_opened() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: Vec<u8>| {
            fs::write(dir.path().join(name), bytes).expect("writes");
        };
        // By their numbers, not by their letters.
        write("log.999999", [head(""), transaction(1), transaction(2)].concat());
        let before = format!("{A}:1-2");
        write("log.1000000", [head(&before), transaction(3), transaction(4)].concat());
        let from = |passed: &GtidSet| read(&mut LogFiles::open(dir.path(), passed).expect("opens"));
        let all = ["log.999999", "1", "/1", "2", "/2", "log.1000000", "3", "/3", "4", "/4"];
        assert_eq!(from(&GtidSet::default()), all);
        assert_eq!(from(&set("1")), all[..1].iter().chain(&all[3..]).copied().collect::<Vec<_>>());
        assert_eq!(from(&set("1-3")), ["log.1000000", "4", "/4"]);
        assert_eq!(from(&set("1-4")), ["log.1000000"]);
        assert_eq!(gtids_before_first(dir.path()).expect("says so"), GtidSet::default());

        // The index wins.
        write("log.index", b"./log.1000000\n".to_vec());
        assert_eq!(from(&set("1-2")), ["log.1000000", "3", "/3", "4", "/4"]);
        let error = LogFiles::open(dir.path(), &set("1")).err().expect("2 is missing");
        assert_eq!(error.kind(), ErrorKind::SourceLost);
    }

    /// Who stays at the end of a file that was taken away never hears of those behind it.
    #[test]
    fn a_file_that_is_taken_away_is_not_waited_at() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("b.000001"), [head(""), transaction(1)].concat()).expect("writes");
        let mut files = LogFiles::open(dir.path(), &GtidSet::default()).expect("opens");
        assert_eq!(read(&mut files), ["b.000001", "1", "/1"]);
        let before = format!("{A}:1");
        fs::write(path("b.000002"), [head(&before), transaction(2)].concat()).expect("writes");
        fs::remove_file(path("b.000001")).expect("removes");
        let error = files.next_event().expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::SourceUnreachable);
        let mut files = LogFiles::open(dir.path(), &set("1")).expect("opens");
        assert_eq!(read(&mut files), ["b.000002", "2", "/2"]);
    }

    #[test]
    fn a_file_that_ends_too_early_and_is_followed_by_another_is_damaged() {
        let dir = tempfile::tempdir().expect("a folder");
        let torn = [head(""), transaction(1)].concat();
        fs::write(dir.path().join("b.000001"), &torn[..torn.len() - 3]).expect("writes");
        fs::write(dir.path().join("b.000002"), head(&format!("{A}:1"))).expect("writes");
        let mut files = LogFiles::open(dir.path(), &GtidSet::default()).expect("opens");
        let error = loop {
            match files.next_event() {
                Ok(event) => assert!(event.is_some(), "the damage was not seen"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        assert!(error.to_string().contains("b.000001 at offset"), "{error}");
    }

    #[test]
    fn folders_that_cannot_be_read_say_why() {
        let dir = tempfile::tempdir().expect("a folder");
        let refusal = || {
            let error = LogFiles::open(dir.path(), &GtidSet::default()).err().expect("refused");
            error.report()
        };
        assert!(refusal().contains("no binlog file is there"));
        let write = |name: &str, bytes: &[u8]| {
            fs::write(dir.path().join(name), bytes).expect("writes");
        };
        write("a.000001", b"\xfdbin and more");
        assert!(refusal().contains("is encrypted (binlog_encryption)"));
        write("a.000001", b"plain text");
        assert!(refusal().contains("is no binlog file"));
        write("b.000001", &head(""));
        assert!(refusal().contains("files of several logs"));
    }
}
