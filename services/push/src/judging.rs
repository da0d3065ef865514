//! Whether somebody is notified of a message, and if not, why.

use natter_protocol::{
    ids::{Seq, UserId},
    notify::PushReason,
};
use natter_store::Recipient;

/// A message, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Its place in the chat's feed.
    pub seq: Seq,
    /// Who sent it.
    pub sender: UserId,
    /// Whom it names.
    pub mentions: &'a [UserId],
}

/// What is decided about one message and one participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They came in later: it is not for them.
    Stranger,
    /// They are not notified.
    Skip(PushReason),
    /// They are, on all devices that have registered.
    Notify {
        /// The message names them.
        mentioned: bool,
    },
}

/// Decides about a chat's messages that are due together, in the order of the feed, for somebody who is
/// connected or not. Of several that would be notified of, the newest one is: the verdicts are in the
/// messages' order.
#[must_use]
pub fn judge(who: &Recipient, online: bool, said: &[Said<'_>]) -> Vec<Verdict> {
    let mut notified = false;
    let mut verdicts: Vec<Verdict> = said
        .iter()
        .rev()
        .map(|said| {
            let verdict = alone(who, online, said);
            if !matches!(verdict, Verdict::Notify { .. }) {
                return verdict;
            }
            if notified {
                return Verdict::Skip(PushReason::Collapsed);
            }
            notified = true;
            verdict
        })
        .collect();
    verdicts.reverse();
    verdicts
}

fn alone(who: &Recipient, online: bool, said: &Said<'_>) -> Verdict {
    if who.from_seq.is_none_or(|from| from > said.seq) {
        return Verdict::Stranger;
    }
    let mentioned = said.mentions.contains(&who.user);
    let muted = who.muted && !(mentioned && who.mentions_through_mute);
    let reasons = [
        (said.sender == who.user, PushReason::Sender),
        (who.blocked.contains(&said.sender), PushReason::Blocked),
        (who.read_seq >= said.seq, PushReason::Read),
        (muted, PushReason::Muted),
        (online, PushReason::Online),
        (who.quiet, PushReason::Quiet),
        (who.targets.is_empty(), PushReason::NoTarget),
    ];
    match reasons.into_iter().find(|(holds, _)| *holds) {
        Some((_, reason)) => Verdict::Skip(reason),
        None => Verdict::Notify { mentioned },
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::{ids::DeviceId, push::Provider};
    use natter_store::RecipientTarget;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn somebody() -> Recipient {
        let target = RecipientTarget {
            device: DeviceId::generate(),
            provider: Provider::WebPush,
            id: Uuid::nil(),
        };
        Recipient {
            user: UserId::generate(),
            from_seq: Some(10),
            read_seq: 10,
            muted: false,
            mentions_through_mute: true,
            quiet: false,
            blocked: Vec::new(),
            targets: vec![target],
        }
    }

    #[test]
    fn each_reason_by_itself() {
        let (who, ada) = (somebody(), UserId::generate());
        let names = [who.user];
        let said = Said { seq: 20, sender: ada, mentions: &[] };
        let one = |who: &Recipient, online, said: Said<'_>| judge(who, online, &[said])[0];
        let notify = Verdict::Notify { mentioned: false };
        let skip = Verdict::Skip;
        assert_eq!(one(&who, false, said), notify);
        assert_eq!(one(&who, true, said), skip(PushReason::Online));
        assert_eq!(one(&who, false, Said { seq: 9, ..said }), Verdict::Stranger);
        assert_eq!(one(&who, false, Said { sender: who.user, ..said }), skip(PushReason::Sender));
        let read = Recipient { read_seq: 20, ..who.clone() };
        assert_eq!(one(&read, false, said), skip(PushReason::Read));
        let quiet = Recipient { quiet: true, ..who.clone() };
        assert_eq!(one(&quiet, false, said), skip(PushReason::Quiet));
        let blocks = Recipient { blocked: vec![ada], ..who.clone() };
        assert_eq!(one(&blocks, false, said), skip(PushReason::Blocked));
        let nowhere = Recipient { targets: Vec::new(), ..who.clone() };
        assert_eq!(one(&nowhere, false, said), skip(PushReason::NoTarget));
        let unknown = Recipient { from_seq: None, ..who.clone() };
        assert_eq!(one(&unknown, false, said), Verdict::Stranger);

        let muted = Recipient { muted: true, ..who.clone() };
        let named = Said { mentions: &names, ..said };
        assert_eq!(one(&muted, false, said), skip(PushReason::Muted));
        assert_eq!(one(&muted, false, named), Verdict::Notify { mentioned: true });
        let deaf = Recipient { mentions_through_mute: false, ..muted };
        assert_eq!(one(&deaf, false, named), skip(PushReason::Muted));
    }

    #[test]
    fn a_mention_that_is_older_is_notified_of_where_the_newer_ones_are_not() {
        let muted = Recipient { muted: true, ..somebody() };
        let (ada, names) = (UserId::generate(), [muted.user]);
        let named = Said { seq: 20, sender: ada, mentions: &names };
        let plain = Said { seq: 21, sender: ada, mentions: &[] };
        let verdicts = judge(&muted, false, &[named, plain]);
        assert_eq!(
            verdicts,
            [Verdict::Notify { mentioned: true }, Verdict::Skip(PushReason::Muted)]
        );
    }

    proptest! {
        #[test]
        fn of_messages_that_are_due_together_one_is_notified_of_and_no_newer_one_would_be(
            muted: bool, quiet: bool, online: bool, read in 0_u64..40, from in 0_u64..40,
            of in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..12),
        ) {
            let who = Recipient { muted, quiet, read_seq: read, from_seq: Some(from), ..somebody() };
            let (ada, names) = (UserId::generate(), [who.user]);
            let said: Vec<Said<'_>> = (10..).zip(&of).map(|(seq, (own, named))| Said {
                seq,
                sender: if *own { who.user } else { ada },
                mentions: if *named { &names } else { &[] },
            }).collect();
            let verdicts = judge(&who, online, &said);
            prop_assert_eq!(verdicts.len(), said.len());
            let notified: Vec<usize> = (0..said.len())
                .filter(|at| matches!(verdicts[*at], Verdict::Notify { .. })).collect();
            prop_assert!(notified.len() <= 1);
            let newest = (0..said.len())
                .rfind(|at| matches!(alone(&who, online, &said[*at]), Verdict::Notify { .. }));
            prop_assert_eq!(notified.first().copied(), newest);
        }
    }
}
