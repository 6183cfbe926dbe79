//! A reader over the tokens of one clause. Knows no clause.

use super::tokens::Token;

#[derive(Clone)]
pub(super) struct Words<'a, 's> {
    tokens: &'a [Token<'s>],
}

impl<'a, 's> Words<'a, 's> {
    pub fn new(tokens: &'a [Token<'s>]) -> Self {
        Self { tokens }
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn rest(&self) -> &'a [Token<'s>] {
        self.tokens
    }

    pub fn peek(&self) -> Option<&'a Token<'s>> {
        self.tokens.first()
    }

    pub fn next(&mut self) -> Option<&'a Token<'s>> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    pub fn is(&self, keywords: &[&str]) -> bool {
        self.peek().is_some_and(|token| token.is_keyword(keywords))
    }

    pub fn accept(&mut self, keywords: &[&str]) -> bool {
        let found = self.is(keywords);
        if found {
            self.next();
        }
        found
    }

    /// All of the words, one behind the other, or none.
    pub fn accept_all(&mut self, keywords: &[&str]) -> bool {
        let found = keywords.len() <= self.tokens.len()
            && keywords.iter().zip(self.tokens).all(|(word, token)| token.is_keyword(&[word]));
        if found {
            self.tokens = &self.tokens[keywords.len()..];
        }
        found
    }

    pub fn accept_sign(&mut self, sign: char) -> bool {
        let found = self.peek().is_some_and(|token| token.is_sign(sign));
        if found {
            self.next();
        }
        found
    }

    pub fn name(&mut self) -> Option<&'a str> {
        let name = self.peek()?.name()?;
        self.next();
        Some(name)
    }

    /// A number without sign or point.
    pub fn number(&mut self) -> Option<u64> {
        match self.peek()? {
            Token::Word(digits) => {
                let number = digits.parse().ok()?;
                self.next();
                Some(number)
            }
            _ => None,
        }
    }

    /// What stands in the parentheses that begin here.
    pub fn group(&mut self) -> Option<&'a [Token<'s>]> {
        if !self.peek()?.is_sign('(') {
            return None;
        }
        let mut depth = 0i64;
        for (at, token) in self.tokens.iter().enumerate() {
            depth += token.nesting();
            if depth == 0 {
                let inside = &self.tokens[1..at];
                self.tokens = &self.tokens[at + 1..];
                return Some(inside);
            }
        }
        None
    }

    /// The parts between commas outside of parentheses.
    pub fn split(tokens: &'a [Token<'s>]) -> Vec<&'a [Token<'s>]> {
        let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0i64);
        for (at, token) in tokens.iter().enumerate() {
            depth += token.nesting();
            if depth == 0 && token.is_sign(',') {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
        }
        parts.push(&tokens[start..]);
        parts
    }
}
