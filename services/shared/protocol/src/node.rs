//! What an operator asks of all nodes at once, and what each answers. At most once, and read by
//! nodes of the version before: one that does not know the question does not answer it.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, UserId};

/// Asked of every gateway and worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeQuestion {
    /// To say what it is; answered with a [`NodeDescription`].
    Describe,
    /// To end the connections of a device, which may come back at once; answered by gateways, with a
    /// [`NodeAnswer`].
    #[serde(rename_all = "camelCase")]
    CloseDevice {
        /// Whose it is.
        user_id: UserId,
        /// Which.
        device_id: DeviceId,
    },
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    /// Terminates sockets and REST.
    Gateway,
    /// Writes feeds to Postgres, or stands by for that.
    Worker,
    /// Notifies whoever is offline.
    Push,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeDescription {
    /// Its name.
    pub node: String,
    /// What it is for.
    pub role: NodeRole,
    /// Its version, …
    pub version: String,
    /// … and the last migration that it knows.
    pub schema: i64,
}

/// What a gateway answers to [`NodeQuestion::CloseDevice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswer {
    /// The gateway's name.
    pub node: String,
    /// Connections that were told to end.
    pub connections: usize,
}
