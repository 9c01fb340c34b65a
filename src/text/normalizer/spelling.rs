//! British spelling to American.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::text::characters::is_space;

/// Word table as published with openai-whisper 20250625 (MIT); `#` starts a comment line.
static TABLE: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let lines = include_str!("spelling.tsv").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('\t')).collect()
});

/// Words of `text` joined by single spaces, each in its American spelling.
pub(super) fn americanize(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(TABLE.get(word).copied().unwrap_or(word));
    }
    out
}
