"""PyTorch's files: read without executing anything in them, and written. Needs torch."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.reading import WEIGHTS_BYTES, NotRegularError, check_regular, check_zip

# What people wrap a state dict in; the released program saves {"a": state dict}, PyTorch's ImageNet
# example {"state_dict": ..., "optimizer": ..., "best_acc1": a tensor, ...}.
_WRAPPERS = ("a", "state_dict", "model", "model_state_dict")
# Of DataParallel and of torch.compile.
_PREFIX = re.compile(r"^((module|_orig_mod)\.)+")


def import_torch() -> ModuleType:
    """PyTorch, which is no requirement of the package itself.

    Raises:
        InputError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "PyTorch's files need PyTorch: pip install -r requirements-convert.txt, or torch"
        ) from error
    return torch


def read_pth(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict file, read without executing anything in it.

    A state dict inside {"a": ...} (the released program's form) or another of `_WRAPPERS` is taken
    out, whatever else is beside it, and "module." and "_orig_mod." before the keys are removed.
    Floating-point tensors become float32.

    Raises:
        InputError: PyTorch is missing, or the file is damaged or not a plain state dict of tensors.
    """
    torch = import_torch()
    try:
        _check_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except NotRegularError as error:
        raise InputError(f"{path}: {error}") from error
    except InputError:
        raise
    except Exception as error:  # unpickling, zip and end-of-file errors of many kinds
        raise InputError(
            f"{path}: not a PyTorch state dict that can be read without executing code in it "
            f"({_reason(error)}). Is the file complete? Whoever made it can save "
            "model.state_dict() with torch.save"
        ) from error
    tensors = _unwrapped(content, torch, str(path))
    if not tensors or not all(
        isinstance(key, str) and isinstance(tensor, torch.Tensor) for key, tensor in tensors.items()
    ):
        raise InputError(
            f"{path}: expected a state dict (names to tensors), found {_description(content)}; "
            "save model.state_dict() instead of the model"
        )
    arrays: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        name = _PREFIX.sub("", key)
        if name in arrays:
            raise InputError(
                f"{path}: two tensors are {name} without their prefixes, such as {key}"
            )
        arrays[name] = _to_numpy(tensor, torch, f"{path}: {key}")
    return arrays


def _check_file(path: str | Path) -> None:
    """Looks at a file before torch does, which does not compare a zip's checksums.

    Raises:
        InputError: a member of the zip is damaged.
        NotRegularError, FileNotFoundError and other kinds: it cannot be read.
    """
    check_regular(path, WEIGHTS_BYTES)
    if not zipfile.is_zipfile(path):  # of before PyTorch 1.6
        return
    try:
        check_zip(path, WEIGHTS_BYTES)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path}: {error}: the file is damaged; copy it again (or it was saved after "
            "torch.serialization.set_crc32_options(False), and has to be saved again without)"
        ) from error


def save_pth(content: Mapping[str, Any], path: str | Path) -> None:
    """torch.save of nested dicts whose leaves are NumPy arrays, as tensors."""
    torch = import_torch()

    def tensors(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {key: tensors(value) for key, value in node.items()}
        return torch.from_numpy(np.array(node))

    # Through a file object: the archive would otherwise carry the temporary file's name.
    with Path(path).open("wb") as file:
        torch.save(tensors(content), file)


def _unwrapped(content: Any, torch: ModuleType, source: str) -> Mapping[Any, Any]:
    """The state dict in `content`; empty if there is none."""
    if not isinstance(content, Mapping):
        return {}
    inside = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
    if len(inside) > 1:
        raise InputError(
            f"{source}: {' and '.join(map(repr, inside))} in it may both be the state dict; save "
            "one of them alone"
        )
    return content[inside[0]] if inside else content


def _to_numpy(tensor: Any, torch: ModuleType, name: str) -> np.ndarray:
    try:
        # An expanded tensor of a few bytes may claim any size.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError("more values than the file holds")
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float32)
        elif tensor.is_complex():
            raise ValueError("complex numbers")
        return tensor.detach().numpy()
    except (RuntimeError, TypeError, ValueError) as error:  # torch's kinds for such a tensor
        raise InputError(f"{name}: not an ordinary tensor ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__


def _description(content: Any) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    entries = [f"{key!r}: {type(value).__name__}" for key, value in list(content.items())[:3]]
    return f"a dictionary of {', '.join(entries) or 'nothing'}"
