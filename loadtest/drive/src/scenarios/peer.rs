//! Natter beside nats-server's own WebSocket, which stores nothing, knows nobody, and is as fast as
//! it gets.

use std::{
    cell::{Cell, RefCell},
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use memchr::memmem;
use natter_cluster::install;
use natter_e2e::{crowd::AT_ONCE, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task,
    time::sleep,
};

use super::Extent;
use crate::{
    board::Board,
    figures::Figures,
    frame::{self, Frame},
    metronome::Metronome,
    results::{Goal, Sheet},
    used::{self, Used},
    wire::{Mark, Transport},
    world::{Load, Plan, World},
};

/// Messages a second: to nine of ten each, so 10,000 deliveries/s.
const RATE: f64 = 10_000.0 / 9.0;
const SIZE: usize = 10;

/// Groups of 10, and the same over nats-server.
pub async fn latency(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "1,000 people in 100 groups of 10 on two gateways, 1,111 messages/s in all of them \
         together; and the same over the WebSocket of one nats-server, a subject for each group, \
         in turn.",
    );
    let people = 1_000 / extent.smaller;
    let mut world = World::build(&Plan { people, size: SIZE, ..Plan::default() }).await?;
    world.connect(Transport::Native, 2).await?;
    let peer = Peer::start(people, SIZE).await?;
    let rate = Some(RATE / extent.smaller as f64);
    let load = Load { rate, window: 1, time: extent.time, chats: world.groups.len() };
    world.play(Load { time: Duration::from_secs(2), ..load }).await?;
    for _ in 0..extent.repeat {
        let run = world.play(load).await?;
        sheet.promise("send to deliver, p50", "ms", Goal::AtMost(2.0), run.latency.p50);
        sheet.promise("send to deliver, p99", "ms", Goal::AtMost(10.0), run.latency.p99);
        sheet.note("per CPU-second of gateways", "deliveries", run.by_gateways());
        sheet.note("per CPU-second of all servers", "deliveries", run.by_servers());
        sheet.run("Natter", &run);
        peer.measure(&mut sheet, "nats-server's WebSocket", load).await?;
    }
    world.cluster.stop().await?;
    Ok(sheet)
}

/// A nats-server of its own, and connections to its WebSocket, in groups of one size.
pub(super) struct Peer {
    server: Server,
    size: usize,
    lines: Vec<Rc<PeerLine>>,
    board: Rc<RefCell<Option<Rc<Board>>>>,
    runs: Cell<u32>,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct PeerLine {
    stream: TcpStream,
    out: RefCell<Vec<u8>>,
}

impl Peer {
    /// So many people, in groups of `size`, or in one where they are fewer.
    pub(super) async fn start(people: usize, size: usize) -> Result<Self> {
        let size = size.min(people);
        let program = install::nats_server().context("nats-server is not installed")?;
        // Both are free again at once, and nobody else asks for them so soon.
        let port = || anyhow::Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?);
        let (plain, websocket) = (port()?, port()?);
        let dir = std::env::temp_dir().join(format!("natter-drive-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let config = dir.join("nats.conf");
        let text = format!(
            "listen: \"{plain}\"\nwebsocket {{\n  listen: \"{websocket}\"\n  no_tls: true\n}}\n"
        );
        fs::write(&config, text)?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Server(child);
        soon("nats-server listens", async || {
            Ok(TcpStream::connect(websocket).await.ok().map(drop))
        })
        .await?;
        fs::remove_dir_all(&dir)?;
        let board = Rc::default();
        let lines = (0..people).map(|number| PeerLine::open(websocket, number / size, &board));
        let lines = stream::iter(lines).buffered(AT_ONCE).try_collect().await?;
        Ok(Self { server, size, lines, board, runs: Cell::new(0) })
    }

    fn used(&self) -> Result<Used> {
        Ok(Used { nats: used::by_process(self.server.0.id())?, ..Used::default() })
    }

    /// Notes what it makes of this load.
    pub(super) async fn measure(&self, sheet: &mut Sheet, name: &str, load: Load) -> Result<()> {
        let run = self.play(load).await?;
        sheet.note(format!("{name}: send to deliver, p50"), "ms", run.latency.p50);
        sheet.note(format!("{name}: send to deliver, p99"), "ms", run.latency.p99);
        sheet.note(format!("{name}: per CPU-second"), "deliveries", run.by_servers());
        sheet.faults(name, &run);
        Ok(())
    }

    async fn play(&self, load: Load) -> Result<Figures> {
        let run = self.runs.get() + 1;
        self.runs.set(run);
        let groups = self.lines.len() / self.size;
        let board = Board::new(run, (0..groups).map(|_| self.size));
        *self.board.borrow_mut() = Some(Rc::clone(&board));
        let before = self.used()?;
        let rate = load.rate.context("no rate")?;
        let mut beats = Metronome::new(Duration::from_secs_f64(1.0 / rate))?;
        for n in 0..(rate * load.time.as_secs_f64()) as usize {
            let due = board.at(beats.beat().await?);
            let (chat, turn) = (n % groups, n / groups % self.size);
            let mark = Mark { run, chat: chat as u32, due };
            self.lines[chat * self.size + turn].publish(mark);
            // Nobody replies: it counts as stored once it is sent.
            let id = board.sending(mark.chat, due);
            board.stored(id);
        }
        let (sent, until) = (board.elapsed(), Instant::now() + Duration::from_secs(30));
        while !board.is_done() && Instant::now() < until {
            sleep(Duration::from_millis(2)).await;
        }
        let used = self.used()?.since(&before);
        let lost = board.expected.get().saturating_sub(board.heard.get());
        *self.board.borrow_mut() = None;
        Ok(Figures::of(&board, used, sent, board.elapsed(), lost))
    }
}

impl PeerLine {
    async fn open(
        server: SocketAddr,
        group: usize,
        board: &Rc<RefCell<Option<Rc<Board>>>>,
    ) -> Result<Rc<Self>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into())?;
        let mut stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut text = Vec::new();
        while memmem::find(&text, b"\r\n\r\n").is_none() {
            ensure!(stream.read_buf(&mut text).await? > 0, "hung up");
        }
        let mut first = Vec::new();
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"echo\":false}}\r\nSUB chat.{group} 1\r\nPING\r\n"
        );
        frame::binary(&mut first, hello.as_bytes());
        stream.write_all(&first).await?;
        while memmem::find(&text, b"PONG\r\n").is_none() {
            ensure!(stream.read_buf(&mut text).await? > 0, "hung up");
        }
        let line = Rc::new(Self { stream, out: RefCell::default() });
        task::spawn_local(Rc::clone(&line).listen(Rc::clone(board)));
        Ok(line)
    }

    fn publish(self: &Rc<Self>, mark: Mark) {
        let content = mark.content();
        let mut text = format!("PUB chat.{} {}\r\n", mark.chat, content.len()).into_bytes();
        text.extend_from_slice(&content);
        text.extend_from_slice(b"\r\n");
        frame::binary(&mut self.out.borrow_mut(), &text);
        self.flush();
    }

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
            Err(_) => out.clear(),
        }
        out.is_empty()
    }

    async fn listen(self: Rc<Self>, board: Rc<RefCell<Option<Rc<Board>>>>) {
        let (mut bytes, mut text) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 64 * 1024];
        while self.stream.readable().await.is_ok() {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            let mut used = 0;
            while let Ok(Some((frame, length))) = frame::first(&bytes[used..]) {
                used += length;
                match frame {
                    Frame::Data(data) => text.extend_from_slice(data),
                    Frame::Ping(payload) => {
                        frame::pong(&mut self.out.borrow_mut(), payload);
                        self.flush();
                    }
                    Frame::Pong => {}
                    Frame::Close(_) => return,
                }
            }
            bytes.drain(..used);
            self.take(&mut text, &board);
        }
    }

    /// Takes whole messages of the protocol.
    fn take(self: &Rc<Self>, text: &mut Vec<u8>, board: &RefCell<Option<Rc<Board>>>) {
        let mut at = 0;
        while let Some(end) = memmem::find(&text[at..], b"\r\n") {
            let line = &text[at..at + end];
            let next = at + end + 2;
            if line.starts_with(b"PING") {
                frame::binary(&mut self.out.borrow_mut(), b"PONG\r\n");
                self.flush();
                at = next;
                continue;
            }
            if !line.starts_with(b"MSG ") {
                at = next;
                continue;
            }
            let length = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
            let Some(length): Option<usize> = length else { return };
            let Some(content) = text.get(next..next + length + 2) else { break };
            let board = board.borrow();
            if let (Some(board), Some(mark)) = (&*board, Mark::read(content))
                && mark.run == board.run
            {
                board.hear(mark.chat, mark.due);
            }
            at = next + length + 2;
        }
        text.drain(..at);
    }
}
