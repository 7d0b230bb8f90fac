//! Answers for an MQTT broker, each a JSON object, and the message by which Home Assistant finds them.

use super::App;
use super::model::Loaded;
use super::results::Record;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use core::time::Duration;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, QoS};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use tokio::task::JoinHandle;

/// Answers that wait while the broker is away; later ones are not published.
const WAITING: usize = 1000;
/// Time between two attempts to reach the broker.
const PAUSE: Duration = Duration::from_secs(5);
/// At the end, time to publish what waits.
const END: Duration = Duration::from_secs(3);

/// Options of MQTT.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Also publish each answer: {time, file, label, probability, ms}
    #[arg(long, value_name = "mqtt://[USER@]HOST[:PORT]/TOPIC")]
    mqtt: Option<String>,

    /// File with the user's password alone
    #[arg(long, value_name = "FILE", requires = "mqtt")]
    mqtt_password_file: Option<PathBuf>,

    /// Tell Home Assistant of a sensor with the likeliest class, by its discovery
    #[arg(long, requires = "mqtt")]
    mqtt_discovery: bool,
}

/// Where answers are published.
#[derive(Debug)]
pub(super) struct Broker {
    client: AsyncClient,
    topic: String,
}

/// What goes to and comes from the broker.
pub(super) struct Events {
    events: EventLoop,
    address: String,
    hello: Option<(AsyncClient, String, Vec<u8>)>,
}

/// The parts of `mqtt://USER@HOST:PORT/TOPIC`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    user: Option<&'a str>,
    host: &'a str,
    port: u16,
    topic: &'a str,
}

impl<'a> Address<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let rest = text.strip_prefix("mqtt://").context("it has to begin with mqtt://")?;
        let (place, topic) = rest.split_once('/').context("a topic has to follow the host")?;
        ensure!(
            !topic.is_empty() && topic.len() <= 1024 && !topic.contains(['#', '+', '\0']),
            "the topic must have no wildcard (# or +)"
        );
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, place),
        };
        ensure!(
            user.is_none_or(|user| !user.contains(':')),
            "a password in an address is seen by others; give it with --mqtt-password-file"
        );
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().ok().context("the port must be a number up to 65535")?)
            }
            _ => (place, 1883),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        ensure!(!host.is_empty(), "the host is missing");
        Ok(Self { user, host, port, topic })
    }
}

impl Options {
    /// Prepares to publish; nothing is sent yet.
    pub(super) fn connect(&self, model: &Loaded) -> Result<Option<(Broker, Events)>> {
        let Some(text) = &self.mqtt else { return Ok(None) };
        let Address { user, host, port, topic } =
            Address::parse(text).with_context(|| format!("--mqtt {text}"))?;
        // Of two with one name, brokers let only one stay.
        let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let id = format!("edge-classify-{:x}", now ^ u128::from(std::process::id()) << 64);
        let mut options = MqttOptions::new(id, host, port);
        options.set_keep_alive(Duration::from_secs(30));
        match (user, &self.mqtt_password_file) {
            (user, Some(path)) => {
                let password = std::fs::read_to_string(path);
                let name = || format!("--mqtt-password-file {}", path.display());
                let password = password.with_context(name)?;
                let Some(user) = user else { bail!("{}: --mqtt names no user", name()) };
                options.set_credentials(user, password.trim());
            }
            (Some(user), None) => drop(options.set_credentials(user, "")),
            (None, None) => {}
        }
        let (client, events) = AsyncClient::new(options, WAITING);
        let hello = self.mqtt_discovery.then(|| {
            let (place, message) = discovery(topic, &model.name);
            (client.clone(), place, message)
        });
        let address = format!("{host}:{port}");
        let broker = Broker { client, topic: topic.into() };
        Ok(Some((broker, Events { events, address, hello })))
    }
}

/// Topic and contents of the message that makes a sensor.
fn discovery(topic: &str, model: &str) -> (String, Vec<u8>) {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let id: String = format!("edge_classify_{topic}").chars().map(allowed).collect();
    let message = json!({
        "name": "Picture",
        "unique_id": id,
        "state_topic": topic,
        "value_template": "{{ value_json.label }}",
        "json_attributes_topic": topic,
        "icon": "mdi:image-search",
        "device": {"identifiers": [id], "name": "edge-classify", "model": model},
    });
    (format!("homeassistant/sensor/{id}/config"), message.to_string().into_bytes())
}

impl Broker {
    /// Lets a result be published; `false` where too many wait.
    pub(super) fn publish(&self, record: &Record<'_>) -> bool {
        let message = record.json().unwrap_or_default();
        self.client.try_publish(&self.topic, QoS::AtLeastOnce, false, message).is_ok()
    }

    /// Publishes what waits, and says good-bye.
    pub(super) async fn end(&self, sending: JoinHandle<()>) {
        let last = async {
            // Either has ended already.
            let _ = self.client.disconnect().await;
            let _ = sending.await;
        };
        let _ = tokio::time::timeout(END, last).await;
    }
}

impl Events {
    /// Speaks with the broker until it was said good-bye to. One line says that it is out of reach, and
    /// one that it is back.
    pub(super) async fn send(mut self, app: Arc<App>) {
        let mut is_away = None;
        loop {
            match self.events.poll().await {
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
                Ok(Event::Incoming(rumqttc::Packet::ConnAck(_))) => {
                    if is_away == Some(true) {
                        app.say(format!("--mqtt: {} answers again", self.address));
                    }
                    is_away = Some(false);
                    // Again, for a broker may have forgotten it.
                    if let Some((client, topic, message)) = &self.hello {
                        let sent =
                            client.try_publish(topic, QoS::AtLeastOnce, true, message.clone());
                        drop(sent); // it is sent when the broker is reached for the next time
                    }
                }
                Ok(_) => {}
                Err(e) => {
                    if is_away != Some(true) {
                        app.say(format!("--mqtt: {}: {e}; it is tried again", self.address));
                    }
                    is_away = Some(true);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text| Address::parse(text).unwrap();
        let want = Address { user: None, host: "broker", port: 1883, topic: "a/b" };
        assert_eq!(parse("mqtt://broker/a/b"), want);
        let want = Address { user: Some("me"), host: "::1", port: 99, topic: "t" };
        assert_eq!(parse("mqtt://me@[::1]:99/t"), want);
        assert_eq!(parse("mqtt://[::1]/t").host, "::1");
        for (text, want) in [
            ("broker/t", "begin with mqtt://"),
            ("mqtt://broker", "a topic"),
            ("mqtt://broker/", "wildcard"),
            ("mqtt://broker/a/#", "wildcard"),
            ("mqtt://broker:http/t", "port"),
            ("mqtt:///t", "host"),
            ("mqtt://me:secret@broker/t", "--mqtt-password-file"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
