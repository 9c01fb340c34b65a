//! The signal path up to the features of one recording: bytes, samples at the model's rate, regions of speech, windows.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::audio::vad::VadOptions;
use crate::audio::{Channels, Limits, Tracks};
use crate::error::Result;
use crate::pipeline::chunk::{Chunker, Window};
use crate::pipeline::feed::{Feed, Listened, Stopped};
use crate::pipeline::gate::Gate;
use crate::units::SampleRate;

/// How recordings are listened to.
#[derive(Debug, Clone)]
pub struct Listening {
    /// Which channels.
    pub channels: Channels,
    /// What counts as speech; `None`: everything.
    pub voice_activity: Option<VadOptions>,
    /// How regions are cut into windows.
    pub chunker: Chunker,
    /// What is refused.
    pub limits: Limits,
}

/// Why a recording came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All its windows are handed over.
    Ended,
    /// Nobody listens any more, or `stop` was set.
    Stopped,
}

/// Reads the recording at `path` and hands the windows of its tracks to `feed` as recordings `number(0)`, `number(1)`.., until `stop` is set. Holds
/// about a minute of audio for each track.
///
/// # Errors
/// As [`Tracks::open`] and [`Tracks::next_block`].
pub fn listen(path: &Path, listening: &Listening, feed: &Feed<'_>, stop: &AtomicBool, number: impl Fn(usize) -> usize) -> Result<Outcome> {
    let mut tracks = Tracks::open(path, listening.channels, SampleRate::HZ_16000, &listening.limits)?;
    let gate = |_| Gate::new(listening.voice_activity.as_ref(), listening.chunker.clone());
    let mut gates = (0..tracks.count()).map(gate).collect::<Result<Vec<_>>>()?;
    let (mut windows, mut total) = (Vec::new(), 0);
    while let Some(block) = tracks.next_block()? {
        total += block[0].len();
        for (track, (gate, samples)) in gates.iter_mut().zip(block).enumerate() {
            gate.step(samples, &mut windows);
            if stop.load(Ordering::Relaxed) || send(&mut windows, feed, number(track)).is_err() {
                return Ok(Outcome::Stopped);
            }
        }
    }
    let duration = SampleRate::HZ_16000.seconds(total);
    for (track, gate) in gates.iter_mut().enumerate() {
        gate.flush(&mut windows);
        let warnings = if track == 0 { tracks.warnings() } else { Vec::new() };
        let listened = Listened { duration, warnings, tracks: tracks.count(), channel: tracks.channel(track), module: None };
        let sent = send(&mut windows, feed, number(track)).and_then(|()| feed.end(number(track), Ok(listened)));
        if sent.is_err() {
            return Ok(Outcome::Stopped);
        }
    }
    Ok(Outcome::Ended)
}

fn send(windows: &mut Vec<Window>, feed: &Feed<'_>, recording: usize) -> std::result::Result<(), Stopped> {
    windows.drain(..).try_for_each(|window| feed.window(recording, &window))
}
