//! Templates (RFC 7011, section 3.4): which elements a record has, in which order.

/// The set of templates, and that of templates with a scope.
const TEMPLATES: u16 = 2;
const OPTIONS: u16 = 3;
/// The length of what says its own length.
const VARIABLE: u16 = u16::MAX;
/// Whose elements are those of the other direction (RFC 5103, section 6.1).
const REVERSE: u32 = 29305;
/// The bit that says that an element is not of IANA's own range.
const OF_ENTERPRISE: u16 = 0x8000;

/// An element of IANA's registry, and its length in octets.
pub(super) struct Field {
    pub(super) id: u16,
    pub(super) length: u16,
    /// It is of the packets from the destination to the source.
    pub(super) is_reverse: bool,
}

const fn forward(id: u16, length: u16) -> Field {
    Field { id, length, is_reverse: false }
}

const fn reverse(id: u16, length: u16) -> Field {
    Field { id, length, is_reverse: true }
}

pub(super) struct Template {
    pub(super) id: u16,
    /// How many of the first fields are the scope; none in templates of flows.
    scope: u16,
    pub(super) fields: &'static [Field],
}

impl Template {
    /// The set that has this template alone.
    pub(super) fn set(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.id.to_be_bytes());
        body.extend(u16::try_from(self.fields.len()).unwrap_or(0).to_be_bytes());
        if self.scope > 0 {
            body.extend(self.scope.to_be_bytes());
        }
        for field in self.fields {
            let enterprise = if field.is_reverse { OF_ENTERPRISE } else { 0 };
            body.extend((field.id | enterprise).to_be_bytes());
            body.extend(field.length.to_be_bytes());
            if field.is_reverse {
                body.extend(REVERSE.to_be_bytes());
            }
        }
        let kind = if self.scope > 0 { OPTIONS } else { TEMPLATES };
        let length = u16::try_from(body.len() + super::SET).unwrap_or(u16::MAX);
        [&kind.to_be_bytes()[..], &length.to_be_bytes(), &body].concat()
    }
}

macro_rules! flows {
    ($source:expr, $destination:expr) => {
        &[
            $source,
            $destination,
            forward(7, 2),   // sourceTransportPort
            forward(11, 2),  // destinationTransportPort
            forward(4, 1),   // protocolIdentifier
            forward(152, 8), // flowStartMilliseconds
            forward(153, 8), // flowEndMilliseconds
            forward(86, 8),  // packetTotalCount
            forward(85, 8),  // octetTotalCount
            forward(6, 2),   // tcpControlBits
            forward(220, 8), // tcpRstTotalCount
            reverse(86, 8),
            reverse(85, 8),
            reverse(6, 2),
            reverse(220, 8),
            forward(136, 1),        // flowEndReason
            forward(89, 1),         // forwardingStatus
            forward(148, 8),        // flowId
            forward(326, 8),        // digestHashValue
            forward(350, VARIABLE), // virtualStationName
            reverse(350, VARIABLE),
            forward(349, VARIABLE), // virtualStationUUID
            reverse(349, VARIABLE),
            forward(371, VARIABLE), // userName
            reverse(371, VARIABLE),
            forward(96, VARIABLE),  // applicationName
            forward(300, VARIABLE), // observationDomainName
        ]
    };
}

/// Flows between sourceIPv4Address and destinationIPv4Address.
pub(super) static FLOWS_V4: Template = Template { id: 256, scope: 0, fields: flows!(forward(8, 4), forward(12, 4)) };
/// Flows between sourceIPv6Address and destinationIPv6Address.
pub(super) static FLOWS_V6: Template = Template { id: 257, scope: 0, fields: flows!(forward(27, 16), forward(28, 16)) };
/// What did not come (section 4.3), since flowStartMilliseconds.
pub(super) static MISSING: Template = Template {
    id: 258,
    scope: 1,
    fields: &[
        forward(144, 4),        // exportingProcessId
        forward(152, 8),        // flowStartMilliseconds
        forward(153, 8),        // flowEndMilliseconds
        forward(166, 8),        // notSentFlowTotalCount
        forward(167, 8),        // notSentPacketTotalCount
        forward(168, 8),        // notSentOctetTotalCount
        forward(326, 8),        // digestHashValue
        forward(300, VARIABLE), // observationDomainName
    ],
};
