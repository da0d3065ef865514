//! Which traces are exported, as the standard variables say. The SDK reads them as well, but takes
//! what it cannot read for "all of them".

use std::env;

use opentelemetry_sdk::trace::Sampler;

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";

/// A variable that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// Not a sampler that there is here.
    #[error(
        "{SAMPLER}: {0:?} is none of always_on, always_off, traceidratio, parentbased_always_on, \
         parentbased_always_off and parentbased_traceidratio"
    )]
    Unknown(String),
    /// Not a share of all traces.
    #[error("{ARGUMENT}: {0:?} is not a ratio from 0 to 1")]
    Ratio(String),
}

/// The sampler of this process. All traces whose parent is sampled or that begin here, unless
/// `OTEL_TRACES_SAMPLER` says otherwise.
///
/// # Errors
/// [`SamplerError`].
pub(crate) fn from_environment() -> Result<Sampler, SamplerError> {
    // What is empty is taken for not set, as the standard has it.
    let value = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let value = |name| value(name).filter(|value| !value.is_empty());
    sampler(value(SAMPLER).as_deref(), value(ARGUMENT).as_deref())
}

fn sampler(name: Option<&str>, argument: Option<&str>) -> Result<Sampler, SamplerError> {
    let root = match name.unwrap_or("parentbased_always_on") {
        "always_on" | "parentbased_always_on" => Sampler::AlwaysOn,
        "always_off" | "parentbased_always_off" => Sampler::AlwaysOff,
        "traceidratio" | "parentbased_traceidratio" => Sampler::TraceIdRatioBased(ratio(argument)?),
        other => return Err(SamplerError::Unknown(other.to_owned())),
    };
    let follows = name.is_none_or(|name| name.starts_with("parentbased_"));
    Ok(if follows { Sampler::ParentBased(Box::new(root)) } else { root })
}

/// All of them, by default.
fn ratio(argument: Option<&str>) -> Result<f64, SamplerError> {
    let Some(argument) = argument else { return Ok(1.0) };
    let ratio = argument.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| SamplerError::Ratio(argument.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: Option<&str>, argument: Option<&str>) -> Result<String, SamplerError> {
        sampler(name, argument).map(|sampler| format!("{sampler:?}"))
    }

    #[test]
    fn the_standard_names_are_known() {
        let is = |name, argument, expected: &str| {
            assert_eq!(read(name, argument), Ok(expected.to_owned()), "{name:?} {argument:?}");
        };
        is(None, None, "ParentBased(AlwaysOn)");
        is(None, Some("nonsense"), "ParentBased(AlwaysOn)");
        is(Some("always_off"), None, "AlwaysOff");
        is(Some("parentbased_always_off"), None, "ParentBased(AlwaysOff)");
        is(Some("traceidratio"), Some("0.25"), "TraceIdRatioBased(0.25)");
        is(Some("parentbased_traceidratio"), Some("0"), "ParentBased(TraceIdRatioBased(0.0))");
        is(Some("parentbased_traceidratio"), None, "ParentBased(TraceIdRatioBased(1.0))");
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_the_name_of_its_variable() {
        for bad in ["1.5", "-0.1", "NaN", "half", " "] {
            let error = read(Some("parentbased_traceidratio"), Some(bad));
            assert_eq!(error, Err(SamplerError::Ratio(bad.to_owned())));
            assert!(
                error.is_err_and(|error| error.to_string().starts_with("OTEL_TRACES_SAMPLER_ARG:"))
            );
        }
        let error = read(Some("xray"), None);
        assert!(error.is_err_and(|error| error.to_string().starts_with("OTEL_TRACES_SAMPLER:")));
    }
}
