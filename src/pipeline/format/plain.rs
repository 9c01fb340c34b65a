//! Text and tables: `txt`, `tsv`, `csv`, `lrc`.

use std::io::{self, Write};

use super::subtitles::{Shown, shown};
use super::{FormatOptions, labelled, milliseconds};
use crate::pipeline::transcript::Transcript;

/// One segment per line.
pub(super) fn txt(transcript: &Transcript, out: &mut impl Write) -> io::Result<()> {
    transcript.segments.iter().try_for_each(|segment| writeln!(out, "{}", labelled(segment)))
}

/// `start`, `end` in whole milliseconds and `text`, separated by tabs, under a header (openai/whisper's shape).
pub(super) fn tsv(transcript: &Transcript, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "start\tend\ttext")?;
    transcript.segments.iter().try_for_each(|segment| {
        writeln!(out, "{}\t{}\t{}", milliseconds(segment.start), milliseconds(segment.end), labelled(segment).replace('\t', " "))
    })
}

/// `start,end[,speaker],text` in whole milliseconds under a header, text in double quotes, those inside doubled (whisper.cpp's shape).
pub(super) fn csv(transcript: &Transcript, out: &mut impl Write) -> io::Result<()> {
    let speakers = transcript.segments.iter().any(|s| s.speaker.is_some());
    writeln!(out, "start,end,{}text", if speakers { "speaker," } else { "" })?;
    for segment in &transcript.segments {
        write!(out, "{},{},", milliseconds(segment.start), milliseconds(segment.end))?;
        if speakers {
            write!(out, "{},", quoted(segment.speaker.as_deref().unwrap_or_default()))?;
        }
        writeln!(out, "{}", quoted(&segment.text))?;
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", super::one_line(text).replace('"', "\"\""))
}

/// Lines of lyrics, each a cue of one line: `[mm:ss.cc]text`, minutes past 59 counted on.
pub(super) fn lrc(transcript: &Transcript, options: &FormatOptions, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "[by:omniscribe]")?;
    let options = FormatOptions { max_line_count: Some(1), ..*options };
    for Shown { start, lines, .. } in shown(transcript, &options) {
        let centiseconds = (start + 5) / 10;
        let (minutes, seconds) = (centiseconds / 6_000, centiseconds / 100 % 60);
        let text = lines.concat();
        // Another time would be read from a text that starts with a bracket.
        let space = if text.starts_with('[') { " " } else { "" };
        writeln!(out, "[{minutes:02}:{seconds:02}.{:02}]{space}{text}", centiseconds % 100)?;
    }
    Ok(())
}
