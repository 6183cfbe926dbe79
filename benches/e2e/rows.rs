//! The rows of the benchmark: the same on every machine, each with the literals that make it in MySQL and the document
//! that must come out. The documents are written by this file alone, so that a wrong one is noticed.

use std::fmt::Write as _;

use crate::null_sink::Checksum;

pub const TABLE: &str = "CREATE TABLE goods (
    id INT NOT NULL PRIMARY KEY, t1 INT NOT NULL, t2 TEXT NOT NULL, price DECIMAL(10,2) NOT NULL,
    changed_at DATETIME(6) NOT NULL, attributes JSON NOT NULL, name VARCHAR(64) NOT NULL
) CHARACTER SET utf8mb4";
pub const COLUMNS: [&str; 7] = ["id", "t1", "t2", "price", "changed_at", "attributes", "name"];

const TEXT_CHARACTERS: usize = 130;
const WORDS: [&str; 16] = [
    "a",
    "lamp",
    "of",
    "brushed",
    "steel",
    "that",
    "stands",
    "\"quietly\"",
    "beside",
    "the",
    "café",
    "table",
    "and",
    "lights",
    "every",
    "page",
];

/// What is in a row; another generation of the same id has other values in all other columns.
pub struct Row {
    id: u32,
    t1: u32,
    text: String,
    cents: u32,
    micros: u32,
    seconds: u32,
    weight: u32,
    tag: &'static str,
    name: String,
}

impl Row {
    pub fn new(id: u32, generation: u32) -> Self {
        let mut random = Random::new(u64::from(id) << 32 | u64::from(generation));
        let mut text = String::with_capacity(TEXT_CHARACTERS + 16);
        while text.len() < TEXT_CHARACTERS {
            text.push_str(WORDS[random.below(16) as usize]);
            text.push(' ');
        }
        text.pop();
        Self {
            id,
            t1: random.below(1_000_000),
            text,
            cents: random.below(10_000_000),
            micros: random.below(1_000_000),
            seconds: random.below(86_400),
            weight: random.below(10_000),
            tag: WORDS[random.below(7) as usize],
            name: format!("thing {id} of {generation}"),
        }
    }

    /// The columns' texts, in order.
    fn texts(&self) -> [String; 7] {
        [
            self.id.to_string(),
            self.t1.to_string(),
            self.text.clone(),
            self.price(),
            self.moment(' '),
            format!(r#"{{"w": {}, "tag": "{}"}}"#, self.weight, self.tag),
            self.name.clone(),
        ]
    }

    /// A line for LOAD DATA.
    pub fn write_line(&self, out: &mut String) {
        out.push_str(&self.texts().join("\t"));
        out.push('\n');
    }

    /// `1,'2','…'`: the key is a number, so that a comparison with it finds the index.
    pub fn write_values(&self, out: &mut String) {
        let [id, others @ ..] = self.texts();
        out.push_str(&id);
        for text in others {
            write!(out, ",'{text}'").expect("memory takes it");
        }
    }

    /// The document that the row is to become.
    fn document(&self, out: &mut String) {
        let Self { id, t1, weight, tag, name, .. } = self;
        let (text, price, moment) =
            (self.text.replace('"', "\\\""), self.price(), self.moment('T'));
        write!(
            out,
            r#"{{"id":{id},"t1":{t1},"t2":"{text}","price":{price},"changed_at":"{moment}","attributes":{{"w":{weight},"tag":"{tag}"}},"name":"{name}"}}"#
        )
        .expect("memory takes it");
    }

    fn price(&self) -> String {
        format!("{}.{:02}", self.cents / 100, self.cents % 100)
    }

    fn moment(&self, separator: char) -> String {
        let (hours, minutes, seconds) =
            (self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60);
        format!("2026-03-04{separator}{hours:02}:{minutes:02}:{seconds:02}.{:06}", self.micros)
    }
}

/// The table as it should be: of each id the generation, or None where the row is deleted. Id 0 is never used.
#[derive(Clone)]
pub struct Table {
    generations: Vec<Option<u32>>,
    random: Random,
}

impl Table {
    pub fn of(rows: u32) -> Self {
        let mut generations = vec![Some(0); rows as usize + 1];
        generations[0] = None;
        Self { generations, random: Random::new(4711) }
    }

    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let living = self.generations.iter().zip(0_u32..).filter_map(|(g, id)| Some((id, (*g)?)));
        living.map(|(id, generation)| Row::new(id, generation))
    }

    pub fn next_id(&self) -> u32 {
        self.generations.len() as u32
    }

    pub fn insert(&mut self) -> Row {
        let id = self.next_id();
        self.generations.push(Some(0));
        Row::new(id, 0)
    }

    /// Three different rows.
    pub fn update_three(&mut self) -> [Row; 3] {
        let mut ids = [0; 3];
        for at in 0..ids.len() {
            while ids[at] == 0 || ids[..at].contains(&ids[at]) {
                ids[at] = self.any_id();
            }
        }
        ids.map(|id| {
            let generation = self.generations[id as usize].map_or(0, |generation| generation + 1);
            self.generations[id as usize] = Some(generation);
            Row::new(id, generation)
        })
    }

    pub fn delete(&mut self) -> u32 {
        let id = self.any_id();
        self.generations[id as usize] = None;
        id
    }

    /// A number below `bound`, of the table's own sequence.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.random.below(bound)
    }

    fn any_id(&mut self) -> u32 {
        loop {
            let id = self.random.below(self.next_id());
            if self.generations[id as usize].is_some() {
                return id;
            }
        }
    }

    pub fn checksum(&self) -> Checksum {
        let (mut checksum, mut document) = (Checksum::default(), String::new());
        for row in self.rows() {
            document.clear();
            row.document(&mut document);
            checksum.add(row.id, document.as_bytes());
        }
        checksum
    }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(bound)) as u32
    }
}
