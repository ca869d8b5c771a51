use std::sync::Arc;

use proptest::prelude::*;

use super::{Batch, Content, Keep, Mutation, PowerCut, PowerCutOptions, SyncToken};

const SECTORS: usize = 12;
const SIZE: usize = SECTORS * 512;

/// The real backend.
fn apply(batch: &Batch, disk: &mut [u8], pieces: usize) {
    for piece in batch.pieces.iter().take(pieces) {
        piece.copy_into(0, disk);
    }
}

fn options(keep: Keep, tear: u64, seed: u64) -> PowerCutOptions {
    PowerCutOptions { keep, tear, seed }
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        offset: usize,
        length: usize,
        fill: u8,
    },
    Clear {
        offset: usize,
        length: usize,
        trim: bool,
    },
    BeginSync,
    /// Completes one of the syncs that were begun. Applies this many pieces, or applies all and says so.
    CompleteSync {
        which: usize,
        fails_after: Option<usize>,
    },
    Cut {
        keep: Keep,
        tear: u64,
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly whole sectors, at times anything.
    let place = prop_oneof![
        3 => (0..SECTORS, 1..5_usize).prop_map(|(start, count)| (start * 512, count * 512)),
        1 => (0..SIZE, 1..2000_usize),
    ];
    let keep = prop_oneof![
        Just(Keep::None),
        Just(Keep::All),
        Just(Keep::Random),
        Just(Keep::Random)
    ];
    let tear = prop_oneof![Just(512_u64), Just(2048)];
    prop_oneof![
        6 => (place.clone(), 1..=255_u8).prop_map(|((offset, length), fill)| Step::Write { offset, length, fill }),
        2 => (place, any::<bool>()).prop_map(|((offset, length), trim)| Step::Clear { offset, length, trim }),
        2 => Just(Step::BeginSync),
        2 => (0..4_usize, prop::option::of(0..3_usize))
            .prop_map(|(which, fails_after)| Step::CompleteSync { which, fails_after }),
        1 => (keep, tear, any::<u64>()).prop_map(|(keep, tear, seed)| Step::Cut { keep, tear, seed }),
    ]
}

/// The flat model: the image after each mutation since the last cut.
struct Model {
    disk: Vec<u8>,
    images: Vec<Vec<u8>>,
    covered: usize,
    cut: PowerCut,
    syncs: Vec<(SyncToken, usize)>,
}

impl Model {
    fn new() -> Self {
        let disk: Vec<u8> = (0..SIZE)
            .map(|index| u8::try_from(index / 512).expect("few sectors"))
            .collect();
        Self {
            images: vec![disk.clone()],
            disk,
            covered: 0,
            cut: PowerCut::new(),
            syncs: Vec::new(),
        }
    }

    fn newest(&self) -> &Vec<u8> {
        self.images.last().expect("an image")
    }

    fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let overlay = self.cut.overlay(offset as u64, length as u64);
        let mut buffer = self.disk[offset..offset + length].to_vec();
        for piece in overlay {
            piece.copy_into(offset as u64, &mut buffer);
        }
        buffer
    }

    fn mutate(&mut self, offset: usize, bytes: &[u8], mutation: Mutation) {
        let mut image = self.newest().clone();
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.images.push(image);
        self.cut
            .record(self.cut.incarnation(), offset as u64, mutation)
            .expect("current");
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Write {
                offset,
                length,
                fill,
            } => {
                // Every byte of a write is told apart from its neighbours'.
                let length = length.min(SIZE - offset);
                let bytes: Vec<u8> = (0..length)
                    .map(|index| fill ^ u8::try_from(index % 251).unwrap_or(0))
                    .collect();
                self.mutate(offset, &bytes, Mutation::Write(Arc::from(bytes.as_slice())));
            }
            Step::Clear {
                offset,
                length,
                trim,
            } => {
                let length = length.min(SIZE - offset);
                let size = length as u64;
                self.mutate(
                    offset,
                    &vec![0; length],
                    if trim {
                        Mutation::Trim(size)
                    } else {
                        Mutation::Zero(size)
                    },
                );
            }
            Step::BeginSync => {
                let token = self
                    .cut
                    .begin_sync(self.cut.incarnation())
                    .expect("current");
                self.syncs.push((token, self.images.len() - 1));
            }
            Step::CompleteSync { which, fails_after } => {
                if which < self.syncs.len() {
                    let (token, covers) = self.syncs.remove(which);
                    self.complete(token, covers, fails_after);
                }
            }
            Step::Cut { keep, tear, seed } => self.cut(options(keep, tear, seed))?,
        }
        prop_assert_eq!(&self.read(0, SIZE), self.newest());
        prop_assert_eq!(self.read(700, 900), self.newest()[700..1600].to_vec());
        Ok(())
    }

    fn complete(&mut self, token: SyncToken, covers: usize, fails_after: Option<usize>) {
        let batch = self.cut.complete_sync(token, 0..u64::MAX).expect("current");
        self.covered = self.covered.max(covers);
        apply(&batch, &mut self.disk, fails_after.unwrap_or(usize::MAX));
        if fails_after.is_none() {
            self.cut.applied(&batch);
            assert_eq!(
                self.disk, self.images[self.covered],
                "the disk is the covered image"
            );
        }
    }

    fn cut(&mut self, options: PowerCutOptions) -> Result<(), TestCaseError> {
        let before = self.cut.incarnation();
        let stale: Vec<SyncToken> = self.syncs.drain(..).map(|(token, _)| token).collect();
        let batch = self.cut.cut(options);
        prop_assert_eq!(self.cut.incarnation(), before + 1);
        let survivors = self.read(0, SIZE);
        apply(&batch, &mut self.disk, usize::MAX);
        self.cut.applied(&batch);
        prop_assert!(self.cut.is_empty());
        prop_assert_eq!(self.cut.held_bytes(), 0);
        prop_assert_eq!(&self.disk, &survivors);
        match options.keep {
            Keep::None => prop_assert_eq!(&self.disk, &self.images[self.covered]),
            Keep::All => prop_assert_eq!(&self.disk, self.newest()),
            Keep::Random => {
                let unit = usize::try_from(options.tear).expect("small");
                for (number, sector) in self.disk.chunks(unit).enumerate() {
                    let at = number * unit..number * unit + sector.len();
                    let known = self.images[self.covered..]
                        .iter()
                        .any(|image| image[at.clone()] == *sector);
                    prop_assert!(known, "unit {number} is neither covered nor later");
                }
            }
        }
        for token in stale {
            prop_assert!(self.cut.complete_sync(token, 0..u64::MAX).is_err());
        }
        prop_assert!(self.cut.record(before, 0, Mutation::Zero(512)).is_err());
        prop_assert!(self.cut.begin_sync(before).is_err());
        self.images = vec![self.disk.clone()];
        self.covered = 0;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_cut_leaves_each_sector_covered_or_later(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step)?;
        }
        model.run(&Step::Cut { keep: Keep::None, tear: 512, seed: 0 })?;
    }
}

/// 64 sectors, each written thrice; nothing is covered.
fn three_versions() -> PowerCut {
    let mut cut = PowerCut::new();
    for fill in 1..=3_u8 {
        cut.record(0, 0, Mutation::Write(Arc::from(vec![fill; 64 * 512])))
            .expect("current");
    }
    cut
}

#[test]
fn random_survivors_are_repeated_by_their_seed_and_reach_every_version() {
    let disk = |seed| {
        let mut disk = vec![0; 64 * 512];
        apply(
            &three_versions().cut(options(Keep::Random, 512, seed)),
            &mut disk,
            usize::MAX,
        );
        disk
    };
    assert_eq!(disk(1), disk(1));
    assert_ne!(disk(1), disk(2));
    for version in 0..=3 {
        assert!(
            disk(1).chunks(512).any(|sector| sector[0] == version),
            "version {version} never survives"
        );
    }
}

#[test]
fn a_larger_tear_makes_neighbours_share_their_fate() {
    let mut disk = vec![0; 64 * 512];
    apply(
        &three_versions().cut(options(Keep::Random, 4096, 3)),
        &mut disk,
        usize::MAX,
    );
    assert!(
        disk.chunks(4096)
            .all(|unit| unit.iter().all(|byte| *byte == unit[0]))
    );
    assert!(disk.chunks(4096).any(|unit| unit[0] != disk[0]));
}

#[test]
fn a_trim_of_a_huge_device_costs_one_segment_and_few_choices() {
    let mut cut = PowerCut::new();
    cut.record(0, 0, Mutation::Trim(1 << 60)).expect("current");
    cut.record(0, 1 << 40, Mutation::Write(Arc::from([1_u8; 512])))
        .expect("current");
    assert_eq!(cut.held_bytes(), 512);
    assert_eq!(cut.overlay(0, 1 << 60).len(), 3);
    let batch = cut.cut(options(Keep::Random, 512, 5));
    assert!(batch.pieces.len() < 1 << 18);
    assert!(batch.pieces.len() > 1000);
}

#[test]
fn a_sync_completed_but_not_applied_survives_and_is_returned_again() {
    let mut cut = PowerCut::new();
    cut.record(0, 0, Mutation::Write(Arc::from([1_u8; 512])))
        .expect("current");
    let token = cut.begin_sync(0).expect("current");
    cut.record(0, 0, Mutation::Write(Arc::from([2_u8; 512])))
        .expect("current");
    let failed = cut.complete_sync(token, 0..u64::MAX).expect("current");
    assert_eq!(failed.pieces[0].data(), Some([1_u8; 512].as_slice()));
    let again = cut
        .complete_sync(cut.begin_sync(0).expect("current"), 0..u64::MAX)
        .expect("current");
    assert_eq!(again.pieces[0].data(), Some([2_u8; 512].as_slice()));

    // One that was only begun covers nothing.
    cut.record(0, 512, Mutation::Zero(512)).expect("current");
    let begun = cut.begin_sync(0).expect("current");
    let survivors = cut.cut(options(Keep::None, 512, 0));
    assert_eq!(survivors.pieces.len(), 1);
    assert_eq!(survivors.pieces[0].data(), Some([2_u8; 512].as_slice()));
    assert!(cut.complete_sync(begun, 0..u64::MAX).is_err());
    // Nor does an older batch drop what the cut left.
    cut.applied(&again);
    assert_eq!(cut.overlay(0, 512).len(), 1);
    cut.applied(&survivors);
    assert!(cut.is_empty());
}

#[test]
fn pieces_are_merged_and_a_shrink_forgets() {
    let mut cut = PowerCut::new();
    cut.record(0, 0, Mutation::Write(Arc::from([7_u8; 4096])))
        .expect("current");
    cut.record(0, 8192, Mutation::Zero(512)).expect("current");
    cut.record(0, 8704, Mutation::Zero(512)).expect("current");
    cut.record(0, 9216, Mutation::Trim(512)).expect("current");
    cut.record(0, 0, Mutation::Zero(0)).expect("nothing");
    let lengths: Vec<_> = cut
        .overlay(0, 1 << 20)
        .iter()
        .map(|piece| piece.length)
        .collect();
    assert_eq!(lengths, [4096, 1024, 512]);
    assert!(cut.overlay(4096, 4096).is_empty());
    assert!(cut.overlay(100, 0).is_empty());
    assert_eq!(cut.overlay(100, 8)[0].data().map(<[u8]>::len), Some(8));
    cut.truncate(8704);
    cut.truncate(1000);
    let left = cut.overlay(0, 1 << 20);
    assert_eq!((left.len(), left[0].length), (1, 1000));
    assert!(matches!(left[0].content, Content::Data { at: 0, .. }));
}

/// FUA covers its own bytes; what was written beside them by the same mutation is lost with the rest.
#[test]
fn a_promise_covers_its_range_only() {
    let mut cut = PowerCut::new();
    let write = |cut: &mut PowerCut, byte: u8| {
        let data = Mutation::Write(vec![byte; 1536].into());
        cut.record(cut.incarnation(), 0, data).expect("current");
    };
    write(&mut cut, 1);
    let all = cut.begin_sync(0).expect("current");
    let batch = cut.complete_sync(all, 0..u64::MAX).expect("current");
    cut.applied(&batch);
    write(&mut cut, 2);
    let token = cut.begin_sync(0).expect("current");
    write(&mut cut, 3);
    let batch = cut.complete_sync(token, 512..1024).expect("current");
    assert_eq!(batch.pieces.len(), 1);
    assert_eq!((batch.pieces[0].offset, batch.pieces[0].length), (512, 512));
    assert_eq!(batch.pieces[0].data().expect("data"), [2; 512]);
    let batch = cut.cut(options(Keep::None, 512, 0));
    let pieces: Vec<_> = batch
        .pieces
        .iter()
        .map(|piece| (piece.offset, piece.length))
        .collect();
    assert_eq!(
        pieces,
        [(512, 512)],
        "what was never covered is as the backend has it"
    );
    assert_eq!(batch.pieces[0].data().expect("data"), [2; 512]);
    cut.applied(&batch);
    assert!(cut.is_empty());
    assert_eq!(cut.held_bytes(), 0);
}
