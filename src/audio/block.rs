//! A block of decoded samples: the mean of the channels, or every channel on its own.

use crate::units::SampleRate;

/// Which samples decoders hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// One plane: the mean of the channels.
    Mean,
    /// A plane for each channel.
    Each,
}

/// What the samples are wanted for: a decoder that can do part of it itself, for less, does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub take: Take,
    /// The rate they will be resampled to, where they will.
    pub rate: Option<SampleRate>,
}

/// Planes of equal length. Their number is set by the first samples and stays: a stream that goes on with another number of channels
/// has its mean on all of them.
#[derive(Debug)]
pub(super) struct Block {
    take: Take,
    planes: Vec<Vec<f32>>,
    /// Whether the mean was asked for in the place of channels.
    mean_on_all: bool,
}

impl Block {
    pub fn new(take: Take) -> Self {
        Self { take, planes: if take == Take::Mean { vec![Vec::new()] } else { Vec::new() }, mean_on_all: false }
    }

    pub fn planes(&self) -> &[Vec<f32>] {
        &self.planes
    }

    pub fn planes_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.planes
    }

    /// Samples of each plane.
    pub fn len(&self) -> usize {
        self.planes.first().map_or(0, Vec::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn clear(&mut self) {
        self.planes.iter_mut().for_each(Vec::clear);
    }

    /// Silence of `len` samples.
    pub fn silence(&mut self, len: usize) {
        self.clear();
        self.planes.iter_mut().for_each(|plane| plane.resize(len, 0.0));
    }

    /// Drops samples at the start and all past `keep` then.
    pub fn trim(&mut self, skip: usize, keep: usize) {
        for plane in &mut self.planes {
            plane.drain(..skip.min(plane.len()));
            plane.truncate(keep);
        }
    }

    /// What a stream of `channels` channels is written to: its mean, or its channels.
    pub fn target(&mut self, channels: usize) -> Target<'_> {
        if self.take == Take::Each && self.planes.is_empty() {
            self.planes.resize_with(channels, Vec::new);
        }
        self.mean_on_all = self.take == Take::Each && self.planes.len() != channels;
        match self.take {
            Take::Each if self.planes.len() == channels => Target::Each(&mut self.planes),
            _ => Target::Mean(&mut self.planes[0]),
        }
    }

    /// To be called when the [`Target`] was written: puts a mean on all planes where these should have been channels.
    pub fn finish(&mut self) {
        if let (true, Some((first, others))) = (self.mean_on_all, self.planes.split_first_mut()) {
            others.iter_mut().for_each(|plane| plane.clone_from(first));
        }
    }
}

/// Where samples go.
pub(super) enum Target<'a> {
    /// The mean of all channels.
    Mean(&'a mut Vec<f32>),
    /// Each channel.
    Each(&'a mut [Vec<f32>]),
}
