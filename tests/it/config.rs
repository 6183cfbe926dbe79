//! The configuration as the running daemon reads it: environment, files, links. Its faults are shown in `src/config`.

use std::process::Stdio;

use crate::support::daemon::driftless;

#[test]
fn the_environment_fills_in_what_the_file_leaves_open() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("driftless.toml");
    let text = "state_dir = \"${STATE}\"\n[source]\nport = \"${SOURCE_PORT}\"\n[sink]\naddresses = [\"${SINK}\"]\n";
    std::fs::write(&file, text).expect("the configuration can be written");
    let mut command = driftless();
    command
        .args(["check", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .env("STATE", folder.path().join("s"));
    let lacking = command.output().expect("it runs");
    let shown = String::from_utf8_lossy(&lacking.stderr).into_owned();
    assert_eq!(lacking.status.code(), Some(64), "{shown}");
    assert!(shown.contains(":3:9: the environment has no variable `SOURCE_PORT`"), "{shown}");
    assert!(shown.contains(":5:15: the environment has no variable `SINK`"), "{shown}");
    // Nobody listens on port 1, so the file was read and the source was asked.
    let read = command
        .env("SOURCE_PORT", "1")
        .env("SINK", "http://127.0.0.1:1")
        .output()
        .expect("it runs");
    let shown = String::from_utf8_lossy(&read.stdout).into_owned();
    assert_eq!(read.status.code(), Some(1), "{shown}");
    assert!(shown.contains("127.0.0.1:1"), "{shown}");
}
