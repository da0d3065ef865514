//! Push: where devices are notified, what their users want, what was decided about a message, and what
//! became of each notification.
//!
//! | module | holds |
//! |---|---|
//! | `targets` | where a device is notified; which push services there are |
//! | `settings` | what a user wants to be notified of |
//! | `deciding` | a page of a message's recipients, and what was decided about them |
//! | `sending` | notifications taken, and what became of them |
//! | `explain` | all of that, for whoever asks about a message |
//! | `upkeep` | what is too old |

mod deciding;
mod explain;
mod sending;
mod settings;
mod targets;
mod upkeep;

pub use deciding::{Decided, NewPush, PUSH_PAGE, PushProgress, Recipient, RecipientTarget};
pub use explain::DeliveryCursor;
pub use sending::{About, Attempted, Claimed, Ended, PushKey, ToSend};
pub use targets::PushTest;
pub use upkeep::OpenPush;

use natter_protocol::{notify::PushReason, push::Provider};

/// A reason as `push_decisions` has it: one byte.
fn letter(reason: PushReason) -> i8 {
    let letter = match reason {
        PushReason::Sender => b's',
        PushReason::Online => b'o',
        PushReason::Read => b'r',
        PushReason::Muted => b'm',
        PushReason::Blocked => b'b',
        PushReason::Quiet => b'q',
        PushReason::NoTarget => b'n',
        PushReason::TooOld => b't',
        PushReason::Collapsed => b'c',
        PushReason::Deleted => b'd',
        PushReason::Left => b'l',
        PushReason::Unregistered => b'u',
        PushReason::Attempts => b'a',
    };
    letter.cast_signed()
}

/// What such a byte means.
fn reason(byte: i8) -> Option<PushReason> {
    PushReason::MEANINGS.iter().map(|(reason, _)| *reason).find(|known| letter(*known) == byte)
}

/// A push service by its word.
fn provider(word: &str) -> Option<Provider> {
    Provider::MEANINGS.iter().map(|(provider, _)| *provider).find(|known| known.as_str() == word)
}

/// Push services by their words.
fn words(providers: &[Provider]) -> Vec<&'static str> {
    providers.iter().map(|provider| provider.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_letter_of_its_own() {
        for (known, _) in PushReason::MEANINGS {
            assert_eq!(reason(letter(*known)), Some(*known));
        }
        for (known, _) in Provider::MEANINGS {
            assert_eq!(provider(known.as_str()), Some(*known));
        }
    }
}
