//! Providers against services that verify what real ones would.

mod answers;
mod apns;
mod bounds;
mod fcm;
mod payloads;
mod strange;
mod support;
mod tls;
mod web_push;
mod webhook;
