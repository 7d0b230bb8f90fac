//! Requests that are not answered: a status, and a sentence that says what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    /// The JSON of several pictures, each of which was refused.
    pictures: Option<String>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), pictures: None }
    }

    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn too_large(most: usize) -> Self {
        let mib = most >> 20;
        let error = format!("a request of more than {mib} MiB; send smaller pictures, or fewer");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    pub(super) fn too_slow(seconds: u64) -> Self {
        let error = format!("the request did not come within {seconds} seconds; send it again");
        Self::new(StatusCode::REQUEST_TIMEOUT, error)
    }

    pub(super) fn busy() -> Self {
        let error = "too much is waiting already; send the request again in a second";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    pub(super) fn with_pictures(mut self, pictures: String) -> Self {
        self.pictures = Some(pictures);
        self
    }

    fn json(&self) -> String {
        let error = json(&self.error);
        match &self.pictures {
            Some(pictures) => {
                format!("{{\"error\":{error},\"pictures\":{}}}\n", pictures.trim_end())
            }
            None => format!("{{\"error\":{error}}}\n"),
        }
    }

    /// The whole answer where there is nobody to write it; the connection ends with it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let body = self.json();
        let retry = if self.is_busy() { "retry-after: 1\r\n" } else { "" };
        format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\n{retry}x-content-type-options: \
             nosniff\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }

    fn is_busy(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }
}

/// A text in quotes, harmless on a terminal.
fn json(text: &str) -> String {
    let mut bytes = Vec::new();
    // Memory does not fail, and all that is written is text.
    let _ = crate::print::json(&mut bytes, &text);
    String::from_utf8(bytes).unwrap_or_default()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut response = (self.status, kind, self.json()).into_response();
        let headers = response.headers_mut();
        if self.is_busy() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
