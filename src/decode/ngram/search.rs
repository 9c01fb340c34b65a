//! Backoff scoring over any structure that finds n-grams from the last word to the first.

use super::{LONGEST_CONTEXT, State, WordId};

/// An n-gram below the highest order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// log10 of the probability of the last word after the others.
    pub(super) prob: f32,
    /// log10 of the backoff weight; minus zero if no longer n-gram starts with this one.
    pub(super) backoff: f32,
    /// Whether some longer n-gram ends in this one.
    pub(super) extends_left: bool,
}

/// Finds n-grams from the last word to the first: a node stands for the words found so far.
pub(super) trait Search {
    type Node;

    /// The unigram of a word; one that is out of range counts as `<unk>`.
    fn unigram(&self, word: WordId) -> (Entry, Self::Node);

    /// The n-gram of order `below + 2` with `word` to the left of the node, which moves there.
    fn middle(&self, below: usize, node: &mut Self::Node, word: WordId) -> Option<Entry>;

    /// log10 probability of the n-gram of the highest order with `word` to the left of the node.
    fn longest(&self, node: &Self::Node, word: WordId) -> Option<f32>;
}

/// Whether a longer n-gram starts with one of this backoff.
fn continues(backoff: f32) -> bool {
    backoff.to_bits() != (-0.0f32).to_bits()
}

/// log10 p(word | state) and the state after it: the longest suffix of the words that any n-gram starts with, so that two hypotheses with
/// equal states have equal futures (Heafield 2011, section 4.1).
pub(super) fn score<S: Search>(search: &S, order: usize, state: &State, word: WordId) -> (f32, State) {
    let (unigram, mut node) = search.unigram(word);
    let mut next = State::EMPTY;
    next.words[0] = word;
    next.backoffs[0] = unigram.backoff;
    next.length = u8::from(continues(unigram.backoff) && order > 1);
    let (mut prob, mut extends_left) = (unigram.prob, unigram.extends_left);
    let context = usize::from(state.length);
    let mut matched = 1;
    for i in 0..context {
        if !extends_left {
            break;
        }
        if i + 2 == order {
            if let Some(longest) = search.longest(&node, state.words[i]) {
                prob = longest;
                matched = order;
            }
            break;
        }
        let Some(entry) = search.middle(i, &mut node, state.words[i]) else { break };
        prob = entry.prob;
        matched = i + 2;
        extends_left = entry.extends_left;
        next.backoffs[i + 1] = entry.backoff;
        if continues(entry.backoff) {
            next.length = matched as u8;
        }
    }
    let kept = usize::from(next.length).min(LONGEST_CONTEXT);
    if kept > 1 {
        next.words[1..kept].copy_from_slice(&state.words[..kept - 1]);
    }
    for &backoff in state.backoffs.get(matched - 1..context).unwrap_or_default() {
        prob += backoff;
    }
    (prob, next)
}
