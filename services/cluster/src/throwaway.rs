//! A directory that goes when we do, even if we are killed.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{postgres, process::POLL};

/// Waits for us to end (stdin closes), then for the servers named in `run/`, and removes the
/// directory. Removing is tried again, since a server's last child may still be writing.
const JANITOR: &str = r#"
trap '' HUP INT QUIT TERM
cat >/dev/null
for file in "$1"/run/*.pid; do
  read -r pid _ <"$file" || continue
  n=0
  while kill -0 "$pid" && [ "$n" -lt 150 ]; do sleep 0.1; n=$((n + 1)); done
done
n=0
while ! rm -rf -- "$1" && [ "$n" -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
"#;

/// How long dropping waits for the janitor; it goes on by itself if that does not do.
const CLEARED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Throwaway {
    path: PathBuf,
    janitor: Child,
}

impl Throwaway {
    /// A new directory, laid out, in a place that also the user of Postgres can reach.
    pub(crate) fn new() -> Result<Self> {
        let mut parent = env::temp_dir();
        if let Some(account) = postgres::server_account()?
            && !postgres::can_enter(account, &parent)
        {
            parent = PathBuf::from("/var/tmp");
        }
        let made = tempfile::Builder::new()
            .prefix("natter-")
            // Others may pass through (Postgres may run as another user), not look around.
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        lay_out(made.path())?;
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "sh"])
            .arg(made.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start a shell")?;
        Ok(Self { path: made.keep(), janitor })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        let deadline = Instant::now() + CLEARED;
        while Instant::now() < deadline && matches!(self.janitor.try_wait(), Ok(None)) {
            thread::sleep(POLL);
        }
    }
}

/// Makes the directories that every cluster's data has.
pub(crate) fn lay_out(dir: &Path) -> Result<()> {
    for name in ["logs", "run"] {
        let path = dir.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    Ok(())
}
