//! Accounts, sessions and devices.

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Gateway, PASSWORD, Person};

#[tokio::test]
async fn somebody_registers_and_logs_in_on_a_second_device() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let phone = format!("+49{:011}", Uuid::new_v4().as_u128() % 100_000_000_000);
    let request = json!({
        "name": " Ana ", "phone": phone, "email": "Ana@Example.org", "password": PASSWORD,
        "device": {"name": "Laptop", "platform": "web"},
    });
    let session = gateway.post("/auth/register", "", request.clone()).await?.expect(201)?;
    assert_eq!(session["user"]["name"], "Ana");
    assert_eq!(session["device"]["current"], true);
    assert_eq!(session["device"]["platform"], "web");
    let laptop = Person::of(&session, "ana@example.org")?;
    let me = gateway.get("/users/me", &laptop.token).await?.expect(200)?;
    assert_eq!(me["phone"], *phone);

    gateway.post("/auth/register", "", request).await?.refused(409, "conflict")?;
    let login = json!({"phone": phone, "password": PASSWORD, "device": {"name": "Phone"}});
    let session = gateway.post("/auth/login", "", login).await?.expect(200)?;
    let mobile = Person::of(&session, "ana@example.org")?;
    assert_eq!(mobile.id, laptop.id);
    assert_ne!(mobile.device, laptop.device);

    let devices = gateway.get("/devices", &mobile.token).await?.expect(200)?;
    let names: Vec<_> = devices["items"].as_array().into_iter().flatten().collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|device| {
        (device["name"] == "Phone") == (device["current"] == true) && device["online"] == false
    }));
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_account_look_alike() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let ana = gateway.person("Ana").await?;
    let wrong = gateway.log_in(&ana.email, "wrong horse", Value::Null).await?;
    let unknown = gateway.log_in("nobody@example.org", PASSWORD, Value::Null).await?;
    let wrong = wrong.refused(401, "unauthenticated")?;
    assert_eq!(wrong.body, unknown.refused(401, "unauthenticated")?.body);
    gateway.log_in(&ana.email.to_uppercase(), PASSWORD, Value::Null).await?.expect(200)?;
    for both in [json!({"password": "x"}), json!({"password": "x", "email": "a", "phone": "+1"})] {
        gateway.post("/auth/login", "", both).await?.refused(400, "bad_request")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_device_logs_in_again_as_itself_and_nobody_as_anothers() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    let again = json!({"id": ana.device});
    let session = gateway.log_in(&ana.email, PASSWORD, again.clone()).await?.expect(200)?;
    assert_eq!(session["device"]["id"], *ana.device);
    gateway.get("/users/me", &ana.token).await?.refused(401, "unauthenticated")?;
    let session = Person::of(&session, &*ana.email)?;
    gateway.get("/users/me", &session.token).await?.expect(200)?;
    gateway.log_in(&ben.email, PASSWORD, again).await?.refused(409, "conflict")?;

    // An id of the client's own making, that nobody has seen.
    let own = Uuid::new_v4().to_string();
    let laptop = json!({"id": own, "name": "Laptop", "platform": "linux"});
    let session = gateway.log_in(&ben.email, PASSWORD, laptop.clone()).await?.expect(200)?;
    assert_eq!(session["device"]["id"], *own);
    let other = json!({"id": Uuid::new_v4().to_string()});
    let account = json!({"name": "Cleo", "email": "own-id@example.org", "password": PASSWORD});
    let mut account = account;
    account["device"] = other.clone();
    let session = gateway.post("/auth/register", "", account).await?.expect(201)?;
    assert_eq!(session["device"]["id"], other["id"]);
    Ok(())
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_replay_signs_the_device_out() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let ana = gateway.person("Ana").await?;
    let refresh =
        async |token: &str| gateway.post("/auth/refresh", "", json!({"refreshToken": token})).await;
    let first = Person::of(&refresh(&ana.refresh).await?.expect(200)?, &*ana.email)?;
    assert_eq!((&first.id, &first.device), (&ana.id, &ana.device));
    let second = Person::of(&refresh(&first.refresh).await?.expect(200)?, &*ana.email)?;
    gateway.get("/users/me", &second.token).await?.expect(200)?;

    refresh(&ana.refresh).await?.refused(401, "unauthenticated")?;
    gateway.get("/users/me", &second.token).await?.refused(401, "unauthenticated")?;
    refresh(&second.refresh).await?.refused(401, "unauthenticated")?;
    for junk in ["", "junk", &ana.token[..100]] {
        refresh(junk).await?.refused(401, "unauthenticated")?;
    }
    Ok(())
}

#[tokio::test]
async fn logging_out_ends_access_token_and_refresh_token() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let ana = gateway.person("Ana").await?;
    gateway.post("/auth/logout", &ana.token, Value::Null).await?.expect(204)?;
    gateway.get("/users/me", &ana.token).await?.refused(401, "unauthenticated")?;
    let request = json!({"refreshToken": ana.refresh});
    gateway.post("/auth/refresh", "", request).await?.refused(401, "unauthenticated")?;
    Ok(())
}

#[tokio::test]
async fn a_new_password_signs_the_other_devices_out() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let ana = gateway.person("Ana").await?;
    let other = gateway.log_in(&ana.email, PASSWORD, Value::Null).await?.expect(200)?;
    let other = Person::of(&other, &*ana.email)?;
    let change = async |current: &str, new: &str| {
        let request = json!({"current": current, "new": new});
        gateway.post("/auth/password", &ana.token, request).await
    };
    change("wrong horse", "new password").await?.refused(403, "forbidden")?;
    change(PASSWORD, "short").await?.refused(400, "bad_request")?;
    change(PASSWORD, "new password").await?.expect(204)?;
    gateway.get("/users/me", &ana.token).await?.expect(200)?;
    gateway.get("/users/me", &other.token).await?.refused(401, "unauthenticated")?;
    gateway.log_in(&ana.email, PASSWORD, Value::Null).await?.refused(401, "unauthenticated")?;
    gateway.log_in(&ana.email, "new password", Value::Null).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_revoked_device_is_shut_out() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    let lost = gateway.log_in(&ana.email, PASSWORD, Value::Null).await?.expect(200)?;
    let lost = Person::of(&lost, &*ana.email)?;
    let revoke = async |device: &str, token: &str| {
        gateway.call("DELETE", &format!("/devices/{device}"), token, Value::Null).await
    };
    revoke(&lost.device, &ben.token).await?.refused(404, "not_found")?;
    revoke("phone", &ana.token).await?.refused(400, "bad_request")?;
    revoke(&lost.device, &ana.token).await?.expect(204)?;
    gateway.get("/users/me", &lost.token).await?.refused(401, "unauthenticated")?;
    let devices = gateway.get("/devices", &ana.token).await?.expect(200)?;
    assert_eq!(devices["items"].as_array().map(Vec::len), Some(1));
    revoke(&lost.device, &ana.token).await?.refused(404, "not_found")?;
    Ok(())
}

#[tokio::test]
async fn a_profile_changes_and_is_found() -> Result<()> {
    let gateway = Gateway::start(&["--search-by-phone=false"]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    let patch = async |change: Value| gateway.call("PATCH", "/users/me", &ana.token, change).await;
    let name = format!("Zoë {}", Uuid::new_v4().simple());
    let changed = patch(json!({"name": name, "phone": "+491234567"})).await?.expect(200)?;
    assert_eq!(changed["name"], *name);
    assert_eq!(changed["email"], *ana.email);
    let changed = patch(json!({"phone": null})).await?.expect(200)?;
    assert_eq!(changed["phone"], Value::Null);
    patch(json!({"email": null})).await?.refused(409, "conflict")?;
    patch(json!({"email": ben.email})).await?.refused(409, "conflict")?;
    patch(json!({"name": "  "})).await?.refused(400, "bad_request")?;
    patch(json!({"email": "nobody"})).await?.refused(400, "bad_request")?;

    let search = async |words: &str| {
        let query = words.replace('+', "%2B").replace(' ', "%20");
        gateway.get(&format!("/users?search={query}"), &ben.token).await
    };
    let found = json!({"items": [{"id": ana.id, "name": name}]});
    assert_eq!(search(&name.to_uppercase()[..12]).await?.expect(200)?, found);
    assert_eq!(search(&ana.email).await?.expect(200)?, found);
    assert_eq!(search(&ana.email[1..]).await?.expect(200)?, json!({"items": []}));
    search("+491234567").await?.refused(403, "forbidden")?;
    search(" ").await?.refused(400, "bad_request")?;
    gateway.get("/users?search=a&limit=51", &ben.token).await?.refused(400, "bad_request")?;
    Ok(())
}

#[tokio::test]
async fn each_way_to_look_people_up_can_be_switched_off() -> Result<()> {
    for (off, open, shut) in
        [("--search-by-name=false", "email", "name"), ("--search-by-email=false", "name", "email")]
    {
        let gateway = Gateway::start(&[off]).await?;
        let ana = gateway.person("Ana").await?;
        let search = async |by: &str| {
            let words = if by == "name" { "Ana" } else { &*ana.email };
            gateway.get(&format!("/users?search={words}"), &ana.token).await
        };
        let found = search(open).await?.expect(200)?;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{off}");
        search(shut).await?.refused(403, "forbidden")?;
    }
    Ok(())
}
