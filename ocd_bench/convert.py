"""Converts users' data (arrays, data frames, lists, map-style datasets) to tensors, or raises an error that says what to do.

Nothing is guessed: text, dates, missing dimensions and samples with different shapes are refused. The message says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

PACK = "pack them into one tensor with ocd_bench.Layout (docs/plugins.md, 'Several inputs, sequences, several outputs')"
PAD = f"pad them to one length and keep the mask as a second input; {PACK}"
NUMBERS = "biuf"
"""Kinds of NumPy types that are numbers."""
KINDS = {"U": "text", "S": "bytes", "M": "dates", "m": "durations", "V": "records"}
"""Kinds of NumPy types that are not numbers."""


def parts_of(split: Any, name: str) -> tuple[Any, ...]:
    """Inputs, targets and, if given, groups of a split.

    A split is a tuple of them, a ``TensorDataset`` of two tensors, or another map-style dataset of pairs.

    Args:
        name: of the split, for messages.

    Raises:
        TypeError: if it is not one of these.
        ValueError: if its samples are not pairs.
    """
    if isinstance(split, tuple | list):
        if len(split) in (2, 3):
            return tuple(split)
        cure = ""
        if split and isinstance(split[0], tuple | list) and len(split[0]) == 2:
            cure = ": of a list of (input, target) pairs make tuple(zip(*pairs))"
        elif len(split) > 3:
            cure = f"; several inputs: {PACK}"
        raise ValueError(f"{name}: expected a pair (inputs, targets), got a {type(split).__name__} of {len(split)}{cure}")
    what = f"{name}: a {type(split).__name__}"
    if isinstance(split, str | bytes):
        raise TypeError(f"{what}: {_EXPECTED}")
    if isinstance(split, Mapping):
        raise TypeError(f"{what} with {_some(split)}: give a pair, (split['inputs'], split['targets'])")
    if _is_frame(split):
        raise TypeError(f"{what}: say which columns are targets: (frame[['a', 'b']], frame['target'])")
    if _is_array(split):
        raise TypeError(f"{what} of shape {tuple(split.shape)}: expected a pair (inputs, targets)")
    if hasattr(split, "batch_sampler") and hasattr(split, "dataset"):
        raise TypeError(f"{what} gives batches, in an order of its own: give its dataset, loader.dataset")
    tensors = getattr(split, "tensors", None)  # of a torch.utils.data.TensorDataset
    if isinstance(tensors, tuple) and all(map(_is_array, tensors)):
        if len(tensors) != 2:
            raise ValueError(f"{what} of {len(tensors)} tensors: expected two, inputs and targets; {PACK}")
        return tensors
    if not hasattr(split, "__getitem__") or not hasattr(split, "__len__"):
        cure = "read it into a list of pairs first: pairs = list(dataset); tuple(zip(*pairs))"
        raise TypeError(f"{what} has no length or no index: {cure}" if isinstance(split, Iterable) else f"{what}: {_EXPECTED}")
    return _pairs_of(split, what)


_EXPECTED = "expected ocd_bench.Samples, a pair (inputs, targets) or a map-style dataset"


def _pairs_of(dataset: Any, what: str) -> tuple[list[Any], list[Any]]:
    """Inputs and targets of every sample of a map-style dataset, in its order."""
    inputs, targets = [], []
    for index in range(len(dataset)):
        sample = dataset[index]
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            found = f"{len(sample)} values" if isinstance(sample, tuple | list) else f"a {type(sample).__name__}"
            if isinstance(sample, Mapping):
                found += f" with {_some(sample)}"
            raise ValueError(f"{what}: sample {index} is {found}, expected a pair: let it return (input, target)")
        inputs.append(sample[0])
        targets.append(sample[1])
    return inputs, targets


def of_several(value: Any) -> str:
    """What to add to a message about sizes if ``value`` may be meant as several inputs; else nothing."""
    tensors = isinstance(value, tuple | list) and 0 < len(value) < 10 and all(map(_is_array, value))
    return f"; a {type(value).__name__} of tensors has one sample in each: of several inputs, {PACK}" if tensors else ""


def as_tensor(value: Any, name: str) -> torch.Tensor:
    """A tensor of numbers ``(N, ...)``. 64-bit floating numbers that are no tensor become torch's default type.

    Args:
        value: tensor; NumPy array; data frame or series of pandas; table of pyarrow; list or tuple of numbers, or of tensors,
            arrays or pictures of one shape.
        name: ``inputs`` or ``targets``, for messages.

    Raises:
        TypeError: if it does not hold numbers.
        ValueError: if samples differ in shape, or a number is too large.
    """
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_nested:
            raise TypeError(f"{name}: a nested tensor: {PAD}")
        return value
    if isinstance(value, Mapping):
        raise TypeError(f"{name}: a {type(value).__name__} with {_some(value)}: {PACK}")
    if type(value).__name__ == "PackedSequence":
        raise TypeError(f"{name}: a PackedSequence: {PAD}")
    if isinstance(value, str | bytes | set | frozenset) or (not hasattr(value, "__len__") and isinstance(value, Iterable)):
        raise TypeError(f"{name}: a {type(value).__name__}, expected numbers: a tensor, an array, a data frame or a list")
    if hasattr(value, "toarray"):
        raise TypeError(f"{name}: a sparse {type(value).__name__}: give its toarray()")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{name}: an array with {int(np.ma.count_masked(value))} masked values: fill or drop them")
    if _is_frame(value):
        return _of_array(_frame_array(value, name), name)
    if isinstance(value, tuple | list) and value:
        if any(isinstance(item, torch.Tensor) for item in value):
            return _stacked([as_tensor(item, f"{name}[{place}]") for place, item in enumerate(value)], name)
        if hasattr(value[0], "__array__") or hasattr(value[0], "__array_interface__"):
            return _stacked([_of_array(np.asarray(item), f"{name}[{place}]") for place, item in enumerate(value)], name)
        if isinstance(value[0], Mapping):
            raise TypeError(f"{name}: sample 0 is a {type(value[0]).__name__} with {_some(value[0])}: {PACK}")
    try:
        array = np.asarray(value)
    except ValueError as error:  # "inhomogeneous shape"
        raise ValueError(f"{name}: samples differ in length: {PAD}") from error
    return _of_array(array, name)


def _of_array(array: np.ndarray, name: str) -> torch.Tensor:
    import torch

    if array.dtype.kind == "O":
        array = _from_objects(array, name)
    if array.dtype.kind not in NUMBERS and array.dtype.kind != "c":
        kind = {"U": "text", "S": "bytes", "M": "dates", "m": "durations", "V": "records"}.get(
            array.dtype.kind, str(array.dtype)
        )
        example = f", such as {str(array.reshape(-1)[0])[:30]!r}" if array.size else ""
        raise TypeError(f"{name}: {kind}{example}, expected numbers: encode them, for example classes as 0, 1, 2")
    if array.dtype == np.float64 or array.dtype == np.longdouble:
        with np.errstate(over="ignore"):
            narrow = array.astype(str(torch.get_default_dtype()).removeprefix("torch."))
        lost = np.isfinite(array) & ~np.isfinite(narrow)
        if lost.any():
            raise ValueError(f"{name}: {array[lost].flat[0]:.6g} is too large for {narrow.dtype}: scale it")
        array = narrow
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(np.asarray(array, order="K")) if array.ndim else torch.tensor(array.item())


def _from_objects(array: np.ndarray, name: str) -> np.ndarray:
    """An array of Python objects as one of numbers, if all of them are plain numbers."""
    flat = array.reshape(-1)
    for place, item in enumerate(flat):
        if item is None:
            raise TypeError(f"{name}: element {place} is None: fill or drop missing values")
        if isinstance(item, str | bytes | Mapping) or not isinstance(item, bool | int | float | np.number | np.bool_):
            if hasattr(item, "shape") or isinstance(item, list | tuple):
                raise ValueError(f"{name}: samples differ in shape: {PAD}")
            raise TypeError(
                f"{name}: element {place} is {str(item)[:30]!r} ({type(item).__name__}), expected numbers: encode them"
            )
    return np.array(flat.tolist()).reshape(array.shape)


def _stacked(tensors: Sequence[torch.Tensor], name: str) -> torch.Tensor:
    import torch

    first = tensors[0]
    for place, tensor in enumerate(tensors):
        if tensor.shape != first.shape:
            shapes = f"{tuple(first.shape)} and sample {place} {tuple(tensor.shape)}"
            raise ValueError(f"{name}: sample 0 has shape {shapes}: give all one shape; of sequences, {PAD}")
        if tensor.dtype != first.dtype:
            raise ValueError(f"{name}: sample 0 is {first.dtype} and sample {place} {tensor.dtype}: give all one type")
    return torch.stack(list(tensors))


# -- data frames ----------------------------------------------------------------------------------------------------------
def _is_frame(value: Any) -> bool:
    """Whether it is a data frame or series of pandas, or a table of pyarrow; none of them is imported for it."""
    top = type(value).__module__.partition(".")[0]
    return top in ("pandas", "pyarrow") and (hasattr(value, "columns") or hasattr(value, "to_numpy"))


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _frame_array(frame: Any, name: str) -> np.ndarray:
    """``(N, columns)`` of a frame, ``(N,)`` of a series."""
    if not hasattr(frame, "columns"):
        return _column(frame, name)
    names = list(frame.column_names if hasattr(frame, "column_names") else frame.columns)
    twice = next((column for column in names if names.count(column) > 1), None)
    if twice is not None:
        raise ValueError(f"{name}: column {twice!r} is there twice: rename or drop one")
    if not names:
        raise ValueError(f"{name}: a data frame without columns")
    return np.stack([_column(frame[column], f"{name}: column {str(column)!r}") for column in names], 1)


def _column(column: Any, name: str) -> np.ndarray:
    missing = getattr(column, "isnull", None) or getattr(column, "is_null", None)
    count = int(np.asarray(missing()).sum()) if missing else 0
    array = np.asarray(column.to_numpy())
    if count and array.dtype.kind not in "f":
        raise ValueError(f"{name} has {count} missing values: fill or drop them")
    if array.dtype.kind == "O":
        array = _from_objects(array, name)
    if array.dtype.kind not in NUMBERS:
        raise TypeError(f"{name} holds {KINDS.get(array.dtype.kind, str(array.dtype))}: encode it as numbers, or leave it out")
    return array


def _some(mapping: Mapping[Any, Any]) -> str:
    keys = [repr(key) for key in mapping]
    return ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
