//! The settings that every service takes, from flags or the environment.
//!
//! A service flattens [`NodeArgs`] into its own `clap` parser, and reads that by [`parse`]. An
//! argument that holds a secret is marked `hide_env_values`, which keeps it out of errors too; a
//! parser of its own must not repeat the value either.

use std::{env, io, net::SocketAddr};

use clap::{
    Args, Command, CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};
use tokio::net::TcpListener;
use uuid::Uuid;

/// Reads flags and the environment. What is wrong with them is told with the flag and the
/// variable, without the values of secrets, and ends the process with status 2; `--help` and
/// `--version` are told too, with status 0.
#[must_use]
pub fn parse<C: CommandFactory + FromArgMatches>() -> C {
    let mut command = C::command();
    // All of it, also what is not asked for: errors are told with what each argument is.
    command.build();
    let parsed = command
        .try_get_matches_from_mut(env::args_os())
        .and_then(|mut matches| C::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(parsed) => parsed,
        Err(error) => named(error, &command).exit(),
    }
}

/// The error with variables beside flags, and without secrets.
fn named(mut error: clap::Error, command: &Command) -> clap::Error {
    if error.kind() == ErrorKind::InvalidUtf8 {
        let garbled = variables(command).into_iter().filter(|name| garbled(name));
        let garbled: Vec<_> = garbled.collect();
        let whose = if garbled.is_empty() { "a flag".to_owned() } else { garbled.join(", ") };
        return clap::Error::raw(ErrorKind::InvalidUtf8, format!("{whose}: not UTF-8\n"));
    }
    let invalid = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => find(command, flag),
        _ => None,
    };
    if invalid.is_some_and(clap::Arg::is_hide_env_values_set) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("(hidden)".to_owned()));
    }
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let told = match error.get(kind) {
            Some(ContextValue::String(flag)) => ContextValue::String(with_variable(command, flag)),
            Some(ContextValue::Strings(flags)) => ContextValue::Strings(
                flags.iter().map(|flag| with_variable(command, flag)).collect(),
            ),
            _ => continue,
        };
        error.insert(kind, told);
    }
    error
}

fn garbled(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| value.to_str().is_none())
}

fn find<'a>(command: &'a Command, flag: &str) -> Option<&'a clap::Arg> {
    let own = command.get_arguments().find(|arg| arg.to_string() == flag);
    own.or_else(|| command.get_subcommands().find_map(|inner| find(inner, flag)))
}

fn with_variable(command: &Command, flag: &str) -> String {
    let variable = find(command, flag).and_then(clap::Arg::get_env);
    match variable {
        Some(variable) => format!("{flag} ({})", variable.to_string_lossy()),
        None => flag.to_owned(),
    }
}

/// The variables that a command and its subcommands read, those that `--help` hides included.
#[must_use]
pub fn variables(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(clap::Arg::get_env);
    let mut names: Vec<_> = own.map(|name| name.to_string_lossy().into_owned()).collect();
    names.extend(command.get_subcommands().flat_map(variables));
    names.sort();
    names.dedup();
    names
}

/// Who this process is and where its operator reaches it.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// Name of this node, unique among the processes of a cell; a random one by default.
    ///
    /// 1 to 64 of `A-Z a-z 0-9 _ -`, since it becomes part of broker subjects and Redis keys.
    #[arg(long, env = "NATTER_NODE_ID", default_value_t = random_node_id(), hide_default_value = true, value_parser = parse_node_id)]
    pub node_id: String,

    /// Address of the admin port: health and metrics. Not for the public.
    #[arg(long, env = "NATTER_ADMIN_LISTEN", default_value = "127.0.0.1:9090")]
    pub admin_listen: SocketAddr,
}

impl NodeArgs {
    /// Opens the admin port.
    ///
    /// # Errors
    /// When it cannot be, with the setting's name.
    pub async fn bind_admin(&self) -> io::Result<TcpListener> {
        bind("NATTER_ADMIN_LISTEN (--admin-listen)", self.admin_listen).await
    }
}

/// Opens a port that a setting asks for.
///
/// # Errors
/// When it cannot be, with the setting's name.
pub async fn bind(setting: &str, address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("{setting}: cannot listen on {address}: {error}"))
    };
    TcpListener::bind(address).await.map_err(named)
}

/// A short node id, random enough for the processes of one cell.
pub fn random_node_id() -> String {
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(12);
    id
}

fn parse_node_id(raw: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&raw.len()) && raw.bytes().all(allowed) {
        Ok(raw.to_owned())
    } else {
        Err("a node id is 1 to 64 letters, digits, '_' or '-'".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        node: NodeArgs,
    }

    #[test]
    fn a_node_without_a_name_gets_a_valid_random_one() -> anyhow::Result<()> {
        let first = Cli::try_parse_from(["natter"])?.node;
        parse_node_id(&first.node_id).map_err(anyhow::Error::msg)?;
        assert_eq!(first.admin_listen.to_string(), "127.0.0.1:9090");
        assert_ne!(random_node_id(), random_node_id());
        Ok(())
    }

    #[derive(Debug, Parser)]
    struct Strict {
        #[arg(long, env = "NATTER_TEST_NUMBER", value_parser = clap::value_parser!(u8).range(1..=9))]
        number: u8,
        #[arg(long, env = "NATTER_TEST_SECRET", hide_env_values = true, value_parser = never)]
        secret: Option<String>,
    }

    fn never(_: &str) -> Result<String, String> {
        Err("too short".to_owned())
    }

    #[test]
    fn an_error_names_the_variable_and_no_secret() {
        let mut command = Strict::command();
        let mut told = |args: &[&str]| {
            let all = ["natter"].iter().chain(args);
            let error = command.try_get_matches_from_mut(all).expect_err("wrong");
            named(error, &command).to_string()
        };
        let missing = told(&[]);
        assert!(missing.contains("--number <NUMBER> (NATTER_TEST_NUMBER)"), "{missing}");
        let bad = told(&["--number=10"]);
        assert!(bad.contains("'10' for '--number <NUMBER> (NATTER_TEST_NUMBER)': 10 is"), "{bad}");
        let secret = told(&["--number=1", "--secret=hunter2"]);
        assert!(secret.contains("(NATTER_TEST_SECRET)': too short"), "{secret}");
        assert!(!secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn a_node_id_that_would_break_a_subject_is_refused() {
        for bad in ["", "a.b", "a b", "gw*", "größe", &"x".repeat(65)] {
            assert!(Cli::try_parse_from(["natter", "--node-id", bad]).is_err(), "{bad}");
        }
        assert!(Cli::try_parse_from(["natter", "--node-id", "gateway-1_b"]).is_ok());
    }
}
