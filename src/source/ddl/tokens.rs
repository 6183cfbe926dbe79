//! Tokens of SQL as the log holds it, and a cursor over them. What a comment says to be executed is read as if it stood
//! there without the comment. Knows names and keywords, but no statement.

use std::borrow::Cow;

use crate::table::TableId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'s> {
    Word(&'s str),
    /// In back-ticks, or in double quotes: a session with ANSI_QUOTES means a name by them.
    Name(Cow<'s, str>),
    /// In single quotes.
    Text(Cow<'s, str>),
    Sign(char),
}

impl Token<'_> {
    pub fn is_keyword(&self, keywords: &[&str]) -> bool {
        matches!(self, Token::Word(word) if keywords.iter().any(|k| k.eq_ignore_ascii_case(word)))
    }

    pub fn is_sign(&self, sign: char) -> bool {
        *self == Token::Sign(sign)
    }

    pub fn is_named(&self, name: &str) -> bool {
        self.name().is_some_and(|own| own.eq_ignore_ascii_case(name))
    }

    /// 1 for an opening parenthesis, -1 for a closing one.
    pub fn nesting(&self) -> i64 {
        i64::from(self.is_sign('(')) - i64::from(self.is_sign(')'))
    }

    pub fn name(&self) -> Option<&str> {
        match self {
            Token::Word(name) => Some(name),
            Token::Name(name) => Some(name),
            Token::Text(_) | Token::Sign(_) => None,
        }
    }
}

#[derive(Clone)]
pub(super) struct Cursor<'s> {
    rest: &'s str,
    /// How many executed comments are open.
    executed: usize,
    default_db: &'s str,
}

/// The statement that stands behind `SET STATEMENT … FOR`, by which MariaDB sets variables for it alone.
pub(super) fn behind_set_statement(statement: &str) -> Option<&str> {
    let mut cursor = Cursor::new(statement, "");
    if !(cursor.accept(&["SET"]) && cursor.accept(&["STATEMENT"])) {
        return None;
    }
    let mut depth = 0;
    while let Some(token) = cursor.next() {
        depth += token.nesting();
        if depth == 0 && token.is_keyword(&["FOR"]) {
            return Some(cursor.rest().trim_start());
        }
    }
    None
}

impl<'s> Cursor<'s> {
    pub fn new(statement: &'s str, default_db: &'s str) -> Self {
        Self { rest: statement, executed: 0, default_db }
    }

    pub fn rest(&self) -> &'s str {
        self.rest
    }

    pub fn next(&mut self) -> Option<Token<'s>> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        Some(match first {
            '`' => Token::Name(self.quoted('`')),
            '"' => Token::Name(self.quoted('"')),
            '\'' => Token::Text(self.quoted('\'')),
            _ if is_word(first) => {
                let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
                Token::Word(self.take(end))
            }
            _ => {
                self.take(first.len_utf8());
                Token::Sign(first)
            }
        })
    }

    fn peek(&self) -> Option<Token<'s>> {
        self.clone().next()
    }

    fn take(&mut self, end: usize) -> &'s str {
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\0');
            let executed = self.rest.strip_prefix("/*!").or(self.rest.strip_prefix("/*M!"));
            if let Some(inside) = executed {
                // The number of the version from which on it is executed.
                self.rest = inside.trim_start_matches(|c: char| c.is_ascii_digit());
                self.executed += 1;
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.find("*/").map_or("", |end| &comment[end + 2..]);
            } else if self.executed > 0 && self.rest.starts_with("*/") {
                self.rest = &self.rest[2..];
                self.executed -= 1;
            } else if self.rest.starts_with('#') || self.is_dash_comment() {
                self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end + 1..]);
            } else {
                return;
            }
        }
    }

    fn is_dash_comment(&self) -> bool {
        self.rest.strip_prefix("--").is_some_and(|behind| {
            behind.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control())
        })
    }

    /// The inside of a quoted thing; doubled quotes and backslashes are undone. Unclosed, it goes to the end.
    fn quoted(&mut self, quote: char) -> Cow<'s, str> {
        let inside = &self.rest[quote.len_utf8()..];
        let mut decoded = None::<String>;
        let mut chars = inside.char_indices().peekable();
        let mut end = inside.len();
        while let Some((at, c)) = chars.next() {
            let meant = if c == '\\' && quote != '`' {
                chars.next().map(|(_, next)| next)
            } else if c == quote {
                let doubled = chars.next_if(|(_, next)| *next == quote);
                if doubled.is_none() {
                    end = at;
                    break;
                }
                Some(quote)
            } else {
                if let Some(decoded) = &mut decoded {
                    decoded.push(c);
                }
                continue;
            };
            decoded.get_or_insert_with(|| inside[..at].to_owned()).extend(meant);
        }
        self.rest = inside.get(end + quote.len_utf8()..).unwrap_or("");
        decoded.map_or(Cow::Borrowed(&inside[..end]), Cow::Owned)
    }

    pub fn accept(&mut self, keywords: &[&str]) -> bool {
        self.accept_where(|token| token.is_keyword(keywords))
    }

    pub fn accept_sign(&mut self, sign: char) -> bool {
        self.accept_where(|token| token.is_sign(sign))
    }

    fn accept_where(&mut self, wanted: impl Fn(&Token<'_>) -> bool) -> bool {
        let mut ahead = self.clone();
        let found = ahead.next().is_some_and(|token| wanted(&token));
        if found {
            *self = ahead;
        }
        found
    }

    /// `IF EXISTS` or `IF NOT EXISTS`.
    pub fn accept_if_exists(&mut self) -> bool {
        let found = self.accept(&["IF"]);
        while self.accept(&["NOT", "EXISTS"]) {}
        found
    }

    /// `WAIT 5` or `NOWAIT`, which MariaDB takes behind the name of a table.
    pub fn accept_wait(&mut self) {
        let mut ahead = self.clone();
        let is_number =
            |token: Token<'_>| matches!(token, Token::Word(word) if word.parse::<f64>().is_ok());
        if ahead.accept(&["WAIT"]) && ahead.next().is_some_and(is_number) {
            *self = ahead;
        } else {
            self.accept(&["NOWAIT"]);
        }
    }

    pub fn name(&mut self) -> Option<String> {
        let mut ahead = self.clone();
        let name = ahead.next()?.name()?.to_owned();
        *self = ahead;
        Some(name)
    }

    /// `table` or `db.table`.
    pub fn table(&mut self) -> Option<TableId> {
        let first = self.name()?;
        let mut ahead = self.clone();
        let second = if ahead.accept_sign('.') { ahead.name() } else { None };
        let Some(second) = second else { return Some(TableId::new(self.default_db, first)) };
        *self = ahead;
        Some(TableId::new(first, second))
    }

    /// Tables separated by commas, at least one.
    pub fn tables(&mut self) -> Option<Vec<TableId>> {
        let mut tables = vec![self.table()?];
        while self.accept_sign(',') {
            tables.push(self.table()?);
        }
        Some(tables)
    }

    /// The table that the tokens of a clause begin with.
    pub fn table_of(&self, tokens: &[Token<'_>]) -> Option<TableId> {
        let first = tokens.first()?.name()?;
        let dot = tokens.get(1).is_some_and(|token| token.is_sign('.'));
        match tokens.get(2).and_then(Token::name).filter(|_| dot) {
            Some(table) => Some(TableId::new(first, table)),
            None => Some(TableId::new(self.default_db, first)),
        }
    }

    /// The tokens up to the next comma outside of parentheses; `None` at the end.
    pub fn clause(&mut self) -> Option<Vec<Token<'s>>> {
        self.peek()?;
        let (mut clause, mut depth) = (Vec::new(), 0i64);
        while let Some(token) = self.next() {
            depth += token.nesting();
            if depth <= 0 && (token.is_sign(',') || token.is_sign(';')) {
                break;
            }
            clause.push(token);
        }
        Some(clause)
    }

    /// Names that stand where a table can stand, up to one of `ends` outside of parentheses.
    pub fn references(&mut self, ends: &[&str]) -> Vec<TableId> {
        const BEFORE: &[&str] = &[
            "FROM",
            "JOIN",
            "STRAIGHT_JOIN",
            "USING",
            "LATERAL",
            "LOW_PRIORITY",
            "QUICK",
            "IGNORE",
        ];
        let (mut tables, mut depth, mut can_stand) = (Vec::new(), 0i64, true);
        loop {
            let mut ahead = self.clone();
            let Some(token) = ahead.next() else { return tables };
            if depth <= 0 && token.is_keyword(ends) {
                return tables;
            }
            depth += token.nesting();
            if can_stand && token.name().is_some() && !token.is_keyword(BEFORE) {
                tables.extend(self.table());
                can_stand = false;
                continue;
            }
            *self = ahead;
            can_stand = token.is_keyword(BEFORE) || token.is_sign(',') || token.is_sign('(');
        }
    }

    /// Everything that has the form of a table's name.
    pub fn all_names(&mut self) -> Vec<TableId> {
        let mut names = Vec::new();
        while self.peek().is_some() {
            match self.peek().filter(|token| token.name().is_some()) {
                Some(_) => names.extend(self.table()),
                None => drop(self.next()),
            }
        }
        names
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii() && !c.is_whitespace()
}
