//! What is to happen, in the order of true time.

use std::net::IpAddr;
use std::time::Duration;

use daemun_fleet::view::Frontier;
use daemun_sync::core::Answer;

/// What happens next.
#[derive(Debug)]
pub(super) enum Event {
    Act(usize),
    Beat,
    /// What starts again a process that a drill has killed in one of its lives.
    Guard(usize, u32),
    /// For an agent in one of its lives.
    Of(usize, u32, Happening),
}

/// To one agent.
#[derive(Debug)]
pub(super) enum Happening {
    Wake,
    Probed {
        server: String,
        address: IpAddr,
        fails: Option<&'static str>,
    },
    /// A question has arrived.
    Asked {
        from: usize,
        from_life: u32,
        number: u64,
        after: Frontier,
        hold: Duration,
    },
    HoldIsOver {
        id: u64,
    },
    Answered {
        peer: usize,
        number: u64,
        answer: Box<Answer>,
    },
    Failed {
        peer: usize,
        number: u64,
    },
    Keep,
    /// At what the view says of a drill.
    Look,
    /// A drill kills the process for so long.
    Killed {
        rest_ms: u64,
    },
}

impl Happening {
    /// Whether it happens to the process around an agent, silenced or not.
    pub(super) fn is_of_process(&self) -> bool {
        matches!(self, Happening::Keep | Happening::Look | Happening::Killed { .. })
    }
}

/// When.
pub(super) struct Scheduled {
    pub(super) at_us: u64,
    /// Tells apart what happens at once.
    pub(super) number: u64,
    pub(super) event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.number) == (other.at_us, other.number)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}
