//! Rules done to a packet, one chain after the other.

use std::net::IpAddr;

use super::{Connection, Direction, Element, Hop, Outcome, Packet, Routing, Verdict, Way};
use crate::ruleset::{
    Action, BackendAddress, BackendKey, ChainKind, Field, FrontendKey, Hook, HookPoint, Match, Rule, RuleName, RuleSet,
    Set, unspecified,
};

/// How deep jumps may be nested (`NFT_JUMP_STACK_SIZE`); the kernel drops what goes deeper.
const DEPTH_MAX: usize = 16;

/// How many chains a packet may enter at one hook: only a loop of lookups, which no kernel takes, needs more.
const CHAINS_MAX: usize = 256;

/// A packet as it is by now.
#[derive(Clone)]
pub(super) struct Traveller {
    packet: Packet,
    pub(super) dst: IpAddr,
    dport: u16,
    mark: u32,
    translated: bool,
    masqueraded: bool,
    untracked: bool,
    one_in: u32,
    /// What came in through a pod's device is taken to be that pod's own, with the pod's addresses.
    direction: Direction,
    steps: Vec<Hop>,
}

/// Where a packet is in the chains of one hook.
#[derive(Clone)]
struct Position {
    traveller: Traveller,
    chain: RuleName,
    rule: usize,
    /// Where it comes back to.
    stack: Vec<(RuleName, usize)>,
    entered: usize,
}

/// What a rule did to a packet.
enum Done {
    /// The next rule of the chain.
    Next,
    /// The hook's base chain is left with a verdict; none is accept.
    End(Option<Verdict>),
    /// Into a chain, and back after it.
    Jump(RuleName),
    /// Into a chain, not to come back to this one.
    Goto(RuleName),
    /// To this destination.
    To(BackendAddress),
    /// Any of these backends, each as likely as the others; those that the map does not have go on to the next rule.
    Backends(Vec<Slot>),
}

/// A slot of a backend map and what is in it, if anything.
type Slot = Option<(RuleName, BackendKey, BackendAddress)>;

impl Traveller {
    pub(super) const fn new(packet: &Packet, direction: Direction) -> Self {
        Self {
            packet: *packet,
            dst: packet.dst,
            dport: packet.dport,
            mark: packet.mark,
            translated: false,
            masqueraded: false,
            untracked: false,
            one_in: 1,
            direction,
            steps: Vec::new(),
        }
    }

    /// Does what connection tracking does at the hook without asking any chain: translates as the first packet was.
    pub(super) fn arrives(mut self, hook: HookPoint) -> Self {
        if let Connection::Established { destination, masqueraded } = self.packet.connection {
            match (hook, destination) {
                (HookPoint::Prerouting | HookPoint::Output, Some(to)) => self.translate(to),
                (HookPoint::Postrouting, _) => self.masqueraded = masqueraded,
                _ => {}
            }
        }
        self
    }

    pub(super) fn ends(self, verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            destination: BackendAddress { addr: self.dst, port: self.dport },
            translated: self.translated,
            masqueraded: self.masqueraded,
            answers: self.packet.is_echo,
            mark: self.mark,
            one_in: self.one_in,
            steps: self.steps,
        }
    }

    /// Goes through a base chain and what it leads to; none is to go on with the next base chain.
    pub(super) fn enter(
        self,
        rules: &RuleSet,
        base: &RuleName,
        hook: Hook,
        routing: &dyn Routing,
    ) -> Vec<(Self, Option<Verdict>)> {
        if hook.kind == ChainKind::Nat && !self.to_translate(hook.point) {
            return vec![(self, None)];
        }
        let mut ended = Vec::new();
        let mut open = vec![Position { traveller: self, chain: base.clone(), rule: 0, stack: Vec::new(), entered: 1 }];
        while let Some(position) = open.pop() {
            position.step(rules, hook.point, routing, &mut open, &mut ended);
        }
        ended.reverse();
        ended
    }

    /// Whether `nat` chains are asked: for first packets that no earlier chain translated in this direction.
    fn to_translate(&self, hook: HookPoint) -> bool {
        let done = if hook == HookPoint::Postrouting { self.masqueraded } else { self.translated };
        // What a host sends itself passes postrouting before prerouting, where its connection is known already.
        let known = hook == HookPoint::Prerouting && self.steps.iter().any(|hop| hop.hook == HookPoint::Output);
        self.packet.connection == Connection::New && !self.untracked && !done && !known
    }

    fn translate(&mut self, to: BackendAddress) {
        (self.dst, self.dport, self.translated) = (to.addr, to.port, true);
    }

    /// None where the packet has no ports.
    fn frontend(&self) -> Option<FrontendKey> {
        let key = FrontendKey { addr: self.dst, protocol: self.packet.protocol, port: self.dport };
        (!self.packet.is_echo).then_some(key)
    }

    /// The elements that the rule's conditions found, or none where one of them does not hold.
    fn meets(&self, rule: &Rule, rules: &RuleSet, routing: &dyn Routing) -> Option<Vec<Element>> {
        let mut found = Vec::new();
        for condition in &rule.matches {
            let holds = match condition {
                Match::ConnectionNew => self.packet.connection == Connection::New,
                Match::DestinationTranslated => self.translated,
                Match::DestinationLocal => routing.route(self.dst) == Way::Local,
                Match::EchoRequest => self.packet.is_echo,
                Match::Protocol(number) => !self.packet.is_echo && self.packet.protocol.number() == *number,
                Match::SocketHere => {
                    self.frontend().is_some_and(|at| routing.has_socket(at.addr, at.protocol, at.port))
                }
                Match::Mark { bits } => self.mark & bits == *bits,
                Match::OtherInputDevice { .. } => self.direction != Direction::FromPod,
                // Such devices are those of programs, to which no virtual packet goes.
                Match::OtherOutputDevice { .. } => true,
                Match::FromElsewhere => self.direction != Direction::FromHost,
                Match::Address(field, addr) => self.addresses(std::slice::from_ref(field)) == [*addr],
                // One virtual packet is alone.
                Match::ConnectionsOver(most) => *most == 0,
                Match::Loopback(field) => self.addresses(std::slice::from_ref(field)).iter().any(IpAddr::is_loopback),
                Match::InSet { fields, set } if fields.contains(&Field::Protocol) => self.may_come(rules.sets.get(set)),
                Match::NotInSet { fields, set } if fields.contains(&Field::Protocol) => {
                    !self.may_come(rules.sets.get(set))
                }
                Match::InSet { fields, .. } if is_of_device(fields) => true,
                Match::NotInSet { fields, .. } if is_of_device(fields) => false,
                Match::InSet { fields, set } if **fields == [Field::DestinationPort] => {
                    self.is_to_port_of(rules.sets.get(set))
                }
                Match::NotInSet { fields, set } if **fields == [Field::DestinationPort] => {
                    !self.is_to_port_of(rules.sets.get(set))
                }
                Match::NotInSet { fields, set } => !contains(rules.sets.get(set), &self.addresses(fields)),
                Match::InSet { fields, set } => {
                    let addrs = self.addresses(fields);
                    let holds = contains(rules.sets.get(set), &addrs);
                    found.push(Element::Member(set.clone(), addrs));
                    holds
                }
            };
            if !holds {
                return None;
            }
        }
        Some(found)
    }

    fn is_to_port_of(&self, set: Option<&Set>) -> bool {
        !self.packet.is_echo && matches!(set, Some(Set::Ports(ports)) if ports.contains(&self.dport))
    }

    /// Whether its source is one of those that may come to its frontend.
    fn may_come(&self, set: Option<&Set>) -> bool {
        let (Some(Set::Sources(sources)), Some(frontend)) = (set, self.frontend()) else { return false };
        sources.iter().any(|(one, range)| *one == frontend && range.contains(&self.packet.src))
    }

    /// The backends in the slots of a map, each as likely as the others.
    fn slots(&self, rules: &RuleSet, map: &RuleName, slots: impl Iterator<Item = Option<u32>>) -> Option<Done> {
        let elements = &rules.backend_maps.get(map)?.elements;
        let frontend = self.frontend()?;
        let found = |slot: Option<u32>| {
            let key = BackendKey { frontend, slot: slot? };
            Some((map.clone(), key, *elements.get(&key)?))
        };
        Some(Done::Backends(slots.map(found).collect()))
    }

    fn addresses(&self, fields: &[Field]) -> Vec<IpAddr> {
        let address = |field: &Field| match field {
            Field::SourceAddress => Some(self.packet.src),
            Field::DestinationAddress => Some(self.dst),
            Field::Protocol | Field::DestinationPort | Field::InputDevice | Field::SourceMac => None,
        };
        fields.iter().filter_map(address).collect()
    }

    fn act(&mut self, action: &Action, rules: &RuleSet, found: &mut Vec<Element>) -> Option<Done> {
        Some(match action {
            Action::Accept => Done::End(None),
            Action::Reject => Done::End(Some(Verdict::Rejected)),
            Action::Drop => Done::End(Some(Verdict::Dropped)),
            Action::Jump(chain) => Done::Jump(chain.clone()),
            Action::SetMark { bits } => {
                self.mark |= bits;
                Done::Next
            }
            Action::NoTrack => {
                self.untracked = true;
                Done::Next
            }
            // What is noted is asked by no rule.
            Action::NoteFlow { .. } => Done::Next,
            Action::Masquerade => {
                self.masqueraded = true;
                Done::End(None)
            }
            Action::Lookup(map) => {
                let key = self.frontend()?;
                let chain = rules.verdict_maps.get(map)?.elements.get(&key)?;
                found.push(Element::Frontend(map.clone(), key, chain.clone()));
                Done::Goto(chain.clone())
            }
            Action::Dnat { map, slots } => return self.slots(rules, map, (0..*slots).map(Some)),
            Action::DnatRemembered { numbers, numbered, slots, .. } => {
                let Set::Numbers(numbers) = rules.sets.get(numbers)? else { return None };
                let frontend = self.frontend()?;
                let number = |slot| numbers.get(&BackendKey { frontend, slot }).copied();
                return self.slots(rules, numbered, (0..*slots).map(number));
            }
            Action::DnatAgain { numbered, .. } => {
                let (frontend, to) = (self.frontend()?, self.packet.remembered?);
                let elements = &rules.backend_maps.get(numbered)?.elements;
                let own =
                    elements.range(BackendKey { frontend, slot: 0 }..).take_while(|(key, _)| key.frontend == frontend);
                Done::To(*{ own }.find(|(_, at)| **at == to)?.1)
            }
            Action::DnatTo(addr) => Done::To(BackendAddress { addr: *addr, port: self.dport }),
            Action::DnatAnyAddress { map } => {
                let frontend = FrontendKey { addr: unspecified(rules.family), ..self.frontend()? };
                let key = BackendKey { frontend, slot: 0 };
                let to = rules.backend_maps.get(map)?.elements.get(&key)?;
                Done::Backends(vec![Some((map.clone(), key, *to))])
            }
        })
    }
}

impl Position {
    /// Does the next rule; what comes of it is open or ended.
    fn step(
        mut self,
        rules: &RuleSet,
        hook: HookPoint,
        routing: &dyn Routing,
        open: &mut Vec<Self>,
        ended: &mut Vec<(Traveller, Option<Verdict>)>,
    ) {
        let Some(rule) = rules.chains.get(&self.chain).and_then(|chain| chain.rules.get(self.rule)) else {
            match self.stack.pop() {
                Some((chain, rule)) => open.push(Self { chain, rule, ..self }),
                None => ended.push((self.traveller, None)),
            }
            return;
        };
        self.rule += 1;
        let Some(mut matched) = self.traveller.meets(rule, rules, routing) else { return open.push(self) };
        let Some(done) = self.traveller.act(&rule.action, rules, &mut matched) else { return open.push(self) };
        let hop = Hop { hook, chain: self.chain.clone(), comment: rule.comment, matched };
        match done {
            Done::Next => open.push(self.noting(hop)),
            Done::End(verdict) => ended.push((self.noting(hop).traveller, verdict)),
            Done::Jump(chain) => {
                self.stack.push((self.chain.clone(), self.rule));
                self.noting(hop).go(chain, open, ended);
            }
            Done::Goto(chain) => self.noting(hop).go(chain, open, ended),
            Done::To(to) => {
                let mut position = self.noting(hop);
                position.traveller.translate(to);
                ended.push((position.traveller, None));
            }
            Done::Backends(slots) => self.fan_out(&hop, &slots, open, ended),
        }
    }

    fn noting(mut self, hop: Hop) -> Self {
        self.traveller.steps.push(hop);
        self
    }

    fn go(self, chain: RuleName, open: &mut Vec<Self>, ended: &mut Vec<(Traveller, Option<Verdict>)>) {
        if self.stack.len() > DEPTH_MAX || self.entered >= CHAINS_MAX {
            ended.push((self.traveller, Some(Verdict::Dropped)));
        } else {
            open.push(Self { chain, rule: 0, entered: self.entered + 1, ..self });
        }
    }

    /// Follows every slot: a filled one ends the chain, for a translation is an accept; an empty one makes the rule not match.
    fn fan_out(self, hop: &Hop, slots: &[Slot], open: &mut Vec<Self>, ended: &mut Vec<(Traveller, Option<Verdict>)>) {
        let ways = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        for slot in slots.iter().rev() {
            let mut way = self.clone();
            way.traveller.one_in = way.traveller.one_in.saturating_mul(ways);
            let Some((map, key, to)) = slot else {
                open.push(way);
                continue;
            };
            let mut hop = hop.clone();
            hop.matched.push(Element::Backend(map.clone(), *key, *to));
            way.traveller.translate(*to);
            ended.push((way.noting(hop).traveller, None));
        }
    }
}

/// What a device has: a packet that is taken to be its sender's own always has it.
fn is_of_device(fields: &[Field]) -> bool {
    fields.iter().any(|field| matches!(field, Field::InputDevice | Field::SourceMac))
}

fn contains(set: Option<&Set>, addrs: &[IpAddr]) -> bool {
    match (set, addrs) {
        (Some(Set::Addresses(elements) | Set::Counters(elements)), [addr]) => elements.contains(addr),
        (Some(Set::Ranges(ranges)), [addr]) => ranges.iter().any(|range| range.contains(addr)),
        (Some(Set::Pairs(pairs)), [first, second]) => pairs.contains(&(*first, *second)),
        // One packet alone exceeds no limit.
        _ => false,
    }
}
