//! An API server that is nothing but its answers: lists, and watches that say nothing until they are told to.

pub(crate) mod cluster;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use serde_json::{Value, json};

use crate::Result;

/// Objects on one page of a list: what clients ask for (kube's and client-go's watchers do).
const PAGE: usize = 500;

/// What is answered, made once.
#[derive(Default)]
pub(crate) struct Answers {
    /// The pages of each list, by the resource's name.
    lists: HashMap<&'static str, Vec<String>>,
    /// Single objects, by resource and name; what is not found this way is not there.
    single: Option<fn(&str, &str) -> Option<Value>>,
}

impl Answers {
    /// The objects of a resource, and whoever looks for one of them by its name gets what `single` says.
    pub(crate) fn new(single: fn(&str, &str) -> Option<Value>) -> Self {
        Self { lists: HashMap::new(), single: Some(single) }
    }

    /// With a list: `version` and `kind` are its own.
    pub(crate) fn list(mut self, resource: &'static str, version: &str, kind: &str, items: &[Value]) -> Self {
        self.lists.insert(resource, pages(version, kind, items.len(), |at| items[at].clone()));
        self
    }

    /// As [`Answers::list`], of so many objects that they are made one by one.
    pub(crate) fn list_of(
        mut self,
        resource: &'static str,
        version: &str,
        kind: &str,
        count: usize,
        item: impl Fn(usize) -> Value,
    ) -> Self {
        self.lists.insert(resource, pages(version, kind, count, item));
        self
    }

    /// The page that is asked for. A client that reads no pages would get a part of a long list: it is told so by nothing at all.
    fn page(&self, resource: &str, query: &str) -> String {
        let Some(pages) = self.lists.get(resource) else { return pages("v1", "List", 0, |_| Value::Null).concat() };
        if pages.len() > 1 && !query.contains("limit=") {
            return String::new();
        }
        let page = query.split('&').find_map(|part| part.strip_prefix("continue=")?.parse::<usize>().ok());
        pages.get(page.unwrap_or_default()).cloned().unwrap_or_default()
    }

    /// The object that is asked for, where one is: `.../<resource>/<name>`.
    fn object(&self, path: &str) -> Option<Value> {
        let (above, name) = path.rsplit_once('/')?;
        let (_, resource) = above.rsplit_once('/')?;
        self.single?(resource, name)
    }

    fn has_list(&self, resource: &str) -> bool {
        self.lists.contains_key(resource)
    }
}

/// The pages; each names the next one.
fn pages(version: &str, kind: &str, items: usize, item: impl Fn(usize) -> Value) -> Vec<String> {
    let count = items.div_ceil(PAGE).max(1);
    let page = |number: usize| {
        let items: Vec<Value> = (number * PAGE..items.min((number + 1) * PAGE)).map(&item).collect();
        let next = if number + 1 < count { (number + 1).to_string() } else { String::new() };
        json!({"apiVersion": version, "kind": kind, "metadata": {"resourceVersion": "1", "continue": next}, "items": items})
            .to_string()
    };
    (0..count).map(page).collect()
}

/// The server; it ends with the process.
pub(crate) struct StandIn {
    port: u16,
    watches: Arc<Watches>,
}

/// Open watches, each with the resource that it is of.
type Watches = Mutex<Vec<(String, TcpStream)>>;

impl StandIn {
    /// Serves on a port of this namespace's loopback.
    pub(crate) fn serve(answers: Answers) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let answers = Arc::new(answers);
        let watches = Arc::new(Watches::default());
        let all = Arc::clone(&watches);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // As API servers do it: what is small does not wait for the answer to what was sent before.
                let _ = connection.set_nodelay(true);
                let (answers, watches) = (answers.clone(), all.clone());
                thread::spawn(move || drop(answer(connection, &answers, &watches)));
            }
        });
        Ok(Self { port, watches })
    }

    /// A kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"http://127.0.0.1:{}\"}}}}]\nusers: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\ncurrent-context: c\n",
            self.port
        )
    }

    /// Tells every watch of a resource that an object has changed.
    ///
    /// # Errors
    ///
    /// When nobody watches it.
    pub(crate) fn change(&self, resource: &str, object: &Value) -> Result<()> {
        let event = json!({"type": "MODIFIED", "object": object}).to_string() + "\n";
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = 0;
        watches.retain_mut(|(of, watch)| {
            if of != resource {
                return true;
            }
            let is_there = watch.write_all(chunk.as_bytes()).is_ok();
            told += usize::from(is_there);
            is_there
        });
        if told == 0 { Err(format!("nobody watches {resource}").into()) } else { Ok(()) }
    }
}

/// Answers the requests of one connection, one after the other; a watch is the last.
fn answer(connection: TcpStream, answers: &Answers, watches: &Watches) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut std::io::Read::take(&mut reader, length), &mut std::io::sink())?;
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let resource = path.rsplit('/').next().unwrap_or_default();
        if query.contains("watch=true") {
            writer.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            )?;
            let mut watches = watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.push((resource.to_owned(), writer.try_clone()?));
            drop(watches);
            // Until the client goes.
            std::io::copy(&mut reader, &mut std::io::sink())?;
            return Ok(());
        }
        let (status, body) = reply(answers, method, path, query);
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        writer.write_all((head + &body).as_bytes())?;
    }
}

/// The status line's end, and the body. What is written is accepted: the answer is an object that nobody reads.
fn reply(answers: &Answers, method: &str, path: &str, query: &str) -> (&'static str, String) {
    let resource = path.rsplit('/').next().unwrap_or_default();
    if method != "GET" {
        let accepted = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "accepted"}});
        return ("200 OK", accepted.to_string());
    }
    if answers.has_list(resource) {
        return ("200 OK", answers.page(resource, query));
    }
    match answers.object(path) {
        Some(object) => ("200 OK", object.to_string()),
        // Lists of what there is none of are asked for with a limit, objects are not.
        None if query.contains("limit=") => ("200 OK", answers.page(resource, query)),
        None => ("404 Not Found", not_found().to_string()),
    }
}

/// What the API says where there is no such object.
fn not_found() -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no such object"})
}
