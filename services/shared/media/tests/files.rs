//! Files on a local folder and on S3: the same stories, told by what anybody can see of them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use natter_e2e::cloud::S3Server;
use natter_media::{Files, FilesError, disposition};
use tempfile::TempDir;
use uuid::Uuid;

/// Where files are kept, and a look behind its door.
struct Place {
    files: Files,
    folder: TempDir,
    /// Options and URL, for another process.
    url: String,
    options: Vec<(String, String)>,
    server: Option<S3Server>,
}

impl Place {
    fn local() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let url = format!("file://{}/made", folder.path().display());
        let files = Files::open(&url, [])?;
        Ok(Self { files, folder, url, options: Vec::new(), server: None })
    }

    async fn s3() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = S3Server::start(folder.path()).await?;
        let url = format!("{}/some/prefix", server.url());
        let options = server.options();
        let files = Files::open(&url, options.clone())?;
        Ok(Self { files, folder, url, options, server: Some(server) })
    }

    async fn both() -> Result<[Self; 2]> {
        Ok([Self::local()?, Self::s3().await?])
    }

    /// Every object, part and half-written file, by its path.
    fn kept(&self) -> Result<Vec<String>> {
        if let Some(server) = &self.server {
            return Ok(server.kept()?);
        }
        fn walk(folder: &Path, kept: &mut Vec<String>) -> Result<()> {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    walk(&path, kept)?;
                } else {
                    kept.push(path.display().to_string());
                }
            }
            Ok(())
        }
        let mut kept = Vec::new();
        walk(self.folder.path(), &mut kept)?;
        Ok(kept)
    }

    /// Waits until nothing is kept, as what a drop leaves behind is removed soon, not at once.
    async fn comes_to_nothing(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.kept()?.is_empty() {
            ensure!(Instant::now() < until, "still kept: {:?}", self.kept()?);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn write(&self, bytes: &[u8], piece: usize) -> Result<Uuid> {
        let id = Uuid::now_v7();
        let mut upload = self.files.create(id, "image/png", &disposition("a.png", true));
        for piece in bytes.chunks(piece) {
            upload.write(Bytes::copy_from_slice(piece)).await?;
        }
        ensure!(upload.finish().await? == bytes.len() as u64);
        Ok(id)
    }
}

/// Bytes that differ everywhere.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

async fn whole(pieces: BoxStream<'static, Result<Bytes, FilesError>>) -> Result<Vec<u8>> {
    let pieces: Vec<Bytes> = pieces.try_collect().await?;
    Ok(pieces.concat())
}

const MIB: usize = 1 << 20;
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_large_file_comes_back_as_it_went() -> Result<()> {
    for place in Place::both().await? {
        place.files.check().await?;
        let sent = bytes(20 * MIB + 17);
        let id = place.write(&sent, 99_991).await?;
        assert_eq!(place.files.size(id).await?, sent.len() as u64);
        assert!(whole(place.files.read(id, None).await?).await? == sent);

        let cases = [0..1, 5..1_000_000, 19_000_000..20_971_537, 20_971_536..20_971_537];
        for range in cases {
            let part = whole(place.files.read(id, Some(range.clone())).await?).await?;
            assert!(part == sent[range.start as usize..range.end as usize], "{range:?}");
        }
        // A range may end beyond the file, and be empty; it may not begin beyond.
        let end = whole(place.files.read(id, Some(20_971_530..99_999_999)).await?).await?;
        assert_eq!(end, sent[20_971_530..]);
        assert!(whole(place.files.read(id, Some(7..7)).await?).await?.is_empty());
        assert!(place.files.read(id, Some(30_000_000..30_000_001)).await.is_err());

        assert_eq!(place.kept()?.len(), 1);
        place.files.remove(id, None).await?;
        assert!(place.kept()?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn files_of_every_size_are_whole() -> Result<()> {
    for place in Place::both().await? {
        for (length, piece) in [
            (0, 1),
            (1, 1),
            (1000, 7),
            (5 * MIB - 1, 64 << 10),
            (5 * MIB, 64 << 10),
            (5 * MIB + 1, 64 << 10),
            (10 * MIB, 5 * MIB),
            // All in one piece, which is more than a part.
            (13 * MIB, 13 * MIB),
        ] {
            let sent = bytes(length);
            let id = place.write(&sent, piece).await?;
            assert!(whole(place.files.read(id, None).await?).await? == sent, "{length}");
            place.files.remove(id, None).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_can_be_removed() -> Result<()> {
    for place in Place::both().await? {
        let id = Uuid::now_v7();
        assert!(matches!(place.files.size(id).await, Err(FilesError::NotFound)));
        assert!(matches!(place.files.read(id, None).await, Err(FilesError::NotFound)));
        assert!(matches!(place.files.read(id, Some(0..0)).await, Err(FilesError::NotFound)));
        assert!(matches!(place.files.read_thumbnail(id).await, Err(FilesError::NotFound)));
        assert!(matches!(place.files.incoming(id).await, Err(FilesError::NotFound)));
        place.files.remove(id, None).await?;
        let unknown = Uuid::new_v4().to_string();
        place.files.remove(id, Some(&unknown)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_thumbnail_goes_with_its_file() -> Result<()> {
    for place in Place::both().await? {
        let id = place.write(b"file", 4).await?;
        place.files.put_thumbnail(id, Bytes::from_static(b"small"), "image/jpeg").await?;
        assert_eq!(place.files.read_thumbnail(id).await?, "small");
        assert_eq!(place.kept()?.len(), 2);
        place.files.remove(id, None).await?;
        assert!(place.kept()?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing() -> Result<()> {
    for place in Place::both().await? {
        for length in [100, 12 * MIB] {
            let id = Uuid::now_v7();
            for abort in [true, false] {
                let mut upload = place.files.create(id, "text/plain", "attachment");
                for piece in bytes(length).chunks(64 << 10) {
                    upload.write(Bytes::copy_from_slice(piece)).await?;
                }
                assert!(matches!(place.files.size(id).await, Err(FilesError::NotFound)));
                if abort {
                    upload.abort().await?;
                    assert!(place.kept()?.is_empty(), "{:?}", place.kept()?);
                } else {
                    drop(upload);
                    place.comes_to_nothing().await?;
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn somebody_else_ends_the_upload_of_a_process_that_died() -> Result<()> {
    for place in Place::both().await? {
        let id = Uuid::now_v7();
        let mut upload = place.files.create(id, "text/plain", "attachment");
        upload.write(bytes(6 * MIB).into()).await?;
        let unfinished = upload.unfinished().map(str::to_owned);
        assert_eq!(unfinished.is_some(), !place.files.is_local());
        // It is told before anything is sent that would have to be found again.
        assert_eq!(place.kept()?.len(), 1, "{:?}", place.kept()?);
        upload.write(bytes(6 * MIB).into()).await?;
        // Nobody drops what a process that dies has in its hands.
        std::mem::forget(upload);
        // Both parts lie there, as nothing arrives any more of a process that is dead.
        let parts = if place.files.is_local() { 0 } else { 2 };
        let until = Instant::now() + Duration::from_secs(10);
        while place.kept()?.iter().filter(|name| name.contains(".part-")).count() < parts {
            ensure!(Instant::now() < until, "kept: {:?}", place.kept()?);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        let other = Files::open(&place.url, place.options.clone())?;
        other.remove(id, unfinished.as_deref()).await?;
        assert!(place.kept()?.is_empty(), "{:?}", place.kept()?);
        other.remove(id, unfinished.as_deref()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_upload_that_is_removed_does_not_come_back() -> Result<()> {
    for place in Place::both().await? {
        let id = Uuid::now_v7();
        let mut upload = place.files.create(id, "text/plain", "attachment");
        upload.write(bytes(6 * MIB).into()).await?;
        let unfinished = upload.unfinished().map(str::to_owned);
        place.files.remove(id, unfinished.as_deref()).await?;
        assert!(upload.finish().await.is_err());
        place.comes_to_nothing().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_local_folder_signs_nothing() -> Result<()> {
    let place = Place::local()?;
    assert!(place.files.is_local());
    assert!(place.files.signed_get(Uuid::now_v7(), MINUTE).await?.is_none());
    assert!(place.files.signed_put(Uuid::now_v7(), MINUTE).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_signed_url_reads_a_file_safely() -> Result<()> {
    let place = Place::s3().await?;
    let http = reqwest::Client::new();
    for sent in [bytes(1000), bytes(6 * MIB)] {
        let id = place.write(&sent, MIB).await?;
        let url = place.files.signed_get(id, MINUTE).await?.context("signs")?;
        let answer = http.get(url.clone()).send().await?.error_for_status()?;
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("content-type"), Some("image/png"));
        assert_eq!(header("content-disposition"), Some(disposition("a.png", true).as_str()));
        assert!(answer.bytes().await? == sent);

        // It reads this file, and reads only.
        assert_eq!(http.put(url.clone()).body("x").send().await?.status(), 403);
        let other = place.write(b"other", 5).await?;
        let mut elsewhere = url.clone();
        elsewhere.set_path(&url.path().replace(&id.to_string(), &other.to_string()));
        assert_eq!(http.get(elsewhere).send().await?.status(), 403);
        let mut longer = url.clone();
        longer.set_query(Some(&url.query().context("signed")?.replace("=60&", "=6000&")));
        assert_eq!(http.get(longer).send().await?.status(), 403);
        let mut naked = url;
        naked.set_query(None);
        assert_eq!(http.get(naked).send().await?.status(), 403);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_put_by_a_signed_url_is_a_file_once_it_is_adopted() -> Result<()> {
    let place = Place::s3().await?;
    let http = reqwest::Client::new();
    let id = Uuid::now_v7();
    let sent = bytes(7 * MIB);
    let url = place.files.signed_put(id, MINUTE).await?.context("signs")?;
    let put = http.put(url.clone()).header("content-type", "text/html").body(sent.clone());
    put.send().await?.error_for_status()?;
    assert!(matches!(place.files.size(id).await, Err(FilesError::NotFound)));

    let incoming = place.files.incoming(id).await?;
    assert_eq!(incoming.size, sent.len() as u64);
    let head = place.files.read_incoming(id, &incoming, Some(0..100)).await?;
    assert_eq!(whole(head).await?, sent[..100]);
    let shown = disposition("Übung.png", true);
    place.files.adopt(id, &incoming, "image/png", &shown).await?;
    assert!(whole(place.files.read(id, None).await?).await? == sent);
    assert!(matches!(place.files.incoming(id).await, Err(FilesError::NotFound)));
    // As it is when the answer to the first time was lost.
    place.files.adopt(id, &incoming, "image/png", &shown).await?;

    // It is served as what we say, not as what its sender said.
    let reading = place.files.signed_get(id, MINUTE).await?.context("signs")?;
    let answer = http.get(reading).send().await?.error_for_status()?;
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(answer.headers()["content-disposition"], shown.as_str());

    // The URL still holds, and no longer changes the file.
    http.put(url).body("other").send().await?.error_for_status()?;
    assert_eq!(place.files.size(id).await?, sent.len() as u64);
    place.files.remove(id, None).await?;
    assert!(place.kept()?.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_is_replaced_while_it_is_looked_at_is_not_adopted() -> Result<()> {
    let place = Place::s3().await?;
    let http = reqwest::Client::new();
    let id = Uuid::now_v7();
    let url = place.files.signed_put(id, MINUTE).await?.context("signs")?;
    http.put(url.clone()).body("a harmless one").send().await?.error_for_status()?;
    let incoming = place.files.incoming(id).await?;
    http.put(url).body("a harmful one").send().await?.error_for_status()?;
    let adopted = place.files.adopt(id, &incoming, "text/plain", "attachment").await;
    assert!(matches!(adopted, Err(FilesError::Changed)), "{adopted:?}");
    assert!(matches!(place.files.size(id).await, Err(FilesError::NotFound)));
    Ok(())
}

#[tokio::test]
async fn where_no_server_copies_the_incoming_file_is_read_and_written() -> Result<()> {
    let place = Place::local()?;
    let id = Uuid::now_v7();
    let name = id.to_string();
    let folder = place.folder.path().join("made/incoming").join(&name[name.len() - 2..]);
    std::fs::create_dir_all(&folder)?;
    let sent = bytes(6 * MIB);
    std::fs::write(folder.join(&name), &sent)?;
    let looked_at = place.files.incoming(id).await?;
    std::fs::write(folder.join(&name), b"another")?;
    let adopted = place.files.adopt(id, &looked_at, "text/plain", "attachment").await;
    assert!(matches!(adopted, Err(FilesError::Changed)), "{adopted:?}");

    std::fs::write(folder.join(&name), &sent)?;
    let incoming = place.files.incoming(id).await?;
    place.files.adopt(id, &incoming, "text/plain", "attachment").await?;
    place.files.adopt(id, &incoming, "text/plain", "attachment").await?;
    assert!(whole(place.files.read(id, None).await?).await? == sent);
    assert_eq!(place.kept()?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn wrong_secrets_are_refused() -> Result<()> {
    let place = Place::s3().await?;
    let mut options = place.options.clone();
    options.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "wrong".to_owned()));
    let files = Files::open(&place.url, options)?;
    assert!(files.check().await.is_err());
    let id = place.write(b"file", 4).await?;
    assert!(files.read(id, None).await.is_err());
    let url = files.signed_get(id, MINUTE).await?.context("signs")?;
    assert_eq!(reqwest::get(url).await?.status(), 403);
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_away_is_an_error_soon() -> Result<()> {
    let mut place = Place::s3().await?;
    let id = place.write(b"file", 4).await?;
    place.files.check().await?;
    let mut upload = place.files.create(id, "text/plain", "attachment");
    upload.write(bytes(6 * MIB).into()).await?;
    place.server = None;

    let begun = Instant::now();
    assert!(place.files.check().await.is_err());
    assert!(place.files.read(id, None).await.is_err());
    let written = upload.finish().await;
    assert!(matches!(written, Err(FilesError::Store(_))), "{written:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_store_that_says_nothing_is_an_error_in_time() -> Result<()> {
    // It takes connections, and lets them lie.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let options = [
        ("AWS_ENDPOINT_URL", format!("http://{}", listener.local_addr()?)),
        ("AWS_ACCESS_KEY_ID", "a".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        // Not the 30 s that it is, as a test has no time.
        ("AWS_READ_TIMEOUT", "300ms".to_owned()),
    ];
    let options = options.map(|(name, value)| (name.to_owned(), value));
    let files = Files::open("s3://bucket", options)?;
    let begun = Instant::now();
    assert!(files.check().await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn urls_for_azure_are_signed_too() -> Result<()> {
    // The key of Microsoft's emulator.
    let options = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"),
        (
            "AZURE_STORAGE_ACCOUNT_KEY",
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
        ),
    ];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let files = Files::open("az://container/prefix", options)?;
    assert!(!files.is_local());
    assert_eq!(files.put_headers(), [("x-ms-blob-type", "BlockBlob")]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let id = Uuid::now_v7();
    let url = runtime.block_on(files.signed_put(id, MINUTE))?.context("signs")?;
    let path = format!("/container/prefix/incoming/{}/{id}", &id.to_string()[34..]);
    assert_eq!(url.path(), path);
    Ok(())
}

#[test]
fn addresses_are_looked_at() {
    for url in ["", "ftp://a/b", "http://a/b", "s3:///x", "s3://user:secret@bucket"] {
        let refused = Files::open(url, []);
        assert!(matches!(refused, Err(FilesError::Address { .. })), "{url}: {refused:?}");
        assert!(!format!("{refused:?}").contains("secret@"));
    }
}
