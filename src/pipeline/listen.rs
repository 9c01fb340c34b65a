//! The signal path up to the features of one recording: bytes, samples at the model's rate, regions, windows.

use std::path::Path;

use crate::audio::{Limits, Reader, Resampler};
use crate::error::Result;
use crate::pipeline::chunk::{Chunker, Window};
use crate::pipeline::feed::{Feed, Listened, Stopped};
use crate::units::SampleRate;

/// A recording that ended, or a consumer that did.
pub enum Outcome {
    /// All windows are handed over.
    Ended(Listened),
    /// Nobody listens any more.
    Stopped,
}

/// Reads the recording at `path` and hands its windows to `feed`; holds one window of audio at a time.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::next_block`].
pub fn listen(path: &Path, limits: &Limits, mut chunker: Chunker, feed: &Feed<'_>, recording: usize) -> Result<Outcome> {
    let mut reader = Reader::open(path, limits)?;
    let mut resampler = Resampler::new(reader.sample_rate(), SampleRate::HZ_16000)?;
    let (mut samples, mut windows) = (Vec::new(), Vec::new());
    let mut total = 0;
    chunker.start(0);
    loop {
        samples.clear();
        let more = match reader.next_block()? {
            Some(block) => {
                resampler.step(block, &mut samples);
                true
            }
            None => {
                resampler.flush(&mut samples);
                false
            }
        };
        // The filter may overshoot by a little at full scale.
        samples.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
        total += samples.len();
        chunker.step(&samples, &mut windows);
        if !more {
            chunker.flush(&mut windows);
        }
        if send(&mut windows, feed, recording).is_err() {
            return Ok(Outcome::Stopped);
        }
        if !more {
            let duration = SampleRate::HZ_16000.seconds(total);
            return Ok(Outcome::Ended(Listened { duration, warnings: reader.warnings() }));
        }
    }
}

fn send(windows: &mut Vec<Window>, feed: &Feed<'_>, recording: usize) -> std::result::Result<(), Stopped> {
    windows.drain(..).try_for_each(|window| feed.window(recording, &window))
}
