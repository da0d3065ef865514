//! Dead letters that an operator wants to be told of after all: what they say is still in the stream.

use natter_outbound::Outcome;
use natter_runtime::causes;
use natter_store::{LaneKey, StoreError, WebhookLetter};

use crate::{lane::Parts, measures, target::Target};

/// Letters of one turn.
const TOGETHER: u32 = 16;

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
    let event = match parts.bus.hooked(letter.shard, letter.of.seq).await {
        Ok(Some(event)) => event,
        Ok(None) => return Err("the event is not kept any longer".to_owned()),
        Err(error) => return Err(causes(&error).to_string()),
    };
    match target.tell(&event).await {
        None | Some(Outcome::Accepted { .. }) => Ok(()),
        Some(outcome) => Err(outcome.answer().as_str().to_owned()),
    }
}
