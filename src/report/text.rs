//! Where bytes are text: a stream is cut into chunks without regard to characters.

/// How many bytes at the end begin a UTF-8 character that more bytes could complete: 0 to 3.
pub(super) fn unfinished(bytes: &[u8]) -> usize {
    let begins = |tail: &[u8]| matches!(std::str::from_utf8(tail), Err(error) if error.valid_up_to() == 0 && error.error_len().is_none());
    (1..=bytes.len().min(3)).find(|n| begins(&bytes[bytes.len() - n..])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_character_cut_short_is_unfinished() {
        for text in ["é", "€", "🧪", "a€", "\u{10ffff}"] {
            let last = text.chars().next_back().map_or(0, char::len_utf8);
            let bytes = text.as_bytes();
            assert_eq!(unfinished(bytes), 0, "{text}");
            for cut in 1..last {
                assert_eq!(unfinished(&bytes[..bytes.len() - cut]), last - cut, "{text} without {cut}");
            }
        }
        // No continuation makes these a character.
        for bytes in [&b""[..], b"a", b"\x80", b"\xff", b"\xc0", b"\xed\xa0", b"\xf5", b"\xe2\x82\x82\x82"] {
            assert_eq!(unfinished(bytes), 0, "{bytes:x?}");
        }
        assert_eq!(unfinished(b"\xff\xc3"), 1);
        assert_eq!(unfinished(b"\xc3\xc3"), 1);
    }
}
