//! The pause before the next try.

use std::time::Duration;

/// The longest pause between two tries.
pub const LONGEST: Duration = Duration::from_mins(15);

/// After the try of this number, counted from 1: twice as long each time, up to [`LONGEST`]. `luck`, 0 to
/// 1, spreads it, so that what has failed together does not come together again.
#[must_use]
pub fn pause(first: Duration, attempt: u16, luck: f64) -> Duration {
    let doubled = u32::from(attempt.saturating_sub(1)).min(16);
    let longest = first.saturating_mul(1 << doubled).min(LONGEST);
    longest.mul_f64(0.5 + 0.5 * luck)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let first = Duration::from_secs(4);
        assert_eq!(pause(first, 1, 1.0), first);
        assert_eq!(pause(first, 1, 0.0), first / 2);
        assert_eq!(pause(first, 3, 1.0), first * 4);
        assert_eq!(pause(first, 60_000, 1.0), LONGEST);
    }
}
