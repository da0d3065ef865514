//! The servers that tests run on: they keep their data and address while they come and go, and
//! are gone with the process that started them.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use natter_cluster::{Node, install, testing};

use crate::support::{SOON, is_alive, jetstream::jetstream, soon};

/// Set for the test that plays a process to be killed.
const VICTIM: &str = "CLUSTER_TEST_VICTIM";

#[tokio::test]
async fn every_caller_gets_a_database_of_its_own() -> Result<()> {
    let (one, other) = tokio::try_join!(testing::postgres(), testing::postgres())?;
    assert_ne!(one, other);
    sql(&one, "CREATE TABLE notes (text text)")?;
    sql(&other, "CREATE TABLE notes (text text)")?;
    assert_ne!(testing::redis().await?, testing::redis().await?);
    assert_eq!(testing::nats().await?, testing::nats().await?);
    Ok(())
}

#[tokio::test]
async fn postgres_keeps_its_data_and_address_when_it_is_killed() -> Result<()> {
    let server = testing::postgres_fresh().await?;
    sql(server.url(), "CREATE TABLE notes (text text)")?;
    sql(server.url(), "INSERT INTO notes VALUES ('kept')")?;
    let first = server.pid().context("not running")?;

    server.kill().await?;
    assert_eq!(server.pid(), None);
    server.start().await?;

    assert_ne!(server.pid(), Some(first));
    assert_eq!(sql(server.url(), "SELECT text FROM notes")?, "kept");
    server.restart().await?;
    assert_eq!(sql(server.url(), "SELECT text FROM notes")?, "kept");
    Ok(())
}

#[tokio::test]
async fn postgres_is_made_for_all_languages() -> Result<()> {
    let url = testing::postgres().await?;
    assert_eq!(sql(&url, "SHOW server_encoding")?, "UTF8");
    assert_eq!(sql(&url, "SELECT upper('ä')")?, "Ä");
    Ok(())
}

#[tokio::test]
async fn nats_keeps_its_streams_when_it_is_killed_or_restarted() -> Result<()> {
    let server = testing::nats_fresh().await?;
    let made = jetstream(
        server.address(),
        "STREAM.CREATE.NOTES",
        r#"{"name":"NOTES","subjects":["notes"],"storage":"file"}"#,
    )?;
    assert!(made.contains(r#""did_create":true"#), "{made}");
    for _ in 0..2 {
        server.kill().await?;
        server.start().await?;
        let found = jetstream(server.address(), "STREAM.INFO.NOTES", "")?;
        assert!(found.contains(r#""subjects":["notes"]"#), "{found}");
        server.restart().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_paused_server_is_silent_until_it_is_resumed() -> Result<()> {
    let server = testing::redis_fresh().await?;
    let ask = |patience| -> Result<String> {
        let mut stream = TcpStream::connect(server.address())?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    };
    assert_eq!(ask(SOON)?, "+PONG\r\n");
    server.pause()?;
    assert!(ask(Duration::from_millis(200)).is_err());
    server.resume()?;
    assert_eq!(ask(SOON)?, "+PONG\r\n");
    // Also a paused one ends when it is told to.
    server.pause()?;
    server.terminate().await?.context("was not running")?;
    Ok(())
}

#[tokio::test]
async fn a_paused_postgres_answers_on_no_connection() -> Result<()> {
    let server = testing::postgres_fresh().await?;
    let program = install::postgres(None).context("installed")?.psql;
    let mut session = Command::new(program)
        .args(["-X", "-q", "-t", "-A", server.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut asked = session.stdin.take().context("no input")?;
    let (said, answers) = std::sync::mpsc::channel();
    let output = BufReader::new(session.stdout.take().context("no output")?);
    std::thread::spawn(move || output.lines().try_for_each(|line| said.send(line)));
    writeln!(asked, "SELECT 1;")?;
    assert_eq!(answers.recv_timeout(SOON)??, "1");
    // The connection has a process of its own.
    server.pause()?;
    writeln!(asked, "SELECT 2;")?;
    assert!(answers.recv_timeout(Duration::from_millis(300)).is_err());
    server.resume()?;
    assert_eq!(answers.recv_timeout(SOON)??, "2");
    // Also one that is killed while it stands still leaves no process behind.
    server.pause()?;
    server.kill().await?;
    drop(asked);
    session.wait()?;
    server.start().await?;
    Ok(())
}

#[tokio::test]
async fn a_dropped_server_leaves_nothing() -> Result<()> {
    let server = testing::postgres_fresh().await?;
    let (pid, dir) = (server.pid().context("not running")?, data_dir(&server)?);
    assert!(is_alive(pid) && Path::new(&dir).exists());
    drop(server);
    assert!(!is_alive(pid));
    soon("the directory is removed", || !Path::new(&dir).exists())
}

#[tokio::test]
async fn a_killed_process_takes_its_servers_and_their_data_with_it() -> Result<()> {
    let mut victim = Command::new(env::current_exe()?)
        .args(["--exact", "servers::victim", "--nocapture", "--test-threads=1"])
        .env(VICTIM, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = victim.stdout.take().context("no output")?;
    let mut servers = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some((_, server)) = line.split_once("server: ") {
            let (pid, dir) = server.split_once(' ').context("no directory")?;
            servers.push((pid.parse::<u32>()?, dir.to_owned()));
        }
        if servers.len() == 3 {
            break;
        }
    }
    ensure!(servers.len() == 3, "the victim ended before its time");
    assert!(servers.iter().all(|(pid, _)| is_alive(*pid)));

    // SIGKILL: nothing in there runs any more.
    victim.kill()?;
    victim.wait()?;

    for (pid, dir) in servers {
        soon("the server ends", || !is_alive(pid))?;
        soon("its data are removed", || !Path::new(&dir).exists())?;
    }
    Ok(())
}

/// Not a test of its own: the process that
/// `a_killed_process_takes_its_servers_and_their_data_with_it` kills.
#[tokio::test]
async fn victim() -> Result<()> {
    if env::var_os(VICTIM).is_none() {
        return Ok(());
    }
    let (postgres, redis, nats) =
        tokio::try_join!(testing::postgres_fresh(), testing::redis_fresh(), testing::nats_fresh())?;
    // One that nobody will wake must end too.
    nats.pause()?;
    for node in [&*postgres, &*redis, &*nats] {
        let pid = node.pid().context("not running")?;
        println!("server: {pid} {}", data_dir(node)?);
    }
    std::future::pending::<()>().await;
    Ok(())
}

/// The directory that a server lives in.
fn data_dir(node: &Node) -> Result<String> {
    let dir = node.log().ancestors().nth(2).context("no directory")?;
    Ok(dir.display().to_string())
}

fn sql(url: &str, statement: &str) -> Result<String> {
    let psql = install::postgres(None).context("no PostgreSQL")?.psql;
    let output =
        Command::new(psql).args(["-X", "-q", "-t", "-A", "-d", url, "-c", statement]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{statement}: {said}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
