//! What becomes of items while their collector is away, full, picky or slow.

use super::*;
use crate::flows::collect::courier::{ATTEMPT, BATCH};

/// What a collector does with a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    Away,
    /// It takes them, and says nothing.
    Silent,
    /// What is more than a usual batch takes longer than an attempt may.
    Slow,
    /// It takes batches of no more than three items, and none of sequence 7.
    Picky,
    Full,
    /// Flows; it takes gaps.
    Refuses,
    /// Whatever it is sent.
    Unfit,
}

#[derive(Clone)]
struct Sink {
    came: Arc<Mutex<Vec<Numbered>>>,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicU64>,
    gather: Gather,
}

impl Sink {
    fn new(mood: Mood) -> Self {
        Self {
            came: Arc::default(),
            mood: Arc::new(Mutex::new(mood)),
            asked: Arc::default(),
            gather: Gather::default(),
        }
    }

    /// One that takes all that came in an hour.
    fn patient() -> Self {
        let gather = Gather { most: 10_000, time: Duration::from_secs(3600), is_long: true };
        Self { gather, ..Self::new(Mood::Takes) }
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn came(&self) -> Vec<Numbered> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// In the order in which they came first.
    fn once(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.came().into_iter().map(|item| item.record.to_string()).filter(|id| seen.insert(id.clone())).collect()
    }
}

impl Collector for Sink {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mood = *self.mood.lock().unwrap();
        let keep = || self.came.lock().unwrap().extend_from_slice(items);
        let answer = match mood {
            Mood::Takes => {
                keep();
                Ok(Taken::default())
            }
            Mood::Silent => {
                keep();
                return std::future::pending().boxed();
            }
            Mood::Slow if items.len() > BATCH => return std::future::pending().boxed(),
            Mood::Slow => {
                keep();
                Ok(Taken::default())
            }
            Mood::Away => Err(SendError::Away("it is away".to_owned())),
            Mood::Full => Ok(Taken { again: true, ..Taken::default() }),
            Mood::Picky
                if items.len() > 3 || items.iter().any(|item| item.record.sequence == 7 && !item.record.missing) =>
            {
                Err(SendError::Unfit("too much".to_owned()))
            }
            Mood::Picky => {
                keep();
                Ok(Taken::default())
            }
            Mood::Refuses => {
                let (gaps, flows): (Vec<_>, Vec<_>) = items.iter().cloned().partition(|item| item.record.missing);
                self.came.lock().unwrap().extend(gaps);
                Ok(Taken { refused: flows.len() as u64, why: Some("no".to_owned()), again: false })
            }
            Mood::Unfit => Err(SendError::Unfit("no".to_owned())),
        };
        async { answer }.boxed()
    }

    fn gather(&self) -> Gather {
        self.gather
    }
}

/// A courier for a sink.
struct Lab {
    intake: Arc<Intake>,
    counts: Arc<Counts>,
    end: CancellationToken,
    late: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Lab {
    fn start(sink: &Sink, spill: Option<(&TempDir, u64)>) -> Self {
        Self::waiting(sink, spill, false)
    }

    /// All waits on disk before it is sent, or only what cannot be.
    fn waiting(sink: &Sink, spill: Option<(&TempDir, u64)>, on_disk: bool) -> Self {
        let (intake, counts) = (Arc::new(Intake::default()), Arc::new(Counts::new("sink".to_owned())));
        let spill = spill.map(|(directory, room)| Spill::open(directory.path(), room).unwrap());
        let mut backlog = Backlog::new(spill, counts.clone());
        if on_disk {
            backlog.wait_on_disk();
        }
        let courier = Courier::new("sink".to_owned(), Box::new(sink.clone()), backlog, intake.clone(), counts.clone());
        let (end, late) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(courier.run(end.clone(), late.clone()));
        Self { intake, counts, end, late, task }
    }

    fn offer(&self, items: &[Numbered]) {
        self.intake.offer(items.iter());
    }

    async fn end(self) {
        self.end.cancel();
        self.task.await.unwrap();
    }
}

fn flows(numbers: std::ops::Range<u64>) -> Vec<Numbered> {
    numbers.map(flow).collect()
}

fn ids(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("node1/1/{number}")).collect()
}

#[tokio::test]
async fn all_that_was_told_while_a_collector_was_away_comes_when_it_is_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::new(Mood::Takes);
    let lab = Lab::start(&sink, Some((&directory, 4 << 20)));
    lab.offer(&flows(0..10));
    eventually("the first come", || sink.came().len() == 10).await;
    assert_eq!(lab.counts.spilled_so_far(), 0, "nothing is written where all comes");
    sink.is(Mood::Away);
    for number in 10..2010 {
        lab.offer(&[flow(number)]);
    }
    eventually("it was tried again", || sink.asked.load(Ordering::SeqCst) > 4).await;
    sink.is(Mood::Silent);
    // What is not answered for is sent again.
    eventually("some come unanswered", || sink.came().len() > 10).await;
    sink.is(Mood::Takes);
    lab.offer(&flows(2010..2020));
    eventually("all come", || sink.once().len() == 2020).await;
    assert_eq!(sink.once(), ids(0..2020));
    let came = sink.came();
    assert!(came.iter().all(|item| *item == flow(item.record.sequence)), "what comes again is the same");
    assert!(lab.counts.spilled_so_far() > 0 && lab.counts.dropped_so_far() == 0);
    lab.end().await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "what has come is on disk no more");
}

#[tokio::test]
async fn what_an_agent_could_not_send_its_successor_does() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::new(Mood::Away);
    let lab = Lab::start(&sink, Some((&directory, 4 << 20)));
    lab.offer(&flows(0..1200));
    eventually("it was tried", || sink.asked.load(Ordering::SeqCst) > 0).await;
    lab.offer(&flows(1200..1300));
    lab.end().await;
    assert!(sink.came().is_empty());
    sink.is(Mood::Takes);
    let next = Lab::start(&sink, Some((&directory, 4 << 20)));
    eventually("all come", || sink.once().len() == 1300).await;
    assert_eq!(sink.once(), ids(0..1300));
    assert_eq!(next.counts.sent_so_far(), 1300);
    next.end().await;
}

#[tokio::test]
async fn as_an_agent_ends_what_is_in_memory_is_sent_or_written_down_in_the_time_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::new(Mood::Takes);
    let lab = Lab::start(&sink, Some((&directory, 4 << 20)));
    lab.offer(&flows(0..1700));
    lab.end().await;
    assert_eq!(sink.once(), ids(0..1700));
    sink.is(Mood::Silent);
    let lab = Lab::start(&sink, Some((&directory, 4 << 20)));
    let begun = Instant::now();
    lab.offer(&flows(1700..1800));
    eventually("they are under way", || sink.came().len() > 1700).await;
    lab.end.cancel();
    lab.late.cancel();
    lab.task.await.unwrap();
    assert!(begun.elapsed() < ATTEMPT, "the answer is not waited for");
    assert_eq!(Spill::open(directory.path(), 1 << 20).unwrap().len(), 100);
}

#[tokio::test]
async fn where_the_room_on_disk_is_used_up_a_gap_says_how_many_never_come() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::new(Mood::Away);
    let lab = Lab::start(&sink, Some((&directory, 64 << 10)));
    for number in 0..2000 {
        lab.offer(&[flow(number)]);
    }
    let dropped = || lab.counts.dropped_so_far();
    eventually("the oldest go", || dropped() > 1000 && lab.counts.spilled_so_far() >= 1900).await;
    sink.is(Mood::Takes);
    eventually("the newest comes", || sink.once().contains(&"node1/1/1999".to_owned())).await;
    let came = sink.came();
    let told: u64 = came.iter().map(|item| if let Item::Gap(gap) = &item.item { gap.flows } else { 0 }).sum();
    let flows = sink.once().iter().filter(|id| !id.ends_with("missing")).count() as u64;
    assert_eq!((told, told + flows), (dropped(), 2000));
    let first = came.iter().position(|item| item.record.missing).unwrap();
    assert!(first == 0, "the gap comes before what is left, and not at {first}");
    lab.end().await;
}

#[tokio::test]
async fn the_recorder_waits_for_no_courier_and_what_finds_no_room_is_told() {
    let intake = Intake::default();
    let items = flows(0..1000);
    for _ in 0..intake::ROOM / 1000 + 2 {
        intake.offer(items.iter());
    }
    let (taken, dropped) = intake.take();
    assert_eq!((taken.len(), dropped), (intake::ROOM + 1, 2000 - intake::ROOM as u64 % 1000));
    let Some(Numbered { item: Item::Gap(gap), .. }) = taken.last() else { panic!("no gap") };
    assert_eq!(gap.flows, dropped);
    assert_eq!(intake.take(), (Vec::new(), 0));
}

#[tokio::test]
async fn a_batch_that_is_not_taken_is_sent_in_parts_and_only_what_cannot_be_meant_is_left_out() {
    let sink = Sink::new(Mood::Picky);
    let lab = Lab::start(&sink, None);
    lab.offer(&flows(0..40));
    eventually("the others come", || sink.once().len() == 40).await;
    let mut expected = ids(0..7);
    expected.push("node1/1/7/missing".to_owned());
    expected.extend(ids(8..40));
    assert_eq!(sink.once(), expected);
    assert_eq!(lab.counts.refused_so_far(), 1);
    lab.end().await;
}

#[tokio::test]
async fn a_collector_that_is_full_is_asked_again_and_one_that_refuses_is_told_what_is_missing() {
    let sink = Sink::new(Mood::Full);
    let lab = Lab::start(&sink, None);
    lab.offer(&flows(0..5));
    eventually("it is asked again", || sink.asked.load(Ordering::SeqCst) > 1).await;
    sink.is(Mood::Refuses);
    eventually("they are refused", || lab.counts.refused_so_far() == 5).await;
    eventually("it is told so", || sink.once() == ["node1/1/4/missing"]).await;
    let Item::Gap(told) = sink.came().remove(0).item else { panic!("no gap") };
    assert_eq!(told.flows, 5);
    sink.is(Mood::Takes);
    lab.offer(&flows(5..6));
    eventually("others come", || sink.once()[1..] == ids(5..6)).await;
    eventually("both are counted", || lab.counts.sent_so_far() == 2).await;
    assert_eq!((lab.counts.refused_so_far(), BATCH), (5, 500));
    lab.end().await;
}

#[tokio::test]
async fn where_nothing_at_all_is_taken_it_waits_and_hardly_anything_is_left_out() {
    let sink = Sink::new(Mood::Unfit);
    let lab = Lab::start(&sink, None);
    lab.offer(&flows(0..10));
    // In halves: 10, 5, 2, 1; then what tells of the first one, which waits.
    eventually("it is tried again", || sink.asked.load(Ordering::SeqCst) > 6).await;
    assert_eq!(lab.counts.refused_so_far(), 1);
    sink.is(Mood::Takes);
    let mut expected = vec!["node1/1/0/missing".to_owned()];
    expected.extend(ids(1..10));
    eventually("the others come", || sink.once() == expected).await;
    sink.is(Mood::Unfit);
    lab.offer(&flows(10..12));
    // One of them at once, what tells of it and the other one after some time: nothing is in the way for ever.
    eventually("it goes on", || lab.counts.refused_so_far() == 4).await;
    lab.end().await;
}

#[tokio::test]
async fn what_is_put_together_for_long_is_on_disk_meanwhile_and_not_lost_with_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::patient();
    let killed = Lab::start(&sink, Some((&directory, 4 << 20)));
    killed.offer(&flows(0..10));
    eventually("they are on disk", || killed.counts.spilled_so_far() == 10).await;
    killed.task.abort();
    assert!(killed.task.await.unwrap_err().is_cancelled());
    assert_eq!(sink.asked.load(Ordering::SeqCst), 0);
    // Of what was left nobody knows how long it has waited already.
    let next = Lab::start(&sink, Some((&directory, 4 << 20)));
    eventually("they come", || sink.once() == ids(0..10)).await;
    next.offer(&flows(10..20));
    eventually("those are on disk as well", || next.counts.spilled_so_far() == 10).await;
    assert_eq!(sink.asked.load(Ordering::SeqCst), 1);
    next.end().await;
    assert_eq!(sink.once(), ids(0..20), "an agent that ends waits no longer");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_on_disk_before_it_is_sent_outlives_an_agent_that_is_killed_amid_a_batch() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::new(Mood::Silent);
    let killed = Lab::waiting(&sink, Some((&directory, 4 << 20)), true);
    killed.offer(&flows(0..10));
    eventually("they are under way", || sink.came().len() == 10).await;
    assert_eq!(killed.counts.spilled_so_far(), 10);
    killed.task.abort();
    assert!(killed.task.await.unwrap_err().is_cancelled());
    sink.is(Mood::Takes);
    let next = Lab::waiting(&sink, Some((&directory, 4 << 20)), true);
    eventually("they come again", || sink.came().len() == 20).await;
    next.offer(&flows(10..20));
    eventually("others come", || sink.came().len() == 30).await;
    assert_eq!(sink.once(), ids(0..20));
    next.end().await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_too_much_for_the_time_of_an_attempt_is_sent_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let gather = Gather { most: 2 * BATCH, time: Duration::from_millis(10), is_long: true };
    let sink = Sink { gather, ..Sink::new(Mood::Slow) };
    let lab = Lab::start(&sink, Some((&directory, 64 << 20)));
    lab.offer(&flows(0..900));
    eventually("all come", || sink.once().len() == 900).await;
    assert_eq!(sink.once(), ids(0..900));
    lab.end().await;
}

#[tokio::test]
async fn what_has_a_whole_file_on_disk_waits_for_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::patient();
    let lab = Lab::start(&sink, Some((&directory, 1 << 20)));
    for number in 0..300 {
        lab.offer(&[flow(number)]);
    }
    // A file has a sixteenth of the room, which is less than a third of them.
    eventually("whole files come", || lab.counts.spilled_so_far() == 300 && sink.once().len() > 100).await;
    let before = sink.once().len();
    assert!(before < 300 && sink.once() == ids(0..before as u64), "{before}");
    lab.end().await;
    assert_eq!(sink.once(), ids(0..300));
}
