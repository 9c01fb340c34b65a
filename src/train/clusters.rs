//! Running statistics of the clusters that adaptive routers read.

use crate::model::asr::AsrModel;
use crate::model::config::{ClusterStatistics, FeedForwardConfig};
use crate::model::feed_forward::FeedForward;
use crate::model::moe::clusters::Spread;
use crate::train::optimizer::Optimizer;

/// Moves the statistics of every layer that keeps them towards those of a batch; of a batch that is not finite nothing is taken.
pub fn follow(model: &AsrModel, optimizer: &mut Optimizer, spreads: &[(usize, Spread)]) {
    let encoder = &model.encoder;
    let FeedForwardConfig::Adaptive { statistics: ClusterStatistics::Running { momentum }, .. } = encoder.config().feed_forward else {
        return;
    };
    for (layer, spread) in spreads.iter().filter(|(_, spread)| spread.deviation.iter().all(|v| v.is_finite())) {
        let FeedForward::Experts(layer) = &encoder.blocks[*layer].feed_forward else { continue };
        if let Some(running) = layer.clusters.as_ref().and_then(|clusters| clusters.spread.as_ref()) {
            optimizer.adjust(running.id, |values| spread.follow(values, momentum));
        }
    }
}
