//! `selftest`: the known ways around a network filter, tried on this host's own.
//!
//! Each attempt is made twice against the same hostile servers: once without a sandbox, where it has to get through, or
//! it would prove nothing, and once inside of one that was made as every other is. Whether it got through is what the
//! servers and the wire have seen, or what the program inside got hold of. Nothing of the machine's own network is
//! touched ([`world`]).

mod attempts;
mod bytes;
mod error;
mod keys;
mod names;
mod probe;
mod servers;
mod tls;
mod world;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::TcpStream,
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};

use serde::Serialize;

pub use self::error::SelftestError;
use self::{
    attempts::{Attempt, ROWS, Row as About, Under},
    names::{ALLOWED, KEYED, WILD},
    probe::{Line, Saw},
    world::World,
};
use crate::{
    Observer, Sandbox,
    launch::{Started, control::Request},
    net::{
        Policy,
        policy::{Injection, Mode},
    },
    report::{self, Outcome},
    request::{Limits, Network, SandboxId},
    state,
    sys::process,
};

/// The word by which this program is the probe.
pub const PROBE: &str = "selftest-probe";

/// Starts that are watched for what comes before the rules.
const STARTS: usize = 5;
/// Attempts take much shorter; one that hangs has its own end.
const TIMEOUT: Duration = Duration::from_secs(240);

/// What stands around the program inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// As it is.
    Real,
    /// Any public host is allowed: to see what the test says where a filter has a hole.
    Public,
    /// Not even a sandbox: likewise.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Blocked,
    /// At least one of the attempts got through.
    NotBlocked,
    /// None of the attempts gets through on this host without a filter either.
    Untested,
    OutOfScope,
}

/// One way around, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub number: u8,
    pub bypass: &'static str,
    pub verdict: Verdict,
    /// What blocks it, or why there is nothing to say.
    pub how: &'static str,
    pub attempts: Vec<Tried>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Tried {
    pub what: &'static str,
    pub verdict: Verdict,
    /// What happened without a sandbox.
    pub without: String,
    /// What happened inside.
    pub within: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Nothing got through that could be tried.
    pub passed: bool,
    pub rows: Vec<Row>,
}

/// How an attempt ended: whether it got through, and what is known of it.
#[derive(Debug, Clone)]
enum Ended {
    Through(String),
    Kept(String),
    Impossible(String),
}

impl Ended {
    fn text(&self) -> String {
        match self {
            Self::Through(text) | Self::Kept(text) | Self::Impossible(text) => text.clone(),
        }
    }
}

/// Makes all attempts. The calling process must have one thread, and afterwards has the world's network. What can be read
/// from `signals` (a signalfd(2)) ends it, with nothing left.
///
/// # Errors
/// When the world or a sandbox cannot be made, and when what is allowed is not reached: then nothing is known.
pub fn egress(filter: Filter, signals: BorrowedFd<'_>) -> Result<Report, SelftestError> {
    let own = std::env::current_exe().map_err(SelftestError::io("find one's own program"))?;
    let world = World::make()?;
    let mut random = [0; 4];
    process::random(&mut random).map_err(SelftestError::io("get random bytes"))?;
    let test = Test { own, world, all: attempts::all(), salt: format!("{:08x}", u32::from_ne_bytes(random)), signals };
    let without = test.without()?;
    let within = if filter == Filter::None { test.without()? } else { test.within(filter)? };
    let rows: Vec<_> =
        (1..).zip(ROWS).map(|(number, (bypass, about))| test.row(number, bypass, about, &without, &within)).collect();
    Ok(Report { passed: rows.iter().all(|row| row.verdict != Verdict::NotBlocked), rows })
}

struct Test<'a> {
    signals: BorrowedFd<'a>,
    own: PathBuf,
    world: World,
    all: Vec<Attempt>,
    salt: String,
}

/// Hears under which id the sandbox is known.
struct Known(Arc<OnceLock<SandboxId>>);

impl Observer for Known {
    fn started(&mut self, start: &Started<'_>) -> io::Result<()> {
        _ = self.0.set(start.id.clone());
        Ok(())
    }
}

type Results = BTreeMap<usize, Ended>;

impl Test<'_> {
    /// Without a sandbox: from here.
    fn without(&self) -> Result<Results, SelftestError> {
        let mut results = Results::new();
        for under in Under::ALL {
            let mut lines = Vec::new();
            probe::make(&self.all, under, &self.salt, |line| {
                lines.push(line);
                self.go_on()
            })?;
            self.settle();
            results.extend(lines.into_iter().map(|line| (line.attempt, self.ended(line))));
            self.world.seen().clear();
        }
        Ok(results)
    }

    fn go_on(&self) -> Result<(), SelftestError> {
        process::read_signal(self.signals).map_or(Ok(()), |signal| Err(SelftestError::Interrupted(signal as u8)))
    }

    fn within(&self, filter: Filter) -> Result<Results, SelftestError> {
        let mut results = Results::new();
        for under in Under::ALL {
            let starts = if under == Under::Start { STARTS } else { 1 };
            for _ in 0..starts {
                for line in self.run(filter, under)? {
                    let (attempt, ended) = (line.attempt, self.ended(line));
                    // Of many starts one is enough.
                    let through = matches!(ended, Ended::Through(_));
                    if through || !matches!(results.get(&attempt), Some(Ended::Through(_))) {
                        results.insert(attempt, ended);
                    }
                }
                self.world.seen().clear();
            }
        }
        Ok(results)
    }

    /// One sandbox, and what the probe in it said.
    fn run(&self, filter: Filter, under: Under) -> Result<Vec<Line>, SelftestError> {
        const INSIDE: &str = "/sandbox/probe";
        let mut sandbox = Sandbox::command(INSIDE);
        sandbox.copy_file(&self.own, Some(INSIDE.into())).args([PROBE, under.as_str(), &self.salt]);
        sandbox.network(network(filter, under, &self.salt)?);
        sandbox.limits(Limits { timeout: Some(TIMEOUT), ..Limits::default() });
        let known = Arc::new(OnceLock::new());
        // The other way around there would be nothing that is tightened: a hole.
        let tightens = (under == Under::Tightened && filter == Filter::Real).then(|| self.tighten_if_wished(&known));
        let outcome = sandbox.run(Some(self.signals), &mut Known(known));
        drop(tightens);
        let outcome = outcome.map_err(SelftestError::Run)?;
        // One that came while nobody watched, and one that ended the sandbox.
        self.go_on()?;
        if let (report::Verdict::Signaled, Some(signal)) = (outcome.verdict, outcome.signal) {
            return Err(SelftestError::Interrupted(signal));
        }
        self.settle();
        let lines = outcome.stdout.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines: Vec<Said> = lines
            .map(|line| serde_json::from_slice(line).map_err(|_| SelftestError::Probe(told(&outcome))))
            .collect::<Result<_, _>>()?;
        let mut made = Vec::new();
        for said in lines {
            match said {
                Said::Made(line) => made.push(line),
                Said::Reached(None) => {}
                Said::Reached(Some(why)) => return Err(SelftestError::Allowed(why)),
            }
        }
        let expected = self.all.iter().filter(|attempt| attempt.under == under).count();
        if made.len() != expected {
            return Err(SelftestError::Probe(told(&outcome)));
        }
        Ok(made)
    }

    /// Until what is returned is dropped: gives the sandbox other rules as soon as the wish for them has got out of it.
    fn tighten_if_wished(&self, known: &Arc<OnceLock<SandboxId>>) -> mpsc::Sender<()> {
        let (ended, ending) = mpsc::channel();
        let (seen, wish, known) = (self.world.seen().clone(), attempts::wish(&self.salt), known.clone());
        std::thread::spawn(move || {
            while ending.recv_timeout(Duration::from_millis(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                if seen.witness(&wish, &[]).is_some() {
                    // If it fails nothing is tighter, and the test says so.
                    return known.get().and_then(|id| set(id, Policy::new(Mode::Filtered).ok()?));
                }
            }
            None
        });
        ended
    }

    /// Who made it may not know where it got.
    fn ended(&self, Line { attempt, saw }: Line) -> Ended {
        let token = probe::token(&self.salt, attempt);
        let addresses = self.all.get(attempt).map(Attempt::addresses).unwrap_or_default();
        match (self.world.seen().witness(&token, &addresses), saw) {
            (_, Saw::Through(what)) => Ended::Through(what),
            (Some(what), _) => Ended::Through(what),
            (None, Saw::Impossible(why)) => Ended::Impossible(why),
            (None, Saw::Kept(how)) => Ended::Kept(how),
        }
    }

    /// Returns when the servers have taken in what came before: they have heard of something that came after.
    fn settle(&self) {
        for round in 0..2 {
            let mark = format!("settled-{round}-{}", self.salt);
            let sent = TcpStream::connect("93.184.221.1:9999").and_then(|mut stream| stream.write_all(mark.as_bytes()));
            let mut looks = 0;
            while sent.is_ok() && looks < 5000 && self.world.seen().witness(&mark, &[]).is_none() {
                std::thread::sleep(Duration::from_millis(1));
                looks += 1;
            }
        }
    }

    fn row(&self, number: u8, bypass: &'static str, about: About, without: &Results, within: &Results) -> Row {
        let (how, otherwise) = match about {
            About::Tried(how) => (how, Verdict::Untested),
            About::OutOfScope(how) => (how, Verdict::OutOfScope),
        };
        let made = self.all.iter().enumerate().filter(|(_, attempt)| attempt.row == number);
        let attempts: Vec<_> = made
            .filter_map(|(at, attempt)| {
                let (without, within) = (without.get(&at)?, within.get(&at)?);
                let verdict = match (without, within) {
                    (_, Ended::Through(_)) => Verdict::NotBlocked,
                    (Ended::Through(_), _) => Verdict::Blocked,
                    _ => Verdict::Untested,
                };
                Some(Tried { what: attempt.what, verdict, without: without.text(), within: within.text() })
            })
            .collect();
        let any = |verdict| attempts.iter().any(|tried| tried.verdict == verdict);
        let verdict =
            [Verdict::NotBlocked, Verdict::Blocked].into_iter().find(|verdict| any(*verdict)).unwrap_or(otherwise);
        Row { number, bypass, verdict, how, attempts }
    }
}

fn network(filter: Filter, under: Under, salt: &str) -> Result<Network, SelftestError> {
    let rule = |text: &str| text.parse().map_err(SelftestError::Rule);
    let policy = match (filter, under) {
        (Filter::Public, Under::Names | Under::Start) => Policy::new(Mode::Public)?,
        (_, Under::Open | Under::Tightened) => {
            let mut policy = Policy::new(Mode::Open)?;
            policy.allow(rule("0.0.0.0/0")?)?;
            policy
        }
        (_, Under::Names | Under::Start | Under::Keys) => {
            let mut policy = Policy::new(Mode::Filtered)?;
            policy.allow(rule(ALLOWED)?)?;
            policy.allow(rule(&format!("*.{WILD}"))?)?;
            if under == Under::Keys {
                policy.allow(rule(KEYED[0])?)?;
                for name in KEYED {
                    let header = format!("{name}:{}={}", keys::HEADER, keys::key(salt));
                    policy.inject(Injection::parse(&header, |_| None)?)?;
                }
            }
            policy
        }
    };
    Ok(Network::Gateway(Box::new(policy)))
}

/// As `fumehood net set` does it.
fn set(id: &SandboxId, policy: Policy) -> Option<()> {
    let (record, _) = state::list().ok()?.into_iter().find(|(record, _)| record.id == id.as_str())?;
    let words = serde_json::to_vec(&Request::Set(Box::new(policy))).ok()?;
    record.say(&words).ok().map(drop)
}

fn told(outcome: &Outcome) -> String {
    let last = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().last().unwrap_or_default().to_owned();
    let error = outcome.error.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
    let words = [outcome.verdict.to_string(), error, last(&outcome.stderr.bytes)];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(": ")
}

/// What the probe says on its standard output, a line each.
#[derive(Debug, Serialize, serde::Deserialize)]
enum Said {
    Made(Line),
    /// Whether what is allowed is reached; if not, why.
    Reached(Option<String>),
}

/// The program inside: makes the attempts that its arguments say. Whether it could be heard.
#[must_use]
pub fn probe(arguments: &[String]) -> bool {
    let [under, salt] = arguments else { return false };
    let Some(under) = Under::ALL.into_iter().find(|known| known.as_str() == under) else { return false };
    // All that follows would be tried on a network that is somebody's.
    if !probe::is_inside() {
        eprintln!("error: {PROBE} is for the inside of `fumehood selftest`'s sandboxes alone");
        return false;
    }
    let out = std::io::stdout();
    let mut heard = true;
    let mut say = |said: &Said| {
        let line = serde_json::to_string(said).unwrap_or_default() + "\n";
        heard &= out.lock().write_all(line.as_bytes()).is_ok();
    };
    let Ok(()) = probe::make(&attempts::all(), under, salt, |line| {
        say(&Said::Made(line));
        Ok::<(), std::convert::Infallible>(())
    });
    // Where nothing is allowed any more, the attempts themselves began by what was.
    let reached = if under == Under::Tightened { Ok(()) } else { allowed() };
    say(&Said::Reached(reached.err().map(|error| error.to_string())));
    heard
}

/// What every filter must let through, or it would be no wonder what it blocks.
fn allowed() -> std::io::Result<()> {
    let expected = |what: &str, heard: Vec<u8>, begins: &[u8]| match heard.starts_with(begins) {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("{what}: heard {}", heard.escape_ascii()))),
    };
    let at = |port: u16| format!("{ALLOWED}:{port}");
    expected("HTTP", probe::say(&at(80), &bytes::get("allowed", ALLOWED))?, bytes::OK)?;
    expected("TLS", probe::say(&at(443), &bytes::plain_hello(ALLOWED))?, bytes::ALERT)?;
    expected("a server that speaks first", probe::hear(&at(servers::BANNER_PORT))?, servers::BANNER)
}
