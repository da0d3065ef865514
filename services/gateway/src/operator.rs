//! What an operator asks of all nodes at once.

use std::time::Duration;

use natter_bus::{Bus, nodes::Question};
use natter_protocol::node::{NodeAnswer, NodeDescription, NodeQuestion, NodeRole};
use natter_runtime::{VERSION, causes};
use natter_store::schema_known;
use tokio::{sync::oneshot, time::sleep};

use crate::hub::{Command, Hub};

/// How long to wait before the broker is listened to again.
const AGAIN: Duration = Duration::from_secs(1);

/// Answers as `node`. Runs until dropped.
pub async fn answer_all(bus: Bus, hub: Hub, node: String) {
    loop {
        match bus.asked_of_all().await {
            Ok(mut asked) => {
                while let Some(question) = asked.next().await {
                    answer(&hub, &node, &question).await;
                }
            }
            Err(error) => {
                tracing::warn!(error = %causes(&error), "what an operator asks is not heard");
            }
        }
        sleep(AGAIN).await;
    }
}

async fn answer(hub: &Hub, node: &str, question: &Question) {
    let asked = match question.read() {
        Ok(asked) => asked,
        // Of a newer version.
        Err(error) => {
            return tracing::warn!(error = %causes(&error), "an operator's question");
        }
    };
    let answered = match asked {
        NodeQuestion::Describe => {
            let description = NodeDescription {
                node: node.to_owned(),
                role: NodeRole::Gateway,
                version: VERSION.to_owned(),
                schema: schema_known(),
            };
            question.answer(&description).await
        }
        NodeQuestion::CloseDevice { user_id, device_id } => {
            let (answer, closed) = oneshot::channel();
            hub.tell(Command::Close(user_id, device_id, answer)).await;
            let Ok(connections) = closed.await else { return };
            tracing::info!(user = %user_id, device = %device_id, connections, "an operator has closed a device");
            question.answer(&NodeAnswer { node: node.to_owned(), connections }).await
        }
    };
    if let Err(error) = answered {
        tracing::warn!(error = %causes(&error), "an operator is not answered");
    }
}
