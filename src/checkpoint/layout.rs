//! Which tensors of a published file make which parameter of ours: tables, and the engine that reads them.
//!
//! A layout is data: rows of (our parameter, how it is made, their tensors). To host another family of files is to write another table
//! (`layouts/`). `{}` stands for a number, the same on both sides of a row.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::checkpoint::arrange::{self, Place};
use crate::checkpoint::tensor_file::{TensorFile, View};
use crate::checkpoint::weights::{Fault, Source};

/// How a parameter is made of the tensors of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// The same shape.
    Same,
    /// Linear layers `[out, in]` or `[out, in, 1]`, one above another: `[in, all outs]`.
    Transposed,
    /// Vectors one after another.
    Joined,
    /// Taps of a depthwise convolution `[channels, 1, kernel]`: `[channels, kernel]`.
    Taps,
    /// A convolution over time `[out, in, kernel]` as a linear layer on whole windows: `[kernel in, out]`.
    Windows,
    /// A convolution kernel `[out, in, kernel]` in its weight-normed parts: gain `[1, 1, kernel]`, direction `[out, in, kernel]`.
    WeightNorm,
    /// For each expert (`{e}` in their name) a linear layer `[out, in]`: `[experts, in, out]`.
    ExpertsTransposed,
    /// For each expert a vector: `[experts, width]`.
    ExpertsJoined,
    /// A linear layer `[out, in]` that is repeated under several blocks (`{*}` in its name); all copies must be equal. `[in, out]`.
    SharedTransposed,
    /// A vector repeated under several blocks; all copies must be equal.
    Shared,
    /// Not in the file: zeros.
    Zeros,
}

/// One row of a layout.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Our parameter.
    pub ours: &'static str,
    /// How it is made.
    pub make: Make,
    /// Their tensors, in order. `a | b`: whichever is there.
    pub theirs: &'static [&'static str],
}

/// A row of a table.
pub const fn row(ours: &'static str, make: Make, theirs: &'static [&'static str]) -> Row {
    Row { ours, make, theirs }
}

/// Tables, and what they leave open.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Rows; the first that names a parameter counts.
    pub tables: Vec<&'static [Row]>,
    /// Parts of the names in the tables and what stands for them in this file, applied in order.
    pub renamed: Vec<(&'static str, &'static str)>,
    /// Tensors of the file that no parameter needs: `{}` for a number, `*` at the end for anything.
    pub ignored: &'static [&'static str],
    /// For each shared router, the blocks that it serves.
    pub router_blocks: Vec<Vec<usize>>,
}

impl Layout {
    /// The row of parameter `name` and the numbers in the name.
    pub fn row<'n>(&self, name: &'n str) -> Option<(&'static Row, Vec<&'n str>)> {
        self.tables.iter().copied().flatten().find_map(|row| captured(row.ours, name).map(|numbers| (row, numbers)))
    }

    /// Names of the file's tensors that make parameter `name` of `shape`, where the row leaves a choice every one of it.
    fn theirs(&self, row: &Row, numbers: &[&str], shape: &[usize]) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for pattern in row.theirs {
            let choices: Vec<String> = pattern.split(" | ").map(|choice| self.filled(choice, numbers)).collect();
            if pattern.contains("{e}") {
                let experts = shape.first().copied().unwrap_or(0).min(4096);
                all.extend((0..experts).map(|e| choices.iter().map(|c| c.replace("{e}", &e.to_string())).collect()));
            } else if pattern.contains("{*}") {
                let router = numbers.first().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
                let blocks = self.router_blocks.get(router).map_or(&[][..], Vec::as_slice);
                all.extend(blocks.iter().map(|b| choices.iter().map(|c| c.replace("{*}", &b.to_string())).collect()));
            } else {
                all.push(choices);
            }
        }
        all
    }

    fn filled(&self, pattern: &str, numbers: &[&str]) -> String {
        let mut text = pattern.to_string();
        for number in numbers.iter().filter(|_| !pattern.contains("{*}")) {
            text = text.replacen("{}", number, 1);
        }
        self.renamed.iter().fold(text, |text, (from, to)| text.replace(from, to))
    }
}

/// The numbers that stand for `{}` in `pattern`, if it fits `name`.
fn captured<'n>(pattern: &str, name: &'n str) -> Option<Vec<&'n str>> {
    let (mut pattern, mut name) = (pattern.split('.'), name.split('.'));
    let mut numbers = Vec::new();
    loop {
        match (pattern.next(), name.next()) {
            (None, None) => return Some(numbers),
            (Some("{}"), Some(part)) if part.bytes().all(|b| b.is_ascii_digit()) => numbers.push(part),
            (Some(a), Some(b)) if a == b => {}
            _ => return None,
        }
    }
}

/// The tensors of a file seen through a layout.
#[derive(Debug)]
pub struct Arranged<'a> {
    file: &'a TensorFile,
    layout: &'a Layout,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Arranged<'a> {
    /// A file and its layout.
    pub fn new(file: &'a TensorFile, layout: &'a Layout) -> Self {
        Self { file, layout, used: RefCell::default() }
    }

    fn view(&self, choices: &[String]) -> Result<(String, View<'a>), Fault> {
        match choices.iter().find_map(|name| Some((name, self.file.get(name)?))) {
            Some((name, view)) => {
                self.used.borrow_mut().insert(name.clone());
                if !view.dtype.is_float() {
                    return Err(Fault::Mismatched(format!("{name}: {} elements, want floats", view.dtype)));
                }
                Ok((name.clone(), view))
            }
            None => Err(Fault::Missing(choices[0].clone())),
        }
    }
}

impl Source for Arranged<'_> {
    fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Fault> {
        let (row, numbers) = self.layout.row(name).ok_or_else(|| Fault::Missing(format!("{name} (no row of the layout makes it)")))?;
        let mut views = Vec::new();
        let mut fault = None;
        // All of them are looked up, so that none counts as unused because another is missing.
        for choices in self.layout.theirs(row, &numbers, shape) {
            match self.view(&choices) {
                Ok(view) => views.push(view),
                Err(first) => {
                    fault.get_or_insert(first);
                }
            }
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        make(row.make, &views, shape)
    }

    fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let unused = self.file.names().filter(|name| !used.contains(*name) && !self.layout.ignored.iter().any(|p| ignores(p, name)));
        unused.map(|name| name.to_string()).collect()
    }
}

fn ignores(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => captured(pattern, name).is_some(),
    }
}

/// Makes a parameter of `shape` from `views`, which are named for messages.
fn make(make: Make, views: &[(String, View<'_>)], shape: &[usize]) -> Result<Vec<f32>, Fault> {
    let misfit = |name: &str, view: &View<'_>, wanted: &[usize]| {
        Fault::Mismatched(format!("{name}: {:?} in the file, {wanted:?} in the model", view.shape))
    };
    if matches!(make, Make::Shared | Make::SharedTransposed) {
        check_copies(views)?;
        let once = if make == Make::Shared { Make::Same } else { Make::Transposed };
        return self::make(once, &views[..views.len().min(1)], shape);
    }
    // Nothing is allocated that the file does not fill.
    let count = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).unwrap_or(usize::MAX);
    let held: usize =
        if make == Make::WeightNorm { views.last().map_or(0, |v| v.1.count()) } else { views.iter().map(|v| v.1.count()).sum() };
    if let Some((name, view)) = views.first().filter(|_| held != count && make != Make::Zeros) {
        return Err(misfit(name, view, &their_shape(make, shape, views.len())));
    }
    let mut out = vec![0.0f32; count];
    let first = |at: usize| views.get(at).ok_or_else(|| Fault::Missing("a tensor the layout does not name".into()));
    match (make, shape) {
        (Make::Zeros, _) => {}
        (Make::Same, _) => {
            let (name, view) = first(0)?;
            if view.shape != shape {
                return Err(misfit(name, view, shape));
            }
            arrange::copy(view, &mut out);
        }
        (Make::Transposed, &[rows_in, all_out]) => {
            let mut column = 0;
            for (i, (name, view)) in views.iter().enumerate() {
                let (theirs, [] | [1]) = view.shape.split_at(view.shape.len().min(2)) else {
                    return Err(misfit(name, view, &[all_out, rows_in]));
                };
                // The last one must fill what is left.
                let left = all_out - column;
                let fits = |out: usize| out > 0 && if i + 1 == views.len() { out == left } else { out < left };
                match *theirs {
                    [out_width, in_width] if in_width == rows_in && fits(out_width) => {
                        arrange::transpose(view, Place { column, width: all_out }, &mut out);
                        column += out_width;
                    }
                    _ => return Err(misfit(name, view, &[left / (views.len() - i), rows_in])),
                }
            }
        }
        (Make::Joined, &[width]) => {
            let mut at = 0;
            for (i, (name, view)) in views.iter().enumerate() {
                match *view.shape {
                    [n] if n <= width - at && (i + 1 < views.len() || n == width - at) => {
                        arrange::copy(view, &mut out[at..at + n]);
                        at += n;
                    }
                    _ => return Err(misfit(name, view, &[(width - at) / (views.len() - i)])),
                }
            }
        }
        (Make::Taps, &[channels, kernel]) => {
            let (name, view) = first(0)?;
            if view.shape != [channels, 1, kernel] {
                return Err(misfit(name, view, &[channels, 1, kernel]));
            }
            arrange::copy(view, &mut out);
        }
        (Make::Windows, &[window, width]) => {
            let (name, view) = first(0)?;
            match *view.shape {
                [out_width, inputs, kernel] if out_width == width && inputs.checked_mul(kernel) == Some(window) => {
                    arrange::windows(view, [out_width, inputs, kernel], &mut out);
                }
                _ => return Err(misfit(name, view, &[width, window])),
            }
        }
        (Make::WeightNorm, &[_, _, kernel]) => {
            let ((gain_name, gain), (name, direction)) = (first(0)?, first(1)?);
            if gain.shape != [1, 1, kernel] {
                return Err(misfit(gain_name, gain, &[1, 1, kernel]));
            }
            if direction.shape != shape {
                return Err(misfit(name, direction, shape));
            }
            let mut gains = vec![0.0; kernel];
            arrange::copy(gain, &mut gains);
            arrange::copy(direction, &mut out);
            arrange::weight_norm(&gains, &mut out);
        }
        (Make::ExpertsTransposed, &[experts, rows_in, width]) if views.len() == experts => {
            for ((name, view), out) in views.iter().zip(out.chunks_exact_mut((rows_in * width).max(1))) {
                if view.shape != [width, rows_in] {
                    return Err(misfit(name, view, &[width, rows_in]));
                }
                arrange::transpose(view, Place { column: 0, width }, out);
            }
        }
        (Make::ExpertsJoined, &[experts, width]) if views.len() == experts => {
            for ((name, view), out) in views.iter().zip(out.chunks_exact_mut(width.max(1))) {
                if view.shape != [width] {
                    return Err(misfit(name, view, &[width]));
                }
                arrange::copy(view, out);
            }
        }
        _ => return Err(Fault::Mismatched(format!("a parameter of shape {shape:?} cannot be made by {make:?}"))),
    }
    Ok(out)
}

/// The shape that the tensors of a row must have, for messages.
fn their_shape(make: Make, shape: &[usize], sources: usize) -> Vec<usize> {
    match (make, shape) {
        (Make::Transposed, &[rows_in, all_out]) => vec![all_out / sources.max(1), rows_in],
        (Make::Joined, &[width]) => vec![width / sources.max(1)],
        (Make::Taps, &[channels, kernel]) => vec![channels, 1, kernel],
        (Make::Windows, &[window, width]) => vec![width, window],
        (Make::ExpertsTransposed, &[_, rows_in, width]) => vec![width, rows_in],
        (Make::ExpertsJoined, &[_, width]) => vec![width],
        _ => shape.to_vec(),
    }
}

/// Copies of one shared tensor must be one tensor.
fn check_copies(views: &[(String, View<'_>)]) -> Result<(), Fault> {
    let Some(((first, view), rest)) = views.split_first() else { return Ok(()) };
    match rest.iter().find(|(_, v)| (v.dtype, v.shape, v.bytes) != (view.dtype, view.shape, view.bytes)) {
        Some((other, _)) => Err(Fault::Mismatched(format!("{other} differs from {first}: a shared router is one tensor"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_capture_numbers() {
        assert_eq!(captured("a.{}.b.{}", "a.3.b.12"), Some(vec!["3", "12"]));
        assert_eq!(captured("a.b", "a.b"), Some(vec![]));
        for other in ["a.x.b.1", "a.3.b", "a.3.b.1.c", "a.3.c.1"] {
            assert_eq!(captured("a.{}.b.{}", other), None, "{other}");
        }
        assert!(ignores("x.{}.y", "x.7.y") && ignores("x.*", "x.anything.at.all") && !ignores("x.*", "y.x."));
    }
}
