"""Writes the results, tables and report page of a study or search from the runs that are over.

python -m dgnet_jax.ablation runs/study
"""

import argparse

from absl import logging

from dgnet_jax.errors import one_line


def main(arguments: list[str] | None = None) -> None:
    """The command; `arguments` default to those of the process."""
    parser = argparse.ArgumentParser(prog="python -m dgnet_jax.ablation", description=__doc__)
    parser.add_argument("workdir", help="of --mode=ablate or search")
    workdir = parser.parse_args(arguments).workdir
    # Imported late: --help does not wait for the training code.
    from dgnet_jax.ablation.search.outcome import search_text
    from dgnet_jax.ablation.study import Study

    with one_line():
        study = Study.load(workdir)
        page = study.report()
        parts = [study.text(), search_text(study.workdir), f"wrote {page}"]
        print("\n\n".join(filter(None, parts)))


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    main()
