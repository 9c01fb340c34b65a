//! The words and signs of a grammar to its rules.

use std::collections::HashMap;
use std::vec::IntoIter;

use super::lexer::{Token, Wrong, tokens};
use super::{Expansion, Least, Place};

/// Groups within groups.
const MAX_DEPTH: usize = 100;

/// A rule of a grammar.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) scope: Scope,
    pub(super) body: Expansion,
}

/// Whether a rule makes sentences of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Public,
    Private,
}

/// All rules of a grammar, each referring only to others and none to itself, over how many others whatsoever.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, Wrong> {
    let (tokens, end) = tokens(text)?;
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), end, names: HashMap::new(), mentioned: Vec::new() };
    let mut defined: HashMap<usize, (Rule, Place)> = HashMap::new();
    loop {
        let at = parser.at();
        let mut scope = Scope::Private;
        match parser.tokens.next() {
            None => break,
            Some((Token::Word(word), _)) if word == "grammar" => {
                while parser.take_if(|t| !matches!(t, Token::Sign(';'))).is_some() {}
                parser.expect(';', "after the name of the grammar")?;
                continue;
            }
            Some((Token::Word(word), at)) if word == "import" => {
                return Err((at, "import is not supported: put the rules in this file".into()));
            }
            Some((Token::Word(word), _)) if word == "public" => scope = Scope::Public,
            Some((Token::Rule(name), at)) => {
                parser.rule(scope, name, at, &mut defined)?;
                continue;
            }
            Some(_) => return Err((at, "a rule starts here: `<name> = ...;` or `public <name> = ...;`".into())),
        }
        let at = parser.at();
        match parser.tokens.next() {
            Some((Token::Rule(name), at)) => parser.rule(scope, name, at, &mut defined)?,
            _ => return Err((at, "`public` stands before a rule: `public <name> = ...;`".into())),
        }
    }
    if let Some((name, at)) = parser.mentioned.iter().find(|(name, _)| !defined.contains_key(&parser.names[name])) {
        return Err((*at, format!("<{name}> is not defined")));
    }
    let mut numbered: Vec<(usize, (Rule, Place))> = defined.into_iter().collect();
    numbered.sort_unstable_by_key(|(number, _)| *number);
    let (rules, places): (Vec<Rule>, Vec<Place>) = numbered.into_iter().map(|(_, rule)| rule).unzip();
    if rules.iter().all(|rule| rule.scope == Scope::Private) {
        return Err((places.first().copied().unwrap_or(end), "no rule is public: `public <name> = ...;`".into()));
    }
    match circle(&rules) {
        Some(at) => Err((at, "the rule refers to itself here: say it with `*` or `+`".into())),
        None => Ok(rules),
    }
}

struct Parser {
    tokens: std::iter::Peekable<IntoIter<(Token, Place)>>,
    end: Place,
    /// Numbers of the rules in the order in which they are met.
    names: HashMap<String, usize>,
    mentioned: Vec<(String, Place)>,
}

impl Parser {
    fn at(&mut self) -> Place {
        self.tokens.peek().map_or(self.end, |t| t.1)
    }

    fn take_if(&mut self, wanted: impl Fn(&Token) -> bool) -> Option<(Token, Place)> {
        self.tokens.next_if(|(token, _)| wanted(token))
    }

    fn take(&mut self, sign: char) -> bool {
        self.take_if(|t| *t == Token::Sign(sign)).is_some()
    }

    fn expect(&mut self, sign: char, when: &str) -> Result<(), Wrong> {
        let at = self.at();
        if self.take(sign) { Ok(()) } else { Err((at, format!("`{sign}` is missing {when}"))) }
    }

    fn number(&mut self, name: &str) -> usize {
        let next = self.names.len();
        *self.names.entry(name.into()).or_insert(next)
    }

    fn rule(&mut self, scope: Scope, name: String, at: Place, defined: &mut HashMap<usize, (Rule, Place)>) -> Result<(), Wrong> {
        self.expect('=', "after the name of the rule")?;
        let body = self.alternatives(0)?;
        self.expect(';', "at the end of the rule")?;
        let number = self.number(&name);
        if let Some((_, (line, _))) = defined.insert(number, (Rule { scope, body }, at)) {
            return Err((at, format!("<{name}> is defined on line {line} already")));
        }
        if name == "NULL" || name == "VOID" {
            return Err((at, format!("<{name}> has a meaning of its own")));
        }
        Ok(())
    }

    fn alternatives(&mut self, depth: usize) -> Result<Expansion, Wrong> {
        let at = self.at();
        if depth > MAX_DEPTH {
            return Err((at, format!("groups within groups: more than {MAX_DEPTH}")));
        }
        let mut all = Vec::new();
        loop {
            let weight = match self.take_if(|t| matches!(t, Token::Weight(_))) {
                Some((Token::Weight(weight), _)) => weight,
                _ => 1.0,
            };
            all.push((weight, self.sequence(depth)?));
            if !self.take('|') {
                break;
            }
        }
        if all.iter().all(|(weight, _)| *weight == 0.0) {
            return Err((at, "all weights are 0".into()));
        }
        let single = all.len() == 1;
        Ok(if single { all.remove(0).1 } else { Expansion::Alternatives(all) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Expansion, Wrong> {
        let start = self.at();
        let mut items: Vec<Expansion> = Vec::new();
        loop {
            let at = self.at();
            let next = self.take_if(|t| !matches!(t, Token::Sign('=' | ';' | '|' | ')' | ']' | '*' | '+') | Token::Weight(_)));
            let mut item = match next {
                Some((Token::Word(text) | Token::Quoted(text), at)) => Expansion::Word { text, at },
                Some((Token::Rule(name), _)) if name == "NULL" => Expansion::Sequence(vec![]),
                Some((Token::Rule(name), _)) if name == "VOID" => Expansion::Void,
                Some((Token::Rule(name), at)) => {
                    self.mentioned.push((name.clone(), at));
                    Expansion::Rule { rule: self.number(&name), at }
                }
                Some((Token::Sign(open), _)) => {
                    let body = self.alternatives(depth + 1)?;
                    self.expect(if open == '(' { ')' } else { ']' }, &format!("for the `{open}` of line {}, column {}", at.0, at.1))?;
                    if open == '(' { body } else { Expansion::Optional(body.into()) }
                }
                _ if items.is_empty() => return Err((start, "a word, a group or a <rule> is missing".into())),
                _ if matches!(self.tokens.peek(), Some((Token::Weight(_), _))) => {
                    return Err((at, "a weight stands at the start of an alternative".into()));
                }
                _ => return Ok(if items.len() == 1 { items.remove(0) } else { Expansion::Sequence(items) }),
            };
            while let Some((Token::Sign(sign), _)) = self.take_if(|t| matches!(t, Token::Sign('*' | '+'))) {
                let least = if sign == '*' { Least::Never } else { Least::Once };
                // `x**` and the like say no more than `x*`.
                item = match item {
                    Expansion::Repeat { least: inner, body } => {
                        Expansion::Repeat { least: if inner == Least::Once { least } else { Least::Never }, body }
                    }
                    other => Expansion::Repeat { least, body: other.into() },
                };
            }
            items.push(item);
        }
    }
}

/// Where a rule refers to itself, over others perhaps.
fn circle(rules: &[Rule]) -> Option<Place> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        Open,
        Done,
    }
    let references: Vec<Vec<(usize, Place)>> = rules.iter().map(|rule| references(&rule.body)).collect();
    let mut seen = vec![Seen::No; rules.len()];
    for start in 0..rules.len() {
        // Rules being followed, each with the number of its references followed.
        let mut path = if seen[start] == Seen::No { vec![(start, 0)] } else { vec![] };
        while let Some((rule, next)) = path.last_mut() {
            seen[*rule] = Seen::Open;
            match references[*rule].get(*next) {
                None => {
                    seen[*rule] = Seen::Done;
                    path.pop();
                }
                Some(&(to, at)) => {
                    *next += 1;
                    match seen[to] {
                        Seen::Open => return Some(at),
                        Seen::No => path.push((to, 0)),
                        Seen::Done => {}
                    }
                }
            }
        }
    }
    None
}

fn references(expansion: &Expansion) -> Vec<(usize, Place)> {
    match expansion {
        Expansion::Rule { rule, at } => vec![(*rule, *at)],
        Expansion::Sequence(items) => items.iter().flat_map(references).collect(),
        Expansion::Alternatives(items) => items.iter().flat_map(|(_, item)| references(item)).collect(),
        Expansion::Optional(body) | Expansion::Repeat { body, .. } => references(body),
        Expansion::Word { .. } | Expansion::Void => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_name_line_and_column() {
        for (text, place, part) in [
            ("public <a> = b", (1, 15), "`;` is missing at the end of the rule"),
            ("public <a> = (b;", (1, 16), "`)` is missing for the `(` of line 1, column 14"),
            ("// x\n/* y\n */ public <a> = <b>;", (3, 18), "<b> is not defined"),
            ("<a> = b;", (1, 1), "no rule is public"),
            ("", (1, 1), "no rule is public"),
            ("public <a> = b;\npublic <a> = c;", (2, 8), "<a> is defined on line 1"),
            ("public <a> = b | ;", (1, 18), "a word, a group or a <rule> is missing"),
            ("public <a> = /x/ b;", (1, 14), "weight \"x\" is not a number"),
            ("public <a> = b /2/;", (1, 16), "a weight stands at the start"),
            ("public <a> = /0/ b | /0/ c;", (1, 14), "all weights are 0"),
            ("public <a> = b [<c>];\n<c> = d <e>;\n<e> = (<c> | f);", (3, 8), "refers to itself"),
            ("public <a> = <a>;", (1, 14), "refers to itself"),
            ("public <a> = é] b;", (1, 15), "`;` is missing"),
            ("public a = b;", (1, 8), "`public` stands before"),
            ("import <x.y>;", (1, 1), "import"),
            ("turn on", (1, 1), "a rule starts here"),
            ("public <a> = \"b;", (1, 14), "the quotation is not closed"),
            ("public <NULL> = b;", (1, 8), "<NULL> has a meaning"),
        ] {
            let (at, reason) = parse(text).unwrap_err();
            assert!(at == place && reason.contains(part), "{text}: {at:?} {reason}");
        }
        let deep = format!("public <a> = {}b{};", "(".repeat(200), ")".repeat(200));
        assert!(parse(&deep).unwrap_err().1.contains("groups within groups"));
    }

    #[test]
    fn a_whole_file() {
        let text = "#JSGF V1.0 UTF-8 en;\ngrammar com.lights;\n<room> = kitchen {k} | \"living  room\";\n\
                    public <c> = [please] turn (on | off)+ <NULL> the /**/ light [in the <room>]* | /.1/ stop;";
        let rules = parse(text).unwrap();
        assert_eq!(rules.len(), 2);
        assert!(rules.iter().any(|r| r.scope == Scope::Public));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(public )?<a> = [ab<>()\\[\\]|*+/12;={}\"é\n]{0,40};?") {
            let _ = parse(&text);
            for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
                let _ = parse(&text[..end]);
            }
        }
    }
}
