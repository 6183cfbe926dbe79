//! Text to tokens, on demand. A token's span speaks of the text that the user wrote, also where the lexer reads the
//! inside of a quoted string: each decoded byte remembers where it came from. Knows no grammar.

use crate::error::{Error, Result, Span};

/// Characters that stand for themselves; everything else that is not white space, a quote or a comment is a word.
const PUNCTUATION: &[char] = &['.', ',', '(', ')', '=', ';', '*'];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Word(String),
    /// A name in back-ticks, without them.
    Ticked(String),
    Text(Text),
    Sign(char),
    End,
}

impl Token {
    pub fn is_sign(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }

    /// For messages: what was found where something else was expected.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Word(word) => format!("`{}`", shortened(word)),
            Kind::Ticked(name) => format!("`{}`", shortened(name)),
            Kind::Text(_) => "a string".to_owned(),
            Kind::Sign(sign) => format!("`{sign}`"),
            Kind::End => "the end".to_owned(),
        }
    }
}

/// A name cut to a length that a message can carry.
pub(super) fn shortened(name: &str) -> String {
    const SHOWN: usize = 64;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// The meaning of a quoted string, and where each of its bytes was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub text: String,
    /// Per byte of `text` its place in the user's text, and behind the last one that of the closing quote.
    origins: Vec<usize>,
}

impl Text {
    /// Where the byte at this place of the meaning was written.
    pub fn place(&self, at: usize) -> Span {
        let start = self.origins.get(at).or(self.origins.last()).copied().unwrap_or_default();
        let end = self.origins.iter().copied().find(|origin| *origin > start).unwrap_or(start);
        Span::new(start, end)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    origins: Option<&'t [usize]>,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, origins: None, at: 0 }
    }

    /// Reads the inside of a quoted string.
    pub fn inside(text: &'t Text) -> Self {
        Self { text: &text.text, origins: Some(&text.origins), at: 0 }
    }

    pub fn next(&mut self) -> Result<Token> {
        self.skip_blank()?;
        let start = self.at;
        let kind = match self.text[start..].chars().next() {
            None => Kind::End,
            Some(quote @ ('\'' | '"')) => Kind::Text(self.quoted(quote)?),
            Some('`') => {
                let name = self.quoted('`')?.text;
                if name.is_empty() {
                    return Err(Error::input("a name is empty").at(self.span(start, self.at)));
                }
                Kind::Ticked(name)
            }
            Some(sign) if PUNCTUATION.contains(&sign) => {
                self.at += sign.len_utf8();
                Kind::Sign(sign)
            }
            Some(_) => Kind::Word(self.word()),
        };
        Ok(Token { kind, span: self.span(start, self.at) })
    }

    /// What stands there, as it was written; of a statement's own text, not of the inside of a string.
    pub fn written(&self, span: Span) -> &'t str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    fn origin(&self, at: usize) -> usize {
        match self.origins {
            None => at,
            Some(origins) => origins.get(at).or(origins.last()).copied().unwrap_or(at),
        }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.origin(start), self.origin(end))
    }

    fn skip_blank(&mut self) -> Result<()> {
        loop {
            let rest = &self.text[self.at..];
            let blank = rest.len() - rest.trim_start().len();
            let comment = comment_length(&rest[blank..]).map_err(|what| {
                let start = self.at + blank;
                Error::input(what).at(self.span(start, start + 2))
            })?;
            if blank + comment == 0 {
                return Ok(());
            }
            self.at += blank + comment;
        }
    }

    fn word(&mut self) -> String {
        let rest = &self.text[self.at..];
        let ends = |(at, c): &(usize, char)| {
            let stops = c.is_whitespace() || PUNCTUATION.contains(c) || "'\"`".contains(*c);
            stops || !matches!(comment_length(&rest[*at..]), Ok(0))
        };
        let end = rest.char_indices().skip(1).find(ends).map_or(rest.len(), |(at, _)| at);
        self.at += end;
        rest[..end].to_owned()
    }

    /// Reads from an opening quote to behind the closing one, and undoes doubled quotes and MySQL's escapes.
    fn quoted(&mut self, quote: char) -> Result<Text> {
        let start = self.at;
        let mut decoded = Text { text: String::new(), origins: Vec::new() };
        let mut chars = self.text[start..].char_indices().skip(1).peekable();
        while let Some((offset, c)) = chars.next() {
            let at = start + offset;
            let doubled = c == quote && chars.next_if(|(_, next)| *next == quote).is_some();
            if c == quote && !doubled {
                decoded.origins.push(self.origin(at));
                self.at = at + quote.len_utf8();
                return Ok(decoded);
            }
            let escaped = if c == '\\' && quote != '`' { chars.next() } else { None };
            match escaped {
                None => self.push(&mut decoded, c, at),
                // In MySQL `\%` and `\_` keep their backslash outside of patterns.
                Some((_, next @ ('%' | '_'))) => {
                    self.push(&mut decoded, '\\', at);
                    self.push(&mut decoded, next, at + 1);
                }
                Some((_, next)) => self.push(&mut decoded, unescaped(next), at),
            }
        }
        let what = if quote == '`' { "name" } else { "string" };
        let message = format!("this {what} has no closing {quote}");
        Err(Error::input(message).at(self.span(start, start + 1)))
    }

    fn push(&self, decoded: &mut Text, c: char, at: usize) {
        decoded.text.push(c);
        decoded.origins.resize(decoded.text.len(), self.origin(at));
    }
}

fn unescaped(c: char) -> char {
    match c {
        '0' => '\0',
        'b' => '\u{8}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'Z' => '\u{1a}',
        other => other,
    }
}

/// How many bytes the comment at the beginning of `rest` has; 0 if there is none.
fn comment_length(rest: &str) -> Result<usize, &'static str> {
    if rest.starts_with("/*!") || rest.starts_with("/*M!") {
        return Err("this version does not read comments that are to be executed");
    }
    if rest.starts_with("/*") {
        let end = rest.get(2..).and_then(|inside| inside.find("*/"));
        return end.map(|end| end + 4).ok_or("this comment has no closing */");
    }
    let dashes = rest.strip_prefix("--").is_some_and(|behind| {
        behind.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control())
    });
    let to_line_end = rest.find('\n').map_or(rest.len(), |end| end + 1);
    Ok(if dashes || rest.starts_with('#') { to_line_end } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let mut lexer = Lexer::new(text);
        let mut kinds = Vec::new();
        loop {
            match lexer.next().expect("the text is well formed").kind {
                Kind::End => return kinds,
                kind => kinds.push(kind),
            }
        }
    }

    fn word(text: &str) -> Kind {
        Kind::Word(text.to_owned())
    }

    #[test]
    fn words_hold_hyphens_and_digits_and_comments_are_blank() {
        let read = kinds("my-index2 /* a */ 7up-- b\n# c\n`x``y` a--b");
        assert_eq!(
            read,
            [word("my-index2"), word("7up"), Kind::Ticked("x`y".to_owned()), word("a--b")]
        );
    }

    #[test]
    fn a_place_inside_a_string_is_a_place_in_the_text() {
        let text = r"'a\.b ''é'' \n c'";
        let Kind::Text(string) = kinds(text).remove(0) else { panic!("it is a string") };
        assert_eq!(string.text, "a.b 'é' \n c");
        let mut inside = Lexer::inside(&string);
        let mut tokens = Vec::new();
        loop {
            let token = inside.next().expect("it is well formed");
            tokens.push(&text[token.span.start..token.span.end]);
            if token.kind == Kind::End {
                assert_eq!(token.span.start, text.len() - 1);
                break;
            }
        }
        assert_eq!(tokens, ["a", r"\.", "b", "''é''", "c", ""]);
    }
}
