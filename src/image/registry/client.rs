//! Requests to one registry about one repository: HTTPS, tokens, redirects (distribution-spec; RFC 9110).
//!
//! What is secret goes to the registry itself and to the token server it names, and nowhere else: a redirect to
//! another host is followed without it.

use std::{
    fs::File,
    io::{self, Read, Seek},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ureq::{
    Agent, Body, SendBody,
    http::{Request, Response, header},
    tls::TlsConfig,
    unversioned::{resolver::DefaultResolver, transport::DefaultConnector},
};

use super::{
    Access,
    address::{Guard, Home, Reach, Refused},
    answer,
    challenge::{self, Challenge},
    credentials::{self, Credentials},
    error::RegistryError,
    token, trust,
    url::Url,
};

pub type Result<T> = std::result::Result<T, RegistryError>;
pub type Headers<'a> = &'a [(&'static str, String)];

const MOST_REDIRECTS: usize = 5;
/// Less than this in the time that silence is allowed is silence too.
const LEAST_BYTES: u64 = 4096;

/// What is sent along.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    File(&'a File, u64),
}

/// The ways out: to the registry that the user named, and to places that it names.
#[derive(Debug)]
pub struct Web {
    registry: String,
    /// With its port, as it is named.
    host: String,
    at: Url,
    access: Access,
    home: Home,
    /// Without TLS, and for finding out whether there is any: believes nobody.
    plain: Agent,
    /// Made when first needed: reading the authorities takes longer than asking a registry that is near.
    secure: OnceLock<Agent>,
    other: OnceLock<Agent>,
    reached: AtomicBool,
}

impl Web {
    fn new(registry: &str, at: Url, host: &str, access: &Access) -> Self {
        let home = Home::default();
        Self {
            registry: registry.to_owned(),
            host: host.to_owned(),
            plain: agent(true, &at, &home, access, trust::nobody()),
            at,
            access: access.clone(),
            home,
            secure: OnceLock::new(),
            other: OnceLock::new(),
            reached: AtomicBool::new(false),
        }
    }

    fn agent(&self, own: bool, secure: bool) -> Result<&Agent> {
        let (place, access) = match (own, secure) {
            (true, false) => return Ok(&self.plain),
            (true, true) => (&self.secure, &self.access),
            (false, _) => (&self.other, &self.access),
        };
        if let Some(agent) = place.get() {
            return Ok(agent);
        }
        // What --insecure and `certs.d` say, they say of this registry alone.
        let host = own.then_some(self.host.as_str());
        let tls = trust::config(host, &access.authorities, own && access.insecure)?;
        Ok(place.get_or_init(|| agent(own, &self.at, &self.home, access, tls)))
    }

    /// Whether it speaks TLS, whoever it is.
    fn is_secure(&self, url: &Url) -> bool {
        let answer = self.plain.get(url.to_string()).call();
        let failed = |error| RegistryError::of(&self.registry, &url.authority(), error);
        matches!(answer.map_err(failed), Ok(_) | Err(RegistryError::Certificate { .. }))
    }

    /// One request and its answer, whatever that says.
    pub fn once(&self, method: &str, url: &Url, headers: Headers<'_>, payload: Payload<'_>) -> Result<Response<Body>> {
        let own = url.host == self.at.host;
        if !own {
            self.check_literal(url)?;
        }
        let failed = |error| {
            let mut error = RegistryError::of(&self.registry, &url.authority(), error);
            // Who was there a moment ago may be there again in a moment.
            if let RegistryError::Network { refused, .. } = &mut error {
                *refused &= !self.reached.load(Ordering::Relaxed);
            }
            error
        };
        let mut request = Request::builder().method(method).uri(url.to_string());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Payload::File(_, size) = payload {
            request = request.header(header::CONTENT_LENGTH, size);
        }
        let agent = self.agent(own, url.secure)?;
        let response = match payload {
            Payload::None => request.body(()).map_err(ureq::Error::from).and_then(|request| agent.run(request)),
            Payload::Bytes(bytes) => {
                request.body(bytes).map_err(ureq::Error::from).and_then(|request| agent.run(request))
            }
            Payload::File(file, _) => {
                let mut file = file;
                file.rewind().map_err(ureq::Error::from).and_then(|()| {
                    let mut reader = io::BufReader::with_capacity(256 << 10, file);
                    let request = request.body(SendBody::from_reader(&mut reader))?;
                    agent.run(request)
                })
            }
        };
        let response = response.map_err(failed)?;
        self.reached.store(true, Ordering::Relaxed);
        Ok(response)
    }

    /// Behind a proxy nothing is resolved here; what is an address as it stands is still known.
    fn check_literal(&self, url: &Url) -> Result<()> {
        let local = (url.is_loopback()).then_some(IpAddr::from([127, 0, 0, 1]));
        let Some(address) = url.host.parse().ok().or(local) else { return Ok(()) };
        if self.home.allows(Reach::of(address)) {
            return Ok(());
        }
        let why = Refused { host: url.host.clone(), address }.to_string();
        Err(RegistryError::Led { registry: self.registry.clone(), to: url.authority(), why })
    }
}

fn agent(own: bool, at: &Url, home: &Home, access: &Access, tls: TlsConfig) -> Agent {
    let stall = Some(access.stall);
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("fumehood/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_resolve(stall)
        .timeout_connect(stall)
        .timeout_per_read(stall)
        .timeout_per_write(stall)
        .tls_config(tls);
    // A proxy is of no use for what is on this machine.
    let config = if at.is_loopback() { config.proxy(None) } else { config };
    let guard = Guard { home: home.clone(), own, resolver: DefaultResolver::default() };
    Agent::with_parts(config.build(), DefaultConnector::default(), guard)
}

/// One registry, asked about one repository.
#[derive(Debug)]
pub struct Endpoint {
    /// As it is named in references.
    pub registry: String,
    pub repository: String,
    pub stall: Duration,
    host: String,
    insecure: bool,
    web: Web,
    base: OnceLock<Url>,
    actions: &'static str,
    auth: Mutex<Auth>,
}

#[derive(Default)]
struct Auth {
    /// What is sent now.
    header: Option<String>,
    /// Looked up once, when the registry asks.
    credentials: Option<Option<Credentials>>,
    /// Of other repositories, for mounting from them.
    more: Vec<String>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Auth({:?})", self.credentials)
    }
}

impl Endpoint {
    /// `registry` is what the user calls it, `host` where it is, `actions` what is to be done.
    pub fn new(registry: &str, host: &str, repository: &str, actions: &'static str, access: &Access) -> Result<Self> {
        let bad = || RegistryError::Host { text: host.chars().flat_map(char::escape_debug).take(200).collect() };
        let at = Url::parse(&format!("https://{host}/")).ok_or_else(bad)?;
        if at.rest != "/" || host.contains(['/', '?', '#']) {
            return Err(bad());
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            stall: access.stall,
            host: host.to_owned(),
            insecure: access.insecure,
            web: Web::new(registry, at, host, access),
            base: OnceLock::new(),
            actions,
            auth: Mutex::default(),
        })
    }

    /// Where it is. HTTPS; on this machine, or with --insecure, plain HTTP if that is what it speaks.
    fn base(&self) -> Result<Url> {
        if let Some(base) = self.base.get() {
            return Ok(base.clone());
        }
        let at = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}/v2/", self.host))
                .ok_or_else(|| RegistryError::Host { text: self.host.clone() })
        };
        let (secure, plain) = (at("https")?, at("http")?);
        let certain = !self.insecure && !secure.is_loopback();
        let base = if certain || self.web.is_secure(&secure) { secure } else { plain };
        Ok(self.base.get_or_init(|| base).clone())
    }

    pub fn url(&self, rest: &str) -> Result<Url> {
        Ok(self.base()?.at(format!("/v2/{}/{rest}", self.repository)))
    }

    /// Asks for rights on another repository too, from the next token on.
    pub fn also(&self, scope: String) {
        let mut auth = self.auth();
        if !auth.more.contains(&scope) {
            auth.more.push(scope);
            auth.header = auth.header.take().filter(|header| header.starts_with("Basic "));
        }
    }

    /// Asks until there is an answer that is one: logged in, and past all redirects of what is only read.
    pub fn send(&self, method: &str, url: &Url, headers: Headers<'_>, payload: Payload<'_>) -> Result<Response<Body>> {
        let base = self.base()?;
        let (mut url, mut redirects, mut logins) = (url.clone(), 0, 0);
        loop {
            let mut sent = headers.to_vec();
            let ours = url.same_origin(&base);
            let authorization = if ours { self.auth().header.clone() } else { None };
            sent.extend(authorization.clone().map(|value| ("authorization", value)));
            let response = self.web.once(method, &url, &sent, payload)?;
            match response.status().as_u16() {
                401 if ours && logins < 2 => {
                    logins += 1;
                    self.log_in(&response, authorization.as_deref())?;
                }
                301 | 302 | 303 | 307 | 308 if matches!(method, "GET" | "HEAD") => {
                    redirects += 1;
                    url = self.redirected(&url, &response, redirects)?;
                }
                _ => return Ok(response),
            }
        }
    }

    fn redirected(&self, url: &Url, response: &Response<Body>, count: usize) -> Result<Url> {
        let location = answer::header(response.headers(), header::LOCATION.as_str());
        let led = |why: &str| RegistryError::Led {
            registry: self.registry.clone(),
            to: location.chars().take(200).collect(),
            why: why.to_owned(),
        };
        if count > MOST_REDIRECTS {
            return Err(led("that is one redirect too many"));
        }
        self.place(url, &location)
    }

    /// What the registry names in a header, if it may be asked.
    pub fn place(&self, url: &Url, location: &str) -> Result<Url> {
        let led = |why: &str| RegistryError::Led {
            registry: self.registry.clone(),
            to: location.chars().take(200).collect(),
            why: why.to_owned(),
        };
        if location.is_empty() {
            return Err(led("it does not say where"));
        }
        let next = url.join(location).ok_or_else(|| led("that is no place on the web"))?;
        if url.secure && !next.secure {
            return Err(led("from HTTPS to plain HTTP"));
        }
        Ok(next)
    }

    /// Finds what to send from now on, after `refused` was not enough.
    fn log_in(&self, response: &Response<Body>, refused: Option<&str>) -> Result<()> {
        let mut auth = self.auth();
        if auth.header.as_deref() != refused {
            // Another thread was faster.
            return Ok(());
        }
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()));
        let login = |why: &str| RegistryError::Login { registry: self.registry.clone(), why: why.to_owned() };
        let challenge = challenge.ok_or_else(|| login("does not say how it is to be told"))?;
        if auth.credentials.is_none() {
            auth.credentials = Some(credentials::find(&self.registry, &self.repository)?);
        }
        let found = auth.credentials.as_ref().and_then(Option::as_ref);
        let header = match (challenge, found) {
            (Challenge::Basic, _) if refused.is_some_and(|header| header.starts_with("Basic ")) => {
                return Err(login("it does not take the credentials"));
            }
            (Challenge::Basic, Some(Credentials::Password { user, password })) => token::basic(user, password),
            (Challenge::Basic, _) => return Err(login("there are no credentials for it")),
            (Challenge::Bearer { realm, service, scope }, found) => {
                let own = || format!("repository:{}:{}", self.repository, self.actions);
                let mut scopes = vec![scope.unwrap_or_else(own)];
                scopes.extend(auth.more.iter().cloned());
                let wish = token::Wish {
                    registry: &self.registry,
                    repository: &self.repository,
                    base: &self.base()?,
                    service: service.as_deref(),
                    scopes: &scopes,
                    credentials: found,
                };
                token::fetch(&self.web, &realm, &wish)?
            }
        };
        auth.header = Some(header);
        Ok(())
    }

    fn auth(&self) -> MutexGuard<'_, Auth> {
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error that an answer to `what` is.
    pub fn error(&self, what: &str, response: Response<Body>) -> RegistryError {
        answer::error(&self.registry, &self.repository, what, response)
    }

    pub fn wrong(&self, what: &str, why: impl Into<String>) -> RegistryError {
        RegistryError::Wrong {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            what: what.to_owned(),
            why: why.into(),
        }
    }

    /// Hands on what comes, as long as enough comes and `take` wants it.
    pub fn read<E: From<RegistryError>>(
        &self,
        response: Response<Body>,
        mut take: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut from = response.into_body().into_reader();
        let mut buffer = vec![0; 128 << 10];
        let (mut since, mut came) = (Instant::now(), 0);
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(RegistryError::of(&self.registry, &self.host, ureq::Error::from(error)).into());
                }
            };
            take(&buffer[..read])?;
            came += read as u64;
            if since.elapsed() >= self.stall {
                if came < LEAST_BYTES {
                    return Err(RegistryError::stalled(self.host.clone()).into());
                }
                (since, came) = (Instant::now(), 0);
            }
        }
    }
}
