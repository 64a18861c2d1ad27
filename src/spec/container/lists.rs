//! Lists of numbers as the kernel writes them: `0-3,7`.

use std::ops::RangeInclusive;

/// More processors and memory nodes than any kernel is built for.
const MOST: u32 = 65_535;

/// The ranges of a list, or `None` where it is none. An empty one is no list.
#[must_use]
pub fn number_list(text: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten().filter(|number| *number <= MOST)
    };
    text.split(',')
        .map(|part| match part.trim().split_once('-') {
            Some((from, to)) => {
                let (from, to) = (number(from)?, number(to)?);
                (from <= to).then_some(from..=to)
            }
            None => number(part.trim()).map(|number| number..=number),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_whole_or_not_at_all() {
        assert_eq!(number_list("0-3, 7"), Some(vec![0..=3, 7..=7]));
        assert_eq!(number_list("5"), Some(vec![5..=5]));
        for wrong in ["", ",", "1,", "-1", "3-1", "a", "1-", "+1", "1--2", "65536", "99999999999"] {
            assert_eq!(number_list(wrong), None, "{wrong}");
        }
    }
}
