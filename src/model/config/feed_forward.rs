//! Kinds of feed-forward and router, as spelled in configuration files.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The kind of feed-forward. In a Conformer the experts replace the second feed-forward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FeedForwardConfig {
    /// One feed-forward for every step.
    Dense,
    /// Mixture of experts, top-1, each chosen expert scaled by its gate probability.
    Experts {
        /// Who owns routers: every layer (`switch`) or all layers of a group together (`omni`).
        router: RouterKind,
        /// Groups of layers and their experts, e.g. `16x4` or `4x2-4x4-4x8`; a group of 1 expert is dense.
        groups: ExpertGroups,
        /// A bias on router logits.
        router_bias: bool,
        /// Training: standard deviation of noise added to router logits.
        jitter: f64,
    },
    /// Experts behind an adaptive clustering router (AC router; Nielsen et al. 2025, arXiv:2502.15315), top-1 as in [`Self::Experts`]: from the
    /// second routed layer on, a router reads each feature scaled by how tight the step's cluster, its expert in the routed layer below, is in it.
    Adaptive {
        /// Who owns routers: every layer (`switch`, the paper) or all layers of a group together (`omni`, a combination of our own).
        router: RouterKind,
        /// Groups of layers and their experts; a group of 1 expert is dense.
        groups: ExpertGroups,
        /// Where the spread of the clusters comes from.
        statistics: ClusterStatistics,
    },
    /// sigma-MoE: several small experts per step, each scaled by the sigmoid of its logit (Csordás et al. 2023, arXiv:2310.10837).
    Sigma {
        /// Who owns routers: every layer (`switch`, the paper) or all layers of a group together (`omni`, a combination of our own).
        router: RouterKind,
        /// Groups of layers and their experts; a group of 1 expert is dense.
        groups: ExpertGroups,
        /// Experts per step; fewer than the experts of any group that has several.
        top_k: usize,
        /// Training: probability that an expert may not be chosen for a step; `top_k` experts always remain.
        expert_dropout: f64,
    },
    /// Product-key memory in some layers, dense in the others (Lample et al. 2019, arXiv:1907.05242).
    Memory {
        /// Layers (counted from 1) that have a memory.
        layers: Vec<usize>,
        /// Keys of each half; the memory has the square of this in rows.
        subkeys: usize,
        /// Width of a query; even.
        query: usize,
        /// Independent queries per step.
        heads: usize,
        /// Rows read by each query.
        top_k: usize,
        /// What weighs the rows that are read.
        weighting: MemoryWeighting,
    },
    /// Stratified experts: a step visits one to all strata, as it needs (Xu et al. 2023, arXiv:2305.02176). In every layer.
    Strata {
        /// Who owns the gates: every layer (`switch`, the paper) or all layers together (`omni`, a combination of our own).
        router: RouterKind,
        /// Experts of each stratum, lowest first.
        strata: Vec<usize>,
    },
}

/// Where an adaptive clustering router takes the spread of its clusters from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClusterStatistics {
    /// The whole utterance, each for itself.
    Utterance,
    /// Running means of training, stored with the model: for streams, too.
    Running {
        /// What one batch leaves of the old mean.
        momentum: f64,
    },
}

/// How the scores of memory rows become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryWeighting {
    /// Softmax over the rows read (arXiv:1907.05242).
    Softmax,
    /// `max(score, 0)` (arXiv:2310.10837).
    Relu,
}

impl FeedForwardConfig {
    /// Groups of experts, if it has experts.
    pub fn groups(&self) -> Option<&ExpertGroups> {
        match self {
            Self::Experts { groups, .. } | Self::Adaptive { groups, .. } | Self::Sigma { groups, .. } => Some(groups),
            Self::Dense | Self::Memory { .. } | Self::Strata { .. } => None,
        }
    }

    pub(super) fn validate(&self, n_layers: usize) -> Result<()> {
        let rule = |holds: bool, what: String| if holds { Ok(()) } else { Err(Error::config("encoder", what)) };
        if let Some(groups) = self.groups() {
            let layers: usize = groups.0.iter().map(|g| g.layers).sum();
            rule(layers == n_layers, format!("encoder.feed_forward.groups cover {layers} layers: must cover n_layers = {n_layers}"))?;
            rule(groups.0.iter().all(|g| g.experts <= 1024), "encoder.feed_forward.groups: at most 1024 experts".into())?;
        }
        match self {
            Self::Dense => {}
            Self::Experts { jitter, .. } => {
                rule(jitter.is_finite() && *jitter >= 0.0, format!("encoder.feed_forward.jitter = {jitter}: must be at least 0"))?;
            }
            Self::Adaptive { statistics, .. } => {
                if let ClusterStatistics::Running { momentum } = statistics {
                    rule(
                        (0.0..1.0).contains(momentum),
                        format!("encoder.feed_forward.statistics.momentum = {momentum}: must lie in 0..1"),
                    )?;
                }
            }
            Self::Sigma { groups, top_k, expert_dropout, .. } => {
                rule(
                    *top_k >= 1 && groups.0.iter().all(|g| g.experts == 1 || *top_k < g.experts),
                    format!("encoder.feed_forward.top_k = {top_k}: must be at least 1 and less than the experts of every group"),
                )?;
                rule(
                    (0.0..1.0).contains(expert_dropout),
                    format!("encoder.feed_forward.expert_dropout = {expert_dropout}: must lie in 0..1"),
                )?;
            }
            Self::Strata { strata, .. } => {
                rule(
                    (1..=16).contains(&strata.len()) && strata.iter().all(|n| (1..=1024).contains(n)),
                    format!("encoder.feed_forward.strata = {strata:?}: must be 1 to 16 strata of 1..=1024 experts"),
                )?;
            }
            Self::Memory { layers, subkeys, query, heads, top_k, .. } => {
                rule(
                    !layers.is_empty() && layers.is_sorted_by(|a, b| a < b) && layers.iter().all(|l| (1..=n_layers).contains(l)),
                    format!("encoder.feed_forward.layers = {layers:?}: must rise and lie in 1..={n_layers}"),
                )?;
                rule((1..=1024).contains(subkeys), format!("encoder.feed_forward.subkeys = {subkeys}: must lie in 1..=1024"))?;
                rule(
                    (2..=4096).contains(query) && query.is_multiple_of(2),
                    format!("encoder.feed_forward.query = {query}: must be even and lie in 2..=4096"),
                )?;
                rule((1..=64).contains(heads), format!("encoder.feed_forward.heads = {heads}: must lie in 1..=64"))?;
                rule(
                    (1..=*subkeys).contains(top_k),
                    format!("encoder.feed_forward.top_k = {top_k}: must lie in 1..=subkeys, which is {subkeys}"),
                )?;
            }
        }
        Ok(())
    }
}

/// Ownership of routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterKind {
    /// A router per layer (Fedus et al. 2021, arXiv:2101.03961).
    Switch,
    /// One router shared by all layers of a group (Gu et al. 2025, arXiv:2507.05724).
    Omni,
}

/// Consecutive layers and how many experts each of them has, written `layers x experts`, joined by `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExpertGroups(pub Vec<ExpertGroup>);

/// One group of [`ExpertGroups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertGroup {
    /// Number of consecutive layers.
    pub layers: usize,
    /// Experts in each of them.
    pub experts: usize,
}

impl ExpertGroups {
    /// Group index and experts of every layer.
    pub fn by_layer(&self) -> Vec<(usize, usize)> {
        self.0.iter().enumerate().flat_map(|(i, g)| std::iter::repeat_n((i, g.experts), g.layers)).collect()
    }
}

impl TryFrom<String> for ExpertGroups {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let group = |part: &str| {
            let (layers, experts) = part.split_once('x')?;
            let (layers, experts) = (layers.trim().parse().ok()?, experts.trim().parse().ok()?);
            (layers > 0 && experts > 0).then_some(ExpertGroup { layers, experts })
        };
        let groups: Option<Vec<_>> = text.split('-').map(group).collect();
        groups.map(Self).ok_or_else(|| format!("expert groups \"{text}\": want layers x experts joined by -, e.g. 4x2-4x4-4x8"))
    }
}

impl From<ExpertGroups> for String {
    fn from(groups: ExpertGroups) -> Self {
        groups.0.iter().map(|g| format!("{}x{}", g.layers, g.experts)).collect::<Vec<_>>().join("-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expert_groups_read_and_write() {
        let groups = ExpertGroups::try_from("4x2-4x4-4x8".to_string()).unwrap();
        assert_eq!(groups.by_layer()[3], (0, 2));
        assert_eq!(groups.by_layer()[4], (1, 4));
        assert_eq!(groups.by_layer().len(), 12);
        assert_eq!(String::from(groups), "4x2-4x4-4x8");
        for bad in ["", "4", "x4", "0x4", "4x0", "4x2-", "4x-2"] {
            assert!(ExpertGroups::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }
}
