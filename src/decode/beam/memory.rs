//! The prefixes and paths that the hypotheses of a search consist of, shared and collected when no hypothesis needs them.
//!
//! Both are trees in an array whose entries point at their parents, which stand before them.

use crate::decode::fusion::{Context, WordEnd};

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// A sequence of tokens: its parent's and one more.
#[derive(Debug, Clone)]
pub(super) struct Prefix {
    pub(super) parent: u32,
    pub(super) token: u32,
    /// Number of tokens.
    pub(super) depth: u32,
    /// The hypothesis that ends here.
    pub(super) beam: u32,
    first_child: u32,
    sibling: u32,
    /// What the text is worth.
    pub(super) context: Context,
    /// What the end of its last word adds, once that was asked for.
    pub(super) word_end: Option<Option<WordEnd>>,
}

/// All prefixes that are hypotheses, or on the way to one. The first is that of all others.
#[derive(Debug, Clone)]
pub(super) struct Prefixes {
    entries: Vec<Prefix>,
}

impl Prefixes {
    pub(super) fn new(context: Context) -> Self {
        let mut prefixes = Self { entries: Vec::new() };
        prefixes.push(NONE, NONE, 0, context);
        prefixes
    }

    fn push(&mut self, parent: u32, token: u32, depth: u32, context: Context) -> u32 {
        self.entries.push(Prefix { parent, token, depth, beam: NONE, first_child: NONE, sibling: NONE, context, word_end: None });
        self.entries.len() as u32 - 1
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, prefix: u32) -> &Prefix {
        &self.entries[prefix as usize]
    }

    pub(super) fn get_mut(&mut self, prefix: u32) -> &mut Prefix {
        &mut self.entries[prefix as usize]
    }

    /// The prefix with `token` after `parent`, if it is known.
    pub(super) fn child(&self, parent: u32, token: u32) -> Option<u32> {
        let mut child = self.get(parent).first_child;
        while child != NONE && self.get(child).token != token {
            child = self.get(child).sibling;
        }
        (child != NONE).then_some(child)
    }

    /// A new prefix: `token` after `parent`.
    pub(super) fn add(&mut self, parent: u32, token: u32, context: Context) -> u32 {
        let child = self.push(parent, token, self.get(parent).depth + 1, context);
        self.link(child, parent);
        child
    }

    fn link(&mut self, child: u32, parent: u32) {
        self.entries[child as usize].sibling = self.get(parent).first_child;
        self.entries[parent as usize].first_child = child;
    }

    /// The first `depth` tokens of a prefix; `None` if it is shorter, or if that many are common to all.
    pub(super) fn ancestor(&self, mut prefix: u32, depth: u32) -> Option<u32> {
        while prefix != NONE && self.get(prefix).depth > depth {
            prefix = self.get(prefix).parent;
        }
        (prefix != NONE && self.get(prefix).depth == depth).then_some(prefix)
    }

    /// Keeps what leads to a hypothesis, from the last prefix that all have in common. Returns the new number of each prefix.
    pub(super) fn collect(&mut self) -> Vec<u32> {
        let mut children = vec![0u32; self.len()];
        for (at, entry) in self.entries.iter().enumerate().rev() {
            if entry.parent != NONE && (entry.beam != NONE || children[at] > 0) {
                children[entry.parent as usize] += 1;
            }
        }
        let mut map = vec![NONE; self.len()];
        let mut kept = 0;
        let old = std::mem::take(&mut self.entries);
        for (at, mut entry) in old.into_iter().enumerate() {
            let first = kept == 0;
            let needed = if first { entry.beam != NONE || children[at] > 1 } else { entry.beam != NONE || children[at] > 0 };
            if needed {
                entry.parent = if first { NONE } else { map[entry.parent as usize] };
                (entry.first_child, entry.sibling) = (NONE, NONE);
                let parent = entry.parent;
                self.entries.push(entry);
                if parent != NONE {
                    self.link(kept, parent);
                }
                map[at] = kept;
                kept += 1;
            }
        }
        map
    }
}

/// A token of a path: the last of the path before and one more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    parent: u32,
    pub(super) token: u32,
    /// Number of tokens of the path.
    pub(super) depth: u32,
    /// Step at which the token is most probable within its run.
    pub(super) step: usize,
    /// Log-probability of the token at that step.
    pub(super) log_prob: f32,
}

/// The paths of all hypotheses, without what is common to all of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    entries: Vec<Moment>,
    /// The tokens common to all paths.
    pub(super) certain: Vec<Moment>,
}

impl Moments {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.certain.clear();
    }

    /// The path with one more token.
    pub(super) fn add(&mut self, parent: u32, token: u32, step: usize, log_prob: f32) -> u32 {
        let depth = self.depth(parent) + 1;
        self.entries.push(Moment { parent, token, depth, step, log_prob });
        self.entries.len() as u32 - 1
    }

    /// The path with its last token at `step` if that is more probable.
    pub(super) fn improved(&mut self, moment: u32, step: usize, log_prob: f32) -> u32 {
        match self.entries.get(moment as usize) {
            Some(&known) if log_prob > known.log_prob => {
                self.entries.push(Moment { step, log_prob, ..known });
                self.entries.len() as u32 - 1
            }
            _ => moment,
        }
    }

    pub(super) fn depth(&self, moment: u32) -> u32 {
        self.entries.get(moment as usize).map_or(self.certain.len() as u32, |m| m.depth)
    }

    /// The path's tokens after the certain ones, the last one first.
    pub(super) fn path(&self, moment: u32) -> impl Iterator<Item = (u32, &Moment)> {
        let entry = move |at: u32| self.entries.get(at as usize).map(|m| (at, m));
        std::iter::successors(entry(moment), move |(_, m)| entry(m.parent))
    }

    /// Makes the path that ends with `anchor` certain, for all paths: they have the same tokens so far, at other steps perhaps.
    pub(super) fn settle<'a>(&mut self, anchor: u32, ends: impl Iterator<Item = &'a mut u32>) {
        let mut settled: Vec<Moment> = self.path(anchor).map(|(_, m)| *m).collect();
        self.certain.extend(settled.drain(..).rev());
        let depth = self.certain.len() as u32;
        self.entries.iter_mut().filter(|m| m.depth == depth + 1).for_each(|m| m.parent = NONE);
        for end in ends {
            if self.entries.get(*end as usize).is_some_and(|m| m.depth <= depth) {
                *end = NONE;
            }
        }
    }

    /// Keeps what leads to `ends`, the last moments of all paths, and renumbers those; tokens that all have in common become certain.
    pub(super) fn collect<'a>(&mut self, ends: impl Iterator<Item = &'a mut u32>) {
        let mut ends: Vec<&mut u32> = ends.collect();
        let mut is_end = vec![false; self.len()];
        // Children that are needed, and the last one of them.
        let mut children = vec![(0u32, NONE); self.len()];
        let mut first = (0u32, NONE);
        for end in &ends {
            match is_end.get_mut(**end as usize) {
                Some(is_end) => *is_end = true,
                // This path has no token of its own yet.
                None => first.0 += 2,
            }
        }
        for (at, entry) in self.entries.iter().enumerate().rev() {
            if is_end[at] || children[at].0 > 0 {
                let siblings = children.get_mut(entry.parent as usize).unwrap_or(&mut first);
                *siblings = (siblings.0 + 1, at as u32);
            }
        }
        let mut map = vec![NONE; self.len()];
        while let (1, only) = first
            && !is_end[only as usize]
        {
            self.certain.push(self.entries[only as usize]);
            first = children[only as usize];
            children[only as usize].0 = 0;
        }
        let mut kept = 0;
        for at in 0..self.len() {
            if is_end[at] || children[at].0 > 0 {
                let entry = self.entries[at];
                self.entries[kept as usize] = Moment { parent: map.get(entry.parent as usize).copied().unwrap_or(NONE), ..entry };
                map[at] = kept;
                kept += 1;
            }
        }
        self.entries.truncate(kept as usize);
        for end in &mut ends {
            **end = map.get(**end as usize).copied().unwrap_or(NONE);
        }
    }
}
