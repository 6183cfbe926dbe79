//! The built-in `hashing` model: vectors by feature hashing of words and of pieces of words. Pure: the same text gives the
//! same numbers on every machine and in every version. Knows nothing but the text: it has read no language, so texts are
//! near each other where they share letters, never because they mean the same.
//!
//! What a vector is made of, which is a promise (stored vectors are compared with later ones):
//!
//! 1. The text in lower case falls into words, which are runs of letters and digits. A run of a script that writes no
//!    spaces, or glues words together, is a word of its own. A text without any word is a word as it is, without blanks.
//! 2. Features of a word are the word, each three letters in a row of `‹word›` (its ends included), and the pair with the
//!    word before it. Features of a run of such a script are its letters, pairs of letters, and threes. Each feature has a
//!    weight: long words count more than short ones, and the pieces of a word together as much as the word.
//! 3. A feature's hash is FNV-1a of 64 bits over a letter for its kind and its UTF-8, stirred by the finaliser of
//!    MurmurHash3. The upper half chooses the number of the vector, the lowest bit the sign.
//! 4. A feature that comes n times counts √n times its weight. The vector is divided by its length.
//!
//! Weights are whole numbers until the root is taken, and a root is exact in IEEE 754, so no order and no library decides
//! about the last digit.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The name that stands for [`DIMENSION`] numbers; `hashing-N` has N.
pub const NAME: &str = "hashing";
pub const DIMENSION: usize = 384;
const DIMENSION_MIN: usize = 16;
const DIMENSION_MAX: usize = 4096;
/// So much of a text is read: enough for a book's chapter, and what bounds the memory for its features (10 MB).
const TEXT_BYTES_MAX: usize = 128 << 10;
/// The squared weight of a long word. It can be divided by all small numbers.
const UNIT: u64 = 720_720;
/// A word of so many letters counts fully: shorter ones are more often "the" and "of".
const FULL_LETTERS: usize = 6;

/// The model, with the dimension that its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashing {
    dimension: usize,
}

impl Hashing {
    /// The model of this id; `None` where the id is not of this family.
    pub fn named(id: &str) -> Option<Result<Self>> {
        if id == NAME {
            return Some(Ok(Self { dimension: DIMENSION }));
        }
        let number = id.strip_prefix(NAME)?.strip_prefix('-')?;
        Some(Self::of_dimension(number).ok_or_else(|| {
            Error::input(format!("there is no model {id}")).with_advice(format!(
                "write {NAME}, or {NAME}-N with a dimension N from {DIMENSION_MIN} to {DIMENSION_MAX}"
            ))
        }))
    }

    fn of_dimension(number: &str) -> Option<Self> {
        let is_plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let dimension = number.parse().ok().filter(|_| is_plain)?;
        (DIMENSION_MIN..=DIMENSION_MAX).contains(&dimension).then_some(Self { dimension })
    }

    pub fn dimension(self) -> usize {
        self.dimension
    }

    /// The id of the member of the family that has this dimension.
    pub fn id_of_dimension(dimension: usize) -> Option<String> {
        Self::of_dimension(&dimension.to_string()).map(|_| format!("{NAME}-{dimension}"))
    }

    /// A vector of length 1; `None` for a blank text, which has nothing to compare.
    pub fn vector(self, text: &str) -> Option<Vec<f32>> {
        let end = text.floor_char_boundary(text.len().min(TEXT_BYTES_MAX));
        // White space alone in the part that is read says nothing of the rest, so the rest is read from its first letter.
        let text = if text[..end].trim().is_empty() { text.trim_start() } else { text };
        let end = text.floor_char_boundary(text.len().min(TEXT_BYTES_MAX));
        let text = text[..end].to_lowercase();
        if text.trim().is_empty() {
            return None;
        }
        let mut features = Features::default();
        features.text(&text);
        Some(self.normalised(&features).unwrap_or_else(|| self.single(&text)))
    }

    /// `None` where all features have cancelled each other out.
    fn normalised(self, features: &Features) -> Option<Vec<f32>> {
        let mut numbers = vec![0.0_f64; self.dimension];
        for (hash, squared) in &features.squared {
            let (at, sign) = self.place(*hash);
            numbers[at] += sign * (*squared as f64).sqrt();
        }
        let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt();
        (length > 0.0).then(|| numbers.iter().map(|number| (number / length) as f32).collect())
    }

    fn single(self, text: &str) -> Vec<f32> {
        let (at, sign) = self.place(hash(b't', text.chars()));
        let mut numbers = vec![0.0; self.dimension];
        numbers[at] = sign as f32;
        numbers
    }

    fn place(self, hash: u64) -> (usize, f64) {
        let at = ((hash >> 32) * self.dimension as u64) >> 32;
        (at as usize, if hash & 1 == 0 { 1.0 } else { -1.0 })
    }
}

/// Features by their hash, each with the sum of its squared weights, in [`UNIT`]s. Ordered, so that sums come out the
/// same everywhere.
#[derive(Default)]
struct Features {
    squared: BTreeMap<u64, u64>,
}

impl Features {
    fn add(&mut self, hash: u64, squared: u64) {
        *self.squared.entry(hash).or_default() += squared;
    }

    fn text(&mut self, text: &str) {
        let mut before: Option<Vec<char>> = None;
        for word in words(text) {
            if writes_no_spaces(word[0]) {
                self.run(&word);
            } else {
                self.word(&word);
                if let Some(before) = &before {
                    let pair = before.iter().chain([&' ']).chain(&word).copied();
                    self.add(hash(b'p', pair), UNIT / 4);
                }
            }
            before = Some(word);
        }
        if before.is_none() {
            let signs: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
            self.run(&signs);
        }
    }

    fn word(&mut self, word: &[char]) {
        let squared = UNIT * word.len().min(FULL_LETTERS) as u64 / FULL_LETTERS as u64;
        self.add(hash(b'w', word.iter().copied()), squared);
        let ended: Vec<char> = ['‹'].iter().chain(word).chain(&['›']).copied().collect();
        // A word of n letters has n pieces.
        for piece in ended.windows(3) {
            self.add(hash(b'g', piece.iter().copied()), squared / word.len() as u64);
        }
    }

    fn run(&mut self, run: &[char]) {
        for (letters, squared) in [(1, UNIT / 6), (2, UNIT / 2), (3, UNIT / 4)] {
            for piece in run.windows(letters) {
                self.add(hash(b'r', piece.iter().copied()), squared);
            }
        }
    }
}

/// Runs of letters and digits; none is empty, and each is of one kind of script.
fn words(text: &str) -> Vec<Vec<char>> {
    let mut words: Vec<Vec<char>> = Vec::new();
    let mut is_open = false;
    for letter in text.chars() {
        let is_letter = letter.is_alphanumeric();
        let goes_on = is_open
            && words.last().is_some_and(|w| writes_no_spaces(w[0]) == writes_no_spaces(letter));
        match words.last_mut() {
            Some(word) if is_letter && goes_on => word.push(letter),
            _ if is_letter => words.push(vec![letter]),
            _ => {}
        }
        is_open = is_letter;
    }
    words
}

/// Scripts in which a word is not what stands between two spaces: Thai to Khmer, Hangul, Kana, Han.
fn writes_no_spaces(letter: char) -> bool {
    matches!(u32::from(letter),
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1100..=0x11FF | 0x1780..=0x17FF | 0x2E80..=0x9FFF
        | 0xA960..=0xA97F | 0xAC00..=0xD7FF | 0xF900..=0xFAFF | 0xFF66..=0xFFDC | 0x1B000..=0x1B16F
        | 0x20000..=0x3FFFF)
}

fn hash(kind: u8, letters: impl Iterator<Item = char>) -> u64 {
    let mut hash = fnv(0xCBF2_9CE4_8422_2325, &[kind]);
    for letter in letters {
        hash = fnv(hash, letter.encode_utf8(&mut [0; 4]).as_bytes());
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(text: &str) -> Vec<f32> {
        Hashing { dimension: DIMENSION }.vector(text).expect("the text is not blank")
    }

    fn cosine(a: &str, b: &str) -> f32 {
        vector(a).iter().zip(vector(b)).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn names_say_the_dimension() {
        let dimension = |id: &str| Hashing::named(id).map(|named| named.map(Hashing::dimension));
        assert_eq!(dimension("hashing").and_then(Result::ok), Some(384));
        for known in [16, 256, 4096] {
            assert_eq!(dimension(&format!("hashing-{known}")).and_then(Result::ok), Some(known));
        }
        for odd in
            ["hashing-15", "hashing-4097", "hashing-", "hashing-0256", "hashing-+99", "hashing-x"]
        {
            let error = dimension(odd).expect("is of the family").expect_err(odd).report();
            assert!(error.contains("from 16 to 4096"), "{error}");
        }
        for other in ["hashing2", "Hashing", "text", "", "ahashing-16"] {
            assert!(dimension(other).is_none(), "{other}");
        }
    }

    /// Stored vectors are compared with those of later versions. A change here is a new model under a new name.
    #[test]
    fn the_numbers_never_change() {
        assert_eq!(hash(b'w', "hello".chars()), 12_925_445_065_663_306_319);
        let golden = |text: &str, expected: &[f32]| {
            let model = Hashing { dimension: 16 };
            assert_eq!(model.vector(text).expect("not blank"), expected, "{text}");
        };
        golden(
            "Hello, World",
            &[
                0.0,
                0.0,
                0.0,
                0.0,
                -0.42445195,
                0.0,
                0.0,
                0.0,
                0.0,
                0.42925805,
                0.0,
                -0.52465147,
                0.0,
                0.42445195,
                0.0,
                -0.42445195,
            ],
        );
        golden(
            "数据库同步",
            &[
                0.0,
                0.21186374,
                0.36695877,
                0.21186374,
                -0.36695877,
                -0.21186374,
                -0.21186374,
                0.0,
                0.25947905,
                0.25947905,
                -0.6264378,
                -0.15509503,
                0.0,
                0.0,
                0.0,
                0.0,
            ],
        );
    }

    #[test]
    fn likeness_follows_letters() {
        let same = [
            ("red running shoes", "Running shoes, red!"),
            ("wireless keyboard", "wireles keybord"),
            ("stainless steel water bottle", "water bottle of stainless steel, 750 ml"),
            ("数据库同步工具", "数据库的同步"),
            ("東京都の天気", "東京の天気予報"),
            ("데이터베이스를 동기화", "데이터베이스 동기화"),
            ("straße", "STRASSE strasse straße"),
        ];
        for (a, b) in same {
            for (other, _) in same.iter().filter(|(other, _)| *other != a) {
                let (near, far) = (cosine(a, b), cosine(a, other));
                assert!(near > far + 0.2, "{a} / {b}: {near}, {a} / {other}: {far}");
            }
        }
        assert!(
            cosine("the cat of the house", "house cat") > cosine("the cat of the house", "the of")
        );
    }

    #[test]
    fn case_and_blanks_make_no_difference_and_repeats_little() {
        assert_eq!(vector("  Blue\tShirt\n"), vector("blue shirt"));
        let (once, often) = ("red shirt", "red shirt shirt shirt shirt");
        assert!(cosine(once, often) > 0.8, "{}", cosine(once, often));
    }

    #[test]
    fn only_a_blank_text_has_no_vector() {
        let far = " ".repeat(TEXT_BYTES_MAX + 1) + "word";
        for text in ["a", "!!!", "🦀", "\u{301}", "0", "中", "\u{0}", "½", far.as_str()] {
            for dimension in [16, 17, 384, 4096] {
                let vector = Hashing { dimension }.vector(text).expect("not blank");
                let length: f32 = vector.iter().map(|number| number * number).sum();
                assert!(
                    (length - 1.0).abs() < 1e-5 && vector.len() == dimension,
                    "{text}: {length}"
                );
            }
        }
        for blank in ["", " ", "\u{3000}\n\t"] {
            assert_eq!(Hashing { dimension: 16 }.vector(blank), None);
        }
    }

    #[test]
    fn features_that_cancel_out_leave_a_vector() {
        let model = Hashing { dimension: 16 };
        let mut features = Features::default();
        let pair = [0, 1_u64];
        pair.iter().for_each(|hash| features.add(*hash, UNIT));
        assert_eq!(model.normalised(&features), None);
        assert_eq!(model.single("x").iter().map(|number| number.abs()).sum::<f32>(), 1.0);
    }
}
