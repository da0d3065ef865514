//! Programs that build or install what is missing. They are ours to end when we are told to stop,
//! unlike a server they do not see us go.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::process::POLL;

type Running = Arc<Mutex<Child>>;

static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());

/// Tells all that run to end. Not a package manager that runs as root for somebody who is not: it
/// goes on to its end.
pub fn end_all() {
    for running in lock(&RUNNING).iter() {
        let mut child = lock(running);
        // Whose end nobody has waited for yet: its pid is still its own.
        if let Ok(None) = child.try_wait() {
            signal::kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).ok();
        }
    }
}

/// Runs to its end, and returns what was said.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let status = wait(child)?;
    let said = |reader: thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Output { status, stdout: said(stdout), stderr: said(stderr) })
}

/// Runs to its end.
pub(crate) fn status(command: &mut Command) -> io::Result<ExitStatus> {
    wait(command.spawn()?)
}

fn wait(child: Child) -> io::Result<ExitStatus> {
    let child = Arc::new(Mutex::new(child));
    lock(&RUNNING).push(Arc::clone(&child));
    let status = loop {
        // Never waited for with the lock held, nor without: see `end_all`.
        match lock(&child).try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => break Ok(status),
            Err(error) => break Err(error),
        }
        thread::sleep(POLL);
    };
    lock(&RUNNING).retain(|running| !Arc::ptr_eq(running, &child));
    status
}

fn read(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut said).ok();
        }
        said
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
