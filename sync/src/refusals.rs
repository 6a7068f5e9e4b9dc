//! Who was not let in at the agent's port, counted by why.

use prometheus::{IntCounterVec, Opts, Registry};
use rustls::{CertificateError, Error};

/// Why somebody was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate is of no authority that we trust.
    UnknownCa,
    /// Its certificate is not valid any more.
    Expired,
    /// Its certificate is not valid yet: one of the two clocks is wrong.
    NotYetValid,
    /// Its certificate is genuine, but not for one datacenter of this fleet.
    NotOfThisFleet,
    /// Its certificate is wrong in another way.
    BadCertificate,
    /// It refused ours.
    RefusedUs,
    /// It speaks something else, or an older TLS.
    NotTls,
    /// It ended in the midst of the handshake.
    HungUp,
    /// It did not finish the handshake in time.
    HandshakeTimeout,
    /// There are too many connections, in all or from it.
    TooMany,
    /// It speaks in the name of another datacenter than its certificate's.
    SomeoneElse,
    /// The body of its request is too large.
    BodyTooLarge,
    /// Its request is not understood.
    BadRequest,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 14] = [
        Refusal::NoCertificate,
        Refusal::UnknownCa,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::NotOfThisFleet,
        Refusal::BadCertificate,
        Refusal::RefusedUs,
        Refusal::NotTls,
        Refusal::HungUp,
        Refusal::HandshakeTimeout,
        Refusal::TooMany,
        Refusal::SomeoneElse,
        Refusal::BodyTooLarge,
        Refusal::BadRequest,
    ];

    /// The word in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NoCertificate => "no_certificate",
            Refusal::UnknownCa => "unknown_ca",
            Refusal::Expired => "expired",
            Refusal::NotYetValid => "not_yet_valid",
            Refusal::NotOfThisFleet => "not_of_this_fleet",
            Refusal::BadCertificate => "bad_certificate",
            Refusal::RefusedUs => "refused_us",
            Refusal::NotTls => "not_tls",
            Refusal::HungUp => "hung_up",
            Refusal::HandshakeTimeout => "handshake_timeout",
            Refusal::TooMany => "too_many",
            Refusal::SomeoneElse => "someone_else",
            Refusal::BodyTooLarge => "body_too_large",
            Refusal::BadRequest => "bad_request",
        }
    }

    /// Why a handshake failed.
    pub(crate) fn of_handshake(error: &std::io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return Refusal::HungUp;
        };
        match error {
            Error::NoCertificatesPresented => Refusal::NoCertificate,
            Error::InvalidCertificate(certificate) => Refusal::of_certificate(certificate),
            Error::AlertReceived(_) => Refusal::RefusedUs,
            _ => Refusal::NotTls,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // An authority of the same name but another key shows as a wrong signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Refusal::UnknownCa,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refusal::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Refusal::NotYetValid
            }
            _ => Refusal::BadCertificate,
        }
    }
}

/// The counter of refusals.
#[derive(Clone, Debug)]
pub struct Refusals(IntCounterVec);

impl Refusals {
    /// Registers it, with every reason at 0, so that the first of its kind shows as a rise.
    ///
    /// # Errors
    /// When the registry has it already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let about = Opts::new(
            "daemun_agent_refused_total",
            "Connections and requests that the agent's port refused, by why.",
        );
        let counter = IntCounterVec::new(about, &["reason"])?;
        registry.register(Box::new(counter.clone()))?;
        for refusal in Refusal::ALL {
            counter.with_label_values(&[refusal.name()]);
        }
        Ok(Self(counter))
    }

    /// Counts one.
    pub fn count(&self, refusal: Refusal) {
        self.0.with_label_values(&[refusal.name()]).inc();
    }

    /// How many there were.
    pub fn counted(&self, refusal: Refusal) -> u64 {
        self.0.with_label_values(&[refusal.name()]).get()
    }
}
