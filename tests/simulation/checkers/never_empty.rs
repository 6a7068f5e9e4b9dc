//! Every client gets an answer under every view, and it is of the best there is.

use std::net::IpAddr;
use std::sync::Arc;

use daemun_fleet::config::DOOR_ROLE;
use daemun_fleet::placement::Choice;
use daemun_fleet::steering::Target;
use daemun_fleet::view::{Health, State};
use daemun_fleet::{Client, FleetView, Placer, Steering};

use super::Checker;
use crate::fleet;
use crate::scene::Scene;

/// What is asked of a placer; [`Placer`] itself, but for a test of this checker.
pub(crate) trait Places {
    fn choose(&self, target: Target, client: &Client) -> Option<Choice>;
    fn named(&self, target: Target, client: &Client, choice: Choice) -> Vec<usize>;
    fn order(&self, target: Target, client: &Client) -> Vec<usize>;
    fn addresses(&self, target: Target, datacenter: usize) -> &[IpAddr];
}

impl Places for Placer {
    fn choose(&self, target: Target, client: &Client) -> Option<Choice> {
        Some(Placer::choose(self, target, client))
    }

    fn named(&self, target: Target, client: &Client, choice: Choice) -> Vec<usize> {
        Placer::named(self, target, client, choice)
    }

    fn order(&self, target: Target, client: &Client) -> Vec<usize> {
        Placer::order(self, target, client)
    }

    fn addresses(&self, target: Target, datacenter: usize) -> &[IpAddr] {
        Placer::addresses(self, target, datacenter)
    }
}

/// Makes a placer for a view.
pub(crate) type Make = fn(Arc<Steering>, Arc<FleetView>) -> Box<dyn Places>;

/// Places clients under each view.
pub(crate) struct NeverEmpty {
    steering: Arc<Steering>,
    targets: Vec<Target>,
    clients: Vec<Client>,
    make: Make,
    /// States that were looked at last.
    last: Vec<State>,
}

impl NeverEmpty {
    pub(crate) fn new(datacenters: usize) -> Self {
        Self::with(datacenters, |steering, view| Box::new(Placer::new(steering, view)))
    }

    pub(crate) fn with(datacenters: usize, make: Make) -> Self {
        let steering = fleet::steering(datacenters);
        let names = ["near.shop.test", "share.shop.test"].map(|name| steering.target(name));
        let targets = names.into_iter().flatten().chain([steering.door()]).collect();
        let address = |text: &str| Client::address(text.parse().expect("an address"));
        let clients =
            ["1.2.3.4", "5.6.7.8", "8.8.8.8", "41.0.0.1", "200.1.2.3", "10.0.0.1", "2001:200::1", "2a00::1"];
        Self { steering, targets, clients: clients.map(address).to_vec(), make, last: Vec::new() }
    }

    fn place(
        &self,
        placer: &dyn Places,
        target: Target,
        client: &Client,
        view: &FleetView,
    ) -> Result<(), String> {
        let datacenters = &self.steering.config().fleet.datacenters;
        let nothing = |what: &str| Err(format!("{what} is empty for {client:?} under {:?}", self.last));
        let Some(choice) = placer.choose(target, client) else { return nothing("the choice") };
        let mut order = placer.order(target, client);
        if order.first() != Some(&choice.datacenter) {
            return Err(format!("{client:?} gets {} and the order {order:?}", choice.datacenter));
        }
        if !placer.named(target, client, choice).contains(&choice.datacenter) {
            return nothing("what is named");
        }
        if placer.addresses(target, choice.datacenter).is_empty() {
            return nothing("the list of addresses");
        }
        order.sort_unstable();
        if order != (0..datacenters.len()).collect::<Vec<_>>() {
            return nothing("the end of the order");
        }
        let is_out = |number: usize| {
            let state = view.datacenters.get(&datacenters[number].name).map(|view| view.state);
            let has_server = self.steering.config().fleet.servers_of(number, DOOR_ROLE).any(|server| {
                view.servers.get(&server.name).is_none_or(|server| server.health != Health::Down)
            });
            // A pin does not make a server answer.
            !has_server || state.is_some_and(|state| matches!(state, State::Down | State::Drained))
        };
        if is_out(choice.datacenter) && !(0..datacenters.len()).all(is_out) {
            return Err(format!("{client:?} is sent to {} under {:?}", choice.datacenter, self.last));
        }
        Ok(())
    }
}

impl Checker for NeverEmpty {
    fn name(&self) -> &'static str {
        "never empty"
    }

    fn look(&mut self, scene: &Scene, changed: Option<usize>) -> Result<(), String> {
        let Some(view) = changed.and_then(|agent| scene.agents[agent].view.as_ref()) else { return Ok(()) };
        let states: Vec<State> = view.datacenters.values().map(|view| view.state).collect();
        if states == self.last {
            return Ok(());
        }
        self.last = states;
        let placer = (self.make)(Arc::clone(&self.steering), Arc::clone(view));
        for target in &self.targets {
            for client in &self.clients {
                self.place(&*placer, *target, client, view)?;
            }
        }
        Ok(())
    }
}
