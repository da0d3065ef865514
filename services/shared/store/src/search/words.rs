//! Text as words that can be compared, in any language: the same for what is written and for what
//! is searched.
//!
//! - Letters and digits make words; everything else is between them. Case, accents and the
//!   vowel signs of Hebrew and Arabic do not count.
//! - Scripts that put no spaces between words (Chinese, Japanese, Thai, …) give each pair of
//!   neighbouring characters, and the last one alone: whatever part of a text is searched is a row
//!   of such pairs, or the beginning of one.
//! - An emoji is a word. Its skin tone does not count, and one that is joined of several gives each.

use std::ops::Range;

use natter_protocol::{limits, rest::Highlight};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Characters of a word that count.
const WORD_CHARS: usize = 64;
/// Characters from which a word is found by its beginning: of the last word, which may not be at
/// its end yet, and of any other. A beginning that is shorter is that of too many words.
const LAST_PREFIX: usize = 2;
const PREFIX: usize = 4;
/// Characters of words that may be mistyped. Longer ones are no words that somebody types.
const LIKE: Range<usize> = 4..33;
/// Places of one word in a text that are kept.
const PLACES: usize = 16;

/// A word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// As it is compared.
    pub(crate) word: String,
    /// Where it is, in UTF-16 code units.
    at: Range<u32>,
    /// Where its first character ends.
    first: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    /// A pair of characters, or one, of text without spaces; the number tells which text.
    Dense(u32),
    Emoji,
}

/// Why a text cannot be searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// It is longer than may be.
    #[error("more than {} characters", limits::SEARCH_CHARS)]
    TooLong,
    /// It has more words than may be.
    #[error("more than {} words", limits::SEARCH_WORDS)]
    TooMany,
    /// There is nothing to search for.
    #[error("no letter, digit or emoji")]
    None,
}

/// What is searched for: all of these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(Vec<Term>);

/// A word that is searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) word: String,
    /// Words that begin so do too.
    prefix: bool,
    /// It may be mistyped.
    pub(crate) may_be_like: bool,
    /// Known words that are like it.
    pub(crate) like: Vec<String>,
}

impl Words {
    /// What somebody has typed. Nothing in it is an operator.
    ///
    /// # Errors
    /// [`WordsError`].
    pub fn parse(text: &str) -> Result<Self, WordsError> {
        if text.chars().nth(limits::SEARCH_CHARS).is_some() {
            return Err(WordsError::TooLong);
        }
        let tokens = tokens(text);
        let mut runs: Vec<Kind> = tokens.iter().map(|token| token.kind).collect();
        runs.dedup_by(|a, b| a == b && matches!(a, Kind::Dense(_)));
        if runs.len() > limits::SEARCH_WORDS {
            return Err(WordsError::TooMany);
        }
        let mut terms: Vec<Term> = Vec::new();
        let last = tokens.len().wrapping_sub(1);
        for (n, token) in tokens.iter().enumerate() {
            let chars = token.word.chars().count();
            let prefix = match token.kind {
                Kind::Emoji => false,
                Kind::Dense(run) => {
                    // The last character alone is in the pair before.
                    let before = n.checked_sub(1).and_then(|n| tokens.get(n));
                    if chars == 1 && before.is_some_and(|before| before.kind == Kind::Dense(run)) {
                        continue;
                    }
                    chars == 1
                }
                Kind::Word => chars >= if n == last { LAST_PREFIX } else { PREFIX },
            };
            if let Some(same) = terms.iter_mut().find(|term| term.word == token.word) {
                same.prefix |= prefix;
                continue;
            }
            terms.push(Term {
                word: token.word.clone(),
                prefix,
                may_be_like: may_be_like(token),
                like: Vec::new(),
            });
        }
        if terms.is_empty() { Err(WordsError::None) } else { Ok(Self(terms)) }
    }

    pub(crate) fn terms_mut(&mut self) -> impl Iterator<Item = &mut Term> {
        self.0.iter_mut()
    }

    /// As Postgres reads a query.
    pub(crate) fn query(&self) -> String {
        let terms: Vec<String> = self.0.iter().map(Term::query).collect();
        terms.join(" & ")
    }

    /// Where a text has them.
    pub(crate) fn highlights(&self, text: &str) -> Vec<Highlight> {
        let mut found: Vec<Highlight> = Vec::new();
        for token in tokens(text) {
            let Some(end) = self.0.iter().filter_map(|term| term.reaches(&token)).max() else {
                continue;
            };
            let start = token.at.start;
            match found.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => found.push(Highlight { start, end }),
            }
        }
        found
    }
}

impl Term {
    fn query(&self) -> String {
        let prefix = if self.prefix { ":*" } else { "" };
        let own = format!("{}{prefix}", quoted(&self.word));
        if self.like.is_empty() {
            return own;
        }
        let like: Vec<String> = self.like.iter().map(|word| quoted(word)).collect();
        format!("({own} | {})", like.join(" | "))
    }

    /// Up to where a word of a text is this one.
    fn reaches(&self, token: &Token) -> Option<u32> {
        if token.word == self.word || self.like.contains(&token.word) {
            return Some(token.at.end);
        }
        let begins = self.prefix && token.word.starts_with(&self.word);
        begins.then_some(if matches!(token.kind, Kind::Dense(_)) {
            token.first
        } else {
            token.at.end
        })
    }
}

/// A word as Postgres reads one, whatever it has in it.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\\', r"\\").replace('\'', "''"))
}

/// A text as Postgres reads a `tsvector`, with these words besides, which have no place in it.
pub(crate) fn vector(tokens: &[Token], besides: impl Iterator<Item = String>) -> String {
    let mut words: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for (place, token) in (1..).zip(tokens) {
        let n = *known.entry(token.word.as_str()).or_insert_with(|| {
            words.push((&token.word, Vec::new()));
            words.len() - 1
        });
        if let Some((_, places)) = words.get_mut(n)
            && places.len() < PLACES
        {
            places.push(place);
        }
    }
    let mut vector = String::new();
    for (word, places) in words {
        vector.push_str(&quoted(word));
        for (n, place) in places.iter().enumerate() {
            vector.push(if n == 0 { ':' } else { ',' });
            vector.push_str(&place.to_string());
        }
        vector.push(' ');
    }
    for word in besides {
        vector.push_str(&quoted(&word));
        vector.push(' ');
    }
    vector
}

/// Whether somebody may mistype it: a word of letters, neither short nor long.
pub(crate) fn may_be_like(token: &Token) -> bool {
    token.kind == Kind::Word
        && LIKE.contains(&token.word.chars().count())
        && !token.word.chars().any(char::is_numeric)
}

/// What a character is.
enum Class {
    Letter,
    Dense,
    Emoji,
    /// Two of them make a flag.
    Flag,
    /// Belongs to what stands before it, and says nothing by itself.
    Attached,
    Between,
}

fn class(c: char) -> Class {
    match c {
        // Marks of emoji, and invisible joints.
        '\u{ad}'
        | '\u{200c}'
        | '\u{200d}'
        | '\u{2060}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{20e3}'
        | '\u{1f3fb}'..='\u{1f3ff}'
        | '\u{e0020}'..='\u{e007f}' => Class::Attached,
        '\u{1f1e6}'..='\u{1f1ff}' => Class::Flag,
        '\u{1f000}'..='\u{1faff}'
        | '\u{2600}'..='\u{27bf}'
        | '\u{2b00}'..='\u{2bff}'
        | '\u{2300}'..='\u{23ff}'
        | '\u{3297}'
        | '\u{3299}' => Class::Emoji,
        _ if is_dense(c) => Class::Dense,
        _ if is_dropped(c) => Class::Attached,
        _ if c.is_alphanumeric() || is_combining_mark(c) => Class::Letter,
        _ => Class::Between,
    }
}

/// Of a script that puts no spaces between words.
fn is_dense(c: char) -> bool {
    let in_script = matches!(c,
        // Thai, Lao, Tibetan's are spaced by marks; Burmese, Khmer.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        // Kana, Bopomofo, ideographs, their compatible forms, and those of the higher planes.
        | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{3105}'..='\u{312f}'
        | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9f}' | '\u{20000}'..='\u{3ffff}');
    in_script && !c.is_numeric() && (c.is_alphanumeric() || is_combining_mark(c))
}

/// Marks that do not count: accents, and the points of Hebrew and Arabic.
fn is_dropped(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}'
        | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}'
        | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e4}' | '\u{6e7}' | '\u{6e8}' | '\u{6ea}'..='\u{6ed}')
}

/// Letters that are spelled with others where a keyboard lacks them.
fn spelled(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' | 'ẞ' => "ss",
        'æ' | 'Æ' => "ae",
        'œ' | 'Œ' => "oe",
        'ø' | 'Ø' => "o",
        'ł' | 'Ł' => "l",
        'đ' | 'Đ' | 'ð' | 'Ð' => "d",
        'ı' => "i",
        'ς' => "σ",
        _ => return None,
    })
}

/// Adds a letter as it is compared, up to so many characters of the word.
fn push_folded(word: &mut String, chars: &mut usize, c: char) {
    let mut push = |c: char| {
        if *chars < WORD_CHARS && !is_dropped(c) && (c.is_alphanumeric() || is_combining_mark(c)) {
            word.push(c);
            *chars += 1;
        }
    };
    // The common case by itself: it is most of all text.
    if c.is_ascii() {
        push(c.to_ascii_lowercase());
        return;
    }
    for c in std::iter::once(c).nfkd() {
        match spelled(c) {
            Some(letters) => letters.chars().for_each(&mut push),
            None => c.to_lowercase().for_each(&mut push),
        }
    }
}

/// The words of a text, in their order.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader::default();
    for c in text.chars() {
        reader.read(c);
    }
    reader.end_word();
    reader.end_run();
    reader.tokens
}

#[derive(Default)]
struct Reader {
    tokens: Vec<Token>,
    /// How far it is read, in UTF-16 code units.
    at: u32,
    /// The word that is being read.
    word: Option<Token>,
    chars: usize,
    /// Characters of a text without spaces, each with where it is.
    run: Vec<(String, Range<u32>)>,
    runs: u32,
    /// Half of a flag.
    flag: Option<char>,
}

impl Reader {
    fn read(&mut self, c: char) {
        let at = self.at..self.at + c.len_utf16() as u32;
        self.at = at.end;
        let half = self.flag.take();
        match class(c) {
            Class::Letter => {
                self.end_run();
                let word = self.word.get_or_insert_with(|| {
                    self.chars = 0;
                    Token { word: String::new(), at: at.clone(), first: at.end, kind: Kind::Word }
                });
                push_folded(&mut word.word, &mut self.chars, c);
                word.at.end = at.end;
            }
            Class::Dense => {
                self.end_word();
                let folded: String = std::iter::once(c).nfkc().collect();
                self.run.push((folded, at));
            }
            Class::Emoji => self.push_emoji(c.to_string(), at),
            Class::Flag => {
                if let Some(half) = half {
                    let flag = String::from_iter([half, c]);
                    self.push_emoji(flag, at.start - 2..at.end);
                } else {
                    self.end_word();
                    self.end_run();
                    self.flag = Some(c);
                }
            }
            Class::Attached => {
                // Within a word it keeps that together.
                if let Some(word) = &mut self.word {
                    word.at.end = at.end;
                } else if self.run.is_empty()
                    && let Some(last) = self.tokens.last_mut()
                    && last.kind == Kind::Emoji
                    && last.at.end == at.start
                {
                    last.at.end = at.end;
                }
            }
            Class::Between => {
                self.end_word();
                self.end_run();
            }
        }
    }

    fn push_emoji(&mut self, word: String, at: Range<u32>) {
        self.end_word();
        self.end_run();
        let first = at.end;
        self.tokens.push(Token { word, at, first, kind: Kind::Emoji });
    }

    fn end_word(&mut self) {
        // Of some letters nothing is left.
        self.tokens.extend(self.word.take().filter(|token| !token.word.is_empty()));
    }

    fn end_run(&mut self) {
        if self.run.is_empty() {
            return;
        }
        self.runs += 1;
        let kind = Kind::Dense(self.runs);
        let run = std::mem::take(&mut self.run);
        for (n, (c, at)) in run.iter().enumerate() {
            let token = match run.get(n + 1) {
                Some((next, end)) => {
                    Token { word: format!("{c}{next}"), at: at.start..end.end, first: at.end, kind }
                }
                None => Token { word: c.clone(), at: at.clone(), first: at.end, kind },
            };
            self.tokens.push(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|token| token.word).collect()
    }

    fn query(text: &str) -> Result<String, WordsError> {
        Words::parse(text).map(|words| words.query())
    }

    /// What of a text is marked.
    fn marked(search: &str, text: &str) -> Vec<String> {
        let units: Vec<u16> = text.encode_utf16().collect();
        let words = Words::parse(search).expect("there are words");
        let ranges = words.highlights(text).into_iter();
        ranges
            .map(|Highlight { start, end }| {
                String::from_utf16(&units[start as usize..end as usize]).expect("whole characters")
            })
            .collect()
    }

    #[test]
    fn words_are_compared_without_case_and_accents() {
        assert_eq!(words("Zoë's CAFÉ, straße—№5!"), ["zoe", "s", "cafe", "strasse", "5"]);
        assert_eq!(words("e\u{301}te\u{301}"), ["ete"]);
        assert_eq!(words("ＡＢＣ ﬁne x²"), ["abc", "fine", "x2"]);
        assert_eq!(words("ΣΟΦΟΣ σοφός"), ["σοφοσ", "σοφοσ"]);
        assert_eq!(words("İstanbul ıslak"), ["istanbul", "islak"]);
        assert_eq!(words("snake_case a-b it\u{ad}em"), ["snake", "case", "a", "b", "item"]);
        // Right to left, with and without points.
        assert_eq!(words("שָׁלוֹם עולם"), words("שלום עולם"));
        assert_eq!(words("مُحَمَّد أحمد"), words("محمد احمد"));
        // Marks that are part of a word stay.
        assert_eq!(words("हिन्दी भाषा").len(), 2);
        assert_eq!(words("x".repeat(100).as_str()), ["x".repeat(WORD_CHARS)]);
        assert!(words("\u{300} — ' \" & | ! ( ) : * \\").is_empty());
    }

    #[test]
    fn text_without_spaces_is_found_by_any_part() -> Result<(), WordsError> {
        assert_eq!(words("東京都"), ["東京", "京都", "都"]);
        assert_eq!(query("東京都")?, "'東京' & '京都'");
        assert_eq!(query("都")?, "'都':*");
        assert_eq!(words("ｶﾞ and สวัสดี").last().map(String::as_str), Some("ี"));
        assert_eq!(marked("京都", "東京都へ"), ["京都"]);
        assert_eq!(marked("東", "東京"), ["東"]);
        assert_eq!(marked("東京都", "in 東京都へ"), ["東京都"]);
        Ok(())
    }

    #[test]
    fn emoji_are_words() -> Result<(), WordsError> {
        assert_eq!(words("ok👍🏽 🇩🇪🇫🇷 👩‍💻❤️"), ["ok", "👍", "🇩🇪", "🇫🇷", "👩", "💻", "❤"]);
        assert_eq!(query("👍🏿")?, "'👍'");
        assert_eq!(marked("👍", "well 👍🏽👍 done"), ["👍🏽👍"]);
        assert_eq!(marked("💻", "👩‍💻"), ["💻"]);
        // Half a flag is nothing.
        assert!(words("🇩").is_empty());
        Ok(())
    }

    #[test]
    fn nothing_is_an_operator() -> Result<(), WordsError> {
        assert_eq!(query("boat & !harbour | (x:*)")?, "'boat':* & 'harbour':* & 'x'");
        assert_eq!(query("'; DROP TABLE messages; --")?, "'drop':* & 'table':* & 'messages':*");
        assert_eq!(query(r"it''s \ o'clock")?, "'it' & 's' & 'o' & 'clock':*");
        assert_eq!(query("to be to")?, "'to':* & 'be'");
        assert_eq!(query("#abc @def ^x !image")?, "'abc' & 'def' & 'x' & 'image':*");
        assert_eq!(query(" \t…?! "), Err(WordsError::None));
        assert_eq!(query(&"x".repeat(limits::SEARCH_CHARS + 1)), Err(WordsError::TooLong));
        assert_eq!(query(&"x ".repeat(limits::SEARCH_WORDS + 1)), Err(WordsError::TooMany));
        // One word, however many pairs it has.
        assert!(query(&"字".repeat(limits::SEARCH_WORDS * 2)).is_ok());
        Ok(())
    }

    #[test]
    fn marks_cover_whole_words_in_utf16() {
        assert_eq!(marked("boat har", "𝒳 boats in the HARBOURS"), ["boats", "HARBOURS"]);
        assert_eq!(marked("cafe", "Un Cafe\u{301}!"), ["Cafe\u{301}"]);
        let words = Words::parse("b").expect("a word");
        assert_eq!(words.highlights("😀b"), [Highlight { start: 2, end: 3 }]);
        assert_eq!(words.highlights(""), []);
    }

    #[test]
    fn a_vector_has_places_and_words_besides() {
        let vector = vector(&tokens("a b a"), ["#1".to_owned()].into_iter());
        assert_eq!(vector, "'a':1,3 'b':2 '#1' ");
    }

    proptest! {
        /// Each word of a text finds the text, and marks lie inside it, at whole characters.
        #[test]
        fn a_text_is_found_by_each_of_its_words(text in "\\PC{0,60}") {
            let units: Vec<u16> = text.encode_utf16().collect();
            for token in tokens(&text) {
                prop_assert!(!token.word.is_empty());
                let part = &units[token.at.start as usize..token.at.end as usize];
                let part = String::from_utf16(part).expect("whole characters");
                let Ok(words) = Words::parse(&part) else { continue };
                let marks = words.highlights(&text);
                prop_assert!(
                    marks.iter().any(|mark| mark.start <= token.at.start && token.at.start < mark.end),
                    "{:?} in {:?}: {:?}", part, text, marks
                );
                prop_assert!(marks.is_sorted_by(|a, b| a.end < b.start));
                prop_assert!(marks.iter().all(|mark| mark.end as usize <= units.len()));
            }
        }

        #[test]
        fn no_text_gives_a_query_with_operators_of_its_own(text in "[ '\"\\\\&|!():*<>a-c😀字#@^]{0,40}") {
            if let Ok(words) = Words::parse(&text) {
                let query = words.query();
                for part in query.split(" & ") {
                    let word = part.strip_suffix(":*").unwrap_or(part);
                    let word = word.strip_prefix('\'').and_then(|word| word.strip_suffix('\''));
                    prop_assert!(word.is_some_and(|word| !word.contains(['\'', '\\', ' '])), "{}", query);
                }
            }
        }
    }
}
