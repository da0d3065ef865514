//! Dead letters that an operator wants to be told of after all: what they say is still in the stream.

use natter_bus::{Bus, BusError, Hooked};
use natter_outbound::Outcome;
use natter_runtime::causes;
use natter_store::{LaneKey, StoreError, WebhookLetter};
use time::Duration;

use crate::{
    lane::Parts,
    measures,
    target::{Target, event_id},
};

/// Letters of one turn.
const TOGETHER: u32 = 16;
/// Of a time in Postgres.
const PRECISION: Duration = Duration::microseconds(1);

/// Tells of a lane's letters, one after the other, oldest first. Those that fail stay, and are not tried
/// again by themselves.
pub(crate) async fn replay(target: &Target, parts: &Parts, lane: LaneKey) {
    if let Err(error) = turn(target, parts, lane).await {
        measures::failures().increment(1);
        let name = &target.endpoint.name;
        tracing::warn!(endpoint = %name, error = %causes(&error), "dead letters cannot be replayed");
    }
}

async fn turn(target: &Target, parts: &Parts, lane: LaneKey) -> Result<(), StoreError> {
    for letter in parts.store.letters_to_replay(lane, TOGETHER).await? {
        let Ok(_place) = target.shared.places.acquire().await else { return Ok(()) };
        let said = tell(target, parts, &letter).await;
        match said {
            Ok(()) => parts.store.letter_told(letter.id).await?,
            Err(answer) => parts.store.letter_refused(letter.id, &answer).await?,
        }
    }
    Ok(())
}

async fn tell(target: &Target, parts: &Parts, letter: &WebhookLetter) -> Result<(), String> {
    let event = match find(&parts.bus, letter).await {
        Ok(Some(event)) => event,
        Ok(None) => return Err("the event is not kept any longer".to_owned()),
        Err(error) => return Err(causes(&error).to_string()),
    };
    match target.tell(&event).await {
        None | Some(Outcome::Accepted { .. }) => Ok(()),
        Some(outcome) => Err(outcome.answer().as_str().to_owned()),
    }
}

/// A letter's event: at its place, or, where the stream has lost its end since and another event stands there,
/// wherever it was put when the stream was filled again.
async fn find(bus: &Bus, letter: &WebhookLetter) -> Result<Option<Hooked>, BusError> {
    let it = |event: &Hooked| event_id(event.feed, &event.name) == letter.of.event_id;
    let at_its_place = bus.hooked(letter.shard, letter.of.seq).await?;
    if at_its_place.as_ref().is_some_and(it) {
        return Ok(at_its_place);
    }
    let (since, until) = (letter.of.at - PRECISION, letter.of.at + PRECISION);
    let mut from = bus.hooked_since(letter.shard, since).await?;
    while let Some(event) = bus.next_hooked(letter.of.feed, from).await? {
        if it(&event) {
            return Ok(Some(event));
        }
        if event.at > until {
            break;
        }
        from = event.seq + 1;
    }
    Ok(None)
}
