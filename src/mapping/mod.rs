//! Not yet written.

pub mod json_binary;
pub mod packed_decimal;
