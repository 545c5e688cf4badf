//! One rule, and its text.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use podnet_model::{Family, Protocol};

use super::ChainName;
use crate::{
    ipvs::SetName,
    ruleset::{BackendAddress, FrontendKey},
};

/// A rule: what a packet has to be, and what is done with it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    source: Option<(bool, IpNet)>,
    destination: Option<IpNet>,
    transport: Option<Transport>,
    matches: Vec<Match>,
    target: Target,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A protocol with ports.
    Ports(Protocol),
    /// ICMP, or ICMPv6.
    Icmp(Family),
}

/// A condition of an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// None: why the rule is there.
    Comment(String),
    /// The packet goes to this port.
    DestinationPort(Protocol, u16),
    /// It asks for an echo.
    EchoRequest(Family),
    /// All of these bits of the packet mark are set, or where `set` is false not all of them.
    Mark {
        /// The bits.
        bits: u32,
        /// How they have to be.
        set: bool,
    },
    /// One packet of so many, by chance.
    OneIn(u32),
    /// The source is on this list since no more than so many seconds; who is on it for longer is taken off.
    Remembered {
        /// The list.
        list: ChainName,
        /// Seconds, at least 1.
        seconds: u32,
        /// Of the list's addresses.
        family: Family,
    },
    /// The source comes onto this list, now.
    Remember {
        /// The list.
        list: ChainName,
        /// Of the list's addresses.
        family: Family,
    },
    /// The source is an address of this host.
    SourceLocal,
    /// The first packet of a connection.
    ConnectionNew,
    /// A packet of a connection that is known, or of one that has to do with such a one.
    ConnectionKnown,
    /// A packet that has to do with a connection that is known: an error that somebody on its way tells.
    ConnectionRelated,
    /// A packet that connection tracking can make nothing of: it neither begins a connection nor fits one that is known.
    ConnectionInvalid,
    /// The connection's destination was translated.
    Translated,
    /// It was not.
    Untranslated,
    /// It was, and was an address of this range before.
    TranslatedFrom(IpNet),
    /// Something of the packet is in this set of ipset, or where `within` is false it is not.
    InSet {
        /// The set.
        set: SetName,
        /// What of the packet.
        of: Side,
        /// Whether it has to be in there.
        within: bool,
    },
}

/// What of a packet is looked for in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The source address.
    Source,
    /// The destination's address, or where the set is of ports alone the destination's port.
    Destination,
    /// The destination's address and port.
    DestinationPort,
    /// The destination's address and port, and the source address.
    DestinationPortSource,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: the packet is counted, and the next rule is asked.
    GoOn,
    /// Go on there and come back.
    Jump(ChainName),
    /// Go on there, and come back to where this chain was jumped to from.
    Goto(ChainName),
    /// Go back to where this chain was jumped to from.
    Return,
    /// It passes.
    Accept,
    /// It is lost.
    Drop,
    /// It is refused: ICMP port unreachable, or that of ICMPv6.
    Reject(Family),
    /// A TCP connection is refused by a reset. The kernel sends one client a second no more than one ICMP message as a rule, but as many
    /// resets as are needed.
    Reset,
    /// Set these bits of the packet mark and go on.
    SetMark(u32),
    /// Clear these bits of the packet mark and go on.
    ClearMark(u32),
    /// Turn these bits of the packet mark over and go on.
    FlipMark(u32),
    /// Set the packet mark to that of the element that the destination's address and port are in this set of ipset, and go on; only in the
    /// table mangle.
    MapMark(SetName),
    /// Translate the destination.
    Dnat(BackendAddress),
    /// Translate the destination's address alone.
    DnatAddress(IpAddr),
    /// Translate the source to an address of this host, at any port.
    Masquerade,
}

impl Rule {
    /// A rule for every packet.
    #[must_use]
    pub const fn new(target: Target) -> Self {
        Self { source: None, destination: None, transport: None, matches: Vec::new(), target }
    }

    /// That jumps.
    #[must_use]
    pub fn jump(chain: &ChainName) -> Self {
        Self::new(Target::Jump(chain.clone()))
    }

    /// For packets from there.
    #[must_use]
    pub const fn from(mut self, source: IpNet) -> Self {
        self.source = Some((true, source));
        self
    }

    /// For packets from elsewhere.
    #[must_use]
    pub const fn not_from(mut self, source: IpNet) -> Self {
        self.source = Some((false, source));
        self
    }

    /// For packets to there.
    #[must_use]
    pub const fn to(mut self, destination: IpNet) -> Self {
        self.destination = Some(destination);
        self
    }

    /// For packets of this kind.
    #[must_use]
    pub const fn of(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// For packets of which this holds, too.
    #[must_use]
    pub fn when(mut self, condition: Match) -> Self {
        self.matches.push(condition);
        self
    }

    /// With a comment.
    #[must_use]
    pub fn because(self, comment: impl Into<String>) -> Self {
        self.when(Match::Comment(comment.into()))
    }

    /// For packets to a frontend, with a comment.
    #[must_use]
    pub fn to_frontend(self, key: &FrontendKey, comment: impl Into<String>) -> Self {
        self.to(key.addr.into()).to_port(key.protocol, key.port, comment)
    }

    /// For packets to a port, with a comment.
    #[must_use]
    pub fn to_port(self, protocol: Protocol, port: u16, comment: impl Into<String>) -> Self {
        self.of(Transport::Ports(protocol)).because(comment).when(Match::DestinationPort(protocol, port))
    }

    /// The chain that it leads to.
    #[must_use]
    pub const fn leads_to(&self) -> Option<&ChainName> {
        match &self.target {
            Target::Jump(chain) | Target::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

impl Side {
    const fn words(self) -> &'static str {
        match self {
            Self::Source => "src",
            Self::Destination => "dst",
            Self::DestinationPort => "dst,dst",
            Self::DestinationPortSource => "dst,dst,src",
        }
    }
}

/// As `iptables-save` prints it, from behind the chain's name on.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        let mut tell = |part: fmt::Arguments<'_>| write!(f, "{}{part}", std::mem::replace(&mut gap, " "));
        // A range of everything is no condition, and is not printed.
        if let Some((within, source)) = self.source.filter(|(within, range)| !within || range.prefix_len() > 0) {
            tell(format_args!("{}-s {source}", if within { "" } else { "! " }))?;
        }
        if let Some(destination) = self.destination.filter(|range| range.prefix_len() > 0) {
            tell(format_args!("-d {destination}"))?;
        }
        if let Some(transport) = self.transport {
            tell(format_args!("-p {transport}"))?;
        }
        self.matches.iter().try_for_each(|condition| tell(format_args!("{condition}")))?;
        match &self.target {
            Target::GoOn => Ok(()),
            target => tell(format_args!("{target}")),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ports(Protocol::Tcp) => "tcp",
            Self::Ports(Protocol::Udp) => "udp",
            Self::Ports(Protocol::Sctp) => "sctp",
            Self::Icmp(Family::V4) => "icmp",
            Self::Icmp(Family::V6) => "ipv6-icmp",
        })
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Comment(text) => write!(f, "-m comment --comment {}", Quoted(text)),
            Self::DestinationPort(protocol, port) => write!(f, "-m {} --dport {port}", Transport::Ports(*protocol)),
            Self::EchoRequest(Family::V4) => f.write_str("-m icmp --icmp-type 8"),
            Self::EchoRequest(Family::V6) => f.write_str("-m icmp6 --icmpv6-type 128"),
            Self::Mark { bits, set } => {
                write!(f, "-m mark {}--mark {bits:#x}/{bits:#x}", if *set { "" } else { "! " })
            }
            Self::OneIn(number) => write!(f, "-m statistic --mode random --probability {}", Chance(*number)),
            Self::Remembered { list, seconds, family } => {
                write!(
                    f,
                    "-m recent --rcheck --seconds {seconds} --reap --name {list} --mask {} --rsource",
                    all(*family)
                )
            }
            Self::Remember { list, family } => {
                write!(f, "-m recent --set --name {list} --mask {} --rsource", all(*family))
            }
            Self::SourceLocal => f.write_str("-m addrtype --src-type LOCAL"),
            Self::ConnectionNew => f.write_str("-m conntrack --ctstate NEW"),
            Self::ConnectionKnown => f.write_str("-m conntrack --ctstate RELATED,ESTABLISHED"),
            Self::ConnectionRelated => f.write_str("-m conntrack --ctstate RELATED"),
            Self::ConnectionInvalid => f.write_str("-m conntrack --ctstate INVALID"),
            Self::InSet { set, of, within } => {
                write!(f, "-m set {}--match-set {set} {}", if *within { "" } else { "! " }, of.words())
            }
            Self::Translated => f.write_str("-m conntrack --ctstate DNAT"),
            Self::Untranslated => f.write_str("-m conntrack ! --ctstate DNAT"),
            Self::TranslatedFrom(range) => write!(f, "-m conntrack --ctstate DNAT --ctorigdst {range}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GoOn => Ok(()),
            Self::Jump(chain) => write!(f, "-j {chain}"),
            Self::Goto(chain) => write!(f, "-g {chain}"),
            Self::Return => f.write_str("-j RETURN"),
            Self::Accept => f.write_str("-j ACCEPT"),
            Self::Drop => f.write_str("-j DROP"),
            Self::Reject(Family::V4) => f.write_str("-j REJECT --reject-with icmp-port-unreachable"),
            Self::Reject(Family::V6) => f.write_str("-j REJECT --reject-with icmp6-port-unreachable"),
            Self::Reset => f.write_str("-j REJECT --reject-with tcp-reset"),
            Self::SetMark(bits) => write!(f, "-j MARK --set-xmark {bits:#x}/{bits:#x}"),
            Self::ClearMark(bits) => write!(f, "-j MARK --set-xmark 0x0/{bits:#x}"),
            Self::FlipMark(bits) => write!(f, "-j MARK --set-xmark {bits:#x}/0x0"),
            Self::MapMark(set) => write!(f, "-j SET --map-set {set} {} --map-mark", Side::DestinationPort.words()),
            Self::Dnat(to) => write!(f, "-j DNAT --to-destination {}", SocketAddr::from((to.addr, to.port))),
            Self::DnatAddress(to) => write!(f, "-j DNAT --to-destination {to}"),
            Self::Masquerade => f.write_str("-j MASQUERADE --random-fully"),
        }
    }
}

/// A word, in quotes unless it has letters, digits, `-` and `_` alone. Names of objects have nothing that had to be escaped.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if self.0.bytes().all(plain) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0)
    }
}

/// The chance of one in so many: the kernel has it in 31 bits (`linux/netfilter/xt_statistic.h`), and prints what it has.
struct Chance(u32);

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WHOLE: f64 = (1_u32 << 31) as f64;
        write!(f, "{:.11}", (WHOLE / f64::from(self.0.max(1))).round() / WHOLE)
    }
}

/// The mask that leaves all of an address.
const fn all(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::BROADCAST),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    }
}
