//! Many questions at once, while nobody answers.

use super::*;
use crate::server::fixture::Waiting;

/// Questions at once.
const MANY: usize = 200;

#[test]
fn of_many_questions_few_are_asked_besides_and_all_once_their_upstream_is_late() {
    let rig = rig("");
    let wait = |number: usize| rig.wait(&query(&format!("n{number}.example"), rtype::A));
    let mut waiting: Vec<Waiting> = (0..MANY).map(wait).collect();
    let first = rig.sent();
    assert_eq!(first.len(), MANY);
    let wake = |waiting: &mut [Waiting]| {
        rig.wake();
        waiting.iter_mut().for_each(|one| assert_eq!(one.response(), None));
        rig.sent()
    };
    let besides = wake(&mut waiting);
    assert!(!besides.is_empty() && besides.len() <= MANY / 10, "{} are asked besides", besides.len());
    // The others wait for longer; then each is asked of the next upstream.
    let late = wake(&mut waiting);
    assert!(late.len() >= MANY - MANY / 10, "{} are asked again", late.len());
    assert!(late.iter().any(|sent| sent.upstream.to_string() == "192.0.2.2:53"));
    for sent in late.into_iter().chain(besides) {
        answer(sent, 0, &[ADDR]);
    }
    assert!(waiting.iter_mut().all(|one| one.told() == TOLD));
    drop(first);
}
