//! A closed-loop load on an etcd cluster by gRPC, so that it can be set beside Quorate: N connections spread over the
//! endpoints, one request under way on each. Prints one line of JSON; times are microseconds.
//!
//! The rule: it asks for what etcd does by default, linearizable gets and puts that a majority has on disk. Any failed
//! operation is counted and makes the exit code 1: a figure with errors is no figure.
//!
//! Not here: starting etcd (`bench/figures.sh`), open loops.

use std::{
    cell::RefCell,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use tokio::{runtime, task::LocalSet};
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// Values are slices of this many random bytes: nothing to compress, nothing to compute.
const POOL_BYTES: usize = 8 << 20;
/// Loading has this many requests under way on each connection.
const LOAD_DEPTH: u64 = 8;

#[derive(Parser, Clone)]
struct Args {
    /// etcd's client URLs
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    #[arg(long, value_enum, default_value = "put")]
    workload: Workload,
    /// Put every key once first, unmeasured
    #[arg(long)]
    prepare: bool,
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    value_size: u32,
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// Seconds of measuring; 0 only prepares
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
    /// Seconds before it
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Workload {
    Put,
    Get,
}

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `etcdserverpb.RangeRequest`, as far as it is used: without an end of the range it asks for one key.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

/// `etcdserverpb.PutResponse`: that it came is all that matters.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// `etcdserverpb.RangeResponse`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

/// `mvccpb.KeyValue`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

/// One connection.
#[derive(Clone)]
struct Client {
    grpc: Grpc<Channel>,
    values: Bytes,
    value_bytes: usize,
}

impl Client {
    async fn put(&mut self, key: u64) -> Result<(), Status> {
        let start = fastrand::usize(..=self.values.len() - self.value_bytes);
        let value = self.values.slice(start..start + self.value_bytes);
        let request = Request::new(PutRequest { key: name(key), value });
        self.ready().await?;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        self.grpc.unary(request, path, ProstCodec::<PutRequest, PutResponse>::default()).await.map(|_| ())
    }

    /// Whether the key was found, with a value of the right size.
    async fn get(&mut self, key: u64) -> Result<bool, Status> {
        self.ready().await?;
        let request = Request::new(RangeRequest { key: name(key) });
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let response =
            self.grpc.unary(request, path, ProstCodec::<RangeRequest, RangeResponse>::default()).await?.into_inner();
        Ok(response.kvs.first().is_some_and(|found| found.value.len() == self.value_bytes))
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
    }
}

/// The same names as those of `quorate bench`.
fn name(key: u64) -> Bytes {
    format!("key:{key:012}").into()
}

/// What all connections together measured.
struct Measured {
    latency: Histogram<u64>,
    failed: u64,
    absent: u64,
    sample: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // One thread, as the generator that drives the others has.
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = LocalSet::new().block_on(&runtime, run(&args));
    match done {
        Ok(measured) => {
            print(&args, &measured);
            ExitCode::from(u8::from(measured.failed > 0))
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<Measured, String> {
    let clients = connect(args).await?;
    if args.prepare {
        prepare(args, &clients).await?;
    }
    let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("three digits");
    let measured = Rc::new(RefCell::new(Measured { latency, failed: 0, absent: 0, sample: None }));
    let from = Instant::now() + Duration::from_secs_f64(args.warmup);
    let until = from + Duration::from_secs_f64(args.duration);
    if args.duration > 0.0 {
        let measure = |client| tokio::task::spawn_local(load(client, args.clone(), from, until, Rc::clone(&measured)));
        for task in clients.into_iter().map(measure).collect::<Vec<_>>() {
            task.await.map_err(|error| error.to_string())?;
        }
    }
    Ok(Rc::into_inner(measured).expect("all tasks ended").into_inner())
}

async fn connect(args: &Args) -> Result<Vec<Client>, String> {
    let mut random = vec![0; POOL_BYTES];
    fastrand::fill(&mut random);
    let values = Bytes::from(random);
    let mut clients = Vec::new();
    for (_, url) in (0..args.connections).zip(args.endpoints.iter().cycle()) {
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| format!("{url}: {error}"))?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(10));
        let channel = endpoint.connect().await.map_err(|error| format!("cannot connect to {url}: {error:?}"))?;
        let value_bytes = args.value_size as usize;
        clients.push(Client { grpc: Grpc::new(channel), values: values.clone(), value_bytes });
    }
    Ok(clients)
}

async fn prepare(args: &Args, clients: &[Client]) -> Result<(), String> {
    let lanes = args.connections * LOAD_DEPTH;
    let lane = |lane: u64| {
        let (mut client, keys) = (clients[(lane % args.connections) as usize].clone(), args.keys);
        tokio::task::spawn_local(async move {
            for key in (lane..keys).step_by(lanes as usize) {
                client.put(key).await?;
            }
            Ok::<(), Status>(())
        })
    };
    for task in (0..lanes).map(lane).collect::<Vec<_>>() {
        let loaded = task.await.map_err(|error| error.to_string())?;
        loaded.map_err(|status| format!("loading the keys failed, some are written: {status}"))?;
    }
    Ok(())
}

/// One closed loop. An operation counts when it ended within the measured time.
async fn load(mut client: Client, args: Args, from: Instant, until: Instant, measured: Rc<RefCell<Measured>>) {
    loop {
        let begun = Instant::now();
        let key = fastrand::u64(..args.keys);
        let done = match args.workload {
            Workload::Put => client.put(key).await.map(|()| true),
            Workload::Get => client.get(key).await,
        };
        let now = Instant::now();
        if now >= until {
            return;
        }
        if now < from {
            continue;
        }
        let mut measured = measured.borrow_mut();
        match done {
            Ok(found) => {
                measured.latency.saturating_record((now - begun).as_nanos() as u64);
                measured.absent += u64::from(!found);
            }
            Err(status) => {
                measured.failed += 1;
                measured.sample.get_or_insert_with(|| status.to_string());
            }
        }
    }
}

fn print(args: &Args, measured: &Measured) {
    let us = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    let rate = if args.duration > 0.0 { measured.latency.len() as f64 / args.duration } else { 0.0 };
    let line = serde_json::json!({
        "target": "etcd, gRPC",
        "workload": if args.workload == Workload::Put { "put" } else { "get" },
        "operations": measured.latency.len(),
        "operations_per_second": rate,
        "p50_us": us(0.5),
        "p99_us": us(0.99),
        "p999_us": us(0.999),
        "failed": measured.failed,
        "absent": measured.absent,
        "error": measured.sample,
    });
    println!("{line}");
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds are 0 to 86400".to_owned()),
    }
}
