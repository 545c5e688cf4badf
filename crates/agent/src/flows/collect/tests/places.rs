//! Where records wait that are to be on disk, by what collectors are called and what can be had.

use tracing::{Event, Level, Metadata, Subscriber, span};

use super::*;

/// Counts what this thread logs as an error.
struct Errors(Arc<AtomicU64>);

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn that_records_cannot_be_on_disk_is_an_error_where_they_are_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let errors = Arc::new(AtomicU64::new(0));
    let _logging = tracing::subscriber::set_default(Errors(errors.clone()));
    for (waits_on_disk, told) in [(false, 0), (true, 1)] {
        assert!(open(&file.join("collector"), 1 << 20, waits_on_disk).is_none());
        assert_eq!(errors.load(Ordering::SeqCst), told);
    }
}

#[test]
fn of_names_of_one_place_that_counts_by_which_records_wait_on_disk() {
    let (usual, on_disk) = ("stdout:", "stdout:?buffer=disk");
    for (names, expected) in [([usual, on_disk], on_disk), ([on_disk, usual], on_disk), ([usual, usual], usual)] {
        let targets = names.map(|name| name.parse::<Target>().unwrap());
        let told: Vec<String> = places(&targets).iter().map(ToString::to_string).collect();
        assert_eq!(told, [expected]);
    }
}
