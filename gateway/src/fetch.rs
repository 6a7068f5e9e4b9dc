//! Fetches what pages need from elsewhere: fragments from their origins, and another door's page when there is none here.
//! Whom to ask is in the config alone. In the background: no request waits for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use daemun_fleet::config::{Config, DOOR_ROLE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use rustls::RootCertStore;
use rustls::crypto::ring;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::sleep;
use url::Url;

use crate::fragments::{Changed, Fetch, FetchError};
use crate::making::pause;
use crate::page::PageSource;
use crate::{Door, SOURCE};

/// Of a fragment; the cache takes no larger one.
const FRAGMENT_BYTES_MAX: usize = 1024 * 1024;
/// Of another door's page.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// For another door to give its page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often other doors are asked, as long as there is no page here.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// For how long at the least pages stay as they are, whatever comes of their fragments.
const GATHER: Duration = Duration::from_millis(250);
/// How often it is looked at what only time changes.
const LOOK: Duration = Duration::from_secs(10);

/// Whom to trust, and a client that asks whom the DNS names.
type Ready = OnceCell<(rustls::ClientConfig, Client)>;

async fn ready() -> Result<(rustls::ClientConfig, Client), String> {
    let tls = trust().await?;
    let client = client(&tls, &[])?;
    Ok((tls, client))
}

/// Fetches for ever.
pub async fn fetch(door: Arc<Door>) {
    // Made when it is needed: it knows whom the machine trusts, which is a megabyte.
    let tls = Arc::new(OnceCell::new());
    let mut changed = door.changed.subscribe();
    let mut fetches = JoinSet::new();
    let mut asking = JoinSet::new();
    let mut asked = None;
    let mut looked = Duration::ZERO;
    let (mut is_changed, mut remade) = (false, Duration::ZERO);
    loop {
        let (due, next, origins) = door.due();
        for one in due {
            let Some(url) = origins.get(one.origin).map(|origin| origin.url.clone()) else { continue };
            let tls = Arc::clone(&tls);
            fetches.spawn(async move {
                let client = tls.get_or_try_init(ready).await;
                let got = match client {
                    Ok((_, client)) => fragment(client, url, &one).await,
                    Err(error) => Err(FetchError::Connect(error)),
                };
                (one, got)
            });
        }
        let now = (door.clock.monotonic)();
        let bare = door.bare();
        if !bare.is_empty()
            && asking.is_empty()
            && asked.is_none_or(|asked| now.saturating_sub(asked) >= ASK_AGAIN)
        {
            asked = Some(now);
            asking.spawn(ask_doors(Arc::clone(&door), bare, Arc::clone(&tls)));
        }
        // Fragments that come together are shown together.
        if is_changed && now.saturating_sub(remade) >= GATHER {
            (is_changed, remade) = (false, now);
            door.remake(|_, _| {});
            continue;
        }
        if now.saturating_sub(looked) >= LOOK {
            looked = now;
            door.look();
        }
        tokio::select! {
            Some(done) = fetches.join_next() => {
                if let Ok((one, got)) = done {
                    is_changed |= door.fetched(&one, got);
                }
            }
            Some(_) = asking.join_next() => {}
            () = sleep(if is_changed { GATHER } else { pause(next, now) }) => {}
            _ = changed.changed() => {}
        }
    }
}

/// Whom the machine trusts, of what can be read of that; read once.
async fn trust() -> Result<rustls::ClientConfig, String> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.await.map_err(|error| error.to_string())?.certs);
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A client that goes where it is sent, and nowhere else. The addresses are of one host, and asked in the place of the DNS,
/// whose answer may well be ourselves.
fn client(tls: &rustls::ClientConfig, addresses: &[(&str, &[SocketAddr])]) -> Result<Client, String> {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .no_proxy()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("daemun-door/", env!("CARGO_PKG_VERSION")));
    let builder = addresses
        .iter()
        .fold(builder, |builder, (host, addresses)| builder.resolve_to_addrs(host, addresses));
    builder.build().map_err(|error| error.to_string())
}

async fn fragment(client: &Client, origin: Url, fetch: &Fetch) -> Result<Bytes, FetchError> {
    let url = origin.join(&fetch.path).map_err(|error| FetchError::Connect(error.to_string()))?;
    if url.origin() != origin.origin() {
        return Err(FetchError::Connect("the path leads elsewhere".to_owned()));
    }
    let get = async {
        let response = client.get(url).send().await.map_err(failed)?;
        match response.status().as_u16() {
            200 => body(response, FRAGMENT_BYTES_MAX).await,
            other => Err(FetchError::Status(other)),
        }
    };
    tokio::time::timeout(fetch.timeout, get).await.unwrap_or(Err(FetchError::Timeout))
}

fn failed(error: reqwest::Error) -> FetchError {
    match (error.is_timeout(), error.is_connect()) {
        (true, _) => FetchError::Timeout,
        (false, true) => FetchError::Connect(error.to_string()),
        (false, false) => FetchError::Broken(error.to_string()),
    }
}

/// A whole body, unless it is too long.
async fn body(mut response: Response, bytes_max: usize) -> Result<Bytes, FetchError> {
    let mut whole = BytesMut::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        if whole.len() + part.len() > bytes_max {
            return Err(FetchError::TooLarge);
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

/// Asks the doors of other datacenters for the pages of these hosts, until there is one of each.
async fn ask_doors(door: Arc<Door>, hosts: Vec<String>, tls: Arc<Ready>) {
    let config = door.config();
    let tls = match tls.get_or_try_init(ready).await {
        Ok((tls, _)) => tls,
        Err(why) => return tracing::debug!(why, "asking other doors"),
    };
    for host in hosts {
        for (url, addresses) in other_doors(&config, &door.me) {
            let asked = tokio::time::timeout(PAGE_TIMEOUT, ask(tls, &url, &addresses, &host)).await;
            match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok(page) => match door.offer(&host, page) {
                    Ok(()) => {
                        tracing::info!(%url, "showing the page of another door");
                        break;
                    }
                    Err(why) => tracing::debug!(%url, why, "another door's page"),
                },
                Err(why) => tracing::debug!(%url, why, "asking another door for its page"),
            }
        }
    }
}

/// Where the doors of other datacenters are.
fn other_doors(config: &Config, me: &str) -> Vec<(Url, Vec<SocketAddr>)> {
    let here = config.fleet.datacenter(me);
    let doors = config
        .fleet
        .servers
        .iter()
        .filter(|server| server.role == DOOR_ROLE && Some(server.datacenter) != here);
    doors
        .filter_map(|server| {
            let address = *server.addresses.first()?;
            let url = match &server.url {
                Some(url) => url.join("/").ok()?,
                None => Url::parse(&format!("http://{}/", SocketAddr::new(address, 80))).ok()?,
            };
            let port = url.port_or_known_default()?;
            let addresses = server.addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
            Some((url, addresses))
        })
        .collect()
}

async fn ask(
    tls: &rustls::ClientConfig,
    url: &Url,
    addresses: &[SocketAddr],
    host: &str,
) -> Result<Bytes, String> {
    let client = client(tls, &[(url.host_str().unwrap_or_default(), addresses)])?;
    // The page for all names is asked for under none that a host could have.
    let address = addresses.first().map(|address| address.ip().to_string()).unwrap_or_default();
    let request = client.get(url.clone()).header("host", if host.is_empty() { &address } else { host });
    let response = request.send().await.map_err(|error| error.to_string())?;
    if response.status().as_u16() != 200 {
        return Err(format!("status {}", response.status()));
    }
    // A page that it has of a third one, or that is compiled into it, is none of its own.
    let own = [PageSource::Live, PageSource::LastGood, PageSource::Kept];
    let source = response.headers().get(SOURCE.as_str()).and_then(|source| source.to_str().ok());
    if !own.iter().any(|own| source == Some(own.name())) {
        return Err(format!("its page is {}", source.unwrap_or("of no door")));
    }
    body(response, PAGE_BYTES_MAX).await.map_err(|error| error.to_string())
}

impl Door {
    /// What is to be fetched now, when to look again, and where origins are.
    fn due(&self) -> (Vec<Fetch>, Option<Duration>, Vec<daemun_fleet::config::Origin>) {
        let mut making = self.making();
        let now = (self.clock.monotonic)();
        let due = making.fragments.due(now);
        let next = making.fragments.next_due(now);
        let origins = if due.is_empty() {
            Vec::new()
        } else {
            making.placer.steering().config().gateway.origins.clone()
        };
        (due, next, origins)
    }

    /// A fetch has come to its end: whether pages are others for it.
    fn fetched(&self, fetch: &Fetch, got: Result<Bytes, FetchError>) -> bool {
        let outcome = match &got {
            Ok(_) => "fetched",
            Err(FetchError::Connect(_)) => "no_connection",
            Err(FetchError::Timeout) => "timeout",
            Err(FetchError::Broken(_)) => "broken",
            Err(FetchError::Status(_)) => "status",
            Err(FetchError::TooLarge) => "too_large",
        };
        let mut making = self.making();
        let origin = making
            .placer
            .steering()
            .config()
            .gateway
            .origins
            .get(fetch.origin)
            .map(|origin| origin.path.clone());
        self.metrics.fragments.with_label_values(&[origin.as_deref().unwrap_or_default(), outcome]).inc();
        if let Err(error) = &got {
            tracing::debug!(path = fetch.path, %error, "fetching a fragment");
        }
        let now = (self.clock.monotonic)();
        let changed = making.fragments.done(now, fetch, got);
        let stale = making.fragments.counts(now).stale;
        self.metrics.fragments_stale.set(i64::try_from(stale).unwrap_or(i64::MAX));
        matches!(changed, Changed::Yes)
    }

    /// A page that was not believed may be by now, and a server that was kept may have to go.
    fn look(&self) {
        let making = self.making();
        let waits = !making.complaints.is_empty() || !making.kept.is_empty();
        drop(making);
        if waits {
            self.remake(|_, _| {});
        }
    }

    /// Names of hosts that would rather show another door's page than what they do.
    fn bare(&self) -> Vec<String> {
        self.making().bare.clone()
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(self.making().placer.steering().config())
    }

    /// Another door's page.
    fn offer(&self, host: &str, page: Bytes) -> Result<(), String> {
        let mut making = self.making();
        let marker =
            making.files.hosts.iter().find(|one| one.name() == host).map(|one| one.host.marker.clone());
        let marker = marker.ok_or("there is no such host any more")?;
        making.ladders.entry(host.to_owned()).or_default().set_peer(page, &marker, self.now_unix_ms())?;
        drop(making);
        self.remake(|_, _| {});
        Ok(())
    }
}
