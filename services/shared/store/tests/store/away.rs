//! Postgres away, frozen, and back.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use natter_cluster::testing;
use natter_store::{Store, StoreConfig};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::support::{Away, person};

#[tokio::test]
async fn a_store_is_unavailable_while_postgres_is_away_and_recovers_by_itself() -> Result<()> {
    let postgres = testing::postgres_fresh().await?;
    let call_timeout = Duration::from_secs(3);
    let config = StoreConfig { call_timeout, ..StoreConfig::new(postgres.url()) };
    let store = Store::connect(&config)?;
    tokio::time::timeout(Duration::from_mins(1), async { while store.migrate().await.is_err() {} })
        .await?;
    let ana = person(&store, "Ana").await?;

    postgres.kill().await?;
    for store in [store.clone(), Store::connect(&config)?] {
        let began = Instant::now();
        let error = store.user(ana).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(began.elapsed() < config.acquire_timeout * 5);
    }
    postgres.start().await?;
    assert!(recovers(&store).await);

    postgres.pause()?;
    let began = Instant::now();
    let frozen = store.user(ana).await;
    postgres.resume()?;
    if let Err(error) = frozen {
        assert!(error.is_unavailable(), "{error:?}");
    }
    assert!(began.elapsed() < config.acquire_timeout * 5);
    assert!(recovers(&store).await);
    assert_eq!(store.user(ana).await?.unwrap().name, "Ana");

    // In good order: idle connections are told so, and a call replaces them.
    postgres.restart().await?;
    assert!(recovers(&store).await);
    Ok(())
}

async fn recovers(store: &Store) -> bool {
    let answered = async { while store.ping().await.is_err() {} };
    tokio::time::timeout(Duration::from_mins(1), answered).await.is_ok()
}

/// The way to a server, which may freeze, or vanish without a word.
struct Way {
    url: String,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Nothing gets through until it thaws.
    frozen: bool,
    /// What was open when this was counted up is swallowed for ever.
    vanished: usize,
}

impl Way {
    async fn to(url: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (credentials, rest) = url.rsplit_once('@').context("credentials")?;
        let (address, database) = rest.split_once('/').context("a database")?;
        let url = format!("{credentials}@{}/{database}", listener.local_addr()?);
        let (state, watched) = watch::channel(State::default());
        let address = address.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, address.clone(), watched.clone()));
            }
        });
        Ok(Self { url, state })
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }
}

async fn pass(mut client: TcpStream, server: String, mut state: watch::Receiver<State>) {
    let opened = state.borrow().vanished;
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let mut passing = pin!(copy_bidirectional(&mut client, &mut server));
    loop {
        let State { frozen, vanished } = *state.borrow_and_update();
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return },
            _ = &mut passing, if !frozen && vanished == opened => return,
        }
    }
}

#[tokio::test]
async fn a_call_that_a_frozen_server_holds_comes_back() -> Result<()> {
    let database = testing::postgres().await?;
    Store::connect(&StoreConfig::new(database.as_str()))?.migrate().await?;
    let way = Way::to(&database).await?;
    let config = StoreConfig {
        max_connections: 4,
        call_timeout: Duration::from_secs(1),
        ..StoreConfig::new(way.url.as_str())
    };
    let store = Store::connect(&config)?;
    // So that each connection is frozen somewhere else: asked, in a transaction, on its way back.
    let asked = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let (store, asked) = (store.clone(), asked.clone());
        tasks.spawn(async move {
            while if n % 2 == 0 {
                store.ping().await.is_ok()
            } else {
                person(&store, "somebody").await.is_ok()
            } {
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while asked.load(Ordering::Relaxed) < 200 {
        tokio::task::yield_now().await;
    }
    way.set(|state| state.frozen = true);
    let began = Instant::now();
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    assert!(store.ping().await.unwrap_err().is_unavailable());
    // A wait for a connection and a call each, with room for a slow machine.
    let bound = (config.acquire_timeout + config.call_timeout) * 2;
    assert!(began.elapsed() < bound * 2, "{:?}", began.elapsed());
    // Nor does the end of the process wait for it.
    let began = Instant::now();
    store.close();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());

    way.set(|state| state.frozen = false);
    let store = Store::connect(&config)?;
    assert!(recovers(&store).await);
    person(&store, "Ana").await?;
    Ok(())
}

#[tokio::test]
async fn what_a_vanished_host_holds_takes_no_connections_place() -> Result<()> {
    // A database with its schema, and then one connection to it: the place that may be lost.
    let database = testing::postgres().await?;
    Store::connect(&StoreConfig::new(database.as_str()))?.migrate().await?;
    let way = Way::to(&database).await?;
    let store = Store::connect(&StoreConfig {
        max_connections: 1,
        call_timeout: Duration::from_secs(1),
        acquire_timeout: Duration::from_secs(10),
        ..StoreConfig::new(way.url.as_str())
    })?;
    let ana = person(&store, "Ana").await?;
    let made = store.create_group(ana, None, false, &[], 0).await?;

    // In the middle of a transaction: the call comes back, and the next has a connection.
    let (holding, mut held) = watch::channel(false);
    let relay = store.relay(made.chat.0, async |_, _, _| {
        holding.send_replace(true);
        std::future::pending::<Result<u64, Away>>().await
    });
    // Given up by its caller, as a request whose client has gone.
    tokio::select! {
        _ = relay => panic!("nothing was published"),
        changed = held.changed() => changed?,
    }
    way.set(|state| state.vanished += 1);
    store.ping().await?;

    // On its way back from that, or idle: then its first caller finds it dead.
    way.set(|state| state.vanished += 1);
    let _ = store.ping().await;
    store.ping().await?;
    Ok(())
}
