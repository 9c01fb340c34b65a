//! Global mapping files (GLM) of NIST's evaluations: spellings, contractions, fillers and compounds brought to one form, applied as
//! `csrfilt -dh` applies them, so that Hub5 and AMI are scored as published.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Largest file to read: a hundred times the largest of NIST's.
const MAX_BYTES: u64 = 16 << 20;

/// Files that come with the program, with their names.
const BUILT_IN: [(&str, &str); 2] =
    [("en20030506", include_str!("glm/en20030506.glm")), ("en20090415", include_str!("glm/en20090415.glm"))];

/// Whose text it is: some rules are for one side only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What was said.
    Reference,
    /// What was heard.
    Hypothesis,
}

/// What becomes of `%HESITATION`, to which the files map `uh`, `um` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hesitations {
    /// Scored as the file has it, as NIST does.
    #[default]
    Keep,
    /// Taken out of both sides.
    Remove,
}

/// The rules of one file.
#[derive(Debug, Clone)]
pub struct Glm {
    name: String,
    sha256: String,
    case: Case,
    unmatched: Unmatched,
    rules: Vec<Rule>,
    /// Rules by the first two bytes of what they replace, or by its only byte.
    by_start: HashMap<[Option<u8>; 2], Vec<usize>>,
    /// What becomes of hesitations.
    pub hesitations: Hesitations,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Matters,
    Ignored,
}

/// What becomes of text that no rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unmatched {
    Copied,
    Dropped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    from: String,
    to: String,
    before: String,
    after: String,
    /// Only for this side.
    side: Option<Side>,
}

impl Glm {
    /// Names of the files that come with the program: NIST's for the 2003 telephone evaluations (`en20030506`, for Hub5) and for the 2009
    /// meeting evaluations (`en20090415`, for AMI).
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Reads a file, or one of [`Glm::built_in`] by its name.
    ///
    /// # Errors
    /// - [`Error::Io`]
    /// - [`Error::LimitExceeded`]: of more than 16 MiB
    /// - [`Error::Manifest`]: a line that is no rule
    pub fn read(path: &Path) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(name, _)| path.as_os_str() == *name) {
            return Self::parse(path, text.as_bytes());
        }
        let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        if bytes > MAX_BYTES {
            return Err(Error::LimitExceeded { what: format!("{}: bytes", path.display()), limit: MAX_BYTES, got: bytes });
        }
        Self::parse(path, &std::fs::read(path).map_err(|e| Error::io(path, e))?)
    }

    /// Reads rules `from => to / before __ after` in UTF-8 or Latin-1; `path` names them in errors.
    ///
    /// # Errors
    /// [`Error::Manifest`]: a line that is no rule
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|&byte| char::from(byte)).collect(), String::from);
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let sha256: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        let mut glm = Self {
            name,
            sha256,
            case: Case::Matters,
            unmatched: Unmatched::Copied,
            rules: vec![],
            by_start: HashMap::new(),
            hesitations: Hesitations::Keep,
        };
        // The first line tells what starts a comment.
        let comment = text.split_whitespace().next().filter(|flag| !flag.contains(char::is_alphanumeric)).unwrap_or(";;");
        let mut section = Section::BothSides;
        for (at, line) in text.lines().enumerate() {
            if let Some(sides) = line.strip_prefix(";;").and_then(input_dependent) {
                section = sides;
            }
            let line = line.split(comment).next().unwrap_or_default().trim_end();
            let side = match section {
                Section::BothSides => None,
                Section::One(side) => Some(side),
                Section::Neither => continue,
            };
            if let Some(setting) = line.strip_prefix('*') {
                glm.set(setting);
            } else if !line.trim().is_empty() {
                let rule = Rule::parse(line, side);
                let reason = || format!("want `from => to / before __ after`, got {line:?}");
                glm.add(rule.ok_or_else(|| Error::Manifest { path: path.into(), line: at + 1, reason: reason() })?);
            }
        }
        Ok(glm)
    }

    /// Name stored beside every score: the file's, the start of its SHA-256, and what becomes of hesitations if not what NIST does.
    pub fn id(&self) -> String {
        let hesitations = if self.hesitations == Hesitations::Remove { "+no-hesitations" } else { "" };
        format!("{}#{}{hesitations}", self.name, &self.sha256[..8])
    }

    fn set(&mut self, setting: &str) {
        let Some((_, value)) = setting.split_once(['"', '\'']) else { return };
        let no = matches!(value.trim_end_matches(['"', '\'']).to_ascii_uppercase().as_str(), "F" | "NO" | "FALSE");
        match setting
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .find(|word| !word.is_empty())
            .map(str::to_ascii_uppercase)
            .as_deref()
        {
            Some("CASE_SENSITIVE") => self.case = if no { Case::Ignored } else { Case::Matters },
            Some("COPY_NO_HIT") => self.unmatched = if no { Unmatched::Dropped } else { Unmatched::Copied },
            _ => {}
        }
    }

    fn add(&mut self, rule: Rule) {
        let byte = |i: usize| rule.from.as_bytes().get(i).map(u8::to_ascii_uppercase);
        self.by_start.entry([byte(0), byte(1)]).or_default().push(self.rules.len());
        self.rules.push(rule);
    }

    /// `text` in upper case (a to z only) after the rules, hyphens inside words made spaces, in sclite's markup.
    ///
    /// A hypothesis's own braces, parentheses and `@` are dropped: what a recogniser writes must not earn it alternatives. So are
    /// parentheses of a reference that do not match.
    pub fn apply(&self, text: &str, side: Side) -> String {
        let mut padded = String::with_capacity(text.len() + 16);
        padded.push(' ');
        for word in text.split_whitespace() {
            for c in word.chars() {
                match (c, side) {
                    ('(' | ')' | '{' | '}' | '@', Side::Hypothesis) => {}
                    ('(', _) => padded.push_str("( "),
                    (')', _) => padded.push_str(" )"),
                    _ => padded.push(c.to_ascii_uppercase()),
                }
            }
            padded.push(' ');
        }
        let mapped = split_hyphens(&self.map(&padded, side)).to_ascii_uppercase();
        let mut out = String::with_capacity(mapped.len());
        for word in optional_words(&mapped) {
            if self.hesitations == Hesitations::Remove && word.trim_matches(['(', ')']) == "%HESITATION" {
                continue;
            }
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(&word);
        }
        out
    }

    /// Goes over the text once; at each place the first rule that fits is applied, and what it took is not looked at again.
    fn map(&self, text: &str, side: Side) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            let byte = |i: usize| text.as_bytes().get(at + i).map(u8::to_ascii_uppercase);
            let fits = |start: [Option<u8>; 2]| {
                let candidates = self.by_start.get(&start).map_or(&[][..], Vec::as_slice);
                candidates.iter().copied().find(|&rule| self.fits(&self.rules[rule], text, at, side))
            };
            let first = [fits([byte(0), byte(1)]), fits([byte(0), None])].into_iter().flatten().min();
            match first {
                Some(rule) => {
                    out.push_str(&self.rules[rule].to);
                    at += self.rules[rule].from.len();
                }
                None => {
                    if self.unmatched == Unmatched::Copied {
                        out.push(c);
                    }
                    at += c.len_utf8();
                }
            }
        }
        out
    }

    fn fits(&self, rule: &Rule, text: &str, at: usize, side: Side) -> bool {
        let equal = |found: Option<&[u8]>, wanted: &str| {
            found.is_some_and(|found| match self.case {
                Case::Matters => found == wanted.as_bytes(),
                Case::Ignored => found.eq_ignore_ascii_case(wanted.as_bytes()),
            })
        };
        let text = text.as_bytes();
        let end = at + rule.from.len();
        rule.side.is_none_or(|only| only == side)
            && equal(at.checked_sub(rule.before.len()).map(|start| &text[start..at]), &rule.before)
            && equal(text.get(at..end), &rule.from)
            && equal(text.get(end..end + rule.after.len()), &rule.after)
    }
}

/// Which sides the lines of a section are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    BothSides,
    One(Side),
    Neither,
}

/// Reads ` INPUT_DEPENDENT_APPLICATION = "ctm"`: an expression for the kinds of input, of which `stm` and `ref` are references and `ctm` and
/// `hyp` hypotheses here. Alternatives with `|` are all it may have of regular expressions.
fn input_dependent(comment: &str) -> Option<Section> {
    let value = comment.trim_start().strip_prefix("INPUT_DEPENDENT_APPLICATION")?.trim_start().strip_prefix('=')?;
    let wanted = value.trim_start().strip_prefix('"')?.split_once('"')?.0.to_ascii_lowercase();
    let is_for =
        |kinds: [&str; 2]| wanted.split('|').any(|one| kinds.iter().any(|kind| kind.contains(one.trim_matches(['^', '$', '(', ')', ' ']))));
    Some(match (is_for(["stm", "ref"]), is_for(["ctm", "hyp"])) {
        (true, true) => Section::BothSides,
        (true, false) => Section::One(Side::Reference),
        (false, true) => Section::One(Side::Hypothesis),
        (false, false) => Section::Neither,
    })
}

impl Rule {
    fn parse(line: &str, side: Option<Side>) -> Option<Self> {
        let (from, rest) = line.split_once("=>")?;
        // The context stands behind the last slash that has a slot behind it; slashes inside brackets belong to alternatives.
        let slash = rest.rfind('/').filter(|&at| rest[at..].contains('_') && !inside_brackets(&rest[at..]));
        let (to, context) = slash.map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 1..])));
        let (before, after) = context.and_then(|c| c.split_once('_')).unwrap_or_default();
        let [from, to, before, after] = [from, to, before, after.trim_start_matches('_')].map(|part| unbound(part.trim()).to_string());
        (!from.is_empty()).then_some(Self { from, to, before, after, side })
    }
}

/// Whether a closing bracket comes before any opening one.
fn inside_brackets(text: &str) -> bool {
    text.find(']').is_some_and(|close| text.find('[').is_none_or(|open| close < open))
}

/// What is inside `[...]` or `"..."`, with its outer spaces. A closing bracket that is missing, as NIST's own files have it once, is read as
/// there.
fn unbound(text: &str) -> &str {
    match text.strip_prefix('[') {
        Some(rest) if !rest.is_empty() => rest.strip_suffix(']').unwrap_or(rest),
        _ => text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text),
    }
}

/// A hyphen between two characters of a word becomes a space; of `a--b` only the first. Parentheses do not count as characters of a word.
fn split_hyphens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.push(c);
        let mut ahead = rest.clone();
        if !matches!(c, '(' | ' ') && ahead.next() == Some('-') && ahead.clone().next().is_some_and(|next| !matches!(next, ')' | ' ')) {
            out.push(' ');
            rest = ahead;
        }
    }
    out
}

/// Words between white space; those between a pair of parentheses in parentheses one by one. Other parentheses are dropped.
fn optional_words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![];
    // Number of words before the last open parenthesis.
    let mut open = None;
    for token in text.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
        match token {
            "(" => open = Some(words.len()),
            ")" => {
                if let Some(first) = open.take() {
                    words[first..].iter_mut().for_each(|word| *word = format!("({word})"));
                }
            }
            _ => words.push(token.into()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glm(text: &str) -> Glm {
        Glm::parse("test.glm".as_ref(), text.as_bytes()).unwrap()
    }

    #[test]
    fn rules_apply_as_nist_says() {
        let glm = glm(";; a comment\n\
            * name 'x'\n\
            * case_sensitive = 'F'\n\
            UH-HUH => %BCACK / [ ] __ [ ] ;; token\n\
            uh => (%HESITATION) / [ ] __ [ ]\n\
            'CAUSE => BECAUSE\n\
            [going to ] => [gonna ]\n\
            [webster's] => [{webster's / webster is}\n\
            BINYAMIN => BENJAMIN / __ [ NETANYAHU]\n\
            ADVISER => ADVISOR / [ ] __\n\
            ZZ =>\n\
            ZED => (-ed)\n\
            ;; INPUT_DEPENDENT_APPLICATION = \"ctm\"\n\
            [he's] => [{he is / he has}] / [ ] __ [ ]\n\
            ;; INPUT_DEPENDENT_APPLICATION = \"stm|ref\"\n\
            said => spoke / [ ] __ [ ]\n\
            ;; INPUT_DEPENDENT_APPLICATION = \"rttm\"\n\
            never => ever\n");
        for (text, reference, hypothesis) in [
            ("uh-huh Uh uhs", "%BCACK (%HESITATION) UHS", "%BCACK (%HESITATION) UHS"),
            ("just 'cause", "JUST BECAUSE", "JUST BECAUSE"),
            ("going to go", "GONNA GO", "GONNA GO"),
            ("Binyamin Netanyahu binyamin", "BENJAMIN NETANYAHU BINYAMIN", "BENJAMIN NETANYAHU BINYAMIN"),
            ("advisers misadviser", "ADVISORS MISADVISER", "ADVISORS MISADVISER"),
            ("he's said never", "HE'S SPOKE NEVER", "{HE IS / HE HAS} SAID NEVER"),
            ("uh uh uh", "(%HESITATION) (%HESITATION) (%HESITATION)", "(%HESITATION) (%HESITATION) (%HESITATION)"),
            ("xzzy", "XY", "XY"),
            ("zed", "(-ED)", "(-ED)"),
            ("Webster's", "{WEBSTER'S / WEBSTER IS}", "{WEBSTER'S / WEBSTER IS}"),
            ("well-known th- -ing a--b", "WELL KNOWN TH- -ING A -B", "WELL KNOWN TH- -ING A -B"),
            ("(a b) c", "(A) (B) C", "A B C"),
            ("(a b", "A B", "A B"),
            ("a) b { c / @ }", "A B { C / @ }", "A B C /"),
            ("", "", ""),
        ] {
            assert_eq!(glm.apply(text, Side::Reference), reference, "{text}");
            assert_eq!(glm.apply(text, Side::Hypothesis), hypothesis, "{text}");
        }
    }

    #[test]
    fn hesitations_can_be_taken_out() {
        let mut glm = Glm::read("en20030506".as_ref()).unwrap();
        assert_eq!(glm.apply("uh, well um yes", Side::Reference), "UH, WELL %HESITATION YES");
        let id = glm.id();
        glm.hesitations = Hesitations::Remove;
        assert_eq!(glm.apply("(%hesitation) well um yes", Side::Reference), "WELL YES");
        assert!(id.starts_with("en20030506#") && id.len() == 19 && glm.id() == id + "+no-hesitations");
    }

    #[test]
    fn files_are_read_by_name_and_path() {
        let rules: Vec<usize> = Glm::built_in().map(|name| Glm::read(name.as_ref()).unwrap().rules.len()).collect();
        assert_eq!(rules, [1612, 1741]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.glm");
        std::fs::write(&path, b"# x\nCaf\xe9 => CAFE\n").unwrap();
        assert_eq!(Glm::read(&path).unwrap().apply("caf\u{e9}", Side::Reference), "CAF\u{e9}", "case matters by default");
        std::fs::write(&path, b"# x\n* case_sensitive = 'no'\nCAF\xe9 => CAFE\n").unwrap();
        assert_eq!(Glm::read(&path).unwrap().apply("caf\u{e9}", Side::Reference), "CAFE");
        std::fs::write(&path, ";; x\nA => B\n\nA B\n").unwrap();
        let error = Glm::read(&path).unwrap_err();
        assert!(matches!(error, Error::Manifest { line: 4, .. }), "{error}");
        assert!(matches!(Glm::read(&folder.path().join("none.glm")), Err(Error::Io { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_rules_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,60}") {
            if let Ok(glm) = Glm::parse("x".as_ref(), &bytes) {
                glm.apply(&text, Side::Reference);
            }
        }

        #[test]
        fn any_rules_apply_to_any_text(rules in "([ab é\\[\\]_/'\"]{0,6}=>[ab é\\[\\]_/{}]{0,12}\n){0,6}", text in "[abé ()'{}/-]{0,40}") {
            if let Ok(glm) = Glm::parse("x".as_ref(), format!(";; x\n* case_sensitive = 'F'\n{rules}").as_bytes()) {
                glm.apply(&text, Side::Reference);
                let hypothesis = glm.apply(&text, Side::Hypothesis);
                prop_assert!(hypothesis.len() <= 40 + 40 * 14 * 2);
            }
        }
    }
}
