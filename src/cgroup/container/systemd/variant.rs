//! Values of properties as annotations have them: GVariant's text, as much of it as properties of units are made of.
//!
//! `org.systemd.property.TimeoutStopUSec: uint64 90000000`, `…CollectMode: 'inactive-or-failed'`, `…After: ['a.service']`

use super::wire::Value;

const PREFIX: &str = "org.systemd.property.";

/// The property that an annotation sets, if it sets one.
pub(super) fn property(key: &str, text: &str) -> Option<Result<(String, Value), String>> {
    let name = key.strip_prefix(PREFIX)?;
    let wrong = |why: &str| format!("annotation {key}={text}: {why}");
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Some(Err(wrong("that is no name of a property")));
    }
    let Some(value) = parse(text) else { return Some(Err(wrong("that is no value of a property"))) };
    // `…Sec` is a word of unit files; on the bus there is `…USec` alone.
    Some(match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|last: char| last.is_ascii_lowercase())) {
        Some(stem) => match microseconds(&value) {
            Some(time) => Ok((format!("{stem}USec"), Value::U64(time))),
            None => Err(wrong("that is no time")),
        },
        None => Ok((name.to_owned(), value)),
    })
}

fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match seconds {
        Value::Byte(value) => u64::from(*value),
        Value::I16(value) => u64::try_from(*value).ok()?,
        Value::U16(value) => u64::from(*value),
        Value::I32(value) => u64::try_from(*value).ok()?,
        Value::U32(value) => u64::from(*value),
        Value::I64(value) => u64::try_from(*value).ok()?,
        Value::U64(value) => *value,
        Value::Double(value) if value.is_finite() && *value >= 0.0 => return Some((value * 1e6) as u64),
        _ => return None,
    };
    whole.checked_mul(1_000_000)
}

fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        "@as []" => return Some(Value::List("s", Vec::new())),
        _ => {}
    }
    if let Some(inner) = text.strip_prefix('[') {
        return list(inner.strip_suffix(']')?);
    }
    if text.starts_with(['\'', '"']) {
        let (value, rest) = quoted(text)?;
        return rest.is_empty().then_some(Value::Text(value));
    }
    match text.split_once(' ') {
        Some((kind, number)) => {
            let number = number.trim();
            Some(match kind {
                "byte" => Value::Byte(number.parse().ok()?),
                "int16" => Value::I16(number.parse().ok()?),
                "uint16" => Value::U16(number.parse().ok()?),
                "int32" => Value::I32(number.parse().ok()?),
                "uint32" => Value::U32(number.parse().ok()?),
                "int64" => Value::I64(number.parse().ok()?),
                "uint64" => Value::U64(number.parse().ok()?),
                "double" => Value::Double(number.parse().ok()?),
                _ => return None,
            })
        }
        None if text.contains('.') => text.parse().ok().map(Value::Double),
        None => text.parse().ok().map(Value::I32),
    }
}

/// Of texts, or of numbers of the type that the first one has.
fn list(mut rest: &str) -> Option<Value> {
    rest = rest.trim();
    let mut values: Vec<Value> = Vec::new();
    while !rest.is_empty() {
        let (value, after) = if rest.starts_with(['\'', '"']) {
            let (text, after) = quoted(rest)?;
            (Value::Text(text), after)
        } else {
            let (one, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            (like(one.trim(), values.first())?, after)
        };
        values.push(value);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) if !after.trim().is_empty() => rest = after.trim_start(),
            None if rest.is_empty() => {}
            _ => return None,
        }
    }
    let of = match values.first()? {
        Value::Text(_) => "s",
        Value::Bool(_) => "b",
        Value::Byte(_) => "y",
        Value::I16(_) => "n",
        Value::U16(_) => "q",
        Value::I32(_) => "i",
        Value::U32(_) => "u",
        Value::I64(_) => "x",
        Value::U64(_) => "t",
        Value::Double(_) => "d",
        Value::List(..) | Value::Struct(_) => return None,
    };
    values.iter().all(|value| value.signature() == of).then_some(Value::List(of, values))
}

/// Only the first number of a list says its type.
fn like(text: &str, first: Option<&Value>) -> Option<Value> {
    let kind = match first {
        Some(Value::Byte(_)) => "byte ",
        Some(Value::I16(_)) => "int16 ",
        Some(Value::U16(_)) => "uint16 ",
        Some(Value::U32(_)) => "uint32 ",
        Some(Value::I64(_)) => "int64 ",
        Some(Value::U64(_)) => "uint64 ",
        Some(Value::Double(_)) => "double ",
        _ => "",
    };
    if text.contains(' ') { parse(text) } else { parse(&format!("{kind}{text}")) }
}

/// The text in quotes, and what follows them.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next()?;
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            '\0' => return None,
            char if char == quote => return Some((value, &text[at + char.len_utf8()..])),
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Option<(String, Value)> {
        property(&format!("{PREFIX}{name}"), text).unwrap().ok()
    }

    #[test]
    fn values() {
        assert_eq!(parse("true"), Some(Value::Bool(true)));
        assert_eq!(parse("15"), Some(Value::I32(15)));
        assert_eq!(parse("uint64 90000000"), Some(Value::U64(90_000_000)));
        assert_eq!(parse("1.5"), Some(Value::Double(1.5)));
        assert_eq!(parse("'inactive-or-failed'"), Some(Value::text("inactive-or-failed")));
        assert_eq!(parse(r#""it's \"it\"""#), Some(Value::text(r#"it's "it""#)));
        let texts = Value::List("s", vec![Value::text("a.service"), Value::text("b, c")]);
        assert_eq!(parse("['a.service', 'b, c']"), Some(texts));
        assert_eq!(parse("[uint32 1, 2]"), Some(Value::List("u", vec![Value::U32(1), Value::U32(2)])));
        assert_eq!(parse("@as []"), Some(Value::List("s", vec![])));
        let nonsense = ["", "'open", "'a' b", "[1, 'a']", "[1,]", "[]", "int8 1", "uint32 -1", "2147483648", "[1", "a"];
        for text in nonsense {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn properties() {
        assert_eq!(property("other.annotation", "1"), None);
        assert_eq!(of("KillSignal", "37"), Some(("KillSignal".to_owned(), Value::I32(37))));
        let stop = |micros| Some(("TimeoutStopUSec".to_owned(), Value::U64(micros)));
        assert_eq!(of("TimeoutStopUSec", "uint64 5"), stop(5));
        assert_eq!(of("TimeoutStopSec", "5"), stop(5_000_000));
        assert_eq!(of("TimeoutStopSec", "1.5"), stop(1_500_000));
        for (name, text) in
            [("TimeoutStopSec", "'x'"), ("TimeoutStopSec", "-1"), ("A", "1"), ("A-b", "1"), ("Name", "?")]
        {
            assert_eq!(of(name, text), None, "{name}={text}");
        }
    }
}
