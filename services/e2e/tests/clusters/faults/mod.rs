//! What is told while servers fail, one after the other. Each theme has clusters of its own, and
//! waits for them most of the time, so the themes go on beside each other.

mod losses;
mod outages;
mod restarts;
mod shut;
