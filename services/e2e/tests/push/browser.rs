//! The page in a real Chromium, driven over its own protocol.
//!
//! Everything is real but the browser's connection to its push service, which is outside: the page
//! registers the service worker, asks for permission and registers the device; Natter encrypts and sends; the push
//! service here decrypts as a browser would; and what it has decrypted is handed to the service worker by
//! the browser's own `ServiceWorker.deliverPushMessage`. Subscribing alone is stood in for, since
//! `pushManager.subscribe` asks that push service. Where there is no Chromium it is said that this was not told.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::{SinkExt, StreamExt};
use natter_e2e::{Api, Person, soon};
use natter_protocol::{ids::ChatId, push::Target, rest::DeviceList};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::push::support::{STAGE, pushed, services};

/// How long an answer of the browser may take.
const ANSWERED: Duration = Duration::from_secs(20);
/// How it is called.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one page, until dropped.
struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    child: Child,
    session: String,
    calls: u64,
    events: VecDeque<Value>,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Browser {
    /// None where there is none.
    async fn start(origin: &str) -> Result<Option<Self>> {
        let profile = tempfile::tempdir()?;
        let Some(mut child) = NAMES.iter().find_map(|name| spawn(name, &profile).ok()) else {
            return Ok(None);
        };
        let said = child.stderr.take().context("no output")?;
        let address = spawn_blocking(move || {
            let mut lines = BufReader::new(said).lines().map_while(Result::ok);
            let address = lines.find_map(|line| {
                line.strip_prefix("DevTools listening on ").map(ToOwned::to_owned)
            });
            // It must not be stopped by what nobody reads.
            std::thread::spawn(move || lines.for_each(drop));
            address
        })
        .await?;
        let (socket, _) = connect_async(address.context("no DevTools")?).await?;
        let mut browser = Self {
            socket,
            child,
            session: String::new(),
            calls: 0,
            events: VecDeque::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach).await?;
        let permissions = json!({"origin": origin, "permissions": ["notifications"]});
        browser.call("Browser.grantPermissions", permissions).await?;
        browser.session = session["sessionId"].as_str().context("no session")?.to_owned();
        browser.call("Page.enable", json!({})).await?;
        browser.call("ServiceWorker.enable", json!({})).await?;
        Ok(Some(browser))
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_empty() {
            call["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(call.to_string())).await?;
        loop {
            let heard = self.hear().await.with_context(|| method.to_owned())?;
            if heard["id"] != json!(self.calls) {
                self.events.push_back(heard);
                continue;
            }
            ensure!(heard["error"].is_null(), "{method}: {}", heard["error"]);
            return Ok(heard["result"].clone());
        }
    }

    async fn hear(&mut self) -> Result<Value> {
        loop {
            match timeout(ANSWERED, self.socket.next()).await?.context("the browser is gone")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(_) => bail!("the browser has closed"),
                _ => {}
            }
        }
    }

    /// The first event of this name that `find` finds something in.
    async fn event<T>(&mut self, name: &str, find: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let of =
            |event: &Value| (event["method"] == name).then(|| find(&event["params"])).flatten();
        if let Some(found) = self.events.iter().find_map(of) {
            return Ok(found);
        }
        loop {
            let heard = self.hear().await?;
            if let Some(found) = of(&heard) {
                return Ok(found);
            }
            self.events.push_back(heard);
        }
    }

    /// What an expression of the page comes to, as if its user had just clicked.
    async fn eval(&mut self, expression: &str) -> Result<Value> {
        let params = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let told = self.call("Runtime.evaluate", params).await?;
        ensure!(told["exceptionDetails"].is_null(), "{expression}: {}", told["exceptionDetails"]);
        Ok(told["result"]["value"].clone())
    }

    /// The same again and again, until it is true.
    async fn until(&mut self, expression: &str) -> Result<()> {
        soon(expression, async || {
            // While the page is loaded anew there is none to ask.
            let told = self.eval(expression).await.unwrap_or_default();
            Ok((told == json!(true)).then_some(()))
        })
        .await
    }

    /// Titles, bodies and tags of the notifications that are there.
    async fn notifications(&mut self) -> Result<Vec<Value>> {
        let told = self
            .eval(
                "navigator.serviceWorker.ready.then((worker) => worker.getNotifications())
                     .then((all) => all.map(({ title, body, tag }) => ({ title, body, tag })))",
            )
            .await?;
        Ok(told.as_array().cloned().unwrap_or_default())
    }
}

fn spawn(name: &str, profile: &TempDir) -> std::io::Result<Child> {
    Command::new(name)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--remote-debugging-port=0", "--disable-background-networking"])
        // A page that is left has ended.
        .arg("--disable-features=BackForwardCache")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// What the page's push service has decrypted of a message.
async fn arrived(api: &Api, chat: ChatId, text: &str, target: &Target) -> Result<Value> {
    let sent = api.say(chat, text).await?;
    soon("the push service has it", async || {
        let found = pushed(target).into_iter();
        let mut found = found.filter(|pushed| pushed.notice["messageId"] == json!(sent.id));
        Ok(found.next().map(|pushed| pushed.notice))
    })
    .await
}

#[tokio::test]
async fn a_browser_is_asked_registers_and_shows_each_message_once() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let origin = format!("http://{}", cluster.gateway(0).address());
    let Some(mut browser) = Browser::start(&origin).await? else {
        println!("not told: there is no Chromium");
        return Ok(());
    };
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;

    // Ben signs in, and asks for notifications.
    browser.call("Page.navigate", json!({"url": format!("{origin}/")})).await?;
    browser.until("!document.getElementById('auth').hidden").await?;
    let sign_in = format!(
        "document.getElementById('auth-login').value = {};
         document.getElementById('auth-password').value = {};
         document.getElementById('auth-form').requestSubmit();",
        json!(ben.phone),
        json!(ben.password)
    );
    browser.eval(&sign_in).await?;
    browser.until("!document.getElementById('shell').hidden").await?;
    let target = services().subscribe()?;
    let mut subscription = json!(target);
    subscription.as_object_mut().context("an object")?.remove("provider");
    let stand_in = format!(
        "PushManager.prototype.subscribe = async ({{ applicationServerKey }}) => {{
             window.subscribedWith = applicationServerKey;
             return {{ toJSON: () => ({subscription}) }};
         }};
         document.getElementById('account').click();
         document.getElementById('alerts').open = true;
         document.getElementById('alerts-on').click();"
    );
    browser.eval(&stand_in).await?;
    browser.until("!document.getElementById('alerts-off').hidden").await?;
    let key = browser.eval("window.subscribedWith").await?;
    assert_eq!(key, json!(services().web_push.key));
    let registration = browser
        .event("ServiceWorker.workerVersionUpdated", |params| {
            let versions = params["versions"].as_array()?.iter();
            let mut active = versions.filter(|version| version["status"] == "activated");
            Some(active.next()?["registrationId"].as_str()?.to_owned())
        })
        .await?;

    // He goes, and Ana writes. (What shows notifications stays: another page of the same origin.)
    browser.call("Page.navigate", json!({"url": format!("{origin}/style.css")})).await?;
    browser.until("location.pathname === '/style.css'").await?;
    soon("he is offline", async || {
        let devices: DeviceList = ben.api(0).get("/devices").await?.read(200)?;
        Ok(devices.items.iter().all(|device| !device.online).then_some(()))
    })
    .await?;
    let first = arrived(&ana.api(0), chat, "Hello Ben", &target).await?;
    let deliver = |notice: &Value| json!({"origin": origin, "registrationId": registration, "data": notice.to_string()});
    browser.call("ServiceWorker.deliverPushMessage", deliver(&first)).await?;
    let shown = |title: &str, body: &str| json!([{"title": title, "body": body, "tag": chat}]);
    soon("it shows", async || {
        Ok((json!(browser.notifications().await?) == shown("Ana", "Hello Ben")).then_some(()))
    })
    .await?;
    let second = arrived(&ana.api(0), chat, "Are you there?", &target).await?;
    browser.call("ServiceWorker.deliverPushMessage", deliver(&second)).await?;
    soon("it takes the place of the first, with the number of both", async || {
        let told = json!(browser.notifications().await?);
        Ok((told == shown("Ana (2)", "Are you there?")).then_some(()))
    })
    .await?;
    // The first once more, as it comes when nobody knows whether it did.
    browser.call("ServiceWorker.deliverPushMessage", deliver(&first)).await?;
    let third = arrived(&ana.api(0), chat, "No?", &target).await?;
    browser.call("ServiceWorker.deliverPushMessage", deliver(&third)).await?;
    soon("the third shows", async || {
        let told = json!(browser.notifications().await?);
        ensure!(!told.to_string().contains("Hello Ben"), "it was shown again: {told}");
        Ok((told == shown("Ana (3)", "No?")).then_some(()))
    })
    .await
}
