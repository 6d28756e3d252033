//! HTTP: health, metrics, what operators ask, keys by `curl`, and a page to look at.
//!
//! | path | method | what |
//! |---|---|---|
//! | `/` | GET | the page |
//! | `/healthz` | GET | 200 as long as the node runs |
//! | `/readyz` | GET | 200 when this node's partitions have their quorums and its copies lack nothing, else 503 and why |
//! | `/metrics` | GET | the node's figures for Prometheus |
//! | `/v1/A/B` | GET, POST | what the command `QUORATE A B` answers: an array with one element for each core. What only looks is a GET, what changes something a POST, which core 0 makes |
//! | `/v1/data/KEY` | GET, PUT, DELETE | a key, see `data` |
//!
//! The rule: core 0 serves, for the whole node, and asks the other cores by their `questions`. A page of somebody else can
//! neither change anything through a browser nor read what is in the store; a page of another node of the cluster can look.
//!
//! When the node stops, what is being asked is answered first, and who asks nothing is told that the connection ends.
//!
//! Not here: what is answered (`view`), the protocol (hyper).

mod data;
mod stream;

use std::{convert::Infallible, pin::pin, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_lite::future;
use glommio::{
    net::TcpStream,
    spawn_local,
    sync::{Gate, Semaphore},
    timer::Timer,
};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderMap, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use quorate_net::transport::{Limits, Listener, ListenerOptions, Seat};
use serde_json::{Value, json};

use self::stream::Stream;
use super::view::View;
use crate::gateway::{self, Inquiry, NodeView, Order};

/// Connections at a time: browsers and collectors, no load.
const CONNECTIONS_MAX: usize = 256;

/// A connection that neither sends nor takes anything for so long ends.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Bytes of a request without its body.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A core that takes longer to answer is told as silent.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// When the node stops, whoever does not take its answer by then goes without.
const STOP_MAX: Duration = Duration::from_secs(5);

const PAGE: &str = include_str!("http/page.html");

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

type Answer = Response<Full<Bytes>>;

/// The node, as it is seen from here.
pub(super) struct Http {
    view: Rc<View>,
    /// What connections wait for: closed when the node stops.
    stop: Semaphore,
    /// Every connection passes it.
    gate: Gate,
}

impl Http {
    pub(super) fn new(view: &Rc<View>) -> Rc<Self> {
        Rc::new(Self { view: view.clone(), stop: Semaphore::new(0), gate: Gate::new() })
    }

    /// Serves until the task is dropped.
    pub(super) async fn serve(self: Rc<Self>, listener: Listener) {
        let options = ListenerOptions {
            limits: Limits::default(),
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_MAX,
            refusal: TOO_MANY,
        };
        let accepted = |stream, seat| drop(spawn_local(self.clone().converse(stream, seat)).detach());
        listener.accept_each(&options, accepted, || ()).await;
    }

    /// No connection is cut off while it is answered, for a while; nobody may be accepted any more.
    pub(super) async fn stop(&self) {
        self.stop.close();
        let ended = async {
            let _ = self.gate.close().await;
        };
        let waited = async {
            Timer::new(STOP_MAX).await;
        };
        future::or(ended, waited).await;
    }

    /// One connection, to its end.
    async fn converse(self: Rc<Self>, stream: TcpStream, _seat: Seat) {
        let Ok(_pass) = self.gate.enter() else { return };
        let limited = stream.set_read_timeout(Some(SILENCE_MAX)).and(stream.set_write_timeout(Some(SILENCE_MAX)));
        if limited.is_err() || stream.set_nodelay(true).is_err() {
            return;
        }
        let answer = service_fn(|request| {
            let http = self.clone();
            async move { Ok::<_, Infallible>(http.answer(request).await) }
        });
        let mut protocol = http1::Builder::new();
        protocol.half_close(true).max_buf_size(HEAD_BYTES_MAX);
        let mut connection = pin!(protocol.serve_connection(Stream::new(stream), answer));
        let ended = async {
            // Whoever sends no HTTP, or leaves, has heard so or is gone.
            let _ = connection.as_mut().await;
            true
        };
        let stopped = async { self.stop.acquire(1).await.is_ok() };
        if !future::or(ended, stopped).await {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let looks = matches!(*request.method(), Method::GET | Method::HEAD);
        let origin = self.origin(request.headers());
        if !looks && origin != Origin::None {
            return refusal(StatusCode::FORBIDDEN, "a page of another site may neither write nor change anything here");
        }
        let path = request.uri().path().to_owned();
        if let Some(key) = path.strip_prefix("/v1/data/") {
            return data::answer(&self.view, key, request).await;
        }
        let mut answer = match path.as_str() {
            "/" | "/healthz" | "/readyz" | "/metrics" if !looks => not_allowed("GET, HEAD"),
            "/" => page(),
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            _ => match path.strip_prefix("/v1/") {
                Some(words) => self.command(words, looks).await,
                None => {
                    refusal(StatusCode::NOT_FOUND, "there are /, /healthz, /readyz, /metrics, /v1/… and /v1/data/KEY")
                }
            },
        };
        if let (true, Origin::Member(origin)) = (looks, origin) {
            answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        answer
    }

    /// Whose page asks, if it is one's.
    fn origin(&self, headers: &HeaderMap) -> Origin {
        let Some(origin) = headers.get(header::ORIGIN) else { return Origin::None };
        let Some(site) = origin.as_bytes().strip_prefix(b"http://") else { return Origin::Foreign };
        if headers.get(header::HOST).is_some_and(|host| host.as_bytes() == site) {
            return Origin::None;
        }
        let known = self.view.http_addresses().any(|address| address.to_string().as_bytes() == site);
        if known { Origin::Member(origin.clone()) } else { Origin::Foreign }
    }

    fn ready(&self) -> Answer {
        let lacking = self.view.lacking();
        match lacking.is_empty() {
            true => text(StatusCode::OK, "ready\n".to_owned()),
            false => text(StatusCode::SERVICE_UNAVAILABLE, lacking.join("\n") + "\n"),
        }
    }

    fn metrics(&self) -> Answer {
        let mut answer = text(StatusCode::OK, self.view.metrics());
        let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        answer.headers_mut().insert(header::CONTENT_TYPE, format);
        answer
    }

    /// `/v1/A/B` is `QUORATE A B`.
    async fn command(&self, words: &str, looks: bool) -> Answer {
        let words: Vec<&[u8]> = words.split('/').map(str::as_bytes).collect();
        let order = match gateway::order(&words, &*self.view) {
            Ok(order) => order,
            Err(refusal) => return failure(StatusCode::BAD_REQUEST, &refusal),
        };
        if order.changes() == looks {
            return not_allowed(if looks { "POST" } else { "GET, HEAD" });
        }
        match order {
            Order::Answer(Inquiry::Metrics) => refusal(StatusCode::NOT_FOUND, "they are no JSON: see /metrics"),
            Order::Change(change) => match self.view.change(change).await {
                Ok(value) => json_answer(StatusCode::OK, &json!([value])),
                Err(refusal) => failure(StatusCode::CONFLICT, &refusal),
            },
            Order::Answer(inquiry) => json_answer(StatusCode::OK, &self.of_all_cores(inquiry).await),
        }
    }

    /// What each core answers. One that does not says why.
    async fn of_all_cores(&self, inquiry: Inquiry) -> Value {
        let (node, _) = self.view.endpoint();
        let asked = self.view.ask_others(inquiry);
        let mut answers = vec![self.view.inquire(inquiry)];
        for question in asked {
            answers.push(question.answer(ANSWER_MAX).await);
        }
        let told = |(core, answer): (u16, Result<Value, String>)| {
            answer.unwrap_or_else(|error| json!({"node": node.0, "core": core, "error": error}))
        };
        (0..).zip(answers).map(told).collect()
    }
}

/// Which page a browser says that the request comes from.
#[derive(Clone, PartialEq)]
enum Origin {
    /// None, or this node's own.
    None,
    /// One of another node of the cluster.
    Member(HeaderValue),
    /// Somebody else's.
    Foreign,
}

fn page() -> Answer {
    let mut answer = Response::new(Full::from(PAGE));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // Nothing is loaded from elsewhere; figures come from the nodes of the cluster, whose addresses are not known here.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src http:; img-src data:; \
                  frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    answer
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Full::from(format!("{value}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// `refusal` begins with the word that programs tell it by.
fn failure(status: StatusCode, refusal: &str) -> Answer {
    let (code, error) = refusal.split_once(' ').unwrap_or((refusal, ""));
    json_answer(status, &json!({"code": code, "error": error}))
}

fn refusal(status: StatusCode, error: &str) -> Answer {
    json_answer(status, &json!({"code": "ERR", "error": error}))
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("only by {methods}"));
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    answer
}
