//! A driven connection. All of a process's run on one thread, so that they share a buffer, and
//! what they tell of a run needs no lock.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use natter_protocol::ids::ChatId;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Notify,
    task,
    time::timeout,
};

use crate::{
    board::Board,
    frame::{self, Frame},
    wire::{self, Heard, Mark, Transport},
};

/// Connections from one source address: it has 28,000 ports, and others want some.
const PER_ADDRESS: usize = 1_000;
/// How long a connection may take until it is ready.
const PATIENCE: Duration = Duration::from_mins(1);
/// What is read at once, at most.
const SCRATCH: usize = 512 * 1024;
/// The longest head of an HTTP response that is taken.
const HEAD: usize = 8 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// What all connections of a process share.
#[derive(Debug, Default)]
pub struct Scene {
    /// The run that is on.
    pub board: RefCell<Option<Rc<Board>>>,
    /// Connections that gateways have closed, whether a run was on or not.
    pub closed: Cell<u64>,
}

/// A chat, as one connection has heard it.
#[derive(Clone, Copy, Debug, Default)]
struct Feed {
    chat: u32,
    /// The place of what was heard last.
    last: u64,
    heard: u64,
    own: u64,
}

/// What a person has heard, over one connection after the other.
#[derive(Debug, Default)]
pub struct Ear {
    /// The run that `feeds` counts.
    run: Cell<u32>,
    feeds: RefCell<Vec<Feed>>,
    cursor: RefCell<Vec<u8>>,
}

/// A connection.
#[derive(Debug)]
pub struct Line {
    transport: Transport,
    stream: TcpStream,
    scene: Rc<Scene>,
    ear: Rc<Ear>,
    /// Written once the socket takes it.
    out: RefCell<Vec<u8>>,
    ready: Cell<bool>,
    resumed: Cell<Option<bool>>,
    /// We have hung up ourselves.
    left: Cell<bool>,
    gone: Cell<Option<u16>>,
    news: Notify,
}

/// Where to, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Which gateway.
    pub gateway: SocketAddr,
    /// How to speak to it.
    pub transport: Transport,
    /// Who.
    pub token: &'a str,
    /// Where to resume from.
    pub cursor: Option<&'a str>,
    /// The connection's number: it says from which loopback address it comes.
    pub number: usize,
}

impl Line {
    /// Connects, and waits until all is set up.
    ///
    /// # Errors
    /// When the gateway does not take it.
    pub async fn open(call: Call<'_>, scene: &Rc<Scene>, ear: &Rc<Ear>) -> Result<Rc<Self>> {
        timeout(PATIENCE, Self::opened(call, scene, ear)).await.context("not ready in time")?
    }

    async fn opened(call: Call<'_>, scene: &Rc<Scene>, ear: &Rc<Ear>) -> Result<Rc<Self>> {
        let (stream, rest) = upgraded(call).await?;
        let line = Rc::new(Self {
            transport: call.transport,
            stream,
            scene: Rc::clone(scene),
            ear: Rc::clone(ear),
            out: RefCell::default(),
            ready: Cell::new(false),
            resumed: Cell::new(None),
            left: Cell::new(false),
            gone: Cell::new(None),
            news: Notify::new(),
        });
        task::spawn_local(Rc::clone(&line).listen(rest));
        line.until(|line| line.ready.get()).await?;
        Ok(line)
    }

    /// Waits for something to become true of it.
    ///
    /// # Errors
    /// When the connection is closed before.
    async fn until(&self, is: impl Fn(&Self) -> bool) -> Result<()> {
        while !is(self) {
            if let Some(code) = self.gone.get() {
                bail!("closed with {code}");
            }
            self.news.notified().await;
        }
        Ok(())
    }

    /// Waits until all that was missed has come.
    ///
    /// # Errors
    /// When the connection is closed before, or the gateway will not resume.
    pub async fn resumed(&self) -> Result<()> {
        self.until(|line| line.resumed.get().is_some()).await?;
        ensure!(self.resumed.get() == Some(true), "not resumed");
        Ok(())
    }

    /// Whether it stands.
    pub fn stands(&self) -> bool {
        self.gone.get().is_none()
    }

    /// Cuts the connection, as a network that is gone does.
    pub fn hang_up(&self) {
        self.left.set(true);
        // It may be cut already.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    /// Sends a message to the chat, which was due at `due` (µs since the run's start).
    pub fn say(self: &Rc<Self>, board: &Board, chat: (u32, ChatId), due: u64) {
        let (number, chat) = chat;
        let id = board.sending(number, due);
        let mark = Mark { run: board.run, chat: number, due };
        wire::send(&mut self.out.borrow_mut(), self.transport, id, chat, mark);
        self.flush();
    }

    /// Writes what the socket takes now, and the rest when it can.
    fn flush(self: &Rc<Self>) {
        if !self.flushed() {
            let line = Rc::clone(self);
            task::spawn_local(async move {
                while line.stream.writable().await.is_ok() && !line.flushed() {}
            });
        }
    }

    fn flushed(&self) -> bool {
        let mut out = self.out.borrow_mut();
        match self.stream.try_write(&out) {
            Ok(written) => drop(out.drain(..written)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // The reader learns it too.
            Err(_) => out.clear(),
        }
        out.is_empty()
    }

    async fn listen(self: Rc<Self>, mut rest: Vec<u8>) {
        let mut code = self.take(&mut rest);
        while code.is_none() {
            if self.stream.readable().await.is_err() {
                break;
            }
            code = SCRATCH_BUFFER.with_borrow_mut(|buffer| self.read(buffer, &mut rest));
        }
        let code = code.unwrap_or(1006);
        self.gone.set(Some(code));
        if !self.left.get() {
            self.scene.closed.set(self.scene.closed.get() + 1);
            if let Some(board) = &*self.scene.board.borrow() {
                board.closed.set(board.closed.get() + 1);
                board.code.set(code);
            }
        }
        self.news.notify_one();
    }

    /// Reads what there is; tells the code when it is over.
    fn read(self: &Rc<Self>, buffer: &mut [u8], rest: &mut Vec<u8>) -> Option<u16> {
        let kept = rest.len();
        let space = buffer.get_mut(kept..).filter(|space| !space.is_empty());
        let Some(space) = space else { return Some(1009) };
        let read = match self.stream.try_read(space) {
            Ok(0) => return Some(1006),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(_) => return Some(1006),
        };
        buffer[..kept].copy_from_slice(rest);
        rest.clear();
        let (used, code) = self.frames(&buffer[..kept + read]);
        rest.extend_from_slice(&buffer[used..kept + read]);
        code
    }

    fn take(self: &Rc<Self>, rest: &mut Vec<u8>) -> Option<u16> {
        let (used, code) = self.frames(rest);
        rest.drain(..used);
        code
    }

    /// Takes whole frames; tells how many bytes they were.
    fn frames(self: &Rc<Self>, bytes: &[u8]) -> (usize, Option<u16>) {
        let mut used = 0;
        loop {
            match frame::first(&bytes[used..]) {
                Ok(None) => return (used, None),
                Ok(Some((frame, length))) => {
                    used += length;
                    match frame {
                        Frame::Data(text) => self.hear(text),
                        Frame::Ping(payload) => {
                            frame::pong(&mut self.out.borrow_mut(), payload);
                            self.flush();
                        }
                        Frame::Pong => {}
                        Frame::Close(code) => return (used, Some(code)),
                    }
                }
                Err(frame::Malformed) => return (used, Some(1002)),
            }
        }
    }

    fn hear(self: &Rc<Self>, text: &[u8]) {
        match wire::read(self.transport, text) {
            Heard::Message { seq, mark } => {
                self.heard(seq, mark);
                self.keep_cursor(text);
            }
            Heard::Stored { id, seq } => self.stored(id, seq),
            Heard::Refused { id, why } => {
                if let Some(board) = &*self.scene.board.borrow() {
                    board.refuse(id, why);
                }
            }
            Heard::Ready => {
                // One that resumes begins with what it has, until it has been told all.
                if self.ear.cursor.borrow().is_empty() {
                    self.keep_cursor(text);
                } else if memmem::find(text, b"\"resumed\":true").is_none() {
                    self.resumed.set(Some(false));
                }
                self.ready.set(true);
                self.news.notify_one();
            }
            Heard::Resumed => {
                self.keep_cursor(text);
                self.resumed.set(Some(true));
                self.news.notify_one();
            }
            Heard::Opened => self.answer(b"40"),
            Heard::Ping => self.answer(b"3"),
            Heard::Other => {}
        }
    }

    fn answer(self: &Rc<Self>, text: &[u8]) {
        frame::text(&mut self.out.borrow_mut(), text);
        self.flush();
    }

    fn keep_cursor(&self, text: &[u8]) {
        let key = b"\"cursor\":\"";
        let Some(at) = memmem::rfind(text, key) else { return };
        let cursor = &text[at + key.len()..];
        let end = cursor.iter().position(|byte| *byte == b'"').unwrap_or(cursor.len());
        let mut kept = self.ear.cursor.borrow_mut();
        kept.clear();
        kept.extend_from_slice(&cursor[..end]);
    }

    fn heard(&self, seq: u64, mark: Mark) {
        let board = self.scene.board.borrow();
        let Some(board) = board.as_ref().filter(|board| board.run == mark.run) else { return };
        self.count(board, mark.chat, seq, |feed| feed.heard += 1);
        board.hear(mark.chat, mark.due);
    }

    fn stored(&self, id: u64, seq: u64) {
        let board = self.scene.board.borrow();
        let Some(board) = &*board else { return };
        if let Some(chat) = board.stored(id) {
            self.count(board, chat, seq, |feed| feed.own += 1);
        }
    }

    fn count(&self, board: &Board, chat: u32, seq: u64, counted: impl FnOnce(&mut Feed)) {
        self.ear.count(board, chat, seq, counted);
    }
}

impl Ear {
    /// The last cursor that it was told.
    pub fn cursor(&self) -> String {
        String::from_utf8_lossy(&self.cursor.borrow()).into_owned()
    }

    fn count(&self, board: &Board, chat: u32, seq: u64, counted: impl FnOnce(&mut Feed)) {
        let mut feeds = self.feeds.borrow_mut();
        if self.run.replace(board.run) != board.run {
            feeds.clear();
        }
        let at = match feeds.binary_search_by_key(&chat, |feed| feed.chat) {
            Ok(at) => at,
            Err(at) => {
                feeds.insert(at, Feed { chat, ..Feed::default() });
                at
            }
        };
        let feed = &mut feeds[at];
        counted(feed);
        match seq.cmp(&feed.last) {
            Ordering::Greater => feed.last = seq,
            Ordering::Equal => board.twice.set(board.twice.get() + 1),
            Ordering::Less => board.disordered.set(board.disordered.get() + 1),
        }
    }

    /// What it should have heard in the run, and has not, of these chats.
    pub fn lost(&self, board: &Board, chats: impl Iterator<Item = u32>) -> u64 {
        let feeds = self.feeds.borrow();
        let of = |chat: u32| {
            let found = feeds.binary_search_by_key(&chat, |feed| feed.chat).ok();
            let feed = found.filter(|_| self.run.get() == board.run).map(|at| feeds[at]);
            let feed = feed.unwrap_or_default();
            board.stored_in(chat).saturating_sub(feed.heard + feed.own)
        };
        chats.map(of).sum()
    }
}

/// Connects, and asks for a WebSocket; tells what came after the response as well.
async fn upgraded(call: Call<'_>) -> Result<(TcpStream, Vec<u8>)> {
    let from = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + call.number / PER_ADDRESS % 250)?);
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(call.gateway).await?;
    stream.set_nodelay(true)?;
    let path = call.transport.path();
    let cursor = match call.cursor {
        Some(cursor) if path.contains('?') => format!("&cursor={cursor}"),
        Some(cursor) => format!("?cursor={cursor}"),
        None => String::new(),
    };
    let request = format!(
        "GET {path}{cursor} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {}\r\n\r\n",
        call.gateway, call.token
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(1024);
    let end = loop {
        if let Some(end) = memmem::find(&head, b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(head.len() < HEAD, "the response's head does not end");
        ensure!(stream.read_buf(&mut head).await? > 0, "hung up");
    };
    let status = head.get(9..12).unwrap_or_default();
    ensure!(status == b"101", "refused with {}", String::from_utf8_lossy(status));
    Ok((stream, head.split_off(end)))
}
