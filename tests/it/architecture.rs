//! The shape of the source tree, read as text: who may import whom, where outside crates may be named, how long a file may be.

use std::path::Path;

/// All modules but the command line.
const EVERYTHING: &[&str] = &[
    "analyze",
    "compress",
    "offload",
    "train",
    "pipeline",
    "checkpoint",
    "dataset",
    "eval",
    "audio",
    "features",
    "model",
    "decode",
    "text",
    "kernel",
    "error",
    "units",
];

/// What each module of the crate may import, itself aside. Siblings without an arrow meet in `pipeline`.
const DIRECTIONS: [(&str, &[&str]); 20] = [
    ("error", &[]),
    ("units", &[]),
    ("kernel", &[]),
    ("audio", &["error", "units"]),
    ("features", &["audio", "error", "units"]),
    ("text", &["error", "units"]),
    ("decode", &["kernel", "error", "units"]),
    ("eval", &["pipeline", "checkpoint", "audio", "decode", "text", "error", "units"]),
    ("model", &["kernel", "error", "units"]),
    ("checkpoint", &["kernel", "model", "features", "text", "error", "units"]),
    ("pipeline", &["audio", "features", "model", "decode", "text", "checkpoint", "kernel", "error", "units"]),
    ("dataset", &["error", "units"]),
    ("train", &["pipeline", "checkpoint", "dataset", "eval", "audio", "features", "model", "decode", "text", "kernel", "error", "units"]),
    ("cli", EVERYTHING),
    ("compress", &["eval", "pipeline", "checkpoint", "audio", "kernel", "error", "units"]),
    ("offload", &["pipeline", "checkpoint", "audio", "features", "model", "kernel", "error", "units"]),
    (
        "analyze",
        &["compress", "eval", "pipeline", "checkpoint", "audio", "features", "model", "decode", "text", "kernel", "error", "units"],
    ),
    ("main", &["cli", "kernel"]),
    // Declares the modules and re-exports from them.
    ("lib", EVERYTHING),
    // Not there yet; listed so that it gets a place of its own and nobody imports it.
    ("server", &["pipeline", "checkpoint", "audio", "error", "units"]),
];

/// Names (of crates, or macros with their `!`) and the files and folders that may use them.
const PLACES: [(&[&str], &[&str]); 7] = [
    (
        &["burn", "burn_autodiff", "cubecl"],
        &[
            "model/",
            "checkpoint/",
            "train/",
            "offload/",
            "analyze/",
            "pipeline/batch.rs",
            "pipeline/pool.rs",
            "pipeline/transcriber.rs",
            "cli/device.rs",
        ],
    ),
    (&["clap", "anyhow", "indicatif", "console", "println!", "print!"], &["main.rs", "cli/"]),
    // Training reports while it runs, through one function.
    (&["eprintln!", "eprint!"], &["main.rs", "cli/", "train/batch.rs"]),
    (&["tokio", "axum"], &["server/"]),
    (&["cpal"], &["audio/mic.rs"]),
    // The only traffic of the library: models that are asked for.
    (&["rustls", "TcpStream"], &["checkpoint/hub/"]),
    (&["todo!", "unimplemented!", "dbg!"], &[]),
];

/// Lines of a file, its unit tests not counted.
const MOST_LINES: usize = 400;
/// Lines above an `unsafe` block within which its `SAFETY:` note stands.
const SAFETY_LINES: usize = 8;

/// Everything that `files` (path under `src/`, text) break, as `src/path:line: what`.
fn violations(files: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        let mut broken = |line: usize, what: String| found.push(format!("src/{path}:{line}: {what}"));
        if !text.starts_with("//!") {
            broken(1, "the file must start with //! and what it is".into());
        }
        let code = code_only(text);
        let own = &code[..start_of_tests(&code)];
        let lines = own.lines().count();
        if lines > MOST_LINES {
            broken(lines, format!("{lines} lines before the unit tests: at most {MOST_LINES}"));
        }
        let module = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        match DIRECTIONS.iter().find(|(name, _)| *name == module) {
            None => broken(1, format!("module `{module}` has no place in DIRECTIONS")),
            Some((_, allowed)) => {
                for (at, imported) in imports(own, path) {
                    if imported != module && !allowed.contains(&imported.as_str()) {
                        broken(line_of(own, at), format!("`{module}` may not import `{imported}`"));
                    }
                }
            }
        }
        for (names, places) in PLACES {
            for name in names.iter().filter(|_| !places.iter().any(|place| path.starts_with(place))) {
                let places = if places.is_empty() { "nowhere".to_string() } else { format!("only in {}", places.join(", ")) };
                identifiers(&code, name).for_each(|at| broken(line_of(&code, at), format!("`{name}` belongs {places}")));
            }
        }
        for at in identifiers(&code, "unsafe") {
            let line = line_of(&code, at);
            if !path.starts_with("kernel/") {
                broken(line, "`unsafe` belongs only in kernel/".into());
            } else if code[at..].trim_start_matches("unsafe").trim_start().starts_with('{') {
                let above = text.lines().take(line).skip(line.saturating_sub(SAFETY_LINES + 1));
                if !above.into_iter().any(|l| l.contains("// SAFETY")) {
                    broken(line, format!("an unsafe block without a SAFETY: note in the {SAFETY_LINES} lines above"));
                }
            }
        }
    }
    found
}

/// `text` with comments and the insides of string and character literals blanked, line breaks kept.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest).filter(|_| !word_before) {
            length
        } else if let Some(inside) = rest.strip_prefix('"') {
            let mut escaped = false;
            let end = inside.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with('\'') {
            character(rest).unwrap_or(0)
        } else {
            0
        };
        let (blank, end) = if length > 0 { (true, at + length) } else { (false, at + rest.chars().next().map_or(1, char::len_utf8)) };
        for c in text[at..end].chars() {
            out.push(if blank && c != '\n' || !c.is_ascii() { ' ' } else { c });
        }
        at = end;
    }
    out
}

/// Length of the raw string that `rest` starts with.
fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inside = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest.len() - inside.len() + inside.find(&end)? + end.len())
}

/// Length of the character literal that `rest` starts with; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inside = &rest[1..];
    if let Some(escaped) = inside.strip_prefix('\\') {
        let skipped = escaped.chars().next()?.len_utf8();
        return Some(2 + skipped + escaped[skipped..].find('\'')? + 1);
    }
    let one = inside.chars().next()?.len_utf8();
    inside[one..].starts_with('\'').then_some(1 + one + 1)
}

/// Where the module of unit tests starts.
fn start_of_tests(code: &str) -> usize {
    let attribute = "#[cfg(test)]";
    let inline = |at: &usize| {
        let next = code[at + attribute.len()..].trim_start().lines().next().unwrap_or_default();
        next.starts_with("mod ") && next.ends_with('{')
    };
    code.match_indices(attribute).map(|(at, _)| at).find(inline).unwrap_or(code.len())
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Places where `name` stands as a whole word; with a trailing `!`, as a macro call.
fn identifiers<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let whole = move |&(at, _): &(usize, &str)| {
        !part(code[..at].chars().next_back()) && (name.ends_with('!') || !part(code[at + name.len()..].chars().next()))
    };
    code.match_indices(name).filter(whole).map(|(at, _)| at)
}

/// Modules of the crate that `code` names by a path from the root, each with its place. A `super` chain that leaves its module counts
/// as `super`, which no module may import: such paths are written from `crate`.
fn imports(code: &str, path: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate", "omniscribe"] {
        for at in identifiers(code, root) {
            let Some(rest) = code[at + root.len()..].trim_start().strip_prefix("::") else { continue };
            found.extend(heads(rest).into_iter().map(|head| (at, head)));
        }
    }
    let depth = path.trim_end_matches("/mod.rs").split('/').count();
    let chain = vec!["super"; depth].join("::");
    found.extend(identifiers(code, &chain).map(|at| (at, "super".to_string())));
    found
}

/// First names of the path, or of the paths of the group, that `rest` starts with; names of types are what the root re-exports.
fn heads(rest: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.trim_start().strip_prefix('{') else { return vec![reexported(name(rest))] };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(reexported(name(&group[start..at])));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|head| !head.is_empty());
    found
}

fn reexported(name: String) -> String {
    if ["Error", "Result"].contains(&name.as_str()) { "error".into() } else { name }
}

fn source_tree() -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, files: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).expect("source folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                walk(&path, root, files);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
                files.push((name, std::fs::read_to_string(&path).expect("source file")));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &root, &mut files);
    files.sort();
    files
}

#[test]
fn the_tree_keeps_its_directions() {
    let files = source_tree();
    assert!(files.len() > 80, "{} files: is this the source tree?", files.len());
    let found = violations(&files);
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

/// A file with one violation, and what must be said of it.
fn planted() -> Vec<(&'static str, String, &'static str)> {
    let head = "//! A file.\n";
    let with = |line: &str| format!("{head}{line}\n");
    let long = "fn f() {}\n".repeat(MOST_LINES);
    let mut all: Vec<(&str, String, &str)> = [
        ("decode/x.rs", "use crate::text::Tokenizer;", "2: `decode` may not import `text`"),
        ("audio/x.rs", "fn f(_: &crate::features::LogMel) {}", "2: `audio` may not import `features`"),
        ("text/x.rs", "use crate::{error::{Error, Result}, decode::ctc};", "2: `text` may not import `decode`"),
        ("model/x.rs", "use crate::checkpoint;", "2: `model` may not import `checkpoint`"),
        ("kernel/x.rs", "use crate::Error;", "2: `kernel` may not import `error`"),
        ("dataset/x.rs", "use crate::train::RunConfig;", "2: `dataset` may not import `train`"),
        ("train/x.rs", "use crate::cli::Cli;", "2: `train` may not import `cli`"),
        ("cli/x.rs", "use crate::Transcriber;", "2: `cli` may not import `Transcriber`"),
        ("features/x.rs", "use super::super::model::asr;", "2: `features` may not import `super`"),
        ("main.rs", "use omniscribe::train;", "2: `main` may not import `train`"),
        ("units.rs", "use crate::error::Result;", "2: `units` may not import `error`"),
        ("gui/x.rs", "fn f() {}", "1: module `gui` has no place"),
        ("decode/x.rs", "use burn::tensor::Tensor;", "2: `burn` belongs only in"),
        ("pipeline/x.rs", "type T = burn::tensor::Tensor<2>;", "2: `burn` belongs only in"),
        ("cli/x.rs", "use burn;", "2: `burn` belongs only in"),
        ("train/x.rs", "fn f() -> anyhow::Result<()> { Ok(()) }", "2: `anyhow` belongs only in"),
        ("pipeline/x.rs", "fn f() { println!(\"{}\", 1); }", "2: `println!` belongs only in"),
        ("train/x.rs", "fn f() { eprintln!(\"x\"); }", "2: `eprintln!` belongs only in"),
        ("pipeline/x.rs", "use axum::Router;", "2: `axum` belongs only in"),
        ("audio/x.rs", "use cpal::Host;", "2: `cpal` belongs only in"),
        ("text/x.rs", "fn f() { todo!() }", "2: `todo!` belongs nowhere"),
        ("text/x.rs", "fn f() { unsafe { g() } }", "2: `unsafe` belongs only in"),
        ("model/x.rs", "const fn f(_: char) { f('\"'); f('\\'') } unsafe fn g() {}", "2: `unsafe` belongs only in"),
        ("kernel/x.rs", "fn f() { unsafe { g() } }", "2: an unsafe block without"),
    ]
    .map(|(path, line, says)| (path, with(line), says))
    .into();
    all.push(("text/x.rs", "use std::fmt;\n".into(), "1: the file must start with //!"));
    all.push(("text/x.rs", format!("{head}{long}"), "401: 401 lines"));
    all
}

#[test]
fn every_planted_violation_is_found() {
    for (path, text, says) in planted() {
        let found = violations(&[(path.into(), text)]);
        assert!(found.len() == 1 && found[0].starts_with(&format!("src/{path}:{says}")), "{path}, {says:?}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    let tests =
        format!("//! A file.\nfn f() {{}}\n#[cfg(test)]\nmod tests {{\n    use crate::decode::ctc;\n{}}}\n", "// x\n".repeat(MOST_LINES));
    for (path, text) in [
        ("text/x.rs", tests.as_str()),
        (
            "text/x.rs",
            "//! See crate::decode and burn::tensor; todo!().\n/* unsafe */ const S: &str = \"crate::model println! \\\" unsafe\";\n",
        ),
        ("text/x.rs", "//! Raw.\nconst S: &str = r#\"unsafe \"crate::model\" \"#;\nfn f<'a>(_: &'a str) -> char { 'x' }\n"),
        ("features/x.rs", "//! A file.\nuse super::mel::Mel;\nuse crate::audio::Waveform;\nuse crate::{Error, Result};\n"),
        ("audio/x.rs", "//! A file.\nuse super::Waveform;\nfn burning() {}\n"),
        ("kernel/x.rs", "//! A file.\nfn f() {\n    // SAFETY: nothing.\n    unsafe { g() }\n}\n"),
        ("main.rs", "//! A file.\nuse omniscribe::cli::run;\nfn f() { println!(); }\n"),
    ] {
        let found = violations(&[(path.into(), text.into())]);
        assert!(found.is_empty(), "{path}: {found:?}");
    }
}
