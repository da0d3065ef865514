//! A gibibyte: what a file costs does not grow with it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, stream};
use natter_cluster::Cluster;
use natter_e2e::usage::resident;
use natter_protocol::media::Uploaded;
use reqwest::{
    Body, Method,
    multipart::{Form, Part},
};

use super::{Pair, STAGE, path};

const PIECE: usize = 1024 * 1024;
const PIECES: usize = 1024;
/// Pieces of a file that goes before.
const WARM: usize = 3;
/// KiB by which a gateway may grow.
const GROWN: u64 = 32 * 1024;
const LONG: Duration = Duration::from_mins(5);

/// The most that a gateway has come to while something goes on.
async fn most<T>(
    cluster: &Cluster,
    gateway: usize,
    work: impl Future<Output = Result<T>>,
) -> Result<(T, u64)> {
    let mut work = std::pin::pin!(work);
    let mut most = 0;
    loop {
        tokio::select! {
            done = &mut work => return Ok((done?, most)),
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                most = most.max(resident(cluster.gateway(gateway))?);
            }
        }
    }
}

pub async fn goes_up_and_down(cluster: &Cluster, pieces: usize) -> Result<()> {
    let pair = Pair::of(cluster).await?;
    // What is there once is not counted: connections, a pool, the first blocks.
    let small = pair.sends("small", vec![7; WARM * PIECE]).await?.message.context("not sent")?;
    super::bytes(super::fetch(&pair.ben.api(1), &path(pair.chat, small.id), &[]).await?, 200)
        .await?;
    let before = [resident(cluster.gateway(0))?, resident(cluster.gateway(1))?];

    let size = (pieces * PIECE) as u64;
    let piece = |n: usize| Bytes::from(vec![(n % 251) as u8 | 0x80; PIECE]);
    let body = stream::iter((0..pieces).map(move |n| Ok::<_, std::io::Error>(piece(n))));
    let part = Part::stream_with_length(Body::wrap_stream(body), size).file_name("large");
    let form = Form::new().part("file", part).text("send", "true");
    let upload = async { pair.ana.api(0).upload(pair.chat, form).await?.read::<Uploaded>(201) };
    let (uploaded, up) = most(cluster, 0, upload).await?;
    assert_eq!(uploaded.media.size, size);
    let sent = uploaded.message.context("not sent")?;

    let download = async {
        let request = pair.ben.api(1).request(Method::GET, &path(pair.chat, sent.id));
        let response = request.timeout(LONG).send().await?;
        ensure!(response.status() == 200, "{response:?}");
        let (mut bytes, mut came) = (response.bytes_stream(), 0);
        while let Some(more) = bytes.next().await {
            let more = more?;
            for (place, byte) in [(0, more.first()), (more.len() - 1, more.last())] {
                let expected = ((came + place) / PIECE % 251) as u8 | 0x80;
                ensure!(byte == Some(&expected), "another byte at {}", came + place);
            }
            came += more.len();
        }
        Ok(came)
    };
    let (came, down) = most(cluster, 1, download).await?;
    assert_eq!(came as u64, size);
    let grown = [up.saturating_sub(before[0]), down.saturating_sub(before[1])];
    eprintln!("{pieces} MiB up and down: gateways grew by {grown:?} KiB from {before:?}");
    ensure!(grown.iter().all(|grown| *grown < GROWN), "{grown:?} KiB more than {before:?}");
    Ok(())
}

#[tokio::test]
async fn a_gibibyte_goes_up_and_down_in_bounded_memory() -> Result<()> {
    let cluster = STAGE.alone().await?;
    goes_up_and_down(&cluster, PIECES).await
}
