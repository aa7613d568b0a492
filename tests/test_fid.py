"""The Frechet distance against closed forms, SciPy and pytorch-fid's files and numbers."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.fid import (
    FeatureStatistics,
    frechet_distance,
    load_statistics,
    save_statistics,
)


def covariance(dims: int, samples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.cov(rng.standard_normal((samples, dims)) @ np.diag(rng.random(dims)), rowvar=False)


def test_one_dimension() -> None:
    # (m1 - m2)^2 + (s1 - s2)^2 with standard deviations 3 and 0.5.
    assert frechet_distance([1.0], [[9.0]], [-2.0], [[0.25]]) == pytest.approx(9 + 6.25, rel=1e-14)
    assert frechet_distance([0.0], [[0.0]], [0.0], [[4.0]]) == pytest.approx(4, rel=1e-14)


def test_commuting_covariances() -> None:
    """In one eigenbasis each axis is a one-dimensional problem."""
    rng = np.random.default_rng(0)
    basis = scipy.linalg.qr(rng.standard_normal((40, 40)))[0]
    first, second = rng.random((2, 40)) ** 4
    mean1, mean2 = rng.standard_normal((2, 40))
    expected = np.sum((mean1 - mean2) ** 2) + np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    found = frechet_distance(mean1, basis * first @ basis.T, mean2, basis * second @ basis.T)
    assert found == pytest.approx(expected, rel=1e-10)


def test_scipy_agrees_where_it_is_reliable() -> None:
    first, second = covariance(30, 500, 1), covariance(30, 500, 2)
    mean1, mean2 = np.random.default_rng(3).standard_normal((2, 30))
    root = np.real(scipy.linalg.sqrtm(first @ second))
    expected = np.sum((mean1 - mean2) ** 2) + np.trace(first + second - 2 * root)
    assert frechet_distance(mean1, first, mean2, second) == pytest.approx(expected, rel=1e-10)


def test_symmetric() -> None:
    first, second = covariance(20, 100, 1), covariance(20, 8, 2)
    one = frechet_distance(np.ones(20), first, np.zeros(20), second)
    assert one == pytest.approx(
        frechet_distance(np.zeros(20), second, np.ones(20), first), rel=1e-12
    )


@pytest.mark.parametrize("samples", [200, 50, 5, 2])
def test_equal_covariances_leave_the_means(samples: int) -> None:
    same = covariance(64, samples, 1)
    assert frechet_distance(np.zeros(64), same, np.zeros(64), same) < 1e-11 * np.trace(same)
    shifted = frechet_distance(np.zeros(64), same, np.full(64, 0.5), same)
    assert shifted == pytest.approx(16, rel=1e-11)


def test_singular_covariances() -> None:
    """From 50 samples in 300 dims: the nuclear norm of the product of the centred samples."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, 301) ** -1.0
    first, second = rng.standard_normal((2, 50, 300)) * scale
    centred = [x - x.mean(0) for x in (first, second)]
    root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum() / 49
    expected = (
        np.sum((first.mean(0) - second.mean(0)) ** 2)
        + sum(np.sum(x**2) for x in centred) / 49
        - 2 * root
    )
    found = FeatureStatistics.of(first).distance(FeatureStatistics.of(second))
    assert found == pytest.approx(expected, rel=1e-9)


def test_orthogonal_supports_share_nothing() -> None:
    first, second = np.diag([4.0, 0, 0]), np.diag([0, 0, 9.0])
    assert frechet_distance(np.zeros(3), first, np.zeros(3), second) == pytest.approx(13)
    zero = np.zeros((3, 3))
    assert frechet_distance(np.ones(3), zero, np.zeros(3), zero) == pytest.approx(3)


def test_never_negative() -> None:
    for seed in range(20):
        same = covariance(16, 10, seed) * 10.0 ** (seed - 10)
        assert frechet_distance(np.zeros(16), same, np.zeros(16), same * (1 + 1e-15)) >= 0


def test_what_is_no_distribution_is_refused() -> None:
    eye = np.eye(2)
    with pytest.raises(InputError, match="found 2 and 3 dims"):
        frechet_distance(np.zeros(2), eye, np.zeros(3), np.eye(3))
    with pytest.raises(InputError, match=r"mean2, cov2: found shapes \(2,\) and \(3, 3\)"):
        frechet_distance(np.zeros(2), eye, np.zeros(2), np.eye(3))
    with pytest.raises(InputError, match="NaN"):
        frechet_distance([0, np.nan], eye, np.zeros(2), eye)
    with pytest.raises(InputError, match="cov2: no covariance.*negative eigenvalue -1"):
        frechet_distance(np.zeros(2), eye, np.zeros(2), np.diag([1.0, -1.0]))


def test_statistics_are_numpys_in_any_parts() -> None:
    # Far from 0, where a sum of squares in float32 would lose the covariance.
    features = (1000 + np.random.default_rng(0).standard_normal((2500, 7))).astype(np.float32)
    wide = features.astype(np.float64)
    whole = FeatureStatistics.of(features)
    parts = FeatureStatistics.of(features[:1])
    for start, stop in ((1, 2), (2, 700), (700, 2500)):
        parts = parts.merge(FeatureStatistics.of(features[start:stop]))
    for found in (whole, parts):
        assert found.count == 2500
        np.testing.assert_allclose(found.mean, wide.mean(0), rtol=1e-13)
        np.testing.assert_allclose(found.covariance, np.cov(wide, rowvar=False), atol=1e-12)


def test_fewer_than_dims_plus_one_samples_are_singular() -> None:
    features = np.random.default_rng(0).standard_normal((9, 8))
    assert FeatureStatistics.of(features[:8]).singular
    assert np.linalg.matrix_rank(np.cov(features[:8], rowvar=False)) == 7
    assert not FeatureStatistics.of(features).singular
    assert np.linalg.matrix_rank(np.cov(features, rowvar=False)) == 8


def test_features_must_be_finite() -> None:
    features = np.ones((3, 2))
    features[1, 0] = np.inf
    with pytest.raises(InputError, match="1 of 3 samples hold NaN or inf, the first is 1"):
        FeatureStatistics.of(features)
    with pytest.raises(InputError, match="found shape"):
        FeatureStatistics.of(np.ones((0, 4)))


def test_files_go_to_pytorch_fid_and_come_from_it(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    statistics = FeatureStatistics.of(features)
    save_statistics(tmp_path / "mine.npz", statistics, features)
    with np.load(tmp_path / "mine.npz") as stored:  # as pytorch-fid reads it
        np.testing.assert_array_equal(stored["mu"][:], features.astype(np.float64).mean(0))
        np.testing.assert_allclose(stored["sigma"][:], np.cov(features, rowvar=False), rtol=1e-6)
    found = load_statistics(tmp_path / "mine.npz")
    assert found.statistics.count == 20
    assert found.statistics.distance(statistics) < 1e-12
    assert found.features is not None
    np.testing.assert_array_equal(found.features, features)

    np.savez_compressed(tmp_path / "theirs.npz", mu=np.zeros(3), sigma=np.eye(3))
    theirs = load_statistics(tmp_path / "theirs.npz")
    assert theirs.statistics.count is None and theirs.features is None
    assert not theirs.statistics.singular
    with pytest.raises(InputError, match="without a sample count"):
        theirs.statistics.merge(statistics)


MU, SIGMA = np.zeros(3), np.eye(3)


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"count": "many"}, "`count` holds <U4 values"),
        ({"count": np.nan}, "`count` is nan, not a number of samples"),
        ({"count": 0}, "`count` is 0, not"),
        ({"count": -5}, "`count` is -5, not"),
        ({"count": 2.5}, "`count` is 2.5, not"),
        ({"count": [4, 4]}, r"`count` is \[4 4\], not"),
        ({"mu": MU + 1j}, "`mu` holds complex128 values"),
        ({"sigma": SIGMA + 0j}, "`sigma` holds complex128 values"),
        ({"mu": MU.astype(str)}, "`mu` holds <U32 values"),
        ({"mu": MU > 0}, "`mu` holds bool values"),
        ({"mu": [np.nan] * 3}, "NaN or inf"),
        ({"sigma": SIGMA + np.eye(3, k=1) / 2}, "not symmetric"),
        ({"sigma": -SIGMA}, "larger than its two variances allow"),
        ({"sigma": SIGMA * 0.1 + 0.5 - 0.5 * np.eye(3)}, "larger than its two variances"),
        ({"sigma": np.eye(2)}, "found shapes"),
        ({"features": np.zeros((4, 2), np.float32)}, r"`features` of shape \(4, 2\)"),
        ({"features": np.zeros((5, 3), np.float32), "count": 4}, "does not go with 4 samples"),
        ({"features": np.full((4, 3), np.nan, np.float32)}, "NaN or inf"),
        ({"features": np.float32(3)}, "`features` of shape"),
    ],
)
def test_statistics_that_are_none_are_refused_by_name(tmp_path: Path, arrays, found) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **({"mu": MU, "sigma": SIGMA} | arrays))
    with pytest.raises(InputError, match=rf"a\.npz: .*{found}"):
        load_statistics(path)


def test_float32_sums_are_a_covariance(tmp_path: Path) -> None:
    """NumPy's float32 covariances are symmetric and within their bounds but for rounding."""
    features = np.random.default_rng(0).normal(3, 2, (500, 64)).astype(np.float32)
    statistics = FeatureStatistics.of(features)
    sigma = statistics.covariance.astype(np.float32)
    sigma += np.random.default_rng(1).uniform(-1e-6, 1e-6, sigma.shape).astype(np.float32)
    np.savez(tmp_path / "a.npz", mu=statistics.mean.astype(np.float32), sigma=sigma, count=500.0)
    assert load_statistics(tmp_path / "a.npz").statistics.count == 500


def test_a_changed_byte_in_statistics_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, mu=MU, sigma=SIGMA)
    data = bytearray(path.read_bytes())
    data[data.index(np.float64(1).tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.npz: not a readable \.npz"):
        load_statistics(path)


def test_statistics_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mu.npy", b"")
        archive.writestr("sigma.npy", b"")
    data = path.read_bytes()
    # The size that the directory gives, at byte 24 of an entry.
    entry = data.rindex(b"PK\x01\x02")
    huge = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(data[: entry + 24] + huge + data[entry + 28 :])
    with pytest.raises(InputError, match="4,294,967,294 bytes when unpacked"):
        load_statistics(path)


def test_unusable_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.npz: no such file"):
        load_statistics(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not arrays")
    with pytest.raises(InputError, match=r"text\.npz: not a readable \.npz"):
        load_statistics(tmp_path / "text.npz")
    save_statistics(tmp_path / "whole.npz", FeatureStatistics.of(np.random.rand(9, 8)))
    half = (tmp_path / "whole.npz").read_bytes()[:-100]
    (tmp_path / "half.npz").write_bytes(half)
    with pytest.raises(InputError, match=r"half\.npz: not a readable \.npz"):
        load_statistics(tmp_path / "half.npz")
    np.savez(tmp_path / "other.npz", features=np.zeros(3))
    with pytest.raises(InputError, match="no `mu` and `sigma`"):
        load_statistics(tmp_path / "other.npz")
    np.savez(tmp_path / "odd.npz", mu=np.zeros(3), sigma=np.zeros(3))
    with pytest.raises(InputError, match="are not a mean and covariance"):
        load_statistics(tmp_path / "odd.npz")
