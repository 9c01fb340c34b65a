//! The known name that is most like a wrong one.

/// Of `names` the one with the fewest edits to `wanted`, if that is less than a third of its letters.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut limit = wanted.len() / 3;
    let mut best = None;
    // A hostile file may hold very many names.
    for name in names.filter(|n| n.len() < 256).take(5000) {
        if let Some(edits) = edits_within(wanted.as_bytes(), name.as_bytes(), limit) {
            best = Some(name);
            let Some(less) = edits.checked_sub(1) else { break };
            limit = less;
        }
    }
    best
}

/// Edit distance of `a` and `b` where it is at most `limit`.
fn edits_within(a: &[u8], b: &[u8], limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        let mut least = row[0];
        for (j, y) in b.iter().enumerate() {
            let edits = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = edits;
            least = least.min(edits);
        }
        if least > limit {
            return None;
        }
    }
    row.last().copied().filter(|&edits| edits <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_edits_win() {
        let names = ["encoder.layers.0.conv.weight", "encoder.layers.0.conv.bias", "head.weight"];
        assert_eq!(nearest("encoder.layer.0.conv.weight", names.into_iter()), Some(names[0]));
        assert_eq!(nearest("encoder.layers.0.conv.bais", names.into_iter()), Some(names[1]));
        assert_eq!(nearest("something else", names.into_iter()), None);
        assert_eq!(edits_within(b"kitten", b"sitting", 3), Some(3));
        assert_eq!(edits_within(b"kitten", b"sitting", 2), None);
    }
}
