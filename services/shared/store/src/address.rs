//! Postgres' URL, checked before anything connects: what the driver passes over, or finds out at
//! the first connection only, is refused here.

use std::{fs, path::Path, str::FromStr};

use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use url::Url;

/// Parameters that the driver knows and that may be said.
const PARAMETERS: [&str; 17] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Why a URL will not do. Never shows it: it holds a password.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// No URL of Postgres.
    #[error("not postgres://user:password@host:port/database (percent-encode what is special)")]
    Form,
    /// A parameter that has no such value.
    #[error("a parameter has a value that is none of its own: {0}")]
    Value(String),
    /// A parameter that nobody reads.
    #[error("there is no parameter {0}")]
    Parameter(String),
    /// A certificate would not count.
    #[error("sslrootcert counts with sslmode=verify-ca or verify-full only")]
    Unverified,
    /// A file that a parameter names.
    #[error("{parameter}: {path}: {reason}")]
    File {
        /// The parameter.
        parameter: String,
        /// Its value.
        path: String,
        /// What is wrong with the file.
        reason: String,
    },
}

/// Checks `postgres://user:password@host:port/database`, with `?sslmode=verify-full` and
/// `&sslrootcert=/file` for TLS, and the files that it names.
///
/// # Errors
/// See [`UrlError`].
pub fn parse_url(text: &str) -> Result<SecretString, UrlError> {
    let url = Url::parse(text).map_err(|_| UrlError::Form)?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(UrlError::Form);
    }
    let (mut mode, mut authorities) = (String::new(), false);
    for (key, value) in url.query_pairs() {
        match &*key {
            "sslmode" | "ssl-mode" => mode = value.into_owned(),
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => {
                authorities = true;
                readable(&key, &value, "-----BEGIN CERTIFICATE-----")?;
            }
            "sslcert" | "ssl-cert" => readable(&key, &value, "-----BEGIN CERTIFICATE-----")?,
            "sslkey" | "ssl-key" => readable(&key, &value, "PRIVATE KEY-----")?,
            key if PARAMETERS.contains(&key) || key.starts_with("options[") => {}
            other => return Err(UrlError::Parameter(other.to_owned())),
        }
    }
    if authorities && !mode.starts_with("verify-") {
        return Err(UrlError::Unverified);
    }
    match PgConnectOptions::from_str(text) {
        Ok(_) => Ok(text.into()),
        Err(sqlx::Error::Configuration(error)) if url.query().is_some() => {
            Err(UrlError::Value(error.to_string()))
        }
        Err(_) => Err(UrlError::Form),
    }
}

fn readable(parameter: &str, path: &str, holds: &str) -> Result<(), UrlError> {
    let wrong = |reason: String| UrlError::File {
        parameter: parameter.to_owned(),
        path: path.to_owned(),
        reason,
    };
    let pem = fs::read_to_string(Path::new(path)).map_err(|error| wrong(error.to_string()))?;
    if pem.contains(holds) { Ok(()) } else { Err(wrong("not what it should be, in PEM".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_would_pass_over_is_refused_without_the_password() {
        for bad in [
            "",
            "mysql://natter:hunter2@db/natter",
            "postgres://natter:hunter2@db:port/natter",
            "postgres://natter:hunter2@db/natter?sslmode=sometimes",
            "postgres://natter:hunter2@db/natter?sslmodes=verify-full",
            "postgres://natter:hunter2@db/natter?sslmode=verify-full&sslrootcert=/nowhere",
            "postgres://natter:hunter2@db/natter?sslmode=require&sslrootcert=/nowhere",
        ] {
            let error = parse_url(bad).expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(
            parse_url("postgres://natter:p%40ss%2Fword@db:5432/natter?sslmode=verify-full").is_ok()
        );
    }
}
