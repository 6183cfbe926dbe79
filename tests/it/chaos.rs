//! Rounds of faults drawn by a seed, under load: each round applies some, heals them, waits until the link has caught up
//! and compares index and table. A few rounds run as a test; `make chaos` runs many, and says what was lost, what went
//! back and how long it took.

mod fault;
mod load;
mod scene;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::chaos::fault::Fault;
use crate::chaos::scene::Scene;

/// A small generator of our own, so that a seed printed is a run repeated, as far as threads and servers allow.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// What the rounds with one fault came to.
#[derive(Default)]
struct Tally {
    rounds: u32,
    lost: u64,
    regressed: u64,
    longest_stall: Duration,
    recoveries: Vec<Duration>,
}

/// What one round came to.
struct Outcome {
    faults: Vec<Fault>,
    /// Documents that are missing, are too many or differ in the end.
    lost: u64,
    /// Documents that were seen to go back.
    regressed: u64,
    longest_stall: Duration,
    recovery: Duration,
}

#[derive(Default)]
struct Report {
    seed: u64,
    rounds: u32,
    lost: u64,
    regressed: u64,
    differences: u64,
    by_fault: BTreeMap<&'static str, Tally>,
}

impl Report {
    fn add(&mut self, outcome: &Outcome) {
        self.rounds += 1;
        self.lost += outcome.lost;
        self.regressed += outcome.regressed;
        for fault in &outcome.faults {
            let tally = self.by_fault.entry(fault.name()).or_default();
            tally.rounds += 1;
            tally.lost += outcome.lost;
            tally.regressed += outcome.regressed;
            tally.longest_stall = tally.longest_stall.max(outcome.longest_stall);
            tally.recoveries.push(outcome.recovery);
        }
    }

    /// A table, and the sums as JSON in the last line.
    fn text(&mut self) -> String {
        let mut text = format!(
            "{:<34} {:>6} {:>5} {:>9} {:>13} {:>16} {:>13}\n",
            "fault",
            "rounds",
            "lost",
            "regressed",
            "longest stall",
            "recovery median",
            "recovery max"
        );
        for (name, tally) in &mut self.by_fault {
            tally.recoveries.sort();
            let median = tally.recoveries[tally.recoveries.len() / 2].as_secs_f64();
            let most = tally.recoveries.last().map_or(0.0, Duration::as_secs_f64);
            let _ = writeln!(
                text,
                "{name:<34} {:>6} {:>5} {:>9} {:>11.1} s {median:>14.1} s {most:>11.1} s",
                tally.rounds,
                tally.lost,
                tally.regressed,
                tally.longest_stall.as_secs_f64()
            );
        }
        let sums = json!({"rounds": self.rounds, "lost": self.lost, "regressed": self.regressed,
            "differences": self.differences, "seed": self.seed});
        text + &sums.to_string() + "\n"
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

const ROUNDS: u64 = 10;
const SEED: u64 = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_drawn_faults_under_load_lose_nothing() {
    let asked = number("DRIFTLESS_CHAOS_ROUNDS");
    let rounds = asked.unwrap_or(ROUNDS);
    // Every run of the tests plays the same rounds; where rounds are asked for, others each time.
    let seed = number("DRIFTLESS_CHAOS_SEED").unwrap_or_else(|| match asked {
        None => SEED,
        Some(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_secs())
        }
    });
    eprintln!("chaos: seed {seed} (DRIFTLESS_CHAOS_SEED repeats it)");
    let mut random = Random::new(seed);
    // Its own index node can be killed, and takes half a gigabyte: only where many rounds are wanted.
    let mut scene = Scene::set(seed, asked.is_some()).await;
    let mut report = Report { seed, ..Report::default() };
    for round in 1..=rounds {
        let outcome = play(&mut scene, &mut random, round).await;
        report.add(&outcome);
        if outcome.lost > 0 {
            scene.mend().await;
        }
        if round % 10 == 0 || round == rounds {
            report.differences += scene.differences().await;
        }
    }
    let text = report.text();
    eprintln!("{text}");
    if let Ok(path) = std::env::var("DRIFTLESS_CHAOS_REPORT") {
        std::fs::write(path, &text).expect("the report can be written");
    }
    scene.end().await;
    // The load has sessions with minimal images, whose rows are read again as they are by then; a full image of a change that is on
    // its way shows an older state behind that (docs/delivery.md). `make chaos` fails for it, the tests do not.
    let regressed = if asked.is_some() { report.regressed } else { 0 };
    let wrong = (report.lost, regressed, report.differences);
    assert_eq!(wrong, (0, 0, 0), "lost, regressed, differences; seed {seed}");
}

/// One round: faults one after the other or at once, all healed, then a look at what is left.
async fn play(scene: &mut Scene, random: &mut Random, round: u64) -> Outcome {
    let choices = Fault::choices(scene.has_own_node());
    let count = random.of(&[1, 1, 2, 2, 3]).min(choices.len());
    let mut faults: Vec<Fault> = Vec::new();
    while faults.len() < count {
        let fault = random.of(&choices);
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    let names: Vec<_> = faults.iter().map(Fault::name).collect();
    eprintln!("chaos: round {round}: {}", names.join(", "));
    scene.begin_round();
    for fault in &faults {
        fault.apply(scene, random).await;
    }
    for fault in faults.iter().rev() {
        fault.heal(scene).await;
    }
    let healed = Instant::now();
    let lost = scene.catch_up().await;
    let recovery = healed.elapsed();
    let (went_back, longest_stall) = scene.end_round();
    let regressed = if faults.iter().any(Fault::may_show_older) { 0 } else { went_back };
    eprintln!(
        "chaos: round {round}: {lost} lost, {went_back} went back, {regressed} of them regressed, caught up after {:.1} s",
        recovery.as_secs_f64()
    );
    Outcome { faults, lost, regressed, longest_stall, recovery }
}
