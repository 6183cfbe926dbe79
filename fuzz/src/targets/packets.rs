//! The connection's framing: messages must not depend on how the bytes came. What they say is read as the parts of the
//! login that need no socket read it.

use driftless::mysql::errors;
use driftless::mysql::handshake::Greeting;
use driftless::mysql::joiner::Joiner;

const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The first byte is the size of the pieces that come at once; 0 is all.
pub fn read(input: &[u8]) {
    let Some((&piece, wire)) = input.split_first() else { return };
    let whole = messages(wire, wire.len().max(1));
    if piece > 0 {
        assert_eq!(messages(wire, piece.into()), whole);
    }
    for message in &whole.0 {
        if let Ok(greeting) = Greeting::parse(message) {
            let _ = greeting.tls_request();
        }
        assert!(!errors::from_packet(message, "tried", "user").report().is_empty());
    }
}

/// The messages, and whether the bytes behind them are refused.
fn messages(wire: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut joiner = Joiner::default();
    let mut messages = Vec::new();
    for part in wire.chunks(piece) {
        joiner.buffer_mut().extend_from_slice(part);
        loop {
            match joiner.take(MESSAGE_BYTES_MAX, &|_| true) {
                Ok(Some((message, _))) => messages.push(message.bytes.to_vec()),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}
