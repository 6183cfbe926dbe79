//! The targets by name: each reads bytes as the daemon would read them from outside, and asserts what must hold of the
//! result. Must not know the engine.
//!
//! An error is a good answer to bad bytes. A panic, an overflow, a hang and memory without a bound are not, and neither
//! are results that contradict each other.

mod bulk;
mod ddl;
mod gtid;
mod jsonb;
pub mod log;
mod packets;
pub mod rows;
mod statement;
mod table_map;

pub type Target = fn(&[u8]);

/// Longer inputs are not tried: what is wrong shows in short ones, of which more can be tried.
pub const INPUT_BYTES_MAX: usize = 4096;

const ALL: &[(&str, Target)] = &[
    ("bulk", bulk::read),
    ("ddl", ddl::read),
    ("gtid", gtid::read),
    ("jsonb", jsonb::read),
    ("log", log::read),
    ("packets", packets::read),
    ("rows", rows::read),
    ("statement", statement::read),
    ("table_map", table_map::read),
];

pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}

pub fn named(name: &str) -> Option<Target> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// Whether the text is JSON, and nothing but UTF-8.
pub fn assert_json(text: &[u8]) {
    let shown = String::from_utf8_lossy(text);
    assert!(std::str::from_utf8(text).is_ok(), "not UTF-8: {shown}");
    let read = serde_json::from_slice::<serde_json::Value>(text);
    if let Err(error) = read {
        panic!("{error}: {shown}");
    }
}
