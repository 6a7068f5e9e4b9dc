//! From a packet to its answer's packet, under the newest state.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use daemun_fleet::config::Dns;
use daemun_fleet::impaired::Impaired;
use daemun_fleet::steering::Target;
use daemun_fleet::{Client, Clock, Placer};
use hickory_proto::op::ResponseCode;

use crate::answer::{self, Answer, Question};
use crate::cookie::{Checked, Secrets};
use crate::limit::{Kind, Limiter, Verdict};
use crate::wire::{self, Extras, Head, Limits, Query, Read, Refusal};
use crate::{Metrics, Peer, Transport, Zones};

/// Idle streams are closed after this, tenths of a second (RFC 7828); see [`listen`](crate::listen).
pub(crate) const KEEPALIVE_TENTHS: u16 = 100;

/// All that an answer is made from; swapped as one.
#[derive(Debug)]
pub struct State {
    /// The zones.
    pub zones: Arc<Zones>,
    /// Placement under the newest view.
    pub placer: Arc<Placer>,
    /// Who we are.
    pub identity: Identity,
    /// What cookies are signed with.
    pub secrets: Secrets,
    /// No agent has been heard for a while: the view is the last known.
    pub is_stale: bool,
}

/// Who the server is, for those who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of NSID (RFC 5001) and `id.server` (RFC 4892): at most 64 bytes.
    pub name: String,
    /// Of `version.server`.
    pub version: String,
}

impl State {
    pub(crate) fn config(&self) -> &Dns {
        &self.placer.steering().config().dns
    }
}

/// Answers packets under the newest state.
#[derive(Debug)]
pub struct Responder {
    state: ArcSwap<State>,
    metrics: Metrics,
    limiter: Limiter,
    clock: Clock,
    impaired: Arc<Impaired>,
}

/// A reply with what it was made from.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The packet.
    pub packet: Vec<u8>,
    /// What was placed.
    pub placed: Vec<Target>,
    /// For whom.
    pub client: Client,
}

/// Where a query's client is, and what of the echoed subnet that makes.
struct Placed {
    client: Client,
    /// Scope of the block around a private client, who was placed by the resolver instead.
    private_scope: Option<u8>,
    /// The subnet is used, and echoed.
    is_by_subnet: bool,
}

impl Responder {
    /// A responder that starts with `state`.
    pub fn new(state: State, metrics: Metrics, clock: Clock) -> Self {
        let (limiter, impaired) = (Limiter::default(), Arc::default());
        Self { state: ArcSwap::from_pointee(state), metrics, limiter, clock, impaired }
    }

    /// Replaces the state; queries under way finish with the old one.
    pub fn set_state(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// How it fails, when it is to.
    pub fn impaired(&self) -> &Arc<Impaired> {
        &self.impaired
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Milliseconds of the monotonic clock.
    pub(crate) fn now_ms(&self) -> u64 {
        (self.clock.monotonic)().as_millis() as u64
    }

    /// Whether connections from an address begin with a PROXY header.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.state.load().config().proxies.iter().any(|net| net.contains(&address))
    }

    /// The answer to a packet; `None` for what must not be answered (a response, less than a header, a flood).
    pub fn respond(&self, packet: &[u8], peer: Peer) -> Option<Vec<u8>> {
        let begun = (self.clock.monotonic)();
        let reply = self.reply(packet, peer, begun.as_millis() as u64);
        self.metrics.took(peer.transport, (self.clock.monotonic)().saturating_sub(begun));
        reply
    }

    /// The reply to a query without its limits, and what was placed for whom; `None` for what is no query.
    pub fn explain(&self, packet: &[u8], peer: Peer) -> Option<Explained> {
        let state = self.state.load();
        let Read::Query(query) = wire::read(packet) else { return None };
        let cookie = self.cookie(&state, &query.head, peer.address);
        let answered = answer_query(&state, &query, peer);
        let (head, question, scope) = (&query.head, Some(&query.question), answered.scope(&query));
        let packet = self.write(&state, head, question, &answered.answer, scope, peer, cookie, packet.len());
        let placed = answered.answer.placed.iter().map(|(target, _)| *target).collect();
        Some(Explained { packet, placed, client: answered.placed.client })
    }

    fn reply(&self, packet: &[u8], peer: Peer, now_ms: u64) -> Option<Vec<u8>> {
        let state = self.state.load();
        match wire::read(packet) {
            Read::Query(query) => {
                let cookie = self.cookie(&state, &query.head, peer.address);
                let mut answered = answer_query(&state, &query, peer);
                match self.limited(&state, peer, cookie, now_ms, answered.answer.kind()) {
                    Verdict::Send => {}
                    Verdict::Slip => answered.answer.cut(),
                    Verdict::Drop => return None,
                }
                self.metrics.answered(peer.transport, &query, &answered, &state.placer);
                let (head, question, scope) = (&query.head, Some(&query.question), answered.scope(&query));
                let written =
                    self.write(&state, head, question, &answered.answer, scope, peer, cookie, packet.len());
                if written.get(2).is_some_and(|flags| flags & 0x02 != 0) {
                    self.metrics.truncated(peer.transport);
                }
                Some(written)
            }
            Read::CookieOnly(head) => {
                let cookie = self.cookie(&state, &head, peer.address);
                // A client that sends its server cookie alone wants to know whether it is good (RFC 7873 section 5.4).
                let has_server_part = head
                    .options()
                    .and_then(|options| options.cookie.as_ref())
                    .is_some_and(|c| !c.server.is_empty());
                let is_bad = has_server_part && cookie.is_some_and(|cookie| !cookie.is_valid);
                let code = if is_bad { ResponseCode::BADCOOKIE } else { ResponseCode::NoError };
                self.short(&state, &head, None, code, peer, packet.len(), now_ms)
            }
            Read::Refuse(Refusal { code, head, question }) => {
                self.short(&state, &head, question.as_ref(), code, peer, packet.len(), now_ms)
            }
            Read::Ignore => {
                self.metrics.ignored(peer.transport);
                None
            }
        }
    }

    /// A reply that is only a code.
    #[expect(clippy::too_many_arguments, reason = "what is asked, by whom, when")]
    fn short(
        &self,
        state: &State,
        head: &Head,
        question: Option<&Question>,
        code: ResponseCode,
        peer: Peer,
        query_bytes: usize,
        now_ms: u64,
    ) -> Option<Vec<u8>> {
        let cookie = self.cookie(state, head, peer.address);
        if self.limited(state, peer, cookie, now_ms, Kind::Error) != Verdict::Send {
            return None; // to cut it would make it no shorter
        }
        self.metrics.refused(peer.transport, question.map(|question| question.record_type), code);
        Some(self.write(state, head, question, &Answer::empty(code), None, peer, cookie, query_bytes))
    }

    fn cookie(&self, state: &State, head: &Head, address: IpAddr) -> Option<Checked> {
        let cookie = head.options()?.cookie.as_ref()?;
        let now = ((self.clock.unix_ms)() / 1000) as u32; // serial numbers: goes round in 2106
        Some(state.secrets.check(cookie, address, now))
    }

    fn limited(
        &self,
        state: &State,
        peer: Peer,
        cookie: Option<Checked>,
        now_ms: u64,
        kind: Kind<'_>,
    ) -> Verdict {
        if peer.transport != Transport::Udp || cookie.is_some_and(|cookie| cookie.is_valid) {
            return Verdict::Send;
        }
        let verdict = self.limiter.judge(&state.config().rate_limit, now_ms, peer.address, kind);
        self.metrics.limited(verdict);
        verdict
    }

    #[expect(clippy::too_many_arguments, reason = "what is asked, what is answered, to whom")]
    fn write(
        &self,
        state: &State,
        head: &Head,
        question: Option<&Question>,
        answer: &Answer,
        scope: Option<u8>,
        peer: Peer,
        cookie: Option<Checked>,
        query_bytes: usize,
    ) -> Vec<u8> {
        let asked = |wanted: fn(&wire::Options) -> bool| head.options().is_some_and(wanted);
        let keeps = peer.transport.has_keepalive() && asked(|options| options.keepalive.is_some());
        let extras = Extras {
            scope,
            cookie: cookie.map(|cookie| cookie.reply),
            nsid: asked(|options| options.nsid).then_some(state.identity.name.as_bytes()),
            keepalive: keeps.then_some(KEEPALIVE_TENTHS),
            padded: peer.transport.is_encrypted() && asked(|options| options.padding),
        };
        let is_known = cookie.is_some_and(|cookie| cookie.is_valid);
        let ratio = (!is_known).then_some(state.config().amplification_max);
        let limits = Limits::new(peer.transport, head, query_bytes, ratio);
        wire::write(head, question, answer, &extras, limits)
    }
}

/// An answer, and who it is for.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    placed: Placed,
}

impl Answered {
    /// Whether the client subnet of the query was used.
    pub(crate) fn is_by_subnet(&self) -> bool {
        self.placed.is_by_subnet
    }

    /// SCOPE PREFIX-LENGTH for the echo of the query's subnet, if it is echoed. A client that gave nothing of its
    /// address gets 0 (RFC 7871 section 7.2.1).
    fn scope(&self, query: &Query) -> Option<u8> {
        let subnet = query.head.options()?.subnet.as_ref().filter(|_| self.placed.is_by_subnet)?;
        let scope = match self.placed.private_scope {
            _ if subnet.source_len() == 0 || self.answer.scope() == 0 => 0,
            Some(scope) => scope,
            None => self.answer.scope(),
        };
        Some(subnet.scope(scope))
    }
}

/// Answers a query, for whom the client subnet or the source says.
pub(crate) fn answer_query(state: &State, query: &Query, peer: Peer) -> Answered {
    let placed = placed(state, query, peer.address);
    // A keepalive with a value is for servers to send (RFC 7828 section 3.2.1).
    let bad_keepalive =
        query.head.options().and_then(|options| options.keepalive).is_some_and(|length| length > 0);
    let answer = if bad_keepalive && peer.transport.has_keepalive() {
        Answer::empty(ResponseCode::FormErr)
    } else {
        answer::answer(state, &query.question, &placed.client)
    };
    Answered { answer, placed }
}

/// The client: the subnet of a resolver whose subnets are used, but for private ones; else who asks.
fn placed(state: &State, query: &Query, source: IpAddr) -> Placed {
    let by_source = Client::address(source);
    let is_listed = match &state.config().subnet_from {
        Some(listed) => listed.iter().any(|net| net.contains(&source)),
        None => true,
    };
    let subnet = query.head.options().and_then(|options| options.subnet.as_ref()).filter(|_| is_listed);
    let Some(subnet) = subnet else {
        return Placed { client: by_source, private_scope: None, is_by_subnet: false };
    };
    if subnet.source_len() == 0 {
        return Placed { client: by_source, private_scope: None, is_by_subnet: true };
    }
    let client = subnet.client();
    match state.placer.steering().private_block(&client) {
        Some(block) => {
            Placed { client: by_source, private_scope: Some(block.prefix_len()), is_by_subnet: true }
        }
        None => Placed { client, private_scope: None, is_by_subnet: true },
    }
}
