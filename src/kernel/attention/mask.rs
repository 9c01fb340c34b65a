//! Attention masks: which keys a query sees.

use std::ops::Range;

/// Which keys a query sees, besides the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttentionMask {
    /// All of them.
    Full,
    /// Those at most `left` steps before and `right` steps after it.
    Window {
        /// Steps before the query.
        left: usize,
        /// Steps after the query.
        right: usize,
    },
    /// Those of its own chunk of `chunk` steps and of the `left_chunks` chunks before.
    Chunked {
        /// Steps per chunk, at least 1.
        chunk: usize,
        /// Chunks before the query's own.
        left_chunks: usize,
    },
}

impl AttentionMask {
    /// The keys that `query` sees among the first `length`; both ends grow with the query, which always sees itself.
    pub fn keys(self, query: usize, length: usize) -> Range<usize> {
        match self {
            Self::Full => 0..length,
            Self::Window { left, right } => query.saturating_sub(left)..query.saturating_add(right).saturating_add(1).min(length),
            Self::Chunked { chunk, left_chunks } => {
                let own = query / chunk;
                own.saturating_sub(left_chunks) * chunk..((own + 1) * chunk).min(length)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_show_the_keys_they_name() {
        let window = AttentionMask::Window { left: 2, right: 1 };
        assert_eq!((window.keys(0, 9), window.keys(5, 9), window.keys(8, 9)), (0..2, 3..7, 6..9));
        let chunked = AttentionMask::Chunked { chunk: 4, left_chunks: 1 };
        assert_eq!((chunked.keys(3, 10), chunked.keys(4, 10), chunked.keys(9, 10)), (0..4, 0..8, 4..10));
        assert_eq!(AttentionMask::Window { left: 0, right: usize::MAX }.keys(3, 10), 3..10);
    }
}
