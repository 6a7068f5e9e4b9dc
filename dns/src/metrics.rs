//! What the DNS server counts.

use daemun_fleet::Placer;
use hickory_proto::rr::RecordType;
use prometheus::{IntCounterVec, Opts, Registry};

use crate::answer::Answer;
use crate::wire::Query;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A TCP connection.
    Tcp,
}

impl Transport {
    /// Label value.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }
}

/// Counters of the DNS server.
#[derive(Clone, Debug)]
pub struct Metrics {
    queries: IntCounterVec,
    placements: IntCounterVec,
    unanswered: IntCounterVec,
}

impl Metrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When the registry has counters of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            queries: counter(
                "daemun_dns_queries_total",
                "Queries answered.",
                &["transport", "type", "rcode"],
            )?,
            placements: counter(
                "daemun_dns_placements_total",
                "Answers that follow placement.",
                &["datacenter"],
            )?,
            unanswered: counter(
                "daemun_dns_bad_packets_total",
                "Packets that were no query that can be answered.",
                &["transport", "outcome"],
            )?,
        })
    }

    pub(crate) fn answered(&self, transport: Transport, query: &Query, answer: &Answer, placer: &Placer) {
        let record_type = type_label(query.question().record_type);
        self.queries.with_label_values(&[transport.name(), record_type, rcode_label(answer)]).inc();
        if let Some(choice) = answer.choice {
            let datacenter = &placer.steering().config().fleet.datacenters[choice.datacenter].name;
            self.placements.with_label_values(&[datacenter.as_str()]).inc();
        }
    }

    pub(crate) fn refused_packet(&self, transport: Transport) {
        self.unanswered.with_label_values(&[transport.name(), "error reply"]).inc();
    }

    pub(crate) fn ignored_packet(&self, transport: Transport) {
        self.unanswered.with_label_values(&[transport.name(), "ignored"]).inc();
    }
}

/// Types by name where common, so that a client cannot make label values.
fn type_label(record_type: RecordType) -> &'static str {
    match record_type {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::ANY => "ANY",
        RecordType::CNAME => "CNAME",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NS => "NS",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

fn rcode_label(answer: &Answer) -> &'static str {
    use hickory_proto::op::ResponseCode;
    match answer.code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::Refused => "REFUSED",
        _ => "other",
    }
}
