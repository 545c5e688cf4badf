//! The format of `log`.

/// A format in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFormat(pub Vec<LogPiece>);

/// A piece of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPiece {
    /// Text as it is.
    Text(String),
    /// Something of the question or its answer.
    Field(LogField),
    /// `{/plugin/label}`: what a plugin tells; `-` where none does.
    Metadata(String),
}

/// Something of the question or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogField {
    /// `{type}`: the type that is asked for.
    Type,
    /// `{name}`: the name.
    Name,
    /// `{class}`: the class.
    Class,
    /// `{proto}`: `udp` or `tcp`.
    Proto,
    /// `{remote}`: the client's address, one of IPv6 in brackets.
    Remote,
    /// `{local}`: the server's address, one of IPv6 in brackets.
    Local,
    /// `{size}`: the question's size in bytes.
    Size,
    /// `{port}`: the client's port.
    Port,
    /// `{duration}`: how long the answer took, in seconds with `s`.
    Duration,
    /// `{rcode}`: the response code.
    Rcode,
    /// `{rsize}`: the response's size in bytes with its names spelled out; what is sent may be smaller, since it is compressed.
    ResponseSize,
    /// `{>rflags}`: the response's flags, such as `qr,aa,rd`.
    Flags,
    /// `{>bufsize}`: the size that the question's EDNS tells.
    Bufsize,
    /// `{>do}`: the question wants DNSSEC's records.
    DnssecOk,
    /// `{>id}`: the question's id.
    Id,
    /// `{>opcode}`: the operation's code.
    Opcode,
}

const FIELDS: [(&str, LogField); 16] = [
    ("{type}", LogField::Type),
    ("{name}", LogField::Name),
    ("{class}", LogField::Class),
    ("{proto}", LogField::Proto),
    ("{remote}", LogField::Remote),
    ("{local}", LogField::Local),
    ("{size}", LogField::Size),
    ("{port}", LogField::Port),
    ("{duration}", LogField::Duration),
    ("{rcode}", LogField::Rcode),
    ("{rsize}", LogField::ResponseSize),
    ("{>rflags}", LogField::Flags),
    ("{>bufsize}", LogField::Bufsize),
    ("{>do}", LogField::DnssecOk),
    ("{>id}", LogField::Id),
    ("{>opcode}", LogField::Opcode),
];

const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} \
                      {>rflags} {rsize} {duration}";

impl LogFormat {
    /// Reads a format. What is between braces and no field stays as it is, as in CoreDNS, and is told as the second.
    pub(super) fn read(text: &str) -> (Self, Vec<String>) {
        let text = text.replace("{combined}", "{common} {>opcode}").replace("{common}", COMMON);
        let (mut pieces, mut unknown) = (Vec::new(), Vec::new());
        let mut plain = String::new();
        let mut rest = text.as_str();
        while let Some((before, behind)) = rest.split_once('{') {
            plain.push_str(before);
            let Some(end) = behind.find('}') else {
                plain.push('{');
                rest = behind;
                continue;
            };
            let label = &rest[before.len()..before.len() + end + 2];
            rest = &behind[end + 1..];
            let field = FIELDS.iter().find(|(name, _)| *name == label).map(|(_, field)| LogPiece::Field(*field));
            let metadata = || label.strip_prefix("{/")?.strip_suffix('}').filter(|label| label.contains('/'));
            match field.or_else(|| metadata().map(|label| LogPiece::Metadata(label.to_owned()))) {
                Some(piece) => {
                    if !plain.is_empty() {
                        pieces.push(LogPiece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(piece);
                }
                None => {
                    plain.push_str(label);
                    unknown.push(label.to_owned());
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(LogPiece::Text(plain));
        }
        (Self(pieces), unknown)
    }
}
