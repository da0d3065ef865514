//! What an operator asks of every gateway at once.

use std::time::Duration;

use natter_bus::{Bus, nodes::Question};
use natter_protocol::node::{NodeAnswer, NodeQuestion};
use natter_runtime::causes;
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
    match asked {
        NodeQuestion::CloseDevice { user_id, device_id } => {
            let (answer, closed) = oneshot::channel();
            hub.tell(Command::Close(user_id, device_id, answer)).await;
            let Ok(connections) = closed.await else { return };
            tracing::info!(user = %user_id, device = %device_id, connections, "an operator has closed a device");
            let answer = NodeAnswer { node: node.to_owned(), connections };
            if let Err(error) = question.answer(&answer).await {
                tracing::warn!(error = %causes(&error), "an operator is not answered");
            }
        }
    }
}
