"""One builder a reader. TFDS makes its name of the class's: Cuhk03Detected is cuhk03_detected."""

from dgnet_jax.data.records.tfds_builders.reid import ReidBuilder


class Market1501(ReidBuilder):
    """Market-1501 (Zheng et al., ICCV 2015)."""


class Duke(ReidBuilder):
    """DukeMTMC-reID (Zheng et al., ICCV 2017)."""


class Msmt17(ReidBuilder):
    """MSMT17 (Wei et al., CVPR 2018); identities are those of its lists plus 1."""


class Cuhk03Detected(ReidBuilder):
    """CUHK03-NP, detected boxes (Li et al., CVPR 2014; Zhong et al., CVPR 2017)."""


class Cuhk03Labeled(ReidBuilder):
    """CUHK03-NP, boxes drawn by hand (Li et al., CVPR 2014; Zhong et al., CVPR 2017)."""


class Folder(ReidBuilder):
    """One's own images in folders in Market-1501's form."""


class Csv(ReidBuilder):
    """One's own images, listed in a table."""
