//! What the front door counts.

use prometheus::{IntCounterVec, Opts, Registry};

/// Counters of the front door.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    pages: IntCounterVec,
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
            requests: counter("daemun_gateway_requests_total", "Requests answered.", &["route", "code"])?,
            pages: counter(
                "daemun_gateway_pages_total",
                "Index pages, by where they came from.",
                &["source"],
            )?,
        })
    }

    pub(crate) fn answered(&self, route: &'static str, code: u16) {
        self.requests.with_label_values(&[route, code.to_string().as_str()]).inc();
    }

    pub(crate) fn page(&self, source: &'static str) {
        self.pages.with_label_values(&[source]).inc();
    }
}
