//! Two events on a CPU tell of each executable mapping, one after the other into
//! the same ring: by build ID, where the kernel found one, and by inode.

use crate::process::{Event, MapRecord, Record};

/// Makes one record of the two.
#[derive(Debug, Default)]
pub(super) struct Pairing {
    /// The first of two, whose second is not here yet.
    first: Option<Record>,
    /// It was left from the reading before this one.
    is_left: bool,
}

impl Pairing {
    /// Begins another reading of the ring. What had no second in the last two had
    /// none: it was lost, or never written.
    pub fn begin(&mut self, records: &mut Vec<Record>) {
        if std::mem::replace(&mut self.is_left, self.first.is_some()) {
            self.end(records);
        }
    }

    /// Takes the next record.
    pub fn add(&mut self, mut record: Record, records: &mut Vec<Record>) {
        let Some(mut first) = self.first.take() else {
            if matches!(record.event, Event::Map(_)) {
                self.first = Some(record);
            } else {
                records.push(record);
            }
            return;
        };
        self.is_left = false;
        if let (Event::Map(one), Event::Map(other)) = (&mut first.event, &mut record.event)
            && (first.pid, first.tid) == (record.pid, record.tid)
            && is_same_range(one, other)
        {
            other.build_id = other.build_id.take().or(one.build_id.take());
            // The one with a build ID has no inode.
            if other.id.inode == 0 {
                (other.id, other.generation) = (one.id, one.generation);
            }
            records.push(record);
            return;
        }
        records.push(first);
        self.add(record, records);
    }

    /// Lets go of a first one.
    pub fn end(&mut self, records: &mut Vec<Record>) {
        records.extend(self.first.take());
        self.is_left = false;
    }
}

fn is_same_range(one: &MapRecord, other: &MapRecord) -> bool {
    (one.start, one.end, one.file_offset, &one.name)
        == (other.start, other.end, other.file_offset, &other.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{BuildId, FileId};

    fn map(start: u64, inode: u64, build_id: Option<u8>) -> Record {
        let map = MapRecord {
            start,
            end: start + 1,
            file_offset: 0,
            id: FileId { device: 0, inode },
            generation: (inode != 0).then_some(5),
            name: (*b"/x").into(),
            build_id: build_id.map(|byte| BuildId([byte; 20].into())),
        };
        record(Event::Map(map))
    }

    fn record(event: Event) -> Record {
        Record {
            time_ns: 1,
            pid: 7,
            tid: 7,
            event,
        }
    }

    fn paired(pairing: &mut Pairing, told: Vec<Record>) -> Vec<Record> {
        let mut records = Vec::new();
        pairing.begin(&mut records);
        for record in told {
            pairing.add(record, &mut records);
        }
        records
    }

    #[test]
    fn a_mapping_that_is_told_of_twice_is_one() {
        let both = map(1, 3, Some(9));
        for told in [
            vec![map(1, 0, Some(9)), map(1, 3, None)],
            vec![map(1, 3, None), map(1, 0, Some(9))],
        ] {
            assert_eq!(
                paired(&mut Pairing::default(), told),
                std::slice::from_ref(&both)
            );
        }
        let without_build_id = vec![
            map(1, 3, None),
            map(1, 3, None),
            map(2, 0, None),
            map(2, 0, None),
        ];
        assert_eq!(
            paired(&mut Pairing::default(), without_build_id),
            [map(1, 3, None), map(2, 0, None)]
        );
    }

    #[test]
    fn one_that_is_told_of_once_is_kept() {
        let told = vec![
            map(1, 3, None),
            record(Event::Exit),
            map(2, 0, Some(9)),
            map(3, 4, None),
        ];
        let mut pairing = Pairing::default();
        assert_eq!(
            paired(&mut pairing, told),
            [map(1, 3, None), record(Event::Exit), map(2, 0, Some(9))]
        );
        // Its second may come yet, for one reading.
        assert_eq!(paired(&mut pairing, Vec::new()), []);
        assert_eq!(paired(&mut pairing, Vec::new()), [map(3, 4, None)]);
        assert_eq!(paired(&mut pairing, Vec::new()), []);
    }

    #[test]
    fn two_readings_may_come_between_the_two() {
        let mut pairing = Pairing::default();
        assert_eq!(paired(&mut pairing, vec![map(1, 0, Some(9))]), []);
        let second = paired(&mut pairing, vec![map(1, 3, None)]);
        assert_eq!(second, [map(1, 3, Some(9))]);
    }
}
