//! What is read of a line may take up many times as much memory as the line: where it has parts without end, their number is
//! bounded while it is read.

use std::{cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess},
};
use serde_json::{Map, Value};

use super::job::Case;

const MOST_CASES: usize = 10_000;
/// Of all that is in the metadata of a job: lists, maps, and what they hold.
const MOST_VALUES: usize = 100_000;

pub(super) fn cases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Case>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<Case>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of cases")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Case>, A::Error> {
            let mut cases = Vec::new();
            while let Some(case) = list.next_element()? {
                if cases.len() == MOST_CASES {
                    return Err(de::Error::custom(format!("a job has at most {MOST_CASES} cases")));
                }
                cases.push(case);
            }
            Ok(cases)
        }
    }
    deserializer.deserialize_seq(Visitor)
}

pub(super) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Ok(Option::<Bounded>::deserialize(deserializer)?.map(|Bounded(value)| value))
}

/// Any value, of so many parts at most.
pub(super) struct Bounded(pub(super) Value);

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Part { left: &Cell::new(MOST_VALUES) }.deserialize(deserializer).map(Self)
    }
}

#[derive(Clone, Copy)]
struct Part<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| de::Error::custom(format!("it has over {MOST_VALUES} parts")))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key()? {
            values.insert(name, map.next_value_seed(self)?);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::Job;

    #[test]
    fn a_short_line_is_no_large_job() {
        for (line, told) in [
            (format!("{{\"cases\": [{}{{}}]}}", "{},".repeat(10_000)), "`cases`: a job has at most 10000 cases"),
            (
                format!("{{\"metadata\": [{}0]}}", "[0],".repeat(50_000)),
                "`metadata[49999][0]`: it has over 100000 parts",
            ),
        ] {
            let error = Job::parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
        let line = format!(
            "{{\"cases\":[{}{{}}],\"metadata\":{{\"a\":[1,-2,0.5,\"x\",null,true,{{}}]}}}}",
            "{},".repeat(9999)
        );
        assert_eq!(serde_json::to_string(&Job::parse(line.as_bytes()).unwrap()).unwrap(), line);
        assert_eq!(Job::parse(b"{\"metadata\": null}").unwrap(), Job::default());
    }
}
