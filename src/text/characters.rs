//! Character classes as Python's `re` and `unicodedata` see them, since the scoring normalisers are defined by Python programs.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// What `\w` matches: letters, numbers of every script and `_`; combining marks do not count.
pub fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number)
}

/// What `\s` matches and `str.split()` splits at: Unicode white space and the four ASCII separators 0x1C..=0x1F.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// What `\d` matches: decimal digits of every script.
pub fn is_digit(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { c.general_category() == GeneralCategory::DecimalNumber }
}

/// Value 0..=9 of a decimal digit of any script; `None` for other characters.
///
/// Unicode assigns the decimal digits of a script in one run from zero to nine, so the value is the distance to the run's start.
/// The one place where runs touch (mathematical digits, U+1D7CE) is five whole runs long.
pub fn digit_value(c: char) -> Option<u8> {
    if c.is_ascii() {
        return c.to_digit(10).map(|d| d as u8);
    }
    if !is_digit(c) {
        return None;
    }
    let before = (1..60).take_while(|&back| char::from_u32(c as u32 - back).is_some_and(is_digit)).count();
    Some((before % 10) as u8)
}

/// Nonspacing marks: accents that canonical decomposition split off.
pub fn is_nonspacing_mark(c: char) -> bool {
    !c.is_ascii() && c.general_category() == GeneralCategory::NonspacingMark
}

/// Marks, symbols and punctuation, the three groups the normalisers turn into spaces.
pub fn is_mark_symbol_or_punctuation(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_punctuation();
    }
    matches!(c.general_category_group(), GeneralCategoryGroup::Mark | GeneralCategoryGroup::Symbol | GeneralCategoryGroup::Punctuation)
}

/// ASCII spelling of Latin letters that canonical decomposition leaves whole (`ß`, `ø`, ...), with their case.
pub fn undecomposed_latin(c: char) -> Option<&'static str> {
    Some(match c {
        'œ' => "oe",
        'Œ' => "OE",
        'ø' => "o",
        'Ø' => "O",
        'æ' => "ae",
        'Æ' => "AE",
        'ß' => "ss",
        'ẞ' => "SS",
        'đ' | 'ð' => "d",
        'Đ' | 'Ð' => "D",
        'þ' => "th",
        'Þ' => "Th",
        'ł' => "l",
        'Ł' => "L",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_other_scripts_have_their_value() {
        for (c, value) in [('0', 0), ('9', 9), ('٣', 3), ('९', 9), ('𝟎', 0), ('𝟡', 9), ('𝟘', 0), ('߀', 0)] {
            assert_eq!(digit_value(c), Some(value), "{c}");
        }
        assert_eq!(digit_value('x'), None);
        assert_eq!(digit_value('½'), None);
    }

    #[test]
    fn words_exclude_combining_marks() {
        assert!(is_word('é') && is_word('_') && is_word('²') && is_word('語'));
        assert!(!is_word('\u{301}') && !is_word('\'') && !is_word('।'));
    }
}
