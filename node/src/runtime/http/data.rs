//! A key by HTTP, for `curl` and for who has no client.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/data/KEY` | 200 and the value; 300 and all siblings as JSON, the winner first; 404 |
//! | `PUT /v1/data/KEY` with the value as the body | 204 |
//! | `DELETE /v1/data/KEY` | 204 |
//!
//! The context travels in the header `x-quorate-context`, in each answer, and in a PUT or DELETE as what was seen: without it
//! they replace what is there, and where it is empty nothing was seen, so the value becomes a sibling. The query may hold
//! `r`, `w`, `durability` (`durable`, `one`, `buffered`), `strict`, and `bucket`. KEY is percent-encoded.
//!
//! The rule: a failure says whether something may have been written, by the same words as on other protocols.

use std::{borrow::Cow, rc::Rc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use percent_encoding::percent_decode_str;
use quorate_net::{
    bounds::CONTEXT_BYTES_MAX,
    key::{DEFAULT_BUCKET, Key},
    message::{Consistency, Durability, Failure, Get, Operation, Outcome, Put},
};
use serde_json::{Value, json};

use super::{Answer, View, failure, json_answer, not_allowed, refusal};
use crate::gateway::{self, NodeView};

/// So much more of a value that is too large is read, and thrown away.
const HEARD_OUT_BYTES: usize = 16 << 20;

const CONTEXT: &str = "x-quorate-context";

/// What the query says.
struct Query {
    bucket: Vec<u8>,
    quorum: u8,
    durability: Durability,
    consistency: Consistency,
}

pub(super) async fn answer(view: &Rc<View>, key: &str, request: Request<Incoming>) -> Answer {
    match operation(view, key, request).await {
        Ok(operation) => told(view.ask(operation).await),
        Err(answer) => answer,
    }
}

async fn operation(view: &View, key: &str, request: Request<Incoming>) -> Result<Operation, Answer> {
    let bad = |problem: &str| refusal(StatusCode::BAD_REQUEST, &format!("{problem}; nothing was done"));
    let query =
        Query::read(request.uri().query().unwrap_or_default(), view.map().replicas).map_err(|error| bad(&error))?;
    let name: Cow<'_, [u8]> = percent_decode_str(key).into();
    let key = Key::new(&query.bucket, &name).map_err(|error| bad(&error.to_string()))?;
    let (quorum, consistency) = (query.quorum, query.consistency);
    let method = request.method().clone();
    if matches!(method, Method::GET | Method::HEAD) {
        return Ok(Operation::Get(Get { key, quorum, consistency, wants_context: true }));
    }
    let context = request.headers().get(CONTEXT).map(|context| Bytes::copy_from_slice(context.as_bytes()));
    if context.as_ref().is_some_and(|context| context.len() > CONTEXT_BYTES_MAX) {
        return Err(bad(&format!("the context is longer than {CONTEXT_BYTES_MAX} bytes")));
    }
    let value = match method {
        Method::PUT => Some(body(request, view.gateway_limits().value_bytes_max).await?),
        Method::DELETE => None,
        _ => return Err(not_allowed("GET, HEAD, PUT, DELETE")),
    };
    let durability = query.durability;
    Ok(Operation::Put(Put { key, value, context, quorum, durability, consistency, token: None, wants_context: true }))
}

async fn body(request: Request<Incoming>, bytes_max: usize) -> Result<Bytes, Answer> {
    let mut body = request.into_body();
    let read = Limited::new(&mut body, bytes_max).collect().await;
    if read.as_ref().is_err_and(|error| error.is::<http_body_util::LengthLimitError>()) {
        // Who is still sending when the connection ends may not get to read why.
        let mut left = HEARD_OUT_BYTES;
        while let Some(Ok(frame)) = body.frame().await
            && let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))
        {
            left = rest;
        }
    }
    read.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let problem = format!("the value has more than {bytes_max} bytes; nothing was written");
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, &problem);
        }
        refusal(StatusCode::BAD_REQUEST, "the value did not arrive whole; nothing was written")
    })
}

impl Query {
    fn read(query: &str, replicas: u8) -> Result<Self, String> {
        let (consistency, durability) = (Consistency::default(), Durability::default());
        let mut read = Self { bucket: DEFAULT_BUCKET.to_vec(), quorum: 0, durability, consistency };
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "bucket" => read.bucket = Cow::from(percent_decode_str(value)).into_owned(),
                "r" | "w" => {
                    let quorum = value.parse().ok().filter(|quorum| (1..=replicas).contains(quorum));
                    read.quorum = quorum.ok_or_else(|| format!("{name} must be a number from 1 to {replicas}"))?;
                }
                "durability" => read.durability = gateway::durability(value.as_bytes())?,
                "strict" => read.consistency = Consistency::Strict,
                _ => return Err(format!("'{name}' is not known: there are bucket, r, w, durability and strict")),
            }
        }
        Ok(read)
    }
}

fn told(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Values { context, values, .. } => with_context(&context, found(&values)),
        Outcome::Written { context, .. } => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            with_context(&context, answer)
        }
        Outcome::Failed(failed) => {
            let mut answer = failure(status(&failed), &format!("{} {failed}", gateway::code(&failed)));
            if let Failure::Overloaded { retry_after_us } = failed {
                let seconds = retry_after_us.div_ceil(1_000_000).max(1);
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            answer
        }
        Outcome::ClusterMap(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "something else was answered than asked"),
    }
}

fn found(values: &[Bytes]) -> Answer {
    match values {
        [] => refusal(StatusCode::NOT_FOUND, "no value"),
        [value] => {
            let mut answer = Response::new(Full::from(value.clone()));
            let kind = HeaderValue::from_static("application/octet-stream");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer
        }
        siblings => {
            let siblings: Vec<Value> = siblings.iter().map(sibling).collect();
            json_answer(StatusCode::MULTIPLE_CHOICES, &json!({"siblings": siblings}))
        }
    }
}

/// Text where it is text.
fn sibling(value: &Bytes) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => json!({"value": text}),
        Err(_) => json!({"base64": STANDARD.encode(value)}),
    }
}

fn with_context(context: &[u8], mut answer: Answer) -> Answer {
    if let Ok(context) = HeaderValue::from_bytes(context) {
        answer.headers_mut().insert(CONTEXT, context);
    }
    answer
}

fn status(failure: &Failure) -> StatusCode {
    match failure {
        Failure::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        Failure::Unavailable { .. } | Failure::Overloaded { .. } | Failure::StoreFailed => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Failure::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Failure::BadContext | Failure::BadRequest(_) => StatusCode::BAD_REQUEST,
        Failure::TooManySiblings { .. } => StatusCode::CONFLICT,
        Failure::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
