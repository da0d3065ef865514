//! A document as it is served: the same bytes to all, and none to those who have them.

use axum::{
    body::Bytes,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use axum_extra::headers::{ETag, HeaderMapExt, IfNoneMatch};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

#[derive(Clone)]
pub struct Served {
    kind: &'static str,
    text: Bytes,
    tag: Option<ETag>,
}

impl Served {
    /// A text of this media type.
    pub fn new(kind: &'static str, text: String) -> Self {
        let digest = URL_SAFE_NO_PAD.encode(&Sha256::digest(&text)[..12]);
        Self { kind, tag: format!("\"{digest}\"").parse().ok(), text: text.into() }
    }

    /// For somebody who has what these tags tell.
    pub fn to(&self, known: Option<&IfNoneMatch>) -> Response {
        let has = |tag| known.is_some_and(|known| !known.precondition_passes(tag));
        let mut response = if self.tag.as_ref().is_some_and(has) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            self.text.clone().into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        // A node of the next version may answer the next request: ask each time.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Some(tag) = &self.tag {
            headers.typed_insert(tag.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_it_is_told_so() -> anyhow::Result<()> {
        let served = Served::new("text/plain", "a document".to_owned());
        let first = served.to(None);
        assert_eq!(first.status(), StatusCode::OK);
        let tag: ETag = first.headers()[header::ETAG].to_str()?.parse()?;
        assert_eq!(served.to(Some(&tag.into())).status(), StatusCode::NOT_MODIFIED);
        let other: ETag = "\"another\"".parse()?;
        assert_eq!(served.to(Some(&other.into())).status(), StatusCode::OK);
        Ok(())
    }
}
