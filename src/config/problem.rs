//! All that is wrong with a file, shown with file, line and column. Must not show a secret: a line that may hold one is
//! named and not printed.

use std::fmt;

use crate::error::Error;

/// At least one thing that is wrong with the file `file`.
#[derive(Debug)]
pub struct Problems {
    file: String,
    /// What the errors' spans point into; empty if the file could not be read.
    text: String,
    errors: Vec<Error>,
}

impl Problems {
    pub(super) fn new(file: String, text: String, mut errors: Vec<Error>) -> Self {
        errors.sort_by_key(|error| error.span().map(|span| span.start));
        Self { file, text, errors }
    }

    pub fn errors(&self) -> &[Error] {
        &self.errors
    }

    fn show(&self, error: &Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(span) = error.span() else {
            return write!(f, "{}: {}", self.file, error.report());
        };
        let (line, column) = span.line_column(&self.text);
        write!(f, "{}:{line}:{column}: {}", self.file, error.report())?;
        let begins = span.start.min(self.text.len());
        let is_hidden = may_hold_secret(section_at(&self.text, begins))
            || may_hold_secret(written_at(&self.text, begins));
        if is_hidden {
            return Ok(());
        }
        let pointed = error.point_into(&self.text);
        // The message and the place stand above already.
        let picture = pointed.lines().skip(error.report().lines().count() + 1);
        picture.into_iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            self.show(error, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The line that begins the section around the byte `at`.
fn section_at(text: &str, at: usize) -> &str {
    let before = &text[..text.floor_char_boundary(at)];
    before.lines().rev().find(|line| line.starts_with('[')).unwrap_or("")
}

/// The line around the byte `at`; where that is inside a string of several lines, from the line that begins the string.
fn written_at(text: &str, at: usize) -> &str {
    let at = text.floor_char_boundary(at);
    let line_of = |at: usize| text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line_end = text[at..].find('\n').map_or(text.len(), |length| at + length);
    let before = &text[..line_of(at)];
    let opened = ["\"\"\"", "'''"].iter().filter_map(|quotes| {
        let is_inside = before.matches(quotes).count() % 2 == 1;
        is_inside.then(|| before.rfind(quotes)).flatten()
    });
    &text[opened.map(line_of).min().unwrap_or(line_of(at))..line_end]
}

/// Parts of the names that secrets have, misspelt ones too.
const WORDS: [&str; 7] = ["passw", "pwd", "secret", "api_key", "apikey", "token", "credential"];

/// A line with a password or a key, or with a URL that has one in it.
fn may_hold_secret(line: &str) -> bool {
    let has_user = line.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '"', '\'']).next().unwrap_or(rest);
        authority.contains('@')
    });
    let line = line.to_ascii_lowercase();
    has_user || WORDS.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_several_lines_is_not_shown_either() {
        let text = "[http]\ntoken = \"\"\"\nhidden\nhidden too\n\"\"\"\nlisten = 5\nname = 'x'\n";
        let at = |word: &str| text.find(word).expect("it is there");
        for word in ["token", "hidden", "hidden too"] {
            assert!(may_hold_secret(written_at(text, at(word))), "{word}");
        }
        assert!(may_hold_secret(section_at("[secrets]\nkey = 5\n", 15)));
        for word in ["[http]", "listen", "name"] {
            assert!(!may_hold_secret(written_at(text, at(word))), "{word}");
        }
        assert_eq!(written_at(text, at("'x'")), "name = 'x'");
    }
}
