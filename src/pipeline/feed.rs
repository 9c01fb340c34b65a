//! The producing half: windows of many recordings become features on a thread of their own, while the encoder works on earlier ones.

use std::cell::Cell;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::features::LogMel;
use crate::pipeline::chunk::Window;
use crate::pipeline::front::{Front, Past};

/// Windows that may wait for the encoder: two batches of long ones.
const WAITING: usize = 32;

/// What the consuming half receives.
#[derive(Debug)]
pub enum Item {
    /// The next window of a recording.
    Window(Features),
    /// A recording's audio ended, well or not.
    End(Ending),
}

/// A window after the front end.
#[derive(Debug)]
pub struct Features {
    /// Which recording, as numbered by the producer.
    pub recording: usize,
    /// Normalised features of the whole window.
    pub features: LogMel,
    /// The samples of the window whose output counts.
    pub core: Range<usize>,
    /// Where the core lies in the recording, in samples.
    pub position: usize,
    /// Whether the region ends with this window.
    pub last: bool,
}

/// The end of a recording.
#[derive(Debug)]
pub struct Ending {
    /// Which recording.
    pub recording: usize,
    /// Its length in seconds and the warnings of its reader; or why it failed.
    pub outcome: Result<Listened>,
}

/// What is known of a recording once its audio ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listened {
    /// Length, seconds.
    pub duration: f64,
    /// What was wrong with the audio but did not prevent decoding.
    pub warnings: Vec<String>,
    /// Tracks of the file this is one of.
    pub tracks: usize,
    /// Its channel, from 1, where channels are told apart.
    pub channel: Option<u32>,
    /// The module that it was heard by, where that was identified.
    pub module: Option<usize>,
}

/// The consuming half is gone: stop producing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Takes windows from the producer.
#[derive(Debug)]
pub struct Feed<'a> {
    front_end: &'a Front,
    past: Past,
    sender: SyncSender<Item>,
    start: Instant,
    features: Cell<Duration>,
    waited: Cell<Duration>,
}

/// Both ends of a bounded queue.
pub fn feed(front_end: &Front, past: Past) -> (Feed<'_>, Receiver<Item>) {
    let (sender, receiver) = sync_channel(WAITING);
    (Feed { front_end, past, sender, start: Instant::now(), features: Cell::default(), waited: Cell::default() }, receiver)
}

impl Feed<'_> {
    /// Computes the features of a window and hands it over; waits while the encoder is behind.
    ///
    /// # Errors
    /// [`Stopped`]
    pub fn window(&self, recording: usize, window: &Window) -> std::result::Result<(), Stopped> {
        let start = Instant::now();
        let features = self.front_end.compute(&window.samples, self.past);
        self.features.set(self.features.get() + start.elapsed());
        let Window { core, position, last, .. } = window;
        let item = Features { recording, features, core: core.clone(), position: *position, last: *last };
        let start = Instant::now();
        let sent = self.sender.send(Item::Window(item)).map_err(|_| Stopped);
        self.waited.set(self.waited.get() + start.elapsed());
        sent
    }

    /// Says that a recording's audio ended.
    ///
    /// # Errors
    /// [`Stopped`]
    pub fn end(&self, recording: usize, outcome: Result<Listened>) -> std::result::Result<(), Stopped> {
        self.sender.send(Item::End(Ending { recording, outcome })).map_err(|_| Stopped)
    }

    /// Time spent on audio and on features since the feed was made; waiting for the encoder counts for neither.
    pub fn spent(&self) -> (Duration, Duration) {
        let features = self.features.get();
        (self.start.elapsed().saturating_sub(features + self.waited.get()), features)
    }
}
