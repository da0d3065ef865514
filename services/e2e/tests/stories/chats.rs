//! Chats: made, listed, found, joined and left, while everybody watches.

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};
use natter_e2e::{Person, Socket, soon};
use natter_protocol::{
    ids::ChatId,
    rest::{ParticipantPage, UserList},
    server::{Chat, Joined, Role},
};
use serde_json::json;
use uuid::Uuid;

use crate::stories::STAGE;

/// A word that occurs in no other story.
fn word() -> String {
    Uuid::new_v4().simple().to_string()
}

#[tokio::test]
async fn many_devices_of_few_people_hear_everything() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let mut sockets = Vec::new();
    for (n, person) in [&ana, &ana, &ana, &ben, &ben, &ben].into_iter().enumerate() {
        let device = person.device(&format!("device {n}")).await?;
        sockets.push(device.connect(n % 2).await?);
        if n % 3 == 0 {
            // Two connections of one device may live side by side.
            sockets.push(device.connect(1 - n % 2).await?);
        }
    }
    for (n, sender) in sockets.iter().enumerate() {
        let content = format!("from {n}");
        sender.say(chat, &content).await?;
        for (other, socket) in sockets.iter().enumerate() {
            if other != n {
                socket.hears(chat, &content).await?;
            }
        }
    }
    for socket in &sockets {
        assert_eq!(socket.events("message").len(), sockets.len() - 1);
        socket.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn ten_people_on_both_gateways() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let names: Vec<_> = (0..10).map(|n| format!("Person {n}")).collect();
    let people = try_join_all(names.iter().map(|name| Person::register(&cluster, name))).await?;
    let (owner, others) = people.split_first().context("nobody")?;
    let others: Vec<_> = others.iter().collect();
    let sockets: Vec<Socket> =
        try_join_all(people.iter().enumerate().map(|(n, person)| person.connect(n % 2))).await?;

    // The connections are there before the chat is.
    let chat = owner.api(0).group("Ten", &others).await?;
    assert!(chat.is_group && !chat.open);
    assert_eq!((chat.title.as_deref(), chat.created_by), (Some("Ten"), owner.id));
    assert_eq!((chat.participant_count, chat.participants.len()), (10, 10));
    for (person, socket) in people.iter().zip(&sockets) {
        let added: Chat =
            socket.expect_as("chat_added", |added: &Chat| added.id == chat.id).await?;
        let me = added.me.context("no me")?;
        assert_eq!(me.name, "Ten");
        assert_eq!(me.role == Role::Owner, person.id == owner.id);
    }

    let said = sockets.iter().enumerate().map(async |(n, socket)| {
        for round in 0..5 {
            socket.say(chat.id, &format!("{n}, {round}")).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(said).await?;
    for (n, socket) in sockets.iter().enumerate() {
        for other in (0..10).filter(|other| *other != n) {
            socket.hears(chat.id, &format!("{other}, 4")).await?;
        }
        assert_eq!(socket.events("message").len(), 45);
        socket.check_feeds()?;
    }

    let mut found = Vec::new();
    let mut query = "limit=4".to_owned();
    loop {
        let path = format!("/chats/{}/participants?{query}", chat.id);
        let page: ParticipantPage = owner.api(1).get(&path).await?.read(200)?;
        found.extend(page.items.into_iter().map(|participant| participant.id));
        let Some(cursor) = page.next_cursor else { break };
        query = format!("limit=4&cursor={cursor}");
    }
    let mut expected: Vec<_> = people.iter().map(|person| person.id).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    Ok(())
}

#[tokio::test]
async fn the_list_is_ordered_by_newest_activity_over_all_pages() -> Result<()> {
    const CHATS: usize = 7;
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let mut chats = Vec::new();
    for n in 0..CHATS {
        chats.push(ana.api(0).group(&format!("Group {n}"), &[&ben]).await?.id);
    }
    // Those made first are the ones active last.
    for n in [3, 0, 5] {
        let sent = ben.api(1).say(chats[n], &format!("news in {n}")).await?;
        soon("the message is in the list", async || {
            let last = ana.api(0).chat(chats[n]).await?.last_message;
            Ok(last.filter(|last| last.id == sent.id))
        })
        .await?;
    }

    for gateway in [0, 1] {
        let mut listed = Vec::new();
        let mut query = "limit=3".to_owned();
        let mut pages = 0;
        loop {
            let page = ana.api(gateway).chats(&query).await?;
            assert!(page.items.len() <= 3);
            listed.extend(page.items);
            pages += 1;
            let Some(cursor) = page.next_cursor else { break };
            query = format!("limit=3&cursor={cursor}");
        }
        assert_eq!(pages, 3);
        let ids: Vec<ChatId> = listed.iter().map(|chat| chat.id).collect();
        let expected = [5, 0, 3, 6, 4, 2, 1].map(|n| chats[n]);
        assert_eq!(ids, expected);
        let newest = listed[0].last_message.as_ref().context("no last message")?;
        assert_eq!((newest.content.as_str(), newest.sender.name.as_str()), ("news in 5", "Ben"));
        assert!(listed.iter().all(|chat| chat.participants.len() == 2));
        assert_eq!(listed[3].last_message, None);
    }
    Ok(())
}

#[tokio::test]
async fn a_chat_is_found_by_its_title_and_by_its_participants_names() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let (title, name) = (word(), word());
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, &format!("Ben {name}")).await?;
    let titled = ana.api(0).group(&format!("All of 100%_{title}"), &[]).await?.id;
    let with_ben = ana.api(0).direct(&ben).await?.id;
    let group = ana.api(0).group("Plain", &[&ben]).await?.id;

    let found = async |what: String| {
        let page = ana.api(1).chats(&format!("search={what}")).await?;
        let mut ids: Vec<_> = page.items.into_iter().map(|chat| chat.id).collect();
        ids.sort();
        anyhow::Ok(ids)
    };
    assert_eq!(found(title[4..20].to_uppercase()).await?, [titled]);
    assert_eq!(found(format!("100%25_{}", &title[..6])).await?, [titled]);
    let mut with = [with_ben, group];
    with.sort();
    assert_eq!(found(name[2..].to_owned()).await?, with);
    // What means something to a database means nothing here.
    assert_eq!(found(format!("100__{}", &title[..6])).await?, []);
    assert_eq!(found("%25".to_owned()).await?, [titled]);
    assert_eq!(found(word()).await?, []);

    // Ben sees the same one-to-one under Ana's name, and Ana's other chats not at all.
    let page = ben.api(0).chats("search=ana").await?;
    let mut ids: Vec<_> = page.items.iter().map(|chat| chat.id).collect();
    ids.sort();
    assert_eq!(ids, with);
    let direct = page.items.into_iter().find(|chat| chat.id == with_ben).context("not there")?;
    assert_eq!(direct.me.context("no me")?.name, "Ana");

    let users: UserList =
        ana.api(0).get(&format!("/users?search=Ben%20{name}")).await?.read(200)?;
    assert_eq!(users.items.iter().map(|user| user.id).collect::<Vec<_>>(), [ben.id]);
    let phone = ben.phone.replace('+', "%2B");
    let users: UserList = ana.api(0).get(&format!("/users?search={phone}")).await?.read(200)?;
    assert_eq!(users.items.iter().map(|user| user.id).collect::<Vec<_>>(), [ben.id]);
    let part = &phone[..phone.len() - 2];
    let users: UserList = ana.api(0).get(&format!("/users?search={part}")).await?.read(200)?;
    assert_eq!(users.items, [], "a phone number only whole");
    Ok(())
}

#[tokio::test]
async fn a_one_to_one_made_by_both_at_once_is_one_chat() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for _ in 0..5 {
        let ana = Person::register(&cluster, "Ana").await?;
        let ben = Person::register(&cluster, "Ben").await?;
        let made =
            join_all([(&ana, &ben, 0), (&ben, &ana, 1), (&ana, &ben, 1), (&ben, &ana, 0)].map(
                async |(one, other, gateway)| {
                    let body = json!({"isGroup": false, "participantIds": [other.id]});
                    one.api(gateway).post("/chats", body).await
                },
            ))
            .await;
        let mut ids = Vec::new();
        let mut created = 0;
        for answer in made {
            let answer = answer?;
            created += usize::from(answer.status == 201);
            let status = if answer.status == 201 { 201 } else { 200 };
            ids.push(answer.read::<Chat>(status)?.id);
        }
        assert_eq!(created, 1, "made once");
        ids.dedup();
        assert_eq!(ids.len(), 1);
        for person in [&ana, &ben] {
            assert_eq!(person.api(0).chats("limit=10").await?.items.len(), 1);
        }
    }
    Ok(())
}

#[tokio::test]
async fn joining_takes_effect_at_once_on_every_device() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).open_group("Open to all", &[&ben]).await?.id;
    let anas = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    let phone = cleo.connect(0).await?;
    let tablet = cleo.device("tablet").await?.connect(1).await?;
    for n in 0..3 {
        anas.say(chat, &format!("before {n}")).await?;
    }

    let joined: Joined = serde_json::from_value(
        phone.request("join_chat", json!({"chatId": chat, "history": {"limit": 2}})).await?,
    )?;
    assert_eq!(joined.chat.id, chat);
    assert_eq!(joined.chat.participant_count, 3);
    assert_eq!(joined.chat.me.context("no me")?.role, Role::Member);
    assert!(joined.has_more);
    let history = phone.expect("chat_history", |_| true).await?;
    assert_eq!(history, json!(joined.messages));
    let told: Vec<_> = joined.messages.iter().map(|message| message.content.as_str()).collect();
    assert!(
        told.ends_with(&["before 2"]) || told.first() == Some(&"before 2"),
        "the newest of the history: {told:?}"
    );

    for socket in [&anas, &bens, &phone, &tablet] {
        let system = socket.expect("system", |data| data["kind"] == "joined").await?;
        assert_eq!(system["chatId"], json!(chat));
        assert_eq!(system["actorId"], json!(cleo.id));
        assert!(system["msg"].as_str().context("no msg")?.contains("Cleo"), "{system}");
    }
    for device in [&phone, &tablet] {
        device.expect_as("chat_added", |added: &Chat| added.id == chat).await?;
    }
    // The whole history, also of before.
    let page = cleo.api(1).history(chat, "limit=50").await?;
    assert_eq!(page.messages.iter().filter(|m| m.content.starts_with("before")).count(), 3);

    bens.say(chat, "welcome").await?;
    phone.hears(chat, "welcome").await?;
    tablet.hears(chat, "welcome").await?;
    tablet.say(chat, "thanks").await?;
    phone.hears(chat, "thanks").await?;
    anas.hears(chat, "thanks").await?;

    // Joining again changes nothing.
    let again = tablet.request("join_chat", json!({"chatId": chat})).await?;
    assert_eq!(again["chat"]["participantCount"], 3);
    cleo.api(0).post(&format!("/chats/{chat}/join"), json!({})).await?.expect(200)?;
    tablet.say(chat, "still here").await?;
    anas.hears(chat, "still here").await?;
    assert_eq!(anas.events("system").iter().filter(|data| data["kind"] == "joined").count(), 1);
    for socket in [&anas, &bens, &phone, &tablet] {
        socket.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn who_has_left_hears_nothing_any_more() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).open_group("A group", &[&ben, &cleo]).await?.id;
    let other = ana.api(0).group("Another", &[&cleo]).await?.id;
    let anas = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    let phone = cleo.connect(0).await?;
    let tablet = cleo.device("tablet").await?.connect(1).await?;

    anas.say(chat, "with Cleo").await?;
    tablet.hears(chat, "with Cleo").await?;
    phone.tell("leave_chat", chat).await?;
    for socket in [&anas, &bens] {
        let system = socket.expect("system", |data| data["kind"] == "left").await?;
        assert_eq!((&system["chatId"], &system["actorId"]), (&json!(chat), &json!(cleo.id)));
    }
    for device in [&phone, &tablet] {
        device.expect("chat_removed", |data| data["id"] == json!(chat)).await?;
    }
    let marks = [phone.mark(), tablet.mark()];

    for (n, socket) in [&anas, &bens].into_iter().enumerate() {
        socket.say(chat, &format!("without Cleo {n}")).await?;
        socket.tell("typing_start", chat).await?;
    }
    // The log has one order, so this comes after all that.
    anas.say(other, "elsewhere").await?;
    for (device, mark) in [&phone, &tablet].into_iter().zip(marks) {
        device.hears(other, "elsewhere").await?;
        assert!(
            device.since(mark, "message").iter().all(|data| data["chatId"] == json!(other)),
            "{}",
            device.failure("it heard of a chat that it has left")
        );
        assert_eq!(device.since(mark, "user_typing"), [json!(null); 0]);
        assert_eq!(device.since(mark, "system"), [json!(null); 0]);
        for (event, data) in [
            ("send_message", json!({"chatId": chat, "content": "let me in"})),
            ("history", json!({"chatId": chat})),
            ("typing_start", json!({"chatId": chat})),
        ] {
            assert_eq!(device.refused(event, data).await?.code.as_str(), "not_member", "{event}");
        }
    }
    for gateway in [0, 1] {
        let api = cleo.api(gateway);
        api.get(&format!("/chats/{chat}/messages")).await?.refused(403, "not_member")?;
        assert_eq!(api.chats("limit=10").await?.items.len(), 1);
    }
    assert_eq!(ana.api(1).chat(chat).await?.participant_count, 2);

    // And back again: from then on, with everything that she missed in the history.
    cleo.api(1).post(&format!("/chats/{chat}/join"), json!({})).await?.expect(200)?;
    for device in [&phone, &tablet] {
        device.expect("chat_added", |data| data["id"] == json!(chat)).await?;
    }
    bens.say(chat, "there she is").await?;
    for device in [&phone, &tablet] {
        device.hears(chat, "there she is").await?;
    }
    let page = cleo.api(0).history(chat, "limit=50").await?;
    assert_eq!(page.messages.iter().filter(|m| m.content.starts_with("without")).count(), 2);
    for socket in [&anas, &bens, &phone, &tablet] {
        socket.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn what_a_chat_does_not_allow_is_refused() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let closed = ana.api(0).group("By invitation", &[&ben]).await?.id;
    let direct = ana.api(0).direct(&ben).await?.id;
    let cleos = cleo.connect(1).await?;
    let anas = ana.connect(0).await?;

    assert_eq!(
        cleos.refused("join_chat", json!({"chatId": closed})).await?.code.as_str(),
        "forbidden"
    );
    cleo.api(0)
        .post(&format!("/chats/{closed}/join"), json!({}))
        .await?
        .refused(403, "forbidden")?;
    assert_eq!(
        cleos.refused("join_chat", json!({"chatId": direct})).await?.code.as_str(),
        "forbidden"
    );
    assert_eq!(
        anas.refused("leave_chat", json!({"chatId": direct})).await?.code.as_str(),
        "forbidden"
    );
    let nowhere = ChatId::generate();
    assert_eq!(
        cleos.refused("join_chat", json!({"chatId": nowhere})).await?.code.as_str(),
        "not_found"
    );
    cleo.api(1).get(&format!("/chats/{closed}")).await?.refused(403, "not_member")?;
    Ok(())
}

#[tokio::test]
async fn a_chat_made_over_the_socket_is_there_for_everybody_at_once() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?.connect(1).await?;
    let bens = ben.connect(1).await?;

    let data = json!({"isGroup": true, "title": "On the fly", "participantIds": [ben.id]});
    let chat: Chat = serde_json::from_value(phone.request("create_chat", data).await?)?;
    // Read your writes: who made it can write to it with the next frame.
    let sent = phone.say(chat.id, "first").await?;
    for other in [&tablet, &bens] {
        let added = other.expect("chat_added", |data| data["id"] == json!(chat.id)).await?;
        assert_eq!(added["me"]["name"], "On the fly");
        assert_eq!(other.hears(chat.id, "first").await?.seq, sent.seq);
    }
    bens.say(chat.id, "second").await?;
    phone.hears(chat.id, "second").await?;

    let direct = json!({"isGroup": false, "participantIds": [ana.id]});
    let direct: Chat = serde_json::from_value(bens.request("create_chat", direct).await?)?;
    assert!(!direct.is_group);
    assert_eq!(direct.title, None);
    assert_eq!(direct.me.context("no me")?.name, "Ana");
    let added = tablet.expect("chat_added", |data| data["id"] == json!(direct.id)).await?;
    assert_eq!(added["me"]["name"], "Ben");
    tablet.say(direct.id, "just us").await?;
    bens.hears(direct.id, "just us").await?;
    phone.hears(direct.id, "just us").await?;
    for socket in [&phone, &tablet, &bens] {
        socket.check_feeds()?;
    }
    Ok(())
}
