//! Kinds that hold data: namespaces, ConfigMaps, Secrets, service accounts, leases, CustomResourceDefinitions.

use serde_json::json;

use super::{
    AGE, Column, NAME, Printer, age,
    cells::{list, name, size, text},
};

pub(super) static NAMESPACES: Printer = Printer {
    columns: &[NAME, Column::text("Status"), AGE],
    cells: |namespace, now| vec![name(namespace), json!(text(&namespace["status"]["phase"])), age::of(namespace, now)],
};

pub(super) static CONFIG_MAPS: Printer = Printer {
    columns: &[NAME, Column::number("Data"), AGE],
    cells: |map, now| vec![name(map), json!(size(&map["data"]) + size(&map["binaryData"])), age::of(map, now)],
};

pub(super) static SECRETS: Printer = Printer {
    columns: &[NAME, Column::text("Type"), Column::number("Data"), AGE],
    cells: |secret, now| {
        vec![name(secret), json!(text(&secret["type"])), json!(size(&secret["data"])), age::of(secret, now)]
    },
};

pub(super) static SERVICE_ACCOUNTS: Printer = Printer {
    columns: &[NAME, Column::number("Secrets"), AGE],
    cells: |account, now| vec![name(account), json!(list(&account["secrets"]).len()), age::of(account, now)],
};

pub(super) static LEASES: Printer = Printer {
    columns: &[NAME, Column::text("Holder"), AGE],
    cells: |lease, now| vec![name(lease), json!(text(&lease["spec"]["holderIdentity"])), age::of(lease, now)],
};

pub(super) static CUSTOM_RESOURCE_DEFINITIONS: Printer = Printer {
    columns: &[NAME, Column { name: "Created At", r#type: "date", format: "", priority: 0 }],
    cells: |definition, _| vec![name(definition), definition["metadata"]["creationTimestamp"].clone()],
};
