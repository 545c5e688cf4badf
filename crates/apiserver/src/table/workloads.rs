//! Deployments and the other kinds that make pods.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    AGE, Column, NAME, Printer, age,
    cells::{joined, list, name, number, pairs, selector, text},
};

const CONTAINERS: Column = Column::text("Containers").wide();
const IMAGES: Column = Column::text("Images").wide();
const SELECTOR: Column = Column::text("Selector").wide();

pub(super) static DEPLOYMENTS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Ready"),
        Column::number("Up-to-date"),
        Column::number("Available"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |deployment, now| {
        let (spec, status) = (&deployment["spec"], &deployment["status"]);
        let mut cells = vec![
            name(deployment),
            json!(format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"]))),
            json!(number(&status["updatedReplicas"])),
            json!(number(&status["availableReplicas"])),
            age::of(deployment, now),
        ];
        cells.extend(template(spec));
        cells.push(selector(&spec["selector"]));
        cells
    },
};

pub(super) static REPLICA_SETS: Printer = Printer {
    columns: &[
        NAME,
        Column::number("Desired"),
        Column::number("Current"),
        Column::number("Ready"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |set, now| {
        let (spec, status) = (&set["spec"], &set["status"]);
        let mut cells = vec![
            name(set),
            json!(number(&spec["replicas"])),
            json!(number(&status["replicas"])),
            json!(number(&status["readyReplicas"])),
            age::of(set, now),
        ];
        cells.extend(template(spec));
        cells.push(selector(&spec["selector"]));
        cells
    },
};

pub(super) static STATEFUL_SETS: Printer = Printer {
    columns: &[NAME, Column::text("Ready"), AGE, CONTAINERS, IMAGES],
    cells: |set, now| {
        let (spec, status) = (&set["spec"], &set["status"]);
        let ready = format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"]));
        let mut cells = vec![name(set), json!(ready), age::of(set, now)];
        cells.extend(template(spec));
        cells
    },
};

pub(super) static DAEMON_SETS: Printer = Printer {
    columns: &[
        NAME,
        Column::number("Desired"),
        Column::number("Current"),
        Column::number("Ready"),
        Column::number("Up-to-date"),
        Column::number("Available"),
        Column::text("Node Selector"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |set, now| {
        let (spec, status) = (&set["spec"], &set["status"]);
        let mut cells = vec![
            name(set),
            json!(number(&status["desiredNumberScheduled"])),
            json!(number(&status["currentNumberScheduled"])),
            json!(number(&status["numberReady"])),
            json!(number(&status["updatedNumberScheduled"])),
            json!(number(&status["numberAvailable"])),
            pairs(&spec["template"]["spec"]["nodeSelector"]),
            age::of(set, now),
        ];
        cells.extend(template(spec));
        cells.push(selector(&spec["selector"]));
        cells
    },
};

pub(super) static JOBS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status"),
        Column::text("Completions"),
        Column::text("Duration"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: job,
};

fn job(job: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let (spec, status) = (&job["spec"], &job["status"]);
    let wanted = match (&spec["completions"], number(&spec["parallelism"])) {
        (Value::Null, parallel) if parallel > 1 => format!("1 of {parallel}"),
        (Value::Null, _) => "1".to_owned(),
        (completions, _) => number(completions).to_string(),
    };
    let started = age::parse(&status["startTime"]);
    let ended = age::parse(&status["completionTime"]).unwrap_or(now);
    let mut cells = vec![
        name(job),
        json!(job_status(job)),
        json!(format!("{}/{wanted}", number(&status["succeeded"]))),
        json!(started.map(|started| age::human(ended - started)).unwrap_or_default()),
        age::of(job, now),
    ];
    cells.extend(template(spec));
    cells.push(selector(&spec["selector"]));
    cells
}

fn job_status(job: &Value) -> &'static str {
    let holds =
        |kind: &str| list(&job["status"]["conditions"]).iter().any(|c| c["type"] == kind && c["status"] == "True");
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if !job["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else {
        "Running"
    }
}

/// The cells for the names and images of the template's containers.
fn template(spec: &Value) -> [Value; 2] {
    let containers = list(&spec["template"]["spec"]["containers"]);
    let column = |field: &str| joined(containers.iter().map(|container| text(&container[field])));
    [column("name"), column("image")]
}
