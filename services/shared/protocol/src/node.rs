//! What an operator asks of every gateway at once, and what each answers. At most once, and read by
//! nodes of the version before: one that does not know the question does not answer it.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, UserId};

/// Asked of every gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeQuestion {
    /// To end the connections of a device; it may come back at once.
    #[serde(rename_all = "camelCase")]
    CloseDevice {
        /// Whose it is.
        user_id: UserId,
        /// Which.
        device_id: DeviceId,
    },
}

/// What a gateway answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswer {
    /// The gateway's name.
    pub node: String,
    /// Connections that were told to end.
    pub connections: usize,
}
