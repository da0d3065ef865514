//! Groups managed on one gateway while others are connected to another: each change is an entry of
//! the feed, and holds from there on.

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use natter_e2e::{Answer, Api, Person, Socket, soon};
use natter_protocol::{
    ids::{ChatId, UserId},
    rest::{InviteList, MadeInvite},
    server::{Chat, Joined, Role, System},
};
use serde_json::{Value, json};

use crate::stories::STAGE;

async fn set_role(api: &Api, chat: ChatId, user: UserId, role: &str) -> Result<Answer> {
    api.patch(&format!("/chats/{chat}/participants/{user}"), json!({"role": role})).await
}

async fn told(socket: &Socket, chat: ChatId, kind: &str) -> Result<System> {
    let is_it = |system: &System| system.chat_id == chat && system.kind.as_str() == kind;
    socket.expect_as("system", is_it).await
}

async fn gone(socket: &Socket, chat: ChatId) -> Result<Value> {
    socket.expect("chat_removed", |data| data["id"] == json!(chat)).await
}

async fn code(socket: &Socket, event: &str, data: Value) -> Result<String> {
    Ok(socket.refused(event, data).await?.code.as_str().to_owned())
}

#[tokio::test]
async fn what_a_group_is_called_is_told_to_everybody_with_the_change() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).group("Rowing", &[&ben]).await?.id;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let changed = anas
        .request(
            "update_chat",
            json!({"chatId": chat, "title": " Sailing ", "description": "Boats"}),
        )
        .await?;
    assert_eq!((&changed["title"], &changed["description"]), (&json!("Sailing"), &json!("Boats")));
    for socket in [&anas, &bens] {
        let renamed = told(socket, chat, "renamed").await?;
        assert_eq!((renamed.title.as_deref(), renamed.actor_id), (Some("Sailing"), ana.id));
        assert_eq!(told(socket, chat, "described").await?.description.as_deref(), Some("Boats"));
    }
    let seen = ben.api(1).chat(chat).await?;
    assert_eq!(seen.me.context("no me")?.name, "Sailing");
    let patched: Chat = ana
        .api(1)
        .patch(&format!("/chats/{chat}"), json!({"description": null, "open": true}))
        .await?
        .read(200)?;
    assert!(patched.open && patched.description.is_none() && patched.title.is_some());
    assert_eq!(told(&bens, chat, "described").await?.description, None);
    told(&bens, chat, "opened").await?;

    // History has what was said of it, written or not.
    soon("all of it is in the history", async || {
        let page = ben.api(0).history(chat, "limit=50").await?;
        let titles: Vec<_> = page
            .messages
            .iter()
            .filter_map(|message| message.system.as_ref()?.title.clone())
            .collect();
        Ok((titles == ["Sailing"]).then_some(()))
    })
    .await?;
    for (event, data, refusal) in [
        ("update_chat", json!({"chatId": chat, "title": "Ben's"}), "forbidden"),
        ("update_chat", json!({"chatId": chat, "open": false}), "forbidden"),
        ("delete_chat", json!({"chatId": chat}), "forbidden"),
    ] {
        assert_eq!(code(&bens, event, data).await?, refusal);
    }
    for wrong in [
        json!({"chatId": chat}),
        json!({"chatId": chat, "title": " "}),
        json!({"chatId": chat, "title": null}),
        json!({"chatId": chat, "title": "x".repeat(101)}),
        json!({"chatId": chat, "description": "\u{7}"}),
        json!({"chatId": chat, "description": "x".repeat(501)}),
        json!({"chatId": chat, "open": "yes"}),
    ] {
        assert_eq!(code(&anas, "update_chat", wrong).await?, "bad_request");
    }
    anas.check_feeds()?;
    bens.check_feeds()
}

#[tokio::test]
async fn who_is_added_is_there_and_who_is_removed_hears_nothing_from_there_on() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let dora = Person::register(&cluster, "Dora").await?;
    let chat = ana.api(0).group("Added to", &[&ben]).await?.id;
    let other = ana.api(0).group("Another", &[&cleo, &dora]).await?.id;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let cleos = [cleo.connect(0).await?, cleo.device("tablet").await?.connect(1).await?];
    let doras = dora.connect(1).await?;
    anas.say(chat, "before them").await?;
    let added = anas
        .request("add_participants", json!({"chatId": chat, "userIds": [cleo.id, dora.id, ben.id]}))
        .await?;
    assert_eq!(added["participantCount"], 4);
    for _ in 0..2 {
        let system = told(&bens, chat, "added").await?;
        ensure!([cleo.id, dora.id].map(Some).contains(&system.user_id), "{system:?}");
        assert_eq!(system.actor_id, ana.id);
    }
    for socket in cleos.iter().chain([&doras]) {
        socket.expect_as("chat_added", |added: &Chat| added.id == chat).await?;
    }
    bens.say(chat, "welcome").await?;
    for socket in cleos.iter().chain([&doras]) {
        socket.hears(chat, "welcome").await?;
    }

    // An admin removes her, on the other gateway than one of her devices.
    set_role(&ana.api(1), chat, ben.id, "admin").await?.expect(200)?;
    let promoted = told(&bens, chat, "role").await?;
    assert_eq!((promoted.user_id, promoted.role), (Some(ben.id), Some(Role::Admin)));
    let cursor = cleos[0].cursor()?;
    bens.request("remove_participant", json!({"chatId": chat, "participantId": cleo.id})).await?;
    for socket in [&anas, &bens, &doras, &cleos[0], &cleos[1]] {
        let removed = told(socket, chat, "removed").await?;
        assert_eq!((removed.actor_id, removed.user_id), (ben.id, Some(cleo.id)));
        assert!(!removed.banned);
    }
    for socket in &cleos {
        gone(socket, chat).await?;
        for (event, data) in [
            ("send_message", json!({"chatId": chat, "content": "let me in"})),
            ("history", json!({"chatId": chat})),
            ("typing_start", json!({"chatId": chat})),
            ("update_chat", json!({"chatId": chat, "title": "x"})),
        ] {
            assert_eq!(code(socket, event, data).await?, "not_member", "{event}");
        }
    }
    let marks: Vec<_> = cleos.iter().map(|socket| socket.mark()).collect();
    anas.say(chat, "without her").await?;
    doras.hears(chat, "without her").await?;
    // The log of another chat may be another one; this comes after it in time, and to all of hers.
    anas.say(other, "elsewhere").await?;
    for (socket, mark) in cleos.iter().zip(marks) {
        socket.hears(other, "elsewhere").await?;
        let events = socket.since(mark, "message");
        ensure!(
            events.iter().all(|data| data["chatId"] == json!(other)),
            socket.failure("it heard of a chat that it was removed from")
        );
        socket.check_feeds()?;
    }
    // The same for whoever comes back from before, anywhere.
    for gateway in [0, 1] {
        let back = cleo.first.resume(gateway, &cursor).await?;
        back.expect("resume_done", |_| true).await?;
        told(&back, chat, "removed").await?;
        gone(&back, chat).await?;
        back.hears(other, "elsewhere").await?;
        ensure!(back.events("message").iter().all(|data| data["chatId"] == json!(other)));
        back.check_feeds()?;
    }
    cleo.api(1).get(&format!("/chats/{chat}/messages")).await?.refused(403, "not_member")?;
    assert_eq!(dora.api(0).chat(chat).await?.participant_count, 3);
    Ok(())
}

#[tokio::test]
async fn a_ban_keeps_out_by_every_way() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).open_group("Open, but", &[&ben]).await?.id;
    let path = format!("/chats/{chat}");
    let bens = ben.connect(1).await?;
    let invite: MadeInvite =
        ana.api(0).post(&format!("{path}/invites"), json!({})).await?.read(201)?;
    let ban = format!("{path}/participants/{}?ban=true", ben.id);
    cleo.api(0).delete(&ban).await?.refused(403, "not_member")?;
    ana.api(0).delete(&ban).await?.expect(204)?;
    assert!(told(&bens, chat, "removed").await?.banned);
    gone(&bens, chat).await?;

    for gateway in [0, 1] {
        let api = ben.api(gateway);
        api.post(&format!("{path}/join"), json!({})).await?.refused(403, "forbidden")?;
        api.post(&format!("{}/join", &invite.path[3..]), json!({}))
            .await?
            .refused(403, "forbidden")?;
    }
    assert_eq!(code(&bens, "join_by_invite", json!({"code": invite.code})).await?, "forbidden");
    let both = json!({"userIds": [cleo.id, ben.id]});
    ana.api(1).post(&format!("{path}/participants"), both).await?.refused(409, "conflict")?;
    cleo.api(1).get(&path).await?.refused(403, "not_member")?;
    let bans = ana.api(1).get(&format!("{path}/bans")).await?.expect(200)?;
    assert_eq!(bans["items"][0]["user"], json!({"id": ben.id, "name": "Ben"}));
    ana.api(1).delete(&format!("{path}/bans/{}", ben.id)).await?.expect(204)?;
    ben.api(0).post(&format!("{path}/join"), json!({})).await?.expect(200)?;
    bens.expect_as("chat_added", |added: &Chat| added.id == chat).await?;
    Ok(())
}

#[tokio::test]
async fn an_invite_lets_in_on_any_gateway_until_it_is_over() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).group("By invitation", &[]).await?.id;
    let invites = format!("/chats/{chat}/invites");
    let anas = ana.connect(1).await?;
    anas.say(chat, "before them").await?;
    let invite: MadeInvite =
        ana.api(0).post(&invites, json!({"expiresIn": 3600, "maxUses": 2})).await?.read(201)?;
    assert_eq!((invite.code.len(), invite.max_uses), (22, Some(2)));
    assert_eq!(invite.path, format!("/v1/invites/{}", invite.code));
    let path = &invite.path[3..];
    let leads = ben.api(1).get(path).await?.expect(200)?;
    assert_eq!((&leads["title"], &leads["participantCount"]), (&json!("By invitation"), &json!(1)));

    let bens = ben.connect(0).await?;
    let joined: Joined = serde_json::from_value(
        bens.request("join_by_invite", json!({"code": invite.code})).await?,
    )?;
    assert_eq!(joined.chat.id, chat);
    assert!(joined.messages.iter().any(|message| message.content == "before them"));
    bens.expect("chat_history", |_| true).await?;
    assert_eq!(told(&anas, chat, "joined").await?.user_id, Some(ben.id));
    anas.say(chat, "hello").await?;
    bens.hears(chat, "hello").await?;
    // Again, and no use more.
    bens.request("join_by_invite", json!({"code": invite.code})).await?;
    let cleo_joined = cleo.api(1).post(&format!("{path}/join"), json!({})).await?;
    cleo_joined.expect(200)?;
    let dora = Person::register(&cluster, "Dora").await?;
    dora.api(0).post(&format!("{path}/join"), json!({})).await?.refused(404, "not_found")?;
    dora.api(0).get(path).await?.refused(404, "not_found")?;

    let second: MadeInvite = ana.api(1).post(&invites, json!({})).await?.read(201)?;
    let list: InviteList = ana.api(0).get(&invites).await?.read(200)?;
    assert_eq!(list.items.iter().map(|invite| invite.id).collect::<Vec<_>>(), [second.id]);
    ensure!(!serde_json::to_string(&list)?.contains(&second.code), "a code is told once");
    ben.api(0).get(&invites).await?.refused(403, "forbidden")?;
    ben.api(0).post(&invites, json!({})).await?.refused(403, "forbidden")?;
    ben.api(0).delete(&format!("{invites}/{}", second.id)).await?.refused(403, "forbidden")?;
    ana.api(0).delete(&format!("{invites}/{}", second.id)).await?.expect(204)?;
    ana.api(1).delete(&format!("{invites}/{}", second.id)).await?.refused(404, "not_found")?;
    let doras = dora.connect(1).await?;
    assert_eq!(code(&doras, "join_by_invite", json!({"code": second.code})).await?, "not_found");

    let short: MadeInvite = ana.api(0).post(&invites, json!({"expiresIn": 1})).await?.read(201)?;
    soon("it has expired", async || {
        let answer = dora.api(0).get(&short.path[3..]).await?;
        Ok((answer.status() == 404).then_some(()))
    })
    .await?;
    assert_eq!(code(&doras, "join_by_invite", json!({"code": short.code})).await?, "not_found");
    for wrong in [json!({"expiresIn": 0}), json!({"maxUses": 0}), json!({"expiresIn": 40_000_000})]
    {
        ana.api(0).post(&invites, wrong).await?.refused(400, "bad_request")?;
    }
    for nothing in ["x", "%F0%9F%9B%B6", &"x".repeat(500)] {
        dora.api(0).get(&format!("/invites/{nothing}")).await?.refused(404, "not_found")?;
    }
    Ok(())
}

#[tokio::test]
async fn roles_change_hands_and_a_group_keeps_an_owner() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).group("Owned", &[&ben, &cleo]).await?.id;
    let (anas, bens, cleos) =
        (ana.connect(0).await?, ben.connect(1).await?, cleo.connect(0).await?);
    let path = format!("/chats/{chat}");
    let role_of =
        |who: &Person, role: &str| json!({"chatId": chat, "participantId": who.id, "role": role});
    assert_eq!(code(&bens, "set_role", role_of(&ben, "owner")).await?, "forbidden");
    assert_eq!(code(&anas, "set_role", role_of(&ana, "member")).await?, "conflict");
    assert_eq!(code(&anas, "set_role", role_of(&ana, "king")).await?, "bad_request");
    let oneself = json!({"chatId": chat, "participantId": ana.id});
    assert_eq!(code(&anas, "remove_participant", oneself).await?, "conflict");
    let half = json!({"chatId": chat, "participantId": ben.id, "role": "admin", "transfer": true});
    assert_eq!(code(&anas, "set_role", half).await?, "bad_request");

    // Handed over: two entries of one change.
    let over = json!({"chatId": chat, "participantId": ben.id, "role": "owner", "transfer": true});
    anas.request("set_role", over).await?;
    for socket in [&anas, &bens, &cleos] {
        let (one, two) = (told(socket, chat, "role").await?, told(socket, chat, "role").await?);
        assert_eq!((one.user_id, one.role), (Some(ben.id), Some(Role::Owner)));
        assert_eq!((two.user_id, two.role), (Some(ana.id), Some(Role::Admin)));
    }
    ana.api(1).delete(&path).await?.refused(403, "forbidden")?;
    ana.api(1)
        .delete(&format!("{path}/participants/{}", ben.id))
        .await?
        .refused(403, "forbidden")?;
    set_role(&ben.api(0), chat, UserId::generate(), "admin").await?.refused(404, "not_found")?;

    // The last owner leaves: the admin takes over.
    bens.tell("leave_chat", chat).await?;
    assert_eq!(told(&cleos, chat, "left").await?.user_id, Some(ben.id));
    let heir = told(&cleos, chat, "role").await?;
    assert_eq!((heir.user_id, heir.role), (Some(ana.id), Some(Role::Owner)));
    assert_eq!(ana.api(1).chat(chat).await?.me.context("no me")?.role, Role::Owner);
    anas.check_feeds()?;
    cleos.check_feeds()
}

#[tokio::test]
async fn two_owners_who_demote_each_other_on_two_gateways() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).group("Two owners", &[&ben]).await?.id;
    for round in 0..10 {
        let (owner, other) = if round == 0
            || ana.api(0).chat(chat).await?.me.context("no me")?.role == Role::Owner
        {
            (&ana, &ben)
        } else {
            (&ben, &ana)
        };
        set_role(&owner.api(0), chat, other.id, "owner").await?.expect(200)?;
        let demoted = join_all([
            set_role(&ana.api(0), chat, ben.id, "member"),
            set_role(&ben.api(1), chat, ana.id, "member"),
        ])
        .await;
        let mut won = 0;
        for answer in demoted {
            let answer = answer?;
            if answer.status() == 200 {
                won += 1;
            } else {
                answer.refused(403, "forbidden")?;
            }
        }
        assert_eq!(won, 1);
        let (one, two) = (ana.api(1).chat(chat).await?, ben.api(0).chat(chat).await?);
        let roles = [one, two].map(|chat| chat.me.map(|me| me.role));
        assert!(roles.contains(&Some(Role::Owner)) && roles.contains(&Some(Role::Member)));
    }
    Ok(())
}

#[tokio::test]
async fn a_group_that_is_deleted_ends_for_everybody_with_one_entry() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).open_group("Not for long", &[&ben, &cleo]).await?.id;
    let other = ana.api(0).group("For longer", &[&ben]).await?.id;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let cleos = cleo.connect(1).await?;
    anas.say(chat, "the last words").await?;
    bens.hears(chat, "the last words").await?;
    cleos.hears(chat, "the last words").await?;
    let cursor = cleos.cursor()?;
    drop(cleos);

    anas.request("delete_chat", json!({"chatId": chat})).await?;
    let mut ends = Vec::new();
    for socket in [&anas, &bens] {
        ends.push(told(socket, chat, "deleted").await?.seq);
        gone(socket, chat).await?;
        for (event, data) in [
            ("send_message", json!({"chatId": chat, "content": "is anybody there?"})),
            ("history", json!({"chatId": chat})),
            ("leave_chat", json!({"chatId": chat})),
            ("delete_chat", json!({"chatId": chat})),
        ] {
            assert_eq!(code(socket, event, data).await?, "not_member", "{event}");
        }
        assert_eq!(code(socket, "join_chat", json!({"chatId": chat})).await?, "not_found");
    }
    assert_eq!(ends[0], ends[1]);
    for person in [&ana, &ben, &cleo] {
        let listed = person.api(1).chats("limit=10").await?.items;
        assert!(listed.iter().all(|listed| listed.id != chat));
        person.api(0).get(&format!("/chats/{chat}")).await?.refused(403, "not_member")?;
        let say = json!({"content": "by REST"});
        let said = person.api(1).post(&format!("/chats/{chat}/messages"), say).await?;
        said.refused(403, "not_member")?;
    }
    // Whoever was away hears of it, up to its end.
    for gateway in [0, 1] {
        let back = cleo.first.resume(gateway, &cursor).await?;
        back.expect("resume_done", |_| true).await?;
        assert_eq!(told(&back, chat, "deleted").await?.seq, ends[0]);
        gone(&back, chat).await?;
        back.check_feeds()?;
    }
    anas.say(other, "here").await?;
    bens.hears(other, "here").await?;
    Ok(())
}

#[tokio::test]
async fn what_is_no_such_request_is_refused_and_a_one_to_one_is_not_managed() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let api = ana.api(0);
    let group = format!("/chats/{}", api.group("Refusals", &[&ben]).await?.id);
    let many: Vec<UserId> = (0..101).map(|_| UserId::generate()).collect();
    let participants = format!("{group}/participants");
    for (ids, status, code) in [
        (json!([]), 400, "bad_request"),
        (json!(many), 400, "bad_request"),
        (json!(["ben"]), 400, "bad_request"),
        (json!([ben.id, UserId::generate()]), 404, "not_found"),
    ] {
        api.post(&participants, json!({"userIds": ids})).await?.refused(status, code)?;
    }
    let named = json!({"userIds": [ben.id], "userId": ben.id});
    api.post(&participants, named).await?.refused(403, "forbidden")?;
    let of_ben = format!("{participants}/{}", ben.id);
    for body in [json!({}), json!({"role": "king"}), json!({"role": "admin", "transfer": true})] {
        api.patch(&of_ben, body).await?.refused(400, "bad_request")?;
    }
    api.delete(&format!("{of_ben}?ban=perhaps")).await?.refused(400, "bad_request")?;
    api.delete(&format!("{participants}/ben")).await?.refused(400, "bad_request")?;
    api.get(&format!("{group}/bans?limit=0")).await?.refused(400, "bad_request")?;
    api.get(&format!("{group}/bans?cursor=x")).await?.refused(400, "bad_request")?;

    let direct = api.direct(&ben).await?.id;
    let path = format!("/chats/{direct}");
    let of_ben = format!("{path}/participants/{}", ben.id);
    api.patch(&path, json!({"title": "Ours"})).await?.refused(403, "forbidden")?;
    api.delete(&path).await?.refused(403, "forbidden")?;
    api.delete(&of_ben).await?.refused(403, "forbidden")?;
    api.patch(&of_ben, json!({"role": "owner"})).await?.refused(403, "forbidden")?;
    api.get(&format!("{path}/bans")).await?.refused(403, "forbidden")?;
    api.get(&format!("{path}/invites")).await?.refused(403, "forbidden")?;
    api.post(&format!("{path}/invites"), json!({})).await?.refused(403, "forbidden")?;
    let add = json!({"userIds": [UserId::generate()]});
    api.post(&format!("{path}/participants"), add).await?.refused(403, "forbidden")?;
    assert_eq!(api.chat(direct).await?.participant_count, 2);
    Ok(())
}
