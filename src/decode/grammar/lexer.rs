//! Characters of a grammar to the words and signs of its language.

use super::Place;

/// What stands at a place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    /// A quoted word; never a keyword.
    Quoted(String),
    /// `<name>`
    Rule(String),
    /// `/w/`
    Weight(f32),
    /// One of `= ; | ( ) [ ] * +`
    Sign(char),
}

/// An error and where.
pub(super) type Wrong = (Place, String);

/// The tokens of a grammar with their places; comments, tags and the `#JSGF` line left out. The second value is the end of the text.
pub(super) fn tokens(text: &str) -> Result<(Vec<(Token, Place)>, Place), Wrong> {
    let mut characters = Characters { rest: text.trim_start_matches('\u{feff}'), at: (1, 1) };
    let mut found = Vec::new();
    if characters.rest.starts_with("#JSGF") {
        let at = characters.at;
        characters.until(';').ok_or((at, "the header ends with `;`".to_string()))?;
    }
    while let Some(c) = characters.rest.chars().next() {
        let at = characters.at;
        let open = |what: &str| (at, format!("{what} is not closed"));
        match c {
            _ if c.is_whitespace() => {
                characters.next();
            }
            '/' if characters.rest.starts_with("//") => {
                characters.until('\n');
            }
            '/' if characters.rest.starts_with("/*") => {
                let end = characters.rest[2..].find("*/").ok_or_else(|| open("the comment"))?;
                characters.skip(end + 4);
            }
            '/' => {
                characters.next();
                let written = characters.until('/').ok_or_else(|| open("the weight"))?.trim();
                let weight = written.parse().ok().filter(|w: &f32| w.is_finite() && *w >= 0.0);
                let weight = weight.ok_or_else(|| (at, format!("weight {written:?} is not a number from 0")))?;
                found.push((Token::Weight(weight), at));
            }
            '{' => {
                characters.until('}').ok_or_else(|| open("the tag"))?;
            }
            '<' => {
                characters.next();
                let name = characters.until('>').ok_or_else(|| open("the rule name"))?.trim();
                if name.is_empty() || name.contains(['<', '\n', ';', '=', '|']) {
                    return Err((at, format!("{name:?} is not a rule name")));
                }
                found.push((Token::Rule(name.into()), at));
            }
            '"' => {
                characters.next();
                let quoted = characters.until('"').ok_or_else(|| open("the quotation"))?;
                found.extend(quoted.split_whitespace().map(|word| (Token::Quoted(word.into()), at)));
            }
            '=' | ';' | '|' | '(' | ')' | '[' | ']' | '*' | '+' => {
                characters.next();
                found.push((Token::Sign(c), at));
            }
            '>' | '}' => return Err((at, format!("`{c}` closes nothing"))),
            _ => {
                let ends = |c: char| c.is_whitespace() || "=;|()[]*+/<>{}\"".contains(c);
                let length = characters.rest.find(ends).unwrap_or(characters.rest.len());
                found.push((Token::Word(characters.rest[..length].into()), at));
                characters.skip(length);
            }
        }
    }
    Ok((found, characters.at))
}

struct Characters<'a> {
    rest: &'a str,
    at: Place,
}

impl<'a> Characters<'a> {
    fn next(&mut self) {
        let mut all = self.rest.chars();
        match all.next() {
            Some('\n') => self.at = (self.at.0 + 1, 1),
            Some(_) => self.at.1 += 1,
            None => {}
        }
        self.rest = all.as_str();
    }

    /// Goes `bytes` on.
    fn skip(&mut self, bytes: usize) {
        let left = self.rest.len() - bytes;
        while self.rest.len() > left {
            self.next();
        }
    }

    /// What stands before the next `end`; goes past it. `None` if there is none: then all is skipped.
    fn until(&mut self, end: char) -> Option<&'a str> {
        let before = self.rest.find(end).map(|at| &self.rest[..at]);
        self.skip(before.map_or(self.rest.len(), |b| b.len() + end.len_utf8()));
        before
    }
}
