//! Users and groups by the container's own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).

use std::fs;

use podnet_kernel::process::{CapabilitySet, Identity};

use super::spec::User;

/// A container's user cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    #[error("user {name:?} is not in the image's /etc/passwd")]
    NoUser { name: String },
    #[error("group {name:?} is not in the image's /etc/group")]
    NoGroup { name: String },
    #[error("container has runAsNonRoot and image will run as root")]
    Root,
}

/// A user with all that follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

impl Resolved {
    pub(super) fn identity(self, capabilities: CapabilitySet, no_new_privileges: bool) -> Identity {
        Identity { uid: self.uid, gid: self.gid, groups: self.groups, capabilities, no_new_privileges }
    }
}

/// Resolves in the file system that the calling process sees.
pub(super) fn resolve(user: &User) -> Result<Resolved, UserError> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    resolve_in(user, &passwd, &group)
}

fn resolve_in(user: &User, passwd: &str, group: &str) -> Result<Resolved, UserError> {
    let image = user.image.as_deref().unwrap_or_default();
    let (image_user, image_group) = match image.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (image, None),
    };
    let wanted = match user.uid {
        Some(uid) => uid.to_string(),
        None if image_user.is_empty() => "0".to_owned(),
        None => image_user.to_owned(),
    };
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 7 && (fields[0] == wanted || fields[2] == wanted));
    let uid = match (&entry, wanted.parse()) {
        (_, Ok(uid)) => uid,
        (Some(fields), _) => fields[2].parse().map_err(|_| UserError::NoUser { name: wanted.clone() })?,
        (None, Err(_)) => return Err(UserError::NoUser { name: wanted }),
    };
    if uid == 0 && user.must_not_be_root {
        return Err(UserError::Root);
    }
    let gid = match (user.gid, image_group) {
        (Some(gid), _) => gid,
        (None, Some(name)) if user.uid.is_none() => group_id(name, group)?,
        _ => entry.as_ref().and_then(|fields| fields[3].parse().ok()).unwrap_or(0),
    };
    let mut groups = user.groups.clone();
    if let Some(fields) = &entry {
        groups.extend(groups_of(fields[0], group));
    }
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    let home = entry.as_ref().map_or("/", |fields| fields[5]).to_owned();
    Ok(Resolved { uid, gid, groups, home })
}

fn group_id(name: &str, group: &str) -> Result<u32, UserError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let line =
        group.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&name));
    line.and_then(|fields| fields.get(2)?.parse().ok()).ok_or_else(|| UserError::NoGroup { name: name.to_owned() })
}

fn groups_of<'a>(user: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let member = fields.get(3)?.split(',').any(|member| member == user);
        fields.get(2).filter(|_| member)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:200:web,root\n";

    fn user(image: Option<&str>, uid: Option<u32>, gid: Option<u32>) -> User {
        User { image: image.map(Into::into), uid, gid, groups: vec![], must_not_be_root: false }
    }

    #[test]
    fn nothing_said_means_root() {
        let resolved = resolve_in(&user(None, None, None), PASSWD, GROUP).unwrap();
        assert_eq!(resolved, Resolved { uid: 0, gid: 0, groups: vec![0, 200], home: "/root".into() });
    }

    #[test]
    fn a_name_brings_its_groups_and_home() {
        let resolved = resolve_in(&user(Some("web"), None, None), PASSWD, GROUP).unwrap();
        assert_eq!(resolved, Resolved { uid: 101, gid: 102, groups: vec![102, 200], home: "/srv".into() });
    }

    #[test]
    fn the_pod_overrides_the_image_and_needs_no_entry() {
        let resolved = resolve_in(&user(Some("web:logs"), Some(5000), None), PASSWD, GROUP).unwrap();
        assert_eq!(resolved, Resolved { uid: 5000, gid: 0, groups: vec![0], home: "/".into() });
        assert_eq!(resolve_in(&user(Some("web:logs"), None, None), PASSWD, GROUP).unwrap().gid, 200);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(matches!(resolve_in(&user(Some("ghost"), None, None), PASSWD, GROUP), Err(UserError::NoUser { .. })));
        assert!(matches!(
            resolve_in(&user(Some("web:ghost"), None, None), PASSWD, GROUP),
            Err(UserError::NoGroup { .. })
        ));
    }

    #[test]
    fn run_as_non_root_refuses_root() {
        let user = User { must_not_be_root: true, ..User::default() };
        assert!(matches!(resolve_in(&user, PASSWD, GROUP), Err(UserError::Root)));
    }
}
