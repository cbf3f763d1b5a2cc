"""The task: data, base model, loss and metrics of one domain. See docs/plugins.md for a whole plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ocd_bench.metrics import Metric

if TYPE_CHECKING:
    import torch

    from ocd_bench.samples import Samples, Splits


@dataclass(frozen=True)
class Source:
    """One file of a dataset at its official place.

    Args:
        url: where it is downloaded from.
        sha256: of the file, in hexadecimal; a file of any other content is never used.
        size: in bytes.
        path: where it goes inside the dataset's folder.
        unpack: whether it is a zip or tar archive to be extracted there too.
    """

    url: str
    sha256: str
    size: int
    path: str
    unpack: bool = False


@dataclass(frozen=True)
class Dataset:
    """One dataset of a task, as ``ocd-bench list datasets`` and ``ocd-bench data`` show it.

    Args:
        name: what ``--dataset`` takes.
        description: one line.
        embedded: whether it comes with an installed package and needs neither folder nor download.
        folder: the sub-folder of a data directory it lies in; empty for its name.
        sources: official files, for ``ocd-bench data fetch``; empty where a licence or a form must be accepted first.
        licence, citation, homepage: of the data.
        default: measured when ``--dataset`` is not given. Where no dataset of a task says so, its first one is.
        corruption: what is measured when ``--corruption`` is not given, as one would write it there; empty: the test set as it is.
    """

    name: str
    description: str = ""
    embedded: bool = False
    folder: str = ""
    sources: Sequence[Source] = ()
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    default: bool = False
    corruption: str = ""


@dataclass(frozen=True)
class Request:
    """What the runner asks of a task: which dataset, with which settings, under which seed.

    ``settings`` is an instance of the task's ``Settings``. Random draws come from :meth:`generator` only: its stream derives
    from (task, dataset, seed, purpose), so adding a task or method never shifts another's numbers.
    """

    task: str
    dataset: str
    settings: Any = None
    preset: str = "default"
    seed: int = 0
    offline: bool = False
    data_dirs: Sequence[Path] = field(default_factory=tuple)

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator of its own for each purpose."""
        from ocd_bench.seeds import generator

        return generator(self.task, self.dataset, "", self.seed, purpose)

    def folder(self, name: str | None = None) -> Path:
        """The folder of dataset ``name`` (default: the requested one) in the first data directory that has it.

        Raises:
            DataMissing: if none has it; the message says where it was looked for.
        """
        from ocd_bench.errors import DataMissing

        name = name or self.dataset
        for directory in self.data_dirs:
            if (directory / name).exists():
                return directory / name
        looked = ", ".join(str(directory / name) for directory in self.data_dirs) or "no data directory"
        raise DataMissing(f"dataset {name!r} of task {self.task!r} not found: looked in {looked}; give --data-dir")


class Task:
    """Base class of tasks. The four methods that raise are the contract; every other member has a default.

    A task is stateless: whatever it needs later it puts into ``Splits.extras`` or into the model it returns.
    Sample-wise contract of every model: row j of the output depends on row j of the input alone (in eval mode).
    """

    name: ClassVar[str]
    primary_metric: ClassVar[str | Sequence[str]]
    """The metric that decides; several names where datasets differ (regression and classes): the first one reported."""
    metric_info: ClassVar[Mapping[str, Metric]] = {}
    """Metrics whose name is not in :data:`ocd_bench.metrics.KNOWN`."""
    average: ClassVar[Metric | None] = None
    """Unit and direction of the mean of the primary metrics over datasets, where such a mean is customary: a table of several
    datasets then ends with it."""
    requires: ClassVar[Sequence[str]] = ()
    """Modules that must be importable; a missing one makes the task ``unavailable: pip install ...``."""
    Settings: ClassVar[type | None] = None
    """A frozen dataclass of plain values: the section named as the task, set by ``--set <task>.<key>=<value>``."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Per preset, settings of any section that suit this task: ``{"quick": {"base.epochs": 3}}``."""
    description: ClassVar[str] = ""

    # -- the contract -------------------------------------------------------------------------------------------------
    def load_data(self, request: Request) -> Splits:
        """Splits of ``request.dataset``; the same request gives the same samples in the same order."""
        raise NotImplementedError

    def base_model(self, splits: Splits, request: Request) -> torch.nn.Module:
        """The untrained base model; initial weights follow the global torch seed, which the runner sets."""
        raise NotImplementedError

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Per-sample losses ``(N,)``, differentiable in ``output``."""
        raise NotImplementedError

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Per-sample scores ``{name: (N,)}``; the number in the table is their reduction (mean unless declared)."""
        raise NotImplementedError

    # -- optional -----------------------------------------------------------------------------------------------------
    def datasets(self) -> Sequence[Dataset]:
        """Known datasets, the default first. A task without any has one embedded dataset named ``default``."""
        return (Dataset("default", embedded=True),)

    def train_base(
        self, model: torch.nn.Module, splits: Splits, request: Request, progress: Callable[[int, int], None]
    ) -> torch.nn.Module | None:
        """Train the base in the task's own way and return it; None (default) leaves it to the runner and ``self.loss``."""
        return None

    def select_layer(self, model: torch.nn.Module, request: Request) -> str | None:
        """Dotted name of the layer to adapt; None (default) takes the paper's entropy criterion (section 3.3)."""
        return None

    def logits(self, output: torch.Tensor) -> torch.Tensor | None:
        """Class logits ``(N, K)`` of an output, K >= 2; None where there is no class posterior (Tent does not apply)."""
        return None

    def test_time_loss(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor | None:
        """An unsupervised loss ``(N,)`` for test-time adaptation where there is no posterior; None if there is no fair one."""
        return None

    def subsample(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A cheaper piece of each sample for training and overfitting (rays of a view, a crop of audio); default: all of it."""
        return inputs, targets

    def excerpt(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A piece of each sample cheap enough to be run through the base at every training step; default: as ``subsample``."""
        return self.subsample(inputs, targets, generator)

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Randomly changed copies, same meaning (label kept or changed with it); default: unchanged."""
        return inputs, targets

    def encode_input(self, splits: Splits, request: Request) -> torch.nn.Module | None:
        """An untrained small encoder ``inputs -> (N, D)`` of the sample itself, a further condition; None for none."""
        return None

    def encode_output(self, output: torch.Tensor) -> torch.Tensor:
        """The output as features ``(N, D)`` for the condition; default: flattened."""
        return output.flatten(1)

    def signature(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Plain numbers ``(N, D)`` of inputs by which samples unlike those of training are told: OCD leaves the base as it is
        for them (``ocd.gate``). They should vary with what a shift may change (level, spectrum), not with what the sample
        says. None (default): no sample is ever taken for a stranger."""
        return None

    def output_picture(self, output: torch.Tensor) -> torch.Tensor | None:
        """An output that is a picture or a spectrogram as ``(N, C, H, W)``, C = 1 or 3, values in [0, 1]: the paper's method
        (``ocd-paper``) passes such outputs through VGG11; None where outputs are neither."""
        return None

    def ensemble(self, outputs: torch.Tensor) -> torch.Tensor:
        """One output from K draws, ``(K, N, ...) -> (N, ...)``: mean of class probabilities where ``logits`` is defined
        (returned as log-probabilities), mean of values elsewhere."""
        first = self.logits(outputs[0])
        if first is None:
            return outputs.mean(0)
        import torch

        logits = torch.stack([self.logits(output) for output in outputs])  # type: ignore[misc]
        return torch.logsumexp(logits.log_softmax(-1), 0) - torch.log(torch.tensor(float(len(outputs))))

    corruptions: ClassVar[Sequence[str]] = ()
    """Kinds that :meth:`corrupt` knows, for ``--corruption KIND:SEVERITY``."""
    corruption_sets: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Names that stand for several kinds, for ``--corruption SET:SEVERITY``; the table ends with the mean over each. A task
    without any has one, ``all``."""
    renamed_corruptions: ClassVar[Mapping[str, str]] = {}
    """Old names of kinds or sets that are refused, and their new names."""

    def corrupt(self, inputs: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
        """Test inputs under a common corruption of severity 1 to 5; never used in training.

        Raises:
            NotApplicable: where the kind means nothing for these inputs.
        """
        raise NotImplementedError

    def recorded_corruption(self, splits: Splits, kind: str, severity: int, request: Request) -> Samples | None:
        """The test samples of ``splits`` under a corruption, read from published files; None (default): :meth:`corrupt` computes
        them.

        Raises:
            UsageError: if the files asked for are missing, damaged, or of another test set.
        """
        return None

    def figures(self, splits: Splits, outputs: Mapping[str, torch.Tensor], request: Request, folder: Path) -> Sequence[Path]:
        """Write the task's own pictures or sounds of a few test samples; ``outputs`` maps a method to its test outputs."""
        return ()
