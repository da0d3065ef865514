//! Notifications, told with push services that verify what real ones would.

mod attempts;
mod browser;
mod crashes;
mod crowds;
mod rest;
mod support;
mod webhooks;
mod who;
