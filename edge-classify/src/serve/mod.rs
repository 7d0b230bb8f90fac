//! `serve`: classifies pictures that are sent by HTTP.
//!
//! One thread reads and answers requests (`listen`, `routes`), as many as there are CPUs decode and
//! classify (`worker`). Between them stands a `queue` with room for some pictures: whoever comes when
//! it is full is told to come again, and nothing grows with the number of clients. What is sent lies
//! in memory until it is decoded, and all of that is bounded, too (`upload`).

mod listen;
mod metrics;
mod model;
#[cfg(feature = "mqtt")]
mod mqtt;
mod multipart;
mod options;
mod page;
mod queue;
mod refusal;
mod results;
mod routes;
mod tls;
mod upload;
mod wire;
mod worker;

pub(crate) use options::Options;

use crate::EXIT_ANSWER;
use crate::model::read_key;
use anyhow::{Context, Result};
use listen::Server;
use metrics::{Metrics, Now};
use model::{Loaded, Watched};
use options::Limits;
use queue::Queue;
use results::{Record, Results};
use runtime::PublicKey;
use runtime::text::Plain;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use upload::Uploads;

/// What all threads share.
struct App {
    limits: Limits,
    token: Option<String>,
    /// Whether it serves this machine alone, and whoever is on it.
    is_local: bool,
    threads: usize,
    queue: Queue,
    uploads: Uploads,
    /// One permit for each connection that may still come.
    connections: Arc<Semaphore>,
    metrics: Metrics,
    results: Option<Results>,
    #[cfg(feature = "mqtt")]
    broker: Option<mqtt::Broker>,
    /// Lines for standard error.
    log: mpsc::UnboundedSender<String>,
}

impl App {
    /// Keeps a result where that is asked for. Where it fails, one line says so and the metrics go on
    /// counting: clients still get their answers.
    fn record(&self, record: &Record<'_>) {
        if let Some(results) = &self.results
            && let Err(e) = results.add(record)
            && self.metrics.unwritten()
        {
            self.say(format!("--results: {e}; answers go on, and are no longer kept"));
        }
        #[cfg(feature = "mqtt")]
        if let Some(broker) = &self.broker
            && !broker.publish(record)
        {
            self.metrics.unpublished.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Takes a new model, or says why not.
    fn take(&self, model: Result<Loaded>) {
        self.metrics.swap(model.is_ok());
        match model {
            Ok(model) => {
                self.say(format!("new model {}, {} classes", model.name, model.classes));
                self.queue.swap(Arc::new(model));
            }
            Err(e) => self.say(format!("{e:#}; the model before it stays in use")),
        }
    }

    fn say(&self, line: String) {
        // Nobody writes lines when the program has ended.
        let _ = self.log.send(line);
    }

    fn now(&self) -> Now {
        let free = self.connections.available_permits();
        Now {
            queue: self.queue.len(),
            connections: self.limits.connections - free,
            threads: self.threads,
            drift: self.queue.model().drift(),
        }
    }
}

/// Serves until a signal comes.
///
/// # Errors
/// What the options name and cannot be used.
pub(crate) fn run(options: &Options, err: &mut dyn Write) -> Result<u8> {
    let (limits, token) = (options.limits(), options.token()?);
    let key = options.key.as_deref().map(read_key).transpose()?;
    let watched = options.model.as_deref().map(Watched::new);
    let model = Arc::new(Loaded::open(options.model.as_deref(), key.as_ref())?);
    let pair = options.tls_cert.as_deref().zip(options.tls_key.as_deref());
    let tls = pair.map(|(cert, key): (&Path, &Path)| tls::acceptor(cert, key)).transpose()?;
    let results = options.results.as_deref().map(Results::open).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (log, lines) = mpsc::unbounded_channel();
    #[cfg(feature = "mqtt")]
    let (broker, events) = options.mqtt.connect(&model)?.unzip();
    let app = Arc::new(App {
        limits,
        is_local: token.is_none() && options.listen.ip().is_loopback(),
        token,
        threads: options.machine.threads(),
        queue: Queue::new(limits.pictures, model),
        uploads: Uploads::new(limits),
        connections: Arc::new(Semaphore::new(limits.connections)),
        metrics: Metrics::default(),
        results,
        #[cfg(feature = "mqtt")]
        broker,
        log,
    });
    let threads = threads(&app, options)?;
    let outcome = runtime.block_on(async {
        #[cfg(feature = "mqtt")]
        let sending = events.map(|events| tokio::spawn(events.send(Arc::clone(&app))));
        let outcome = serve(&app, options, tls, watched.map(|w| (w, key)), lines, err).await;
        #[cfg(feature = "mqtt")]
        if let (Some(broker), Some(sending)) = (&app.broker, sending) {
            broker.end(sending).await;
        }
        outcome
    });
    // A look at the model's file may hang with its disk.
    runtime.shutdown_background();
    app.queue.close();
    for thread in threads {
        // Panics are caught inside.
        let _ = thread.join();
    }
    outcome
}

/// Threads that classify.
fn threads(app: &Arc<App>, options: &Options) -> Result<Vec<JoinHandle<()>>> {
    let isa = options.machine.isa();
    let start = |index| {
        let app = Arc::clone(app);
        std::thread::Builder::new()
            .name(format!("classify-{index}"))
            .spawn(move || worker::run(&app, isa))
            .with_context(|| format!("--threads {}", options.machine.threads()))
    };
    let threads: Result<_> = (0..app.threads).map(start).collect();
    if threads.is_err() {
        app.queue.close();
    }
    threads
}

async fn serve(
    app: &Arc<App>,
    options: &Options,
    tls: Option<TlsAcceptor>,
    watched: Option<(Watched, Option<PublicKey>)>,
    mut lines: mpsc::UnboundedReceiver<String>,
    err: &mut dyn Write,
) -> Result<u8> {
    let listen = options.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("--listen {listen}"))?;
    let mut signals = Signals::new()?;
    let model = app.queue.model();
    let name = options.model.as_deref().map(|path| path.display().to_string());
    writeln!(
        err,
        "edge-classify: listening on {}://{}, model {} ({} classes), {} thread(s)",
        if tls.is_some() { "https" } else { "http" },
        listener.local_addr()?,
        Plain(name.as_deref().unwrap_or(&model.name)),
        model.classes,
        app.threads,
    )?;
    err.flush()?;
    drop(model);
    let (stop, stopped) = watch::channel(false);
    let router = routes::router(Arc::clone(app));
    let server = Server { app: Arc::clone(app), router, tls, stop: stopped };
    let accepting = tokio::spawn(server.accept(listener));
    if let Some((watched, key)) = watched {
        tokio::spawn(watched.follow(Arc::clone(app), key));
    }
    let all = app.limits.connections as u32;
    let finished = async {
        let _ = accepting.await;
        app.connections.acquire_many(all).await.is_ok()
    };
    tokio::pin!(finished);
    loop {
        tokio::select! {
            Some(line) = lines.recv() => {
                // There is nowhere left to report a failure to report.
                let _ = writeln!(err, "edge-classify: {}", Plain(&line));
            }
            () = signals.next() => {
                if stop.send_replace(true) {
                    // Asked twice: at once, and not well.
                    return Ok(crate::EXIT_ERROR);
                }
            }
            _ = &mut finished => return Ok(EXIT_ANSWER),
        }
    }
}

/// What asks the program to end.
#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// What asks the program to end.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // Without it, only the system ends the program.
        if tokio::signal::ctrl_c().await.is_err() {
            core::future::pending::<()>().await;
        }
    }
}
