//! The settings that every service takes, from flags or the environment.
//!
//! A service flattens [`NodeArgs`] into its own `clap` parser. Secrets need nothing from here:
//! `clap` parses a `secrecy::SecretString` as it is; mark such an argument `hide_env_values`.

use std::net::SocketAddr;

use clap::Args;
use uuid::Uuid;

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
    use clap::Parser;

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

    #[test]
    fn a_node_id_that_would_break_a_subject_is_refused() {
        for bad in ["", "a.b", "a b", "gw*", "größe", &"x".repeat(65)] {
            assert!(Cli::try_parse_from(["natter", "--node-id", bad]).is_err(), "{bad}");
        }
        assert!(Cli::try_parse_from(["natter", "--node-id", "gateway-1_b"]).is_ok());
    }
}
