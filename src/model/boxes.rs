//! `[output.boxes]`: a network that gives boxes or points with scores, in place of scores for each voxel.

use serde::{Deserialize, Serialize};

use super::inference::Blending;
use super::manifest::{Dtype, Finding, Layout, Manifest, PreprocessStep, ScoreKind, Task};
use super::select::Kind;
use super::{Inference, InstanceScore};
use crate::kernels::Interpolation;

/// Boxes of one patch that a package may ask for.
const MOST_PER_PATCH: u32 = 10_000;
/// Distance within which points may be one, mm.
const MOST_DISTANCE_MM: f64 = 100.0;

/// What the network says of each patch: N boxes or points, in the patch's voxels. Their scores are `output.tensor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boxes {
    /// Its name in the graph: [N, `columns`], float32.
    pub tensor: String,
    /// What each column of it is: both corners of a box, its centre and size, or a point.
    pub columns: Vec<Column>,
    /// Where coordinate 0 lies in the first voxel of a patch.
    pub zero: Zero,
    /// The tensor with the channel of each box, [N], int64; none: `output.tensor` has a column for each channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Non-maximum suppression: of boxes of one channel whose intersection over union is above this, that with the highest score stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_iou: Option<f64>,
    /// The same of points: of those of one channel that lie nearer to each other than this, mm, that with the highest score stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_distance_mm: Option<f64>,
    /// Most boxes of one patch and channel that are taken, those with the highest scores: 1 to 10 000.
    pub max_per_patch: u32,
}

/// What a column of the tensor of boxes is, along an axis of the network's grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "i, j and k are the axes of the grid; 1 and 2 the lower and the upper face, d the size")]
pub enum Column {
    I1,
    J1,
    K1,
    I2,
    J2,
    K2,
    I,
    J,
    K,
    Di,
    Dj,
    Dk,
}

/// Where coordinate 0 lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Zero {
    /// In the centre of the first voxel: voxel n has its centre at n.
    VoxelCentre,
    /// On its outer corner: voxel n has its centre at n + 0.5.
    VoxelCorner,
}

/// Which columns of the tensor make a box, each along i, j, k.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxColumns {
    /// Lower and upper faces.
    Corners([usize; 3], [usize; 3]),
    /// Centre, and size.
    Sized([usize; 3], [usize; 3]),
    /// A point.
    Point([usize; 3]),
}

/// Which of several answers are one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Suppression {
    /// Boxes whose intersection over union is above this.
    Iou(f64),
    /// Points nearer to each other than this, mm.
    DistanceMm(f64),
}

impl Boxes {
    /// What the columns make together; `None` where they make nothing, which no manifest that was checked has.
    pub fn box_columns(&self) -> Option<BoxColumns> {
        let at = |column: Column| self.columns.iter().position(|&other| other == column);
        let along = |[i, j, k]: [Column; 3]| Some([at(i)?, at(j)?, at(k)?]);
        let (corners, middle) = ([Column::I1, Column::J1, Column::K1], [Column::I, Column::J, Column::K]);
        match self.columns.len() {
            3 => along(middle).map(BoxColumns::Point),
            6 => {
                let of_corners = along(corners).zip(along([Column::I2, Column::J2, Column::K2]));
                let sized = along(middle).zip(along([Column::Di, Column::Dj, Column::Dk]));
                of_corners.map(|(low, high)| BoxColumns::Corners(low, high)).or(sized.map(|(at, size)| BoxColumns::Sized(at, size)))
            }
            _ => None,
        }
    }

    /// Which of several answers are one; `None` where the manifest does not say, which no manifest that was checked does.
    pub fn suppression(&self) -> Option<Suppression> {
        match self.box_columns()? {
            BoxColumns::Point(_) => self.min_distance_mm.map(Suppression::DistanceMm),
            BoxColumns::Corners(..) | BoxColumns::Sized(..) => self.max_iou.map(Suppression::Iou),
        }
    }

    fn check(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let columns = self.box_columns().ok_or(
            "`output.boxes.columns` are none of: i1, j1, k1, i2, j2, k2 (the lower and the upper faces); i, j, k, di, dj, dk (centre and size); \
             i, j, k (points), each once and in the tensor's order; boxes in a plane, of single images, are not read",
        )?;
        let iou = self.max_iou.is_none_or(|iou| (0.0..1.0).contains(&iou));
        require(iou, "`output.boxes.max_iou` is outside 0 to below 1: boxes that share more are one")?;
        let distance = self.min_distance_mm.is_none_or(|mm| mm > 0.0 && mm <= MOST_DISTANCE_MM);
        require(distance, "`output.boxes.min_distance_mm` is not above 0, to 100 mm: points that lie nearer to each other are one")?;
        let (given, wanted, other) = match columns {
            BoxColumns::Point(_) => (self.max_iou.is_some(), self.min_distance_mm.is_some(), "`min_distance_mm`, and no `max_iou`"),
            _ => (self.min_distance_mm.is_some(), self.max_iou.is_some(), "`max_iou`, and no `min_distance_mm`"),
        };
        require(wanted && !given, &format!("`output.boxes` with these `columns` takes {other}: which of them are one"))?;
        require((1..=MOST_PER_PATCH).contains(&self.max_per_patch), "`output.boxes.max_per_patch` is outside 1 to 10000")
    }
}

impl Manifest {
    /// What a package whose network gives boxes needs, and what it has no use for.
    pub(super) fn check_boxes(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let Some(boxes) = &self.output.boxes else { return Ok(()) };
        require(
            self.model.task == Task::Detection,
            "`output.boxes` is of packages of `task` \"detection\", and of their own network, not of a stage",
        )?;
        boxes.check()?;
        let names = [Some(&boxes.tensor), boxes.labels.as_ref(), Some(&self.output.tensor)];
        let named: Vec<&String> = names.into_iter().flatten().collect();
        let is_new = |n: usize| !named[..n].contains(&named[n]);
        require((0..named.len()).all(is_new), "`output.tensor`, `output.boxes.tensor` and `output.boxes.labels` name one tensor twice")?;
        require(
            matches!(self.output.scores, Some(ScoreKind::Probabilities | ScoreKind::IndependentLogits)),
            "`output.scores` of boxes is \"probabilities\" or \"independent-logits\": each box has scores of its own, and `logits` between \
             channels become probabilities in the graph",
        )?;
        require(self.output.interpolation == Interpolation::Linear, "`output.interpolation` is of scores of voxels: boxes have none")?;
        require(
            self.file.len() == 1,
            "several `file` are the folds of an ensemble, whose boxes are not brought together here: give one graph, or join them in it",
        )?;
        require(
            self.input.layout == Layout::Ncdhw && self.select.kind == Kind::Volume,
            "`output.boxes` is of networks that see volumes: `input.layout` \"NCDHW\", `select.kind` \"volume\"; those of slices and of single \
             images are not read",
        )?;
        require(self.output.dtype == Dtype::Float32, "`output.dtype` of boxes is \"float32\": half precision would move them by voxels")?;
        let resizes = self.preprocess.iter().any(|s| matches!(s, PreprocessStep::Resize { .. }));
        require(!resizes, "`resize` is of classifications: give `resample` with a spacing")?;
        let Inference::SlidingWindow(window) = &self.inference else {
            return Err("a network that gives boxes sees patches: give `[inference.sliding-window]`".to_owned());
        };
        require(
            window.blending == Blending::Constant,
            "`sliding-window.blending` of boxes is \"constant\": they are not averaged by weight",
        )?;
        require(
            window.mirror.is_empty(),
            "`sliding-window.mirror` is not for boxes: those of patches turned round would be found again, not averaged",
        )?;
        require(
            self.postprocess.is_empty(),
            "`postprocess` makes label maps, and boxes have none: `output.boxes` says what becomes of them",
        )?;
        require(self.map.is_empty(), "a [[map]] is of values of voxels: a network that gives boxes has none")?;
        self.check_explanation(window.patch)?;
        require(self.follow_up.is_none(), "`follow-up` is of objects with voxels: boxes are not followed")?;
        self.finding.iter().try_for_each(check_finding)
    }
}

fn check_finding(finding: &Finding) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("the finding `{}` {what}", finding.name));
    if finding.segment != 0 || !finding.measurements.is_empty() {
        return wrong("is one of boxes, which have no voxels: leave out `segment` and `measurements`; centre and extents are always there");
    }
    if finding.colour.is_none() {
        return wrong("has no `colour`, in which its boxes are drawn");
    }
    if finding.threshold.is_some() || finding.estimate.is_some() {
        return wrong("is one of boxes: `threshold` and `estimate` are of images as a whole, `instances.min_score` says which boxes count");
    }
    match &finding.instances {
        None => wrong("has no `instances`: nothing says from which score on a box is one"),
        Some(instances) if instances.min_score <= 0.0 => {
            wrong("has an `instances.min_score` of 0: rows that only fill up the tensor would be boxes")
        }
        Some(instances) if instances.score != InstanceScore::Box => wrong("has an `instances.score` of voxels: that of a box is \"box\""),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::geometry::Coded;
    use crate::model::ModelError;

    const MANIFEST: &str = r#"
        format = 1
        select = { modality = ["CT"] }
        input = { tensor = "image", dtype = "float32", layout = "NCDHW" }
        preprocess = [{ step = "clip", min = -1000, max = 1000 }]
        finding = [{ channel = 0, name = "nodule", colour = [250, 220, 40], category = { value = "49755003", scheme = "SCT", meaning = "A" },
            type = { value = "27925004", scheme = "SCT", meaning = "Nodule" },
            instances = { score = "box", min_score = 0.5, origin = "a test", max_count = 50 } }]
        file = [{ path = "a.onnx", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }]

        [model]
        name = "boxes"
        version = "1.0.0"
        task = "detection"
        manufacturer = "roentgen"
        licence = "MIT"
        intended_use = "Made up by a test."
        regulatory_status = "none"

        [inference.sliding-window]
        patch = [64, 64, 32]
        overlap = 0.25
        blending = "constant"
        convention = "monai"

        [output]
        tensor = "scores"
        scores = "probabilities"

        [output.boxes]
        tensor = "boxes"
        columns = ["k1", "j1", "i1", "k2", "j2", "i2"]
        zero = "voxel-centre"
        max_iou = 0.22
        max_per_patch = 100
    "#;

    fn with(changes: &[(&str, &str)]) -> Result<Manifest, ModelError> {
        let change = |text: String, (from, to): &(&str, &str)| {
            assert!(text.contains(from), "{from} is there to be changed");
            text.replacen(from, to, 1)
        };
        Manifest::parse(&changes.iter().fold(MANIFEST.to_owned(), change), Path::new("model.toml"))
    }

    const COLUMNS: &str = r#"["k1", "j1", "i1", "k2", "j2", "i2"]"#;

    #[test]
    fn columns_say_what_a_box_is() {
        let columns = |changes: &[(&str, &str)]| {
            let boxes = with(changes).expect("a manifest").output.boxes.expect("it has boxes");
            (boxes.box_columns().expect("checked"), boxes.suppression().expect("checked"))
        };
        assert_eq!(columns(&[]), (BoxColumns::Corners([2, 1, 0], [5, 4, 3]), Suppression::Iou(0.22)));
        // nnDetection: both faces of the first two axes, then those of the third.
        let interleaved = columns(&[(COLUMNS, r#"["k1", "j1", "k2", "j2", "i1", "i2"]"#)]);
        assert_eq!(interleaved.0, BoxColumns::Corners([4, 1, 0], [5, 3, 2]));
        let sized = columns(&[(COLUMNS, r#"["i", "j", "k", "di", "dj", "dk"]"#)]);
        assert_eq!(sized.0, BoxColumns::Sized([0, 1, 2], [3, 4, 5]));
        let points = columns(&[(COLUMNS, r#"["k", "j", "i"]"#), ("max_iou = 0.22", "min_distance_mm = 5")]);
        assert_eq!(points, (BoxColumns::Point([2, 1, 0]), Suppression::DistanceMm(5.0)));
        let manifest = with(&[("max_per_patch = 100", "max_per_patch = 100\nlabels = \"labels\"")]).expect("a manifest");
        assert_eq!((manifest.channels(), manifest.finding_named("nodule 50").map(|f| f.channel)), (1, Some(0)));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |from: &str, to: &str, said: &str| {
            let error = with(&[(from, to)]).expect_err("it is refused");
            assert_eq!(error.code(), "model.unsupported", "{to}: {error}");
            assert!(error.to_string().contains(said), "{to}: {error}");
        };
        for columns in
            [r#"["i1", "j1", "i2", "j2"]"#, r#"["i1", "j1", "k1", "i2", "j2", "i2"]"#, r#"["i", "j", "k", "i2", "j2", "k2"]"#, "[]"]
        {
            refused(COLUMNS, columns, "`output.boxes.columns` are none of");
        }
        refused(COLUMNS, r#"["i", "j", "k"]"#, "takes `min_distance_mm`, and no `max_iou`");
        refused("max_iou = 0.22", "", "takes `max_iou`, and no `min_distance_mm`");
        refused("max_iou = 0.22", "max_iou = 0.22\nmin_distance_mm = 1", "takes `max_iou`");
        for iou in ["1.0", "-0.1", "nan"] {
            refused("max_iou = 0.22", &format!("max_iou = {iou}"), "`output.boxes.max_iou` is outside");
        }
        refused("max_iou = 0.22", "max_iou = 0.1\nmin_distance_mm = 0", "min_distance_mm` is not above 0");
        refused("max_per_patch = 100", "max_per_patch = 0", "1 to 10000");
        refused("max_per_patch = 100", "max_per_patch = 100\nlabels = \"boxes\"", "name one tensor twice");
        refused("scores = \"probabilities\"", "scores = \"logits\"", "`output.scores` of boxes");
        refused("scores = \"probabilities\"", "", "`output.scores` of boxes");
        refused("scores = \"probabilities\"", "scores = \"probabilities\"\ninterpolation = \"nearest\"", "`output.interpolation`");
        refused("\"detection\"", "\"segmentation\"", "`task` \"detection\"");
        refused("\"detection\"", "\"classification\"", "`task` \"detection\"");
        refused("\"NCDHW\"", "\"NCHW\"", "those of slices and of single images are not read");
        refused("[\"CT\"]", "[\"DX\"], kind = \"image\"", "those of slices and of single images are not read");
        let file = "file = [{ path = \"a.onnx\"";
        let twice = format!("file = [{{ path = \"b.onnx\", sha256 = \"{}\" }}, {{ path = \"a.onnx\"", "0".repeat(64));
        refused(file, &twice, "folds of an ensemble");
        refused("blending = \"constant\"", "blending = \"gaussian\"", "not averaged by weight");
        refused("overlap = 0.25", "overlap = 0.25\nmirror = [\"i\"]", "`sliding-window.mirror` is not for boxes");
        refused(
            "clip\", min = -1000, max = 1000",
            "resize\", to = [8, 8, 8], interpolation = \"linear\"",
            "`resize` is of classifications",
        );
        refused("format = 1", "format = 1\npostprocess = [{ step = \"argmax\" }]", "boxes have none");
        refused("format = 1", "format = 1\nmap = [{ name = \"a\", of = \"probability\", finding = \"nodule\" }]", "a [[map]]");
        refused("format = 1", "format = 1\nfollow-up = { gate_mm = 5, min_correlation = 0.8, origin = \"a\" }", "boxes are not followed");
        refused("channel = 0", "channel = 0, segment = 1", "leave out `segment`");
        refused("channel = 0", "channel = 0, measurements = [\"volume\"]", "leave out `segment` and `measurements`");
        refused("channel = 0", "channel = 1", "name each channel of the output once");
        refused("colour = [250, 220, 40], ", "", "no `colour`");
        refused("channel = 0", "channel = 0, threshold = { at = 0.5, origin = \"a\" }", "`instances.min_score`");
        refused("min_score = 0.5", "min_score = 0.0", "`instances.min_score` of 0");
        refused("score = \"box\"", "score = \"mean-probability\"", "that of a box is \"box\"");
        let tiles = MANIFEST.replace("sliding-window", "tiles").replace("patch = [64", "tile = [64").replace("overlap = 0.25", "halo = 1");
        let tiles = tiles.replace("blending = \"constant\"\n", "").replace("convention = \"monai\"\n", "");
        let error = Manifest::parse(&tiles, Path::new("model.toml")).expect_err("it is refused");
        assert!(error.to_string().contains("`[inference.sliding-window]`"), "{error}");
    }
}
