//! What a link may choose of the JSON forms, and what that makes of one column. Knows no values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::table::{Column, ColumnType};

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $choice:ty,)*) => {
        /// The forms of a link's values. They concern documents only: an `_id` is always made of the usual ones.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Forms {
            $($(#[$doc])* pub $name: $choice,)*
        }

        /// What one link says of them itself.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Overrides {
            $(pub $name: Option<$choice>,)*
        }

        impl Overrides {
            /// These, and `forms` where nothing is said.
            pub fn over(self, forms: Forms) -> Forms {
                Forms { $($name: self.$name.unwrap_or(forms.$name),)* }
            }
        }
    };
}

options! {
    /// TINYINT(1).
    tinyint1: Truth,
    /// BIT(1).
    bit1: Truth,
    decimal: Digits,
    /// What DATETIME's moments, which have no zone, are said to be in.
    datetime_zone: Zone,
    /// Dates that no calendar has.
    zero_date: ZeroDate,
    json: Json,
    /// BINARY, VARBINARY and the BLOBs.
    binary: Binary,
    spatial: Spatial,
}

macro_rules! choices {
    ($($choice:ident { $usual:ident, $other:ident })*) => {
        $(
            #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
            #[serde(rename_all = "lowercase")]
            pub enum $choice {
                #[default]
                $usual,
                $other,
            }
        )*
    };
}

choices! {
    Truth { Number, Bool }
    Digits { Number, String }
    ZeroDate { Null, String }
    Json { Value, String }
    Binary { Base64, Hex }
    Spatial { Geojson, Wkt }
}

/// What is written behind a DATETIME: nothing, `Z`, or `+08:00`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Zone {
    bytes: [u8; 6],
    length: u8,
}

/// The word for no zone.
const NO_ZONE: &str = "none";
/// Minutes from UTC; no place on earth is farther.
const OFFSET_MAX: u32 = 14 * 60;

impl Zone {
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut zone = Self::default();
        let is_offset = || {
            let (sign, clock) = text.split_at_checked(1)?;
            let (hours, minutes) = clock.split_once(':')?;
            let number = |part: &str| {
                let is_pair = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
                is_pair.then(|| part.parse::<u32>().ok())?
            };
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            let is_one = minutes < 60 && hours * 60 + minutes <= OFFSET_MAX;
            (matches!(sign, "+" | "-") && is_one).then_some(())
        };
        if text == NO_ZONE {
            return Some(zone);
        }
        if text != "Z" {
            is_offset()?;
        }
        zone.bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        zone.length = text.len() as u8;
        Some(zone)
    }
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from(*self))
    }
}

/// By a visitor of its own, so that a wrong one is said to be wrong where it stands.
impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Zone;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"none\", \"Z\" or an offset as \"+08:00\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Zone, E> {
                let found = serde::de::Unexpected::Str(text);
                Zone::parse(text).ok_or_else(|| E::invalid_value(found, &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        if zone.length == 0 { NO_ZONE.to_owned() } else { zone.as_str().to_owned() }
    }
}

impl Forms {
    /// By the words that the configuration has for them, to be stored.
    pub fn to_words(self) -> BTreeMap<String, String> {
        let words = serde_json::to_value(self).and_then(serde_json::from_value);
        words.expect("every option has a word")
    }

    /// What was stored; options that were not are the usual ones.
    pub fn from_words(words: &BTreeMap<String, String>) -> Result<Self> {
        serde_json::to_value(words).and_then(serde_json::from_value).map_err(|cause| {
            Error::new(ErrorKind::State, "the link was stored with options that are not known")
                .caused_by(cause)
                .with_advice("drop the link and make it again")
        })
    }
}

/// How the values of one column are written: chosen once, when a mapping is compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// As the type has it.
    #[default]
    Usual,
    Bool,
    /// A number in quotes.
    Quoted,
    Moment {
        zone: Zone,
        is_zero_text: bool,
    },
    /// A JSON value as the text that it is.
    Text,
    Hex,
    Wkt,
}

impl Form {
    pub fn of(column: &Column, forms: &Forms) -> Self {
        use ColumnType as C;
        let is_zero_text = forms.zero_date == ZeroDate::String;
        let form = match column.ty {
            // The server keeps this one width, because clients take it for a boolean.
            C::TinyInt { .. } if column.declared.to_lowercase().starts_with("tinyint(1)") => {
                (forms.tinyint1 == Truth::Bool).then_some(Self::Bool)
            }
            C::Bit { length: 1 } => (forms.bit1 == Truth::Bool).then_some(Self::Bool),
            C::Decimal { .. } => (forms.decimal == Digits::String).then_some(Self::Quoted),
            C::DateTime { .. } => {
                let zone = forms.datetime_zone;
                let is_usual = zone == Zone::default() && !is_zero_text;
                (!is_usual).then_some(Self::Moment { zone, is_zero_text })
            }
            C::Date | C::Timestamp { .. } => {
                is_zero_text.then_some(Self::Moment { zone: Zone::default(), is_zero_text })
            }
            C::Json | C::JsonText => (forms.json == Json::String).then_some(Self::Text),
            C::Binary { .. } | C::Bytes => (forms.binary == Binary::Hex).then_some(Self::Hex),
            C::Geometry => (forms.spatial == Spatial::Wkt).then_some(Self::Wkt),
            _ => None,
        };
        form.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_an_offset_that_exists() {
        for (text, shown) in [
            ("none", ""),
            ("Z", "Z"),
            ("+08:00", "+08:00"),
            ("-03:30", "-03:30"),
            ("+14:00", "+14:00"),
        ] {
            let zone = Zone::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((zone.as_str(), String::from(zone).as_str()), (shown, text));
        }
        for wrong in
            ["", "z", "+8", "+08", "08:00", "+08:60", "+14:01", "+8:000", "UTC", "é08:00", "+é8:00"]
        {
            assert!(Zone::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_stored_is_found_again_and_what_was_not_is_usual() {
        let forms = Forms {
            tinyint1: Truth::Bool,
            datetime_zone: Zone::parse("+08:00").expect("a zone"),
            spatial: Spatial::Wkt,
            ..Forms::default()
        };
        assert_eq!(Forms::from_words(&forms.to_words()).expect("reads"), forms);
        assert_eq!(Forms::from_words(&BTreeMap::new()).expect("reads"), Forms::default());
        let foreign = BTreeMap::from([("colour".to_owned(), "red".to_owned())]);
        assert_eq!(Forms::from_words(&foreign).expect_err("foreign").kind(), ErrorKind::State);
    }

    #[test]
    fn a_link_says_only_what_is_different() {
        let common = Forms { decimal: Digits::String, ..Forms::default() };
        let link = Overrides { json: Some(Json::String), ..Overrides::default() };
        let both = Forms { json: Json::String, ..common };
        assert_eq!(link.over(common), both);
    }
}
