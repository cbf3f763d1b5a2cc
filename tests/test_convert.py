"""Samples and splits from what people have: the right tensors, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from ocd_bench import Layout, Samples, Splits

X, Y = torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 2, 1])


class Pairs(Dataset):
    """A map-style dataset of (input, class)."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return X[index].numpy(), int(Y[index])


class Dicts(Pairs):
    def __getitem__(self, index: int) -> Any:
        return {"image": X[index], "label": Y[index]}


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        yield X[0], 0


def split(value: Any) -> Samples:
    return Splits(value, value, value).train


@pytest.mark.parametrize(
    "value",
    [
        (X, Y),
        [X, Y],
        TensorDataset(X, Y),
        Pairs(),
        Subset(TensorDataset(X, Y), range(4)),
        (X.double().numpy(), Y.numpy()),
        (X.numpy().astype(">f4"), Y),
        (X.flip(0).numpy()[::-1], Y),
        (list(X), list(Y)),
        (list(X.numpy()), Y.tolist()),
        (X.tolist(), Y.tolist()),
        tuple(zip(*[(X[i], Y[i]) for i in range(4)], strict=True)),
        (np.array(X.tolist(), dtype=object), Y),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_form_gives_the_same_samples(value: Any) -> None:
    samples = split(value)
    assert samples.inputs.dtype == torch.float32
    assert samples.inputs.equal(X)
    assert samples.targets.dtype == torch.int64
    assert samples.targets.equal(Y)


def test_tensors_keep_their_type() -> None:
    for dtype in (torch.float64, torch.float16, torch.int32, torch.uint8):
        assert Samples(X.to(dtype), Y).inputs.dtype == dtype
    assert Samples(X.numpy().astype(np.uint8), Y).inputs.dtype == torch.uint8


def test_pictures_are_arrays() -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = [image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    samples = Samples(pictures, [0, 1])
    assert samples.inputs.shape == (2, 4, 5, 3)
    assert samples.inputs[0, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_data_frames_of_numbers(library: str) -> None:
    module = pytest.importorskip(library)
    make = module.table if library == "pyarrow" else module.DataFrame
    frame = make({"a": [1.5, 2.5], "b": [3, 4], "c": [True, False]})
    samples = Samples(frame, frame["b"])
    assert samples.inputs.tolist() == [[1.5, 3, 1], [2.5, 4, 0]]
    assert samples.inputs.dtype == torch.float32
    assert samples.targets.tolist() == [3, 4]
    assert samples.targets.dtype == torch.int64


def test_data_frames_of_other_things_name_the_column() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.5, 2.5]})
    for column, message in [
        (pandas.Series(["x", "y"]), "column 'b': element 0 is 'x' (str), expected numbers: encode them"),
        (pandas.Series(["x", "y"], dtype="category"), "column 'b': element 0 is 'x'"),
        (pandas.Series(pandas.to_datetime(["2020", "2021"])), "column 'b' holds dates"),
        (pandas.Series([1, None], dtype=object), "column 'b' has 1 missing values: fill or drop them"),
    ]:
        with pytest.raises((TypeError, ValueError)) as caught:
            Samples(frame.assign(b=column), [0, 1])
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="column 'a' is there twice"):
        Samples(pandas.concat([frame, frame], axis=1), [0, 1])
    with pytest.raises(TypeError, match="say which columns are targets"):
        split(frame)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: TensorDataset(X, X, Y), "a TensorDataset of 3 tensors: expected two"),
        (Dicts, "train: a Dicts: sample 0 is a dict with 'image', 'label', expected a pair"),
        (Stream, "train: a Stream has no length or no index"),
        (lambda: DataLoader(Pairs()), "give its dataset, loader.dataset"),
        (lambda: X, "train: a Tensor of shape (4, 3): expected a pair"),
        (lambda: (X, X, X, Y), "a tuple of 4; several inputs: pack them"),
        (lambda: (X, Y, X), "train groups are torch.float32: expected integers"),
        (lambda: [(x, y) for x, y in zip(X, Y, strict=True)], "make tuple(zip(*pairs))"),
        (lambda: {"inputs": X, "targets": Y}, "a dict with 'inputs', 'targets'"),
        (lambda: "mnist", "train: a str: expected ocd_bench.Samples"),
        (lambda: None, "train: a NoneType: expected ocd_bench.Samples"),
        (lambda: (X, Y[:3]), "train inputs (4, 3) and targets (3,) must have the same first size"),
        (lambda: ((X, X), Y), "of several inputs, pack them into one tensor with ocd_bench.Layout"),
        (lambda: ({"a": X}, Y), "train inputs: a dict with 'a': pack them"),
        (lambda: ([torch.zeros(3), torch.zeros(4)], [0, 1]), "sample 0 has shape (3,) and sample 1 (4,)"),
        (lambda: ([[1, 2], [1]], [0, 1]), "train inputs: samples differ in length: pad them"),
        (lambda: (np.array([np.zeros(1), np.zeros(2)], dtype=object), [0, 1]), "samples differ in shape: pad them"),
        (lambda: (["a", "b"], [0, 1]), "train inputs: text, such as 'a', expected numbers"),
        (lambda: (X[:2], ["cat", "dog"]), "train targets: text, such as 'cat'"),
        (lambda: (np.array(["2020-01-01"], dtype="M8[D]"), [0]), "train inputs: dates"),
        (lambda: (X, [0, 1, None, 1]), "train targets: element 2 is None: fill or drop"),
        (lambda: (np.full((4, 1), 1e300), Y), "1e+300 is too large for float32"),
        (lambda: (np.ma.masked_array(np.zeros(4), [0, 1, 0, 0]), Y), "1 masked values: fill or drop"),
        (lambda: ((i for i in range(4)), Y), "train inputs: a generator, expected numbers"),
        (lambda: (torch.nn.utils.rnn.pack_sequence([X[0], X[1][:2]]), Y), "a PackedSequence: pad them"),
        (lambda: (torch.nested.nested_tensor([X[0], X[1][:2]], layout=torch.jagged), Y[:2]), "a nested tensor: pad them"),
    ],
)
def test_everything_else_is_refused_with_the_cure(value: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        split(value())
    assert message in str(caught.value)


def test_a_layout_gives_back_what_was_packed_and_passes_gradients() -> None:
    tokens = torch.randint(0, 30_000, (5, 7))
    picture = torch.randn(5, 3, 4, 4, requires_grad=True)
    layout = Layout(tokens=tokens[0], mask=tokens[0] > 0, picture=(3, 4, 4))
    packed = layout.pack(tokens=tokens, mask=tokens > 9, picture=picture)
    assert packed.shape == (5, layout.size) == (5, 7 + 7 + 48)
    parts = layout.unpack(packed)
    assert parts["tokens"].equal(tokens)
    assert parts["tokens"].dtype == torch.int64
    assert parts["mask"].equal(tokens > 9)
    assert parts["picture"].equal(picture)
    parts["picture"].sum().backward()
    assert picture.grad is not None
    assert picture.grad.eq(1).all()


def test_a_layout_refuses_what_it_could_not_give_back() -> None:
    layout = Layout(a=(2,), b=torch.tensor(1))
    good = {"a": torch.zeros(3, 2), "b": torch.zeros(3, dtype=torch.long)}
    for parts, message in [
        ({"a": good["a"]}, "part 'b' is missing; parts: a, b"),
        ({**good, "c": good["a"]}, "part 'c' is none of the layout"),
        ({**good, "a": torch.zeros(3, 4)}, "part 'a' has shape (3, 4), expected (3, 2)"),
        ({**good, "b": good["b"] + 2**24 + 1}, "integers above 2**24"),
    ]:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            layout.pack(**parts)
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="was not packed with this layout, of size 3"):
        layout.unpack(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="at least one part"):
        Layout()
