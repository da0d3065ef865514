//! Where a device is notified while it is not connected.

use std::fmt;

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use garde::Validate;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use crate::words::words;

/// Bytes of a Web Push endpoint.
pub const ENDPOINT_BYTES: usize = 2048;
/// Bytes of a token of FCM or of the webhook.
pub const TOKEN_BYTES: usize = 4096;
/// Bytes of a token of APNs as it is written: two digits a byte. Apple says no length.
pub const APNS_TOKEN_BYTES: usize = 400;
/// Bytes of a subscription's public key.
pub const P256DH_BYTES: usize = 65;
/// Bytes of a subscription's secret.
pub const AUTH_BYTES: usize = 16;

/// base64url; browsers leave the padding out, some libraries do not.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

words! {
    /// Who carries notifications to devices.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Provider {
        /// The push service of the user's browser (RFC 8030).
        WebPush,
        /// Firebase Cloud Messaging.
        Fcm,
        /// Apple's Push Notification service.
        Apns,
        /// The one URL that the operator has set.
        Webhook,
    }
}

impl Provider {
    /// The word for it, as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebPush => "webpush",
            Self::Fcm => "fcm",
            Self::Apns => "apns",
            Self::Webhook => "webhook",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a device is notified. `Debug` shows the provider and nothing that would let others notify it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
#[serde(tag = "provider", rename_all = "lowercase")]
pub enum Target {
    /// A browser's subscription, as `PushSubscription.toJSON()` writes it.
    WebPush(#[garde(dive)] Subscription),
    /// An app's registration with Firebase Cloud Messaging.
    Fcm(#[garde(dive)] Registration),
    /// An app's device token of Apple's Push Notification service.
    Apns(#[garde(dive)] AppleToken),
    /// What the operator's webhook knows the device by.
    Webhook(#[garde(dive)] Registration),
}

impl Target {
    /// Who carries notifications there.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self {
            Self::WebPush(_) => Provider::WebPush,
            Self::Fcm(_) => Provider::Fcm,
            Self::Apns(_) => Provider::Apns,
            Self::Webhook(_) => Provider::Webhook,
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("provider", &self.provider()).finish_non_exhaustive()
    }
}

/// A browser's subscription.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// An `https` URL at one of the push services that the deployment knows; at most
    /// 2,048 bytes.
    #[garde(length(bytes, min = 1, max = ENDPOINT_BYTES), custom(web_url))]
    pub endpoint: String,
    /// What messages to it are encrypted with.
    #[garde(dive)]
    pub keys: SubscriptionKeys,
    /// When the browser lets it expire, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub expiration_time: Option<u64>,
}

/// What messages to a subscription are encrypted with (RFC 8291).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
pub struct SubscriptionKeys {
    /// A point of P-256, uncompressed, in base64url.
    #[garde(length(bytes, max = 2 * P256DH_BYTES), custom(point))]
    pub p256dh: String,
    /// 16 bytes in base64url.
    #[garde(length(bytes, max = 2 * AUTH_BYTES), custom(secret))]
    pub auth: String,
}

impl SubscriptionKeys {
    /// The bytes of `p256dh`; whether they are a point of the curve shows when it is used.
    #[must_use]
    pub fn public_key(&self) -> Option<[u8; P256DH_BYTES]> {
        let bytes: [u8; P256DH_BYTES] = BASE64URL.decode(&self.p256dh).ok()?.try_into().ok()?;
        // SEC 1: what is not compressed begins so.
        (bytes[0] == 4).then_some(bytes)
    }

    /// The bytes of `auth`.
    #[must_use]
    pub fn secret(&self) -> Option<[u8; AUTH_BYTES]> {
        BASE64URL.decode(&self.auth).ok()?.try_into().ok()
    }
}

/// A token that a provider gave to an app, or that the operator's webhook knows a device by.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
pub struct Registration {
    /// 1 to 4,096 bytes of visible ASCII.
    #[garde(length(bytes, min = 1, max = TOKEN_BYTES), custom(visible))]
    pub token: String,
}

/// A device token of Apple's Push Notification service.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
pub struct AppleToken {
    /// Hexadecimal; at most 400 bytes.
    #[garde(length(bytes, min = 2, max = APNS_TOKEN_BYTES), custom(hexadecimal))]
    pub token: String,
    /// It is one of Apple's sandbox, as apps under development get.
    #[serde(default)]
    #[garde(skip)]
    pub sandbox: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde passes its context by reference")]
fn web_url(text: &str, _: &()) -> garde::Result {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() => Ok(()),
        _ => Err(garde::Error::new("is not an https URL")),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde passes its context by reference")]
fn point(text: &str, _: &()) -> garde::Result {
    let keys = SubscriptionKeys { p256dh: text.to_owned(), auth: String::new() };
    match keys.public_key() {
        Some(_) => Ok(()),
        None => Err(garde::Error::new("is not an uncompressed point of P-256 in base64url")),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde passes its context by reference")]
fn secret(text: &str, _: &()) -> garde::Result {
    let keys = SubscriptionKeys { p256dh: String::new(), auth: text.to_owned() };
    match keys.secret() {
        Some(_) => Ok(()),
        None => Err(garde::Error::new("is not 16 bytes in base64url")),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde passes its context by reference")]
fn visible(text: &str, _: &()) -> garde::Result {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(garde::Error::new("is not visible ASCII"))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde passes its context by reference")]
fn hexadecimal(text: &str, _: &()) -> garde::Result {
    if text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(garde::Error::new("is not hexadecimal"))
    }
}

/// The hosts that Web Push endpoints may be at. An endpoint is a URL from outside that the deployment
/// requests, so it may name no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(Vec<AllowedHost>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct AllowedHost {
    /// `http` for those that are named with it.
    scheme: &'static str,
    /// In lower case, without a leading dot.
    host: String,
    /// Any default port when none is named.
    port: Option<u16>,
}

/// A list of hosts that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host, like push.example.org or http://127.0.0.1:9000")]
pub struct HostsError(String);

impl Hosts {
    /// The push services of Chrome and its kin (the second is that of Chromium as Linux distributions
    /// build it), Firefox, Safari and Edge.
    pub const DEFAULT: &str = "fcm.googleapis.com,jmt17.google.com,push.services.mozilla.com,push.apple.com,notify.windows.com";

    /// Hosts with commas between them. A name stands for the hosts below it too. They are for `https`
    /// and its port; `http://host:port`, for tests, is for exactly that.
    ///
    /// # Errors
    /// When one is no host.
    pub fn parse(list: &str) -> Result<Self, HostsError> {
        let named = list.split(',').map(str::trim).filter(|host| !host.is_empty());
        named.map(AllowedHost::parse).collect::<Result<_, _>>().map(Self)
    }

    /// The endpoint as a URL, if it may be requested.
    #[must_use]
    pub fn allowed(&self, endpoint: &str) -> Option<Url> {
        let url = Url::parse(endpoint).ok()?;
        let bare = url.username().is_empty() && url.password().is_none();
        (bare && self.0.iter().any(|host| host.allows(&url))).then_some(url)
    }
}

impl std::str::FromStr for Hosts {
    type Err = HostsError;
    fn from_str(list: &str) -> Result<Self, HostsError> {
        Self::parse(list)
    }
}

impl AllowedHost {
    fn parse(named: &str) -> Result<Self, HostsError> {
        let wrong = || HostsError(named.to_owned());
        let (scheme, rest) = match named.strip_prefix("http://") {
            Some(rest) => ("http", rest),
            None => ("https", named.strip_prefix("https://").unwrap_or(named)),
        };
        let rest = rest.trim_start_matches("*.").trim_start_matches('.');
        let url = Url::parse(&format!("{scheme}://{rest}/")).map_err(|_| wrong())?;
        let host = url.host_str().ok_or_else(wrong)?.to_owned();
        let bare = url.username().is_empty() && url.password().is_none();
        if !bare || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong());
        }
        Ok(Self { scheme, host, port: url.port() })
    }

    fn allows(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let below = || {
            let above = host.strip_suffix(&self.host);
            self.scheme == "https" && above.is_some_and(|above| above.ends_with('.'))
        };
        url.scheme() == self.scheme && url.port() == self.port && (host == self.host || below())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256DH: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn read(text: &str) -> Result<Target, String> {
        let target: Target = serde_json::from_str(text).map_err(|error| error.to_string())?;
        target.validate().map_err(|report| report.to_string())?;
        Ok(target)
    }

    fn web(endpoint: &str, p256dh: &str, auth: &str) -> String {
        format!(
            r#"{{"provider":"webpush","endpoint":"{endpoint}","expirationTime":null,
                "keys":{{"p256dh":"{p256dh}","auth":"{auth}"}}}}"#
        )
    }

    #[test]
    fn each_provider_has_its_target_as_apps_and_browsers_write_it() {
        let subscription = web("https://push.example.org/a", P256DH, AUTH);
        let tokens = [
            (subscription.as_str(), Provider::WebPush),
            (r#"{"provider":"fcm","token":"a:b-c_d"}"#, Provider::Fcm),
            (r#"{"provider":"apns","token":"00ffAA","sandbox":true}"#, Provider::Apns),
            (r#"{"provider":"webhook","token":"x"}"#, Provider::Webhook),
        ];
        for (text, provider) in tokens {
            let target = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(target.provider(), provider);
            let again = serde_json::to_string(&target).expect("a target is JSON");
            assert_eq!(read(&again), Ok(target.clone()));
            let word = serde_json::to_value(provider).expect("a provider is JSON");
            assert_eq!(word, provider.as_str());
            assert_eq!(format!("{target:?}"), format!("Target {{ provider: {provider:?}, .. }}"));
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        let long = "a".repeat(TOKEN_BYTES + 1);
        let at = "https://push.example.org/a";
        // A compressed point has another first byte and another length.
        let compressed = "AiVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcx";
        let refused = [
            web("ftp://push.example.org/a", P256DH, AUTH),
            web("nonsense", P256DH, AUTH),
            web(&format!("{at}{long}"), P256DH, AUTH),
            web(at, compressed, AUTH),
            web(at, "+++", AUTH),
            web(at, P256DH, "BTBZMqHH6r4Tts7J_aSI"),
            web(at, P256DH, ""),
            format!(r#"{{"provider":"fcm","token":"{long}"}}"#),
            r#"{"provider":"fcm","token":""}"#.to_owned(),
            r#"{"provider":"webhook","token":"a\nb"}"#.to_owned(),
            r#"{"provider":"apns","token":"xyz0"}"#.to_owned(),
            r#"{"provider":"apns","token":"abc"}"#.to_owned(),
            r#"{"provider":"pigeon","token":"abc"}"#.to_owned(),
        ];
        for text in refused {
            assert!(read(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn padding_is_accepted() {
        let padded = web("https://push.example.org/a", &format!("{P256DH}="), &format!("{AUTH}=="));
        assert!(read(&padded).is_ok());
    }

    #[test]
    fn only_endpoints_at_known_hosts_are_requested() {
        let hosts = Hosts::parse("push.example.org, .example.net,http://127.0.0.1:9000")
            .expect("these are hosts");
        for allowed in [
            "https://push.example.org/x",
            "https://PUSH.example.org:443/x",
            "https://eu.push.example.org/x",
            "https://a.example.net/",
            "http://127.0.0.1:9000/x?y=z",
        ] {
            assert!(hosts.allowed(allowed).is_some(), "{allowed}");
        }
        for refused in [
            "http://push.example.org/x",
            "https://push.example.org:8443/x",
            "https://evilpush.example.org.evil.org/",
            "https://notpush.example.org/",
            "https://user@push.example.org/",
            "https://push.example.org@evil.org/",
            "https://evil.org\\@push.example.org/",
            "https://169.254.169.254/latest",
            "https://127.0.0.1:9000/x",
            "http://127.0.0.1:9001/x",
            "http://127.0.0.1/x",
            "https://[::1]/",
            "file:///etc/passwd",
            "nonsense",
        ] {
            assert!(hosts.allowed(refused).is_none(), "{refused}");
        }
    }

    #[test]
    fn a_list_of_hosts_is_read_or_refused() {
        assert!(Hosts::parse(Hosts::DEFAULT).is_ok());
        for refused in ["a b", "push.example.org/path", "user@push.example.org", "ftp://x.org"] {
            assert!(Hosts::parse(refused).is_err(), "{refused}");
        }
        let none = Hosts::parse("").expect("an empty list");
        assert_eq!(none.allowed("https://push.example.org/"), None);
    }
}
