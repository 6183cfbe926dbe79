//! The text of a statement as the log has it, in the character set and under the SQL mode of its session. Knows no
//! grammar.

use std::borrow::Cow;

use encoding_rs::Encoding;

use super::tokens::behind_set_statement;
use crate::source::binlog::collation;
use crate::source::binlog::event::Query;
use crate::table::Charset;

const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

/// The statement in UTF-8, with backslashes that escape, without variables that are set for it alone.
pub fn statement<'a>(query: &Query<'a>) -> Cow<'a, str> {
    let mut text = decoded(query);
    if text.contains('\\') && query.sql_mode() & NO_BACKSLASH_ESCAPES != 0 {
        text = Cow::Owned(text.replace('\\', r"\\"));
    }
    let alone = behind_set_statement(&text).map(str::to_owned);
    alone.map_or(text, Cow::Owned)
}

fn decoded<'a>(query: &Query<'a>) -> Cow<'a, str> {
    match collation::charset_of(query.client_collation().into()) {
        Some(charset) if !query.statement.is_ascii() => {
            Cow::Owned(decode(query.statement, encoding(charset)))
        }
        // A client whose set is `binary` sends what it likes.
        _ => String::from_utf8_lossy(query.statement),
    }
}

fn decode(bytes: &[u8], encoding: &'static Encoding) -> String {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let room = decoder.max_utf8_buffer_length(bytes.len()).unwrap_or_default();
    let mut text = vec![0; room];
    let (.., written, _) = decoder.decode_to_utf8(bytes, &mut text, true);
    text.truncate(written);
    String::from_utf8(text).unwrap_or_default()
}

/// Where there is none of the set's own, names in ASCII are read rightly and others are no table's.
fn encoding(charset: Charset) -> &'static Encoding {
    use encoding_rs as e;
    match charset {
        Charset::Big5 => e::BIG5,
        Charset::Cp1250 => e::WINDOWS_1250,
        Charset::Cp1251 => e::WINDOWS_1251,
        Charset::Cp1256 => e::WINDOWS_1256,
        Charset::Cp1257 => e::WINDOWS_1257,
        Charset::Cp866 => e::IBM866,
        Charset::Cp932 | Charset::Sjis => e::SHIFT_JIS,
        Charset::Eucjpms | Charset::Ujis => e::EUC_JP,
        Charset::Euckr => e::EUC_KR,
        Charset::Gb18030 => e::GB18030,
        Charset::Gb2312 | Charset::Gbk => e::GBK,
        Charset::Greek => e::ISO_8859_7,
        Charset::Hebrew => e::ISO_8859_8,
        Charset::Koi8r => e::KOI8_R,
        Charset::Koi8u => e::KOI8_U,
        Charset::Latin2 => e::ISO_8859_2,
        Charset::Latin5 => e::WINDOWS_1254,
        Charset::Latin7 => e::ISO_8859_13,
        Charset::Macroman => e::MACINTOSH,
        Charset::Tis620 => e::WINDOWS_874,
        _ => e::WINDOWS_1252,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: &[u8], text: &[u8]) -> String {
        let query = Query { thread_id: 1, error_code: 0, status, db: b"d", statement: text };
        statement(&query).into_owned()
    }

    #[test]
    fn a_statement_is_in_the_clients_character_set() {
        let latin1 = [
            0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 3, b's', b't', b'd', 4, 8, 0, 8, 0, 255, 0,
        ];
        assert_eq!(read(&latin1, b"ALTER TABLE na\xefve"), "ALTER TABLE naïve");
        assert_eq!(read(&[], "ALTER TABLE naïve".as_bytes()), "ALTER TABLE naïve");
        assert_eq!(read(&[4, 28, 0, 8, 0, 8, 0], b"DROP TABLE \xd6\xd0"), "DROP TABLE 中");
        assert_eq!(read(&[4, 28], b"DROP TABLE t"), "DROP TABLE t");
    }

    #[test]
    fn variables_that_are_set_for_a_statement_are_left_out() {
        let statement = b"set /* x */ STATEMENT max_statement_time=(SELECT 1 FOR UPDATE), a='FOR b' FOR\n ALTER TABLE t DROP a";
        assert_eq!(read(&[], statement), "ALTER TABLE t DROP a");
        assert_eq!(read(&[], b"SET STATEMENT = 1"), "SET STATEMENT = 1");
    }

    #[test]
    fn backslashes_escape_whatever_the_mode() {
        let mode = [1, 0, 0, 0x10, 0, 0, 0, 0, 0];
        assert_eq!(read(&mode, br"COMMENT 'c:\'"), r"COMMENT 'c:\\'");
        assert_eq!(read(&[1, 0, 0, 0, 0, 0, 0, 0, 0], br"COMMENT 'c\''"), r"COMMENT 'c\''");
    }
}
