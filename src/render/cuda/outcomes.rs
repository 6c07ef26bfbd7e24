//! What steps came to, on its way from the device to whoever asks, steps later.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cudarc::driver::CudaEvent;

use super::card::Card;
use super::feed::event;
use super::host::Pinned;
use super::pipeline::Pipeline;
use super::plan::OUTCOMES;
use super::records::OutcomeRecord;
use crate::error::Result;
use crate::render::Outcome;
use crate::render::outcome::OutcomeQueue;

/// Steps whose outcomes are fetched together.
const REPORT: u64 = 32;
/// Time after which outcomes are fetched however few they are.
const REPORT_TIME: Duration = Duration::from_secs(1);

/// The outcomes of a device's steps, in a ring there and in one here.
pub struct Outcomes {
    /// Steps taken.
    steps: u64,
    /// Images of the steps whose outcomes are not yet known.
    images: VecDeque<u64>,
    ring: Pinned<OutcomeRecord>,
    /// Where the ring on the device is.
    address: u64,
    reports: VecDeque<Report>,
    reported: u64,
    last_report: Instant,
    known: OutcomeQueue,
}

/// Outcomes of steps `from..to` on their way.
struct Report {
    arrived: CudaEvent,
    from: u64,
    to: u64,
}

impl Outcomes {
    /// Of the steps of a pipeline.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(card: &Card, pipeline: &Pipeline) -> Result<Self> {
        Ok(Self {
            steps: 0,
            images: VecDeque::new(),
            ring: Pinned::zeros(card, OUTCOMES)?,
            address: pipeline.buffers.outcomes.address(),
            reports: VecDeque::new(),
            reported: 0,
            last_report: Instant::now(),
            known: OutcomeQueue::default(),
        })
    }

    /// The place in the ring of the step that comes next.
    pub fn place(&self) -> u32 {
        (self.steps % OUTCOMES as u64) as u32
    }

    /// Counts a step over `images` images, which is enqueued, and takes what has arrived of earlier ones.
    ///
    /// # Errors
    /// When the device fails.
    pub fn stepped(&mut self, card: &Card, images: u64) -> Result<()> {
        self.steps += 1;
        self.images.push_back(images);
        if self.steps.is_multiple_of(REPORT) || self.last_report.elapsed() > REPORT_TIME {
            self.report(card)?;
        }
        self.collect(card)
    }

    /// Sends for the outcomes of the steps since the last report.
    ///
    /// # Errors
    /// When the device fails.
    pub fn report(&mut self, card: &Card) -> Result<()> {
        self.last_report = Instant::now();
        while self.reported < self.steps {
            // Not around the end of the ring.
            let start = self.reported as usize % OUTCOMES;
            let count = (OUTCOMES - start).min((self.steps - self.reported) as usize);
            let address = self.address + (start * size_of::<OutcomeRecord>()) as u64;
            // SAFETY: both rings have this place. The device is at most 32 passes behind, so what was there has been read.
            unsafe { self.ring.copy_from(card, &card.stream, start..start + count, address)? };
            let arrived = event(card)?;
            arrived.record(&card.stream).map_err(card.failed("order its streams"))?;
            let to = self.reported + count as u64;
            self.reports.push_back(Report { arrived, from: self.reported, to });
            self.reported = to;
        }
        Ok(())
    }

    /// Takes what has arrived.
    ///
    /// # Errors
    /// When the device fails.
    pub fn collect(&mut self, card: &Card) -> Result<()> {
        while let Some(report) = self.reports.front() {
            if !report.arrived.try_is_complete().map_err(card.failed("compute"))? {
                break;
            }
            let start = report.from as usize % OUTCOMES;
            // SAFETY: the copy into this range has ended.
            let outcomes = unsafe { self.ring.read(start..start + (report.to - report.from) as usize) };
            for outcome in outcomes {
                let images = self.images.pop_front().expect("a step has its images") as f64;
                self.known.push(Outcome {
                    loss: f64::from(outcome.loss) / images,
                    gradient_norm: outcome.norm / images,
                });
            }
            self.reports.pop_front();
        }
        Ok(())
    }

    /// Takes the outcomes that have arrived since the last call, up to a step that is not finite.
    pub fn take(&mut self) -> Vec<Outcome> {
        self.known.take()
    }
}
