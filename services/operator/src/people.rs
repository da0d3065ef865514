//! Whom an id, a phone number or an e-mail address names.

use natter_protocol::{ids::UserId, server::UserCard};
use natter_store::{Store, UserSearch};

use crate::outcome::Failure;

/// The user of this id, this whole phone number or this whole e-mail address.
pub(crate) async fn named(store: &Store, text: &str) -> Result<UserCard, Failure> {
    let found = if let Ok(id) = text.parse::<UserId>() {
        store.user(id).await?.map(|user| UserCard { id: user.id, name: user.name, bot: user.bot })
    } else {
        let search =
            if text.contains('@') { UserSearch::Email(text) } else { UserSearch::Phone(text) };
        store.search_users(search, 1).await?.pop()
    };
    found.ok_or_else(|| {
        Failure::refused(format!("no user has the id, phone number or e-mail address {text}"))
    })
}
