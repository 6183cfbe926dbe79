//! Text to words: runs of letters and digits in lower case; each ideograph and each Hiragana letter is a word of its own,
//! as with the `standard` analyzer. Knows no fields.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

/// The name under which the tokenizer is registered.
pub(super) const WORDS: &str = "words";

/// Longer runs are cut, as the `standard` analyzer does.
const CHARACTERS_MAX: usize = 255;

#[derive(Clone, Default)]
pub(super) struct Words;

pub(super) struct Stream<'t> {
    text: &'t str,
    at: usize,
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'t> = Stream<'t>;

    fn token_stream<'t>(&'t mut self, text: &'t str) -> Stream<'t> {
        Stream { text, at: 0, token: Token::default() }
    }
}

impl TokenStream for Stream<'_> {
    fn advance(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let Some(skipped) = rest.find(char::is_alphanumeric) else { return false };
        let start = self.at + skipped;
        let end = start + length_of_word(&self.text[start..]);
        self.at = end;
        self.token.text.clear();
        self.token.text.extend(self.text[start..end].chars().flat_map(char::to_lowercase));
        self.token.offset_from = start;
        self.token.offset_to = end;
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

/// Bytes of the word at the beginning of `text`.
fn length_of_word(text: &str) -> usize {
    let mut characters = 0;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        let after = || text[at + c.len_utf8()..].chars().next();
        let joins = joins(previous, c, after);
        let is_inside = characters == 0 || (c.is_alphanumeric() && !stands_alone(c)) || joins;
        if !is_inside || characters == CHARACTERS_MAX {
            return at;
        }
        characters += 1;
        if characters == 1 && stands_alone(c) {
            return at + c.len_utf8();
        }
        previous = c;
    }
    text.len()
}

/// `don't` and `3.14` are one word: an apostrophe between letters, a point or a comma between digits. So is `a_b`.
fn joins(previous: char, c: char, after: impl Fn() -> Option<char>) -> bool {
    match c {
        '\'' | '’' | '.' if previous.is_alphabetic() && !stands_alone(previous) => {
            after().is_some_and(|next| next.is_alphabetic() && !stands_alone(next))
        }
        '.' | ',' if previous.is_numeric() => after().is_some_and(char::is_numeric),
        '_' => after()
            .is_some_and(|next| (next.is_alphanumeric() && !stands_alone(next)) || next == '_'),
        _ => false,
    }
}

fn stands_alone(c: char) -> bool {
    matches!(u32::from(c),
        0x3040..=0x309F | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF)
}

/// All words of a text.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    Words.token_stream(text).process(&mut |token| words.push(token.text.clone()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_the_standard_analyzer_makes_of_a_text() {
        for (text, expected) in [
            ("Hello, WORLD!", vec!["hello", "world"]),
            (
                "don't 3.14 1,000. a_b e-mail example.com",
                vec!["don't", "3.14", "1,000", "a_b", "e", "mail", "example.com"],
            ),
            ("数据库sync 同步", vec!["数", "据", "库", "sync", "同", "步"]),
            ("ひら カタカナ 색인", vec!["ひ", "ら", "カタカナ", "색인"]),
            ("Größe ÉTÉ", vec!["größe", "été"]),
            (" …, ", vec![]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        assert_eq!(
            words(&"x".repeat(600)).iter().map(String::len).collect::<Vec<_>>(),
            [255, 255, 90]
        );
    }
}
