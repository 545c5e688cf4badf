//! Answers to one asker, gathered into messages that the kernel cuts into datagrams again (`UDP_SEGMENT`, udp(7)): all that such a
//! message costs on its way is paid once.

/// Answers that are looked at together, at most.
const SIZE: usize = super::questions::SIZE;
/// What fits through any IPv6 link with its headers (RFC 8200 §5): the kernel cuts, and does not fragment.
const PIECE: usize = 1232;
/// As much as one message holds, headers aside.
const MESSAGE: usize = 65_000;
/// Pieces of one message. The kernel takes 64 (`UDP_MAX_SEGMENTS`), of which older ones count off the headers: 48 bytes, as much as
/// four of the shortest answers.
const PIECES: usize = 60;
/// More than twice as many as there can be askers, so that one is found soon.
const PLACES: usize = 1 << BITS;
const BITS: u32 = 9;
const _: () = assert!(PLACES >= 2 * SIZE);
/// In so many places a group is looked for. Who asks for answers of more lengths than that gets some of them by themselves.
const LOOKS: usize = 16;

/// Answers of one message, by their numbers: some of one length, and perhaps a shorter one behind them.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    first: usize,
    last: usize,
    /// The length of each from the first to the last.
    piece: usize,
    count: usize,
    /// The shorter one.
    tail: Option<usize>,
    /// Of all of them.
    bytes: usize,
}

/// Which answers go in which message. It is made once, and cleared for those that come next.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Vec<Group>,
    /// The one behind each answer of the same group.
    next: Vec<usize>,
    /// By asker, the groups that others may join, counted from 1.
    places: Vec<usize>,
    /// No place is taken.
    is_fresh: bool,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self { groups: Vec::with_capacity(SIZE), next: vec![0; SIZE], places: vec![0; PLACES], is_fresh: true }
    }

    /// Forgets all answers.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
        if !self.is_fresh {
            self.places.fill(0);
            self.is_fresh = true;
        }
    }

    /// An answer in a message of its own.
    pub(super) fn alone(&mut self, number: usize, length: usize) {
        self.groups.push(Group { first: number, last: number, piece: length, count: 1, tail: None, bytes: length });
    }

    /// An answer that goes with others to the same asker where it fits. `is_same` tells whether two answers go to one asker, who is the
    /// same only where `hash` is.
    pub(super) fn with_others(
        &mut self,
        number: usize,
        length: usize,
        hash: usize,
        is_same: impl Fn(usize, usize) -> bool,
    ) {
        if length > PIECE {
            return self.alone(number, length);
        }
        // Askers who differ little, by a port, are far from each other (Fibonacci hashing).
        let home = ((hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BITS)) as usize;
        let (mut host, mut free) = (None, None);
        for place in (home..home + LOOKS).map(|place| place % PLACES) {
            let Some(at) = self.places[place].checked_sub(1) else {
                free = Some(place);
                break;
            };
            let group = &mut self.groups[at];
            if !is_same(group.first, number) || !group.has_room(length) {
                continue;
            }
            if length == group.piece {
                return group.append(number, &mut self.next);
            }
            if group.tail.is_none() && (length < group.piece || group.count == 1) {
                host.get_or_insert(at);
            }
        }
        if let Some(at) = host {
            return self.groups[at].join(number, length);
        }
        self.alone(number, length);
        if let Some(place) = free {
            self.places[place] = self.groups.len();
            self.is_fresh = false;
        }
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The length of each piece of a message but the last, and the numbers of its answers in their order.
    pub(super) fn message(&self, at: usize) -> (usize, impl Iterator<Item = usize> + '_) {
        let group = self.groups.get(at).copied().unwrap_or_default();
        let numbers = std::iter::successors(Some(group.first), |number| self.next.get(*number).copied());
        (group.piece, numbers.take(group.count).chain(group.tail))
    }
}

impl Group {
    fn has_room(&self, length: usize) -> bool {
        self.bytes + length <= MESSAGE && self.count + usize::from(self.tail.is_some()) < PIECES
    }

    /// One more of the same length.
    fn append(&mut self, number: usize, next: &mut [usize]) {
        next[self.last] = number;
        self.last = number;
        self.count += 1;
        self.bytes += self.piece;
    }

    /// One of another length, where there is no shorter one yet: the longer ones go first. A longer one comes to one alone.
    fn join(&mut self, number: usize, length: usize) {
        if length < self.piece {
            self.tail = Some(number);
        } else {
            self.tail = Some(self.first);
            (self.first, self.last, self.piece) = (number, number, length);
        }
        self.bytes += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages for answers of these askers and lengths, with what they hash to.
    fn grouped(answers: &[(char, usize)], hash: fn(char) -> usize) -> Vec<(usize, Vec<usize>)> {
        let mut groups = Groups::new();
        for round in 0..2 {
            // What was there before leaves nothing behind.
            groups.clear();
            let answers = if round == 0 { &answers[answers.len() / 2..] } else { answers };
            for (number, (asker, length)) in answers.iter().enumerate() {
                groups.with_others(number, *length, hash(*asker), |one, other| answers[one].0 == answers[other].0);
            }
        }
        (0..groups.len()).map(|at| groups.message(at)).map(|(piece, numbers)| (piece, numbers.collect())).collect()
    }

    #[test]
    fn answers_of_one_length_go_together_and_a_shorter_one_is_the_last() {
        for hash in [|asker| asker as usize, |_| usize::MAX] {
            let answers = [('a', 60), ('b', 60), ('a', 60), ('a', 44), ('a', 60), ('b', 60), ('a', 60), ('c', 9)];
            assert_eq!(grouped(&answers, hash), [(60, vec![0, 2, 4, 6, 3]), (60, vec![1, 5]), (9, vec![7])]);
            // A and AAAA of one name, and of several ones.
            assert_eq!(grouped(&[('a', 60), ('a', 72)], hash), [(72, vec![1, 0])]);
            assert_eq!(grouped(&[('a', 72), ('a', 60)], hash), [(72, vec![0, 1])]);
            let pairs = [('a', 60), ('a', 72), ('a', 60), ('a', 72), ('a', 60), ('a', 72)];
            assert_eq!(grouped(&pairs, hash), [(72, vec![1, 3, 5, 0]), (60, vec![2, 4])]);
            assert_eq!(grouped(&[('a', 60), ('a', 60), ('a', 72)], hash), [(60, vec![0, 1]), (72, vec![2])]);
        }
    }

    #[test]
    fn what_would_have_to_be_fragmented_goes_alone_and_no_message_is_too_long() {
        let alone = |numbers: &[usize]| numbers.iter().map(|number| (1233, vec![*number])).collect::<Vec<_>>();
        assert_eq!(grouped(&[('a', 1233), ('a', 1233)], |_| 0), alone(&[0, 1]));
        assert_eq!(grouped(&[('a', 1233), ('a', 7), ('a', 1233)], |_| 0)[1], (7, vec![1]));
        let lengths = |answers: &[(char, usize)]| -> Vec<usize> {
            grouped(answers, |_| 0).iter().map(|(_, numbers)| numbers.len()).collect()
        };
        assert_eq!(lengths(&[('a', 1232); 64]), [52, 12]);
        // Fewer than the kernel takes, the shorter one counted.
        assert_eq!(lengths(&[('a', 90); SIZE]), [60, 60, 60, 12]);
        let mut with_a_shorter_one = [('a', 90); 64];
        with_a_shorter_one[1].1 = 80;
        assert_eq!(lengths(&with_a_shorter_one), [60, 4]);
    }

    #[test]
    fn whoever_finds_no_place_is_answered_alone() {
        let askers: Vec<(char, usize)> = (0..SIZE as u8).map(|asker| (char::from(asker), 60)).collect();
        assert_eq!(grouped(&askers, |_| 5).len(), SIZE);
        let lengths: Vec<(char, usize)> = (0..SIZE).map(|number| ('a', 60 + number)).collect();
        let numbers = grouped(&lengths, |_| 5).into_iter().flat_map(|(_, numbers)| numbers);
        let mut numbers: Vec<usize> = numbers.collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..SIZE).collect::<Vec<_>>());
    }
}
