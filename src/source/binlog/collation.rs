//! The log names character sets by the number of a collation. Knows nothing of columns.

use crate::table::Charset;

/// MariaDB counts the collations that do not pad from here on, each behind the number of its padding twin.
const NO_PAD: u64 = 1_024;
/// And those of UCA 14.0.0 from here on, as many for each character set that has them.
const UCA1400: u64 = 2_048;
const UCA1400_PER_CHARSET: u64 = 256;

/// The number of a collation of the same character set that stands in the lists below; MySQL has no other.
fn listed(collation: u64) -> u64 {
    const OF_UTF8MB3: u64 = 33;
    const OF_UTF8MB4: u64 = 45;
    const OF_UCS2: u64 = 35;
    const OF_UTF16: u64 = 54;
    const OF_UTF32: u64 = 60;
    match collation {
        576..=579 => OF_UTF8MB3,
        608..=611 => OF_UTF8MB4,
        640..=642 => OF_UCS2,
        672..=674 => OF_UTF16,
        736..=738 => OF_UTF32,
        NO_PAD..UCA1400 => collation - NO_PAD,
        UCA1400.. => match (collation - UCA1400) / UCA1400_PER_CHARSET {
            0 => OF_UTF8MB3,
            1 => OF_UTF8MB4,
            2 => OF_UCS2,
            3 => OF_UTF16,
            4 => OF_UTF32,
            _ => collation,
        },
        _ => collation,
    }
}

/// The character set of a collation; None for utf8mb4, utf8mb3, ascii, binary, and numbers that no server has had so far.
pub fn charset_of(collation: u64) -> Option<Charset> {
    Some(match listed(collation) {
        32 | 64 => Charset::Armscii8,
        1 | 84 => Charset::Big5,
        26 | 34 | 44 | 66 | 99 => Charset::Cp1250,
        14 | 23 | 50..=52 => Charset::Cp1251,
        57 | 67 => Charset::Cp1256,
        29 | 58 | 59 => Charset::Cp1257,
        4 | 80 => Charset::Cp850,
        40 | 81 => Charset::Cp852,
        36 | 68 => Charset::Cp866,
        95 | 96 => Charset::Cp932,
        3 | 69 => Charset::Dec8,
        97 | 98 => Charset::Eucjpms,
        19 | 85 => Charset::Euckr,
        248..=250 => Charset::Gb18030,
        24 | 86 => Charset::Gb2312,
        28 | 87 => Charset::Gbk,
        92 | 93 => Charset::Geostd8,
        25 | 70 => Charset::Greek,
        16 | 71 => Charset::Hebrew,
        6 | 72 => Charset::Hp8,
        37 | 73 => Charset::Keybcs2,
        7 | 74 => Charset::Koi8r,
        22 | 75 => Charset::Koi8u,
        5 | 8 | 15 | 31 | 47..=49 | 94 => Charset::Latin1,
        2 | 9 | 21 | 27 | 77 => Charset::Latin2,
        30 | 78 => Charset::Latin5,
        20 | 41 | 42 | 79 => Charset::Latin7,
        38 | 43 => Charset::Macce,
        39 | 53 => Charset::Macroman,
        13 | 88 => Charset::Sjis,
        10 | 82 => Charset::Swe7,
        18 | 89 => Charset::Tis620,
        35 | 90 | 128..=151 | 159 => Charset::Ucs2,
        12 | 91 => Charset::Ujis,
        54 | 55 | 101..=124 => Charset::Utf16,
        56 | 62 => Charset::Utf16le,
        60 | 61 | 160..=183 => Charset::Utf32,
        _ => return None,
    })
}

/// utf8mb4, utf8mb3 and ascii: bytes that are UTF-8 as they stand.
pub fn is_utf8(collation: u64) -> bool {
    matches!(listed(collation), 45 | 46 | 224..=247 | 255..=323 | 33 | 76 | 83 | 192..=215 | 223 | 11 | 65)
}

/// Bytes that a character can take; MySQL's lengths of CHAR and VARCHAR in the log are products of it.
pub fn bytes_per_character_max(collation: u64) -> u16 {
    if is_utf8(collation) {
        return match collation {
            11 | 65 => 1,
            33 | 76 | 83 | 192..=215 | 223 => 3,
            _ => 4,
        };
    }
    match charset_of(collation) {
        Some(Charset::Utf16 | Charset::Utf16le | Charset::Utf32 | Charset::Gb18030) => 4,
        Some(Charset::Eucjpms | Charset::Ujis) => 3,
        Some(
            Charset::Big5
            | Charset::Cp932
            | Charset::Euckr
            | Charset::Gb2312
            | Charset::Gbk
            | Charset::Sjis
            | Charset::Ucs2,
        ) => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collations_of_mariadb_are_of_the_character_sets_that_it_says() {
        for (collation, charset) in [
            (1_032, Charset::Latin1),
            (1_071, Charset::Latin1),
            (1_025, Charset::Big5),
            (1_120, Charset::Cp932),
            (642, Charset::Ucs2),
            (1_174, Charset::Ucs2),
            (2_759, Charset::Ucs2),
            (1_147, Charset::Utf16),
            (3_015, Charset::Utf16),
            (1_086, Charset::Utf16le),
            (736, Charset::Utf32),
            (3_271, Charset::Utf32),
        ] {
            assert_eq!((charset_of(collation), is_utf8(collation)), (Some(charset), false));
        }
        for collation in [576, 611, 1_035, 1_089, 1_216, 1_238, 1_270, 2_048, 2_303, 2_304, 2_503] {
            assert_eq!((charset_of(collation), is_utf8(collation)), (None, true), "{collation}");
        }
        for collation in [63, 512, 3_328, u64::MAX] {
            assert_eq!((charset_of(collation), is_utf8(collation)), (None, false), "{collation}");
        }
    }
}
