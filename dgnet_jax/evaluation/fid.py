"""The Frechet distance of two sets of features, and the statistics that it needs.

FID (Heusel et al., NeurIPS 2017) is this distance between Inception features of real and of
generated images. All of it is float64 on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Real
from numpy.typing import ArrayLike

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.atomic import replacing
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import STATISTICS_BYTES, check_zip

_CHUNK = 1024


def frechet_distance(
    mean1: Real[np.ndarray, " dims"] | ArrayLike,
    cov1: Real[np.ndarray, "dims dims"] | ArrayLike,
    mean2: Real[np.ndarray, " dims"] | ArrayLike,
    cov2: Real[np.ndarray, "dims dims"] | ArrayLike,
) -> float:
    """|m1 - m2|^2 + trace(S1 + S2 - 2 (S1 S2)^(1/2)) of two normal distributions.

    With S = F F', the trace of (S1 S2)^(1/2) is the sum of the singular values of F1' F2. F keeps
    only eigenvectors whose eigenvalue is more than rounding noise, so that what is singular stays
    so: noise of 1e-16 would come out of the root as 1e-8, in each of up to 2048 directions.

    Args:
        cov1, cov2: symmetric, positive semidefinite; may be singular.

    Returns:
        The distance, 0 or above; the same, up to rounding, with both sides exchanged.

    Raises:
        InputError: shapes that do not fit, values that are not finite, or no covariance.
    """
    mean1, cov1 = _checked(mean1, cov1, "1")
    mean2, cov2 = _checked(mean2, cov2, "2")
    if mean1.shape != mean2.shape:
        raise InputError(
            f"mean1 and mean2: found {len(mean1)} and {len(mean2)} dims. Take both sides' features "
            "from the same layer of the same network."
        )
    product = _factor(cov1, "cov1").T @ _factor(cov2, "cov2")
    gram = product @ product.T if len(product) <= product.shape[1] else product.T @ product
    root = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum() if gram.size else 0.0
    difference = mean1 - mean2
    distance = difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * root
    return max(float(distance), 0.0)


def _checked(
    mean: ArrayLike, cov: ArrayLike, side: str
) -> tuple[Float64[np.ndarray, " dims"], Float64[np.ndarray, "dims dims"]]:
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.ndim != 1 or cov.shape != (mean.size, mean.size):
        raise InputError(
            f"mean{side}, cov{side}: found shapes {mean.shape} and {cov.shape}. Give (dims,) and "
            "(dims, dims)."
        )
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise InputError(f"mean{side}, cov{side}: they hold NaN or inf.")
    return mean, cov


def _factor(cov: Float64[np.ndarray, "dims dims"], name: str) -> Float64[np.ndarray, "dims rank"]:
    """F with F F' = cov."""
    values, vectors = np.linalg.eigh(cov)
    largest = np.abs(values).max(initial=0)
    if values.min(initial=0) < -1e-6 * largest:
        raise InputError(
            f"{name}: no covariance, since it has the negative eigenvalue {values.min():.3g}."
        )
    kept = values > largest * len(cov) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean and covariance of a set of features, which can be put together from parts.

    Attributes:
        count: samples; None where a file does not tell.
        mean: of the features.
        covariance: divided by count - 1; zeros for a single sample.
    """

    count: int | None
    mean: Float64[np.ndarray, " dims"]
    covariance: Float64[np.ndarray, "dims dims"]

    @classmethod
    def of(cls, features: Real[np.ndarray, "samples dims"] | ArrayLike) -> FeatureStatistics:
        """Those of a set of features.

        Raises:
            InputError: no samples, or values that are not finite.
        """
        array = np.asarray(features)
        if array.ndim != 2 or array.size == 0:
            raise InputError(f"features: found shape {array.shape}. Give (samples, dims).")
        bad = np.flatnonzero(~np.isfinite(array).all(1))
        if len(bad):
            raise InputError(
                f"features: {len(bad)} of {len(array)} samples hold NaN or inf, the first is "
                f"{bad[0]}. Check the network and its weights."
            )
        result = None
        for start in range(0, len(array), _CHUNK):
            rows = array[start : start + _CHUNK].astype(np.float64)
            mean = rows.mean(0)
            rows -= mean
            part = cls(len(rows), mean, rows.T @ rows / max(len(rows) - 1, 1))
            result = part if result is None else result.merge(part)
        assert result is not None
        return result

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Those of both sets together (Chan et al., 1979).

        Raises:
            InputError: a count is unknown, or the dims differ.
        """
        if self.count is None or other.count is None:
            raise InputError("statistics without a sample count cannot be merged")
        if self.dims != other.dims:
            raise InputError(f"statistics of {self.dims} and of {other.dims} dims do not merge")
        count = self.count + other.count
        difference = other.mean - self.mean
        scatter = (
            self.covariance * (self.count - 1)
            + other.covariance * (other.count - 1)
            + np.outer(difference, difference) * (self.count * other.count / count)
        )
        mean = self.mean + difference * (other.count / count)
        return FeatureStatistics(count, mean, scatter / (count - 1))

    @property
    def dims(self) -> int:
        """Values of a feature."""
        return len(self.mean)

    @property
    def singular(self) -> bool:
        """Whether there are too few samples, fewer than dims + 1, for a covariance of full rank."""
        return self.count is not None and self.count <= self.dims

    def distance(self, other: FeatureStatistics) -> float:
        """The Frechet distance to another set."""
        return frechet_distance(self.mean, self.covariance, other.mean, other.covariance)


class SavedFeatures(NamedTuple):
    """features: None where the file has none."""

    statistics: FeatureStatistics
    features: Float32[np.ndarray, "samples dims"] | None


def save_statistics(
    path: str | Path,
    statistics: FeatureStatistics,
    features: Float[np.ndarray, "samples dims"] | None = None,
) -> None:
    """Writes an .npz that pytorch-fid reads (`mu`, `sigma`), with `count` and maybe `features`."""
    arrays: dict[str, Any] = {"mu": statistics.mean, "sigma": statistics.covariance}
    if statistics.count is not None:
        arrays["count"] = np.asarray(statistics.count)
    if features is not None:
        arrays["features"] = features.astype(np.float32)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def load_statistics(path: str | Path) -> SavedFeatures:
    """Reads what `save_statistics` or pytorch-fid wrote.

    Raises:
        InputError: no such file, or not one of these.
    """
    path = user_path(path)
    try:
        check_zip(path, STATISTICS_BYTES)
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name]) for name in _ARRAYS if name in stored}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # of the zip, of NumPy's headers, of sizes that these make up
        raise InputError(f"{path}: not a readable .npz of arrays ({error})") from error
    if not {"mu", "sigma"} <= set(arrays):
        raise InputError(f"{path}: no `mu` and `sigma` in it, as pytorch-fid saves them")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise InputError(f"{path}: `{name}` holds {array.dtype} values, not real numbers")
    try:
        mean, covariance = _checked(arrays["mu"], arrays["sigma"], "")
        _refuse_no_covariance(covariance)
    except InputError as error:
        raise InputError(
            f"{path}: `mu` and `sigma` are not a mean and covariance: {error}"
        ) from error
    count = _count(arrays["count"], path) if "count" in arrays else None
    features = arrays.get("features")
    if features is not None:
        rows = len(features) if count is None and features.ndim else count
        if features.shape != (rows, len(mean)) or not np.isfinite(features).all():
            raise InputError(
                f"{path}: `features` of shape {features.shape}, or with NaN or inf in it, does not "
                f"go with {count} samples of {len(mean)} dims"
            )
    return SavedFeatures(FeatureStatistics(count, mean, covariance), features)


_ARRAYS = ("mu", "sigma", "count", "features")
# Of a covariance's two halves and of its inequality, relative to the largest value: the rounding of
# float32 sums.
_ROUNDING = 1e-5


def _refuse_no_covariance(cov: Float64[np.ndarray, "dims dims"]) -> None:
    """Raises InputError for what can be told without eigenvalues, which take seconds."""
    noise = _ROUNDING * np.abs(cov).max(initial=0)
    if not np.allclose(cov, cov.T, rtol=0, atol=noise):
        raise InputError("the covariance is not symmetric")
    variances = cov.diagonal()
    bound = np.sqrt(np.outer(variances.clip(0), variances.clip(0)))
    if (variances < -noise).any() or (np.abs(cov) > bound + noise).any():
        raise InputError("a covariance is larger than its two variances allow")


def _count(array: np.ndarray, path: Path) -> int:
    if array.size != 1 or not array.item() >= 1 or array.item() != int(array.item()):
        raise InputError(
            f"{path}: `count` is {np.array2string(array, threshold=4)}, not a number of samples"
        )
    return int(array.item())
