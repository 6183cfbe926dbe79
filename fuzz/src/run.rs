//! Runs all targets for a while, each in processes of its own, and says what came of it. Must not know what a target
//! reads.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::engine::{LAST_INPUT, TARGET, last_input};
use crate::targets::{self, INPUT_BYTES_MAX};

/// A process may not grow beyond this, whatever it reads: what is allocated outside Rust counts here.
const MEMORY_MB_MAX: u32 = 1024;
/// No input may take longer.
const INPUT_SECONDS_MAX: u32 = 10;

/// The folder of the crate, in which `corpus/` is committed and `crashes/` is not.
pub fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where inputs are kept that reached something new, beside the build, for the next run.
pub fn found(target: &str) -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = program.parent().unwrap_or(Path::new("."));
    folder(beside.join("fuzz-found").join(target))
}

pub fn folder(path: PathBuf) -> Result<PathBuf, String> {
    fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// One process: a target and the seed of its choices.
struct Job {
    target: &'static str,
    seed: u32,
    /// The first of its target; only that one says what it covered.
    number: usize,
}

#[derive(Default)]
struct Total {
    runs: u64,
    crashes: u64,
}

/// Runs every target for the same time, `seconds` in all, on every core.
pub fn run(seconds: u64, seed: Option<u32>) -> Result<(), String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let targets = targets::names();
    let copies = (cores / targets.len()).max(1);
    let rounds = (targets.len() * copies).div_ceil(cores) as u64;
    let each = (seconds / rounds).max(1);
    // 0 would let libFuzzer draw one of its own.
    let seed = seed.unwrap_or_else(drawn).max(1);
    let jobs = targets.iter().flat_map(|target| (0..copies).map(move |number| (*target, number)));
    let jobs: VecDeque<Job> = jobs
        .map(|(target, number)| Job { target, number, seed: seed.wrapping_add(number as u32) })
        .collect();
    println!("{} targets, {each} s each, on {cores} cores; seed {seed}", targets.len());
    let (jobs, total) = (Mutex::new(jobs), Mutex::new(Total::default()));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(job) = jobs.lock().ok().and_then(|mut jobs| jobs.pop_front()) {
                    let told = fuzz(&job, each);
                    let Ok(mut total) = total.lock() else { return };
                    total.add(&job, told);
                }
            });
        }
    });
    let Total { runs, crashes } = total.into_inner().map_err(|error| error.to_string())?;
    println!(
        "{{\"seconds\":{seconds},\"targets\":{},\"runs\":{runs},\"crashes\":{crashes},\"seed\":{seed}}}",
        targets.len()
    );
    if crashes > 0 { Err(format!("{crashes} crashes")) } else { Ok(()) }
}

fn drawn() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.subsec_nanos() ^ since.as_secs() as u32
}

impl Total {
    fn add(&mut self, job: &Job, told: Result<Told, String>) {
        let Job { target, seed, number } = job;
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                self.crashes += 1;
                println!("{target}: cannot be run: {error}");
                return;
            }
        };
        self.runs += told.runs;
        let copy = if *number == 0 { String::new() } else { format!(" ({})", number + 1) };
        let Told { runs, edges, features, inputs, .. } = told;
        println!(
            "{:<12} runs {runs:>9}  seed {seed:>10}  coverage {edges:>5} edges, {features:>6} features  inputs {inputs:>5}",
            format!("{target}{copy}")
        );
        if let Some(crash) = told.crash {
            self.crashes += 1;
            println!("{}", told.log.join("\n"));
            println!("{target} CRASHED. To see it again: make fuzz-one FILE={}", crash.display());
        } else if !told.is_well {
            self.crashes += 1;
            println!("{}\n{target} failed", told.log.join("\n"));
        } else if edges == 0 {
            self.crashes += 1;
            println!(
                "{target} was built without coverage counters: build in fuzz/, without RUSTFLAGS"
            );
        }
    }
}

/// What a process said of its run.
#[derive(Default)]
struct Told {
    runs: u64,
    edges: u64,
    features: u64,
    inputs: u64,
    /// Its last words, for a crash.
    log: Vec<String>,
    is_well: bool,
    /// The input that it died of.
    crash: Option<PathBuf>,
}

fn fuzz(job: &Job, seconds: u64) -> Result<Told, String> {
    let crashes = folder(home().join("crashes").join(job.target))?;
    let found = found(job.target)?;
    let corpus = folder(home().join("corpus").join(job.target))?;
    let last = found.with_extension(format!("last-{}", job.number));
    let mut command = process(job.target)?;
    command
        .env(LAST_INPUT, &last)
        .arg(format!("-seed={}", job.seed))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .args(["-print_final_stats=1", "-print_funcs=0", "-reload=0"])
        .args([&found, &corpus]);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut told = listen(&mut child);
    told.is_well = child.wait().map_err(|error| error.to_string())?.success();
    if !told.is_well && told.crash.is_none() {
        told.crash = keep_last(&last, &crashes);
    }
    let _ = fs::remove_file(&last);
    Ok(told)
}

/// This program as a process that fuzzes one target.
pub fn process(target: &str) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.env(TARGET, target).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

/// Reads what libFuzzer writes: `#8192 pulse cov: 55 ft: 80 corp: 12/345b …`, and numbers at the end.
fn listen(child: &mut Child) -> Told {
    const KEPT_LINES: usize = 60;
    let mut told = Told::default();
    let Some(stderr) = child.stderr.take() else { return told };
    let mut log = VecDeque::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        let number = |name: &str| {
            let behind = line.split_once(name)?.1.trim_start();
            let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<u64>().ok()
        };
        if line.starts_with('#') {
            told.edges = number(" cov: ").unwrap_or(told.edges);
            told.features = number(" ft: ").unwrap_or(told.features);
            told.inputs = number(" corp: ").unwrap_or(told.inputs);
            told.runs = number("#").unwrap_or(told.runs);
            continue;
        }
        if let Some(runs) = number("stat::number_of_executed_units:") {
            told.runs = runs;
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            told.crash = Some(PathBuf::from(path));
        }
        log.push_back(line);
        if log.len() > KEPT_LINES {
            log.pop_front();
        }
    }
    told.log = log.into();
    told
}

/// Where the process died without a word, its last input is the one.
fn keep_last(last: &Path, crashes: &Path) -> Option<PathBuf> {
    let file = fs::read(last).ok()?;
    let path = crashes.join(format!("died-{}", std::process::id()));
    fs::write(&path, last_input(&file)?).ok()?;
    Some(path)
}

/// Replays one input; its target is the name of the folder that it is in.
pub fn one(file: &Path) -> Result<(), String> {
    let file = file.canonicalize().map_err(|error| format!("{}: {error}", file.display()))?;
    let target = file.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let known = target.filter(|target| targets::named(target).is_some());
    let Some(target) = known else {
        return Err(format!(
            "{} is in no folder of a target: {}",
            file.display(),
            targets::names().join(", ")
        ));
    };
    let mut command = process(target)?;
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg(&file);
    let status = command.status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("{target}: {status}")) }
}
