"""Stores a data set as TFDS records (array_record), for pods and buckets; no TensorFlow is needed.

    python -m dgnet_jax.data.prepare market1501 /path/to/Market-1501-v15.09.15 DATA_DIR
    python launch.py --config=configs/market.py:l1 --config.data.root=DATA_DIR ...

A few large files take the place of thousands of small ones; the images' bytes and their order stay
the same, and so does every batch. For a bucket, copy DATA_DIR there and name that:
`gcloud storage cp -r DATA_DIR/market1501 gs://BUCKET/` and --config.data.root=gs://BUCKET.
"""

import argparse
import os
from pathlib import Path

from dgnet_jax.data.readers.datasets import READERS, check_name
from dgnet_jax.errors import DiskFullError, InputError, naming, one_line
from dgnet_jax.runtime.paths import user_path


def prepare(name: str, root: str | os.PathLike[str], data_dir: str | os.PathLike[str]) -> Path:
    """Writes the records of a data set; they appear complete or not at all.

    Args:
        name: a key of `datasets.READERS`.
        root: what its reader takes.
        data_dir: a folder, made if missing; the records go to data_dir/NAME/VERSION.

    Returns:
        The folder with the records.

    Raises:
        DiskFullError: there is no room.
        InputError: from the reader; a file cannot be read; `data_dir` is in a bucket; or it holds
            a data set of this name already.
    """
    check_name(name)
    if "://" in os.fspath(data_dir):
        raise InputError(
            f"{os.fspath(data_dir)}: array_record cannot write to a bucket. Prepare into a folder, "
            f"and copy it: gcloud storage cp -r FOLDER/{name} {os.fspath(data_dir).rstrip('/')}/"
        )
    # It takes a second and registers the builders: only for those who prepare.
    from dgnet_jax.data.records.tfds_builders import BUILDERS

    data_dir = user_path(data_dir).absolute()
    try:
        builder = BUILDERS[name](root=root, data_dir=str(data_dir), file_format="array_record")
        folder = Path(builder.data_path)
        if folder.exists():
            raise InputError(f"{folder}: exists already; remove it or choose another DATA_DIR")
        with naming(data_dir):
            builder.download_and_prepare()
    except DiskFullError:
        raise
    except OSError as error:
        raise InputError(f"{data_dir}: cannot be written ({error})") from error
    return folder


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m dgnet_jax.data.prepare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(READERS)}")
    parser.add_argument("root", metavar="ROOT", help="the data set, as data.root names it")
    parser.add_argument("data_dir", metavar="DATA_DIR", help="where to write; made if missing")
    arguments = parser.parse_args(argv)
    with one_line():
        folder = prepare(arguments.name, arguments.root, arguments.data_dir)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(
            f"{folder}: {size / 1e6:.1f} MB. Use it with --config.data.name={arguments.name} "
            f"--config.data.root={arguments.data_dir}"
        )


if __name__ == "__main__":
    main()
