//! A job as the row of a table: its columns are the fields, with a dot between the parts of a name.

use serde_json::{Map, Value};

use super::{
    error::{BatchError, JobError},
    job::{Job, Known, Label},
};

/// The columns, in order.
#[derive(Debug, Clone)]
pub struct Columns(Vec<String>);

const TEXTS: [&str; 9] = ["id", "code", "file", "cmd", "runtime", "stdin", "image", "user", "workdir"];
const OTHERS: [&str; 13] = [
    "argv",
    "args",
    "get",
    "net",
    "isolation",
    "limits",
    "expect",
    "cases",
    "stop_at_first",
    "metadata",
    "env",
    "files",
    "expect.exit_code",
];
const LIMITS: [&str; 9] = ["memory", "cpu", "pids", "timeout", "cpu_time", "output", "disk", "tmp", "nofile"];
const EXPECTED: [&str; 6] = ["verdict", "stdout", "stderr", "stdout_regex", "stderr_regex", "compare"];
/// Below these any name will do.
const OPEN: [&str; 4] = ["env", "files", "metadata", "expect.files"];

impl Columns {
    /// Reads the first row.
    pub fn parse(row: &[u8]) -> Result<Self, BatchError> {
        let row = row.strip_prefix(b"\xef\xbb\xbf").unwrap_or(row);
        let names = fields(row).map_err(|why| BatchError::Header { why })?;
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                return Err(BatchError::Header { why: format!("`{name}` is there twice") });
            }
            if !known(name) {
                let all = TEXTS.into_iter().chain(OTHERS).map(str::to_owned);
                let all = all.chain(LIMITS.map(|limit| format!("limits.{limit}")));
                let all: Vec<String> = all.chain(EXPECTED.map(|what| format!("expect.{what}"))).collect();
                if name.len() > JobError::LONGEST_NAME {
                    let hint = Some(format!("there are {}", all.join(", ")));
                    return Err(BatchError::Column { name: JobError::clip(name), hint });
                }
                let near = all.iter().map(|known| (strsim::osa_distance(name, known), known)).min();
                let hint = match near {
                    _ if LIMITS.contains(&name.as_str()) => format!("limits are written as `limits.{name}`"),
                    Some((distance, near)) if distance <= 2 => format!("did you mean `{near}`?"),
                    _ => format!("there are {}", all.join(", ")),
                };
                return Err(BatchError::Column { name: name.clone(), hint: Some(hint) });
            }
        }
        Ok(Self(names))
    }

    /// Of a row that is no job.
    pub(super) fn known(&self, row: &[u8]) -> Option<Known> {
        let cells = fields(row).ok()?;
        if cells.len() != self.0.len() {
            // Which cell is whose is not known.
            return Some(Known::default());
        }
        let cell = |wanted: &str| {
            let said = self.0.iter().zip(&cells).find(|(name, cell)| *name == wanted && !cell.is_empty());
            said.and_then(|(name, cell)| value(name, cell.clone()).ok())
        };
        let id = cell("id").and_then(|id| id.as_str().map(|id| Label::Text(id.to_owned())));
        let metadata =
            self.0.iter().zip(&cells).filter_map(|(name, cell)| Some((name.strip_prefix("metadata.")?, cell)));
        let parts: Map<String, Value> =
            metadata.map(|(name, cell)| (name.to_owned(), Value::String(cell.clone()))).collect();
        let metadata = cell("metadata").or_else(|| (!parts.is_empty()).then_some(Value::Object(parts)));
        let expects = self.0.iter().zip(&cells).any(|(name, cell)| name.starts_with("expect") && !cell.is_empty());
        Some(Known { id, metadata, expects })
    }

    /// Reads a row. A cell with nothing in it says nothing.
    pub fn job(&self, row: &[u8]) -> Result<Job, JobError> {
        let cells = fields(row).map_err(JobError::new)?;
        if cells.len() != self.0.len() {
            return Err(JobError::new(format!("it has {} cells, and the table {} columns", cells.len(), self.0.len())));
        }
        let mut job = Map::new();
        for (name, cell) in self.0.iter().zip(cells).filter(|(_, cell)| !cell.is_empty()) {
            let value = value(name, cell).map_err(|why| JobError::new(format!("`{name}`: {why}")))?;
            let (place, last) = match name.split_once('.') {
                Some(("expect", rest)) if rest.starts_with("files.") => {
                    let expect = below(&mut job, "expect");
                    (expect.and_then(|expect| below(expect, "files")), &rest["files.".len()..])
                }
                Some((first, rest)) => (below(&mut job, first), rest),
                None => (Some(&mut job), name.as_str()),
            };
            match place {
                Some(place) => _ = place.insert(last.to_owned(), value),
                None => return Err(JobError::new(format!("`{name}`: another column says all of it"))),
            }
        }
        Job::from_value(Value::Object(job))
    }
}

fn below<'a>(map: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    map.entry(name).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

fn known(name: &str) -> bool {
    let open =
        OPEN.iter().any(|open| name.strip_prefix(open).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.')));
    open || TEXTS.contains(&name)
        || OTHERS.contains(&name)
        || name.strip_prefix("limits.").is_some_and(|rest| LIMITS.contains(&rest))
        || name.strip_prefix("expect.").is_some_and(|rest| EXPECTED.contains(&rest))
}

fn value(name: &str, cell: String) -> Result<Value, String> {
    let json = |cell: &str| serde_json::from_str(cell).map_err(|error| error.to_string());
    match name {
        "args" | "argv" | "get" if !cell.starts_with('[') => {
            Ok(cell.split_whitespace().map(|word| Value::String(word.to_owned())).collect())
        }
        "net" if !cell.starts_with('{') => Ok(Value::String(cell)),
        "metadata" if !cell.starts_with(['{', '[']) => Ok(Value::String(cell)),
        "isolation" => Ok(Value::String(cell)),
        name if OTHERS.contains(&name) => json(&cell),
        _ => Ok(Value::String(cell)),
    }
}

fn fields(row: &[u8]) -> Result<Vec<String>, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(row);
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(true) => Ok(record.iter().map(str::to_owned).collect()),
        Ok(false) => Err("it is empty".to_owned()),
        Err(error) => Err(match error.kind() {
            csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
            _ => error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_job_that_a_line_is() {
        let header = "id,code,args,limits.timeout,expect.stdout,expect.exit_code,env.A,metadata.n,stdin";
        let columns = Columns::parse(header.as_bytes()).unwrap();
        let row = "7,\"print(\"\"a\"\")\nprint(2)\",x y,2s,\"a\n\",0,b c,1,";
        let line = r#"{"id": "7", "code": "print(\"a\")\nprint(2)", "args": ["x", "y"], "limits": {"timeout": "2s"},
            "expect": {"stdout": "a\n", "exit_code": 0}, "env": {"A": "b c"}, "metadata": {"n": "1"}}"#;
        assert_eq!(columns.job(row.as_bytes()).unwrap(), Job::parse(line.as_bytes()).unwrap());
        assert!(columns.job(b"1,2").unwrap_err().to_string().contains("2 cells"));
    }

    #[test]
    fn a_column_that_there_is_none_of_is_told() {
        for (header, told) in [
            ("id,cdoe", "did you mean `code`?"),
            ("code,timeout", "limits are written as `limits.timeout`"),
            ("code,limits.timeuot", "did you mean `limits.timeout`?"),
        ] {
            let error = Columns::parse(header.as_bytes()).unwrap_err();
            assert_eq!(crate::error::Hint::hint(&error).unwrap(), told, "{header}");
        }
        assert!(Columns::parse(b"code,code").is_err());
    }
}
