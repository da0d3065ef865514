//! The old system's files, copied from a folder to where Natter keeps its own.
//!
//! What a file is, its content says, as for one that is uploaded. It can be done again at any time, with
//! another folder: what has been copied is passed over.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use natter_media::{
    Files, FilesError, HEAD_BYTES, dimensions, disposition, safe_name, shows_inline, sniff,
};
use natter_runtime::causes;
use natter_store::{Import, LeftFile, Measures};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt},
};
use uuid::Uuid;

use super::{Job, bar::Bar, report::Report, tables::Kind};
use crate::outcome::Failure;

/// Files that are looked up at once.
const PAGE: u32 = 500;
/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;
/// Images that get a thumbnail, as an upload's; larger ones do not.
const THUMBNAILS: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const THUMBNAIL_OF: u64 = 32 * 1024 * 1024;

/// Why a file stays where it is.
#[derive(Debug, thiserror::Error)]
enum NotCopied {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it is empty")]
    Empty,
    #[error("it is not there")]
    Missing,
    #[error("its message is gone, or has another file")]
    Nobodys,
}

/// Copies the files that are still elsewhere, one after the other.
pub(super) async fn copy(
    job: &Job<'_>,
    import: &Import,
    folder: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    // As it is without links, to be told from what links lead to.
    let folder = folder
        .canonicalize()
        .ok()
        .filter(|whole| whole.is_dir())
        .ok_or_else(|| Failure::refused(format!("{}: is no folder", folder.display())))?;
    let environment = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let unusable = |error: FilesError| Failure::settings("NATTER_MEDIA_STORE", error);
    let files = Files::open(&job.args.media_store, environment).map_err(unusable)?;
    files.check().await.map_err(unusable)?;
    let mut bar = Bar::new("files", 0, 0);
    let mut after = Uuid::nil();
    loop {
        let ask = async || job.store.left_files(&import.name, after, PAGE).await;
        let page = job.insist(ask).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for left in &page {
            let copied = match find(&folder, &left.url) {
                Some(path) => copy_one(job, import, &files, left, &path).await?,
                None => Err(NotCopied::Missing),
            };
            match copied {
                Ok(()) => report.copied += 1,
                Err(why) => {
                    report.not_copied += 1;
                    report
                        .of(Kind::Media)
                        .note(&format!("not copied: {}", causes(&why)), &left.url);
                    let found = !matches!(why, NotCopied::Missing);
                    job.insist(async || job.store.file_stays(import, left.id, found).await).await?;
                }
            }
            bar.forward(1);
        }
    }
    bar.end();
    Ok(())
}

/// Copies it, and gives it to its message.
async fn copy_one(
    job: &Job<'_>,
    import: &Import,
    files: &Files,
    left: &LeftFile,
    path: &Path,
) -> Result<Result<(), NotCopied>, Failure> {
    let away = |error: FilesError| Failure::Server {
        server: "the store of files (NATTER_MEDIA_STORE)",
        cause: error.into(),
    };
    let called = left.name.clone();
    let called = called.or_else(|| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = safe_name(&called.unwrap_or_default());
    let (media_type, measures) = match put(files, left.id, &name, path).await.map_err(away)? {
        Ok(put) => put,
        Err(why) => return Ok(Err(why)),
    };
    let told = job
        .insist(async || job.store.file_copied(import, left, &name, media_type, &measures).await);
    if told.await? {
        return Ok(Ok(()));
    }
    files.remove(left.id, None).await.map_err(away)?;
    Ok(Err(NotCopied::Nobodys))
}

async fn put(
    files: &Files,
    id: Uuid,
    name: &str,
    path: &Path,
) -> Result<Result<(&'static str, Measures), NotCopied>, FilesError> {
    let mut file = match File::open(path).await {
        Ok(file) => file,
        Err(error) => return Ok(Err(error.into())),
    };
    let head = match piece(&mut file, HEAD_BYTES).await {
        Ok(head) if head.is_empty() => return Ok(Err(NotCopied::Empty)),
        Ok(head) => head,
        Err(error) => return Ok(Err(error.into())),
    };
    let kind = sniff(&head);
    let shown = disposition(name, shows_inline(kind.media_type));
    let mut upload = files.create(id, kind.media_type, &shown);
    let (mut hash, mut size, mut next) = (Sha256::new(), 0, head.clone());
    while !next.is_empty() {
        size += next.len() as u64;
        hash.update(&next);
        upload.write(next).await?;
        next = match piece(&mut file, PIECE).await {
            Ok(next) => next,
            Err(error) => return Ok(Err(error.into())),
        };
    }
    upload.finish().await?;
    let measures = Measures {
        size,
        sha256: Some(hash.finalize().into()),
        seen: dimensions(&kind, &head),
        thumbnail: THUMBNAILS.contains(&kind.media_type) && size <= THUMBNAIL_OF,
    };
    Ok(Ok((kind.media_type, measures)))
}

/// The next bytes, so many unless the file ends; none at its end.
async fn piece(file: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(most);
    file.take(most as u64).read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}

/// The file of a URL or path: as its whole path says below the folder, without what comes first, or by
/// its name alone. Nothing outside of the folder, which is given as it is without links, though a link in
/// it leads there.
fn find(folder: &Path, url: &str) -> Option<PathBuf> {
    let path =
        url.split_once("://").map_or(url, |(_, rest)| rest.split_once('/').map_or("", |(_, p)| p));
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = percent_decoded(path);
    let parts: Vec<&std::ffi::OsStr> = Path::new(&path)
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => Some(part),
            _ => None,
        })
        .collect();
    (0..parts.len()).find_map(|first| {
        let below = folder.join(parts[first..].iter().collect::<PathBuf>()).canonicalize().ok()?;
        (below.starts_with(folder) && below.is_file()).then_some(below)
    })
}

fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.filter(|_| byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_url_and_never_outside_of_the_folder() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let folder = root.path().canonicalize()?.join("files");
        std::fs::create_dir_all(folder.join("uploads/2024"))?;
        std::fs::write(folder.join("uploads/2024/a b.png"), "x")?;
        std::fs::write(folder.join("c.png"), "x")?;
        std::fs::write(root.path().join("secret"), "x")?;
        std::os::unix::fs::symlink(root.path().join("secret"), folder.join("link"))?;
        std::os::unix::fs::symlink(root.path(), folder.join("uploads/linked"))?;
        std::os::unix::fs::symlink(folder.join("uploads/2024"), folder.join("newest"))?;
        let found = |url| {
            find(&folder, url).and_then(|path| Some(path.strip_prefix(&folder).ok()?.to_owned()))
        };
        for url in [
            "/uploads/2024/a%20b.png",
            "uploads/2024/a b.png",
            "https://old.example/uploads/2024/a%20b.png?v=1#top",
            "https://old.example/static/uploads/2024/a b.png",
        ] {
            assert_eq!(found(url), Some("uploads/2024/a b.png".into()), "{url}");
        }
        assert_eq!(found("https://old.example/elsewhere/c.png"), Some("c.png".into()));
        assert_eq!(found("/newest/a b.png"), Some("uploads/2024/a b.png".into()));
        for url in [
            "../secret",
            "/../secret",
            "..%2Fsecret",
            "link",
            "/uploads/linked/secret",
            "uploads",
            "",
            "https://old.example",
        ] {
            assert_eq!(found(url), None, "{url}");
        }
        Ok(())
    }
}
