//! Groups managed, the same over sockets and REST: a change is committed, then on its feeds, then
//! answered.

use std::{ops::RangeInclusive, time::Duration};

use axum::extract::FromRef;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, InviteId, UserId},
    limits,
    rest::{BanPage, ChangeChat, CreateInvite, Invitation, InviteList, MadeInvite},
    server::{Chat, Role},
};
use natter_store::{Actor, BanCursor, ChatEdit, Conflict, NewInvite, Store, StoreError};
use sha2::{Digest, Sha256};

use crate::{
    app::App,
    auth::Caller,
    chats::{Chats, banned},
    config::MessageArgs,
    fault,
    relay::Relay,
    rest::cursor::Cursor,
    text::{self, bad_request},
};

/// For how long an invite is good, unless its maker says.
const GOOD_FOR: Duration = Duration::from_hours(7 * 24);
/// Characters of a code that somebody may show.
const CODE_MOST: usize = 64;

const MANAGERS: &str = "this is for the owners and admins of a group";
const RETENTION: &str = "this is for the owners and admins of a group, and for both of a one-to-one in \
                         which messages can be sent";
const OWNERS: &str = "this is for the owners of a group";

/// Manages groups. Cloning shares what it uses.
#[derive(Clone)]
pub struct Groups {
    store: Store,
    relay: Relay,
    chats: Chats,
    /// For how many seconds messages may be kept.
    retention: RangeInclusive<u32>,
}

impl FromRef<App> for Groups {
    fn from_ref(app: &App) -> Self {
        let MessageArgs { retention_least_seconds, retention_most_seconds, .. } =
            app.config.messages;
        Self {
            store: app.store.clone(),
            relay: app.relay.clone(),
            chats: app.chats.clone(),
            retention: retention_least_seconds..=retention_most_seconds,
        }
    }
}

impl Groups {
    /// Makes users participants, all or none; those who take part already stay so.
    ///
    /// # Errors
    /// `bad_request` for none or too many; `not_member`; `forbidden`; `not_found` for a user who does
    /// not exist; `conflict` for one who is banned; `unavailable`.
    pub async fn add(
        &self,
        caller: &Caller,
        chat: ChatId,
        users: &[UserId],
    ) -> Result<Chat, WireError> {
        self.put_in(caller.user_id.into(), chat, users).await?;
        self.chats.get(caller, chat).await
    }

    /// The same, whoever does it.
    ///
    /// # Errors
    /// As there.
    pub async fn put_in(
        &self,
        actor: Actor,
        chat: ChatId,
        users: &[UserId],
    ) -> Result<(), WireError> {
        if users.is_empty() || users.len() > limits::ADDED {
            return Err(bad_request(format!("userIds: not 1 to {}", limits::ADDED)));
        }
        let added = self.store.add_participants(actor, chat, users).await;
        let lane = added.map_err(|error| match error {
            StoreError::NotFound => WireError::new(ErrorCode::NotFound, "a user does not exist"),
            other => refusal(other, MANAGERS),
        })?;
        self.relay.lane_if_any(lane).await;
        Ok(())
    }

    /// Ends somebody's participation; with `ban`, they may not come back.
    ///
    /// # Errors
    /// `not_member`; `forbidden`; `not_found` for one who takes no part; `conflict` for oneself;
    /// `unavailable`.
    pub async fn remove(
        &self,
        actor: impl Into<Actor>,
        chat: ChatId,
        user: UserId,
        ban: bool,
    ) -> Result<(), WireError> {
        let removed = self.store.remove_participant(actor, chat, user, ban).await;
        let lane = removed.map_err(|error| match error {
            StoreError::NotFound => no_participant(),
            other => refusal(other, "members are removed by owners and admins, others by owners"),
        })?;
        self.relay.lane_if_any(lane).await;
        Ok(())
    }

    /// Gives a participant a role. With `transfer` the caller becomes an admin in the same change.
    ///
    /// # Errors
    /// `bad_request` for a transfer of something else than ownership to somebody else; `not_member`;
    /// `forbidden`; `not_found` for one who takes no part; `conflict` when no owner would be left;
    /// `unavailable`.
    pub async fn set_role(
        &self,
        actor: impl Into<Actor>,
        chat: ChatId,
        user: UserId,
        role: Role,
        transfer: bool,
    ) -> Result<(), WireError> {
        let actor = actor.into();
        if transfer && (role != Role::Owner || actor == user.into()) {
            return Err(bad_request("transfer: goes with the role `owner`, to somebody else"));
        }
        let set = self.store.set_role(actor, chat, user, role, transfer).await;
        let lane = set.map_err(|error| match error {
            StoreError::NotFound => no_participant(),
            other => refusal(other, OWNERS),
        })?;
        self.relay.lane_if_any(lane).await;
        Ok(())
    }

    /// Changes what a group is called, what it says of itself, whether anybody may join, and for how
    /// long messages are kept.
    ///
    /// # Errors
    /// `bad_request` for a text or a time that cannot be one, or no change at all; `not_member`; `forbidden`;
    /// `unavailable`.
    pub async fn update(
        &self,
        caller: &Caller,
        chat: ChatId,
        change: &ChangeChat,
    ) -> Result<Chat, WireError> {
        text::valid(change)?;
        let title = text::optional_line("title", change.title.as_deref())?;
        let description = match &change.description {
            Some(Some(text)) => Some(Some(described(text)?)),
            Some(None) => Some(None),
            None => None,
        };
        let edit = ChatEdit {
            title: title.as_deref(),
            description: description.as_ref().map(Option::as_deref),
            open: change.open,
            retention_secs: change.retention_secs,
        };
        if let Some(secs) = change.retention_secs.flatten()
            && !self.retention.contains(&secs)
        {
            let (least, most) = (self.retention.start(), self.retention.end());
            return Err(bad_request(format!("retentionSecs: not {least} to {most}")));
        }
        if edit == ChatEdit::default() {
            return Err(bad_request("title, description, open, retentionSecs: one of them"));
        }
        let why = match edit {
            ChatEdit { open: Some(_), .. } => OWNERS,
            ChatEdit { retention_secs: Some(_), .. } => RETENTION,
            ChatEdit { .. } => MANAGERS,
        };
        let updated = self.store.update_chat(caller.user_id, chat, &edit).await;
        self.relay.lane_if_any(updated.map_err(|error| refusal(error, why))?).await;
        self.chats.get(caller, chat).await
    }

    /// Deletes a group.
    ///
    /// # Errors
    /// `not_member`, `forbidden`, `unavailable`.
    pub async fn delete(&self, caller: &Caller, chat: ChatId) -> Result<(), WireError> {
        let lane = self.store.delete_chat(caller.user_id, chat).await;
        self.relay.lane(lane.map_err(|error| refusal(error, OWNERS))?).await;
        Ok(())
    }

    /// Who may not come back: a page.
    ///
    /// # Errors
    /// `not_member`, `forbidden`, `unavailable`.
    pub async fn bans(
        &self,
        caller: &Caller,
        chat: ChatId,
        cursor: Option<BanCursor>,
        limit: u32,
    ) -> Result<BanPage, WireError> {
        let page = self.store.bans(caller.user_id, chat, cursor, limit).await;
        let (items, next) = page.map_err(|error| refusal(error, MANAGERS))?;
        Ok(BanPage { items, next_cursor: next.map(|next| next.encode()) })
    }

    /// Lets somebody come back.
    ///
    /// # Errors
    /// `not_member`, `forbidden`, `unavailable`.
    pub async fn lift_ban(
        &self,
        caller: &Caller,
        chat: ChatId,
        user: UserId,
    ) -> Result<(), WireError> {
        let lifted = self.store.lift_ban(caller.user_id, chat, user).await;
        lifted.map_err(|error| refusal(error, MANAGERS))
    }

    /// Makes a link into a group.
    ///
    /// # Errors
    /// `not_member`, `forbidden`, `conflict` when there are many already, `unavailable`.
    pub async fn invite(
        &self,
        caller: &Caller,
        chat: ChatId,
        request: &CreateInvite,
    ) -> Result<MadeInvite, WireError> {
        let code = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        let invite = NewInvite {
            id: InviteId::generate(),
            hash: hash(&code),
            good_for: request.expires_in.map_or(GOOD_FOR, |s| Duration::from_secs(s.into())),
            max_uses: request.max_uses,
        };
        let made = self.store.create_invite(caller.user_id, chat, &invite).await;
        let expires_at = made.map_err(|error| refusal(error, MANAGERS))?;
        let (path, max_uses) = (format!("/v1/invites/{code}"), request.max_uses);
        Ok(MadeInvite { id: invite.id, code, path, expires_at, max_uses })
    }

    /// The links into a group that are good.
    ///
    /// # Errors
    /// `not_member`, `forbidden`, `unavailable`.
    pub async fn invites(&self, caller: &Caller, chat: ChatId) -> Result<InviteList, WireError> {
        let items = self.store.invites(caller.user_id, chat).await;
        Ok(InviteList { items: items.map_err(|error| refusal(error, MANAGERS))? })
    }

    /// Nobody comes by this link any more.
    ///
    /// # Errors
    /// `not_member`, `forbidden`, `not_found`, `unavailable`.
    pub async fn revoke_invite(
        &self,
        caller: &Caller,
        chat: ChatId,
        invite: InviteId,
    ) -> Result<(), WireError> {
        let revoked = self.store.revoke_invite(caller.user_id, chat, invite).await;
        revoked.map_err(|error| match error {
            StoreError::NotFound => no_invite(),
            other => refusal(other, MANAGERS),
        })
    }

    /// What a link leads to.
    ///
    /// # Errors
    /// `not_found` for one that is not, or no more; `unavailable`.
    pub async fn invitation(&self, code: &str) -> Result<Invitation, WireError> {
        let found = self.store.invitation(&known_hash(code)?).await;
        found.map_err(|error| match error {
            StoreError::NotFound => no_invite(),
            other => fault::store(other),
        })
    }

    /// Makes the caller a participant by a link; one who is already stays so.
    ///
    /// # Errors
    /// `not_found` for a link that is none, or no more; `forbidden` for one who is banned;
    /// `unavailable`.
    pub async fn join(&self, caller: &Caller, code: &str) -> Result<Chat, WireError> {
        let joined = self.store.join_by_invite(caller.user_id, &known_hash(code)?).await;
        let (chat, membership) = joined.map_err(|error| match error {
            StoreError::NotFound => no_invite(),
            StoreError::Conflict(Conflict::Banned) => banned(),
            other => fault::store(other),
        })?;
        self.relay.lane_if_any(membership.lane).await;
        self.chats.get(caller, chat).await
    }
}

/// What the store's errors mean here; `why` for one whose role is not enough.
fn refusal(error: StoreError, why: &str) -> WireError {
    match error {
        StoreError::Forbidden => WireError::new(ErrorCode::Forbidden, why),
        other => fault::store(other),
    }
}

fn no_participant() -> WireError {
    WireError::new(ErrorCode::NotFound, "no participant of this chat")
}

/// The same for one that never was, has expired, is used up or was revoked.
fn no_invite() -> WireError {
    WireError::new(ErrorCode::NotFound, "there is no such invite")
}

/// A code is random and long, so no slow hash is needed.
fn hash(code: &str) -> [u8; 32] {
    Sha256::digest(code).into()
}

fn known_hash(code: &str) -> Result<[u8; 32], WireError> {
    if code.len() > CODE_MOST { Err(no_invite()) } else { Ok(hash(code)) }
}

/// A description: lines of text, without space around them, not blank.
fn described(text: &str) -> Result<String, WireError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(bad_request("description: is blank"));
    }
    if trimmed.chars().any(|c| c.is_control() && c != '\n') {
        return Err(bad_request("description: has a control character"));
    }
    Ok(trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_lines_and_nothing_else_that_is_not_seen() {
        assert_eq!(described(" About\n\nsailing \n"), Ok("About\n\nsailing".to_owned()));
        for wrong in ["", " \n ", "a\rb", "a\u{7}b", "a\u{9b}b"] {
            assert_eq!(
                described(wrong).map_err(|e| e.code),
                Err(ErrorCode::BadRequest),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn any_text_may_be_shown_as_a_code() {
        assert!(known_hash("").is_ok() && known_hash("\u{1f6f6}").is_ok());
        let long = known_hash(&"x".repeat(CODE_MOST + 1));
        assert_eq!(long.map_err(|error| error.code), Err(ErrorCode::NotFound));
    }
}
