//! Handing tables to the kernel's side, and what becomes of those that find no
//! room there: they are kept here, make colder ones go, or are dropped. The
//! stacks that need a table which is not there come as copies.

use std::time::Instant;

use sampler_common::unwind::{BUCKET_BYTES, BUCKET_SHIFT};

use super::builder::{Built, Made};
use super::heat::{self, Candidate};
use super::{State, Unwinding};
use crate::object::FileId;
use crate::object::unwind::Table;
use crate::probe::{NoRoom, Part, WalkedBy};

impl Unwinding {
    /// Takes what was built.
    pub(super) fn take(&mut self, built: Built) {
        self.counts.builder_deaths += built.deaths;
        let state = match built.made {
            Made::Nothing => State::None,
            Made::Refused => {
                self.counts.refused += 1;
                State::Refused
            }
            Made::Table(table) => {
                if built.was_cached {
                    self.counts.cached += 1;
                } else {
                    self.counts.built += 1;
                }
                self.counts.rows += table.rows.len() as u64;
                self.counts.bytes += table.bytes();
                self.load(table)
            }
        };
        let is_kept = matches!(state, State::Kept(_));
        if let Some(known) = self.files.get_mut(&built.file) {
            known.state = state;
        }
        if is_kept {
            self.watched.get_or_insert(self.now);
            self.drop_kept();
        } else {
            self.publish(built.file);
        }
    }

    /// Hands a table to the kernel's side, or keeps it until there is room.
    fn load(&mut self, table: Table) -> State {
        let parts = parts(&table);
        if let Ok(loaded) = self.tables.load(&parts, &table.index, &table.rows) {
            return State::Loaded(loaded);
        }
        if table.bytes() > self.tables.room_bytes().max(self.max_kept_bytes) {
            self.counts.refused += 1;
            return State::Refused;
        }
        self.counts.not_loaded += 1;
        State::Kept(Box::new(table))
    }

    /// Tells the kernel's side how a file is walked whose table is new.
    fn publish(&mut self, file: FileId) {
        let Some(known) = self.files.get_mut(&file) else {
            return;
        };
        let by = match known.state {
            State::Loaded(table) => WalkedBy::Table(table),
            State::None => WalkedBy::FramePointers,
            State::Ordered | State::Kept(_) | State::Dropped(_) | State::Refused => return,
        };
        let (tables, counts) = (&mut self.tables, &mut self.counts);
        // Of those that find no room the next copy tells again.
        known.bound.retain(|name| {
            let bound = tables.bind(*name, by).is_ok();
            counts.not_loaded += u64::from(!bound);
            bound
        });
    }

    /// Gives the tables that are kept here another chance, those that were
    /// needed last first; what has long not been needed makes room for them.
    pub(super) fn load_kept(&mut self) {
        let mut kept = self.kept();
        kept.sort_unstable_by_key(|table| std::cmp::Reverse(table.used));
        for Candidate { id, used, bytes } in kept {
            let Some(State::Kept(table)) = self.files.get(&id).map(|known| &known.state) else {
                continue;
            };
            match self.tables.load(&parts(table), &table.index, &table.rows) {
                Ok(loaded) => {
                    if let Some(known) = self.files.get_mut(&id) {
                        known.state = State::Loaded(loaded);
                    }
                    self.publish(id);
                }
                Err(NoRoom) => self.evict_for(used, bytes),
            }
        }
        // As long as files wait for room somewhere, it matters what is needed.
        let waits = |state: &State| matches!(state, State::Kept(_) | State::Dropped(_));
        if !self.files.values().any(|known| waits(&known.state)) {
            self.watched = None;
        }
    }

    /// Drops tables that are too many to be kept here.
    fn drop_kept(&mut self) {
        for Candidate { id, used, bytes } in heat::too_many(self.kept(), self.max_kept_bytes) {
            // When it is built again it may find room.
            self.evict_for(used, bytes);
            if let Some(known) = self.files.get_mut(&id) {
                known.drops += 1;
                known.state = State::Dropped(Instant::now() + heat::rest(known.drops));
                self.counts.dropped += 1;
            }
        }
    }

    fn kept(&self) -> Vec<Candidate<FileId>> {
        let kept = self.files.iter().filter_map(|(id, known)| {
            let State::Kept(table) = &known.state else {
                return None;
            };
            Some(Candidate {
                id: *id,
                used: known.used,
                bytes: table.bytes(),
            })
        });
        kept.collect()
    }

    /// Takes tables back from the kernel's side that were needed long before
    /// `used`, so that `bytes` come free; none if that cannot be.
    fn evict_for(&mut self, used: Instant, bytes: u64) {
        if bytes > self.tables.room_bytes() {
            return;
        }
        // Before it was watched, none can be said to be cold.
        let watched = self.watched.unwrap_or(self.now);
        let loaded = self.files.iter().filter_map(|(id, known)| {
            let State::Loaded(table) = known.state else {
                return None;
            };
            Some(Candidate {
                id: *id,
                used: known.used.max(watched),
                bytes: table.bytes(),
            })
        });
        // What is free lies in pieces too small for it, if it is enough.
        let lacking = bytes.saturating_sub(self.tables.free_bytes()).max(1);
        for Candidate { id, .. } in heat::to_evict(loaded.collect(), used, lacking) {
            self.evict(id);
        }
    }

    fn evict(&mut self, id: FileId) {
        let Some(known) = self.files.remove(&id) else {
            return;
        };
        for name in &known.bound {
            self.tables.unbind(*name);
        }
        if let State::Loaded(table) = known.state {
            self.tables.unload(table);
            self.counts.evicted += 1;
        }
    }
}

/// What a table, which goes by addresses, covers of its file.
fn parts(table: &Table) -> Vec<Part> {
    let bucket = |address: u64| (address.saturating_sub(table.lowest) >> BUCKET_SHIFT) as u32;
    let mut parts = Vec::new();
    for segment in &table.segments {
        let first_bucket = bucket(segment.address);
        let end = bucket((segment.address + segment.size).next_multiple_of(BUCKET_BYTES));
        parts.push(Part {
            first_offset: segment.file_offset & !(BUCKET_BYTES - 1),
            buckets: end - first_bucket,
            first_bucket,
        });
    }
    parts
}
