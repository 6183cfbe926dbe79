//! Text in the source's character sets to UTF-8, character by character as the server itself converts it. Knows no
//! columns.
//!
//! What has no character in Unicode becomes `?`, as it does in the server's own answers. The tables are the server's: those
//! of one byte stand in `tables`, the large ones are encoding_rs's with what differs put right, and a test compares every
//! code of every character set with the servers.

mod multi_byte;
#[rustfmt::skip]
mod tables;

use super::escape::escape;
use crate::error::{Error, ErrorKind, Result};
use crate::table::Charset;
use multi_byte::{Kind, MultiByte};

/// What stands at the beginning of some bytes.
enum Step {
    Char(char, usize),
    /// Bytes that stand for no character.
    None(usize),
    /// Bytes that end within a character: the server leaves them out.
    Cut,
}

enum Decoder {
    /// ASCII, and this above it.
    Upper(&'static [u16; 128]),
    Swe7,
    Multi(&'static MultiByte),
    Ucs2,
    Utf16,
    Utf16le,
    Utf32,
}

/// Writes the text as a JSON string with its quotes.
pub(super) fn write_string(text: &[u8], charset: Charset, out: &mut Vec<u8>) {
    let decoder = Decoder::of(charset);
    out.reserve(text.len() + 2);
    out.push(b'"');
    decoder.each(text, |piece| match piece {
        Piece::Ascii(ascii) => escape(ascii, out),
        Piece::Char(c) => escape(c.encode_utf8(&mut [0; 4]).as_bytes(), out),
        Piece::None => out.push(b'?'),
    });
    out.push(b'"');
}

/// Appends the text as UTF-8. Different texts give different ones: what has no character, or one that other bytes have
/// too, is refused.
pub(super) fn write_key(text: &[u8], charset: Charset, out: &mut Vec<u8>) -> Result<()> {
    let decoder = Decoder::of(charset);
    let mut is_unique = true;
    decoder.each(text, |piece| match piece {
        Piece::Ascii(ascii) => out.extend_from_slice(ascii),
        Piece::Char(c) => {
            is_unique &= !decoder.is_repeated(c);
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Piece::None => is_unique = false,
    });
    if is_unique {
        return Ok(());
    }
    let message = format!(
        "it holds bytes that are no character of {}, or one that other bytes are too",
        charset.name()
    );
    Err(Error::new(ErrorKind::DocumentRefused, message).with_advice(
        "in an _id they could not be told from others: mend the row, or use another key",
    ))
}

enum Piece<'a> {
    Ascii(&'a [u8]),
    Char(char),
    None,
}

impl Decoder {
    fn of(charset: Charset) -> Self {
        use Charset as C;
        use tables as t;
        Self::Upper(match charset {
            C::Armscii8 => &t::ARMSCII8,
            C::Big5 => return Self::Multi(Kind::Big5.table()),
            C::Cp1250 => &t::CP1250,
            C::Cp1251 => &t::CP1251,
            C::Cp1256 => &t::CP1256,
            C::Cp1257 => &t::CP1257,
            C::Cp850 => &t::CP850,
            C::Cp852 => &t::CP852,
            C::Cp866 => &t::CP866,
            C::Cp932 => return Self::Multi(Kind::Cp932.table()),
            C::Dec8 => &t::DEC8,
            C::Eucjpms => return Self::Multi(Kind::Eucjpms.table()),
            C::Euckr => return Self::Multi(Kind::Euckr.table()),
            C::Gb18030 => return Self::Multi(Kind::Gb18030.table()),
            C::Gb2312 => return Self::Multi(Kind::Gb2312.table()),
            C::Gbk => return Self::Multi(Kind::Gbk.table()),
            C::Geostd8 => &t::GEOSTD8,
            C::Greek => &t::GREEK,
            C::Hebrew => &t::HEBREW,
            C::Hp8 => &t::HP8,
            C::Keybcs2 => &t::KEYBCS2,
            C::Koi8r => &t::KOI8R,
            C::Koi8u => &t::KOI8U,
            C::Latin1 => &t::LATIN1,
            C::Latin2 => &t::LATIN2,
            C::Latin5 => &t::LATIN5,
            C::Latin7 => &t::LATIN7,
            C::Macce => &t::MACCE,
            C::Macroman => &t::MACROMAN,
            C::Sjis => return Self::Multi(Kind::Sjis.table()),
            C::Swe7 => return Self::Swe7,
            C::Tis620 => &t::TIS620,
            C::Ucs2 => return Self::Ucs2,
            C::Ujis => return Self::Multi(Kind::Ujis.table()),
            C::Utf16 => return Self::Utf16,
            C::Utf16le => return Self::Utf16le,
            C::Utf32 => return Self::Utf32,
        })
    }

    fn each<'a>(&self, text: &'a [u8], mut take: impl FnMut(Piece<'a>)) {
        let has_ascii = matches!(self, Self::Upper(_) | Self::Multi(_));
        let mut rest = text;
        while !rest.is_empty() {
            if has_ascii {
                let ascii = ascii_length(rest);
                if ascii > 0 {
                    take(Piece::Ascii(&rest[..ascii]));
                    rest = &rest[ascii..];
                    continue;
                }
            }
            let length = match self.step(rest) {
                Step::Char(c, length) => {
                    take(Piece::Char(c));
                    length
                }
                Step::None(length) => {
                    take(Piece::None);
                    length
                }
                Step::Cut => return,
            };
            rest = rest.get(length..).unwrap_or_default();
        }
    }

    /// `bytes` are at least one, and no ASCII where the set has it.
    #[inline]
    fn step(&self, bytes: &[u8]) -> Step {
        let first = usize::from(bytes[0]);
        match self {
            Self::Upper(table) => one(table[first & 0x7f], 1),
            Self::Swe7 if first == 0 => Step::Char('\0', 1),
            Self::Swe7 => one(if first < 0x80 { tables::SWE7[first] } else { 0 }, 1),
            Self::Multi(table) => table.step(bytes),
            Self::Ucs2 => match bytes {
                [high, low, ..] => unit(u16::from_be_bytes([*high, *low]).into(), 2),
                _ => Step::Cut,
            },
            Self::Utf16 => utf16(bytes, u16::from_be_bytes),
            Self::Utf16le => utf16(bytes, u16::from_le_bytes),
            Self::Utf32 => match bytes.first_chunk::<4>() {
                Some(code) => unit(u32::from_be_bytes(*code), 4),
                None => Step::Cut,
            },
        }
    }

    /// Whether other bytes of this set are this character too.
    fn is_repeated(&self, c: char) -> bool {
        match self {
            Self::Upper(table) => {
                let times = table.iter().filter(|unicode| u32::from(**unicode) == u32::from(c));
                c.is_ascii() || times.count() > 1
            }
            Self::Multi(table) => c.is_ascii() || table.is_repeated(c),
            Self::Swe7 | Self::Ucs2 | Self::Utf16 | Self::Utf16le | Self::Utf32 => false,
        }
    }
}

fn ascii_length(bytes: &[u8]) -> usize {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, _) = bytes.as_chunks::<8>();
    let whole = words.iter().take_while(|word| u64::from_le_bytes(**word) & HIGH == 0).count() * 8;
    whole + bytes[whole..].iter().take_while(|byte| byte.is_ascii()).count()
}

/// A number of a table, where 0 stands for no character.
fn one(unicode: u16, length: usize) -> Step {
    if unicode == 0 { Step::None(length) } else { unit(unicode.into(), length) }
}

fn unit(unicode: u32, length: usize) -> Step {
    char::from_u32(unicode).map_or(Step::None(length), |c| Step::Char(c, length))
}

fn utf16(bytes: &[u8], read: fn([u8; 2]) -> u16) -> Step {
    let mut units = bytes.as_chunks::<2>().0.iter().map(|unit| u32::from(read(*unit)));
    match units.next() {
        None => Step::Cut,
        Some(high @ 0xd800..=0xdbff) => match units.next() {
            Some(low @ 0xdc00..=0xdfff) => {
                unit(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), 4)
            }
            Some(_) => Step::None(1),
            None => Step::Cut,
        },
        Some(0xdc00..=0xdfff) => Step::None(1),
        Some(code) => unit(code, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &[u8], charset: Charset) -> String {
        let mut out = Vec::new();
        write_string(text, charset, &mut out);
        String::from_utf8(out).expect("it is UTF-8")
    }

    #[test]
    fn text_of_any_set_becomes_a_json_string() {
        assert_eq!(written(b"caf\xe9 \"\x80\x81", Charset::Latin1), "\"café \\\"€\u{81}\"");
        assert_eq!(written(b"a\xd6\xd0\xce\xc4\n", Charset::Gbk), "\"a中文\\n\"");
        assert_eq!(written(b"[\\]", Charset::Swe7), "\"ÄÖÅ\"");
        assert_eq!(written(b"\0\"\xd8\x3d\xde\x00", Charset::Utf16), "\"\\\"😀\"");
        assert_eq!(written(b"\x94\x39\xfc\x36", Charset::Gb18030), "\"😀\"");
        assert_eq!(written(b"\x81\x5c\x5c\xb1", Charset::Sjis), "\"―\\\\ｱ\"");
        assert_eq!(written(b"\x8f\xb0\xa1\x8e\xb1", Charset::Ujis), "\"丂ｱ\"");
        assert_eq!(written(b"a\x98\xff", Charset::Cp1251), "\"a?я\"");
    }

    #[test]
    fn a_key_holds_no_character_that_others_could_be_taken_for() {
        let key = |text: &[u8], charset| {
            let mut out = Vec::new();
            write_key(text, charset, &mut out).map(|()| out)
        };
        assert_eq!(key(b"\xd6\xd0", Charset::Gbk).expect("one"), "中".as_bytes());
        for (text, charset) in [
            (&b"\x98"[..], Charset::Cp1251),
            (b"\xfb\xfc", Charset::Cp932),
            (b"\xee\xe0", Charset::Cp932),
            (b"\x81\x5f", Charset::Sjis),
        ] {
            let error = key(text, charset).expect_err(charset.name());
            assert_eq!(error.kind(), ErrorKind::DocumentRefused);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_of_any_set_make_it_panic(
            text in prop::collection::vec(any::<u8>(), 0..40),
            charset in prop::sample::select(Charset::ALL),
        ) {
            prop_assert!(serde_json::from_str::<String>(&written(&text, charset)).is_ok());
        }
    }
}
