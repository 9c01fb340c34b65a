//! The audio of a test set: every file is decoded once, and its utterances are cut out on the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::audio::{Channels, Limits, Tracks};
use crate::error::{Error, Result};
use crate::pipeline::chunk::{Chunker, Window};
use crate::pipeline::feed::{Feed, Listened, Stopped};
use crate::units::SampleRate;

/// A stretch of a file to recognise.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Number it is reported under.
    pub number: usize,
    /// The file.
    pub audio: PathBuf,
    /// What is heard of it.
    pub channels: Channels,
    /// Start, seconds.
    pub start: f64,
    /// End, seconds; none is the end of the file.
    pub end: Option<f64>,
}

/// A segment that has begun.
struct Open {
    number: usize,
    /// Samples from the start of the file.
    end: usize,
    taken: usize,
    chunker: Chunker,
}

/// Segments of the same file and channel together, in the order of their starts; files in the order given.
pub fn by_file(segments: Vec<Segment>) -> Vec<Vec<Segment>> {
    let mut places = BTreeMap::new();
    let mut files: Vec<Vec<Segment>> = Vec::new();
    for segment in segments {
        let key = (segment.audio.clone(), format!("{:?}", segment.channels));
        let place = *places.entry(key).or_insert_with(|| {
            files.push(Vec::new());
            files.len() - 1
        });
        files[place].push(segment);
    }
    files.iter_mut().for_each(|file| file.sort_by(|a, b| a.start.total_cmp(&b.start)));
    files
}

/// Hands the windows of a file's segments to `feed`. A file that cannot be read fails all its segments, one that is too short those after its end.
///
/// # Errors
/// [`Stopped`]
pub fn listen(segments: &[Segment], chunker: &Chunker, limits: &Limits, feed: &Feed<'_>) -> std::result::Result<(), Stopped> {
    let Some(first) = segments.first() else { return Ok(()) };
    let mut tracks = match Tracks::open(&first.audio, first.channels, SampleRate::HZ_16000, limits) {
        Ok(tracks) => tracks,
        Err(error) => return fail(segments.iter().map(|s| s.number), &first.audio, &error, feed),
    };
    let rate = SampleRate::HZ_16000;
    let mut waiting = segments.iter().peekable();
    let mut open: Vec<Open> = Vec::new();
    let mut windows: Vec<Window> = Vec::new();
    let mut position = 0;
    loop {
        let block = match tracks.next_block() {
            Ok(Some(planes)) => &planes[0],
            Ok(None) => break,
            Err(error) => {
                let numbers = open.iter().map(|o| o.number).chain(waiting.map(|s| s.number));
                return fail(numbers, &first.audio, &error, feed);
            }
        };
        let next = position + block.len();
        while let Some(segment) = waiting.next_if(|s| rate.samples(s.start) < next) {
            let mut chunker = chunker.clone();
            chunker.start(0);
            let end = segment.end.map_or(usize::MAX, |end| rate.samples(end));
            open.push(Open { number: segment.number, end, taken: rate.samples(segment.start), chunker });
        }
        for segment in &mut open {
            let until = segment.end.min(next);
            segment.chunker.step(&block[segment.taken - position..until.max(segment.taken) - position], &mut windows);
            let complete = segment.end <= next;
            if complete {
                segment.chunker.flush(&mut windows);
            }
            windows.drain(..).try_for_each(|window| feed.window(segment.number, &window))?;
            segment.taken = until.max(segment.taken);
        }
        position = next;
        let (done, still): (Vec<Open>, Vec<Open>) = open.into_iter().partition(|s| s.end <= position);
        open = still;
        done.iter().try_for_each(|s| feed.end(s.number, Ok(Listened::default())))?;
        // The rest of a file that nobody asked for need not be decoded.
        if open.is_empty() && waiting.peek().is_none() {
            return Ok(());
        }
    }
    for mut segment in open {
        segment.chunker.flush(&mut windows);
        windows.drain(..).try_for_each(|window| feed.window(segment.number, &window))?;
        feed.end(segment.number, Ok(Listened::default()))?;
    }
    let reason = format!("the file ends at {:.2} s, before the segment begins", rate.seconds(position));
    let short = Error::CorruptAudio { path: first.audio.clone(), at: None, reason };
    fail(waiting.map(|s| s.number), &first.audio, &short, feed)
}

/// Ends segments with the same error.
fn fail(numbers: impl Iterator<Item = usize>, path: &Path, error: &Error, feed: &Feed<'_>) -> std::result::Result<(), Stopped> {
    for number in numbers {
        let again: Result<Listened> = Err(match error {
            Error::Io { source, .. } => Error::io(path, std::io::Error::new(source.kind(), source.to_string())),
            Error::UnsupportedAudio { reason, .. } => Error::UnsupportedAudio { path: path.into(), reason: reason.clone() },
            other => Error::CorruptAudio { path: path.into(), at: None, reason: other.to_string() },
        });
        feed.end(number, again)?;
    }
    Ok(())
}
