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
        let shown = self.text.lines().nth(line - 1).unwrap_or("");
        if may_hold_secret(shown) {
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

/// A line with a password or a key, or with a URL that has one in it.
fn may_hold_secret(line: &str) -> bool {
    let has_user = line.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '"', '\'']).next().unwrap_or(rest);
        authority.contains('@')
    });
    let line = line.to_ascii_lowercase();
    has_user || ["password", "secret", "api_key"].iter().any(|word| line.contains(word))
}
