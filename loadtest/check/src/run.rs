//! A run: users, chats, devices, their work; then quiet, and everything read back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use natter_protocol::ids::{ChatId, Seq, UserId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    SeededFault,
    asked::{Draft, acked},
    client::{Rest, id, send_body},
    counts::Counts,
    device::Driver,
    moves::Moves,
    observations::{Chat, Device, Kind, Observations, Outcome, Seen, Told},
    seeded,
    shared::{Known, Shared, lock},
    verify::{Verdict, verify},
};

/// How long the cluster may take, once it is left alone, to bring everything to everybody.
const QUIET: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(50);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `http://host:port` of each gateway, or of a load balancer.
    pub gateways: Vec<String>,
    /// Users: 3 to 1,000.
    pub users: usize,
    /// Devices of each: 1 to 100; one of them is revoked only where there are 2.
    pub devices: usize,
    /// Groups, up to 1,000, every second one open to join; besides, at most three one-to-ones. Only
    /// open ones are joined and left.
    pub groups: usize,
    /// What all devices do together in a second, about; most of it is sending. Above 0, up to
    /// 10,000.
    pub rate: f64,
    /// What chance follows.
    pub seed: u64,
    /// A fault of the observer.
    pub fault: Option<SeededFault>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            gateways: Vec::new(),
            users: 8,
            devices: 2,
            groups: 4,
            rate: 40.0,
            seed: 1,
            fault: None,
        }
    }
}

impl Plan {
    fn check(&self) -> Result<(), CheckError> {
        let plan = |sound: bool, needs| if sound { Ok(()) } else { Err(CheckError::Plan(needs)) };
        plan(!self.gateways.is_empty(), "a gateway")?;
        plan((3..=1_000).contains(&self.users), "3 to 1,000 users")?;
        plan((1..=100).contains(&self.devices), "1 to 100 devices for each user")?;
        plan(self.groups <= 1_000, "at most 1,000 groups")?;
        plan(self.rate > 0.0 && self.rate <= 10_000.0, "a rate above 0, up to 10,000")
    }
}

/// Why a run could not be made, or brought to its end.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A plan that cannot work.
    #[error("a plan needs {0}")]
    Plan(&'static str),
    /// The HTTP client.
    #[error("the HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// A gateway refused what it should not.
    #[error("{path} was refused: {status} {code}")]
    Refused {
        /// Which call.
        path: String,
        /// The HTTP status.
        status: u16,
        /// The problem's code.
        code: String,
        /// A try before was not answered, so what was asked for may be done.
        unsure: bool,
    },
    /// A gateway has not answered for minutes.
    #[error("{path} was not answered")]
    NoAnswer {
        /// Which call.
        path: String,
    },
    /// An answer that says something else than the protocol.
    #[error("{0} was answered by something else")]
    Unexpected(&'static str),
    /// Nothing was seen that the wanted fault of the observer could spoil, so the verdict says
    /// nothing about the checker.
    #[error("too little was seen for the fault {0:?} to spoil it")]
    NothingToSpoil(SeededFault),
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What chance followed.
    pub seed: u64,
    /// How long the work took, in seconds.
    pub seconds: f64,
    /// What was done.
    pub counts: Counts,
    /// What was wrong.
    pub verdict: Verdict,
}

/// A run under way.
pub struct Run {
    plan: Plan,
    rest: Rest,
    shared: Arc<Shared>,
    people: Vec<Person>,
    chats: Vec<Made>,
    devices: Vec<Driven>,
    moves: Vec<Moves>,
    working: watch::Sender<bool>,
    tasks: JoinSet<()>,
    began: Instant,
}

/// A device, and whether it is in place: see [`Driver::settled`].
struct Driven {
    device: Arc<Mutex<Device>>,
    settled: Arc<AtomicBool>,
}

struct Person {
    id: UserId,
    tokens: Vec<String>,
}

struct Made {
    id: ChatId,
    founders: Vec<usize>,
    open: bool,
}

impl Run {
    /// Registers users, connects their devices, makes the chats, and sets everybody to work.
    ///
    /// # Errors
    /// When the plan is beyond its bounds, nobody is at one of the addresses (10 s), or the cluster
    /// refuses, or does not answer for minutes.
    pub async fn start(plan: Plan) -> Result<Self, CheckError> {
        plan.check()?;
        let rest = Rest::new(plan.gateways.clone())?;
        rest.greet().await?;
        let names = (0..plan.users).map(|n| register(&rest, n, plan.devices));
        let people = try_join_all(names).await?;
        let (working, work) = watch::channel(true);
        let mut run = Self {
            shared: Arc::new(Shared::new()),
            plan,
            rest,
            people,
            chats: Vec::new(),
            devices: Vec::new(),
            moves: Vec::new(),
            working,
            tasks: JoinSet::new(),
            began: Instant::now(),
        };
        run.connect(&work).await?;
        run.make_chats().await?;
        Ok(run)
    }

    /// All devices are connected before there is a chat, so that each has all of each chat.
    async fn connect(&mut self, work: &watch::Receiver<bool>) -> Result<(), CheckError> {
        let count = self.people.len() * self.plan.devices;
        for (n, person) in self.people.iter().enumerate() {
            for (m, token) in person.tokens.iter().enumerate() {
                let name = format!("user {n}, device {m}");
                let (user, seen) = (person.id, Vec::new());
                let device = Device { user, name, seen, revoked: None, shut_out: false };
                let device = Arc::new(Mutex::new(device));
                let (rest, shared) = (self.rest.clone(), Arc::clone(&self.shared));
                let moves = (m == 0 && n > 0)
                    .then(|| Moves::new(user, token.clone(), rest.clone(), Arc::clone(&shared)));
                self.moves.extend(moves.clone());
                let settled = Arc::default();
                let driver = Driver {
                    rest,
                    token: token.clone(),
                    device: Arc::clone(&device),
                    shared,
                    work: work.clone(),
                    settled: Arc::clone(&settled),
                    moves,
                    pace: Duration::from_secs_f64(count as f64 / self.plan.rate),
                    rng: StdRng::seed_from_u64(self.plan.seed ^ (n * 1_000 + m) as u64),
                };
                self.devices.push(Driven { device, settled });
                self.tasks.spawn(driver.run());
            }
        }
        let connected = async {
            while self.devices.iter().any(|driven| lock(&driven.device).seen.is_empty()) {
                sleep(LOOK).await;
            }
        };
        let connected = timeout(QUIET, connected).await;
        connected.map_err(|_| CheckError::NoAnswer { path: "/ws".to_owned() })
    }

    async fn make_chats(&mut self) -> Result<(), CheckError> {
        let mut rng = StdRng::seed_from_u64(self.plan.seed);
        for n in 0..self.plan.groups {
            let open = n % 2 == 0;
            let founders: Vec<usize> = (0..self.people.len())
                .filter(|user| *user == 0 || !open || rng.random_bool(0.7))
                .collect();
            let others: Vec<UserId> =
                founders.iter().skip(1).map(|user| self.people[*user].id).collect();
            let title = format!("Checked {n}");
            let body =
                json!({"isGroup": true, "title": title, "open": open, "participantIds": others});
            self.make(founders, open, body).await?;
        }
        for pair in 1..self.people.len().min(4) {
            let body = json!({"isGroup": false, "participantIds": [self.people[pair].id]});
            self.make(vec![0, pair], false, body).await?;
        }
        let mut chats = self.shared.chats();
        for Made { id, open, founders } in &self.chats {
            let founders = founders.iter().map(|user| self.people[*user].id).collect();
            chats.push(Known { id: *id, open: *open, members: founders });
        }
        Ok(())
    }

    async fn make(
        &mut self,
        founders: Vec<usize>,
        open: bool,
        body: Value,
    ) -> Result<(), CheckError> {
        let token = &self.people[0].tokens[0];
        let chat = self.rest.insist(Method::POST, "/chats", Some(token), Some(body)).await?;
        let id = id(&chat["id"]).ok_or(CheckError::Unexpected("a new chat"))?;
        self.chats.push(Made { id, founders, open });
        Ok(())
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Ends one device's right to be here, of a user who has another one. It is insisted on for
    /// about 2 minutes; that it was not done then is for the verdict to tell.
    pub async fn revoke_one(&self) {
        if self.plan.devices < 2 {
            return;
        }
        let Person { id, tokens } = &self.people[1];
        let operation = self.shared.operation(Kind::Revoke, *id, None);
        let path = "/auth/logout";
        let done = match self.rest.insist(Method::POST, path, Some(&tokens[1]), None).await {
            // It had been done by a try that was not answered.
            Err(CheckError::Refused { status: 401, unsure: true, .. }) => Ok(()),
            done => done.map(drop),
        };
        if done.is_ok() {
            let at = self.shared.now();
            lock(&self.devices[self.plan.devices + 1].device).revoked = Some(at);
        }
        self.shared.told(operation, Told::from(done));
    }

    /// Ends the work, waits until everybody has everything, reads all back, and verifies.
    ///
    /// # Errors
    /// When the cluster cannot be asked for minutes, or there is nothing for the wanted fault to
    /// spoil.
    pub async fn finish(self) -> Result<Report, CheckError> {
        self.observed().await.map(|(report, _)| report)
    }

    /// The same, with what was seen.
    ///
    /// # Errors
    /// As [`Run::finish`].
    pub async fn observed(mut self) -> Result<(Report, Observations), CheckError> {
        let seconds = self.began.elapsed().as_secs_f64();
        let _ = self.working.send(false);
        self.settle().await;
        self.quiesce().await;
        let mut seen = self.read_back().await?;
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        if let Some(fault) = self.plan.fault
            && !seeded::spoil(&mut seen, fault, self.plan.seed)
        {
            return Err(CheckError::NothingToSpoil(fault));
        }
        let (seed, counts) = (self.plan.seed, self.counts());
        Ok((Report { seed, seconds, counts, verdict: verify(&seen) }, seen))
    }

    /// Until nobody is between two chats any more, and every device that may be here is, and could
    /// send a last word; or too much time has passed, and the verdict tells who is not.
    async fn settle(&self) {
        let out = || {
            self.devices.iter().filter(|Driven { device, settled }| {
                lock(device).revoked.is_none() && !settled.load(Ordering::Relaxed)
            })
        };
        let everybody = async {
            while self.moves.iter().any(Moves::under_way) || out().next().is_some() {
                sleep(LOOK).await;
            }
        };
        if timeout(QUIET, everybody).await.is_err() {
            for Driven { device, .. } in out() {
                lock(device).shut_out = true;
            }
        }
    }

    /// A last message in each chat, until all who are in it have it; or too much time has passed,
    /// and the verdict tells who has not.
    async fn quiesce(&self) {
        let mut marks: Vec<(ChatId, Seq, Vec<UserId>)> = Vec::new();
        for chat in &self.chats {
            // The founder never leaves.
            let (token, sender) = (&self.people[0].tokens[0], self.people[0].id);
            let (client_msg_id, content) = (Uuid::now_v7().to_string(), "the end".to_owned());
            let body = send_body(&client_msg_id, &content);
            let draft = Draft { chat: chat.id, client_msg_id, content };
            let attempt = self.shared.attempt(draft.attempt(sender, None, &self.shared));
            let path = format!("/chats/{}/messages", chat.id);
            let sent = self.rest.insist(Method::POST, &path, Some(token), Some(body)).await;
            let outcome = sent.ok().and_then(|sent| acked(&sent, &self.shared));
            let Some(outcome @ Outcome::Acked { seq, .. }) = outcome else {
                lock(&self.devices[0].device).shut_out = true;
                continue;
            };
            self.shared.settle(attempt, outcome);
            let known = self.shared.chats();
            let members = known.iter().find(|known| known.id == chat.id);
            marks.push((chat.id, seq, members.map(|m| m.members.clone()).unwrap_or_default()));
        }
        let everybody = async {
            while !marks.iter().all(|(chat, seq, members)| self.have(*chat, *seq, members)) {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(QUIET, everybody).await;
    }

    fn have(&self, chat: ChatId, seq: Seq, members: &[UserId]) -> bool {
        self.devices.iter().map(|driven| lock(&driven.device)).all(|device| {
            let bystander = device.revoked.is_some() || !members.contains(&device.user);
            bystander
                || device.seen.iter().rev().any(|(_, seen)| match seen {
                    Seen::Entry(of, entry) => *of == chat && entry.seq >= seq,
                    Seen::Fetched(of, entries) => {
                        *of == chat && entries.iter().any(|entry| entry.seq >= seq)
                    }
                    Seen::Connected | Seen::Added(_) | Seen::Lost(_) => false,
                })
        })
    }

    async fn read_back(&self) -> Result<Observations, CheckError> {
        let mut chats = Vec::new();
        for Made { id, founders, .. } in &self.chats {
            let token = &self.people[0].tokens[0];
            let gateways = 0..self.rest.gateways.len();
            let histories = gateways.map(|gateway| self.rest.history(gateway, token, *id, 0));
            let histories = try_join_all(histories).await?;
            let founders = founders.iter().map(|user| self.people[*user].id).collect();
            chats.push(Chat { id: *id, founders, histories });
        }
        let devices = self.devices.iter().map(|driven| lock(&driven.device).clone()).collect();
        let (attempts, operations) = self.shared.recorded();
        Ok(Observations { attempts, operations, devices, chats })
    }
}

async fn register(rest: &Rest, n: usize, devices: usize) -> Result<Person, CheckError> {
    let unique = Uuid::new_v4().simple().to_string();
    let (email, password) = (format!("check-{unique}@example.com"), unique);
    let body = json!({"name": format!("Check {n}"), "email": email, "password": password});
    let first = rest.insist(Method::POST, "/auth/register", None, Some(body)).await?;
    let token = |session: &Value| session["accessToken"].as_str().map(str::to_owned);
    let unexpected = || CheckError::Unexpected("a session");
    let mut tokens = vec![token(&first).ok_or_else(unexpected)?];
    for _ in 1..devices {
        let body = json!({"email": email, "password": password});
        let session = rest.insist(Method::POST, "/auth/login", None, Some(body)).await?;
        tokens.push(token(&session).ok_or_else(unexpected)?);
    }
    let id = id(&first["user"]["id"]).ok_or_else(unexpected)?;
    Ok(Person { id, tokens })
}
