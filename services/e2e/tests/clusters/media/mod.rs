//! Files that people send each other: uploaded through one gateway, fetched through the other, in a
//! local folder and in S3.

use std::{fs, io, path::Path};

use anyhow::{Context, Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{Api, Person, Stage};
use natter_protocol::{
    ids::{ChatId, MessageId},
    media::{DownloadPage, Uploaded},
};
use reqwest::{
    Method, Response,
    multipart::{Form, Part},
};

mod cloud;
mod large;
mod pictures;
mod refusals;
mod sweeps;

/// Small limits, and nothing that comes to a halt is waited for long.
static STAGE: Stage = Stage::with(|builder| {
    builder
        .shards(3)
        .gateway_env("NATTER_MEDIA_IMAGE_BYTES", "1000000")
        .gateway_env("NATTER_MEDIA_AUDIO_BYTES", "0")
        .worker_env("NATTER_MEDIA_STALLED_SECONDS", "8")
});

/// Two people with a chat.
struct Pair {
    ana: Person,
    ben: Person,
    chat: ChatId,
}

impl Pair {
    async fn of(cluster: &Cluster) -> Result<Self> {
        let ana = Person::register(cluster, "Ana").await?;
        let ben = Person::register(cluster, "Ben").await?;
        let chat = ana.api(0).direct(&ben).await?.id;
        Ok(Self { ana, ben, chat })
    }

    /// Ana sends a file in one step, through the first gateway.
    async fn sends(&self, name: &str, bytes: Vec<u8>) -> Result<Uploaded> {
        let form = form(name, "application/octet-stream", bytes)?.text("caption", name.to_owned());
        self.ana.api(0).upload(self.chat, form).await?.read(201)
    }

    /// Who has fetched it, as Ana is told.
    async fn downloads(&self, message: MessageId) -> Result<DownloadPage> {
        let path = format!("/chats/{}/messages/{message}/downloads", self.chat);
        self.ana.api(1).get(&path).await?.read(200)
    }
}

/// A form with a file.
fn form(name: &str, media_type: &str, bytes: Vec<u8>) -> Result<Form> {
    let part = Part::bytes(bytes).file_name(name.to_owned()).mime_str(media_type)?;
    Ok(Form::new().part("file", part))
}

/// Where the file of a message is, below `/v1`.
fn path(chat: ChatId, message: MessageId) -> String {
    format!("/chats/{chat}/messages/{message}/media")
}

/// A `GET` with some headers.
async fn fetch(api: &Api, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let mut request = api.request(Method::GET, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.send().await?)
}

/// A header of an answer.
fn header<'a>(response: &'a Response, name: &str) -> Result<&'a str> {
    let header = response.headers().get(name);
    Ok(header.with_context(|| format!("no {name}: {response:?}"))?.to_str()?)
}

async fn bytes(response: Response, status: u16) -> Result<Vec<u8>> {
    ensure!(response.status() == status, "{status} expected: {response:?}");
    Ok(response.bytes().await?.to_vec())
}

/// A picture with these dimensions, as a PNG.
fn picture(width: u32, height: u32) -> Result<Vec<u8>> {
    let image = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x % 256) as u8, (y % 256) as u8, ((x / 7 + y / 5) % 256) as u8])
    });
    let mut png = io::Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png)?;
    Ok(png.into_inner())
}

/// All files of a cluster's local folder, below it.
fn kept(cluster: &Cluster) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    list(&cluster.data_dir().join("media"), &mut kept)?;
    Ok(kept)
}

fn list(folder: &Path, kept: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, kept)?;
        } else {
            kept.push(path.display().to_string());
        }
    }
    Ok(())
}
