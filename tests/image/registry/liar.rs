//! A server that says whatever a test wants, byte for byte.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::made::Made;

#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// How often this path was asked for before.
    pub before: usize,
}

#[derive(Debug, Clone)]
pub enum Reply {
    /// And then the connection is closed.
    Bytes(Vec<u8>),
    /// And then nothing, for as long as the other waits.
    Silence(Vec<u8>),
}

pub struct Liar {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
}

impl Liar {
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, over) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let (answer, all, ended) = (Arc::new(answer), asked.clone(), over.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (answer, all, ended) = (answer.clone(), all.clone(), ended.clone());
                // A test's end breaks what is left.
                thread::spawn(move || stream.map(|stream| serve(stream, &*answer, &all, &ended)));
            }
        });
        Self { port, asked, over }
    }

    /// An honest registry of one image, but for what `lie` says.
    pub fn of(made: Made, lie: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self::start(move |asked| lie(asked).unwrap_or_else(|| honest(&made, asked)))
    }

    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes who accepts.
        _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &dyn Fn(&Asked) -> Reply,
    all: &Mutex<Vec<Asked>>,
    over: &AtomicBool,
) -> std::io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first)?;
    // A TLS handshake, which this is not about.
    if first[0] == 0x16 {
        return Ok(());
    }
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    let length: u64 = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    std::io::copy(&mut lines.by_ref().take(length), &mut std::io::sink())?;
    let asked = {
        let mut all = all.lock().unwrap();
        let before = all.iter().filter(|one| one.path == path).count();
        all.push(Asked { method, path, headers, before });
        all.last().unwrap().clone()
    };
    match answer(&asked) {
        Reply::Bytes(bytes) => stream.write_all(&bytes),
        Reply::Silence(bytes) => {
            stream.write_all(&bytes)?;
            stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            while !over.load(Ordering::Relaxed) {
                // The other's end of it.
                if matches!(stream.read(&mut first), Ok(0)) {
                    break;
                }
            }
            Ok(())
        }
    }
}

/// As a registry would.
pub fn honest(made: &Made, asked: &Asked) -> Reply {
    let last = asked.path.rsplit('/').next().unwrap_or_default();
    if asked.path.contains("/manifests/") {
        let digest = if last.starts_with("sha256:") { last } else { &made.root };
        return match made.blobs.get(digest) {
            Some(bytes) => ok(&format!("Content-Type: {}\r\nDocker-Content-Digest: {digest}\r\n", made.kind), bytes),
            None => status(404, "", b""),
        };
    }
    match made.blobs.get(last) {
        None if asked.path == "/v2/" => ok("", b"{}"),
        None => status(404, "", b""),
        Some(bytes) => match start(asked) {
            Some(start) => part(bytes, start),
            None => ok("", bytes),
        },
    }
}

/// Where the range begins that was asked for.
pub fn start(asked: &Asked) -> Option<usize> {
    asked.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

pub fn part(bytes: &[u8], start: usize) -> Reply {
    let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    status(206, &range, &bytes[start..])
}

pub fn ok(headers: &str, body: &[u8]) -> Reply {
    status(200, headers, body)
}

pub fn status(status: u16, headers: &str, body: &[u8]) -> Reply {
    let length = format!("Content-Length: {}\r\n", body.len());
    head(status, &(headers.to_owned() + &length), body)
}

/// With no length but what `headers` say.
pub fn head(status: u16, headers: &str, body: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}\r\n");
    Reply::Bytes([head.as_bytes(), body].concat())
}
