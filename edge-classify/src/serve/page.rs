//! The page for people: one file, in which the policy allows nothing but its own style and script.

use axum::http::HeaderValue;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// The page and its content security policy.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) html: String,
    pub(super) policy: HeaderValue,
}

/// The page, which is the same for all.
pub(super) fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| {
        let shared = include_str!("../../../crates/page/templates/style.css");
        let style = &[shared, include_str!("page.css")].concat();
        let script = concat!(include_str!("heat.js"), include_str!("page.js"));
        let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
             img-src blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            hash(style),
            hash(script),
        );
        let html = include_str!("page.html").replace("@STYLE@", style).replace("@SCRIPT@", script);
        // Base64 and words are what a header may hold; without it, browsers run no script at all.
        let none = HeaderValue::from_static("default-src 'none'");
        Page { html, policy: HeaderValue::try_from(policy).unwrap_or(none) }
    });
    &PAGE
}
