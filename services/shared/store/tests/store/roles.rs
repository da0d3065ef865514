//! Groups managed: who may do what, and that somebody always may do everything.

use std::collections::HashMap;

use anyhow::{Context, Result};
use futures::future::join_all;
use natter_protocol::{
    feed::{Event, FeedKind, SystemEvent, SystemKind},
    ids::{ChatId, UserId},
    server::Role,
};
use natter_store::{ChatEdit, Conflict, Store, StoreError};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::support::{Broker, person, relay, store};

async fn people(store: &Store, count: usize) -> Result<Vec<UserId>> {
    let mut people = Vec::new();
    for n in 0..count {
        people.push(person(store, &format!("P{n}")).await?);
    }
    Ok(people)
}

async fn role(store: &Store, user: UserId, chat: ChatId) -> Result<Option<Role>> {
    Ok(store.membership(user, chat).await?.map(|member| member.role))
}

/// The entries of the chats' feeds, in order.
fn entries(broker: &Broker) -> Vec<SystemEvent> {
    let events = broker.stored().into_iter().filter_map(|(_, feed, entry)| match entry.event {
        Event::System(event) if feed.kind == FeedKind::Chat => Some(event),
        _ => None,
    });
    events.collect()
}

fn forbidden<T: std::fmt::Debug>(result: natter_store::Result<T>) {
    match result {
        Err(StoreError::Forbidden) => {}
        other => panic!("{other:?}"),
    }
}

fn conflict<T: std::fmt::Debug>(result: natter_store::Result<T>, with: Conflict) {
    match result {
        Err(StoreError::Conflict(found)) if found == with => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_role_may_do_what_it_may() -> Result<()> {
    let store = store().await?;
    let users = people(&store, 6).await?;
    let [owner, admin, other_admin, member, other, outsider] = users[..] else { panic!("six") };
    let chat = store.create_group(owner, Some("T"), false, &users[1..5], 0).await?.chat;
    store.set_role(owner, chat, admin, Role::Admin, false).await?;
    store.set_role(owner, chat, other_admin, Role::Admin, false).await?;

    let title = |title| ChatEdit { title: Some(title), ..ChatEdit::default() };
    let open = ChatEdit { open: Some(true), ..ChatEdit::default() };
    for nobody in [outsider, UserId::generate()] {
        let done = store.update_chat(nobody, chat, &title("X")).await;
        assert!(matches!(done, Err(StoreError::NotMember)), "{done:?}");
        let done = store.delete_chat(nobody, chat).await;
        assert!(matches!(done, Err(StoreError::NotMember)), "{done:?}");
        let done = store.bans(nobody, chat, None, 10).await;
        assert!(matches!(done, Err(StoreError::NotMember)), "{done:?}");
    }
    forbidden(store.add_participants(member, chat, &[outsider]).await);
    forbidden(store.remove_participant(member, chat, other, false).await);
    forbidden(store.update_chat(member, chat, &title("X")).await);
    forbidden(store.set_role(member, chat, member, Role::Owner, false).await);
    forbidden(store.set_role(member, chat, other, Role::Member, false).await);
    forbidden(store.delete_chat(member, chat).await);
    forbidden(store.bans(member, chat, None, 10).await);
    forbidden(store.lift_ban(member, chat, other).await);

    forbidden(store.remove_participant(admin, chat, owner, false).await);
    forbidden(store.remove_participant(admin, chat, other_admin, true).await);
    forbidden(store.set_role(admin, chat, member, Role::Admin, false).await);
    forbidden(store.set_role(admin, chat, admin, Role::Owner, true).await);
    forbidden(store.update_chat(admin, chat, &open).await);
    forbidden(store.delete_chat(admin, chat).await);
    assert!(store.update_chat(admin, chat, &title("Named by an admin")).await?.is_some());
    assert!(store.add_participants(admin, chat, &[outsider]).await?.is_some());
    assert!(store.remove_participant(admin, chat, outsider, true).await?.is_some());

    conflict(store.remove_participant(owner, chat, owner, false).await, Conflict::Oneself);
    let down = store.set_role(owner, chat, owner, Role::Member, false).await;
    conflict(down, Conflict::LastOwner);
    let nobody = store.set_role(owner, chat, outsider, Role::Admin, false).await;
    assert!(matches!(nobody, Err(StoreError::NotFound)), "{nobody:?}");
    let nobody = store.remove_participant(owner, chat, outsider, false).await;
    assert!(matches!(nobody, Err(StoreError::NotFound)), "{nobody:?}");
    let nobody = store.remove_participant(owner, chat, UserId::generate(), true).await;
    assert!(matches!(nobody, Err(StoreError::NotFound)), "{nobody:?}");
    let nobody = store.add_participants(owner, chat, &[outsider, UserId::generate()]).await;
    assert!(nobody.is_err());

    // Everybody may step down, and nothing that is so already is a change.
    assert!(store.set_role(admin, chat, admin, Role::Member, false).await?.is_some());
    assert!(store.set_role(admin, chat, admin, Role::Member, false).await?.is_none());
    assert!(store.update_chat(owner, chat, &title("Named by an admin")).await?.is_none());

    let direct = store.open_direct(owner, member, 0).await?.chat;
    forbidden(store.update_chat(owner, direct, &title("X")).await);
    forbidden(store.add_participants(owner, direct, &[other]).await);
    forbidden(store.remove_participant(owner, direct, member, false).await);
    forbidden(store.set_role(owner, direct, owner, Role::Member, false).await);
    forbidden(store.delete_chat(owner, direct).await);
    Ok(())
}

#[tokio::test]
async fn what_changes_is_told_on_the_feed_with_what_it_is_now() -> Result<()> {
    let store = store().await?;
    let users = people(&store, 3).await?;
    let [ana, ben, cleo] = users[..] else { panic!("three") };
    let chat = store.create_group(ana, Some("T"), false, &[ben], 0).await?.chat;
    let edit = ChatEdit {
        title: Some("Ölclub"),
        description: Some(Some("About\noil")),
        open: Some(true),
        retention_secs: None,
    };
    store.update_chat(ana, chat, &edit).await?;
    store.add_participants(ana, chat, &[cleo, ben, cleo]).await?;
    store.set_role(ana, chat, ben, Role::Owner, true).await?;
    store.remove_participant(ben, chat, cleo, true).await?;
    let gone = ChatEdit { description: Some(None), open: Some(false), ..ChatEdit::default() };
    store.update_chat(ben, chat, &gone).await?;

    let broker = Broker::default();
    relay(&store, &broker, chat.0).await?;
    let told = entries(&broker);
    use SystemKind as Kind;
    let kinds: Vec<_> =
        told.iter().map(|event| (event.kind, event.actor_id, event.user_id)).collect();
    assert_eq!(
        kinds,
        [
            (Kind::Created, ana, None),
            (Kind::Renamed, ana, None),
            (Kind::Described, ana, None),
            (Kind::Opened, ana, None),
            (Kind::Added, ana, Some(cleo)),
            (Kind::Role, ana, Some(ben)),
            (Kind::Role, ana, Some(ana)),
            (Kind::Removed, ben, Some(cleo)),
            (Kind::Described, ben, None),
            (Kind::Closed, ben, None),
        ]
    );
    let versions: Vec<i64> = told.iter().map(|event| event.version).collect();
    assert_eq!(versions, (1..=10).collect::<Vec<_>>());
    assert_eq!(told[1].title.as_deref(), Some("Ölclub"));
    assert_eq!(told[2].description.as_deref(), Some("About\noil"));
    assert_eq!((told[5].role, told[6].role), (Some(Role::Owner), Some(Role::Admin)));
    assert!(told[7].banned);
    assert_eq!(told[8].description, None);

    let view = store.chat(ben, chat).await?.context("there")?;
    assert_eq!((view.title.as_deref(), view.description, view.open), (Some("Ölclub"), None, false));
    assert_eq!(store.chats(ben, None, 10, Some("öLC")).await?.0.len(), 1);
    // Who was added has a place to begin at, and one who was removed meanwhile is out.
    let added = broker.stored().into_iter().find_map(|(_, feed, entry)| match entry.event {
        Event::ChatAdded(added) if feed.id == cleo.0 => Some(added),
        _ => None,
    });
    let added = added.context("Cleo was told")?;
    assert_eq!(added.chat.title.as_deref(), Some("Ölclub"));
    assert_eq!(added.chat.me.map(|me| me.role), Some(Role::Member));
    assert_eq!(store.followed(cleo).await?.chats, []);
    Ok(())
}

#[tokio::test]
async fn whoever_is_banned_does_not_come_back_until_that_is_lifted() -> Result<()> {
    let store = store().await?;
    let users = people(&store, 4).await?;
    let [ana, ben, cleo, dora] = users[..] else { panic!("four") };
    let chat = store.create_group(ana, Some("T"), true, &[ben], 0).await?.chat;
    store.remove_participant(ana, chat, ben, true).await?;
    // Somebody who takes no part can be kept out too, which nobody is told.
    assert_eq!(store.remove_participant(ana, chat, cleo, true).await?, None);
    conflict(store.join(ben, chat).await, Conflict::Banned);
    conflict(store.join(cleo, chat).await, Conflict::Banned);
    conflict(store.add_participants(ana, chat, &[dora, ben]).await, Conflict::Banned);
    assert_eq!(role(&store, dora, chat).await?, None, "all or none");
    let (first, next) = store.bans(ana, chat, None, 1).await?;
    let (second, end) = store.bans(ana, chat, next, 1).await?;
    let banned: Vec<UserId> = first.iter().chain(&second).map(|ban| ban.user.id).collect();
    assert_eq!((banned, end), (vec![ben, cleo], None));
    assert_eq!((first[0].banned_by, first[0].user.name.as_str()), (ana, "P1"));
    store.lift_ban(ana, chat, ben).await?;
    store.lift_ban(ana, chat, ben).await?;
    assert!(store.join(ben, chat).await?.changed);
    assert_eq!(role(&store, ben, chat).await?, Some(Role::Member));
    Ok(())
}

#[tokio::test]
async fn a_group_that_is_deleted_is_nobodys() -> Result<()> {
    let store = store().await?;
    // More than one row of the outbox tells of.
    let users = people(&store, 520).await?;
    let chat = store.create_group(users[0], Some("T"), true, &users, 0).await?.chat;
    let broker = Broker::default();
    relay(&store, &broker, chat.0).await?;
    store.leave(users[1], chat).await?;
    store.delete_chat(users[0], chat).await?;
    assert!(matches!(store.delete_chat(users[0], chat).await, Err(StoreError::NotMember)));
    assert!(matches!(store.join(users[1], chat).await, Err(StoreError::NotFound)));
    assert_eq!(store.chat(users[2], chat).await?, None);
    assert_eq!(store.chats(users[2], None, 10, None).await?.0, []);
    assert_eq!(store.followed(users[519]).await?.leaving, [chat.0]);

    // What was left; then the chat's entry, and the relay dies in the second of its rows.
    broker.fail_at(2 + 1 + 500 + 5);
    assert!(relay(&store, &broker, chat.0).await.is_err());
    relay(&store, &broker, chat.0).await?;
    let deleted: Vec<u64> = broker
        .stored()
        .into_iter()
        .filter(|(.., entry)| {
            matches!(&entry.event, Event::System(event) if event.kind == SystemKind::Deleted)
        })
        .map(|(place, ..)| place)
        .collect();
    assert_eq!(deleted.len(), 1, "one entry of the chat");
    let mut told: HashMap<UserId, Vec<u64>> = HashMap::new();
    for (_, feed, entry) in broker.stored() {
        if let (Some(user), Event::ChatRemoved(removed)) = (feed.user_id(), entry.event) {
            told.entry(user).or_default().push(removed.until_seq);
        }
    }
    for user in users.iter().filter(|user| **user != users[1]) {
        assert_eq!(told.get(user), Some(&deleted), "each once, with that entry's place");
    }
    assert!(store.followed(users[519]).await?.leaving.is_empty());
    Ok(())
}

#[tokio::test]
async fn when_the_last_owner_leaves_the_oldest_admin_takes_over_or_else_the_oldest_member()
-> Result<()> {
    let store = store().await?;
    let users = people(&store, 4).await?;
    let [ana, ben, cleo, dora] = users[..] else { panic!("four") };
    let chat = store.create_group(ana, Some("T"), true, &[], 0).await?.chat;
    for user in [ben, cleo, dora] {
        store.join(user, chat).await?;
        // Joined at another millisecond.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    store.set_role(ana, chat, cleo, Role::Admin, false).await?;
    store.leave(ana, chat).await?;
    assert_eq!(role(&store, cleo, chat).await?, Some(Role::Owner));
    store.leave(cleo, chat).await?;
    assert_eq!(role(&store, ben, chat).await?, Some(Role::Owner));
    assert_eq!(role(&store, dora, chat).await?, Some(Role::Member));
    let broker = Broker::default();
    relay(&store, &broker, chat.0).await?;
    let told: Vec<_> =
        entries(&broker).into_iter().map(|event| (event.kind, event.user_id)).collect();
    use SystemKind as Kind;
    let end = [
        (Kind::Left, Some(ana)),
        (Kind::Role, Some(cleo)),
        (Kind::Left, Some(cleo)),
        (Kind::Role, Some(ben)),
    ];
    assert_eq!(told[told.len() - 4..], end);
    // Whoever comes to an empty group owns it.
    store.leave(dora, chat).await?;
    store.leave(ben, chat).await?;
    assert_eq!(store.membership(ben, chat).await?, None);
    store.join(dora, chat).await?;
    assert_eq!(role(&store, dora, chat).await?, Some(Role::Owner));
    Ok(())
}

#[tokio::test]
async fn of_two_owners_who_take_the_role_from_each_other_one_keeps_it() -> Result<()> {
    let store = store().await?;
    let users = people(&store, 2).await?;
    let [ana, ben] = users[..] else { panic!("two") };
    for _ in 0..20 {
        let chat = store.create_group(ana, Some("T"), false, &[ben], 0).await?.chat;
        store.set_role(ana, chat, ben, Role::Owner, false).await?;
        let (one, two) = tokio::join!(
            store.set_role(ana, chat, ben, Role::Member, false),
            store.set_role(ben, chat, ana, Role::Member, false),
        );
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        forbidden(if one.is_ok() { two } else { one });
        let roles = (role(&store, ana, chat).await?, role(&store, ben, chat).await?);
        let (owner, member) = (Some(Role::Owner), Some(Role::Member));
        assert!(roles == (owner, member) || roles == (member, owner), "{roles:?}");
    }
    Ok(())
}

/// What somebody does to somebody, by their numbers.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Join(usize),
    Leave(usize),
    Add(usize, usize),
    Remove(usize, usize),
    SetRole(usize, usize, Role),
    Transfer(usize, usize),
}

const CAST: usize = 4;

fn deed() -> impl Strategy<Value = Deed> {
    let who = 0..CAST;
    let roles = proptest::sample::select(vec![Role::Owner, Role::Admin, Role::Member]);
    prop_oneof![
        who.clone().prop_map(Deed::Join),
        who.clone().prop_map(Deed::Leave),
        (who.clone(), who.clone()).prop_map(|(a, b)| Deed::Add(a, b)),
        (who.clone(), who.clone()).prop_map(|(a, b)| Deed::Remove(a, b)),
        (who.clone(), who.clone(), roles).prop_map(|(a, b, role)| Deed::SetRole(a, b, role)),
        (who.clone(), who).prop_map(|(a, b)| Deed::Transfer(a, b)),
    ]
}

async fn act(
    store: &Store,
    users: &[UserId],
    chat: ChatId,
    deed: Deed,
) -> natter_store::Result<bool> {
    Ok(match deed {
        Deed::Join(a) => store.join(users[a], chat).await?.changed,
        Deed::Leave(a) => store.leave(users[a], chat).await?.changed,
        Deed::Add(a, b) => store.add_participants(users[a], chat, &[users[b]]).await?.is_some(),
        Deed::Remove(a, b) => {
            store.remove_participant(users[a], chat, users[b], false).await?.is_some()
        }
        Deed::SetRole(a, b, role) => {
            store.set_role(users[a], chat, users[b], role, false).await?.is_some()
        }
        Deed::Transfer(a, b) => {
            store.set_role(users[a], chat, users[b], Role::Owner, true).await?.is_some()
        }
    })
}

/// What the roles are by a simple model; whether a deed is done, and what it leaves. Whoever is
/// listed first has been there for longest.
#[derive(Clone, Debug, Default)]
struct Model(Vec<(usize, Role)>);

impl Model {
    fn role(&self, who: usize) -> Option<Role> {
        self.0.iter().find(|(other, _)| *other == who).map(|(_, role)| *role)
    }

    fn set(&mut self, who: usize, role: Role) {
        for (other, held) in &mut self.0 {
            if *other == who {
                *held = role;
            }
        }
    }

    fn end(&mut self, who: usize) {
        self.0.retain(|(other, _)| *other != who);
        if self.0.iter().all(|(_, role)| *role != Role::Owner) {
            let admin = self.0.iter().find(|(_, role)| *role == Role::Admin);
            if let Some((heir, _)) = admin.or(self.0.first()).copied() {
                self.set(heir, Role::Owner);
            }
        }
    }

    fn owners(&self) -> usize {
        self.0.iter().filter(|(_, role)| *role == Role::Owner).count()
    }

    fn act(&mut self, deed: Deed) -> bool {
        let before = self.clone();
        match deed {
            Deed::Join(a) if self.role(a).is_none() => {
                let role = if self.0.is_empty() { Role::Owner } else { Role::Member };
                self.0.push((a, role));
            }
            Deed::Leave(a) if self.role(a).is_some() => self.end(a),
            Deed::Add(a, b)
                if self.role(a).is_some_and(|role| role != Role::Member)
                    && self.role(b).is_none() =>
            {
                self.0.push((b, Role::Member));
            }
            Deed::Remove(a, b) if a != b => match (self.role(a), self.role(b)) {
                (Some(Role::Owner), Some(_)) | (Some(Role::Admin), Some(Role::Member)) => {
                    self.end(b);
                }
                _ => {}
            },
            Deed::SetRole(a, b, role) => match (self.role(a), self.role(b)) {
                (Some(Role::Owner), Some(held)) if held != Role::Owner || self.owners() > 1 => {
                    self.set(b, role);
                }
                (Some(Role::Admin), _) if a == b && role == Role::Member => self.set(a, role),
                _ => {}
            },
            Deed::Transfer(a, b) if a != b => {
                if let (Some(Role::Owner), Some(_)) = (self.role(a), self.role(b)) {
                    self.set(b, Role::Owner);
                    self.set(a, Role::Admin);
                }
            }
            _ => {}
        }
        self.0 != before.0
    }
}

async fn roles(store: &Store, users: &[UserId], chat: ChatId) -> Result<Vec<(usize, Role)>> {
    let (there, _) = store.participants(chat, None, 100).await?;
    let number = |id: UserId| users.iter().position(|user| *user == id);
    Ok(there.iter().filter_map(|one| Some((number(one.id)?, one.role))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_those_of_a_simple_model() -> Result<()> {
    let store = store().await?;
    let users = people(&store, CAST).await?;
    let handle = tokio::runtime::Handle::current();
    let check = move |deeds: Vec<Deed>| -> Result<()> {
        handle.block_on(async {
            let chat = store.create_group(users[0], Some("T"), true, &[], 0).await?.chat;
            let mut model = Model(vec![(0, Role::Owner)]);
            for deed in deeds {
                // Who joined first is told apart by milliseconds.
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                let done = match act(&store, &users, chat, deed).await {
                    Ok(done) => done,
                    Err(error) if error.is_unavailable() => return Err(error.into()),
                    Err(_) => false,
                };
                assert_eq!(done, model.act(deed), "{deed:?} to {model:?}");
                assert_eq!(roles(&store, &users, chat).await?, model.0, "after {deed:?}");
                let view = store.chats(users[0], None, 200, None).await?.0;
                let here = view.iter().find(|view| view.id == chat);
                assert_eq!(here.is_some(), model.role(0).is_some());
                assert!(here.is_none_or(|here| here.participant_count == model.0.len() as i64));
            }
            Ok(())
        })
    };
    tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
        let deeds = proptest::collection::vec(deed(), 1..24);
        runner.run(&deeds, |deeds| {
            check(deeds).map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
    })
    .await??;
    Ok(())
}

#[tokio::test]
async fn a_group_has_an_owner_whatever_everybody_does_at_once() -> Result<()> {
    let store = store().await?;
    let users = people(&store, CAST).await?;
    for round in 0..12_usize {
        let chat = store.create_group(users[0], Some("T"), true, &users[1..], 0).await?.chat;
        for user in &users[1..] {
            store.set_role(users[0], chat, *user, Role::Owner, false).await?;
        }
        // Each at the next one, and all at once.
        let deeds = (0..CAST).flat_map(|a| {
            let b = (a + 1 + round % (CAST - 1)) % CAST;
            [
                Deed::SetRole(a, b, Role::Member),
                if round % 2 == 0 { Deed::Leave(a) } else { Deed::SetRole(a, a, Role::Admin) },
                Deed::Remove(b, a),
            ]
        });
        join_all(deeds.map(|deed| act(&store, &users, chat, deed))).await;
        let left = roles(&store, &users, chat).await?;
        assert!(
            left.is_empty() || left.iter().any(|(_, role)| *role == Role::Owner),
            "{round}: {left:?}"
        );
        // And its feed tells all of it, once and in order.
        let broker = Broker::default();
        while relay(&store, &broker, chat.0).await?.left {}
        let told = entries(&broker);
        let versions: Vec<i64> = told.iter().map(|event| event.version).collect();
        assert_eq!(versions, (1..=told.len() as i64).collect::<Vec<_>>());
        let mut held: HashMap<UserId, Role> =
            users.iter().map(|user| (*user, Role::Member)).collect();
        held.insert(users[0], Role::Owner);
        for event in told {
            match (event.kind, event.user_id, event.role) {
                (SystemKind::Role, Some(user), Some(role)) => drop(held.insert(user, role)),
                (kind, Some(user), _) if kind.ends_membership() => drop(held.remove(&user)),
                _ => {}
            }
        }
        let mut told: Vec<(usize, Role)> = held
            .into_iter()
            .filter_map(|(id, role)| Some((users.iter().position(|user| *user == id)?, role)))
            .collect();
        let mut left = left;
        told.sort_unstable_by_key(|(number, _)| *number);
        left.sort_unstable_by_key(|(number, _)| *number);
        assert_eq!(told, left, "who has heard all of it knows what is");
    }
    Ok(())
}
