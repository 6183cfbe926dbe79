//! The disk of the state directory: full, and damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::delivery::fill;
use crate::faults::is_proven_equal;
use crate::support::servers::{self, Flavour};
use crate::support::stage::Stage;
use crate::support::{MINUTES_2, SECONDS_10, until};

/// A small file system in the place of a folder, which keeps its files.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(folder: &Path, megabytes: u32) -> Self {
        let kept = folder.with_extension("kept");
        fs::rename(folder, &kept).expect("it can be renamed");
        fs::create_dir(folder).expect("it can be made");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(folder)
            .output()
            .expect("there is `mount`");
        let told = String::from_utf8_lossy(&mounted.stderr);
        assert!(
            mounted.status.success(),
            "a small disk is mounted, for which root is needed: {told}"
        );
        let disk = Self(folder.to_owned());
        let copied = Command::new("cp").arg("-a").arg(kept.join(".")).arg(folder).status();
        assert!(copied.is_ok_and(|status| status.success()), "the files are copied");
        disk
    }

    /// Takes all the room there is but so many bytes.
    fn fill(&self, but: u64) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.0.join("ballast")).expect("there is room for a name");
        while file.write_all(&[0; 4096]).is_ok() {}
        let length = file.metadata().expect("it is there").len();
        file.set_len(length.saturating_sub(but)).expect("it can be cut");
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).expect("it can be removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also from under a process that was not waited for.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_checkpoints_and_a_freed_one_lets_them_go_on() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| {
        setup.set("link.checkpoint_interval_ms", 50)
    })
    .await;
    fill(&stage, 0, 200, 32).await;
    stage.link().await;
    stage.settle().await;
    stage.daemon.stop().await;
    let disk = SmallDisk::at(&stage.daemon.state_dir(), 32);
    for kills in [false, true] {
        // Room for a start, but none that the database can take in advance.
        disk.fill(512 << 10);
        stage.daemon.start_again().await;
        stage.settle().await;
        disk.fill(0);
        let mut round = 0;
        let why = until("the full disk is felt", MINUTES_2, async || {
            round += 1;
            stage
                .exec(&format!("UPDATE {{t}} SET a = 'full {kills} {round}' WHERE id % 3 = 1"))
                .await;
            let (state, message) = stage.status().await;
            if state == "running" || state == "catching_up" {
                Err(state)
            } else {
                Ok(format!("{state}: {message}"))
            }
        })
        .await;
        eprintln!("a full disk: {why}");
        assert!(why.contains("state") && why.contains("space"), "{why}");
        if kills {
            stage.daemon.kill9();
            disk.free();
            stage.daemon.start_again().await;
        } else {
            disk.free();
        }
        is_proven_equal(&stage, "there is room again").await;
        assert_eq!(stage.until_state("running").await["errors"], "");
        stage.daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_is_refused_with_the_remedy_that_works() {
    let mut stage = Stage::set(servers::mysql(Flavour::Mysql97), |setup| setup).await;
    fill(&stage, 0, 300, 32).await;
    stage.link().await;
    stage.settle().await;
    stage.daemon.kill9();
    let state = stage.daemon.state_dir();
    let log = fs::read_dir(state.join("db"))
        .expect("the state is there")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .max_by_key(|path| fs::metadata(path).map_or(0, |file| file.len()))
        .expect("it has a log");
    let mut bytes = fs::read(&log).expect("it can be read");
    let at = bytes.len() / 3;
    bytes[at] ^= 0xff;
    fs::write(&log, bytes).expect("it can be written");
    stage.daemon.start_again_unready();
    let status = stage.daemon.exited(SECONDS_10).await;
    assert!(!status.success());
    let told = stage.daemon.log();
    assert!(told.contains("is damaged") && told.contains("move it away"), "{told}");
    fs::rename(&state, state.with_extension("damaged")).expect("it can be moved away");
    stage.exec("DELETE FROM {t} WHERE id % 5 = 0").await;
    stage.daemon.start_again().await;
    stage.link().await;
    stage.until_snapshot_is_done().await;
    // Nobody knew of the rows that went meanwhile.
    stage.daemon.sql(&format!("VERIFY LINK {} REPAIR", stage.index)).await;
    is_proven_equal(&stage, "the link was made anew").await;
}
