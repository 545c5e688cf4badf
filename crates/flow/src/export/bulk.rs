//! The `_bulk` API of Elasticsearch and OpenSearch: two lines for each item, that a document is to be made and the document.
//!
//! Documents are created and never replaced, so that data streams take them as well; one that is there already is answered with 409, which is as
//! good as made.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Taken;
use crate::Numbered;

/// The body of a request, for an index or a data stream of this name.
#[must_use]
pub fn request(index: &str, items: &[Numbered]) -> Vec<u8> {
    let mut body = Vec::new();
    for item in items {
        let action = json!({"create": {"_index": index, "_id": item.record}});
        let mut document = serde_json::to_value(item).unwrap_or_default();
        if let Value::Object(fields) = &mut document {
            fields.insert("@timestamp".to_owned(), json!(item.item.at()));
        }
        for line in [action, document] {
            body.extend_from_slice(line.to_string().as_bytes());
            body.push(b'\n');
        }
    }
    body
}

#[derive(Deserialize)]
struct Answer {
    errors: bool,
    #[serde(default)]
    items: Vec<Action>,
}

#[derive(Deserialize)]
struct Action {
    create: Made,
}

#[derive(Deserialize)]
struct Made {
    status: u16,
    #[serde(default)]
    error: Value,
}

impl Made {
    fn why(&self) -> String {
        let reason = self.error["reason"].as_str().unwrap_or("no reason is given");
        format!("status {}: {reason}", self.status)
    }
}

/// What an answer says of the items.
///
/// # Errors
/// Where it is none.
pub fn taken(answer: &[u8]) -> Result<Taken, serde_json::Error> {
    let answer: Answer = serde_json::from_slice(answer)?;
    let mut taken = Taken::default();
    for Action { create } in answer.items.into_iter().filter(|_| answer.errors) {
        match create.status {
            200..=299 | 409 => {}
            // Rights are given and an index is made by people, who may be later than the flows.
            401 | 403 | 404 | 429 | 500.. if taken.again => {}
            401 | 403 | 404 | 429 | 500.. => (taken.again, taken.why) = (true, Some(create.why())),
            _ => {
                taken.refused += 1;
                taken.why.get_or_insert_with(|| create.why());
            }
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{flow, gap};

    #[test]
    fn each_item_is_a_document_of_its_own_id() {
        let body = request("flows", &[flow(7), gap(8)]);
        let text = String::from_utf8(body).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0], json!({"create": {"_index": "flows", "_id": "node1/1/7"}}));
        assert_eq!(lines[1]["@timestamp"], "2026-01-01T00:00:02.5Z");
        assert_eq!(lines[1]["source"]["pod"]["name"], "client");
        assert_eq!((&lines[2]["create"]["_id"], &lines[3]["type"]), (&json!("node1/1/8"), &json!("gap")));
        assert!(lines.len() == 4 && text.ends_with("}\n"), "{text}");
    }

    #[test]
    fn what_is_there_already_is_taken_and_what_never_will_be_is_told_apart_from_what_may_be() {
        let answer = |statuses: &[u16]| {
            let items: Vec<Value> = statuses
                .iter()
                .map(|status| json!({"create": {"status": status, "error": {"reason": format!("r{status}")}}}))
                .collect();
            taken(json!({"took": 1, "errors": true, "items": items}).to_string().as_bytes()).unwrap()
        };
        assert_eq!(answer(&[201, 409]), Taken::default());
        for status in [401, 403, 404, 429, 503] {
            let why = Some(format!("status {status}: r{status}"));
            assert_eq!(answer(&[201, status, 500]), Taken { refused: 0, why: why.clone(), again: true });
            assert_eq!(answer(&[400, status]), Taken { refused: 1, why, again: true });
        }
        let why = Some("status 400: r400".to_owned());
        assert_eq!(answer(&[400, 201, 413]), Taken { refused: 2, why, again: false });
        assert_eq!(taken(br#"{"took":1,"errors":false,"items":[]}"#).unwrap(), Taken::default());
        assert!(taken(b"<html>").is_err());
    }
}
