//! What became of a message's notifications, as its sender is told, too.

use natter_protocol::{
    ids::MessageId,
    notify::{Delivery, DeliveryPage},
};
use natter_store::{DeliveryCursor, Store};

use crate::{
    outcome::Failure,
    text::{Table, moment},
};

const HEADING: [&str; 7] = ["NOTIFIED", "DEVICE", "BY", "STATE", "WHY", "WHEN", "ANSWER"];

/// Of so many recipients and devices.
///
/// # Errors
/// When Postgres does not answer.
pub(crate) async fn of(
    store: &Store,
    message: MessageId,
    most: u32,
) -> Result<DeliveryPage, Failure> {
    Ok(store.deliveries(message, DeliveryCursor::default(), most).await?)
}

/// As a table; nothing where nothing was decided.
pub(crate) fn shown(page: &DeliveryPage) -> String {
    if let Some(reason) = page.reason {
        return format!("\nnobody was notified: {}\n", reason.as_str());
    }
    if page.items.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&HEADING);
    for item in &page.items {
        table.row(cells(item));
    }
    let more = if page.next_cursor.is_some() { "and more recipients\n" } else { "" };
    let undecided = if page.decided { "" } else { "it is still being decided about others\n" };
    format!("\n{table}{more}{undecided}")
}

fn cells(item: &Delivery) -> [String; 7] {
    let tries = match item.attempts {
        0 | 1 => String::new(),
        attempts => format!(", {attempts} tries"),
    };
    let when = item.ended_at.or(item.attempted_at).unwrap_or(item.decided_at);
    [
        format!("{} {}", item.user.id, item.user.name),
        item.device_id.map_or_else(String::new, |device| device.to_string()),
        item.provider.map_or_else(String::new, |provider| provider.to_string()),
        format!("{}{tries}", item.state.as_str()),
        item.reason.map_or_else(String::new, |reason| reason.as_str().to_owned()),
        moment(when),
        item.answer.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use natter_protocol::{
        ids::{DeviceId, UserId},
        notify::{PushReason, PushState},
        push::Provider,
        server::UserCard,
    };
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn each_recipient_has_a_line_that_says_why() {
        let user = UserCard { id: UserId::generate(), name: "Ben\u{1b}[2J".to_owned(), bot: false };
        let skipped = Delivery {
            user,
            device_id: None,
            provider: None,
            state: PushState::Skipped,
            reason: Some(PushReason::Muted),
            decided_at: OffsetDateTime::UNIX_EPOCH,
            attempts: 0,
            attempted_at: None,
            next_at: None,
            ended_at: None,
            answer: None,
        };
        let sent = Delivery {
            device_id: Some(DeviceId::generate()),
            provider: Some(Provider::WebPush),
            state: PushState::Delivered,
            reason: None,
            attempts: 3,
            answer: Some("201 Created".to_owned()),
            ..skipped.clone()
        };
        let page = DeliveryPage {
            message_id: MessageId::generate(),
            decided: true,
            reason: None,
            items: vec![skipped, sent],
            next_cursor: None,
        };
        let text = shown(&page);
        let lines: Vec<&str> = text.trim().lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].contains("muted") && !text.contains('\u{1b}'), "{text}");
        assert!(lines[2].contains("delivered, 3 tries") && lines[2].contains("201"), "{text}");
        let taken_back = DeliveryPage { reason: Some(PushReason::Deleted), items: vec![], ..page };
        assert!(shown(&taken_back).contains("deleted"));
    }
}
