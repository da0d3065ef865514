//! What goes wrong inside, translated once into what a client may know.

use std::error::Error;

use natter_protocol::error::{ErrorCode, WireError};
use natter_runtime::causes;
use natter_store::{Conflict, StoreError};

use crate::measures::{self, Limit};

/// How long a client should wait for a dependency that is down, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// A fault of the server: logged here with its causes, told to the client without any.
pub fn internal(what: &str, error: &(dyn Error + 'static)) -> WireError {
    tracing::error!(error = %causes(error), "{what}");
    measures::internal_errors().increment(1);
    WireError::new(ErrorCode::Internal, "a fault of the server")
}

/// A dependency that is down, by its name.
pub fn unavailable(what: &str) -> WireError {
    WireError::new(ErrorCode::Unavailable, format!("{what} is unavailable"))
        .retry_after_ms(RETRY_MS)
}

/// The answer to one who asks for too much of `what` at once; counted.
pub fn limited(what: Limit, message: &str, retry_after_ms: u64) -> WireError {
    measures::rate_limited(what).increment(1);
    WireError::new(ErrorCode::RateLimited, message).retry_after_ms(retry_after_ms)
}

/// What the store's errors mean to a client that can do nothing about the details.
#[expect(clippy::needless_pass_by_value, reason = "the form that map_err asks for")]
pub fn store(error: StoreError) -> WireError {
    match &error {
        StoreError::Unavailable(_) => {
            tracing::warn!(error = %causes(&error), "Postgres is unavailable");
            unavailable("the database")
        }
        StoreError::Conflict(conflict) => conflicting(*conflict),
        StoreError::NotFound => WireError::new(ErrorCode::NotFound, "not found"),
        StoreError::Forbidden => WireError::new(ErrorCode::Forbidden, "not allowed"),
        StoreError::NotMember => crate::chats::not_member(),
        StoreError::Data(_) => WireError::new(ErrorCode::BadRequest, "a value is not accepted"),
        StoreError::Fenced
        | StoreError::Database(_)
        | StoreError::Encoding(_)
        | StoreError::Migrate(_) => internal("the database refused a statement", &error),
    }
}

fn conflicting(conflict: Conflict) -> WireError {
    WireError::new(ErrorCode::Conflict, conflict.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_can_act_on_is_told_and_the_rest_is_not() {
        let code = |error| store(error).code;
        assert_eq!(code(StoreError::NotFound), ErrorCode::NotFound);
        assert_eq!(code(StoreError::Forbidden), ErrorCode::Forbidden);
        assert_eq!(code(StoreError::NotMember), ErrorCode::NotMember);
        assert_eq!(code(StoreError::Conflict(Conflict::Email)), ErrorCode::Conflict);
        let fault = store(StoreError::Fenced);
        assert_eq!(fault.code, ErrorCode::Internal);
        assert_eq!(fault.message, "a fault of the server");
    }

    #[test]
    fn whoever_asks_for_too_much_is_counted() -> anyhow::Result<()> {
        natter_runtime::metrics::install()?;
        let error = limited(Limit::Exports, "too many", 250);
        assert_eq!((error.code, error.retry_after_ms), (ErrorCode::RateLimited, Some(250)));
        let told = natter_runtime::metrics::render();
        let line = told
            .lines()
            .find_map(|line| line.strip_prefix(r#"natter_rate_limited_total{what="exports"} "#));
        assert!(line.is_some_and(|count| count != "0"), "{told}");
        Ok(())
    }
}
