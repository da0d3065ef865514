//! REST, told by its client: a gateway on real servers, and requests over its socket.

mod accounts;
mod bad_input;
mod chats;
mod documents;
mod limits;
mod messages;
mod outside;
mod server;
mod support;
