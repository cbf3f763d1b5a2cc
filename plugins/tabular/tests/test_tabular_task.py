"""The task's mathematics: loss, metrics, models, encoders and corruptions against independent computations."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_absolute_error, root_mean_squared_error
from torch import nn

from ocd_bench import Request, Splits
from ocd_bench.metrics import KNOWN, REDUCTIONS
from ocd_bench_tabular import Tabular
from ocd_bench_tabular.models import MLP, EmbeddedMLP, FeatureEncoder, Periodic, PiecewiseLinear, ResNet
from ocd_bench_tabular.settings import TabularSettings


def request(dataset: str = "diabetes", **settings: object) -> Request:
    return Request("tabular", dataset, TabularSettings(**settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def task() -> Tabular:
    return Tabular()


@pytest.fixture(scope="module")
def diabetes(task: Tabular) -> Splits:
    return task.load_data(request())


def test_the_entry_module_is_light() -> None:
    heavy = "{'torch', 'numpy', 'sklearn', 'xgboost', 'scipy'}"
    paths = [path for path in sys.path if path]
    code = f"import sys; sys.path[:0] = {paths!r}; import ocd_bench_tabular; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- loss and metrics -----------------------------------------------------------------------------------------------------
def test_rmse_is_scikit_learns_in_the_targets_own_units(task: Tabular, diabetes: Splits) -> None:
    from sklearn.datasets import load_diabetes

    torch.manual_seed(0)
    output = torch.randn(len(diabetes.test), 1)
    scores = {name: score.double().numpy() for name, score in task.metrics(output, diabetes.test.targets).items()}
    truth = load_diabetes().target[diabetes.extras["rows"]["test"]]
    guess = diabetes.extras["mean"] + diabetes.extras["scale"] * output[:, 0].double().numpy()
    value = REDUCTIONS[KNOWN["rmse"].reduce](scores["rmse"])
    assert value == pytest.approx(root_mean_squared_error(truth, guess), rel=1e-5)
    assert scores["mae"].mean() == pytest.approx(mean_absolute_error(truth, guess), rel=1e-5)


def test_loss_is_the_squared_error_in_standard_deviations(task: Tabular, diabetes: Splits) -> None:
    targets = diabetes.train.targets
    mean_predictor = torch.zeros(len(targets), 1)
    assert task.loss(mean_predictor, targets).shape == (len(targets),)
    assert task.loss(mean_predictor, targets).mean().item() == pytest.approx(1.0, abs=1e-5)
    # The loss does not depend on the unit, so a learning rate has the same effect for every dataset.
    stretched = targets * torch.tensor([1.0, 1000.0])
    torch.testing.assert_close(task.loss(mean_predictor, stretched), task.loss(mean_predictor, targets))


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_plain_targets_of_another_plugins_data(task: Tabular, shape: tuple[int, ...]) -> None:
    output, target = torch.arange(5.0)[:, None], torch.full(shape, 2.0)
    expected = torch.tensor([4.0, 1, 0, 1, 4])
    torch.testing.assert_close(task.loss(output, target), expected)
    torch.testing.assert_close(task.metrics(output, target)["rmse"], expected)


def test_classification(task: Tabular) -> None:
    splits = task.load_data(request("wine"))
    torch.manual_seed(0)
    output = torch.randn(len(splits.test), 3)
    scores = task.metrics(output, splits.test.targets)
    chance = output.double().softmax(-1).numpy()
    assert scores["cross_entropy"].double().mean().item() == pytest.approx(
        log_loss(splits.test.targets.numpy(), chance), rel=1e-5
    )
    assert scores["accuracy"].mean().item() == pytest.approx(np.mean(chance.argmax(1) == splits.test.targets.numpy()))
    assert task.logits(output) is output
    assert task.logits(output[:, :1]) is None


def test_primary_metric_of_either_kind(task: Tabular, diabetes: Splits) -> None:
    assert "rmse" in task.metrics(torch.zeros(2, 1), diabetes.test.targets[:2])
    assert "accuracy" in task.metrics(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert tuple(task.primary_metric) == ("rmse", "accuracy")


# -- models ---------------------------------------------------------------------------------------------------------------
def test_mlp_is_the_plain_stack() -> None:
    torch.manual_seed(0)
    model = MLP(8, 1, width=256, depth=3, dropout=0.2).eval()
    assert [name for name, module in model.named_modules() if isinstance(module, nn.Linear)] == ["layer1", "layer2", "layer3"]
    plain = nn.Sequential(model.layer1, nn.ReLU(), model.layer2, nn.ReLU(), model.layer3)
    x = torch.randn(5, 8)
    torch.testing.assert_close(model(x), plain(x))
    assert sum(p.numel() for p in model.parameters()) == 8 * 256 + 256 + 256 * 256 + 256 + 256 + 1


def test_resnet_follows_its_paper() -> None:
    torch.manual_seed(0)
    model = ResNet(10, 3, width=16, depth=2, dropout=0.5)
    for _ in range(3):
        model(torch.randn(64, 10))
    model.eval()
    x = torch.randn(7, 10)

    def norm(values: torch.Tensor, layer: nn.BatchNorm1d) -> torch.Tensor:
        mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        return (values - mean) / (variance + layer.eps).sqrt() * layer.weight + layer.bias

    hidden = x @ model.layer1.weight.T + model.layer1.bias
    for block in model.blocks:
        inner = (norm(hidden, block.norm) @ block.linear1.weight.T + block.linear1.bias).clamp_min(0)
        hidden = hidden + inner @ block.linear2.weight.T + block.linear2.bias
    expected = norm(hidden, model.norm).clamp_min(0) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected)
    assert model.blocks[0].linear1.weight.shape == (32, 16)
    torch.testing.assert_close(torch.cat([model(row) for row in x.split(1)]), expected)


def test_embedded_mlp_is_an_mlp_on_each_features_own_embedding() -> None:
    torch.manual_seed(0)
    train, x = torch.randn(50, 3), torch.randn(5, 3)
    model = EmbeddedMLP(train, 2, width=8, depth=2).eval()
    numbers = []
    for feature in range(3):
        edges = torch.quantile(train[:, feature], torch.linspace(0, 1, 33))
        encoded = torch.stack([((x[:, feature] - low) / (high - low)).clamp(0, 1) for low, high in pairwise(edges)], dim=1)
        numbers.append((encoded @ model.embedded.weight[feature] + model.embedded.bias[feature]).clamp_min(0))
    hidden = torch.cat(numbers, dim=1) @ model.layer1.weight.T + model.layer1.bias
    expected = hidden.clamp_min(0) @ model.layer2.weight.T + model.layer2.bias
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("dataset", "outputs"), [("diabetes", 1), ("breast-cancer", 2), ("wine", 3)])
@pytest.mark.parametrize("model", ["mlp", "embedded-mlp", "resnet"])
def test_base_model_fits_the_data(task: Tabular, dataset: str, outputs: int, model: str) -> None:
    asked = request(dataset, model=model, width=32)
    splits = task.load_data(asked)
    built = task.base_model(splits, asked).eval()
    output = built(splits.val.inputs)
    assert output.shape == (len(splits.val), outputs)
    assert task.loss(output, splits.val.targets).shape == (len(splits.val),)
    assert task.select_layer(built, asked) == "layer1"
    seen = splits.val.inputs.shape[1] * (16 if model == "embedded-mlp" else 1)
    assert built.get_submodule("layer1").weight.shape == (32, seen)
    assert task.select_layer(nn.Sequential(nn.Linear(2, 2)), asked) is None


def test_a_short_training_beats_the_mean(task: Tabular, diabetes: Splits) -> None:
    torch.manual_seed(0)
    model = task.base_model(diabetes, request())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        task.loss(model(diabetes.train.inputs), diabetes.train.targets).mean().backward()
        optimizer.step()
    with torch.no_grad():
        loss = task.loss(model.eval()(diabetes.test.inputs), diabetes.test.targets).mean().item()
    constant = task.loss(torch.zeros(len(diabetes.test), 1), diabetes.test.targets).mean().item()
    assert loss < 0.75 * constant


# -- encoders -------------------------------------------------------------------------------------------------------------
def test_piecewise_linear_encoding_by_its_definition() -> None:
    torch.manual_seed(0)
    train = torch.randn(500, 3, dtype=torch.float64)
    encoding = PiecewiseLinear(train, bins=4)
    edges = np.quantile(train.numpy(), np.linspace(0, 1, 5), axis=0).T
    np.testing.assert_allclose(encoding.edges.numpy(), edges, rtol=1e-12)
    x = torch.tensor([[-9.0, 0.0, 9.0]], dtype=torch.float64)
    got = encoding(x)[0].numpy()
    assert got[0].tolist() == [0, 0, 0, 0]
    assert got[2].tolist() == [1, 1, 1, 1]
    for place, (low, high) in enumerate(zip(edges[1], edges[1][1:], strict=False)):
        assert got[1, place] == pytest.approx(0.0 if low >= 0 else 1.0 if high <= 0 else -low / (high - low))


def test_piecewise_linear_encoding_of_a_binary_column_is_finite() -> None:
    encoding = PiecewiseLinear(torch.tensor([[-1.0]] * 90 + [[1.0]] * 10), bins=8)
    codes = encoding(torch.tensor([[-1.0], [1.0], [5.0]]))
    assert torch.isfinite(codes).all()
    assert not torch.equal(codes[0], codes[1])
    assert torch.equal(codes[1], codes[2])


def test_feature_encoder_is_samplewise(task: Tabular, diabetes: Splits) -> None:
    for name in ("piecewise", "periodic"):
        encoder = task.encode_input(diabetes, request(encoder=name))
        assert encoder is not None
        code = encoder(diabetes.val.inputs)
        assert code.shape == (len(diabetes.val), 128)
        torch.testing.assert_close(encoder(diabetes.val.inputs[3:4]), code[3:4])
    assert task.encode_input(diabetes, request(encoder="none")) is None


def test_embeddings_keep_features_apart() -> None:
    torch.manual_seed(0)
    encoder = FeatureEncoder(Periodic(3), 3)
    x = torch.randn(1, 3)
    jacobian = torch.autograd.functional.jacobian(lambda row: encoder.embedding(row), x)[0, :, :, 0]
    for feature in range(3):
        for other in range(3):
            assert (jacobian[feature, :, other].abs().max() > 0) == (feature == other)


# -- corruptions ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", Tabular.corruptions)
def test_corruptions_grow_and_repeat(task: Tabular, kind: str) -> None:
    inputs = torch.randn(4000, 6, generator=torch.Generator().manual_seed(1))
    distances = []
    for severity in range(1, 6):
        once, again = (task.corrupt(inputs, kind, severity, torch.Generator().manual_seed(2)) for _ in range(2))
        assert torch.equal(once, again)
        distances.append((once - inputs).square().mean().item())
    assert distances[0] > 0
    assert distances == sorted(distances)


def test_corruptions_have_the_documented_effect(task: Tabular) -> None:
    inputs = torch.randn(20_000, 4)
    generator = torch.Generator().manual_seed(0)
    noise = task.corrupt(inputs, "gaussian_noise", 3, generator) - inputs
    assert noise.std().item() == pytest.approx(0.4, rel=0.02)
    gone = task.corrupt(inputs, "missing", 4, generator) == 0
    assert gone.float().mean().item() == pytest.approx(0.35, abs=0.01)
    drift = task.corrupt(inputs, "scale_shift", 3, generator)
    fit = np.polyfit(inputs[:, 0].numpy(), drift[:, 0].numpy(), 1, full=True)
    assert fit[1][0] < 1e-4, "the same factor and offset for every row"


def test_regression_has_no_test_time_loss(task: Tabular, diabetes: Splits) -> None:
    assert task.test_time_loss(torch.zeros(2, 1), diabetes.val.inputs[:2]) is None
    assert task.logits(torch.zeros(2, 1)) is None


def test_known_datasets_begin_with_an_embedded_one(task: Tabular) -> None:
    datasets = task.datasets()
    assert datasets[0].embedded
    assert {"diabetes", "breast-cancer", "wine", "california_housing", "letor_mq2008"} <= {each.name for each in datasets}
    assert not (Path(__file__).parent / "california_housing").exists()


def test_augmented_rows_hold_cells_of_their_own_columns(task: Tabular) -> None:
    rows = torch.arange(4000.0)[:, None] * 10 + torch.arange(10.0)  # the last digit is the number of the column
    targets = torch.arange(4000.0)
    changed, same_targets = task.augment(rows, targets, torch.Generator().manual_seed(0))
    assert torch.equal(same_targets, targets)
    assert torch.equal(changed % 10, rows % 10)
    swapped = changed != rows
    assert float(swapped.any(1).float().mean()) == pytest.approx(
        0.5 * 0.8, abs=0.06
    )  # half of the rows, minus those in which no cell was drawn
    assert float(swapped.float().mean()) == pytest.approx(0.5 * 0.2, abs=0.01)
    assert float(swapped.float().mean(1).max()) < 0.9
    assert torch.equal(task.augment(rows, targets, torch.Generator().manual_seed(0))[0], changed)


def test_augmentation_leaves_a_batch_of_one_row_unchanged(task: Tabular) -> None:
    row = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(task.augment(row, torch.zeros(1), torch.Generator().manual_seed(1))[0], row)
