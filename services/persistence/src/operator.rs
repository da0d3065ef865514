//! What an operator asks of all nodes at once: workers say what they are, those too that stand by.

use std::time::Duration;

use natter_bus::{Bus, nodes::Question};
use natter_protocol::node::{NodeDescription, NodeQuestion, NodeRole};
use natter_runtime::{VERSION, causes};
use natter_store::schema_known;
use tokio::time::sleep;

/// How long to wait before the broker is listened to again.
const AGAIN: Duration = Duration::from_secs(1);

/// Answers as `node`. Runs until dropped.
pub async fn answer_all(bus: Bus, node: String) {
    loop {
        match bus.asked_of_all().await {
            Ok(mut asked) => {
                while let Some(question) = asked.next().await {
                    answer(&node, &question).await;
                }
            }
            Err(error) => {
                tracing::warn!(error = %causes(&error), "what an operator asks is not heard");
            }
        }
        sleep(AGAIN).await;
    }
}

async fn answer(node: &str, question: &Question) {
    match question.read() {
        Ok(NodeQuestion::Describe) => {}
        // Of gateways.
        Ok(NodeQuestion::CloseDevice { .. }) => return,
        // Of a newer version.
        Err(error) => {
            return tracing::warn!(error = %causes(&error), "an operator's question");
        }
    }
    let description = NodeDescription {
        node: node.to_owned(),
        role: NodeRole::Worker,
        version: VERSION.to_owned(),
        schema: schema_known(),
    };
    if let Err(error) = question.answer(&description).await {
        tracing::warn!(error = %causes(&error), "an operator is not answered");
    }
}
