//! Programs to be run both ways, as `programs/*.txt` has them: after a name come lines of what it is given, then its
//! code. With `times`, it is as many programs, in which `{n}` is 0, 1, 2, …

use std::path::Path;

use fumehood::{
    Sandbox, Stdin,
    request::{Bytes, Fetch, Limits},
};

pub struct Program {
    pub name: String,
    runtime: String,
    code: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    files: Vec<(String, Vec<u8>)>,
    fetch: Option<String>,
}

impl Program {
    pub fn all(runtime: &str) -> Vec<Self> {
        let path = format!("{}/tests/pool/programs/{runtime}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let text = format!("\n{text}");
        let parts = text.split("\n=== ").skip(1);
        parts.flat_map(|part| Self::several(runtime, part)).collect()
    }

    fn several(runtime: &str, part: &str) -> Vec<Self> {
        let (head, code) = part.split_once("---\n").expect("a line --- before the code");
        let mut lines = head.lines();
        let name = lines.next().unwrap();
        let given: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").expect(line)).collect();
        let get = |key: &str| given.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
        let times: usize = get("times").map_or(1, |times| times.parse().unwrap());
        (0..times)
            .map(|n| {
                let fill = |text: &str| text.replace("{n}", &n.to_string());
                let words = |key| get(key).map(fill).unwrap_or_default();
                let assignments = |text: &str| -> Vec<(String, String)> {
                    let words = text.split(' ').filter_map(|word| word.split_once('='));
                    words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
                };
                Self {
                    name: format!("{name} {n}"),
                    runtime: runtime.to_owned(),
                    code: fill(code),
                    args: words("args").split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
                    env: assignments(&words("env")),
                    stdin: get("stdin").map(unescape),
                    files: assignments(get("files").unwrap_or_default())
                        .into_iter()
                        .map(|(path, content)| (path, unescape(&content)))
                        .collect(),
                    fetch: get("fetch").map(str::to_owned),
                }
            })
            .collect()
    }

    /// `work`: where it has its files on the host.
    pub fn sandbox(&self, work: &Path) -> Sandbox {
        let mut sandbox = Sandbox::code(self.code.as_bytes());
        sandbox.runtime(&self.runtime).args(&self.args);
        sandbox.limits(Limits { output: Bytes::new(300_000), memory: Bytes::mib(256), cpus: 2.0, ..Limits::default() });
        for (name, value) in &self.env {
            sandbox.env(name, value);
        }
        if let Some(stdin) = &self.stdin {
            sandbox.stdin(Stdin::Bytes(stdin.clone()));
        }
        for (number, (path, content)) in self.files.iter().enumerate() {
            let host = work.join(number.to_string());
            std::fs::write(&host, content).unwrap();
            sandbox.copy_file(host, Some(Path::new("/sandbox").join(path)));
        }
        if let Some(fetch) = &self.fetch {
            let to = work.join("fetched");
            _ = std::fs::remove_dir_all(&to);
            std::fs::create_dir(&to).unwrap();
            sandbox.fetch(Fetch::parse(&format!("{fetch}:{}", to.join("it").display())).unwrap());
        }
        sandbox
    }
}

/// `\n`, `\xHH`.
fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        if let Some(after) = after.strip_prefix('n') {
            bytes.push(b'\n');
            rest = after;
        } else {
            let after = after.strip_prefix('x').expect(text);
            bytes.push(u8::from_str_radix(&after[..2], 16).expect(text));
            rest = &after[2..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
