//! One cluster at a time on the same data.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
    process,
};

use anyhow::{Context, Result, bail};

/// The lock goes with the file, and so with the process; children do not inherit it.
pub(super) fn take(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).ok();
            bail!("a Natter runs on {} already: process {}", dir.display(), holder.trim());
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_on_the_same_data_is_told_of_the_first() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let first = take(dir.path())?;
        let refusal = format!("{:#}", take(dir.path()).err().context("taken twice")?);
        assert!(refusal.contains("already"), "{refusal}");
        assert!(refusal.ends_with(&process::id().to_string()), "{refusal}");
        drop(first);
        take(dir.path())?;
        Ok(())
    }
}
