//! Push: whoever is offline hears of it, once.
//!
//! | module | holds |
//! |---|---|
//! | [`providers`] | Web Push, FCM, APNs and the webhook: one notice to one device |

pub mod providers;
