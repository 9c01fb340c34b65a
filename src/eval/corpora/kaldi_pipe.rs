//! The right side of a `wav.scp` line: a path, or one of the usual pipes. A pipe is parsed, never run.

use crate::audio::Channel;

/// Where the samples come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub file: String,
    pub channel: Channel,
}

type Parsed<T> = Result<T, String>;

/// Reads one value of `wav.scp`.
///
/// # Errors
/// Says which program, option or character is not known here.
pub(super) fn parse(value: &str) -> Parsed<Source> {
    let value = value.trim();
    let Some(pipeline) = value.strip_suffix('|') else {
        let offset = value.rsplit_once(':').is_some_and(|(_, at)| !at.is_empty() && at.bytes().all(|b| b.is_ascii_digit()));
        return match value {
            "" => Err("no file".into()),
            "-" => Err("standard input".into()),
            _ if offset => Err(format!("{value:?} is a place in a Kaldi archive")),
            _ => Ok(Source { file: value.into(), channel: Channel::Mix }),
        };
    };
    let mut source = None;
    for words in split(pipeline)? {
        let stage = stage(&words)?;
        source = Some(match (source, stage) {
            (None, Stage { file: Some(file), channel }) => Source { file, channel },
            (None, Stage { file: None, .. }) => return Err(format!("`{}` reads no file", words[0])),
            (Some(source), Stage { file: None, channel: Channel::Mix | Channel::Nth(0) }) => source,
            (Some(_), _) => return Err(format!("`{}` behind a pipe does more than change the format", words[0])),
        });
    }
    source.ok_or_else(|| "an empty pipe".into())
}

/// Splits a pipeline into commands and words as a shell would, for the plain part of its language.
fn split(pipeline: &str) -> Parsed<Vec<Vec<String>>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = pipeline.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (c, Some('\'')) => word.get_or_insert_default().push(c),
            ('\\', _) => word.get_or_insert_default().push(characters.next().ok_or("a backslash at the end")?),
            ('$' | '`', _) | (';' | '&' | '<' | '(' | ')' | '*' | '?' | '#' | '\n', None) => {
                return Err(format!("the shell's {c:?}: only plain pipes are read, none is run"));
            }
            ('|' | ' ' | '\t', None) => {
                if let (Some(word), Some(command)) = (word.take(), commands.last_mut()) {
                    command.push(word);
                }
                if c == '|' {
                    commands.push(Vec::new());
                }
            }
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark that is not closed".into());
    }
    if let (Some(word), Some(command)) = (word, commands.last_mut()) {
        command.push(word);
    }
    for command in &mut commands {
        command.retain(|word| word != "2>/dev/null");
        match command.iter().find(|word| word.contains('>')) {
            Some(word) => return Err(format!("{word:?} sends the output elsewhere")),
            None if command.is_empty() => return Err("an empty command in the pipe".into()),
            None => {}
        }
    }
    Ok(commands)
}

/// What one command reads: a file, or what the command before it writes.
struct Stage {
    file: Option<String>,
    channel: Channel,
}

impl Stage {
    fn new(input: &str, channel: Channel) -> Self {
        Self { file: (input != "-").then(|| input.into()), channel }
    }
}

fn stage(words: &[String]) -> Parsed<Stage> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let program = words[0].rsplit('/').next().unwrap_or_default();
    let arguments = &words[1..];
    match program {
        "sph2pipe" => sph2pipe(arguments),
        "sox" => sox(arguments),
        "flac" => flac(arguments),
        "ffmpeg" => ffmpeg(arguments),
        "cat" => match arguments {
            [file] => Ok(Stage::new(file, Channel::Mix)),
            _ => Err("`cat` of other than one file".into()),
        },
        _ => Err(format!("`{program}` is not a program this reader knows (sph2pipe, sox, flac, ffmpeg and cat are)")),
    }
}

fn unknown(program: &str, option: &str) -> String {
    format!("`{program} {option}` is not an option this reader knows")
}

/// The channel of a number from 1.
fn numbered(program: &str, number: &str) -> Parsed<Channel> {
    let channel = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).map(Channel::Nth);
    channel.ok_or_else(|| format!("`{program}`: channel {number:?} is no number from 1"))
}

/// `sph2pipe [-f format] [-p|-u|-a] [-c channel] file`.
fn sph2pipe(arguments: &[&str]) -> Parsed<Stage> {
    let (mut channel, mut file, mut rest) = (Channel::Mix, None, arguments.iter());
    while let Some(&argument) = rest.next() {
        match argument {
            "-p" | "-u" | "-a" => {}
            "-f" => drop(rest.next()),
            "-c" => channel = numbered("sph2pipe", rest.next().copied().unwrap_or_default())?,
            _ if argument.starts_with('-') => return Err(unknown("sph2pipe", argument)),
            _ if file.is_some() => return Err("`sph2pipe` that writes a file".into()),
            _ => file = Some(argument),
        }
    }
    file.map(|file| Stage::new(file, channel)).ok_or_else(|| "`sph2pipe` without a file".into())
}

/// `sox [options] in [options] - [remix n] [rate ..] [channels 1] [dither ..]`.
fn sox(arguments: &[&str]) -> Parsed<Stage> {
    let (mut files, mut rest) = (Vec::new(), arguments.iter().copied());
    while files.len() < 2 {
        match rest.next() {
            None => return Err("`sox` without an input and an output".into()),
            Some("-t" | "-r" | "-b" | "-c" | "-e" | "--type" | "--rate" | "--bits" | "--channels" | "--encoding") => drop(rest.next()),
            // `-V` takes its level with it.
            Some("-" | "-p") => files.push("-"),
            Some(flag) if ["-L", "-B", "-s", "-u", "-x", "-D", "-R", "-G", "-q", "-2"].contains(&flag) || flag.starts_with("-V") => {}
            Some(option) if option.starts_with('-') => return Err(unknown("sox", option)),
            Some(file) => files.push(file),
        }
    }
    if files[1] != "-" {
        return Err("`sox` that writes a file or joins several".into());
    }
    let mut channel = Channel::Mix;
    let mut effects = rest.peekable();
    while let Some(effect) = effects.next() {
        match effect {
            "remix" => {
                let chosen = effects.next().unwrap_or_default();
                channel = if chosen == "-" { Channel::Mix } else { numbered("sox remix", chosen)? };
            }
            "rate" | "dither" => {
                while effects.next_if(|word| word.starts_with('-') || word.starts_with(|c: char| c.is_ascii_digit())).is_some() {}
            }
            "channels" if effects.next() == Some("1") => {}
            _ => return Err(format!("`sox .. {effect}` is not an effect this reader knows")),
        }
    }
    Ok(Stage::new(files[0], channel))
}

/// `flac -c -d -s file`.
fn flac(arguments: &[&str]) -> Parsed<Stage> {
    let long = ["--decode", "--stdout", "--silent", "--totally-silent"];
    let mut file = None;
    for &argument in arguments {
        let letters = argument.strip_prefix('-').filter(|letters| !letters.is_empty() && letters.chars().all(|c| "cds".contains(c)));
        match argument {
            _ if letters.is_some() || long.contains(&argument) => {}
            _ if argument.starts_with('-') && argument != "-" => return Err(unknown("flac", argument)),
            _ if file.is_some() => return Err("`flac` of several files".into()),
            _ => file = Some(argument),
        }
    }
    file.map(|file| Stage::new(file, Channel::Mix)).ok_or_else(|| "`flac` without a file".into())
}

/// `ffmpeg -i file [-ar rate] [-ac 1] [-f wav] [-acodec ..] [-map_channel 0.0.n] -`.
fn ffmpeg(arguments: &[&str]) -> Parsed<Stage> {
    let (mut input, mut output, mut channel, mut rest) = (None, None, Channel::Mix, arguments.iter().copied());
    while let Some(argument) = rest.next() {
        match argument {
            "-i" => input = rest.next(),
            "-f" | "-ar" | "-acodec" | "-c:a" | "-codec:a" | "-sample_fmt" | "-v" | "-loglevel" | "-threads" => drop(rest.next()),
            "-ac" if rest.next() == Some("1") => {}
            "-map_channel" => {
                let number = rest.next().and_then(|map| map.strip_prefix("0.0.")).and_then(|n| n.parse().ok());
                channel = Channel::Nth(number.ok_or("`ffmpeg -map_channel` of other than 0.0.n")?);
            }
            "-hide_banner" | "-nostdin" | "-vn" | "-y" => {}
            "-" | "pipe:1" | "pipe:" => output = Some(()),
            _ => return Err(unknown("ffmpeg", argument)),
        }
    }
    match (input, output) {
        (Some("pipe:0" | "-"), Some(())) => Ok(Stage::new("-", channel)),
        (Some(file), Some(())) => Ok(Stage::new(file, channel)),
        _ => Err("`ffmpeg` without an input file and a pipe for output".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(value: &str) -> (String, Channel) {
        parse(value).map(|source| (source.file, source.channel)).unwrap()
    }

    #[test]
    fn usual_pipes() {
        let mix = |file: &str| (file.to_string(), Channel::Mix);
        let nth = |file: &str, n| (file.to_string(), Channel::Nth(n));
        assert_eq!(ok("/a/b c.wav"), mix("/a/b c.wav"));
        assert_eq!(ok("sph2pipe -f wav -p -c 1 a.sph |"), nth("a.sph", 0));
        assert_eq!(ok("/kaldi/tools/sph2pipe_v2.5/sph2pipe -f wav -p -c 2 'a b.sph'|"), nth("a b.sph", 1));
        assert_eq!(ok("sph2pipe -f wav /d/440c0401.wv1 |"), mix("/d/440c0401.wv1"));
        assert_eq!(ok("sox S02_P05.wav -t wav - remix 2 |"), nth("S02_P05.wav", 1));
        assert_eq!(ok("sox -c 1 -t wavpcm -s x.wav -t wavpcm - |"), mix("x.wav"));
        assert_eq!(ok("flac -c -d -s x.flac |"), mix("x.flac"));
        assert_eq!(ok("flac -cds x.flac | sox -t wav - -r 8000 -t wav - rate -h 8k dither |"), mix("x.flac"));
        assert_eq!(ok("ffmpeg -v 8 -i \"x y.mp3\" -f wav -ar 16000 -ac 1 -acodec pcm_s16le - |"), mix("x y.mp3"));
        assert_eq!(ok("ffmpeg -i x.sph -map_channel 0.0.1 -f wav pipe:1 2>/dev/null |"), nth("x.sph", 1));
        assert_eq!(ok("cat a\\ b.wav |"), mix("a b.wav"));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for (value, says) in [
            ("", "no file"),
            ("|", "an empty command"),
            ("a.ark:1234", "a Kaldi archive"),
            ("rm -rf / |", "`rm`"),
            ("sox x.wav -t wav - speed 1.1 |", "speed"),
            ("sox x.wav -t wav - trim 0 1 |", "trim"),
            ("sox -v 0.5 x.wav -t wav - |", "sox -v"),
            ("sox x.wav y.wav -t wav - |", "writes a file or joins"),
            ("sph2pipe -t 1:2 x.sph |", "sph2pipe -t"),
            ("sph2pipe -c 0 x.sph |", "no number from 1"),
            ("sph2pipe -f wav |", "without a file"),
            ("cat x.wav; rm y |", "';'"),
            ("cat $HOME/x.wav |", "'$'"),
            ("cat `ls` |", "'`'"),
            ("cat x.wav > y |", "sends the output"),
            ("sox - -t wav - |", "reads no file"),
            ("sph2pipe -c 1 x.sph | sox -t wav - -t wav - remix 2 |", "does more than change"),
            ("cat 'x.wav |", "not closed"),
        ] {
            let said = parse(value).unwrap_err();
            assert!(said.contains(says), "{value}: {said}");
        }
    }
}
