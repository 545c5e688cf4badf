//! From a rule of the planner to expressions.

use std::net::IpAddr;

use podnet_model::Family;
use podnet_planner::ruleset::{Action, Field, FlowFields, GROUP, Match, Rule, unspecified};

use super::{
    element::{ACCEPT, DROP, JUMP},
    expression::{Base, Comparison, CtKey, Expression, MetaKey, Register, Rejection},
};

/// Where everything is loaded: no rule needs a value longer than it takes to use it.
const FIRST: Register = Register(0);
const TCP: u8 = 6;

/// What the rule looks like in the kernel: one rule, but for a rejection, which answers TCP in one way and the rest in another.
pub(super) fn expressions(family: Family, rule: &Rule) -> Vec<Vec<Expression<'_>>> {
    let conditions: Vec<Expression<'_>> = rule.matches.iter().flat_map(|found| condition(family, found)).collect();
    let actions = match &rule.action {
        Action::Reject => vec![reject_tcp(), vec![Expression::Reject(Rejection::PortUnreachable(family))]],
        action => vec![statement(family, action)],
    };
    actions.into_iter().map(|action| conditions.iter().cloned().chain(action).collect()).collect()
}

fn condition(family: Family, condition: &Match) -> Vec<Expression<'_>> {
    /// `NF_CT_STATE_BIT(IP_CT_NEW)`.
    const STATE_NEW: u32 = 8;
    /// `IPS_DST_NAT`.
    const STATUS_DNAT: u32 = 1 << 5;
    /// `RTN_LOCAL`.
    const TYPE_LOCAL: u32 = 2;
    match condition {
        Match::ConnectionNew => any_bit(Expression::Ct { to: FIRST, key: CtKey::State }, STATE_NEW),
        Match::DestinationTranslated => any_bit(Expression::Ct { to: FIRST, key: CtKey::Status }, STATUS_DNAT),
        Match::DestinationLocal => vec![Expression::FibDestinationType { to: FIRST }, equal(&TYPE_LOCAL.to_ne_bytes())],
        Match::OtherInputDevice { prefix } => {
            vec![
                Expression::Meta { to: FIRST, key: MetaKey::InputName },
                compare(Comparison::NotEqual, prefix.as_bytes()),
            ]
        }
        Match::OtherOutputDevice { prefix } => {
            vec![
                Expression::Meta { to: FIRST, key: MetaKey::OutputName },
                compare(Comparison::NotEqual, prefix.as_bytes()),
            ]
        }
        // The name to its end, so that none that begins so is meant.
        Match::FromElsewhere => {
            vec![Expression::Meta { to: FIRST, key: MetaKey::InputName }, compare(Comparison::NotEqual, b"lo\0")]
        }
        Match::Loopback(field) => loopback(family, *field),
        Match::Address(field, addr) => {
            let mut expressions = load(family, &[*field]);
            expressions.push(equal(&octets(*addr)));
            expressions
        }
        Match::ConnectionsOver(most) => vec![Expression::ConnectionsOver(*most)],
        Match::InSet { fields, set } => in_set(family, fields, set, false),
        Match::NotInSet { fields, set } => in_set(family, fields, set, true),
        Match::Protocol(number) => {
            vec![Expression::Meta { to: FIRST, key: MetaKey::L4Protocol }, equal(&[*number])]
        }
        // It is said of every socket, also of one that is being opened or that has ended.
        Match::SocketHere => vec![Expression::SocketTransparent { to: FIRST }, equal(&[0])],
        Match::EchoRequest => echo_request(family),
        Match::Mark { bits } => vec![
            Expression::Meta { to: FIRST, key: MetaKey::Mark },
            Expression::Bitwise { register: FIRST, mask: *bits, flip: 0 },
            equal(&bits.to_ne_bytes()),
        ],
    }
}

fn any_bit(load: Expression<'_>, bits: u32) -> Vec<Expression<'_>> {
    vec![load, Expression::Bitwise { register: FIRST, mask: bits, flip: 0 }, compare(Comparison::NotEqual, &[0; 4])]
}

fn equal(bytes: &[u8]) -> Expression<'static> {
    compare(Comparison::Equal, bytes)
}

fn compare(how: Comparison, with: &[u8]) -> Expression<'static> {
    Expression::Compare { register: FIRST, how, with: with.to_vec() }
}

/// Of IPv4 the first byte tells.
fn loopback<'a>(family: Family, field: Field) -> Vec<Expression<'a>> {
    let bytes = match family {
        Family::V4 => vec![127],
        Family::V6 => std::net::Ipv6Addr::LOCALHOST.octets().to_vec(),
    };
    let mut expressions = load(family, &[field]);
    if let Some(Expression::Payload { length, .. }) = expressions.first_mut() {
        *length = u32::try_from(bytes.len()).unwrap_or_default();
    }
    expressions.push(equal(&bytes));
    expressions
}

/// The type of the message (RFC 792; RFC 4443, section 4.1).
fn echo_request<'a>(family: Family) -> Vec<Expression<'a>> {
    let (protocol, message) = match family {
        Family::V4 => (1, 8),
        Family::V6 => (58, 128),
    };
    vec![
        Expression::Meta { to: FIRST, key: MetaKey::L4Protocol },
        equal(&[protocol]),
        Expression::Payload { to: FIRST, base: Base::Transport, offset: 0, length: 1 },
        equal(&[message]),
    ]
}

fn in_set<'a>(family: Family, fields: &[Field], set: &'a str, negated: bool) -> Vec<Expression<'a>> {
    let mut expressions = load(family, fields);
    expressions.push(Expression::InSet { key: FIRST, set, negated });
    expressions
}

fn statement(family: Family, action: &Action) -> Vec<Expression<'_>> {
    match action {
        Action::Accept => vec![Expression::Verdict { code: ACCEPT, chain: None }],
        Action::Jump(chain) => vec![Expression::Verdict { code: JUMP, chain: Some(chain) }],
        Action::Lookup(map) => {
            let mut expressions = load(family, &FRONTEND);
            expressions.push(Expression::VerdictOf { key: FIRST, map });
            expressions
        }
        Action::Dnat { map, slots } => {
            let mut expressions = load(family, &FRONTEND);
            expressions.push(Expression::Random { to: slot(family), modulus: *slots });
            expressions.extend(translation(family, map));
            expressions
        }
        Action::DnatRemembered { numbers, numbered, slots, memory, seconds } => {
            remembered(family, (numbers, *slots), numbered, (memory, *seconds))
        }
        Action::DnatAgain { memory, numbers, numbered, seconds } => {
            again(family, (numbers, numbered), (memory, *seconds))
        }
        Action::DnatTo(addr) => vec![
            Expression::Constant { to: FIRST, bytes: octets(*addr) },
            Expression::DestinationNat { family, addr: FIRST, port: None },
        ],
        Action::DnatAnyAddress { map } => {
            let mut expressions = vec![Expression::Constant { to: FIRST, bytes: octets(unspecified(family)) }];
            expressions.extend(load_from(family, words(family, FRONTEND[0]), &FRONTEND[1..]));
            expressions.push(Expression::Constant { to: slot(family), bytes: vec![0; 4] });
            expressions.extend(translation(family, map));
            expressions
        }
        Action::Drop => vec![Expression::Verdict { code: DROP, chain: None }],
        Action::SetMark { bits } => vec![
            Expression::Meta { to: FIRST, key: MetaKey::Mark },
            Expression::Bitwise { register: FIRST, mask: !bits, flip: *bits },
            Expression::SetMark { from: FIRST },
        ],
        Action::Masquerade => vec![Expression::Masquerade],
        Action::NoTrack => vec![Expression::NoTrack],
        Action::NoteFlow { set, by, seconds } => noted(family, *by, set, *seconds),
        Action::Reject => Vec::new(),
    }
}

/// What a frontend's key is made of.
const FRONTEND: [Field; 3] = [Field::DestinationAddress, Field::Protocol, Field::DestinationPort];

/// The slot lies behind the frontend's key.
fn slot(family: Family) -> Register {
    Register(FRONTEND.iter().map(|field| words(family, *field)).sum())
}

/// The backend's address and port take the key's place.
fn translation(family: Family, map: &str) -> [Expression<'_>; 2] {
    let port = Some(Register(words(family, Field::DestinationAddress)));
    [Expression::ValueOf { key: FIRST, map, to: FIRST }, Expression::DestinationNat { family, addr: FIRST, port }]
}

/// Where things lie while a client's backend is looked for: the memory's key is the client and the frontend's group; frontend and what
/// follows, a slot or a number, are the key of a backend.
struct Places {
    client: Register,
    group: Register,
    frontend: Register,
    number: Register,
}

impl Places {
    fn of(family: Family) -> Self {
        let addr = words(family, Field::SourceAddress);
        Self {
            client: FIRST,
            group: Register(addr),
            frontend: Register(addr + 1),
            number: Register(addr + 1 + slot(family).0),
        }
    }

    /// Client, group and frontend. The group's number goes the way of a backend's ([`Places::by_priority`]), and leaves the priority as it
    /// is of every other packet.
    fn load<'a>(&self, family: Family, numbers: &'a str) -> Vec<Expression<'a>> {
        let mut expressions = load(family, &[Field::SourceAddress]);
        expressions.extend(load_from(family, self.frontend.0, &FRONTEND));
        expressions.extend([
            Expression::Constant { to: self.number, bytes: GROUP.to_ne_bytes().to_vec() },
            Expression::ValueOf { key: self.frontend, map: numbers, to: self.number },
            Expression::SetPriority { from: self.number },
            Expression::Meta { to: self.group, key: MetaKey::Priority },
        ]);
        expressions.extend(self.no_priority());
        expressions
    }

    fn no_priority<'a>(&self) -> [Expression<'a>; 2] {
        [Expression::Constant { to: self.number, bytes: vec![0; 4] }, Expression::SetPriority { from: self.number }]
    }

    /// A number goes from a map to a key by way of the packet's priority, for `nft` cannot read a rule in which it stays in a register (it
    /// ends with an assertion). What priority the first packet of a connection had before is lost; the stack gives what it forwards a new
    /// one.
    fn by_priority<'a>(&self) -> [Expression<'a>; 2] {
        [Expression::SetPriority { from: self.number }, Expression::Meta { to: self.number, key: MetaKey::Priority }]
    }

    /// Translates to the backend of the number, and leaves the packet the priority of every other one.
    fn translation<'a>(&self, family: Family, numbered: &'a str) -> [Expression<'a>; 4] {
        let port = Some(Register(words(family, Field::DestinationAddress)));
        let [constant, set] = self.no_priority();
        [
            Expression::ValueOf { key: self.frontend, map: numbered, to: FIRST },
            constant,
            set,
            Expression::DestinationNat { family, addr: FIRST, port },
        ]
    }
}

/// The backend whose number the memory holds, if the frontend still has it.
fn again<'a>(
    family: Family,
    (numbers, numbered): (&'a str, &'a str),
    (memory, seconds): (&'a str, u32),
) -> Vec<Expression<'a>> {
    let places = Places::of(family);
    let mut expressions = places.load(family, numbers);
    expressions.push(Expression::ValueOf { key: places.client, map: memory, to: places.number });
    expressions.extend(places.by_priority());
    expressions.push(Expression::Remember { memory, key: places.client, value: places.number, seconds });
    expressions.extend(places.translation(family, numbered));
    expressions
}

/// One of the backends, whose number the memory holds from now on in place of another, which this frontend has not any more.
fn remembered<'a>(
    family: Family,
    (numbers, slots): (&'a str, u32),
    numbered: &'a str,
    (memory, seconds): (&'a str, u32),
) -> Vec<Expression<'a>> {
    let places = Places::of(family);
    let mut expressions = places.load(family, numbers);
    expressions.extend([
        Expression::Random { to: places.number, modulus: slots },
        Expression::ValueOf { key: places.frontend, map: numbers, to: places.number },
    ]);
    expressions.extend(places.by_priority());
    expressions.extend([
        Expression::Forget { memory, key: places.client, value: places.number },
        Expression::Remember { memory, key: places.client, value: places.number, seconds },
    ]);
    expressions.extend(places.translation(family, numbered));
    expressions
}

/// Source address, protocol, source port, destination address and destination port, as `NotedFlow` reads them. None is a constant, with which `nft` could
/// not print the rule.
fn noted(family: Family, by: FlowFields, set: &str, seconds: u32) -> Vec<Expression<'_>> {
    let addr = words(family, Field::SourceAddress);
    let (port, destination, destination_port) = (Register(addr + 1), Register(addr + 2), Register(2 * addr + 2));
    let transport = |to: Register, offset: u32| Expression::Payload { to, base: Base::Transport, offset, length: 2 };
    let mut expressions = load(family, &[Field::SourceAddress, Field::Protocol]);
    match by {
        FlowFields::Ports => {
            expressions.push(transport(port, 0));
            expressions.extend(load_from(family, destination.0, &[Field::DestinationAddress]));
            expressions.push(transport(destination_port, 2));
        }
        FlowFields::Asked => expressions.extend([
            transport(port, 0),
            Expression::Ct { to: destination, key: CtKey::original_destination(family) },
            Expression::Ct { to: destination_port, key: CtKey::OriginalDestinationPort },
        ]),
        // RFC 792; RFC 4443, section 2.1: type and code, checksum, and of echoes the identifier.
        FlowFields::Identifier => {
            expressions.push(transport(port, 4));
            expressions.extend(load_from(family, destination.0, &[Field::DestinationAddress]));
            expressions.push(transport(destination_port, 0));
        }
    }
    expressions.push(Expression::Note { set, key: FIRST, seconds });
    expressions
}

/// The bytes of an address as they lie in packets and registers.
pub(super) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn reject_tcp() -> Vec<Expression<'static>> {
    vec![
        Expression::Meta { to: FIRST, key: MetaKey::L4Protocol },
        equal(&[TCP]),
        Expression::Reject(Rejection::TcpReset),
    ]
}

/// Loads the fields into consecutive registers, as a concatenation lies.
fn load<'a>(family: Family, fields: &[Field]) -> Vec<Expression<'a>> {
    load_from(family, 0, fields)
}

fn load_from<'a>(family: Family, first: u32, fields: &[Field]) -> Vec<Expression<'a>> {
    // Where the addresses stand in the header, and how long they are (RFC 791, section 3.1; RFC 8200, section 3).
    let (source, destination, length) = match family {
        Family::V4 => (12, 16, 4),
        Family::V6 => (8, 24, 16),
    };
    let mut next = first;
    let load = |field: &Field| {
        let to = Register(next);
        next += words(family, *field);
        match field {
            Field::SourceAddress => Expression::Payload { to, base: Base::Network, offset: source, length },
            Field::DestinationAddress => Expression::Payload { to, base: Base::Network, offset: destination, length },
            Field::Protocol => Expression::Meta { to, key: MetaKey::L4Protocol },
            Field::DestinationPort => Expression::Payload { to, base: Base::Transport, offset: 2, length: 2 },
            Field::InputDevice => Expression::Meta { to, key: MetaKey::InputName },
            Field::SourceMac => Expression::Payload { to, base: Base::Link, offset: 6, length: 6 },
        }
    };
    fields.iter().map(load).collect()
}

/// How many registers of 32 bits a field takes.
const fn words(family: Family, field: Field) -> u32 {
    match field {
        Field::SourceAddress | Field::DestinationAddress => family.bits() as u32 / 32,
        // `IFNAMSIZ` bytes, filled up with zeros.
        Field::InputDevice => 4,
        Field::SourceMac => 2,
        _ => 1,
    }
}
