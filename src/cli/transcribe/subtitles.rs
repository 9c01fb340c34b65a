//! Flags of subtitles.

use clap::Args;

use crate::pipeline::format::FormatOptions;

/// How subtitles look.
#[derive(Debug, Args)]
pub(super) struct SubtitleArguments {
    /// Most characters of a subtitle line
    #[arg(long, alias = "max_line_width", default_value_t = 42, help_heading = "Subtitles (srt, vtt, lrc)")]
    max_line_width: usize,
    /// Most lines of a subtitle
    #[arg(long, alias = "max_line_count", default_value_t = 2, help_heading = "Subtitles (srt, vtt, lrc)")]
    max_line_count: usize,
    /// Most words of a subtitle line
    #[arg(long, alias = "max_words_per_line", help_heading = "Subtitles (srt, vtt, lrc)")]
    max_words_per_line: Option<usize>,
    /// Underline every word while it is spoken
    #[arg(long, alias = "highlight_words", help_heading = "Subtitles (srt, vtt, lrc)")]
    highlight_words: bool,
}

impl SubtitleArguments {
    /// The library's options.
    pub(super) fn options(&self) -> FormatOptions {
        FormatOptions {
            max_line_width: Some(self.max_line_width),
            max_line_count: Some(self.max_line_count),
            max_words_per_line: self.max_words_per_line,
            highlight_words: self.highlight_words,
            ..FormatOptions::default()
        }
    }
}
