//! Why a call to the server failed, sorted by what the caller can do.

use std::{error::Error, fmt, io, time::Duration};

use super::certificate::{CertificateProblem, ClockProblem, problem};
use crate::model::Server;

/// Why a call failed. No variant carries a URL, a token or a password.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The server's certificate does not convince us; nothing was sent.
    #[error("the certificate of {server} {problem}")]
    Certificate {
        /// What is wrong with it.
        problem: CertificateProblem,
        /// Which server.
        server: Server,
    },
    /// No connection; nothing was sent.
    #[error("cannot connect to {server}")]
    Connect {
        /// Which server.
        server: Server,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The request could not be written as JSON.
    #[error("cannot encode the request")]
    Encode(#[source] serde_json::Error),
    /// An answer came that is not the protocol's.
    #[error("{server} answered with {what}")]
    Garbled {
        /// Which server.
        server: Server,
        /// What it looks like.
        what: Garbled,
    },
    /// The connection ended after the request may have been received.
    #[error("the connection to {server} broke before the whole answer came")]
    Interrupted {
        /// Which server.
        server: Server,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The name does not resolve; nothing was sent.
    #[error("cannot resolve the name {0}")]
    Resolve(Server),
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client")]
    Setup {
        /// The reason.
        #[source]
        source: reqwest::Error,
    },
    /// The server answered with another status than 200.
    #[error("{server} answered {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// Its message; empty when it sent none that we understand.
        message: String,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
        /// Which server.
        server: Server,
        /// HTTP status.
        status: u16,
    },
    /// TLS failed for another reason than the certificate; nothing was sent.
    #[error("cannot agree on TLS with {server}")]
    Tls {
        /// Which server.
        server: Server,
        /// The TLS library's reason.
        #[source]
        source: rustls::Error,
    },
    /// No answer in time.
    #[error("{0} did not answer in time")]
    Timeout(Server),
}

/// What a wrong answer looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Garbled {
    /// No body.
    Empty,
    /// A web page, as proxies and login portals send.
    Html,
    /// The protocol's document with a value in it that cannot be; the text says which and where.
    Malformed(String),
    /// Something else that is not JSON.
    NotProtocol,
    /// More than 16 MiB, or more nodes or peers than any host can have.
    TooLong,
    /// JSON that ends in the middle.
    Truncated,
}

/// What the caller can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// A person has to change something.
    Broken,
    /// The credentials are not accepted.
    Denied,
    /// The server does not know this host.
    Gone,
    /// Try again, after the time the server asked for, if any.
    RetryAfter(Option<Duration>),
}

/// Why a server refuses to redeem a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Switched off by the administrator.
    Disabled,
    /// It grants no network.
    NoNetworks,
    /// The device does not meet the networks' security requirements.
    Posture,
    /// The host id is taken and the password does not prove that it is ours.
    Proof,
    /// The server cannot read the key.
    Unreadable,
    /// No such key.
    Unknown,
    /// Expired, or used as often as it may be.
    UsedUp,
    /// The server does not accept this agent's protocol version.
    Version,
}

impl RestError {
    /// Sorts the failure by what the caller can do.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Status { status: 401 | 403, message, .. } if message == "unauthorized" || message == "forbidden" => {
                Advice::Denied
            }
            Self::Status { message, .. } if message.contains("record not found") => Advice::Gone,
            // A 401 or 403 that is not the server's own comes from something in between.
            Self::Status { status: 401 | 403 | 429 | 500.., retry_after, .. } => Advice::RetryAfter(*retry_after),
            Self::Encode(_)
            | Self::Garbled { what: Garbled::Malformed(_), .. }
            | Self::Setup { .. }
            | Self::Status { .. } => Advice::Broken,
            Self::Certificate { .. }
            | Self::Connect { .. }
            | Self::Garbled { .. }
            | Self::Interrupted { .. }
            | Self::Resolve(_)
            | Self::Timeout(_)
            | Self::Tls { .. } => Advice::RetryAfter(None),
        }
    }

    /// Returns why a registration was refused; `None` if the answer does not say that it was.
    ///
    /// Judged by the message: the real server answers many permanent refusals with 500.
    pub fn refusal(&self) -> Option<Refusal> {
        let Self::Status { message, status, .. } = self else { return None };
        let known = [
            ("no enrollmentkey found", Refusal::Unknown),
            ("invalid enrollment key", Refusal::UsedUp),
            ("disabled", Refusal::Disabled),
            ("illegal base64 data", Refusal::Unreadable),
            ("bad client version on register", Refusal::Version),
            ("access blocked", Refusal::Posture),
            ("host already exists", Refusal::NoNetworks),
        ];
        let found = known.iter().find(|(text, _)| message.contains(text)).map(|(_, refusal)| *refusal);
        found.or((*status == 401 && message == "unauthorized").then_some(Refusal::Proof))
    }

    /// The clock and when the certificate begins, if all that is wrong is that our clock is before that.
    pub fn clock(&self) -> Option<ClockProblem> {
        match self {
            Self::Certificate { problem: CertificateProblem::NotYetValid(clock), .. } => *clock,
            Self::Certificate { .. }
            | Self::Connect { .. }
            | Self::Encode(_)
            | Self::Garbled { .. }
            | Self::Interrupted { .. }
            | Self::Resolve(_)
            | Self::Setup { .. }
            | Self::Status { .. }
            | Self::Timeout(_)
            | Self::Tls { .. } => None,
        }
    }

    /// Whether no conversation came about, so that another address of the same server may do.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Certificate { .. } | Self::Connect { .. } | Self::Resolve(_) | Self::Tls { .. } => true,
            Self::Encode(_)
            | Self::Garbled { .. }
            | Self::Interrupted { .. }
            | Self::Setup { .. }
            | Self::Status { .. }
            | Self::Timeout(_) => false,
        }
    }

    /// Whether the server may have acted on the request although no clear answer came.
    pub fn is_unclear(&self) -> bool {
        match self {
            Self::Garbled { .. } | Self::Interrupted { .. } | Self::Timeout(_) => true,
            Self::Status { status, .. } => *status >= 500 && self.refusal().is_none(),
            Self::Certificate { .. }
            | Self::Connect { .. }
            | Self::Encode(_)
            | Self::Resolve(_)
            | Self::Setup { .. }
            | Self::Tls { .. } => false,
        }
    }

    /// Sorts what ended a TLS handshake.
    pub(super) fn from_handshake(server: &Server, error: &io::Error) -> Self {
        let server = server.clone();
        match find_tls(error) {
            Some(tls) => match problem(&tls) {
                Some(problem) => Self::Certificate { problem, server },
                None => Self::Tls { server, source: tls },
            },
            None => Self::Connect { server, source: root(error) },
        }
    }

    /// Sorts what the HTTP client reports while a request is on its way.
    pub(super) fn from_sending(server: &Server, error: &reqwest::Error) -> Self {
        let server = server.clone();
        // Once the connection stood, whatever ends it may have come after the request.
        if let Some(tls) = find_tls(error).filter(|_| error.is_connect()) {
            return match problem(&tls) {
                Some(problem) => Self::Certificate { problem, server },
                None => Self::Tls { server, source: tls },
            };
        }
        let source = root(error);
        if error.is_connect() {
            if chain(error).any(|cause| cause.to_string() == "dns error") {
                return Self::Resolve(server);
            }
            return Self::Connect { server, source };
        }
        if error.is_timeout() { Self::Timeout(server) } else { Self::Interrupted { server, source } }
    }

    /// Sorts what the HTTP client reports while an answer is on its way.
    pub(super) fn from_reading(server: &Server, error: &reqwest::Error) -> Self {
        let server = server.clone();
        if error.is_timeout() {
            return Self::Timeout(server);
        }
        Self::Interrupted { server, source: root(error) }
    }
}

impl Garbled {
    pub(super) fn from_body(body: &[u8], error: &serde_json::Error) -> Self {
        let text = body.trim_ascii_start();
        if text.is_empty() {
            Self::Empty
        } else if text.starts_with(b"<") {
            Self::Html
        } else if error.is_eof() {
            Self::Truncated
        } else if error.is_data() {
            Self::Malformed(error.to_string().chars().filter(|character| !character.is_control()).take(200).collect())
        } else {
            Self::NotProtocol
        }
    }
}

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an empty body"),
            Self::Html => f.write_str("a web page instead of data"),
            Self::Malformed(what) => write!(f, "a malformed document: {what}"),
            Self::NotProtocol => f.write_str("something that is not the enrollment protocol"),
            Self::TooLong => f.write_str("more data than any host can have"),
            Self::Truncated => f.write_str("JSON that is cut off"),
        }
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// The innermost cause as the system's error; everything around it only repeats that a request failed, some of it with
/// the URL.
fn root(error: &(dyn Error + 'static)) -> io::Error {
    let system = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    match system.last() {
        Some(cause) => match cause.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(cause.kind(), cause.kind().to_string()),
        },
        None => io::Error::other("the connection was closed"),
    }
}

/// Digs the TLS library's error out; an I/O error hides the error it wraps from `source`.
fn find_tls(error: &(dyn Error + 'static)) -> Option<rustls::Error> {
    chain(error).find_map(|cause| {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(tls.clone());
        }
        let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
        inner.downcast_ref::<rustls::Error>().cloned().or_else(|| find_tls(inner))
    })
}
