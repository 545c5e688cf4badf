//! A file of JSON lines within a budget of bytes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use flate2::{Compression, write::GzEncoder};
use podnet_flow::{
    Item,
    output::{Form, line},
};

use super::FlowLog;

/// The file itself may have this part of the budget; what is set aside, compressed, the rest.
const PARTS: u64 = 4;

/// The file, open at its end.
#[derive(Debug)]
pub(super) struct Log {
    settings: FlowLog,
    file: BufWriter<File>,
    bytes: u64,
}

impl Log {
    /// Goes on with what is there.
    pub(super) fn open(settings: &FlowLog) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&settings.path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { settings: settings.clone(), file: BufWriter::new(file), bytes })
    }

    /// Adds items; all of them are in the file when it returns.
    pub(super) fn add(&mut self, items: &[Item]) -> io::Result<()> {
        let between_pods = self.settings.between_pods;
        let is_wanted = |item: &&Item| match item {
            Item::Flow(record) => !between_pods || record.is_pod_to_pod(),
            Item::Gap(_) => true,
        };
        for item in items.iter().filter(is_wanted) {
            let mut text = line(Form::JsonLines, item);
            text.push('\n');
            if self.bytes > 0 && self.bytes + text.len() as u64 > self.settings.bytes / PARTS {
                self.set_aside()?;
            }
            self.file.write_all(text.as_bytes())?;
            self.bytes += text.len() as u64;
        }
        self.file.flush()
    }

    fn aside(&self, number: u64) -> PathBuf {
        let mut name = self.settings.path.clone().into_os_string();
        name.push(format!(".{number}.gz"));
        name.into()
    }

    /// What is full is compressed as `.1.gz`; the older ones count up, and the oldest go where the budget is used up.
    fn set_aside(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let last = (1..).find(|number| !self.aside(*number).exists()).unwrap_or(1);
        for number in (1..last).rev() {
            fs::rename(self.aside(number), self.aside(number + 1))?;
        }
        let mut encoder = GzEncoder::new(File::create(self.aside(1))?, Compression::default());
        io::copy(&mut File::open(&self.settings.path)?, &mut encoder)?;
        encoder.finish()?.sync_all()?;
        self.file.get_ref().set_len(0)?;
        self.bytes = 0;
        let mut left = self.settings.bytes - self.settings.bytes / PARTS;
        for number in 1..=last {
            let size = fs::metadata(self.aside(number))?.len();
            match left.checked_sub(size) {
                Some(rest) => left = rest,
                None => {
                    left = 0;
                    fs::remove_file(self.aside(number))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use k8s_openapi::jiff::Timestamp;
    use podnet_flow::{Gap, record::GapAt};

    use super::*;

    fn gap(packets: u64) -> Item {
        let now = Timestamp::UNIX_EPOCH;
        let node = "node1".into();
        Item::Gap(Gap {
            start: now,
            end: now,
            node,
            at: GapAt::Kernel,
            device: None,
            pod: None,
            packets,
            bytes: 0,
            flows: 0,
        })
    }

    fn packets(text: &str) -> Vec<u64> {
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["packets"].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn what_is_full_is_set_aside_compressed_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flows.jsonl");
        let settings = FlowLog { path: path.clone(), bytes: 4000, between_pods: false };
        let mut next = 1000;
        for _ in 0..2 {
            // An agent that begins anew goes on.
            let mut log = Log::open(&settings).unwrap();
            for _ in 0..150 {
                log.add(&[gap(next)]).unwrap();
                next += 1;
            }
        }
        let mut found = Vec::new();
        let mut all = 0;
        for number in (1..20).rev() {
            let aside = directory.path().join(format!("flows.jsonl.{number}.gz"));
            let Ok(file) = File::open(&aside) else { continue };
            all += file.metadata().unwrap().len();
            let mut text = String::new();
            GzDecoder::new(file).read_to_string(&mut text).unwrap();
            assert!(text.len() <= 1000, "{}", text.len());
            found.extend(packets(&text));
        }
        let text = fs::read_to_string(&path).unwrap();
        all += text.len() as u64;
        found.extend(packets(&text));
        assert!(all <= 4000 && found.len() > 100, "{all} bytes, {} items", found.len());
        assert_eq!(found, (next - found.len() as u64..next).collect::<Vec<_>>(), "the newest, each once, in order");
    }
}
