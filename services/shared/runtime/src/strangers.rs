//! Variables that are meant for Natter, by their name, and that nobody reads: a typing error would
//! else leave a setting at its default in silence.
//!
//! They are warned of, not refused: all programs may share one environment, and not only settings
//! have such names (Kubernetes makes some up for a Service that is called natter).

use std::env;

/// What programs read, one a line; written by the test of `deploy/settings.md`.
const KNOWN: &str = include_str!("variables.txt");

/// What is read elsewhere: by tools, and by Compose's file.
const BESIDE: [&str; 8] = [
    "NATTER_BIN_DIR",
    "NATTER_IMAGE",
    "NATTER_PORT",
    "NATTER_REVISION",
    "NATTER_TOKEN",
    "NATTER_VERSION",
    "NATTER_WRITE_RULES",
    "NATTER_WRITE_SETTINGS",
];

/// How much a name may differ from a known one to be taken for it: 0 to 1, which is the same.
const ALIKE: f64 = 0.9;

/// Warns of each of them in the log, once.
pub fn warn() {
    for (variable, _) in env::vars_os() {
        let Some(variable) = variable.to_str().filter(|name| is_stranger(name)) else { continue };
        if let Some(nearest) = nearest(variable) {
            tracing::warn!(variable, "nothing in Natter reads this variable: is {nearest} meant?");
        } else {
            tracing::warn!(variable, "nothing in Natter reads this variable");
        }
    }
}

fn known() -> impl Iterator<Item = &'static str> {
    KNOWN.lines()
}

fn is_stranger(name: &str) -> bool {
    name.starts_with("NATTER_")
        && !known().chain(BESIDE).any(|known| known == name)
        && !is_of_a_service(name)
}

/// Whether Kubernetes has made it up, as `NATTER_GATEWAY_PORT_8080_TCP_ADDR`.
fn is_of_a_service(name: &str) -> bool {
    name.ends_with("_PORT")
        || ["_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|part| name.contains(part))
        || (name.contains("_PORT_") && name.contains("_TCP"))
}

fn nearest(name: &str) -> Option<&'static str> {
    let alike = known().map(|known| (strsim::jaro_winkler(known, name), known));
    let nearest = alike.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (nearest.0 >= ALIKE).then_some(nearest.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_told_from_what_others_read() {
        assert!(is_stranger("NATTER_SHARD"));
        assert_eq!(nearest("NATTER_SHARD"), Some("NATTER_SHARDS"));
        assert_eq!(nearest("NATTER_NATS_CREDENTIAL"), Some("NATTER_NATS_CREDENTIALS"));
        for fine in ["NATTER_SHARDS", "NATTER_PORT", "NATTER_MEDIA_UNSENT_SECONDS", "PATH"] {
            assert!(!is_stranger(fine), "{fine}");
        }
        for service in ["NATTER_GATEWAY_SERVICE_HOST", "NATTER_GATEWAY_PORT_8080_TCP_ADDR"] {
            assert!(!is_stranger(service), "{service}");
        }
    }
}
