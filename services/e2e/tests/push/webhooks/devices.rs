//! Every way in which a device comes and goes.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use natter_cluster::Cluster;
use natter_e2e::{Device, Person, Product, person::anonymous, tokens};
use natter_operator::{config::Cli, outcome::Outcome};
use natter_protocol::{ids::UserId, rest::User};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Hook, STAGE};

/// What the endpoint was told of a user's devices, in that order, a repetition aside: which, and whether it
/// has come.
fn of(hook: &Hook, user: UserId) -> Vec<(bool, Value)> {
    let mut ids = Vec::new();
    let mut told = hook.endpoint.taken();
    told.retain(|one| one.body["data"]["userId"] == json!(user));
    told.retain(|one| {
        let new = !ids.contains(&one.id);
        ids.push(one.id.clone());
        new
    });
    let event = |body: &Value| (body["type"] == "device_added", body["data"]["deviceId"].clone());
    told.iter().map(|one| event(&one.body)).collect()
}

/// Waits until it was told of so much, which is what it was told.
async fn tells(hook: &Hook, user: UserId, count: usize) -> Result<Vec<(bool, Value)>> {
    let told = hook.endpoint.until("all of a user's devices", |_| {
        let told = of(hook, user);
        (told.len() >= count).then_some(told)
    });
    told.await.with_context(|| format!("{:?}", of(hook, user)))
}

/// A device of the bot with this external id, made by the operators' command.
async fn bot_device(cluster: &Cluster, external_id: &str) -> Result<()> {
    let database = cluster.database_url();
    let args = ["natter", "bot", "create", "--name=Helper", "--external-id", external_id, "--json"];
    let cli = Cli::try_parse_from(args.into_iter().chain(["--database-url", &database]))?;
    let outcome = natter_operator::run(cli).await?;
    ensure!(outcome == Outcome::Well, "{outcome:?}");
    Ok(())
}

#[tokio::test]
async fn a_device_is_told_of_whichever_way_it_comes_and_goes() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let hook = Hook::add(&cluster, "devices", &["--kinds=device"]).await?;
    let product = Product::new(&cluster).await?;
    let (came, went) = (|id: &Value| (true, id.clone()), |id: &Value| (false, id.clone()));

    // With a password: registered, logged in elsewhere, and there once more.
    let ada = Person::register(&cluster, "Ada").await?;
    let tablet = ada.device("tablet").await?;
    let again = json!({
        "phone": ada.phone, "password": ada.password, "device": {"id": tablet.id},
    });
    anonymous(&cluster, 1)?.post("/auth/login", again).await?.expect(200)?;
    // By a server.
    let ben = product.user("Ben", false).await?;
    let Device { id: phone, .. } = product.device(&ben).await?;
    let bens = format!("/server/users/{}/devices", ben.id);
    product.api(0).delete(&format!("{bens}/{phone}")).await?.expect(204)?;
    product.api(1).post(&bens, json!({"device": {"id": phone}})).await?.expect(201)?;
    // By the operators' command.
    let bot = product.user("Helper", true).await?;
    bot_device(&cluster, bot.external_id.as_deref().context("it has one")?).await?;
    // Of an outside issuer, seen by both nodes.
    let claims = tokens::outside_claims(&format!("Cleo {}", Uuid::now_v7()), "phone");
    let token = tokens::outside(&claims)?;
    let mut cleo = None;
    for gateway in [0, 1, 0] {
        let api = anonymous(&cluster, gateway)?.with_token(&token);
        cleo = Some(api.get("/users/me").await?.read::<User>(200)?.id);
    }
    let cleo = cleo.context("seen")?;

    let (first, second) = (json!(ada.first.id), json!(tablet.id));
    let told = tells(&hook, ada.id, 4).await?;
    assert_eq!(told, [came(&first), came(&second), went(&second), came(&second)]);
    let phone = json!(phone);
    assert_eq!(tells(&hook, ben.id, 3).await?, [came(&phone), went(&phone), came(&phone)]);
    let told = tells(&hook, bot.id, 1).await?;
    ensure!(matches!(&told[..], [(true, Value::String(_))]), "{told:?}");
    let told = tells(&hook, cleo, 1).await?;
    let [(true, device)] = &told[..] else { anyhow::bail!("{told:?}") };
    let path = format!("/server/users/{cleo}/devices/{}", device.as_str().context("an id")?);
    product.api(0).delete(&path).await?.expect(204)?;
    // Once, though both have seen it.
    assert_eq!(tells(&hook, cleo, 2).await?, [came(device), went(device)]);

    // What comes while the endpoint is disabled it is told of later.
    hook.of_it("disable", &[]).await?;
    let watch = json!(ada.device("watch").await?.id);
    hook.of_it("enable", &[]).await?;
    assert_eq!(tells(&hook, ada.id, 5).await?.last(), Some(&came(&watch)));
    hook.remove().await
}
