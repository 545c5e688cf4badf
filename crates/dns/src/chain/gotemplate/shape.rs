//! What is known of values before there is a question.

use super::{TemplateError, error};

/// What is known of a value before there is a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Root,
    Message,
    Question,
    Questions,
    Edns,
    Texts,
    Groups,
    /// A text, a number or a truth: it has no fields.
    Plain,
    /// Only the question tells.
    Any,
}

/// What a field of a value is. `groups` are the names that `.Group` may have.
pub(super) fn field(of: Shape, name: &str, groups: &[&str], at: usize) -> Result<Shape, TemplateError> {
    Ok(match (of, name) {
        (Shape::Root, "Zone" | "Name" | "Class" | "Type" | "Regex" | "Remote" | "Meta") => Shape::Plain,
        (Shape::Root, "Match") => Shape::Texts,
        (Shape::Root, "Group") => Shape::Groups,
        (Shape::Root, "Message") => Shape::Message,
        (Shape::Root, "Question") => Shape::Question,
        (Shape::Message, "Question") => Shape::Questions,
        (Shape::Message, "IsEdns0") => Shape::Edns,
        (Shape::Message, "Answer" | "Ns" | "Extra") => Shape::Any,
        (Shape::Edns, "UDPSize" | "Do" | "Version" | "String") => Shape::Plain,
        (Shape::Edns, "Option" | "Hdr" | "Header") => Shape::Any,
        (Shape::Message, name) if MESSAGE.contains(&name) => Shape::Plain,
        (Shape::Question, "Name" | "Qtype" | "Qclass") => Shape::Plain,
        (Shape::Groups, name) if groups.contains(&name) => Shape::Plain,
        (Shape::Any, _) => Shape::Any,
        (Shape::Root, _) => {
            let known = "Zone, Name, Class, Type, Regex, Match, Group, Message, Question, Remote, Meta";
            return error(at, format!("field {name:?} is not known; known are {known}"));
        }
        (Shape::Groups, _) => return error(at, format!("no expression has a group {name:?}")),
        _ => return error(at, format!("field {name:?} is not known")),
    })
}

/// Whether a field tells of records of the message, or of options of its EDNS.
pub(super) fn is_of_records(of: Shape, name: &str) -> bool {
    matches!(of, Shape::Message | Shape::Edns | Shape::Any)
        && matches!(name, "Answer" | "Ns" | "Extra" | "Option" | "String" | "Hdr" | "Header")
}

/// Fields of a message's header.
const MESSAGE: [&str; 11] = [
    "Id",
    "Opcode",
    "Rcode",
    "Response",
    "Authoritative",
    "Truncated",
    "RecursionDesired",
    "RecursionAvailable",
    "Zero",
    "AuthenticatedData",
    "CheckingDisabled",
];
