//! `cargo up socket`: a WebSocket by hand.

use std::{
    io::{BufRead, IsTerminal, Write, stdin, stdout},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{sync::mpsc, time};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::CloseFrame},
};

/// How long answers may take once there is nothing more to send.
const ANSWERS: Duration = Duration::from_secs(10);

/// Talks to a gateway over a WebSocket: a line of standard input is a frame that is sent, a
/// line of standard output one that came.
///
/// When the input ends it waits for the replies to all frames that had an `id`, and ends too.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The gateway's socket.
    #[arg(long, default_value = "ws://127.0.0.1:8080/v1/ws")]
    url: String,
    /// The access token.
    #[arg(long, env = "NATTER_TOKEN", hide_env_values = true)]
    token: String,
}

pub(crate) async fn run(options: Options) -> Result<()> {
    let mut request = options.url.as_str().into_client_request()?;
    let bearer = format!("Bearer {}", options.token).parse();
    let bearer = bearer.context("the token has characters that no token has")?;
    request.headers_mut().insert("authorization", bearer);
    let (mut socket, _) = connect_async(request)
        .await
        .with_context(|| format!("cannot connect to {}", options.url))?;
    if stdin().is_terminal() {
        eprintln!(
            r#"type frames like {{"event":"history","id":1,"data":{{…}}}}, then Ctrl-D to end"#
        );
    }

    let mut input = lines();
    let (mut ready, mut unanswered, mut ended) = (false, 0_usize, false);
    loop {
        if ended && ready && unanswered == 0 {
            return Ok(socket.close(None).await?);
        }
        tokio::select! {
            line = input.recv(), if !ended => match line {
                Some(line) if line.trim().is_empty() => {}
                Some(line) => {
                    unanswered += usize::from(field(&line, "id").is_some());
                    socket.send(Message::text(line)).await?;
                }
                None => ended = true,
            },
            frame = socket.next() => match frame.transpose()? {
                Some(Message::Text(text)) => {
                    writeln!(stdout(), "{text}").context("nobody reads on")?;
                    ready |= field(&text, "event").is_some_and(|event| event == "ready");
                    let reply = field(&text, "reply").is_some();
                    unanswered = unanswered.saturating_sub(reply.into());
                }
                Some(Message::Close(frame)) => bail!("closed by the gateway: {}", reason(frame)),
                None => bail!("the gateway went away"),
                Some(_) => {}
            },
            () = time::sleep(ANSWERS), if ended => bail!("no answer within {ANSWERS:?}"),
        }
    }
}

/// Lines of standard input, read by a thread of its own: it may wait for a person for ever.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn field(frame: &str, name: &str) -> Option<Value> {
    serde_json::from_str::<Value>(frame).ok()?.get(name).cloned()
}

fn reason(frame: Option<CloseFrame>) -> String {
    frame.map_or_else(|| "no reason".to_owned(), |frame| format!("{} {}", frame.code, frame.reason))
}
