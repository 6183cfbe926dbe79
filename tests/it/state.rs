//! The state directory across lives and processes.

use std::process::Command;

use driftless::position::{Checkpoint, Epoch, Position};
use driftless::state::{CheckpointRecord, KeyPart, SealingKey, SnapshotRecord, State};

const CHILD: &str = "DRIFTLESS_TEST_STATE_CHILD";

fn open(dir: &std::path::Path) -> State {
    State::open(dir, SealingKey::from_bytes([3; 32])).expect("opens")
}

/// Stream and snapshot of the same number, so that a torn record would show.
fn record(number: u64) -> CheckpointRecord {
    CheckpointRecord {
        checkpoint: Checkpoint {
            epoch: Epoch(1),
            n: number,
            position: Position { file: "binlog.000001".into(), ..Position::default() },
        },
        snapshot: Some(SnapshotRecord {
            after: Some(vec![KeyPart::UInt(number)]),
            rows: number,
            ..SnapshotRecord::default()
        }),
        index_uuid: "u".into(),
        prepared: Default::default(),
    }
}

/// Not a test of its own: the process that the test below starts, and kills while it writes.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let state = open(dir.as_ref());
    for number in 1u64.. {
        state.checkpoints().put("1", &record(number), number.is_multiple_of(64)).expect("writes");
        if number == 2_000 {
            std::fs::write(std::path::Path::new(&dir).join("busy"), "").expect("writes");
        }
    }
}

#[test]
fn a_killed_process_leaves_a_whole_checkpoint_and_no_lock() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "state::child_that_writes_until_it_is_killed"])
        .env(CHILD, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !dir.path().join("busy").exists() {
        assert!(std::time::Instant::now() < deadline, "the child does not write");
        std::thread::yield_now();
    }
    let error = State::open(dir.path(), SealingKey::from_bytes([3; 32])).err().expect("is locked");
    assert!(error.report().contains("in use by another process"), "{}", error.report());
    assert!(error.report().contains(&dir.path().display().to_string()), "{}", error.report());
    child.kill().expect("is killed");
    child.wait().expect("ends");

    let found = open(dir.path()).checkpoints().get("1").expect("reads").expect("is there");
    assert!(found.checkpoint.n >= 2_000, "what was written before the kill is there");
    assert_eq!(found, record(found.checkpoint.n));
}
