//! All stories, as one program: many wait for servers, or for the stage that another is told on, and others
//! are told meanwhile. `cargo test -p natter-e2e --test e2e push::` tells those of one theme.

mod clusters;
mod health;
mod k6;
mod nemesis;
mod push;
mod socketio;
mod stories;
