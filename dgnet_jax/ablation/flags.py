"""The flags of `launch.py --mode=ablate`."""

from absl import flags

LOSSES = flags.DEFINE_list(
    "losses",
    ["all"],
    "--mode=ablate: names or expressions, separated by commas; all is the thesis's seven losses "
    "and five fusions.",
)
SEEDS = flags.DEFINE_list("seeds", ["0"], "--mode=ablate: seeds, such as 0,1,2.")
SHARD = flags.DEFINE_string(
    "shard", None, "--mode=ablate: i/n, the part of the study that this process runs; i from 0."
)
