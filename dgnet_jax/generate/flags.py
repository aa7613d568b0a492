"""The flags of `launch.py --mode=generate`."""

from absl import flags

TASK = flags.DEFINE_string(
    "task", None, "--mode=generate: what to make: swap, interpolate, pairs or dataset."
)
APPEARANCE = flags.DEFINE_multi_string(
    "appearance",
    [],
    "swap, interpolate, pairs: an image or a folder of images that give their appearance; may come "
    "several times. Default: a seeded choice of the training images.",
)
STRUCTURE = flags.DEFINE_multi_string(
    "structure",
    [],
    "swap, interpolate, pairs: images that give their structure; default those of --appearance.",
)
SEED = flags.DEFINE_integer(
    "seed", 0, "--mode=generate: of every random choice of sources.", lower_bound=0
)
COUNT = flags.DEFINE_integer(
    "count",
    None,
    "swap: how many training images to choose (default 8); dataset: training images in total "
    "(default one for each real one, as for the FID).",
    lower_bound=1,
)
PER_IDENTITY = flags.DEFINE_integer(
    "per_identity", None, "dataset: training images of each identity, instead of --count."
)
TEST_PER_IDENTITY = flags.DEFINE_integer(
    "test_per_identity",
    2,
    "dataset: query and gallery images of each person of the real queries; 0 for training only.",
    lower_bound=0,
)
SOFT_LABELS = flags.DEFINE_bool("soft_labels", True, "dataset: write the teacher's soft labels.")
QUALITY = flags.DEFINE_integer(
    "quality", 75, "dataset: of the JPEGs; 75 is the FID protocol's.", lower_bound=1, upper_bound=95
)
FRAMES = flags.DEFINE_integer("frames", 9, "interpolate: pictures of a strip.", lower_bound=2)
ANIMATION = flags.DEFINE_enum(
    "animation", "gif", ["gif", "webp"], "interpolate: form of the animations."
)
