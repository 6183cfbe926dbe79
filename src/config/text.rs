//! A string of the file: its meaning, and where each byte of that was written. Puts the environment's values in the
//! place of `${NAME}`. Knows nothing of keys.

use crate::error::{Error, Result, Span};

/// The value of an environment variable, if there is one.
pub(super) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub value: String,
    /// Per byte of `value` its place in the file, and one more for the end.
    origins: Vec<usize>,
}

impl Text {
    /// Reads the literal (quotes included) at `span` of `file`, which TOML reads as `meaning`.
    pub fn read(file: &str, span: Span, meaning: &str, env: Env<'_>) -> Result<Self> {
        let literal = file.get(span.start..span.end).unwrap_or_default();
        let decoded = decode(literal, span.start).filter(|text| text.value == meaning);
        // A literal that we read differently than TOML does still has a place, if a rough one.
        let rough =
            || Self { value: meaning.to_owned(), origins: vec![span.start; meaning.len() + 1] };
        decoded.unwrap_or_else(rough).with_environment(env)
    }

    /// The place in the file of the byte `at` of the value.
    pub fn origin(&self, at: usize) -> usize {
        self.origins.get(at).or(self.origins.last()).copied().unwrap_or(0)
    }

    fn push(&mut self, c: char, origin: usize) {
        self.value.push(c);
        // The end, pushed last, is moved along.
        self.origins.resize(self.value.len(), origin);
    }

    fn with_environment(self, env: Env<'_>) -> Result<Self> {
        if !self.value.contains("${") {
            return Ok(self);
        }
        let mut result = Self { value: String::new(), origins: Vec::new() };
        let mut at = 0;
        while let Some(c) = self.value[at..].chars().next() {
            let rest = &self.value[at..];
            if rest.starts_with("$${") {
                result.push('$', self.origin(at));
                result.push('{', self.origin(at + 2));
                at += 3;
            } else if let Some(inside) = rest.strip_prefix("${") {
                let end = inside.find('}').map(|end| at + 2 + end);
                let value = self.variable(at, end, env)?;
                value.chars().for_each(|c| result.push(c, self.origin(at)));
                at = end.map_or(self.value.len(), |end| end + 1);
            } else {
                result.push(c, self.origin(at));
                at += c.len_utf8();
            }
        }
        result.origins.push(self.origin(self.value.len()));
        Ok(result)
    }

    /// The value of the variable that is named between `start` + 2 and `end`.
    fn variable(&self, start: usize, end: Option<usize>, env: Env<'_>) -> Result<String> {
        const LITERAL: &str = "write $${ for the two characters themselves";
        let place = |end: usize| Span::new(self.origin(start), self.origin(end));
        let Some(end) = end else {
            let error = Error::input("this `${` has no closing `}`").with_advice(LITERAL);
            return Err(error.at(place(start + 2)));
        };
        let name = &self.value[start + 2..end];
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) {
            let error =
                Error::input("between `${` and `}` stands the name of an environment variable");
            return Err(error.with_advice(LITERAL).at(place(end + 1)));
        }
        env(name).ok_or_else(|| {
            Error::input(format!("the environment has no variable `{name}`"))
                .with_advice("set it, or write the value here")
                .at(place(end + 1))
        })
    }
}

/// The meaning of a TOML string literal that begins at `start` of the file; None where it is not one.
fn decode(literal: &str, start: usize) -> Option<Text> {
    let quote = literal.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let triple = quote.to_string().repeat(3);
    let is_multiline =
        literal.len() >= 6 && literal.starts_with(&triple) && literal.ends_with(&triple);
    let edge = if is_multiline { 3 } else { 1 };
    let mut at = edge;
    let end = literal.len().checked_sub(edge).filter(|end| *end >= at)?;
    if is_multiline {
        let inside = &literal[at..end];
        // A line break right behind the opening quotes is not part of the string.
        at += if inside.starts_with("\r\n") { 2 } else { usize::from(inside.starts_with('\n')) };
    }
    let mut text = Text { value: String::new(), origins: Vec::new() };
    while at < end {
        let rest = literal.get(at..end)?;
        let c = rest.chars().next()?;
        if c != '\\' || quote == '\'' {
            text.push(c, start + at);
            at += c.len_utf8();
            continue;
        }
        let (meant, length) = escape(rest)?;
        if let Some(meant) = meant {
            text.push(meant, start + at);
        }
        at += length;
    }
    text.origins.push(start + end);
    Some(text)
}

/// What the escape at the beginning of `rest` means, and how long it is. A line's end that is escaped means nothing.
fn escape(rest: &str) -> Option<(Option<char>, usize)> {
    let kind = rest[1..].chars().next()?;
    let simple = match kind {
        'b' => '\u{8}',
        't' => '\t',
        'n' => '\n',
        'f' => '\u{c}',
        'r' => '\r',
        'e' => '\u{1b}',
        '"' | '\\' => kind,
        'x' | 'u' | 'U' => {
            let digits = match kind {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            let code = u32::from_str_radix(rest.get(2..2 + digits)?, 16).ok()?;
            return Some((Some(char::from_u32(code)?), 2 + digits));
        }
        c if c.is_whitespace() => {
            let blank = rest[1..].len() - rest[1..].trim_start().len();
            return Some((None, 1 + blank));
        }
        _ => return None,
    };
    Some((Some(simple), 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "HOME_DIR").then(|| "/home/ü".to_owned())
    }

    fn read(file: &str) -> Result<Text> {
        let value: toml::Value =
            toml::from_str::<toml::Table>(&format!("k = {file}")).expect("it is TOML")["k"].clone();
        Text::read(file, Span::new(0, file.len()), value.as_str().expect("a string"), &env)
    }

    #[test]
    fn every_character_knows_where_it_was_written() {
        let literals = [
            r#""a\tb\u00e9c""#,
            "'a\\tb'",
            "\"\"\"\n  two \\\n   lines\n\"quoted\"\"\"\"",
            "'''\nx'y\n'''",
            r#""""#,
        ];
        for file in literals {
            let text = read(file).expect("it can be read");
            let plain = |c: char| c.is_ascii_alphanumeric();
            for (at, c) in text.value.char_indices().filter(|(_, c)| plain(*c)) {
                assert!(file[text.origin(at)..].starts_with(c), "{file}: byte {at}");
            }
            let closing = &file[text.origin(text.value.len())..];
            assert!(closing.chars().all(|c| c == '"' || c == '\''), "{file}: {closing}");
        }
    }

    #[test]
    fn the_environment_takes_the_place_of_its_names() {
        let file = r#""${HOME_DIR}/x $5 $${HOME_DIR}""#;
        let text = read(file).expect("it can be read");
        assert_eq!(text.value, "/home/ü/x $5 ${HOME_DIR}");
        assert_eq!(
            text.origin(text.value.find("/x").expect("it is there")),
            file.find("/x").expect("it is there")
        );
        for (file, expected) in [
            (
                r#""a ${NOPE}""#,
                "the environment has no variable `NOPE`; set it, or write the value here\n  line 1, column 4\n  | \"a ${NOPE}\"\n  |    ^^^^^^^",
            ),
            (
                r#""${NOPE""#,
                "this `${` has no closing `}`; write $${ for the two characters themselves\n  line 1, column 2\n  | \"${NOPE\"\n  |  ^^",
            ),
        ] {
            assert_eq!(read(file).expect_err("refused").point_into(file), expected);
        }
        assert!(read(r#""${}""#).is_err() && read(r#""${a b}""#).is_err());
    }
}
