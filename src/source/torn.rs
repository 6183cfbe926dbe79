//! A log whose end was lost in a crash: a file of it ends before the place up to which it was read. The server gives the
//! numbers of what it lost to other transactions, so by numbers alone nothing is missing. Knows nothing of epochs.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::error::{Remedy, Result};
use crate::mysql::Connection;
use crate::position::Position;

/// Where each file of the log ends.
#[derive(Debug, Default)]
pub struct Ends(Vec<(String, u64)>);

/// Who may not see the files cannot have them compared.
const QUESTION: &str = "SHOW BINARY LOGS";

impl Ends {
    pub async fn of(conn: &mut Conn) -> Self {
        let rows: Vec<mysql_async::Row> = conn.query(QUESTION).await.unwrap_or_default();
        let end = |row: mysql_async::Row| {
            Some((row.get_opt::<String, _>(0)?.ok()?, row.get_opt::<u64, _>(1)?.ok()?))
        };
        Self(rows.into_iter().filter_map(end).collect())
    }

    /// Why what was read up to `read` is not in the log any more; `None` too where its file has gone.
    pub fn why_torn(&self, read: &Position) -> Option<String> {
        let (file, end) = self.0.iter().find(|(file, _)| *file == read.file)?;
        (*end < read.offset).then(|| {
            format!(
                "the source's log lost its end in a crash: {file} was read up to offset {}, and ends at {end} now",
                read.offset
            )
        })
    }
}

/// The same by a session for the log.
pub async fn by_connection(connection: &mut Connection, read: &Position) -> Result<Option<String>> {
    if read.file.is_empty() {
        return Ok(None);
    }
    let rows = match connection.query(QUESTION).await {
        Ok(rows) => rows,
        Err(error) if error.remedy() == Remedy::Retry => return Err(error),
        Err(_) => return Ok(None),
    };
    let ends = rows.into_iter().filter_map(|row| {
        let mut cells = row.into_iter().map(|cell| String::from_utf8(cell?).ok());
        Some((cells.next()??, cells.next()??.parse().ok()?))
    });
    Ok(Ends(ends.collect()).why_torn(read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::GtidSet;

    #[test]
    fn a_file_that_ends_before_what_was_read_of_it_is_torn() {
        let ends = Ends(vec![("binlog.000007".into(), 500), ("binlog.000008".into(), 157)]);
        let read =
            |file: &str, offset| Position { file: file.into(), offset, gtids: GtidSet::default() };
        assert!(ends.why_torn(&read("binlog.000007", 501)).is_some());
        assert_eq!(ends.why_torn(&read("binlog.000007", 500)), None);
        assert_eq!(ends.why_torn(&read("binlog.000006", 900)), None);
        assert_eq!(ends.why_torn(&read("", 0)), None);
    }
}
