//! Rule 1 as an exhaustive small world: all interleavings of a few writers, the tailer and one chunk of the snapshot.
//!
//! A transaction reaches the log first, then the engine (a SELECT sees it), then the set of executed transactions; the
//! tailer reads the log, so it may deliver a change long before anybody can SELECT it. The world ends when everything
//! has happened; an end is wrong when the index then differs from the table. The right rule has no wrong end, with
//! commits in the order of the log and without; each naive rule has some.

use std::collections::HashSet;

use driftless::position::{Gtid, GtidSet, Sid};
use driftless::source::snapshot::window::Window;

/// A transaction by number, a set of them by bits.
type Tx = usize;
type Set = u8;
type Key = usize;
/// A row's content; 0 is no row.
type Cell = u8;

const KEYS: usize = 3;
const TXS: usize = 3;

/// What there is before, and what each transaction does: which keys get which cells.
struct World {
    name: &'static str,
    rows: [Cell; KEYS],
    txs: [&'static [(Key, Cell)]; TXS],
}

/// Transactions that touch the same key are locked against each other: they come in the order given.
const WORLDS: [World; 3] = [
    World { name: "two updates of a row", rows: [1, 1, 0], txs: [&[(0, 2)], &[(0, 3)], &[(1, 2)]] },
    World {
        name: "a row deleted, a key changed",
        rows: [1, 1, 0],
        txs: [&[(0, 2)], &[(0, 0)], &[(1, 0), (2, 1)]],
    },
    World {
        name: "a row deleted and made again",
        rows: [1, 0, 0],
        txs: [&[(0, 0)], &[(0, 2)], &[(1, 1)]],
    },
];

/// What the reader of a chunk knows when it decides.
struct Facts<'a> {
    world: &'a World,
    /// Not delivered by the tailer, because the link began behind it.
    start: Set,
    /// What the tailer has delivered since, in the order of the log.
    delivered: &'a [Tx],
    /// How many of them when the window was opened.
    opened_after: usize,
    executed_at_open: Set,
    /// The mark that was read after the SELECT.
    high: Set,
}

impl Facts<'_> {
    fn covered(&self) -> Set {
        self.start | all(self.delivered)
    }

    fn covered_at_open(&self) -> Set {
        self.start | all(&self.delivered[..self.opened_after])
    }

    fn touches(&self, tx: Tx, key: Key) -> bool {
        self.world.txs[tx].iter().any(|(touched, _)| *touched == key)
    }

    fn since_open(&self) -> &[Tx] {
        &self.delivered[self.opened_after..]
    }
}

/// A rule for the window of a chunk. The methods given are those of the right rule.
trait Rule {
    /// Which transactions the stream leaves out when a link begins. Right: those that are executed, up to the first
    /// of the log that is not. Where commits keep the order of the log this is the whole executed set.
    fn start(&self, log: &[Tx], executed: Set) -> Set {
        let first_hole = log.iter().position(|tx| executed & bit(*tx) == 0);
        all(&log[..first_hole.unwrap_or(log.len())])
    }

    /// Whether the chunk may be read now. Right: all that was delivered before the window can be SELECTed.
    fn may_select(&self, facts: &Facts<'_>, executed: Set, _logged: Set) -> bool {
        facts.covered_at_open() & !executed == 0
    }

    /// The mark to be read after the SELECT.
    fn high(&self, executed: Set, _logged: Set) -> Set {
        executed
    }

    /// Whether the stream has come far enough for the rows of the chunk.
    fn may_emit(&self, facts: &Facts<'_>) -> bool {
        facts.high & !facts.covered() == 0
    }

    /// Whether the chunk's row of this key is left to the stream. Right: it was recorded since the window was opened.
    fn drops(&self, facts: &Facts<'_>, key: Key) -> bool {
        facts.since_open().iter().any(|tx| facts.touches(*tx, key))
    }
}

struct Right;
impl Rule for Right {}

/// Every watermark is the end of the log.
struct LogEnd;
impl Rule for LogEnd {
    fn start(&self, log: &[Tx], _executed: Set) -> Set {
        all(log)
    }
    fn may_select(&self, facts: &Facts<'_>, _executed: Set, logged: Set) -> bool {
        facts.covered_at_open() & !logged == 0
    }
    fn high(&self, _executed: Set, logged: Set) -> Set {
        logged
    }
}

/// The stream begins at the end of the log; the window waits as it should.
struct StartsAtLogEnd;
impl Rule for StartsAtLogEnd {
    fn start(&self, log: &[Tx], _executed: Set) -> Set {
        all(log)
    }
}

/// The stream leaves out what is executed, whatever stands before it in the log.
///
/// Without commit order that has holes: 0 and then 1 change a row, 1 is executed, 0 not yet. The stream brings 0 and
/// never 1.
struct StartsBehindHoles;
impl Rule for StartsBehindHoles {
    fn start(&self, _log: &[Tx], executed: Set) -> Set {
        executed
    }
}

/// Reads at once; drops what the tailer delivers between the two marks.
struct DoesNotWait;
impl Rule for DoesNotWait {
    fn may_select(&self, _facts: &Facts<'_>, _executed: Set, _logged: Set) -> bool {
        true
    }
}

/// Reads at once; drops what was executed between the two marks.
struct ExecutedBetweenMarks;
impl Rule for ExecutedBetweenMarks {
    fn may_select(&self, _facts: &Facts<'_>, _executed: Set, _logged: Set) -> bool {
        true
    }
    fn drops(&self, facts: &Facts<'_>, key: Key) -> bool {
        let between = facts.high & !facts.executed_at_open;
        facts.delivered.iter().any(|tx| between & bit(*tx) != 0 && facts.touches(*tx, key))
    }
}

/// Records the keys of after images only.
struct ForgetsBeforeImages;
impl Rule for ForgetsBeforeImages {
    fn drops(&self, facts: &Facts<'_>, key: Key) -> bool {
        let written = |tx: &Tx| {
            facts.world.txs[*tx].iter().any(|(touched, cell)| *touched == key && *cell != 0)
        };
        facts.since_open().iter().any(written)
    }
}

/// What the program itself decides: its own window, and a start from the executed set, which the preflight allows where
/// commits keep the order of the log.
struct Program;

impl Program {
    fn gtids(set: Set) -> GtidSet {
        let mut gtids = GtidSet::default();
        let sid = Sid::untagged([7; 16]);
        (0..TXS)
            .filter(|tx| set & bit(*tx) != 0)
            .for_each(|tx| gtids.insert(&Gtid::new(sid.clone(), tx as u64 + 1)));
        gtids
    }

    fn window(facts: &Facts<'_>) -> Window {
        let mut window = Window::open(Self::gtids(facts.covered_at_open()), usize::MAX);
        for tx in facts.since_open() {
            facts.world.txs[*tx].iter().for_each(|(key, _)| window.record(&key.to_string()));
        }
        window
    }
}

impl Rule for Program {
    fn start(&self, _log: &[Tx], executed: Set) -> Set {
        executed
    }
    fn may_select(&self, facts: &Facts<'_>, executed: Set, _logged: Set) -> bool {
        Self::gtids(executed).covers(Self::window(facts).must_be_executed())
    }
    fn may_emit(&self, facts: &Facts<'_>) -> bool {
        Self::window(facts).is_covered(&Self::gtids(facts.high), &Self::gtids(facts.covered()))
    }
    fn drops(&self, facts: &Facts<'_>, key: Key) -> bool {
        !Self::window(facts).may_write(&key.to_string())
    }
}

#[test]
fn rule_1_as_the_program_decides_it_has_no_wrong_end() {
    for world in &WORLDS {
        assert_eq!(explore(world, true, &Program).wrong, None, "{}", world.name);
    }
}

#[test]
fn rule_1_has_no_wrong_end_in_any_interleaving() {
    let rules: [&dyn Rule; 2] = [&Right, &StartsAtLogEnd];
    for (world, rule, ordered) in WORLDS.iter().flat_map(|world| {
        rules.into_iter().flat_map(move |rule| [(world, rule, true), (world, rule, false)])
    }) {
        let seen = explore(world, ordered, rule);
        assert!(seen.ends > 0, "the exploration reaches ends");
        assert_eq!(seen.wrong, None, "{}, ordered: {ordered}", world.name);
    }
}

#[test]
fn rule_1_read_naively_has_wrong_ends_with_and_without_commit_order() {
    let rules: [(&str, &dyn Rule); 4] = [
        ("every watermark is the end of the log", &LogEnd),
        ("the chunk is read without waiting", &DoesNotWait),
        ("only what was executed between the marks is dropped", &ExecutedBetweenMarks),
        ("before images are not recorded", &ForgetsBeforeImages),
    ];
    for (name, rule) in rules {
        for ordered in [true, false] {
            assert!(
                has_wrong_ends(rule, ordered),
                "{name} (ordered: {ordered}): the model sees nothing wrong"
            );
        }
    }
}

#[test]
fn rule_1_needs_a_start_without_holes_where_commits_have_no_order() {
    assert!(!has_wrong_ends(&StartsBehindHoles, true));
    assert!(has_wrong_ends(&StartsBehindHoles, false));
}

fn has_wrong_ends(rule: &dyn Rule, ordered: bool) -> bool {
    WORLDS.iter().any(|world| explore(world, ordered, rule).wrong.is_some())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Open,
    Logged,
    Committed,
    Executed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// No link yet, so no tailer.
    Absent,
    Streaming,
    Opened,
    Selected,
    Marked,
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    stages: [Stage; TXS],
    log: Vec<Tx>,
    rows: [Cell; KEYS],
    phase: Phase,
    start: Set,
    /// How much of the log the tailer has read, and what of it was delivered.
    tailed: usize,
    delivered: Vec<Tx>,
    opened_after: usize,
    executed_at_open: Set,
    chunk: [Cell; KEYS],
    high: Set,
    /// Version and content of each document; content 0 under a version is a tombstone.
    index: [(usize, Cell); KEYS],
}

#[derive(Debug, Default)]
struct Seen {
    ends: usize,
    /// The steps to one wrong end, if there is one.
    wrong: Option<Vec<String>>,
}

/// Visits every state that can be reached.
fn explore(world: &World, ordered: bool, rule: &dyn Rule) -> Seen {
    let first = State {
        stages: [Stage::Open; TXS],
        log: Vec::new(),
        rows: world.rows,
        phase: Phase::Absent,
        start: 0,
        tailed: 0,
        delivered: Vec::new(),
        opened_after: 0,
        executed_at_open: 0,
        chunk: [0; KEYS],
        high: 0,
        index: [(0, 0); KEYS],
    };
    let mut visited = HashSet::new();
    let mut open = vec![(first, Vec::new())];
    let mut seen = Seen::default();
    while let Some((state, steps)) = open.pop() {
        let mut next = writer_steps(world, ordered, &state);
        next.extend(tailer_step(world, &state));
        next.extend(reader_step(world, rule, &state));
        if next.is_empty() {
            assert!(
                state.phase == Phase::Done,
                "{}: the reader waits for ever after {steps:?}",
                world.name
            );
            seen.ends += 1;
            if state.index.map(|(_, cell)| cell) != state.rows {
                seen.wrong.get_or_insert(steps);
            }
            continue;
        }
        for (step, state) in next {
            if visited.insert(state.clone()) {
                let steps = steps.iter().cloned().chain([step]).collect();
                open.push((state, steps));
            }
        }
    }
    seen
}

/// Each transaction takes its next stage, if it may.
fn writer_steps(world: &World, ordered: bool, state: &State) -> Vec<(String, State)> {
    let mut next = Vec::new();
    for tx in 0..TXS {
        let shares_a_key = |other: Tx| {
            world.txs[other]
                .iter()
                .any(|(key, _)| world.txs[tx].iter().any(|(touched, _)| touched == key))
        };
        let is_locked =
            (0..tx).any(|other| shares_a_key(other) && state.stages[other] < Stage::Committed);
        let place = state.log.iter().position(|logged| *logged == tx).unwrap_or(state.log.len());
        let before = &state.log[..place];
        let waits_for =
            |stage: Stage| ordered && before.iter().any(|other| state.stages[*other] < stage);
        let mut after = state.clone();
        match state.stages[tx] {
            Stage::Open if !is_locked => {
                after.stages[tx] = Stage::Logged;
                after.log.push(tx);
            }
            Stage::Logged if !waits_for(Stage::Committed) => {
                after.stages[tx] = Stage::Committed;
                world.txs[tx].iter().for_each(|&(key, cell)| after.rows[key] = cell);
            }
            Stage::Committed if !waits_for(Stage::Executed) => after.stages[tx] = Stage::Executed,
            _ => continue,
        }
        next.push((format!("{tx} is {:?}", after.stages[tx]), after));
    }
    next
}

/// The tailer reads one more transaction of the log, and writes what it delivers to the index.
fn tailer_step(world: &World, state: &State) -> Option<(String, State)> {
    let tx = *state.log.get(state.tailed).filter(|_| state.phase != Phase::Absent)?;
    let mut after = state.clone();
    after.tailed += 1;
    if state.start & bit(tx) == 0 {
        after.delivered.push(tx);
        let version = 2 * after.tailed;
        world.txs[tx].iter().for_each(|&(key, cell)| write(&mut after.index[key], version, cell));
    }
    Some((format!("{tx} is delivered"), after))
}

/// The snapshot takes its next step, if the rule lets it.
fn reader_step(world: &World, rule: &dyn Rule, state: &State) -> Option<(String, State)> {
    let executed = state.set_of(Stage::Executed);
    let logged = state.set_of(Stage::Logged);
    let facts = Facts {
        world,
        start: state.start,
        delivered: &state.delivered,
        opened_after: state.opened_after,
        executed_at_open: state.executed_at_open,
        high: state.high,
    };
    let mut after = state.clone();
    after.phase = match state.phase {
        Phase::Absent => {
            after.start = rule.start(&state.log, executed);
            Phase::Streaming
        }
        Phase::Streaming => {
            after.opened_after = state.delivered.len();
            after.executed_at_open = executed;
            Phase::Opened
        }
        Phase::Opened if rule.may_select(&facts, executed, logged) => {
            after.chunk = state.rows;
            Phase::Selected
        }
        Phase::Selected => {
            after.high = rule.high(executed, logged);
            Phase::Marked
        }
        Phase::Marked if rule.may_emit(&facts) => {
            let version = 2 * state.tailed + 1;
            for key in (0..KEYS).filter(|key| state.chunk[*key] != 0 && !rule.drops(&facts, *key)) {
                write(&mut after.index[key], version, state.chunk[key]);
            }
            Phase::Done
        }
        _ => return None,
    };
    Some((format!("the snapshot is {:?}", after.phase), after))
}

impl State {
    /// The transactions that have reached this stage.
    fn set_of(&self, stage: Stage) -> Set {
        (0..TXS).filter(|tx| self.stages[*tx] >= stage).fold(0, |set, tx| set | bit(tx))
    }
}

/// What an index does with an external version.
fn write(document: &mut (usize, Cell), version: usize, cell: Cell) {
    if version >= document.0 {
        *document = (version, cell);
    }
}

fn all(txs: &[Tx]) -> Set {
    txs.iter().fold(0, |set, tx| set | bit(*tx))
}

fn bit(tx: Tx) -> Set {
    1 << tx
}
