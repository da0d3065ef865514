//! What the servers of an embedding product can do, by their tokens.

use anyhow::{Context, Result, ensure};
use natter_gateway::auth::service::NewToken;
use natter_protocol::service::Scope;
use natter_store::{NewServiceToken, Store, StoreConfig};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Gateway, Person, migrated};

/// A gateway, and the way to its database.
struct House {
    gateway: Gateway,
    store: Store,
    /// A token that may do all.
    all: String,
}

impl House {
    async fn open(settings: &[&str]) -> Result<Self> {
        let database = migrated().await?;
        let gateway = Gateway::start_on(&database, settings).await?;
        let store = Store::connect(&StoreConfig::new(&database))?;
        let all: Vec<Scope> = Scope::MEANINGS.iter().map(|(scope, _)| *scope).collect();
        let all = token(&store, &all, None).await?;
        Ok(Self { gateway, store, all })
    }

    async fn post(&self, path: &str, body: Value) -> Result<crate::support::Answer> {
        self.gateway.post(path, &self.all, body).await
    }

    /// A user without a password.
    async fn user(&self, name: &str, bot: bool) -> Result<String> {
        let made = self.post("/server/users", json!({"name": name, "bot": bot})).await?;
        text(&made.expect(201)?, "id")
    }

    /// The same with a device that is logged in.
    async fn connected(&self, name: &str) -> Result<Person> {
        let user = self.user(name, false).await?;
        let session = self.post(&format!("/server/users/{user}/devices"), Value::Null).await?;
        Person::of(&session.expect(201)?, "")
    }

    async fn group(&self, owner: &str, others: &[&str]) -> Result<String> {
        let body = json!({
            "isGroup": true, "title": "Order", "ownerId": owner, "participantIds": others,
        });
        text(&self.post("/server/chats", body).await?.expect(201)?, "id")
    }
}

async fn token(store: &Store, scopes: &[Scope], rate: Option<u32>) -> Result<String> {
    let NewToken { id, text, hash } = NewToken::generate();
    let new = NewServiceToken {
        id,
        name: "a test".to_owned(),
        hash,
        scopes: scopes.to_vec(),
        calls_per_second: rate,
    };
    store.create_service_token(&new).await?;
    Ok(text)
}

fn text(body: &Value, name: &str) -> Result<String> {
    let found = body[name].as_str().with_context(|| format!("no {name} in {body}"))?;
    Ok(found.to_owned())
}

/// Each call of the server API: method, path, and the scopes one of which it needs.
fn calls(document: &Value) -> Vec<(String, String, Vec<String>)> {
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let Some(path) = path.strip_prefix("/v1").filter(|path| path.starts_with("/server/"))
        else {
            continue;
        };
        for (method, operation) in item.as_object().into_iter().flatten() {
            let needs = operation["security"].as_array().into_iter().flatten();
            let scopes = needs.flat_map(|one| one["service"].as_array().into_iter().flatten());
            let scopes = scopes.filter_map(Value::as_str).map(str::to_owned).collect();
            calls.push((method.to_uppercase(), path.to_owned(), scopes));
        }
    }
    calls
}

/// The path with ids in it, of things that there are not.
fn filled(path: &str) -> String {
    let parts = path.split('/').map(|part| {
        if part.starts_with('{') { Uuid::now_v7().to_string() } else { part.to_owned() }
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_call_needs_its_scope_and_a_service_token() -> Result<()> {
    let House { gateway, store, .. } = House::open(&[]).await?;
    let ana = gateway.person("Ana").await?;
    let document = gateway.get("/openapi.json", "").await?.expect(200)?;
    let calls = calls(&document);
    ensure!(calls.len() > 15, "{calls:?}");
    for (method, path, scopes) in calls {
        ensure!(!scopes.is_empty(), "{method} {path} names no scope");
        let path = filled(&path);
        for wrong in ["", &ana.token, "nst_", &NewToken::generate().text] {
            let answer = gateway.call(&method, &path, wrong, json!({})).await?;
            answer.refused(401, "unauthenticated").with_context(|| format!("{method} {path}"))?;
        }
        let (with, without): (Vec<Scope>, Vec<Scope>) = Scope::MEANINGS
            .iter()
            .map(|(scope, _)| *scope)
            .partition(|scope| scopes.iter().any(|needed| needed == scope.as_str()));
        let others = token(&store, &without, None).await?;
        let answer = gateway.call(&method, &path, &others, json!({})).await?;
        let refused = answer.refused(403, "forbidden")?;
        let told = refused.body["detail"].as_str().unwrap_or_default();
        ensure!(told.contains("lacks the scope"), "{method} {path}: {told}");
        for scope in with {
            let one = token(&store, &[scope], None).await?;
            let answer = gateway.call(&method, &path, &one, json!({})).await?;
            ensure!(!matches!(answer.status, 401 | 403), "{method} {path} {scope}: {answer:?}");
        }
        // Nor does it make anybody a user.
        gateway.get("/users/me", &others).await?.refused(401, "unauthenticated")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_user_is_made_once_for_an_external_id() -> Result<()> {
    let house = House::open(&[]).await?;
    let name = format!("customer {}", Uuid::now_v7());
    let body =
        json!({"name": "Ana", "externalId": name, "email": format!("{name}@x").replace(' ', "")});
    let (one, other) = tokio::join!(
        house.post("/server/users", body.clone()),
        house.post("/server/users", body.clone())
    );
    let (one, other) = (one?, other?);
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201], "{one:?} {other:?}");
    assert_eq!(one.body, other.body);
    assert_eq!(
        (&one.body["externalId"], &one.body["bot"], &one.body["disabled"]),
        (&json!(name), &json!(false), &json!(false))
    );
    // What it says the second time changes nothing.
    let again = json!({"name": "Another", "externalId": name, "bot": true});
    assert_eq!(house.post("/server/users", again).await?.expect(200)?, one.body);

    let id = text(&one.body, "id")?;
    let found = house.gateway.get(&format!("/server/users?externalId={name}"), &house.all).await?;
    assert_eq!(found.expect(200)?, json!({"items": [one.body]}));
    let none = house.gateway.get("/server/users?externalId=nobody", &house.all).await?;
    assert_eq!(none.expect(200)?, json!({"items": []}));
    let got = house.gateway.get(&format!("/server/users/{id}"), &house.all).await?;
    assert_eq!(got.expect(200)?, one.body);

    let path = format!("/server/users/{id}");
    let change = json!({"name": "Ana B.", "email": null, "externalId": format!("{name}!")});
    let changed = house.gateway.call("PATCH", &path, &house.all, change).await?.expect(200)?;
    assert_eq!(
        (&changed["name"], &changed["email"], &changed["externalId"]),
        (&json!("Ana B."), &Value::Null, &json!(format!("{name}!")))
    );
    let other = house.user("Ben", false).await?;
    let taken = json!({"externalId": format!("{name}!")});
    let path = format!("/server/users/{other}");
    let refused = house.gateway.call("PATCH", &path, &house.all, taken).await?;
    refused.refused(409, "conflict")?;
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_told_by_its_code() -> Result<()> {
    let house = House::open(&[]).await?;
    let (ana, ben) = (house.user("Ana", false).await?, house.user("Ben", false).await?);
    let group = house.group(&ana, &[]).await?;
    let direct = json!({"isGroup": false, "participantIds": [ana, ben]});
    let direct = text(&house.post("/server/chats", direct).await?.expect(201)?, "id")?;
    let nobody = Uuid::now_v7().to_string();
    let nowhere = Uuid::now_v7();
    let system = json!({"sendAs": "system", "content": "x"});
    let as_ana = json!({"sendAs": ana, "content": "x"});
    let long = "x".repeat(256);
    for (method, path, body, status, code) in [
        ("POST", "/server/users".to_owned(), json!({}), 400, "bad_request"),
        ("POST", "/server/users".to_owned(), json!({"name": " "}), 400, "bad_request"),
        (
            "POST",
            "/server/users".to_owned(),
            json!({"name": "A", "phone": "1"}),
            400,
            "bad_request",
        ),
        (
            "POST",
            "/server/users".to_owned(),
            json!({"name": "A", "externalId": ""}),
            400,
            "bad_request",
        ),
        (
            "POST",
            "/server/users".to_owned(),
            json!({"name": "A", "externalId": long}),
            400,
            "bad_request",
        ),
        ("GET", "/server/users".to_owned(), Value::Null, 400, "bad_request"),
        ("GET", "/server/users/me".to_owned(), Value::Null, 400, "bad_request"),
        ("GET", format!("/server/users/{nobody}"), Value::Null, 404, "not_found"),
        ("GET", format!("/server/users/{}", Uuid::nil()), Value::Null, 404, "not_found"),
        ("PATCH", format!("/server/users/{nobody}"), json!({"name": "A"}), 404, "not_found"),
        ("PATCH", format!("/server/users/{}", Uuid::nil()), json!({"name": "A"}), 404, "not_found"),
        ("PATCH", format!("/server/users/{ana}"), json!({"email": "x"}), 400, "bad_request"),
        ("POST", format!("/server/users/{nobody}/disable"), Value::Null, 404, "not_found"),
        ("POST", format!("/server/users/{nobody}/enable"), Value::Null, 404, "not_found"),
        ("POST", format!("/server/users/{nobody}/devices"), json!({}), 404, "not_found"),
        ("POST", format!("/server/users/{}/devices", Uuid::nil()), json!({}), 404, "not_found"),
        (
            "POST",
            format!("/server/users/{ana}/devices"),
            json!({"device": {"id": "x"}}),
            400,
            "bad_request",
        ),
        ("DELETE", format!("/server/users/{ana}/devices/{nobody}"), Value::Null, 404, "not_found"),
        (
            "POST",
            "/server/chats".to_owned(),
            json!({"isGroup": true, "title": "T"}),
            400,
            "bad_request",
        ),
        (
            "POST",
            "/server/chats".to_owned(),
            json!({"isGroup": true, "ownerId": ana}),
            400,
            "bad_request",
        ),
        (
            "POST",
            "/server/chats".to_owned(),
            json!({"isGroup": false, "participantIds": [ana]}),
            400,
            "bad_request",
        ),
        (
            "POST",
            "/server/chats".to_owned(),
            json!({"isGroup": false, "participantIds": [ana, nobody]}),
            404,
            "not_found",
        ),
        (
            "POST",
            "/server/chats".to_owned(),
            json!({"isGroup": true, "title": "T", "ownerId": nobody}),
            404,
            "not_found",
        ),
        ("GET", format!("/server/chats/{nowhere}"), Value::Null, 404, "not_found"),
        ("GET", format!("/server/chats/{nowhere}/participants"), Value::Null, 404, "not_found"),
        (
            "GET",
            format!("/server/chats/{group}/participants?limit=0"),
            Value::Null,
            400,
            "bad_request",
        ),
        (
            "POST",
            format!("/server/chats/{nowhere}/participants"),
            json!({"userIds": [ben]}),
            404,
            "not_found",
        ),
        (
            "POST",
            format!("/server/chats/{group}/participants"),
            json!({"userIds": []}),
            400,
            "bad_request",
        ),
        (
            "POST",
            format!("/server/chats/{group}/participants"),
            json!({"userIds": [nobody]}),
            404,
            "not_found",
        ),
        (
            "POST",
            format!("/server/chats/{group}/participants"),
            json!({"userIds": [Uuid::nil()]}),
            404,
            "not_found",
        ),
        (
            "POST",
            format!("/server/chats/{direct}/participants"),
            json!({"userIds": [ben]}),
            403,
            "forbidden",
        ),
        (
            "DELETE",
            format!("/server/chats/{nowhere}/participants/{ben}"),
            Value::Null,
            404,
            "not_found",
        ),
        (
            "DELETE",
            format!("/server/chats/{group}/participants/{ben}"),
            Value::Null,
            404,
            "not_found",
        ),
        (
            "DELETE",
            format!("/server/chats/{direct}/participants/{ben}"),
            Value::Null,
            403,
            "forbidden",
        ),
        (
            "PATCH",
            format!("/server/chats/{group}/participants/{ana}"),
            json!({"role": "king"}),
            400,
            "bad_request",
        ),
        (
            "PATCH",
            format!("/server/chats/{group}/participants/{ana}"),
            json!({"role": "member"}),
            409,
            "conflict",
        ),
        (
            "PATCH",
            format!("/server/chats/{group}/participants/{ben}"),
            json!({"role": "admin"}),
            404,
            "not_found",
        ),
        ("POST", format!("/server/chats/{nowhere}/messages"), system.clone(), 404, "not_found"),
        ("POST", format!("/server/chats/{nowhere}/messages"), as_ana, 403, "not_member"),
        (
            "POST",
            format!("/server/chats/{group}/messages"),
            json!({"content": "x"}),
            400,
            "bad_request",
        ),
        (
            "POST",
            format!("/server/chats/{group}/messages"),
            json!({"sendAs": "me", "content": "x"}),
            400,
            "bad_request",
        ),
        (
            "POST",
            format!("/server/chats/{group}/messages"),
            json!({"sendAs": "system", "content": ""}),
            400,
            "bad_request",
        ),
        (
            "POST",
            format!("/server/chats/{group}/messages"),
            json!({"sendAs": "system", "content": "x".repeat(20_000)}),
            413,
            "too_large",
        ),
        (
            "POST",
            format!("/server/chats/{group}/messages"),
            json!({"sendAs": "system", "content": "x", "mediaId": nobody}),
            404,
            "not_found",
        ),
        (
            "POST",
            format!("/server/chats/{group}/messages"),
            json!({"sendAs": nobody, "content": "x"}),
            404,
            "not_found",
        ),
        (
            "POST",
            format!("/server/chats/{group}/messages"),
            json!({"sendAs": Uuid::nil(), "content": "x"}),
            404,
            "not_found",
        ),
        (
            "POST",
            format!("/server/chats/{group}/messages"),
            json!({"sendAs": ben, "content": "x"}),
            403,
            "not_member",
        ),
        ("GET", format!("/server/chats/{nowhere}/messages"), Value::Null, 404, "not_found"),
        (
            "GET",
            format!("/server/chats/{group}/messages?before=1&after=1"),
            Value::Null,
            400,
            "bad_request",
        ),
        (
            "GET",
            format!("/server/chats/{group}/messages?limit=201"),
            Value::Null,
            400,
            "bad_request",
        ),
        (
            "DELETE",
            format!("/server/chats/{nowhere}/messages/{nobody}"),
            Value::Null,
            404,
            "not_found",
        ),
        (
            "DELETE",
            format!("/server/chats/{group}/messages/{nobody}"),
            Value::Null,
            404,
            "not_found",
        ),
    ] {
        let answer = house.gateway.call(method, &path, &house.all, body.clone()).await?;
        answer.refused(status, code).with_context(|| format!("{method} {path} {body}"))?;
    }
    // Nobody is made a participant by what was refused.
    let chat =
        house.gateway.get(&format!("/server/chats/{group}"), &house.all).await?.expect(200)?;
    assert_eq!((&chat["participantCount"], &chat["me"]), (&json!(1), &Value::Null));
    Ok(())
}

#[tokio::test]
async fn a_user_without_a_password_is_logged_in_by_their_product() -> Result<()> {
    let house = House::open(&[]).await?;
    let gateway = &house.gateway;
    let user = house.user("Ana", false).await?;
    let path = format!("/server/users/{user}/devices");
    let device = json!({"device": {"name": "Ana's phone", "platform": "ios"}});
    let session = house.post(&path, device).await?.expect(201)?;
    assert_eq!(
        (&session["user"]["id"], &session["device"]["platform"]),
        (&json!(user), &json!("ios"))
    );
    let ana = Person::of(&session, "")?;
    assert_eq!(gateway.get("/users/me", &ana.token).await?.expect(200)?["name"], "Ana");
    let refresh = json!({"refreshToken": ana.refresh});
    let renewed = gateway.post("/auth/refresh", "", refresh).await?.expect(200)?;
    let renewed = Person::of(&renewed, "")?;

    // The same device once more: what it had is void. Another's device is not to be had.
    let again = json!({"device": {"id": ana.device}});
    let anew = Person::of(&house.post(&path, again.clone()).await?.expect(201)?, "")?;
    assert_eq!(anew.device, ana.device);
    gateway.get("/users/me", &renewed.token).await?.refused(401, "unauthenticated")?;
    gateway.get("/users/me", &anew.token).await?.expect(200)?;
    let ben = house.user("Ben", false).await?;
    let stolen = house.post(&format!("/server/users/{ben}/devices"), again).await?;
    stolen.refused(409, "conflict")?;

    let device = format!("{path}/{}", anew.device);
    gateway.call("DELETE", &device, &house.all, Value::Null).await?.expect(204)?;
    gateway.get("/users/me", &anew.token).await?.refused(401, "unauthenticated")?;
    gateway.call("DELETE", &device, &house.all, Value::Null).await?.refused(404, "not_found")?;
    Ok(())
}

#[tokio::test]
async fn nobody_is_let_in_as_a_user_who_is_disabled() -> Result<()> {
    let house = House::open(&[]).await?;
    let gateway = &house.gateway;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    let chat = house.group(&ben.id, &[&ana.id]).await?;
    let disabled = house.post(&format!("/server/users/{}/disable", ana.id), Value::Null).await?;
    assert_eq!(disabled.expect(200)?["disabled"], true);

    gateway.get("/users/me", &ana.token).await?.refused(403, "account_disabled")?;
    let refresh = json!({"refreshToken": ana.refresh});
    let refused = gateway.post("/auth/refresh", "", refresh.clone()).await?;
    refused.refused(403, "account_disabled")?;
    let right = gateway.log_in(&ana.email, crate::support::PASSWORD, Value::Null).await?;
    right.refused(403, "account_disabled")?;
    // Whoever does not know the password is not told.
    let wrong = gateway.log_in(&ana.email, "wrong horse battery", Value::Null).await?;
    wrong.refused(401, "unauthenticated")?;
    let device = house.post(&format!("/server/users/{}/devices", ana.id), Value::Null).await?;
    device.refused(403, "account_disabled")?;
    let said = json!({"sendAs": ana.id, "content": "x"});
    let said = house.post(&format!("/server/chats/{chat}/messages"), said).await?;
    said.refused(403, "account_disabled")?;
    gateway.get("/users/me", &ben.token).await?.expect(200)?;

    for _ in 0..2 {
        let enabled = house.post(&format!("/server/users/{}/enable", ana.id), Value::Null).await?;
        assert_eq!(enabled.expect(200)?["disabled"], false);
    }
    // What the device had is as good as before.
    gateway.get("/users/me", &ana.token).await?.expect(200)?;
    gateway.post("/auth/refresh", "", refresh).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_servers_calls_are_counted_apart_from_peoples_and_from_other_servers() -> Result<()> {
    let settings =
        ["--service-calls-per-second=1", "--service-calls-burst=3", "--calls-per-second=1"];
    let house = House::open(&settings).await?;
    let gateway = &house.gateway;
    let ana = gateway.person("Ana").await?;
    let slow = token(&house.store, &[Scope::Users], None).await?;
    let quick = token(&house.store, &[Scope::Users], Some(1_000)).await?;
    let (mut refused, mut through) = (None, 0);
    for _ in 0..10 {
        let answer = gateway.get("/server/users?externalId=x", &slow).await?;
        match answer.status {
            200 => through += 1,
            _ => refused = Some(answer),
        }
    }
    assert!((3..10).contains(&through), "{through}");
    let refused = refused.context("never refused")?.refused(429, "rate_limited")?;
    assert!(refused.body["retryAfterMs"].as_u64().is_some_and(|ms| (1..=1_001).contains(&ms)));
    // One with a rate of its own, people, and who guesses at a token's secret pay nothing for it.
    for _ in 0..10 {
        gateway.get("/server/users?externalId=x", &quick).await?.expect(200)?;
    }
    gateway.get("/users/me", &ana.token).await?.expect(200)?;
    let guessed = format!("{}x", &slow[..slow.len() - 1]);
    gateway.get("/server/users?externalId=x", &guessed).await?.refused(401, "unauthenticated")?;
    Ok(())
}

#[tokio::test]
async fn messages_are_sent_as_anybody_read_and_taken_back() -> Result<()> {
    let house = House::open(&[]).await?;
    let gateway = &house.gateway;
    let (ana, bot) = (house.connected("Ana").await?, house.user("Bot", true).await?);
    let chat = house.group(&ana.id, &[&bot]).await?;
    let path = format!("/server/chats/{chat}/messages");
    let send = token(&house.store, &[Scope::Send], None).await?;
    let impersonate = token(&house.store, &[Scope::Impersonate], None).await?;
    // No worker is here that could tell of older ones.
    let client_msg_id = Uuid::now_v7();
    let say = async |token: &str, send_as: &str, content: &str| {
        let mut body = json!({"sendAs": send_as, "content": content});
        if send_as == "system" {
            body["clientMsgId"] = json!(client_msg_id);
        }
        gateway.post(&path, token, body).await
    };
    let of_ana = say(&impersonate, &ana.id, "as Ana").await?.expect(201)?;
    say(&send, &ana.id, "never").await?.refused(403, "forbidden")?;
    say(&impersonate, "system", "never").await?.refused(403, "forbidden")?;
    say(&send, &bot, "as the bot").await?.expect(201)?;
    say(&impersonate, &bot, "as the bot too").await?.expect(201)?;
    let first = say(&send, "system", "as the system").await?.expect(201)?;
    let again = say(&house.all, "system", "as the system").await?.expect(200)?;
    assert_eq!(
        (&again["id"], &again["seq"], &again["duplicate"]),
        (&first["id"], &first["seq"], &json!(true))
    );

    let page = gateway.get(&path, &house.all).await?.expect(200)?;
    let messages = page["messages"].as_array().context("no messages")?;
    let told: Vec<_> = messages
        .iter()
        .filter(|message| message["contentType"] == "text")
        .map(|message| {
            (message["content"].clone(), message["sender"].clone(), message["deviceId"].clone())
        })
        .collect();
    let bots = json!({"id": bot, "name": "Bot", "bot": true});
    let system = json!({"id": Uuid::nil(), "name": "System", "bot": true});
    assert_eq!(
        told,
        [
            (json!("as Ana"), json!({"id": ana.id, "name": "Ana"}), Value::Null),
            (json!("as the bot"), bots.clone(), Value::Null),
            (json!("as the bot too"), bots, Value::Null),
            (json!("as the system"), system, Value::Null),
        ]
    );
    // As anybody in the chat sees it.
    let own = gateway.get(&format!("/chats/{chat}/messages"), &ana.token).await?.expect(200)?;
    assert_eq!(own, page);
    let seq = &first["seq"];
    let around = gateway.get(&format!("{path}?around={seq}&limit=4"), &house.all).await?;
    assert_eq!(around.expect(200)?["messages"].as_array().map(Vec::len), Some(2));

    let of_ana = text(&of_ana, "id")?;
    let gone = gateway.call("DELETE", &format!("{path}/{of_ana}"), &house.all, Value::Null).await?;
    let gone = gone.expect(200)?;
    let again =
        gateway.call("DELETE", &format!("{path}/{of_ana}"), &house.all, Value::Null).await?;
    again.expect(200)?;
    let page = gateway.get(&path, &house.all).await?.expect(200)?;
    let message = page["messages"].as_array().into_iter().flatten().find(|m| m["id"] == of_ana);
    let message = message.context("it is not shown")?;
    assert_eq!((&message["deleted"], &message["content"]), (&json!(true), &json!("")));
    ensure!(gone["seq"].as_u64() > message["seq"].as_u64(), "{gone} {message}");
    Ok(())
}

#[tokio::test]
async fn chats_of_others_are_made_and_managed() -> Result<()> {
    let house = House::open(&[]).await?;
    let gateway = &house.gateway;
    let (ana, ben) = (house.connected("Ana").await?, house.connected("Ben").await?);
    let bot = house.user("Bot", true).await?;
    let direct = json!({"isGroup": false, "participantIds": [ana.id, ben.id]});
    let made = house.post("/server/chats", direct.clone()).await?.expect(201)?;
    assert_eq!(house.post("/server/chats", direct).await?.expect(200)?["id"], made["id"]);
    // The very one that they open themselves.
    let own = json!({"isGroup": false, "participantIds": [ana.id]});
    assert_eq!(gateway.post("/chats", &ben.token, own).await?.expect(200)?["id"], made["id"]);

    let group = house.group(&ana.id, &[&ben.id]).await?;
    let path = format!("/server/chats/{group}/participants");
    let added = house.post(&path, json!({"userIds": [bot, ben.id]})).await?.expect(200)?;
    assert_eq!((&added["participantCount"], &added["createdBy"]), (&json!(3), &json!(ana.id)));
    let listed = gateway.get(&path, &house.all).await?.expect(200)?;
    let find = |listed: &Value, id: &str| {
        let items = listed["items"].as_array().into_iter().flatten();
        items.clone().find(|participant| participant["id"] == *id).cloned()
    };
    assert_eq!(
        find(&listed, &bot),
        Some(json!({"id": bot, "name": "Bot", "role": "member", "bot": true}))
    );
    assert_eq!(find(&listed, &ana.id), Some(json!({"id": ana.id, "name": "Ana", "role": "owner"})));

    let of_ben = format!("{path}/{}", ben.id);
    gateway.call("PATCH", &of_ben, &house.all, json!({"role": "admin"})).await?.expect(200)?;
    // The last owner goes, and who was an admin becomes one.
    let of_ana = format!("{path}/{}", ana.id);
    gateway.call("DELETE", &of_ana, &house.all, Value::Null).await?.expect(204)?;
    let listed = gateway.get(&path, &house.all).await?.expect(200)?;
    assert_eq!(find(&listed, &ana.id), None);
    assert_eq!(find(&listed, &ben.id).map(|ben| ben["role"].clone()), Some(json!("owner")));
    gateway.get(&format!("/chats/{group}"), &ana.token).await?.refused(403, "not_member")?;
    let page = gateway.get(&format!("/chats/{group}/messages"), &ben.token).await?.expect(200)?;
    let last: Vec<_> = page["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|message| (message["system"]["kind"].clone(), message["system"]["actorId"].clone()))
        .collect();
    let system = json!(Uuid::nil());
    assert_eq!(
        last,
        [
            (json!("created"), json!(ana.id)),
            (json!("added"), system.clone()),
            (json!("role"), system.clone()),
            (json!("removed"), system.clone()),
            (json!("role"), system),
        ]
    );
    Ok(())
}

#[tokio::test]
async fn an_external_id_goes_with_the_account() -> Result<()> {
    let house = House::open(&[]).await?;
    let called = format!("customer-{}", Uuid::now_v7());
    let body = json!({"name": "Ana", "externalId": called});
    let first = text(&house.post("/server/users", body.clone()).await?.expect(201)?, "id")?;
    let session = house.post(&format!("/server/users/{first}/devices"), Value::Null).await?;
    let ana = Person::of(&session.expect(201)?, "")?;
    let gone = house.gateway.call("DELETE", "/users/me", &ana.token, json!({})).await?;
    gone.expect(204)?;
    house
        .gateway
        .get(&format!("/server/users/{first}"), &house.all)
        .await?
        .refused(404, "not_found")?;
    let second = text(&house.post("/server/users", body).await?.expect(201)?, "id")?;
    assert_ne!(first, second);
    Ok(())
}
