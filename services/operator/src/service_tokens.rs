//! Tokens of the server API: made, listed, revoked.

use natter_gateway::auth::service::NewToken;
use natter_protocol::{ids::ServiceTokenId, service::Scope};
use natter_store::{NewServiceToken, ServiceTokenRecord};
use serde::Serialize;

use crate::{
    config::{CreateServiceTokenArgs, ListServiceTokensArgs, RevokeServiceTokenArgs},
    outcome::{Failure, Outcome},
    text::{Table, age, moment, print, print_json, since},
};

const HEADING: [&str; 6] = ["TOKEN", "NAME", "SCOPES", "RATE", "LAST USED", "STATE"];

/// `service-token create`.
///
/// # Errors
/// When Postgres does not answer.
pub async fn create(args: &CreateServiceTokenArgs) -> Result<Outcome, Failure> {
    #[derive(Serialize)]
    struct Made<'a> {
        id: ServiceTokenId,
        token: &'a str,
    }
    let store = args.servers.store()?;
    let NewToken { id, text, hash } = NewToken::generate();
    let mut scopes = Vec::new();
    for scope in &args.scopes {
        if !scopes.contains(scope) {
            scopes.push(*scope);
        }
    }
    let new =
        NewServiceToken { id, name: args.name.clone(), hash, scopes, calls_per_second: args.rate };
    store.create_service_token(&new).await?;
    if args.json {
        print_json(&Made { id, token: &text });
    } else {
        print(&format!("{text}\n"));
        eprintln!("natter: made {id}; this is the only time that the token is shown");
    }
    Ok(Outcome::Well)
}

/// A token, as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    id: ServiceTokenId,
    name: String,
    scopes: Vec<Scope>,
    calls_per_second: Option<u32>,
    created_at: String,
    last_used_at: Option<String>,
    revoked_at: Option<String>,
}

impl From<&ServiceTokenRecord> for Shown {
    fn from(record: &ServiceTokenRecord) -> Self {
        Self {
            id: record.id,
            name: record.name.clone(),
            scopes: record.scopes.clone(),
            calls_per_second: record.calls_per_second,
            created_at: moment(record.created_at),
            last_used_at: record.last_used_at.map(moment),
            revoked_at: record.revoked_at.map(moment),
        }
    }
}

/// `service-token list`.
///
/// # Errors
/// When Postgres does not answer.
pub async fn list(args: &ListServiceTokensArgs) -> Result<Outcome, Failure> {
    let tokens = args.servers.store()?.service_tokens().await?;
    if args.json {
        print_json(&tokens.iter().map(Shown::from).collect::<Vec<_>>());
        return Ok(Outcome::Well);
    }
    let mut table = Table::new(&HEADING);
    for token in &tokens {
        let ago = |at| format!("{} ago", age(since(at)));
        let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        table.row([
            token.id.to_string(),
            token.name.clone(),
            scopes.join(","),
            token.calls_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate}/s")),
            token.last_used_at.map_or_else(|| "-".to_owned(), ago),
            token.revoked_at.map_or_else(|| "good".to_owned(), |at| format!("revoked {}", ago(at))),
        ]);
    }
    print(&format!("{table}"));
    Ok(Outcome::Well)
}

/// `service-token revoke`.
///
/// # Errors
/// When there is no such token, or Postgres does not answer.
pub async fn revoke(args: &RevokeServiceTokenArgs) -> Result<Outcome, Failure> {
    if !args.servers.store()?.revoke_service_token(args.id).await? {
        return Err(Failure::refused(format!("there is no service token {}", args.id)));
    }
    print("revoked; gateways refuse it within a second\n");
    Ok(Outcome::Well)
}
