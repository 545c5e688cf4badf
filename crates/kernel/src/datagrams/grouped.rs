//! Answers to one asker, gathered into messages that the kernel cuts into datagrams again (`UDP_SEGMENT`, udp(7)): all that such a
//! message costs on its way is paid once.

/// Answers that are looked at together.
const SIZE: usize = super::questions::SIZE;
/// What fits through any IPv6 link with its headers (RFC 8200 §5): the kernel cuts, and does not fragment.
const PIECE: usize = 1232;
/// As much as one message holds, headers aside.
const MESSAGE: usize = 65_000;
/// Twice as many as there can be askers, so that one is found soon.
const PLACES: usize = 2 * SIZE;

/// Answers of one message, by their numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    first: usize,
    last: usize,
    /// Of all but the last one, which may be shorter.
    piece: usize,
    count: usize,
    bytes: usize,
    /// Nothing goes behind a shorter one.
    closed: bool,
}

/// Which answers go in which message.
#[derive(Debug)]
pub(super) struct Groups {
    groups: [Group; SIZE],
    count: usize,
    /// The one behind each answer of the same message.
    next: [usize; SIZE],
    /// By asker, the group that was begun last for it, counted from 1.
    places: [usize; PLACES],
}

impl Groups {
    pub(super) fn new() -> Self {
        Self { groups: [Group::default(); SIZE], count: 0, next: [0; SIZE], places: [0; PLACES] }
    }

    /// An answer in a message of its own.
    pub(super) fn alone(&mut self, number: usize, length: usize) {
        let Some(group) = self.groups.get_mut(self.count) else { return };
        *group = Group { first: number, last: number, piece: length, count: 1, bytes: length, closed: true };
        self.count += 1;
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
        let of_asker = |groups: &[Group], at: usize| {
            at == 0 || groups.get(at - 1).is_some_and(|group| is_same(group.first, number))
        };
        let mut place = hash % PLACES;
        // There are more places than answers: an empty one is found.
        while !of_asker(&self.groups, self.places[place]) {
            place = (place + 1) % PLACES;
        }
        let known = self.places[place].checked_sub(1);
        if known.and_then(|at| self.groups.get_mut(at)).is_some_and(|group| group.join(number, length, &mut self.next))
        {
            return;
        }
        self.alone(number, length);
        self.places[place] = self.count;
        if let Some(group) = self.groups.get_mut(self.count - 1) {
            group.closed = length > PIECE;
        }
    }

    /// How many messages there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// The length of each piece of a message but the last, and the numbers of its answers in their order.
    pub(super) fn message(&self, at: usize) -> (usize, impl Iterator<Item = usize> + '_) {
        let group = self.groups[..self.count].get(at).copied().unwrap_or_default();
        let numbers = std::iter::successors(Some(group.first), |number| self.next.get(*number).copied());
        (group.piece, numbers.take(group.count))
    }
}

impl Group {
    fn join(&mut self, number: usize, length: usize, next: &mut [usize; SIZE]) -> bool {
        if self.closed || length > PIECE || self.bytes + length > MESSAGE {
            return false;
        }
        if length <= self.piece {
            next[self.last] = number;
            self.last = number;
            self.closed = length < self.piece;
        } else if self.count == 1 {
            // The longer one goes first.
            next[number] = self.first;
            (self.first, self.piece, self.closed) = (number, length, true);
        } else {
            return false;
        }
        self.count += 1;
        self.bytes += length;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages for answers of these askers and lengths, with what they hash to.
    fn grouped(answers: &[(char, usize)], hash: fn(char) -> usize) -> Vec<(usize, Vec<usize>)> {
        let mut groups = Groups::new();
        for (number, (asker, length)) in answers.iter().enumerate() {
            groups.with_others(number, *length, hash(*asker), |one, other| answers[one].0 == answers[other].0);
        }
        (0..groups.len()).map(|at| groups.message(at)).map(|(piece, numbers)| (piece, numbers.collect())).collect()
    }

    #[test]
    fn answers_of_one_length_go_together_and_a_shorter_one_is_the_last() {
        for hash in [|asker| asker as usize, |_| 127] {
            let answers = [('a', 60), ('b', 60), ('a', 60), ('a', 44), ('a', 60), ('b', 60), ('a', 60), ('c', 9)];
            assert_eq!(
                grouped(&answers, hash),
                [(60, vec![0, 2, 3]), (60, vec![1, 5]), (60, vec![4, 6]), (9, vec![7])]
            );
            // A and AAAA of one name.
            assert_eq!(grouped(&[('a', 60), ('a', 72), ('a', 60)], hash), [(72, vec![1, 0]), (60, vec![2])]);
            assert_eq!(grouped(&[('a', 60), ('a', 60), ('a', 72)], hash), [(60, vec![0, 1]), (72, vec![2])]);
        }
    }

    #[test]
    fn what_would_have_to_be_fragmented_goes_alone_and_no_message_is_too_long() {
        let alone = |numbers: &[usize]| numbers.iter().map(|number| (1233, vec![*number])).collect::<Vec<_>>();
        assert_eq!(grouped(&[('a', 1233), ('a', 1233)], |_| 0), alone(&[0, 1]));
        assert_eq!(grouped(&[('a', 1233), ('a', 7), ('a', 1233)], |_| 0)[1], (7, vec![1]));
        let lengths: Vec<usize> =
            grouped(&[('a', 1232); SIZE], |_| 0).iter().map(|(_, numbers)| numbers.len()).collect();
        assert_eq!(lengths, [52, 12]);
        let askers: Vec<(char, usize)> = (0..64).map(|asker| (char::from(asker), 60)).collect();
        assert_eq!(grouped(&askers, |_| 5).len(), SIZE);
    }
}
