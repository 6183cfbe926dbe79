//! What can go wrong, and the one table that says what is then to be done. Knows no other module.

use std::{error::Error as StdError, fmt, time::Duration};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what it asks of us. [`ErrorKind::remedy`] is the only place that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A statement, a mapping, a configuration or a request is wrong as written.
    Input,
    /// Understood, but not (yet) done by this version.
    Unsupported,
    /// A thing that was named does not exist.
    NotFound,
    /// The source does not answer, broke off, or asked for patience.
    SourceUnreachable,
    /// The source refuses us: password, privilege, a setting we cannot work with.
    SourceRefused,
    /// The source no longer has, or never had, what our checkpoint needs.
    SourceLost,
    /// The definition of a mapped table is not proven for a position.
    Schema,
    /// Bytes of the log that do not mean anything: a bad checksum, an impossible length.
    Undecodable,
    /// The model asked for patience: 429, 5xx, time-out, broken connection.
    ModelBusy,
    /// The model answered, but not with the vectors that were asked for.
    ModelAnswer,
    /// The model refuses this request for good.
    ModelRefused,
    /// The sink asked for patience: 429, 5xx, time-out, broken connection.
    SinkBusy,
    /// Nothing can be written until somebody mends the sink: block, missing index, credentials.
    SinkBlocked,
    /// This document can never be written as it is.
    DocumentRefused,
    /// The sink holds a version above all that we ever assigned.
    ForeignVersion,
    /// Our own state directory failed or makes no sense.
    State,
    /// The disk of our state directory has no room.
    StateFull,
    /// A file or a socket of this machine.
    Io,
    /// We are stopping.
    Stopped,
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Waiting can help: back off and try again, for ever.
    Retry,
    /// Tell the caller; nothing of ours has changed.
    Refuse,
    /// Waiting cannot help: stop the link as `failed` at its last checkpoint, with the reason.
    Fail,
    /// Begin an epoch above the version that was met, and go on from the checkpoint.
    NewEpoch,
    /// End quietly.
    Stop,
}

impl ErrorKind {
    pub fn remedy(self) -> Remedy {
        match self {
            Self::SourceUnreachable
            | Self::ModelBusy
            | Self::SinkBusy
            | Self::SinkBlocked
            | Self::StateFull => Remedy::Retry,
            Self::Input | Self::NotFound => Remedy::Refuse,
            Self::Unsupported
            | Self::SourceRefused
            | Self::SourceLost
            | Self::Schema
            | Self::Undecodable
            | Self::ModelAnswer
            | Self::ModelRefused
            | Self::DocumentRefused
            | Self::State
            | Self::Io => Remedy::Fail,
            Self::ForeignVersion => Remedy::NewEpoch,
            Self::Stopped => Remedy::Stop,
        }
    }
}

/// Bytes `start..end` of the text that the error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// One-based line and column (in characters) of the first byte, for messages.
    pub fn line_column(self, text: &str) -> (usize, usize) {
        let before = &text[..text.floor_char_boundary(self.start.min(text.len()))];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// An error with its kind, the sentence for the operator, and the cause.
///
/// The message says what was tried and on what, in lower case and without a full stop; it never holds a secret or a
/// cell's value. The advice says what to do, as a sentence of its own.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    advice: Option<String>,
    span: Option<Span>,
    /// The other side has too much to do, and wants to be left alone for so long, which may be nothing.
    overload: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            advice: None,
            span: None,
            overload: None,
            source: None,
        }
    }

    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// The other side has too much to do: it said so, or it gave no answer in time. `retry_after` is its own wish.
    pub fn overloaded(mut self, retry_after: Option<Duration>) -> Self {
        self.overload = Some(retry_after.unwrap_or_default());
        self
    }

    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error seen from one step further out: `cannot read chunk: connection reset`.
    pub fn context(self, tried: impl fmt::Display) -> Self {
        Self { message: format!("{tried}: {}", self.message), ..self }
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn remedy(&self) -> Remedy {
        self.kind.remedy()
    }

    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// Whether asking for less at once can help.
    pub fn is_overload(&self) -> bool {
        self.overload.is_some()
    }

    /// How long the other side wants to be left alone, where it has said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.overload.filter(|wish| !wish.is_zero())
    }

    pub fn span(&self) -> Option<Span> {
        self.span
    }

    /// Message, causes and advice in one line, as it stands in a log and in a link's status.
    pub fn report(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        if let Some(advice) = &self.advice {
            text.push_str("; ");
            text.push_str(advice);
        }
        text
    }

    /// Points at the place in `text` that the error speaks of:
    ///
    /// ```text
    /// unknown column `t3` in db.test_table; it has id, t1, t2
    ///   line 1, column 19
    ///   | test_index.my_text(db.test_table.t3)
    ///   |                                  ^^
    /// ```
    pub fn point_into(&self, text: &str) -> String {
        let Some(span) = self.span else { return self.report() };
        let (line, column) = span.line_column(text);
        let shown = text.lines().nth(line - 1).unwrap_or("");
        let start = span.start.min(text.len());
        let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
        let on_this_line = text[text.floor_char_boundary(start)..end].lines().next().unwrap_or("");
        let carets = "^".repeat(on_this_line.chars().count().max(1));
        let pad = " ".repeat(column - 1);
        format!("{}\n  line {line}, column {column}\n  | {shown}\n  | {pad}{carets}", self.report())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// `names` by their likeness to `wrong`: the nearest one, if any is near enough to be meant.
pub fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| {
            *distance <= (name.chars().count().max(wrong.chars().count()) / 2).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_points_at_the_character() {
        let text = "a.b(c.d.e),\na.x(c.d.é3)";
        let at = text.find("é3").expect("it is there");
        let error = Error::input("unknown column `é3` in c.d")
            .with_advice("it has id")
            .at(Span::new(at, at + 3));
        assert_eq!(
            error.point_into(text),
            "unknown column `é3` in c.d; it has id\n  line 2, column 9\n  | a.x(c.d.é3)\n  |         ^^"
        );
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        assert_eq!(nearest("adresses", ["addresses", "password"]), Some("addresses"));
        assert_eq!(nearest("zzz", ["addresses", "password"]), None);
    }
}
