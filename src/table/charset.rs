//! The source's character sets whose bytes are not UTF-8, by name. Knows no tables: `mapping` decodes them.

macro_rules! charsets {
    ($($charset:ident $name:literal,)*) => {
        /// A character set other than utf8mb4 and its parts, utf8mb3 and ascii.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Charset {
            $($charset,)*
        }

        impl Charset {
            pub const ALL: &[Self] = &[$(Self::$charset,)*];

            /// As the source calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$charset => $name,)*
                }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$charset),)*
                    _ => None,
                }
            }
        }
    };
}

charsets! {
    Armscii8 "armscii8",
    Big5 "big5",
    Cp1250 "cp1250",
    Cp1251 "cp1251",
    Cp1256 "cp1256",
    Cp1257 "cp1257",
    Cp850 "cp850",
    Cp852 "cp852",
    Cp866 "cp866",
    Cp932 "cp932",
    Dec8 "dec8",
    Eucjpms "eucjpms",
    Euckr "euckr",
    Gb18030 "gb18030",
    Gb2312 "gb2312",
    Gbk "gbk",
    Geostd8 "geostd8",
    Greek "greek",
    Hebrew "hebrew",
    Hp8 "hp8",
    Keybcs2 "keybcs2",
    Koi8r "koi8r",
    Koi8u "koi8u",
    Latin1 "latin1",
    Latin2 "latin2",
    Latin5 "latin5",
    Latin7 "latin7",
    Macce "macce",
    Macroman "macroman",
    Sjis "sjis",
    Swe7 "swe7",
    Tis620 "tis620",
    Ucs2 "ucs2",
    Ujis "ujis",
    Utf16 "utf16",
    Utf16le "utf16le",
    Utf32 "utf32",
}
