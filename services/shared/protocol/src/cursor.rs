//! How far a connection has come on all its feeds: what the wire's opaque `cursor` says.
//!
//! A node knows of each shard up to where it has delivered everything on the feeds that it
//! follows: its [`Bases`], the same for all its connections. A connection's own [`Cursor`] adds
//! what differs from that: `floors`, where it began later than the base, and `feeds`, which are
//! ahead of the base (their entries came since the last digest) or, for a chat that was added and
//! is being read, behind it. Sequences are never given twice, also not by a stream that was made
//! anew, so no epoch is needed beside them.
//!
//! As text: the bases, a dot, the rest, each base64url without padding; numbers are LEB128. The
//! first part is rendered once for all connections, the second for each.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    feed::{Feed, FeedKind},
    ids::{Seq, Shard, UserId},
};

/// Bytes of a cursor's text at most; longer ones are refused.
pub const CURSOR_BYTES: usize = 16 * 1024;
/// The text's first byte; another one is another format.
const VERSION: u8 = 1;
const SHARDS_MAX: usize = 1024;

/// Up to where everything has been delivered, for each shard from 0 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bases {
    seqs: Box<[Seq]>,
    text: Box<str>,
}

impl Bases {
    /// From one sequence for each shard.
    #[must_use]
    pub fn new(seqs: Box<[Seq]>) -> Self {
        let mut bytes = vec![VERSION];
        put(&mut bytes, seqs.len() as u64);
        for seq in &seqs {
            put(&mut bytes, *seq);
        }
        let text = URL_SAFE_NO_PAD.encode(bytes).into();
        Self { seqs, text }
    }

    /// Of one shard; 0 for one that is not among them.
    #[must_use]
    pub fn of(&self, shard: Shard) -> Seq {
        self.seqs.get(usize::from(shard)).copied().unwrap_or(0)
    }

    /// One for each shard.
    #[must_use]
    pub fn seqs(&self) -> &[Seq] {
        &self.seqs
    }

    /// The first part of a cursor's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A feed as cursors name it: half of its id, which is random, tells a user's feeds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    shard: Shard,
    tag: u64,
    seq: Seq,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    bases: Arc<Bases>,
    floors: Vec<(Shard, Seq)>,
    feeds: Vec<Place>,
}

/// A text that is no cursor of this user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It was not made by a server of this version or an earlier one.
    #[error("not a cursor")]
    Malformed,
    /// It is another user's.
    #[error("another user's cursor")]
    Foreign,
}

impl Cursor {
    /// At the bases on all feeds.
    #[must_use]
    pub fn at(bases: Arc<Bases>) -> Self {
        Self { bases, floors: Vec::new(), feeds: Vec::new() }
    }

    /// The bases that it stands on.
    #[must_use]
    pub fn bases(&self) -> &Arc<Bases> {
        &self.bases
    }

    /// The last entry of the feed that has been delivered, or that needs no delivering.
    #[must_use]
    pub fn position(&self, feed: Feed) -> Seq {
        self.explicit(feed).unwrap_or_else(|| self.level(feed.shard))
    }

    /// Whether the feed's entry `seq` has been delivered.
    #[must_use]
    pub fn covers(&self, feed: Feed, seq: Seq) -> bool {
        seq <= self.position(feed)
    }

    /// Where all feeds of the shard stand that are not named themselves.
    #[must_use]
    pub fn level(&self, shard: Shard) -> Seq {
        let floor =
            self.floors.iter().find(|(other, _)| *other == shard).map_or(0, |(_, seq)| *seq);
        floor.max(self.bases.of(shard))
    }

    /// The shard's feeds stand at `seq` at least.
    pub fn raise(&mut self, shard: Shard, seq: Seq) {
        if seq <= self.level(shard) {
            return;
        }
        self.floors.retain(|(other, _)| *other != shard);
        self.floors.push((shard, seq));
    }

    /// The feed stands at `seq`, wherever it stood.
    pub fn set(&mut self, feed: Feed, seq: Seq) {
        let tag = tag(feed);
        match self.feeds.iter_mut().find(|place| place.tag == tag) {
            Some(place) => place.seq = seq,
            None => self.feeds.push(Place { shard: feed.shard, tag, seq }),
        }
    }

    /// The feed's entry `seq` was delivered.
    pub fn advance(&mut self, feed: Feed, seq: Seq) {
        if !self.covers(feed, seq) {
            self.set(feed, seq);
        }
    }

    /// Everything up to these bases has been delivered, on all feeds, those behind included.
    pub fn rebase(&mut self, bases: &Arc<Bases>) {
        if Arc::ptr_eq(bases, &self.bases) {
            return;
        }
        self.bases = Arc::clone(bases);
        let bases = &self.bases;
        self.feeds.retain(|place| place.seq > bases.of(place.shard));
        self.floors.retain(|(shard, seq)| *seq > bases.of(*shard));
        // Most connections are quiet most of the time, and then hold nothing.
        if self.feeds.is_empty() {
            self.feeds = Vec::new();
        }
        if self.floors.is_empty() {
            self.floors = Vec::new();
        }
    }

    /// The further of the two on every feed, on the bases of `other`: for a connection that has
    /// replayed all that lay between this and `other`.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut merged =
            Self { floors: other.floors.clone(), ..Self::at(Arc::clone(&other.bases)) };
        let shards = self.bases.seqs.iter().enumerate().map(|(shard, seq)| (shard as Shard, *seq));
        for (shard, seq) in shards.chain(self.floors.iter().copied()) {
            merged.raise(shard, seq);
        }
        for &place in self.feeds.iter().chain(&other.feeds) {
            let level = merged.level(place.shard);
            match merged.feeds.iter_mut().find(|known| known.tag == place.tag) {
                Some(known) => known.seq = known.seq.max(place.seq),
                None if place.seq > level => merged.feeds.push(place),
                None => {}
            }
        }
        merged
    }

    /// The second part of the text, for a user's own connection.
    #[must_use]
    pub fn suffix(&self, owner: UserId) -> String {
        let mut bytes = Vec::with_capacity(8 + 8 * self.floors.len() + 16 * self.feeds.len());
        bytes.extend(owner_tag(owner));
        put(&mut bytes, self.floors.len() as u64);
        for (shard, seq) in &self.floors {
            put(&mut bytes, u64::from(*shard));
            put(&mut bytes, *seq);
        }
        for Place { shard, tag, seq } in &self.feeds {
            put(&mut bytes, u64::from(*shard));
            bytes.extend(tag.to_le_bytes());
            put(&mut bytes, *seq);
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self, owner: UserId) -> String {
        format!("{}.{}", self.bases.text(), self.suffix(owner))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`CursorError`] when it is none, or another user's.
    pub fn parse(text: &str, owner: UserId) -> Result<Self, CursorError> {
        let (bases, rest) = split(text).ok_or(CursorError::Malformed)?;
        let seqs = read_bases(&bases).ok_or(CursorError::Malformed)?;
        if rest.get(..4) != Some(&owner_tag(owner)) {
            return Err(CursorError::Foreign);
        }
        let mut cursor = Self::at(Arc::new(Bases::new(seqs)));
        cursor.read_rest(&rest[4..]).ok_or(CursorError::Malformed)?;
        Ok(cursor)
    }

    fn read_rest(&mut self, mut bytes: &[u8]) -> Option<()> {
        let floors = take(&mut bytes)?;
        for _ in 0..floors {
            let shard = Shard::try_from(take(&mut bytes)?).ok()?;
            self.raise(shard, take(&mut bytes)?);
        }
        while !bytes.is_empty() {
            let shard = Shard::try_from(take(&mut bytes)?).ok()?;
            let (tag, rest) = bytes.split_first_chunk()?;
            bytes = rest;
            let place = Place { shard, tag: u64::from_le_bytes(*tag), seq: take(&mut bytes)? };
            if self.feeds.iter().any(|other| other.tag == place.tag) {
                return None;
            }
            self.feeds.push(place);
        }
        Some(())
    }

    fn explicit(&self, feed: Feed) -> Option<Seq> {
        if self.feeds.is_empty() {
            return None;
        }
        let tag = tag(feed);
        self.feeds.iter().find(|place| place.tag == tag).map(|place| place.seq)
    }
}

fn tag(feed: Feed) -> u64 {
    let (_, low) = feed.id.as_u64_pair();
    // A user and a chat could have one id; their feeds are two.
    match feed.kind {
        FeedKind::Chat => low,
        FeedKind::User => low ^ (1 << 63),
    }
}

fn owner_tag(owner: UserId) -> [u8; 4] {
    let (_, low) = owner.0.as_u64_pair();
    (low as u32).to_le_bytes()
}

fn split(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    if text.len() > CURSOR_BYTES {
        return None;
    }
    let (bases, rest) = text.split_once('.')?;
    Some((URL_SAFE_NO_PAD.decode(bases).ok()?, URL_SAFE_NO_PAD.decode(rest).ok()?))
}

fn read_bases(bytes: &[u8]) -> Option<Box<[Seq]>> {
    let (VERSION, mut bytes) = bytes.split_first().map(|(version, rest)| (*version, rest))? else {
        return None;
    };
    let count = usize::try_from(take(&mut bytes)?).ok().filter(|count| *count <= SHARDS_MAX)?;
    let seqs: Option<Box<[Seq]>> = (0..count).map(|_| take(&mut bytes)).collect();
    seqs.filter(|_| bytes.is_empty())
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(first & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::ChatId;

    fn bases(seqs: &[Seq]) -> Arc<Bases> {
        Arc::new(Bases::new(seqs.into()))
    }

    #[test]
    fn what_the_bases_reach_is_named_no_more() {
        let (chat, quiet) = (Feed::chat(0, ChatId::generate()), Feed::chat(1, ChatId::generate()));
        let mut cursor = Cursor::at(bases(&[10, 5]));
        cursor.raise(1, 8);
        cursor.raise(0, 3);
        cursor.advance(chat, 12);
        assert!(cursor.covers(chat, 12) && !cursor.covers(chat, 13));
        assert_eq!((cursor.position(quiet), cursor.level(0)), (8, 10));
        cursor.rebase(&bases(&[11, 9]));
        assert_eq!((cursor.position(chat), cursor.position(quiet)), (12, 9));
        cursor.rebase(&bases(&[20, 9]));
        assert_eq!(cursor, Cursor::at(bases(&[20, 9])));
        // A chat that was added is behind until it has been read.
        cursor.set(chat, 15);
        assert!(!cursor.covers(chat, 16));
        assert_eq!(cursor.position(Feed::chat(7, ChatId::generate())), 0);
    }

    #[test]
    fn two_are_merged_to_the_further_one_of_each_feed() {
        let [a, b, c] = [0, 0, 1].map(|shard| Feed::chat(shard, ChatId::generate()));
        // From a node that knew more of shard 0 and less of shard 1.
        let mut old = Cursor::at(bases(&[100, 5]));
        old.set(a, 110);
        old.set(c, 7);
        let mut here = Cursor::at(bases(&[90, 50]));
        here.raise(0, 95);
        here.set(a, 105);
        here.set(b, 120);
        let merged = old.merged(&here);
        assert_eq!([a, b, c].map(|feed| merged.position(feed)), [110, 120, 50]);
        assert_eq!((merged.level(0), merged.level(1)), (100, 50));
        assert!(Arc::ptr_eq(merged.bases(), here.bases()));
    }

    #[test]
    fn others_cursors_are_refused() {
        let (ana, ben) = (UserId::generate(), UserId::generate());
        let text = Cursor::at(bases(&[1])).text(ana);
        assert_eq!(Cursor::parse(&text, ben), Err(CursorError::Foreign));
        for text in ["", ".", "AQ", "AQA.", &text[1..], &format!("{text}AAAA"), &"A".repeat(99_999)]
        {
            assert!(Cursor::parse(text, ana).is_err(), "{text:.40}");
        }
    }

    proptest! {
        #[test]
        fn a_text_says_what_was_written(
            seqs in prop::collection::vec(any::<u64>(), 0..17),
            floors in prop::collection::vec((0..20_u16, any::<u64>()), 0..4),
            feeds in prop::collection::vec((0..20_u16, any::<u128>(), any::<u64>()), 0..30),
            owner in any::<u128>(),
        ) {
            let owner = UserId(uuid::Uuid::from_u128(owner));
            let mut cursor = Cursor::at(bases(&seqs));
            for (shard, seq) in floors { cursor.raise(shard, seq); }
            for (shard, id, seq) in feeds { cursor.set(Feed::chat(shard, uuid::Uuid::from_u128(id).into()), seq); }
            let text = cursor.text(owner);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
            prop_assert_eq!(Cursor::parse(&text, owner), Ok(cursor));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z0-9_.-]{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let owner = UserId(uuid::Uuid::nil());
            let _ = Cursor::parse(&text, owner);
            let made = URL_SAFE_NO_PAD.encode([&[0, 0, 0, 0][..], &bytes].concat());
            let _ = Cursor::parse(&format!("{}.{made}", URL_SAFE_NO_PAD.encode(&bytes)), owner);
            let _ = Cursor::parse(&format!("AQEF.{made}"), owner);
        }
    }
}
