//! Accounts and devices: who gets in, and how fast who must not is out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{
    Api, Device, Person, Socket,
    person::{anonymous, fresh_phone},
    socket::{Dialled, Presenting},
    tokens,
};
use natter_protocol::{
    ids::{DeviceId, UserId},
    rest::{DeviceList, Session, User},
    server::Chat,
};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::stories::STAGE;

/// Within this a revocation has closed the device's sockets on every node: promised is a second, and a machine
/// that is busy with other stories has some more.
const REVOKED: Duration = Duration::from_secs(3);

async fn log_in(api: &Api, person: &Person, password: &str, device: Value) -> Result<Session> {
    let body = json!({"phone": person.phone, "password": password, "device": device});
    api.post("/auth/login", body).await?.read(200)
}

async fn refresh(api: &Api, token: &str) -> Result<Session> {
    api.post("/auth/refresh", json!({"refreshToken": token})).await?.read(200)
}

async fn not_refreshed(api: &Api, token: &str) -> Result<()> {
    let answer = api.post("/auth/refresh", json!({"refreshToken": token})).await?;
    answer.refused(401, "unauthenticated").map(drop)
}

/// A device that has lost its right to be here is told so, cut off, and not let in again.
async fn shut_out(cluster: &Cluster, device: &Device, socket: &Socket, by: Instant) -> Result<()> {
    socket.expect_close_by(by, 4403).await?;
    let told = socket.events("device_revoked");
    ensure!(told == [json!({"deviceId": device.id})], "told {told:?} before the close");
    no_entry(cluster, device).await
}

async fn usable(socket: &Socket) -> Result<()> {
    socket.request("presence_subscribe", json!({"userIds": []})).await.map(drop)
}

async fn no_entry(cluster: &Cluster, device: &Device) -> Result<()> {
    for (n, gateway) in cluster.gateways().iter().enumerate() {
        device.api(n).get("/users/me").await?.refused(401, "unauthenticated")?;
        match Socket::dial(gateway.address(), Presenting::Header(&device.access_token)).await? {
            Dialled::Refused(refusal) => ensure!(refusal.status == 401, "refused with {refusal}"),
            Dialled::Open(socket) => {
                let closed = socket.closed(Duration::from_secs(5)).await?;
                ensure!(matches!(closed.code, Some(4401 | 4403)), "closed with {closed}");
                ensure!(socket.events("ready").is_empty(), "it was let in first");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn register_and_log_in() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let (one, other) = (anonymous(&cluster, 0)?, anonymous(&cluster, 1)?);
    let email = format!("ana-{}@example.com", Uuid::new_v4().simple());
    let body = json!({
        "name": "Ana", "phone": fresh_phone(), "email": email, "password": "a good password",
        "device": {"name": "Ana's phone", "platform": "ios"},
    });
    let session: Session = one.post("/auth/register", body.clone()).await?.read(201)?;
    assert_eq!(session.user.name, "Ana");
    assert_eq!(session.user.email.as_deref(), Some(email.as_str()));
    assert_eq!(session.device.name.as_deref(), Some("Ana's phone"));
    assert!(session.device.current);
    // Both are unique, on every node.
    for field in ["phone", "email"] {
        let mut again = body.clone();
        again.as_object_mut().context("an object")?.remove(field);
        other.post("/auth/register", again).await?.refused(409, "conflict")?;
    }

    // The device that it has, by its id; or a new one.
    let known = json!({"id": session.device.id});
    let body = json!({"email": email, "password": "a good password", "device": known});
    let back: Session = other.post("/auth/login", body).await?.read(200)?;
    assert_eq!(back.device.id, session.device.id);
    let body = json!({"email": email.to_uppercase(), "password": "a good password"});
    let new: Session = one.post("/auth/login", body).await?.read(200)?;
    assert_ne!(new.device.id, session.device.id);
    let devices: DeviceList = one.with_token(&new.access_token).get("/devices").await?.read(200)?;
    assert_eq!(devices.items.len(), 2);

    // What is wrong is not told apart.
    let wrong = json!({"email": email, "password": "another password"});
    let wrong = one.post("/auth/login", wrong).await?.refused(401, "unauthenticated")?;
    let nobody = json!({"email": "nobody@example.com", "password": "another password"});
    let nobody = one.post("/auth/login", nobody).await?.refused(401, "unauthenticated")?;
    assert_eq!(wrong["detail"], nobody["detail"]);

    // Somebody else's device is not to be had.
    let ben = Person::register(&cluster, "Ben").await?;
    let theirs = json!({"phone": ben.phone, "password": ben.password, "device": known});
    one.post("/auth/login", theirs).await?.refused(409, "conflict")?;
    Ok(())
}

#[tokio::test]
async fn oneself() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let bens = ben.connect(1).await?;
    let anas = ana.connect(0).await?;
    let me: User = ana.api(1).get("/users/me").await?.read(200)?;
    assert_eq!((me.id, me.phone), (ana.id, Some(ana.phone.clone())));
    let body = json!({"name": "Ana Maria", "phone": null, "email": "x"});
    ana.api(0).patch("/users/me", body).await?.refused(400, "bad_request")?;
    let email = format!("{}@example.com", Uuid::new_v4().simple());
    let body = json!({"name": "Ana Maria", "phone": null, "email": email});
    let me: User = ana.api(0).patch("/users/me", body).await?.read(200)?;
    assert_eq!((me.name.as_str(), me.phone), ("Ana Maria", None));
    assert_eq!(ana.api(1).get("/users/me").await?.read::<User>(200)?.name, "Ana Maria");
    ben.api(0).patch("/users/me", json!({"email": email})).await?.refused(409, "conflict")?;
    // What she sends from now on goes under that name, wherever she is connected.
    natter_e2e::soon("the new name has arrived", async || {
        let sent = anas.say(chat, "it is me").await?;
        let is_it = |data: &Value| data["id"] == json!(sent.id);
        let heard = bens.expect("message", is_it).await?;
        Ok((heard["sender"]["name"] == "Ana Maria").then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_refresh_token_is_good_for_one_use() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let tablet = ana.device("tablet").await?;
    let (one, other) = (anonymous(&cluster, 0)?, anonymous(&cluster, 1)?);
    let second = refresh(&other, &tablet.refresh_token).await?;
    assert_eq!((second.user.id, second.device.id), (ana.id, tablet.id));
    assert_ne!(second.refresh_token, tablet.refresh_token);
    let third = refresh(&one, &second.refresh_token).await?;
    let socket = Socket::connect(cluster.gateway(1).address(), &third.access_token).await?;

    // Somebody has stolen the second one and uses it.
    not_refreshed(&one, &second.refresh_token).await?;
    let by = Instant::now() + REVOKED;
    let device = tablet.renewed(third);
    shut_out(&cluster, &device, &socket, by).await?;
    not_refreshed(&other, &device.refresh_token).await?;
    // Other devices have nothing to do with it.
    ana.api(0).get("/users/me").await?.expect(200)?;
    not_refreshed(&one, "never given out").await
}

#[tokio::test]
async fn logging_out_closes_the_devices_sockets() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let tablet = ana.device("tablet").await?;
    let sockets = [tablet.connect(0).await?, tablet.connect(1).await?];
    let phone = ana.connect(1).await?;
    let body = json!({"refreshToken": tablet.refresh_token});
    tablet.api(0).post("/auth/logout", body).await?.expect(204)?;
    let by = Instant::now() + REVOKED;
    for socket in &sockets {
        shut_out(&cluster, &tablet, socket, by).await?;
    }
    not_refreshed(&anonymous(&cluster, 1)?, &tablet.refresh_token).await?;
    phone.request("presence_subscribe", json!({"userIds": []})).await?;

    // It may log in again, as the same device; old tokens stay what they are.
    let again =
        log_in(&anonymous(&cluster, 1)?, &ana, &ana.password, json!({"id": tablet.id})).await?;
    assert_eq!(again.device.id, tablet.id);
    Socket::connect(cluster.gateway(0).address(), &again.access_token).await?;
    no_entry(&cluster, &tablet).await
}

#[tokio::test]
async fn a_login_on_a_device_ends_the_one_before() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let tablet = ana.device("tablet").await?;
    let sockets = [tablet.connect(0).await?, tablet.connect(1).await?];
    let phone = ana.connect(0).await?;
    let api = anonymous(&cluster, 1)?;
    let again = log_in(&api, &ana, &ana.password, json!({"id": tablet.id})).await?;
    let by = Instant::now() + REVOKED;
    assert_eq!(again.device.id, tablet.id);
    for socket in &sockets {
        shut_out(&cluster, &tablet, socket, by).await?;
    }
    not_refreshed(&api, &tablet.refresh_token).await?;
    // The new one has nothing to do with it, nor has another device.
    let tablet = tablet.renewed(again);
    for gateway in [0, 1] {
        usable(&tablet.connect(gateway).await?).await?;
    }
    usable(&phone).await
}

#[tokio::test]
async fn a_new_password_signs_out_the_other_devices() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let others = [ana.device("tablet").await?, ana.device("laptop").await?];
    let theirs = [others[0].connect(0).await?, others[1].connect(1).await?];
    let own = ana.connect(1).await?;
    let api = ana.api(0);
    let body = json!({"current": "not this", "new": "quite another one"});
    api.post("/auth/password", body).await?.refused(403, "forbidden")?;
    let body = json!({"current": ana.password, "new": "short"});
    api.post("/auth/password", body).await?.refused(400, "bad_request")?;

    let body = json!({"current": ana.password, "new": "quite another one"});
    api.post("/auth/password", body).await?.expect(204)?;
    let by = Instant::now() + REVOKED;
    for (device, socket) in others.iter().zip(&theirs) {
        shut_out(&cluster, device, socket, by).await?;
        not_refreshed(&anonymous(&cluster, 0)?, &device.refresh_token).await?;
    }
    own.request("presence_subscribe", json!({"userIds": []})).await?;
    ana.api(1).get("/users/me").await?.expect(200)?;
    let body = json!({"phone": ana.phone, "password": ana.password});
    anonymous(&cluster, 1)?.post("/auth/login", body).await?.refused(401, "unauthenticated")?;
    log_in(&anonymous(&cluster, 1)?, &ana, "quite another one", json!({})).await?;
    Ok(())
}

#[tokio::test]
async fn a_revoked_device_is_out_within_a_second_on_every_gateway() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let stolen = ana.device("stolen").await?;
    let sockets = [stolen.connect(0).await?, stolen.connect(1).await?];
    let own = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    for socket in &sockets {
        socket.hears(chat, "before").await?;
    }

    ana.api(0).delete(&format!("/devices/{}", stolen.id)).await?.expect(204)?;
    let by = Instant::now() + REVOKED;
    for socket in &sockets {
        shut_out(&cluster, &stolen, socket, by).await?;
    }
    not_refreshed(&anonymous(&cluster, 1)?, &stolen.refresh_token).await?;
    bens.say(chat, "after").await?;
    own.hears(chat, "after").await?;
    let devices: DeviceList = ana.api(1).get("/devices").await?.read(200)?;
    assert_eq!(devices.items.iter().map(|device| device.id).collect::<Vec<_>>(), [ana.first.id]);
    // Only one's own.
    let path = format!("/devices/{}", ben.first.id);
    ana.api(0).delete(&path).await?.refused(404, "not_found")?;
    let path = format!("/devices/{}", DeviceId::generate());
    ana.api(0).delete(&path).await?.refused(404, "not_found")?;
    bens.say(chat, "still there").await?;
    own.hears(chat, "still there").await?;
    own.check_feeds()
}

#[tokio::test]
async fn a_connection_lives_as_long_as_its_token() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let claims = tokens::claims(&ana.first.access_token)?;
    let expiry = time::OffsetDateTime::now_utc().unix_timestamp() + 6;
    let brief = tokens::altered(&claims, "exp", expiry.into());
    let brief = tokens::shared_secret(cluster.jwt_secret().as_bytes(), &brief)?;
    let address = cluster.gateway(1).address();
    let (left, renewed) =
        (Socket::connect(address, &brief).await?, Socket::connect(address, &brief).await?);
    let answer = renewed.request("authenticate", json!({"token": ana.first.access_token})).await?;
    let expires = answer["expiresAt"].as_str().context("no expiresAt")?;
    let format = &time::format_description::well_known::Rfc3339;
    let expires = time::OffsetDateTime::parse(expires, format)?;
    assert_eq!(Some(expires.unix_timestamp()), claims["exp"].as_i64());

    // By then, but for the difference that clocks may have.
    left.expect_close(4401).await?;
    renewed.request("presence_subscribe", json!({"userIds": []})).await?;
    Ok(())
}

#[tokio::test]
async fn users_of_an_outside_issuer_are_made_on_first_sight() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let subject = format!("auth0|{}", Uuid::new_v4());
    let claims =
        tokens::altered(&tokens::outside_claims(&subject, "phone-1"), "name", json!("Cleo"));
    let token = tokens::outside(&claims)?;
    let address = |n| cluster.gateway(n).address();

    // First on both gateways at once, by all the ways there are.
    let (first, second, third) = tokio::try_join!(
        Socket::present(address(0), Presenting::Header(&token)),
        Socket::present(address(1), Presenting::Subprotocol(&token)),
        Socket::present(address(1), Presenting::FirstFrame(&token)),
    )?;
    let (user, device): (UserId, DeviceId) = (first.ready()?.user_id, first.ready()?.device_id);
    for other in [&second, &third] {
        assert_eq!((other.ready()?.user_id, other.ready()?.device_id), (user, device));
    }
    let other = tokens::outside(&tokens::altered(&claims, "deviceId", json!("tablet-1")))?;
    let tablet = Socket::connect(address(1), &other).await?;
    assert_eq!(tablet.ready()?.user_id, user);
    assert_ne!(tablet.ready()?.device_id, device);

    let body = json!({"isGroup": false, "participantIds": [user]});
    let chat: Chat = ben.api(0).post("/chats", body).await?.read(201)?;
    assert_eq!(chat.me.context("no me")?.name, "Cleo");
    let bens = ben.connect(0).await?;
    for socket in [&first, &second, &third, &tablet] {
        socket.expect("chat_added", |data| data["id"] == json!(chat.id)).await?;
    }
    tablet.say(chat.id, "hello from outside").await?;
    bens.hears(chat.id, "hello from outside").await?;
    first.hears(chat.id, "hello from outside").await?;

    // Such a device is revoked like any other, and its issuer's token does not help it.
    let api = anonymous(&cluster, 1)?.with_token(&other);
    api.delete(&format!("/devices/{device}")).await?.expect(204)?;
    let by = Instant::now() + REVOKED;
    for socket in [&first, &second, &third] {
        socket.expect_close_by(by, 4403).await?;
    }
    api.with_token(&token).get("/users/me").await?.refused(401, "unauthenticated")?;
    tablet.say(chat.id, "still here").await?;
    bens.hears(chat.id, "still here").await?;

    // Logging out ends its connections; how long its tokens are good is its issuer's to say.
    api.post("/auth/logout", json!({})).await?.expect(204)?;
    tablet.expect_close(4403).await?;
    api.get("/users/me").await?.expect(200)?;
    Ok(())
}
