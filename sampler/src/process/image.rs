//! The programs that one process ran, one after the other.

use std::sync::Arc;

use super::address_space::AddressSpace;
use super::mapping::Mapping;

/// Programs remembered of one process; one that runs more between two
/// clean-ups loses the oldest.
const MAX_IMAGES: usize = 256;

/// What one process had in memory, from each exec to the next.
///
/// There is always one image, and the first also stands for all time before.
/// A forked process shares its parent's until one of them changes.
#[derive(Debug, Clone)]
pub(super) struct Images(Vec<Image>);

#[derive(Debug, Clone)]
struct Image {
    since_ns: u64,
    space: Arc<AddressSpace>,
}

impl Images {
    /// One image.
    pub fn new(space: Arc<AddressSpace>) -> Self {
        Self(vec![Image { since_ns: 0, space }])
    }

    /// The image at a moment.
    pub fn at(&self, time_ns: u64) -> &Arc<AddressSpace> {
        &self.0[self.index_at(time_ns)].space
    }

    /// The newest image.
    pub fn newest(&self) -> &Arc<AddressSpace> {
        &self.0[self.0.len() - 1].space
    }

    /// Whether the image at that moment is the newest.
    pub fn is_newest_at(&self, time_ns: u64) -> bool {
        self.index_at(time_ns) == self.0.len() - 1
    }

    fn index_at(&self, time_ns: u64) -> usize {
        self.0
            .partition_point(|image| image.since_ns <= time_ns)
            .saturating_sub(1)
    }

    /// A mapping was made. The news of one CPU may come in after those of
    /// another, so that it need not go to the newest image.
    pub fn map(&mut self, time_ns: u64, mapping: Mapping) {
        let index = self.index_at(time_ns);
        Arc::make_mut(&mut self.0[index].space).insert(time_ns, mapping);
    }

    /// Another program was started. Mappings made later than that and already
    /// heard of are its own; what they had covered of the old program is not
    /// brought back.
    pub fn exec(&mut self, time_ns: u64) {
        let index = self.index_at(time_ns);
        let before = Arc::make_mut(&mut self.0[index].space);
        let mut space = AddressSpace::fresh(time_ns);
        space.overlay(&before.split_off_after(time_ns));
        self.insert(index + 1, time_ns, Arc::new(space));
    }

    /// The newest image came out of `/proc` at `read_ns`, and now it turns out
    /// that its program was started at `time_ns`, not later: what was before is
    /// unknown.
    pub fn began(&mut self, time_ns: u64, read_ns: u64) {
        let newest = self.0.len() - 1;
        let since_ns = self.0[newest].since_ns;
        if since_ns < time_ns {
            let space = std::mem::take(&mut self.0[newest].space);
            self.insert(newest + 1, time_ns, space);
        } else if since_ns <= read_ns && self.index_at(time_ns) + 1 == newest {
            self.0[newest].since_ns = time_ns;
        }
    }

    /// The process was read from `/proc` at `time_ns`.
    ///
    /// Its program is taken to be the newest image's unless they differ; then
    /// an exec went unheard after `last_news_ns`, and what ran in between is
    /// unknown. With `only_since`, what was read says nothing about the time
    /// before.
    pub fn read(&mut self, time_ns: u64, space: AddressSpace, last_news_ns: u64, only_since: bool) {
        let newest = self.0.len() - 1;
        let known = &self.0[newest].space;
        if only_since {
            self.insert(newest + 1, time_ns, Arc::new(space));
        } else if !known.complete {
            self.0[newest].space = Arc::new(space);
        } else if known.exe == space.exe || known.exe.is_none() || space.exe.is_none() {
            let known = Arc::make_mut(&mut self.0[newest].space);
            known.overlay(&space);
            known.exe = known.exe.take().or(space.exe);
        } else {
            let unknown_since = last_news_ns.max(self.0[newest].since_ns) + 1;
            if unknown_since < time_ns {
                self.insert(newest + 1, unknown_since, Arc::default());
            }
            self.insert(self.0.len(), time_ns, Arc::new(space));
        }
    }

    /// The process turns out to have begun as a copy of another: what is known
    /// of its own lies on top.
    pub fn inherit(&mut self, parent: &Arc<AddressSpace>) {
        let first = &mut self.0[0].space;
        if !first.complete {
            let own = std::mem::replace(first, Arc::clone(parent));
            Arc::make_mut(first).overlay(&own);
        }
    }

    /// Drops the images that were replaced before a moment.
    pub fn forget(&mut self, older_than_ns: u64) {
        self.0.drain(..self.index_at(older_than_ns));
    }

    fn insert(&mut self, index: usize, since_ns: u64, space: Arc<AddressSpace>) {
        self.0.insert(index, Image { since_ns, space });
        if self.0.len() > MAX_IMAGES {
            self.0.remove(0);
        }
    }
}
