//! A wall clock that jumps, for one process: a small library in C that is loaded before the others. Knows nothing of who
//! looks at the clock.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::daemon::Setup;

const LIBRARY: &str = include_str!("clock.c");

pub struct Clock {
    dir: TempDir,
}

impl Clock {
    /// The library is compiled by the compiler that building needs too.
    pub fn new() -> Self {
        let clock = Self { dir: tempfile::tempdir().expect("a temporary folder can be made") };
        clock.jump(0);
        let mut compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-x", "c", "-", "-ldl", "-o"])
            .arg(clock.library())
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a C compiler");
        let mut input = compiler.stdin.take().expect("it reads");
        input.write_all(LIBRARY.as_bytes()).expect("it reads");
        drop(input);
        assert!(compiler.wait().expect("it ends").success(), "the library is compiled");
        clock
    }

    /// A daemon with this clock.
    pub fn of(&self, setup: Setup) -> Setup {
        let (library, moved) = (self.library(), self.moved());
        setup
            .env("LD_PRELOAD", library.to_str().expect("a path in UTF-8"))
            .env("MOVED_CLOCK", moved.to_str().expect("a path in UTF-8"))
    }

    /// From here on the clock is by so many seconds ahead of what it should say.
    pub fn jump(&self, seconds: i64) {
        // Not in place: a reader must never find half of it.
        let written = self.dir.path().join("next");
        std::fs::write(&written, seconds.to_string()).expect("it can be written");
        std::fs::rename(written, self.moved()).expect("it can be put in its place");
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("clock.so")
    }

    fn moved(&self) -> PathBuf {
        self.dir.path().join("moved")
    }
}
