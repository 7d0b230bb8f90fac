//! What is answered where.

use super::App;
use super::multipart::{self, File};
use super::page;
use super::queue::{Answer, Job, Outcome};
use super::refusal::Refusal;
use crate::classify::{Class, Item, Ms};
use crate::{cli, print};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use core::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;

const OPENAPI: &str = include_str!("openapi.json");
const JSON: &str = "application/json";
/// Most bytes of a name that a client gives.
const MAX_NAME: usize = 255;

/// All routes. `openapi.json` describes them.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/classify", post(classify))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .method_not_allowed_fallback(wrong_method)
        .fallback(not_found)
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// What all answers have, and what is counted of them.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let none = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(none);
    app.metrics.request(response.status().as_u16(), start.elapsed());
    response
}

async fn not_found() -> Refusal {
    let error = "nothing is here; POST a picture to /classify, or see /openapi.json";
    Refusal::new(StatusCode::NOT_FOUND, error)
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let wanted = if uri.path() == "/classify" { "POST" } else { "GET" };
    let error = format!("{method} is not answered here; use {wanted}");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error)
}

async fn page() -> Response {
    let page = page::page();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, page.policy.clone()),
    ];
    (headers, page.html.as_str()).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, JSON)], OPENAPI).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Response {
    #[derive(serde::Serialize)]
    struct Health<'a> {
        status: &'a str,
        model: &'a str,
        classes: usize,
        threads: usize,
    }
    let model = app.queue.model();
    let (model, classes) = (model.name.as_str(), model.classes);
    json(&Health { status: "ok", model, classes, threads: app.threads })
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Refusal> {
    authorize(&app, &headers)?;
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, app.metrics.text(&app.now())).into_response())
}

/// Asks for the token, if there is one.
fn authorize(app: &App, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(token) = &app.token else { return refuse_other_names(app, headers) };
    let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    let is_bearer = given.get(..7).is_some_and(|kind| kind.eq_ignore_ascii_case(b"Bearer "));
    // In a time that does not tell how much of a wrong one is right.
    if is_bearer && bool::from(given[7..].trim_ascii().ct_eq(token.as_bytes())) {
        return Ok(());
    }
    let error = "this service wants its token; send the header Authorization: Bearer TOKEN";
    Err(Refusal::new(StatusCode::UNAUTHORIZED, error))
}

/// A page of another site could give this machine's address to a name of its own, and then be taken for
/// the service's own page: whoever serves this machine alone answers to its own names alone.
fn refuse_other_names(app: &App, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_own = bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost");
    if !app.is_local || is_own {
        return Ok(());
    }
    let error = "without a token, this service answers to localhost and addresses alone, not to other \
                 names; use one of these, or start it with --token-file";
    Err(Refusal::new(StatusCode::FORBIDDEN, error))
}

/// Pages of other sites may not use a service that only this machine reaches.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(b"cross-site" | b"same-site") => {
            let error =
                "pages of other sites may not send pictures; use this service's own page at /";
            Err(Refusal::new(StatusCode::FORBIDDEN, error))
        }
        _ => Ok(()),
    }
}

/// What the address asks for behind its `?`.
#[derive(Debug)]
struct Query {
    top: usize,
    threshold: Option<f32>,
    time: bool,
    heatmap: bool,
    file: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let mut query = Self { top: 3, threshold: None, time: false, heatmap: false, file: None };
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let wrong = |what: String| Refusal::bad(format!("{name}: {what}"));
            match &*name {
                "top" => query.top = cli::top(&value).map_err(wrong)?,
                "threshold" => query.threshold = Some(cli::probability(&value).map_err(wrong)?),
                "time" | "heatmap" => {
                    let is_on = value.parse().map_err(|_| wrong("want true or false".into()))?;
                    *(if name == "time" { &mut query.time } else { &mut query.heatmap }) = is_on;
                }
                "file" => query.file = Some(value.into_owned()),
                _ => {
                    let error =
                        "unknown parameter; there are top, threshold, time, heatmap and file";
                    return Err(Refusal::bad(error));
                }
            }
        }
        Ok(query)
    }
}

/// How pictures are sent.
enum Form {
    Alone,
    /// Between these boundaries.
    Parts(String),
}

fn form(headers: &HeaderMap) -> Result<Form, Refusal> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(Form::Alone) };
    let text = kind.to_str().unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "multipart/form-data" {
        let boundary = multipart::boundary(text);
        let error = "the content type lacks the form's boundary, which clients choose themselves";
        return Ok(Form::Parts(boundary.ok_or_else(|| Refusal::bad(error))?));
    }
    if kind.starts_with("image/") || kind == "application/octet-stream" {
        return Ok(Form::Alone);
    }
    let error = "send a picture as image/jpeg (image/…, application/octet-stream), or pictures as a \
                 form, multipart/form-data; with curl: -H 'Content-Type: image/jpeg' --data-binary \
                 @photo.jpg, or -F file=@photo.jpg";
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
}

async fn classify(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    authorize(&app, &head.headers)?;
    refuse_other_sites(&head.headers)?;
    let query = Query::parse(head.uri.query().unwrap_or_default())?;
    let form = form(&head.headers)?;
    if app.queue.is_full() {
        return Err(Refusal::busy());
    }
    let (names, answers) = enqueue(&app, &query, &form, body).await?;
    let mut outcomes = Vec::with_capacity(answers.len());
    for answer in answers {
        let gone = |_| {
            let error = "the picture was not classified because of a fault in this program";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error)
        };
        outcomes.push(answer.await.map_err(gone)?);
    }
    respond(&query, &names, &outcomes)
}

/// Answers that are to come.
type Answers = Vec<oneshot::Receiver<Outcome>>;

/// Reads what is sent and lets its pictures wait for a thread.
async fn enqueue(
    app: &App,
    query: &Query,
    form: &Form,
    body: Body,
) -> Result<(Vec<String>, Answers), Refusal> {
    let upload = app.uploads.read(body).await?;
    let files = files(upload.bytes, form, query, app.limits.pictures)?;
    let memory = Arc::new(upload.memory);
    let (mut names, mut answers, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
    for File { name, bytes } in files {
        let name = shortened(name);
        let (reply, answer) = oneshot::channel();
        let _memory = Arc::clone(&memory);
        let (top, heatmap) = (query.top, query.heatmap);
        jobs.push(Job { file: bytes, name: name.clone(), top, heatmap, _memory, reply });
        names.push(name);
        answers.push(answer);
    }
    if !app.queue.push(jobs) {
        return Err(Refusal::busy());
    }
    Ok((names, answers))
}

fn files(body: Bytes, form: &Form, query: &Query, most: usize) -> Result<Vec<File>, Refusal> {
    let none =
        || Refusal::bad("the request holds no picture; send one as its body, or a form with files");
    match form {
        Form::Alone if body.is_empty() => Err(none()),
        Form::Alone => {
            Ok(vec![File { name: query.file.clone().unwrap_or_else(|| "-".into()), bytes: body }])
        }
        Form::Parts(boundary) => {
            let files = multipart::files(&body, boundary, most).map_err(Refusal::bad)?;
            if files.is_empty() { Err(none()) } else { Ok(files) }
        }
    }
}

/// A name that is not longer than file systems have them.
fn shortened(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(MAX_NAME));
    name
}

/// The array of all pictures; an error where none of them could be classified.
fn respond(query: &Query, names: &[String], outcomes: &[Outcome]) -> Result<Response, Refusal> {
    let mut bytes = b"[".to_vec();
    for (index, (file, outcome)) in names.iter().zip(outcomes).enumerate() {
        bytes.extend(if index > 0 { &b",\n"[..] } else { b"\n" });
        let item = match outcome {
            Ok(answer) => item(query, file, answer),
            Err(e) => Item::failed(file, e),
        };
        // Memory does not fail.
        let _ = print::json(&mut bytes, &item);
    }
    bytes.extend(b"\n]\n");
    if outcomes.iter().any(Result::is_ok) {
        return Ok(([(header::CONTENT_TYPE, JSON)], bytes).into_response());
    }
    let first = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    let error = match names {
        [name] if name == "-" => first.cloned().unwrap_or_default(),
        [name] => format!("{name}: {}", first.map_or("", String::as_str)),
        _ => "no picture of these could be classified; pictures says why".into(),
    };
    let refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error);
    Err(match names.len() {
        1 => refusal,
        _ => refusal.with_pictures(String::from_utf8_lossy(&bytes).into_owned()),
    })
}

fn item<'a>(query: &Query, file: &'a str, answer: &'a Answer) -> Item<'a> {
    let least = query.threshold.unwrap_or(0.0);
    let classes = (answer.classes.iter())
        .filter(|&&(_, probability)| probability >= least)
        .map(|(label, probability)| Class { label, probability: *probability })
        .collect();
    let [decode, preprocess, run] = answer.ms;
    let ms = query.time.then_some(Ms { decode, preprocess, run });
    let item = Item::classified(file, classes, answer.distance);
    Item { ms, heatmap: answer.heatmap.as_ref(), note: answer.note, ..item }
}

fn json(value: &impl serde::Serialize) -> Response {
    let mut bytes = Vec::new();
    // Memory does not fail.
    let _ = print::json(&mut bytes, value);
    bytes.push(b'\n');
    ([(header::CONTENT_TYPE, JSON)], bytes).into_response()
}
