//! The server's binary JSON to text: the text must be JSON, and not be out of all proportion.

use driftless::mapping::json_binary::write_json_binary;

/// No form says less than a byte for so many of text.
const TEXT_BYTES_PER_BYTE: usize = 32;

pub fn read(input: &[u8]) {
    let mut out = b"before".to_vec();
    let written = write_json_binary(input, &mut out);
    let text = out.strip_prefix(b"before").expect("what was there is left alone");
    match written {
        Ok(()) => super::assert_json(text),
        Err(_) => assert!(text.is_empty(), "half a document is left behind"),
    }
    assert!(text.len() <= 64 + TEXT_BYTES_PER_BYTE * input.len(), "{} bytes", text.len());
}
