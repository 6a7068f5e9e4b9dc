//! What the DNS server counts.

use std::time::Duration;

use daemun_fleet::Placer;
use daemun_fleet::meter::Counted;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::Transport;
use crate::limit::Verdict;
use crate::responder::Answered;
use crate::wire::Query;

/// Bounds of the latency histogram, seconds: an answer takes microseconds.
const LATENCIES: [f64; 10] =
    [0.000_002, 0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.001, 0.01, 0.1];

/// Counters of the DNS server.
#[derive(Clone, Debug)]
pub struct Metrics {
    queries: IntCounterVec,
    placements: IntCounterVec,
    subnets: IntCounterVec,
    ignored: IntCounterVec,
    limited: IntCounterVec,
    truncated: IntCounterVec,
    latency: HistogramVec,
    pub(crate) connections: IntGaugeVec,
    pub(crate) connections_closed: IntCounterVec,
    pub(crate) send_errors: IntCounter,
    zone_serial: IntGaugeVec,
    zone_loaded: IntGaugeVec,
    zone_refused: IntGaugeVec,
}

/// Registers collectors, and gives them back.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn keep<C: Collector + Clone + 'static>(
        &self,
        made: Result<C, prometheus::Error>,
    ) -> Result<C, prometheus::Error> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels))
    }
}

/// A zone, as far as metrics show it.
#[derive(Clone, Copy, Debug)]
pub struct ZoneMetrics<'a> {
    /// Its apex, no dot at the end.
    pub name: &'a str,
    /// Serial number of its SOA.
    pub serial: u32,
    /// When its file was read, milliseconds of Unix time.
    pub loaded_unix_ms: u64,
    /// A newer file was refused; this is the last good.
    pub is_refused: bool,
}

impl Metrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When the registry has counters of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let to = Registrar(registry);
        let latency =
            HistogramOpts::new("daemun_dns_answer_seconds", "Time from a query read to its answer.")
                .buckets(LATENCIES.to_vec());
        Ok(Self {
            queries: to.counter(
                "daemun_dns_queries_total",
                "Queries answered.",
                &["transport", "type", "rcode"],
            )?,
            placements: to.counter(
                "daemun_dns_placements_total",
                "Answers that follow placement, by where they send the client, and why there.",
                &["datacenter", "reason"],
            )?,
            subnets: to.counter(
                "daemun_dns_client_subnets_total",
                "Queries with a client subnet, by whether it was used.",
                &["family", "use"],
            )?,
            ignored: to.counter(
                "daemun_dns_ignored_packets_total",
                "Packets that must not be answered: responses, and less than a header.",
                &["transport"],
            )?,
            limited: to.counter(
                "daemun_dns_rate_limited_total",
                "Answers over the rate limit, by what was to be done: dropped, or slipped (sent cut, unless it is short anyhow).",
                &["outcome"],
            )?,
            truncated: to.counter(
                "daemun_dns_truncated_total",
                "Answers cut to be asked for over TCP.",
                &["transport"],
            )?,
            latency: to.keep(HistogramVec::new(latency, &["path"]))?,
            connections: to.gauge("daemun_dns_connections", "Connections open.", &["transport"])?,
            connections_closed: to.counter(
                "daemun_dns_connections_closed_total",
                "Connections that we closed, by why: idle, evicted for another, client_limit, malformed.",
                &["transport", "reason"],
            )?,
            send_errors: to.keep(IntCounter::new(
                "daemun_dns_send_errors_total",
                "Answers that the system did not take.",
            ))?,
            zone_serial: to.gauge(
                "daemun_dns_zone_serial",
                "Serial number of the zone served.",
                &["zone"],
            )?,
            zone_loaded: to.gauge(
                "daemun_dns_zone_loaded_timestamp_seconds",
                "When the file of the zone served was read, Unix time.",
                &["zone"],
            )?,
            zone_refused: to.gauge(
                "daemun_dns_zone_refused",
                "1 while a newer file of the zone is refused and the last good is served.",
                &["zone"],
            )?,
        })
    }

    pub(crate) fn answered(&self, transport: Transport, query: &Query, answered: &Answered, placer: &Placer) {
        let record_type = type_label(query.question.record_type);
        let code = code_label(answered.answer.code);
        self.queries.with_label_values(&[transport.name(), record_type, code]).inc();
        for (target, choice) in &answered.answer.placed {
            placer.count(*target, choice, Counted::Query);
            let datacenter = &placer.steering().config().fleet.datacenters[choice.datacenter].name;
            let reason = placer.reason_label(*target, choice);
            self.placements.with_label_values(&[datacenter.as_str(), reason]).inc();
        }
        if let Some(subnet) = query.head.options().and_then(|options| options.subnet.as_ref()) {
            let family = if subnet.client().first_address().is_ipv4() { "ipv4" } else { "ipv6" };
            let used = match (answered.is_by_subnet(), answered.answer.placed.is_empty()) {
                (false, _) => "not listed",
                (true, true) => "not needed",
                (true, false) => "used",
            };
            self.subnets.with_label_values(&[family, used]).inc();
        }
    }

    pub(crate) fn took(&self, transport: Transport, time: Duration) {
        self.latency.with_label_values(&[transport.name()]).observe(time.as_secs_f64());
    }

    pub(crate) fn truncated(&self, transport: Transport) {
        self.truncated.with_label_values(&[transport.name()]).inc();
    }

    pub(crate) fn limited(&self, verdict: Verdict) {
        match verdict {
            Verdict::Send => {}
            Verdict::Slip => self.limited.with_label_values(&["slipped"]).inc(),
            Verdict::Drop => self.limited.with_label_values(&["dropped"]).inc(),
        }
    }

    pub(crate) fn refused(&self, transport: Transport, asked: Option<RecordType>, code: ResponseCode) {
        let record_type = asked.map_or("none", type_label);
        self.queries.with_label_values(&[transport.name(), record_type, code_label(code)]).inc();
    }

    pub(crate) fn ignored(&self, transport: Transport) {
        self.ignored.with_label_values(&[transport.name()]).inc();
    }

    /// Shows the zones that are served.
    pub fn set_zones<'a>(&self, zones: impl Iterator<Item = ZoneMetrics<'a>>) {
        // A zone that is gone is not shown; this is called when files were read, not at every view.
        for gauge in [&self.zone_serial, &self.zone_loaded, &self.zone_refused] {
            gauge.reset();
        }
        for zone in zones {
            self.zone_serial.with_label_values(&[zone.name]).set(zone.serial.into());
            let loaded = i64::try_from(zone.loaded_unix_ms / 1000).unwrap_or(i64::MAX);
            self.zone_loaded.with_label_values(&[zone.name]).set(loaded);
            self.zone_refused.with_label_values(&[zone.name]).set(zone.is_refused.into());
        }
    }
}

/// Types by name where common, so that a client cannot make label values.
fn type_label(record_type: RecordType) -> &'static str {
    match record_type {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::ANY => "ANY",
        RecordType::CAA => "CAA",
        RecordType::CNAME => "CNAME",
        RecordType::DNSKEY => "DNSKEY",
        RecordType::DS => "DS",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::SVCB => "SVCB",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

fn code_label(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::BADVERS => "BADVERS",
        ResponseCode::BADCOOKIE => "BADCOOKIE",
        _ => "other",
    }
}
