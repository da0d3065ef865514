//! Examples for the calls of REST: of what they take, and of what they answer when they go well.

use std::collections::BTreeMap;

use natter_protocol::{
    client::{Draft, Edit},
    ids::{InviteId, Seq, UserId},
    imported::{Imported, ImportedKind},
    media::{Download, DownloadPage, UploadDraft, UploadTicket, Uploaded},
    notify::{
        Delivery, DeliveryPage, LastPush, NotificationSettings, PushKey, PushState, PushTarget,
    },
    push::{self, Provider},
    rest::{
        AddUsers, Ban, BanPage, Block, BlockPage, ChangeRole, ChatPage, CreateChat, CreateInvite,
        Device, DeviceList, Invitation, Invite, InviteList, MadeInvite, Mute, ParticipantPage,
        ParticipantReceipt, ReceiptList, Session, UnreadTotal, UpTo, User, UserList,
    },
    server::{Chat, Empty, Me, Role, Sent, UserCard},
    service::{
        CreateServerChat, CreateUser, SendAs, ServerDraft, ServerRole, ServerUser, ServerUserList,
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::samples::{ADA, AT, BEN, CLIENT_MSG_ID, CODE, DEVICE, FILE, Samples, TOKEN, picture};

const INVITE: InviteId = InviteId(Uuid::from_u128(0x0198_c0de_0007_7a00_8000_0000_0000_00a8));
const PHONE: &str = "+15550101";
const REFRESH_TOKEN: &str = "b3Bhc…hcXVl";
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const PASSWORD: &str = "correct horse battery";

/// REST's document, with an example beside each schema of a body or an answer.
pub fn with_examples(mut document: Value) -> Value {
    let examples = examples();
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, operation) in paths.filter_map(|(_, item)| item.as_object_mut()).flatten() {
        let name = operation["operationId"].as_str().unwrap_or_default().to_owned();
        if let Some(body) = operation.get_mut("requestBody") {
            add(body, None, &examples);
        }
        for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            add(response, examples.get(&format!("{name} {status}")), &examples);
        }
    }
    document
}

/// Adds this example to the contents, or that of the type that they are of.
fn add(of: &mut Value, own: Option<&Value>, examples: &BTreeMap<String, Value>) {
    let contents = of.get_mut("content").and_then(Value::as_object_mut);
    for (_, content) in contents.into_iter().flatten() {
        // A body that may be missing may be `null` too.
        let schema = &content["schema"];
        let mut either = schema["oneOf"].as_array().into_iter().flatten();
        let reference = schema.get("$ref").or_else(|| either.find_map(|one| one.get("$ref")));
        let name = reference.and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
        if let Some(example) = own.or_else(|| examples.get(name?)) {
            content["example"] = example.clone();
        }
    }
}

/// By the name of a schema; or by an operation and a status, where that answers otherwise.
fn examples() -> BTreeMap<String, Value> {
    let samples = Samples::new();
    let (ada, ben) = (card("Ada", ADA), card("Ben", BEN));
    let direct = direct(&samples.chat, &ben);
    let for_all = |chat: &Chat| Chat { me: None, ..chat.clone() };
    let again = Sent { duplicate: true, ..samples.sent.clone() };
    let mut known = BTreeMap::from(
        [
            // What only clients write is no value of its type here.
            (
                "Register",
                json!({
                    "name": "Ada", "phone": PHONE, "password": PASSWORD,
                    "device": {"name": "Ada's phone", "platform": "ios"},
                }),
            ),
            ("Login", json!({"phone": PHONE, "password": PASSWORD, "device": {"id": DEVICE}})),
            ("Refresh", json!({"refreshToken": REFRESH_TOKEN})),
            ("ChangePassword", json!({"current": PASSWORD, "new": "staple and a zebra"})),
            ("DeleteAccount", json!({"password": PASSWORD})),
            ("UpdateUser", json!({"name": "Ada Lovelace", "email": null})),
            ("JoinRequest", json!({"history": {"limit": 50}})),
            ("CompleteRequest", json!({"caption": "The harbour", "clientMsgId": CLIENT_MSG_ID})),
            (
                "UploadForm",
                json!({"file": "(its bytes)", "caption": "The harbour", "clientMsgId": CLIENT_MSG_ID}),
            ),
            (
                "ChangeNotifications",
                json!({"preview": "sender", "quietHours": {
                    "from": "22:00", "until": "07:30", "timeZone": "Europe/Berlin",
                }}),
            ),
            ("ChangeChat", json!({"title": "Sailing club", "description": null})),
            ("create_chat 200", json!(direct)),
            ("send_message 200", json!(again)),
            (
                "ChangeUser",
                json!({"name": "Ada Lovelace", "email": "ada@example.org", "phone": null}),
            ),
            ("LogDeviceIn", json!({"device": {"name": "Ada's phone", "platform": "ios"}})),
            ("server_create_chat 201", json!(for_all(&samples.chat))),
            ("server_create_chat 200", json!(for_all(&direct))),
            ("server_get_chat 200", json!(for_all(&samples.chat))),
            ("server_add_participants 200", json!(for_all(&samples.chat))),
            ("server_send_message 200", json!(again)),
            ("mute_chat 200", json!(samples.muted)),
            ("hide_chat 200", json!(samples.hidden)),
        ]
        .map(|(name, example)| (name.to_owned(), example)),
    );
    known.extend([
        example(&CreateChat {
            is_group: true,
            title: Some("Sailing".to_owned()),
            participant_ids: vec![BEN],
            open: true,
        }),
        example(&Draft {
            content: "Hello Ben".to_owned(),
            media_id: None,
            reply_to: None,
            client_msg_id: Some(CLIENT_MSG_ID.to_owned()),
            mentions: Vec::new(),
        }),
        example(&CreateUser {
            name: "Ada".to_owned(),
            external_id: Some("customer-7".to_owned()),
            ..CreateUser::default()
        }),
        example(&ServerUserList { items: vec![managed()] }),
        example(&managed()),
        example(&CreateServerChat {
            is_group: true,
            title: Some("Order 1138".to_owned()),
            owner_id: Some(ADA),
            participant_ids: vec![BEN],
            open: false,
        }),
        example(&ServerRole { role: Role::Admin }),
        example(&ServerDraft {
            send_as: SendAs::System,
            draft: Draft {
                content: "The order has left our harbour.".to_owned(),
                media_id: None,
                reply_to: None,
                client_msg_id: Some(CLIENT_MSG_ID.to_owned()),
                mentions: Vec::new(),
            },
        }),
        example(&Edit { content: "Hello, Ben".to_owned(), mentions: Vec::new() }),
        example(&samples.changed),
        example(&UploadDraft { name: "harbour.mp4".to_owned(), size: 734_003_200 }),
        example(&Session {
            user: user(&ada),
            device: device(),
            access_token: TOKEN.to_owned(),
            refresh_token: REFRESH_TOKEN.to_owned(),
            expires_at: AT,
        }),
        example(&user(&ada)),
        example(&UserList { items: vec![ben.clone()] }),
        example(&DeviceList { items: vec![device()] }),
        example(&ChatPage { items: vec![samples.chat.clone()], next_cursor: None }),
        example(&ParticipantPage { items: samples.chat.participants.clone(), next_cursor: None }),
        example(&AddUsers { user_ids: vec![BEN] }),
        example(&ChangeRole { role: Role::Owner, transfer: true }),
        example(&BanPage {
            items: vec![Ban { user: ben.clone(), banned_by: ADA, banned_at: AT }],
            next_cursor: None,
        }),
        example(&CreateInvite { expires_in: Some(86_400), max_uses: Some(10) }),
        example(&MadeInvite {
            id: INVITE,
            code: CODE.to_owned(),
            path: format!("/v1/invites/{CODE}"),
            expires_at: AT,
            max_uses: Some(10),
        }),
        example(&InviteList {
            items: vec![Invite {
                id: INVITE,
                created_by: ADA,
                created_at: AT,
                expires_at: AT,
                max_uses: Some(10),
                uses: 3,
            }],
        }),
        example(&Invitation {
            chat_id: samples.chat.id,
            title: samples.chat.title.clone(),
            description: samples.chat.description.clone(),
            participant_count: samples.chat.participant_count,
            expires_at: AT,
        }),
        example(&BlockPage {
            items: vec![Block { user: ben.clone(), blocked_at: AT }],
            next_cursor: None,
        }),
        example(&samples.chat),
        example(&Mute { until: Some(AT), forever: false }),
        example(&UpTo { seq: samples.chat.last_seq }),
        example(&UnreadTotal { total: 7, chats: 2 }),
        example(&ReceiptList {
            items: vec![
                receipt(ADA, samples.chat.last_seq, samples.chat.last_seq),
                receipt(BEN, 4_007, samples.chat.last_seq),
            ],
        }),
        example(&samples.joined),
        example(&samples.page),
        example(&samples.found),
        example(&samples.sent),
        example(&Empty {}),
        example(&Imported {
            kind: ImportedKind::Message,
            old_id: "cjld2cjxh0000qzrmn831i7rn".to_owned(),
            id: samples.sent.id.0,
            chat_id: Some(samples.chat.id),
            message_id: None,
            seq: Some(samples.sent.seq),
            url: None,
        }),
        example(&Uploaded { media: picture(), message: Some(samples.sent.clone()) }),
        example(&UploadTicket {
            media_id: FILE,
            url: "https://files.example/…".to_owned(),
            headers: BTreeMap::from([("x-example".to_owned(), "as it is given".to_owned())]),
            expires_at: AT,
        }),
        example(&push::Target::WebPush(push::Subscription {
            endpoint: "https://updates.push.services.mozilla.com/wpush/v2/gAAA…".to_owned(),
            keys: push::SubscriptionKeys {
                p256dh: P256DH.to_owned(),
                auth: "BTBZMqHH6r4Tts7J_aSIgg".to_owned(),
            },
            expiration_time: None,
        })),
        example(&PushKey {
            public_key: Some(P256DH.to_owned()),
            providers: vec![Provider::WebPush, Provider::Fcm],
        }),
        example(&PushTarget {
            provider: Provider::WebPush,
            set_at: AT,
            expires_at: None,
            gone: false,
            last: Some(LastPush {
                state: PushState::Delivered,
                answer: Some("201 Created".to_owned()),
                at: AT,
            }),
        }),
        example(&NotificationSettings::default()),
        example(&DeliveryPage {
            message_id: samples.sent.id,
            decided: true,
            reason: None,
            items: vec![Delivery {
                user: ben.clone(),
                device_id: Some(DEVICE),
                provider: Some(Provider::WebPush),
                state: PushState::Delivered,
                reason: None,
                decided_at: AT,
                attempts: 1,
                attempted_at: Some(AT),
                next_at: None,
                ended_at: Some(AT),
                answer: Some("201 Created".to_owned()),
            }],
            next_cursor: None,
        }),
        example(&DownloadPage {
            items: vec![Download {
                user: ben,
                device_id: DEVICE,
                at: AT,
                first_byte: 0,
                bytes: Some(picture().size),
                complete: Some(true),
            }],
            next_cursor: None,
        }),
    ]);
    known
}

fn example<T: Serialize + ToSchema>(value: &T) -> (String, Value) {
    (T::name().into_owned(), json!(value))
}

fn receipt(user_id: UserId, read_seq: Seq, delivered_seq: Seq) -> ParticipantReceipt {
    ParticipantReceipt { user_id, read_seq, delivered_seq }
}

fn card(name: &str, id: UserId) -> UserCard {
    UserCard { id, name: name.to_owned(), bot: false }
}

/// The same two, with nobody who owns it.
fn direct(group: &Chat, other: &UserCard) -> Chat {
    let mut participants = group.participants.clone();
    for participant in &mut participants {
        participant.role = Role::Member;
    }
    Chat {
        is_group: false,
        title: None,
        description: None,
        open: false,
        participants,
        me: Some(Me { read_seq: group.last_seq, ..Me::new(other.name.clone(), Role::Member) }),
        ..group.clone()
    }
}

fn user(card: &UserCard) -> User {
    User {
        id: card.id,
        name: card.name.clone(),
        phone: Some(PHONE.to_owned()),
        email: None,
        bot: false,
    }
}

fn managed() -> ServerUser {
    ServerUser {
        id: ADA,
        external_id: Some("customer-7".to_owned()),
        name: "Ada".to_owned(),
        phone: None,
        email: None,
        bot: false,
        disabled: false,
    }
}

fn device() -> Device {
    Device {
        id: DEVICE,
        name: Some("Ada's phone".to_owned()),
        platform: Some("ios".to_owned()),
        created_at: AT,
        last_seen_at: Some(AT),
        online: true,
        current: true,
    }
}

#[cfg(test)]
mod tests {
    use garde::Validate;
    use natter_protocol::{
        notify::ChangeNotifications,
        rest::{ChangeChat, ChangePassword, DeleteAccount, Login, Refresh, Register, UpdateUser},
        service::{ChangeUser, LogDeviceIn},
    };
    use serde::de::DeserializeOwned;

    use super::{super::schemas::Schemas, *};

    #[test]
    fn every_body_and_every_answer_has_an_example() {
        let document = with_examples(Schemas::new().openapi().clone());
        let mut shown = 0;
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let answers = operation["responses"].as_object().into_iter().flatten();
                let good = answers.filter(|(status, _)| status.starts_with('2'));
                for part in good.map(|(_, answer)| answer).chain(operation.get("requestBody")) {
                    for (kind, content) in part["content"].as_object().into_iter().flatten() {
                        // Files are no JSON.
                        let told = !kind.contains('*') && kind != "application/zip";
                        assert_eq!(
                            content.get("example").is_some(),
                            told,
                            "{method} {path} {kind}"
                        );
                        shown += usize::from(told);
                    }
                }
            }
        }
        assert!(shown > 30, "{shown}");
    }

    #[test]
    fn what_clients_write_is_taken() -> anyhow::Result<()> {
        fn take<T: DeserializeOwned + ToSchema + Validate<Context = ()>>() -> anyhow::Result<()> {
            let body = examples().remove(&*T::name()).unwrap_or_default();
            Ok(serde_json::from_value::<T>(body)?.validate()?)
        }
        take::<Register>()?;
        take::<Login>()?;
        take::<Refresh>()?;
        take::<ChangePassword>()?;
        take::<DeleteAccount>()?;
        take::<UpdateUser>()?;
        take::<Mute>()?;
        take::<ChangeNotifications>()?;
        take::<push::Target>()?;
        take::<UpTo>()?;
        take::<ChangeChat>()?;
        take::<AddUsers>()?;
        take::<ChangeRole>()?;
        take::<CreateInvite>()?;
        take::<CreateUser>()?;
        take::<ChangeUser>()?;
        take::<LogDeviceIn>()?;
        take::<CreateServerChat>()?;
        take::<ServerRole>()?;
        take::<CreateChat>()
    }
}
