//! Batches of similar length under a frame budget, in an order that depends on (seed, epoch) alone.

use serde::{Deserialize, Serialize};

use super::augment::speed::{SpeedConfig, SpeedKind};
use super::refuse;
use super::rng::{Purpose, Rng, RowKey};
use crate::error::{Error, Result};

/// How utterances are put into batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BucketConfig {
    /// Most padded frames (rows times padded length) of a batch; a longer utterance is a batch of its own.
    pub frames_per_batch: usize,
    /// Padded lengths are multiples of this many frames: fewer shapes for kernels to prepare.
    pub pad_frames: usize,
    /// Most rows of a batch.
    pub max_rows: usize,
    /// In the first epochs, this many, batches come short to long.
    pub curriculum_epochs: u64,
}

impl Default for BucketConfig {
    fn default() -> Self {
        Self { frames_per_batch: 6000, pad_frames: 100, max_rows: 64, curriculum_epochs: 0 }
    }
}

impl BucketConfig {
    /// Refuses zero sizes and padding beyond the budget.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        if self.pad_frames == 0 || self.pad_frames > self.frames_per_batch {
            return Err(refuse("pad_frames", self.pad_frames, "must be from 1 to frames_per_batch"));
        }
        if self.max_rows == 0 {
            return Err(refuse("max_rows", self.max_rows, "must be at least 1"));
        }
        Ok(())
    }
}

/// What the planner must know of an utterance; its index is the utterance's index in the corpus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// Samples at 16 kHz.
    pub samples: usize,
    /// Steps CTC needs: [`ctc_steps`] of the tokens.
    pub min_steps: usize,
    /// Copies per epoch, on average.
    pub weight: f64,
    /// A batch holds items of one group.
    pub group: usize,
}

/// Fewest steps in which CTC can emit `tokens`: one each, and a blank between equal neighbours.
pub fn ctc_steps<T: PartialEq>(tokens: &[T]) -> usize {
    tokens.len() + tokens.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

/// One utterance in a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Names the row's randomness; holds the index of the utterance.
    pub key: RowKey,
    /// Speed it is played at; 1 is unchanged.
    pub speed: f32,
    /// Frames after the change of speed.
    pub frames: usize,
}

/// What to put into one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchPlan {
    /// Where the batch lies in the run.
    pub position: Position,
    /// Number of batches in its epoch.
    pub batches: usize,
    /// Frames every row is padded to.
    pub frames: usize,
    /// [`Item::group`] of all its utterances.
    pub group: usize,
    /// Its utterances.
    pub rows: Vec<Row>,
}

/// A place in the run; all a checkpoint needs to go on with the same batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Batch within the epoch, from 0.
    pub batch: usize,
}

/// The batches of one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    /// In training order.
    pub batches: Vec<BatchPlan>,
    /// Their sums.
    pub report: EpochReport,
}

/// Sums over an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EpochReport {
    /// Utterances, copies included.
    pub rows: usize,
    /// Frames without padding.
    pub frames: usize,
    /// Frames with padding.
    pub padded_frames: usize,
    /// Rows left at speed 1 because CTC could not have aligned them at the speed drawn.
    pub speed_withheld: usize,
}

type Length = Box<dyn Fn(usize) -> usize + Send + Sync>;

/// Plans epochs.
pub struct Planner {
    config: BucketConfig,
    speed: SpeedConfig,
    seed: u64,
    items: Vec<Item>,
    usable: Vec<usize>,
    unalignable: Vec<usize>,
    frames_of: Length,
    steps_of: Length,
}

impl Planner {
    /// A planner for `items`. `frames_of` gives frames from samples, `steps_of` encoder steps from frames.
    ///
    /// # Errors
    /// - [`Error::Config`]: a configuration breaks its rules
    /// - [`Error::Training`]: no item can be used
    pub fn new(
        config: BucketConfig,
        speed: SpeedConfig,
        seed: u64,
        items: Vec<Item>,
        frames_of: impl Fn(usize) -> usize + Send + Sync + 'static,
        steps_of: impl Fn(usize) -> usize + Send + Sync + 'static,
    ) -> Result<Self> {
        config.validate()?;
        speed.validate()?;
        let alignable = |&i: &usize| steps_of(frames_of(items[i].samples)) >= items[i].min_steps.max(1);
        let (usable, unalignable): (Vec<_>, Vec<_>) = (0..items.len()).partition(alignable);
        if !usable.iter().any(|&i| items[i].weight > 0.0) {
            let reason = format!("none of {} utterances can be used ({} too short for CTC)", items.len(), unalignable.len());
            return Err(Error::Training { reason });
        }
        Ok(Self { config, speed, seed, items, usable, unalignable, frames_of: Box::new(frames_of), steps_of: Box::new(steps_of) })
    }

    /// Items that CTC cannot align at any speed drawn: never planned.
    pub fn unalignable(&self) -> &[usize] {
        &self.unalignable
    }

    /// The batches of an epoch: the same for the same planner and number, whatever was planned before.
    ///
    /// The rows of each group are ordered by padded length (ties in random order) and cut into batches that fill the budget, then all batches are
    /// shuffled.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        let mut report = EpochReport::default();
        let mut rows: Vec<Row> = Vec::new();
        for &utterance in &self.usable {
            for repeat in 0..self.copies(epoch, utterance) {
                let row = self.row(RowKey { seed: self.seed, epoch, utterance, repeat }, &mut report);
                (report.rows, report.frames) = (report.rows + 1, report.frames + row.frames);
                rows.push(row);
            }
        }
        let mut rng = Rng::new(self.seed, &[Purpose::Order as u64, epoch]);
        rng.shuffle(&mut rows);
        let padded = |frames: usize| frames.next_multiple_of(self.config.pad_frames);
        let group = |row: &Row| self.items[row.key.utterance].group;
        rows.sort_by_key(|row| (group(row), padded(row.frames)));
        let mut cut: Vec<Vec<Row>> = Vec::new();
        for row in rows {
            let full = |batch: &Vec<Row>| {
                batch.len() >= self.config.max_rows
                    || (batch.len() + 1) * padded(row.frames) > self.config.frames_per_batch
                    || group(&batch[0]) != group(&row)
            };
            match cut.last_mut() {
                Some(batch) if !full(batch) => batch.push(row),
                _ => cut.push(vec![row]),
            }
        }
        if epoch >= self.config.curriculum_epochs {
            rng.shuffle(&mut cut);
        } else {
            // Within a group they are.
            cut.sort_by_key(|batch| padded(batch[batch.len() - 1].frames));
        }
        let count = cut.len();
        let batches = cut.into_iter().enumerate().map(|(batch, rows)| {
            let frames = padded(rows.iter().map(|r| r.frames).max().unwrap_or(0));
            report.padded_frames += frames * rows.len();
            BatchPlan { position: Position { epoch, batch }, batches: count, frames, group: group(&rows[0]), rows }
        });
        Epoch { batches: batches.collect(), report }
    }

    /// All batches from `position` on, epoch after epoch without end. Give it to a [`super::Loader`].
    pub fn batches_from(self: std::sync::Arc<Self>, position: Position) -> impl Iterator<Item = BatchPlan> + Send {
        (position.epoch..).flat_map(move |epoch| {
            let skip = if epoch == position.epoch { position.batch } else { 0 };
            self.epoch(epoch).batches.into_iter().skip(skip)
        })
    }

    /// The whole part of the weight, and one more with the probability of the rest.
    fn copies(&self, epoch: u64, utterance: usize) -> u32 {
        let weight = self.items[utterance].weight.max(0.0);
        let extra = RowKey { seed: self.seed, epoch, utterance, repeat: 0 }.rng(Purpose::Repeat).chance(weight.fract() as f32);
        weight as u32 + u32::from(extra)
    }

    fn row(&self, key: RowKey, report: &mut EpochReport) -> Row {
        let item = self.items[key.utterance];
        let speed = self.speed.draw(&mut key.rng(Purpose::Speed));
        let frames = match self.speed.kind {
            SpeedKind::Resample => (self.frames_of)(super::augment::speed::resampled_len(item.samples, speed)),
            SpeedKind::Frames => super::spec_augment::resampled_frames((self.frames_of)(item.samples), speed),
        };
        if speed != 1.0 && (self.steps_of)(frames) < item.min_steps.max(1) {
            report.speed_withheld += 1;
            return Row { key, speed: 1.0, frames: (self.frames_of)(item.samples) };
        }
        Row { key, speed, frames }
    }
}
