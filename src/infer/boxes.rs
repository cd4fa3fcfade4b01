//! Networks that give boxes or points with scores: patch by patch, all on the network's grid.
//!
//! What a patch says of its padding is left out. Nothing is decided here on answers that are of one object: that is postprocessing.

use ort::session::{Session, SessionOutputs};
use ort::value::{Outlet, PrimitiveTensorElementType, TensorElementType, ValueType};

use super::asked::Asked;
use super::outlets::{broken, has_shape, open_or, shape_of};
use super::{InferError, window};
use crate::geometry::Grid;
use crate::kernels::patches::Patch;
use crate::model::{Axis, BoxColumns, Manifest, ScoreKind, SlidingWindow, Zero};
use crate::volume::Volume;

/// Boxes of all patches together that are kept, those with the highest scores: what comes after compares each with each.
const MOST_BOXES: usize = 20_000;

/// A box with its score, or a point, whose faces are the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredBox {
    /// Channel of the output, which a finding of the package is.
    pub channel: usize,
    /// Probability, 0 to 1.
    pub score: f32,
    /// Lower faces along i, j, k, in voxels of the network's grid: the centre of voxel n lies at n.
    pub low: [f64; 3],
    /// Upper faces, above the lower ones; of a point the same.
    pub high: [f64; 3],
}

impl ScoredBox {
    /// Its middle.
    pub fn centre(&self) -> [f64; 3] {
        std::array::from_fn(|n| (self.low[n] + self.high[n]) / 2.0)
    }

    /// One of a patch, in voxels of the grid.
    pub(super) fn on_grid(self, patch: &Patch) -> Self {
        let moved = |face: [f64; 3]| std::array::from_fn(|n| face[n] + f64::from(patch.start[n]));
        Self { low: moved(self.low), high: moved(self.high), ..self }
    }

    /// The higher score first; of equals that which comes first along k, then j, then i.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        let faces = |one: &Self| [one.low[2], one.low[1], one.low[0], one.high[2], one.high[1], one.high[0]];
        let by_place = || faces(self).iter().zip(faces(other)).map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne());
        other.score.total_cmp(&self.score).then_with(|| by_place().unwrap_or(self.channel.cmp(&other.channel)))
    }
}

/// The boxes of all patches.
#[derive(Debug, Clone)]
pub struct Detected {
    /// The network's grid.
    pub grid: Grid,
    /// Those that reach the `min_score` of their finding, in no order that means anything.
    pub boxes: Vec<ScoredBox>,
    /// Those that were left out because there were too many in a patch, or in all.
    pub left_out: LeftOut,
    /// How many had their centre beyond the grid, in what a patch is filled up with.
    pub beyond: usize,
    /// Patches of the grid.
    pub patches: usize,
    /// Those among them that the network was not asked about, as the package wants it of empty ones.
    pub empty_patches: usize,
}

/// Boxes that are not looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LeftOut {
    /// How many.
    pub count: usize,
    /// The highest score among them.
    pub highest: f32,
}

impl LeftOut {
    /// Leaves `most` boxes, those with the highest scores.
    fn cut(&mut self, boxes: &mut Vec<ScoredBox>, most: usize) {
        if boxes.len() > most {
            boxes.sort_by(ScoredBox::order);
            self.count += boxes.len() - most;
            self.highest = self.highest.max(boxes[most].score);
            boxes.truncate(most);
        }
    }
}

/// What is to be read from the network's outputs.
#[derive(Debug, Clone)]
pub(super) struct BoxOutput {
    scores: String,
    boxes: String,
    labels: Option<String>,
    columns: BoxColumns,
    /// What is added to coordinates so that the centre of the first voxel is 0.
    shift: f64,
    kind: ScoreKind,
    /// Least score of each channel; none: the background.
    min_scores: Vec<Option<f32>>,
    max_per_patch: usize,
}

impl BoxOutput {
    /// Of a package whose network gives boxes.
    pub(super) fn of(manifest: &Manifest) -> Option<Self> {
        let boxes = manifest.output.boxes.as_ref()?;
        let mut min_scores = vec![None; manifest.channels()];
        for finding in &manifest.finding {
            min_scores[finding.channel] = finding.instances.as_ref().map(|instances| instances.min_score as f32);
        }
        Some(Self {
            scores: manifest.output.tensor.clone(),
            boxes: boxes.tensor.clone(),
            labels: boxes.labels.clone(),
            columns: boxes.box_columns()?,
            shift: if boxes.zero == Zero::VoxelCorner { -0.5 } else { 0.0 },
            kind: manifest.output.scores?,
            min_scores,
            max_per_patch: boxes.max_per_patch as usize,
        })
    }

    fn width(&self) -> usize {
        if matches!(self.columns, BoxColumns::Point(_)) { 3 } else { 6 }
    }

    /// Columns of the scores; `None`: there is one for each box, which its label or the only finding says what it is of.
    fn score_columns(&self) -> Option<usize> {
        (self.labels.is_none() && self.min_scores.len() > 1).then_some(self.min_scores.len())
    }

    /// Holds a graph's outputs against the manifest.
    ///
    /// # Errors
    /// [`InferError::Contract`] with what differs.
    pub(super) fn check(&self, session: &Session) -> Result<(), InferError> {
        let (outputs, float32) = (session.outputs(), TensorElementType::Float32);
        check_output(outputs, &self.boxes, float32, &[&[None, Some(self.width())]])?;
        match self.score_columns() {
            Some(columns) => check_output(outputs, &self.scores, float32, &[&[None, Some(columns)]])?,
            None => check_output(outputs, &self.scores, float32, &[&[None], &[None, Some(1)]])?,
        }
        match &self.labels {
            Some(labels) => check_output(outputs, labels, TensorElementType::Int64, &[&[None]]),
            None => Ok(()),
        }
    }

    /// The same boxes, however low their scores are.
    pub(super) fn of_any_score(&self) -> Self {
        Self { min_scores: self.min_scores.iter().map(|least| least.and(Some(0.0))).collect(), ..self.clone() }
    }

    /// The boxes of one patch, in its voxels, of which the network sees `seen`.
    pub(super) fn ask(&self, network: &mut Asked<'_>, window: &SlidingWindow, seen: &[f32]) -> Result<Vec<ScoredBox>, InferError> {
        let [i, j, k] = window.patch.map(|n| n as usize);
        let mut boxes = Vec::new();
        network.ask(seen, &[1, network.contract.seen, k, j, i], |outputs| {
            boxes = self.read(outputs)?;
            Ok(())
        })?;
        Ok(boxes)
    }

    /// The boxes of one patch, in its voxels, that reach their least score; `row` of those that are none is said in the error.
    fn read(&self, outputs: &SessionOutputs<'_>) -> Result<Vec<ScoredBox>, InferError> {
        let (shape, boxes) = values::<f32>(outputs, &self.boxes)?;
        let width = self.width();
        if !has_shape(shape, &[None, Some(width)]) {
            return Err(InferError::Contract { what: format!("`{}` has shape {:?}, expected [N, {width}]", self.boxes, shape) });
        }
        let count = boxes.len() / width;
        let (shape, scores) = values::<f32>(outputs, &self.scores)?;
        let fits = match self.score_columns() {
            Some(columns) => has_shape(shape, &[Some(count), Some(columns)]),
            None => has_shape(shape, &[Some(count)]) || has_shape(shape, &[Some(count), Some(1)]),
        };
        if !fits {
            let expected = self.score_columns().map_or_else(|| format!("[{count}]"), |columns| format!("[{count}, {columns}]"));
            let what = format!("`{}` has shape {:?}, expected {expected}, a row for each of `{}`", self.scores, shape, self.boxes);
            return Err(InferError::Contract { what });
        }
        let labels = match &self.labels {
            None => None,
            Some(name) => {
                let (shape, labels) = values::<i64>(outputs, name)?;
                if !has_shape(shape, &[Some(count)]) {
                    let what = format!("`{name}` has shape {:?}, expected [{count}], one for each of `{}`", shape, self.boxes);
                    return Err(InferError::Contract { what });
                }
                Some(labels)
            }
        };
        self.boxes_of(boxes, scores, labels)
    }

    /// As [`Self::read`], of tensors that have the right shapes.
    fn boxes_of(&self, boxes: &[f32], scores: &[f32], labels: Option<&[i64]>) -> Result<Vec<ScoredBox>, InferError> {
        match boxes.iter().chain(scores).filter(|value| !value.is_finite()).count() {
            0 => {}
            count => return Err(InferError::NotFinite { count }),
        }
        let columns = self.score_columns().unwrap_or(1);
        let mut found = Vec::new();
        for (row, (coordinates, scores)) in boxes.chunks_exact(self.width()).zip(scores.chunks_exact(columns)).enumerate() {
            let label = match labels {
                None => None,
                Some(labels) => Some(self.channel(row, labels[row])?),
            };
            for (column, &score) in scores.iter().enumerate() {
                let channel = label.unwrap_or(column);
                let score = self.probability(score)?;
                if self.min_scores[channel].is_some_and(|least| score >= least) {
                    let [low, high] = self.faces(row, coordinates)?;
                    found.push(ScoredBox { channel, score, low, high });
                }
            }
        }
        Ok(found)
    }

    fn channel(&self, row: usize, label: i64) -> Result<usize, InferError> {
        let channels = self.min_scores.len();
        let known = usize::try_from(label).ok().filter(|&channel| channel < channels);
        let what = || format!("its label is {label}, and the manifest describes the channels 0 to {}", channels - 1);
        known.ok_or_else(|| InferError::Box { row, what: what() })
    }

    fn probability(&self, score: f32) -> Result<f32, InferError> {
        match self.kind {
            ScoreKind::Probabilities if !(0.0..=1.0).contains(&score) => Err(InferError::NotProbability { value: score }),
            ScoreKind::Probabilities => Ok(score),
            ScoreKind::IndependentLogits | ScoreKind::Logits => Ok((1.0 / (1.0 + (-f64::from(score)).exp())) as f32),
        }
    }

    /// Lower and upper faces in voxels of the patch, the centre of whose first is 0.
    fn faces(&self, row: usize, coordinates: &[f32]) -> Result<[[f64; 3]; 2], InferError> {
        let of = |columns: [usize; 3]| columns.map(|column| f64::from(coordinates[column]));
        let [low, high] = match self.columns {
            BoxColumns::Corners(low, high) => [of(low), of(high)],
            BoxColumns::Sized(centre, size) => {
                let (centre, size) = (of(centre), of(size));
                [std::array::from_fn(|n| centre[n] - size[n] / 2.0), std::array::from_fn(|n| centre[n] + size[n] / 2.0)]
            }
            BoxColumns::Point(at) => [of(at); 2],
        };
        let is_point = matches!(self.columns, BoxColumns::Point(_));
        if let Some(n) = (0..3).find(|&n| !is_point && low[n] >= high[n]) {
            let (axis, low, high) = (Axis::ALL[n], low[n], high[n]);
            let what = format!("it runs from {low} to {high} along {axis}: the lower face comes first, and boxes are not empty");
            return Err(InferError::Box { row, what });
        }
        Ok([low.map(|at| at + self.shift), high.map(|at| at + self.shift)])
    }
}

/// Shape and values of an output. One without rows may have no memory at all, and is not looked for.
fn values<'a, T: PrimitiveTensorElementType>(outputs: &'a SessionOutputs<'_>, name: &str) -> Result<(&'a [i64], &'a [T]), InferError> {
    let value = &outputs[name];
    match value.dtype() {
        ValueType::Tensor { ty, shape, .. } if *ty == T::into_tensor_element_type() && shape.contains(&0) => Ok((shape, &[])),
        _ => {
            let (shape, values) = value.try_extract_tensor::<T>()?;
            Ok((shape, values))
        }
    }
}

/// Holds a tensor of the outputs against what it must be: one of `shapes`, `None` for a number that the graph says.
fn check_output(outputs: &[Outlet], name: &str, wanted: TensorElementType, shapes: &[&[Option<usize>]]) -> Result<(), InferError> {
    let found = shape_of(outputs, name, wanted)?;
    let fits = |wanted: &&[Option<usize>]| {
        wanted.len() == found.len() && found.iter().zip(*wanted).all(|(&n, wanted)| wanted.is_none_or(|wanted| open_or(n, wanted)))
    };
    if shapes.iter().any(fits) {
        return Ok(());
    }
    let axis = |n: &Option<usize>| n.map_or_else(|| "N".to_owned(), |n| n.to_string());
    let told: Vec<String> = shapes.iter().map(|shape| shape.iter().map(axis).collect::<Vec<_>>().join(", ")).collect();
    broken(format!("`{name}` has shape {found:?}, expected [{}]", told.join("] or [")))
}

/// The boxes of the whole of `input`, a volume for each channel.
pub(super) fn run(
    network: &mut Asked<'_>,
    window: &SlidingWindow,
    output: &BoxOutput,
    input: &[Volume<f32>],
) -> Result<Detected, InferError> {
    let grid = *input[0].grid();
    let (patches, all) = window::patches_of(window, input, network.contract.images, None);
    let mut found =
        Detected { grid, boxes: Vec::new(), left_out: LeftOut::default(), beyond: 0, patches: all, empty_patches: all - patches.len() };
    let ask = |lane: &mut Asked<'_>, _: &[Patch], seen: &[f32]| output.ask(lane, window, seen);
    window::for_each(network, window, &patches, input, ask, |patches, boxes| found.add(boxes, &patches[0], output))?;
    found.left_out.cut(&mut found.boxes, MOST_BOXES);
    Ok(found)
}

impl Detected {
    /// Adds the boxes of a patch, moved to the grid: those with their centre in it, to its outer faces.
    fn add(&mut self, mut boxes: Vec<ScoredBox>, patch: &Patch, output: &BoxOutput) {
        boxes.iter_mut().for_each(|one| *one = one.on_grid(patch));
        let before = boxes.len();
        boxes.retain(|one| self.grid.has(one.centre(), 0.0));
        self.beyond += before - boxes.len();
        let last = self.grid.dims().map(|n| f64::from(n) - 0.5);
        for one in &mut boxes {
            one.low = one.low.map(|at| at.max(-0.5));
            one.high = std::array::from_fn(|n| one.high[n].min(last[n]));
        }
        for channel in 0..output.min_scores.len() {
            let mut own: Vec<ScoredBox> = boxes.iter().copied().filter(|one| one.channel == channel).collect();
            self.left_out.cut(&mut own, output.max_per_patch);
            self.boxes.extend(own);
        }
        // Cut now and then, so that memory is bounded; what stays is the same as if it were cut once.
        if self.boxes.len() > 2 * MOST_BOXES {
            self.left_out.cut(&mut self.boxes, MOST_BOXES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Affine, Coded};

    fn output(columns: BoxColumns, min_scores: &[Option<f32>], labels: bool) -> BoxOutput {
        BoxOutput {
            scores: "scores".into(),
            boxes: "boxes".into(),
            labels: labels.then(|| "labels".into()),
            columns,
            shift: -0.5,
            kind: ScoreKind::Probabilities,
            min_scores: min_scores.to_vec(),
            max_per_patch: 3,
        }
    }

    const CORNERS: BoxColumns = BoxColumns::Corners([2, 1, 0], [5, 4, 3]);
    const ROWS: [f32; 12] = [0., 1., 2., 10., 11., 12., 0., 0., 0., 0., 0., 0.];

    #[test]
    fn columns_become_faces() {
        let found = output(CORNERS, &[Some(0.5)], false).boxes_of(&ROWS, &[0.5, 0.4], None).expect("boxes");
        let expected = ScoredBox { channel: 0, score: 0.5, low: [1.5, 0.5, -0.5], high: [11.5, 10.5, 9.5] };
        assert_eq!(found, [expected], "rows that only fill up are not looked at");
        let sized = output(BoxColumns::Sized([0, 1, 2], [3, 4, 5]), &[Some(0.5)], false);
        let found = sized.boxes_of(&ROWS, &[1.0, 0.0], None).expect("boxes");
        assert_eq!((found[0].low, found[0].high), ([-5.5, -5.0, -4.5], [4.5, 6.0, 7.5]));
        let points = output(BoxColumns::Point([2, 1, 0]), &[Some(0.5)], false);
        let found = points.boxes_of(&ROWS[..3], &[1.0], None).expect("a point");
        assert_eq!((found[0].low, found[0].high), ([1.5, 0.5, -0.5], [1.5, 0.5, -0.5]));
    }

    #[test]
    fn each_channel_has_its_score() {
        let of_columns = output(CORNERS, &[None, Some(0.5), Some(0.2)], false);
        let found = of_columns.boxes_of(&ROWS, &[0.9, 0.6, 0.3, 1.0, 0.0, 0.0], None).expect("boxes");
        assert_eq!(found.iter().map(|b| (b.channel, b.score)).collect::<Vec<_>>(), [(1, 0.6), (2, 0.3)]);
        let labelled = output(CORNERS, &[None, Some(0.5), Some(0.2)], true);
        let found = labelled.boxes_of(&ROWS, &[0.3, 0.9], Some(&[2, 0])).expect("boxes");
        assert_eq!(found.iter().map(|b| (b.channel, b.score)).collect::<Vec<_>>(), [(2, 0.3)]);
        let logits = BoxOutput { kind: ScoreKind::IndependentLogits, ..output(CORNERS, &[Some(0.5)], false) };
        let found = logits.boxes_of(&ROWS, &[2.0, -100.0], None).expect("boxes");
        assert!((found[0].score - 0.880_797).abs() < 1e-6, "scipy.special.expit(2): {}", found[0].score);
    }

    #[test]
    fn what_is_no_box_is_an_error() {
        let refused = |rows: &[f32], scores: &[f32], labels: Option<&[i64]>, code: &str, said: &str| {
            let output = output(CORNERS, &[Some(0.5)], labels.is_some());
            let error = output.boxes_of(rows, scores, labels).expect_err("it is refused");
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(said), "{error}");
        };
        refused(&[0., 1., 12., 10., 11., 2.], &[1.0], None, "infer.box", "box 0 of a patch: it runs from 12 to 2 along i");
        refused(&[0., 1., 2., 0., 11., 12.], &[1.0], None, "infer.box", "from 0 to 0 along k");
        refused(&[0., 1., f32::NAN, 10., 11., 12.], &[0.0], None, "infer.not-finite", "1 values");
        refused(&ROWS, &[0.1, f32::INFINITY], None, "infer.not-finite", "1 values");
        refused(&ROWS, &[0.1, 1.5], None, "infer.not-probability", "1.5");
        refused(&ROWS, &[-1.0, 0.5], None, "infer.not-probability", "-1");
        refused(
            &ROWS,
            &[0.1, 0.5],
            Some(&[0, 1]),
            "infer.box",
            "box 1 of a patch: its label is 1, and the manifest describes the channels 0 to 0",
        );
        refused(&ROWS, &[0.1, 0.5], Some(&[-1, 0]), "infer.box", "its label is -1");
    }

    #[test]
    fn boxes_are_moved_cut_and_bounded() {
        let grid = Grid::new([20, 20, 20], Affine::IDENTITY).expect("a grid");
        let mut found = Detected { grid, boxes: Vec::new(), left_out: LeftOut::default(), beyond: 0, patches: 1, empty_patches: 0 };
        let at = |low: f64, high: f64, score| ScoredBox { channel: 0, score, low: [low; 3], high: [high; 3] };
        let patch = Patch { start: [-4; 3], dims: [32; 3], mirror: [false; 3] };
        let boxes = vec![at(1.0, 9.0, 0.9), at(1.0, 3.0, 0.9), at(21.0, 25.0, 0.8), at(10.0, 12.0, 0.6), at(10.0, 13.0, 0.5)];
        found.add(boxes, &patch, &output(CORNERS, &[Some(0.5)], false));
        assert_eq!(found.beyond, 1, "its centre lies at -2");
        assert_eq!(found.left_out, LeftOut { count: 1, highest: 0.5 });
        assert_eq!(found.boxes, [at(-0.5, 5.0, 0.9), at(17.0, 19.5, 0.8), at(6.0, 8.0, 0.6)]);
    }
}
