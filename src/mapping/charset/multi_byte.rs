//! East Asian character sets: a table of each, made when the first text in it is met. Knows no strings.

use std::sync::OnceLock;

use encoding_rs::{BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, SHIFT_JIS};

use super::tables::{self, Run};
use super::{Step, one, unit};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Big5,
    Cp932,
    Eucjpms,
    Euckr,
    Gb18030,
    Gb2312,
    Gbk,
    Sjis,
    Ujis,
}

/// Introduces three bytes in the Japanese sets of EUC.
const THREE: u8 = 0x8f;

/// The characters of one set by their codes.
pub(super) struct MultiByte {
    kind: Kind,
    /// By code of one or two bytes; 0 where there is none.
    two: Box<[u16]>,
    /// By the two bytes behind [`THREE`].
    three: Box<[u16]>,
    /// Characters that more than one code has, in order.
    repeated: Vec<u16>,
}

impl Kind {
    /// 128 KiB and some milliseconds, once for each set that is in use.
    pub fn table(self) -> &'static MultiByte {
        static TABLES: [OnceLock<MultiByte>; 9] = [const { OnceLock::new() }; 9];
        TABLES[self as usize].get_or_init(|| MultiByte::make(self))
    }

    fn sources(self) -> (&'static Encoding, &'static [Run]) {
        match self {
            Self::Big5 => (BIG5, tables::BIG5),
            Self::Cp932 => (SHIFT_JIS, tables::CP932),
            Self::Eucjpms => (EUC_JP, tables::EUCJPMS),
            Self::Euckr => (EUC_KR, tables::EUCKR),
            Self::Gb18030 => (GB18030, tables::GB18030),
            Self::Gb2312 => (GBK, tables::GB2312),
            Self::Gbk => (GBK, tables::GBK),
            Self::Sjis => (SHIFT_JIS, tables::SJIS),
            Self::Ujis => (EUC_JP, tables::UJIS),
        }
    }

    fn is_euc_of_japan(self) -> bool {
        matches!(self, Self::Ujis | Self::Eucjpms)
    }

    /// The byte from which on a second byte can be one.
    fn second_from(self) -> u8 {
        if self == Self::Gb2312 { 0xa1 } else { 0x40 }
    }
}

impl MultiByte {
    fn make(kind: Kind) -> Self {
        let (encoding, runs) = kind.sources();
        let mut two = vec![0; 1 << 16].into_boxed_slice();
        let mut three = Vec::new();
        for high in 0x80..=0xff {
            two[usize::from(high)] = decoded(encoding, &[high]);
            for low in kind.second_from()..=0xff {
                two[code(high, low)] = decoded(encoding, &[high, low]);
            }
        }
        if kind.is_euc_of_japan() {
            three = vec![0; 1 << 16];
            for high in 0xa1..=0xfe {
                for low in 0xa1..=0xfe {
                    three[code(high, low)] = decoded(encoding, &[THREE, high, low]);
                }
            }
        }
        for &(first, count, unicode) in runs {
            for at in 0..u32::from(count) {
                let table = match first >> 16 {
                    0 => &mut two[..],
                    0x8f => &mut three[..],
                    // Codes of four bytes have no table.
                    _ => continue,
                };
                let found = if unicode == 0 { 0 } else { unicode + at };
                if let Some(entry) = table.get_mut((first + at) as usize & 0xffff) {
                    *entry = found as u16;
                }
            }
        }
        let mut all: Vec<u16> = two.iter().chain(&three).copied().filter(|c| *c != 0).collect();
        all.sort_unstable();
        let mut repeated: Vec<u16> =
            all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated.dedup();
        Self { kind, two, three: three.into_boxed_slice(), repeated }
    }

    pub fn is_repeated(&self, c: char) -> bool {
        u16::try_from(u32::from(c)).is_ok_and(|c| self.repeated.binary_search(&c).is_ok())
    }

    /// `bytes` begin with one that is no ASCII.
    #[inline]
    pub fn step(&self, bytes: &[u8]) -> Step {
        let high = bytes[0];
        let single = self.two[usize::from(high)];
        if single != 0 {
            return one(single, 1);
        }
        if self.kind.is_euc_of_japan() {
            return self.euc_of_japan(bytes);
        }
        match *bytes {
            [_, b'0'..=b'9', third, fourth, ..] if self.kind == Kind::Gb18030 => {
                four_bytes([high, bytes[1], third, fourth])
            }
            [_, b'0'..=b'9', ..] if self.kind == Kind::Gb18030 => Step::Cut,
            [_, low, ..] => one(self.two[code(high, low)], 2),
            _ => Step::Cut,
        }
    }

    fn euc_of_japan(&self, bytes: &[u8]) -> Step {
        let is_upper = |byte: u8| (0xa1..=0xfe).contains(&byte);
        let (table, bytes, length) = match bytes {
            [THREE, rest @ ..] => (&self.three, rest, 3),
            [0x8e | 0xa1..=0xfe, ..] => (&self.two, bytes, 2),
            _ => return Step::None(1),
        };
        let [high, low, ..] = *bytes else { return Step::Cut };
        match table[code(high, low)] {
            0 if is_upper(low) && (length == 2 || is_upper(high)) => Step::None(length),
            0 => Step::None(1),
            unicode => one(unicode, length),
        }
    }
}

fn code(high: u8, low: u8) -> usize {
    usize::from(high) << 8 | usize::from(low)
}

/// The one character of the basic plane that the bytes are, or 0.
fn decoded(encoding: &'static Encoding, bytes: &[u8]) -> u16 {
    let mut units = [0; 4];
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let (result, _, count) = decoder.decode_to_utf16_without_replacement(bytes, &mut units, true);
    match (result, count) {
        (encoding_rs::DecoderResult::InputEmpty, 1) => units[0],
        _ => 0,
    }
}

#[cold]
fn four_bytes(bytes: [u8; 4]) -> Step {
    let code = u32::from_be_bytes(bytes);
    let run = tables::GB18030
        .iter()
        .find(|(first, count, _)| (*first..*first + u32::from(*count)).contains(&code));
    if let Some(&(first, _, unicode)) = run {
        return if unicode == 0 { Step::None(4) } else { unit(unicode + code - first, 4) };
    }
    let mut units = [0; 4];
    let mut decoder = GB18030.new_decoder_without_bom_handling();
    let (_, _, count) = decoder.decode_to_utf16_without_replacement(&bytes, &mut units, true);
    match char::decode_utf16(units[..count].iter().copied()).next() {
        Some(Ok(c)) => Step::Char(c, 4),
        _ => Step::None(4),
    }
}
