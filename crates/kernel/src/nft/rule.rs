//! From a rule of the planner to expressions.

use podnet_planner::ruleset::{Action, Field, Match, Rule};

use super::{
    element::{ACCEPT, DROP, JUMP},
    expression::{Base, Comparison, CtKey, Expression, MetaKey, Register, Rejection},
};

/// Where everything is loaded: no rule needs a value longer than it takes to use it.
const FIRST: Register = Register(0);
const TCP: u8 = 6;

/// What the rule looks like in the kernel: one rule, but for a rejection, which answers TCP in one way and the rest in another.
pub(super) fn expressions(rule: &Rule) -> Vec<Vec<Expression<'_>>> {
    let conditions: Vec<Expression<'_>> = rule.matches.iter().flat_map(condition).collect();
    let actions = match &rule.action {
        Action::Reject => vec![reject_tcp(), vec![Expression::Reject(Rejection::PortUnreachable)]],
        action => vec![statement(action)],
    };
    actions.into_iter().map(|action| conditions.iter().cloned().chain(action).collect()).collect()
}

fn condition(condition: &Match) -> Vec<Expression<'_>> {
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
        Match::InputDevice { prefix } => {
            vec![Expression::Meta { to: FIRST, key: MetaKey::InputName }, equal(prefix.as_bytes())]
        }
        Match::SourceElsewhere => vec![Expression::FibSourceDevice { to: FIRST }, equal(&[0; 4])],
        Match::InSet { fields, set } => in_set(fields, set, false),
        Match::NotInSet { fields, set } => in_set(fields, set, true),
        Match::Mark { bits } => vec![
            Expression::Meta { to: FIRST, key: MetaKey::Mark },
            Expression::Bitwise { register: FIRST, mask: *bits, flip: 0 },
            equal(&bits.to_ne_bytes()),
        ],
    }
}

fn any_bit(load: Expression<'_>, bits: u32) -> Vec<Expression<'_>> {
    let none = Expression::Compare { register: FIRST, how: Comparison::NotEqual, with: vec![0; 4] };
    vec![load, Expression::Bitwise { register: FIRST, mask: bits, flip: 0 }, none]
}

fn equal(bytes: &[u8]) -> Expression<'static> {
    Expression::Compare { register: FIRST, how: Comparison::Equal, with: bytes.to_vec() }
}

fn in_set<'a>(fields: &[Field], set: &'a str, negated: bool) -> Vec<Expression<'a>> {
    let mut expressions = load(fields);
    expressions.push(Expression::InSet { key: FIRST, set, negated });
    expressions
}

fn statement(action: &Action) -> Vec<Expression<'_>> {
    match action {
        Action::Accept => vec![Expression::Verdict { code: ACCEPT, chain: None }],
        Action::Jump(chain) => vec![Expression::Verdict { code: JUMP, chain: Some(chain) }],
        Action::Lookup(map) => {
            let mut expressions = load(&FRONTEND);
            expressions.push(Expression::VerdictOf { key: FIRST, map });
            expressions
        }
        Action::Dnat { map, slots } => {
            let mut expressions = load(&FRONTEND);
            expressions.push(Expression::Random { to: Register(3), modulus: *slots });
            expressions.extend(translation(map));
            expressions
        }
        Action::DnatAnyAddress { map } => {
            let mut expressions = vec![Expression::Constant { to: FIRST, bytes: [0; 4] }];
            expressions.extend(load_from(1, &FRONTEND[1..]));
            expressions.push(Expression::Constant { to: Register(3), bytes: [0; 4] });
            expressions.extend(translation(map));
            expressions
        }
        Action::Drop => vec![Expression::Verdict { code: DROP, chain: None }],
        Action::SetMark { bits } => vec![
            Expression::Meta { to: FIRST, key: MetaKey::Mark },
            Expression::Bitwise { register: FIRST, mask: !bits, flip: *bits },
            Expression::SetMark { from: FIRST },
        ],
        Action::Masquerade => vec![Expression::Masquerade],
        Action::Reject => Vec::new(),
    }
}

/// What a frontend's key is made of.
const FRONTEND: [Field; 3] = [Field::DestinationAddress, Field::Protocol, Field::DestinationPort];

/// The slot lies behind the frontend's key; the backend's address and port take the key's place.
fn translation(map: &str) -> [Expression<'_>; 2] {
    [Expression::ValueOf { key: FIRST, map, to: FIRST }, Expression::DestinationNat { addr: FIRST, port: Register(1) }]
}

fn reject_tcp() -> Vec<Expression<'static>> {
    vec![
        Expression::Meta { to: FIRST, key: MetaKey::L4Protocol },
        equal(&[TCP]),
        Expression::Reject(Rejection::TcpReset),
    ]
}

/// Loads the fields into consecutive registers, as a concatenation lies.
fn load<'a>(fields: &[Field]) -> Vec<Expression<'a>> {
    load_from(0, fields)
}

fn load_from<'a>(first: u32, fields: &[Field]) -> Vec<Expression<'a>> {
    let mut next = first;
    let load = |field: &Field| {
        let to = Register(next);
        next += words(*field);
        match field {
            Field::SourceAddress => Expression::Payload { to, base: Base::Network, offset: 12, length: 4 },
            Field::DestinationAddress => Expression::Payload { to, base: Base::Network, offset: 16, length: 4 },
            Field::Protocol => Expression::Meta { to, key: MetaKey::L4Protocol },
            Field::DestinationPort => Expression::Payload { to, base: Base::Transport, offset: 2, length: 2 },
            Field::InputDevice => Expression::Meta { to, key: MetaKey::InputName },
            Field::SourceMac => Expression::Payload { to, base: Base::Link, offset: 6, length: 6 },
        }
    };
    fields.iter().map(load).collect()
}

/// How many registers of 32 bits a field takes.
const fn words(field: Field) -> u32 {
    match field {
        // `IFNAMSIZ` bytes, filled up with zeros.
        Field::InputDevice => 4,
        Field::SourceMac => 2,
        _ => 1,
    }
}
