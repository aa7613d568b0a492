"""Pools of threads are as large as the share of the machine that the process has."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from dgnet_jax.data import cache
from dgnet_jax.data import images as image_files
from dgnet_jax.data.splits import Split
from dgnet_jax.data.storage import FolderStorage
from dgnet_jax.evaluation import ranking, reranking
from dgnet_jax.runtime.threads import available_cpus

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system ties no process to CPUs"
)


def test_a_process_tied_to_one_cpu_has_one():
    one = min(os.sched_getaffinity(0))
    program = (
        "import os; from dgnet_jax.runtime.threads import available_cpus; "
        f"os.sched_setaffinity(0, [{one}]); print(available_cpus(), len(os.sched_getaffinity(0)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["1", "1"]


def test_it_does_not_count_the_machine_s(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert available_cpus() == 3


def test_without_affinity_it_is_the_machine_s_number(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert available_cpus() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1


def test_decoding_ranking_and_re_ranking_take_as_many_threads(monkeypatch, tmp_path):
    sizes = []

    class Recorded(ThreadPoolExecutor):
        def __init__(self, max_workers: int) -> None:
            sizes.append(max_workers)
            super().__init__(max_workers)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8})
    for module in (cache, image_files, ranking, reranking):
        monkeypatch.setattr(module, "ThreadPoolExecutor", Recorded)
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    one = np.ones(1, np.int32)
    cache.decode(Split("train", ("a.png",), one, one, FolderStorage(tmp_path)), 16, 8)
    assert sizes == [3]
    list(image_files.read_images([tmp_path / "a.png"], 16, 8, 1, lambda path, reason: None))
    assert sizes == [3] * 2
    features = np.eye(4, 8)
    people, cameras = np.arange(4), np.arange(4)
    ranking.evaluate_ranking(features, people, cameras, features, people, cameras + 1)
    assert sizes == [3] * 3
    list(reranking.KReciprocal(2, 1, 0.3).scores(features, features))
    assert sizes == [3] * 4
