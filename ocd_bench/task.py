"""The task: data, base model, loss and metrics of one domain. docs/plugins.md has a whole plugin.

.. versionadded:: 0.1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ocd_bench.metrics import Metric

__all__ = ["Dataset", "Request", "Source", "Task"]

if TYPE_CHECKING:
    import torch

    from ocd_bench.progress import Progress
    from ocd_bench.samples import Samples, Splits


@dataclass(frozen=True)
class Source:
    """One official file of a dataset.

    Args:
        url: where it is downloaded from.
        sha256: SHA-256 of the file, in hexadecimal. A file with another content is never used.
        size: in bytes.
        path: its path inside the dataset's folder.
        unpack: whether it is a zip or tar archive that is to be extracted there.

    .. versionadded:: 0.1
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
        name: the value of ``--dataset``.
        description: one line.
        embedded: whether it comes with an installed package, so that it needs neither folder nor download.
        folder: its sub-folder of a data directory; empty: the name.
        sources: official files, for ``ocd-bench data fetch``; empty if a licence or a form must be accepted first.
        licence, citation, homepage: of the data.
        default: measured when ``--dataset`` is not given. Where no dataset of a task says so, its first one is.
        corruption: what is measured when ``--corruption`` is not given, as one would write it there; empty: the test set as it
            is.
        seen_in_tuning: whether default settings were revised after scores on its test set had been seen. Tables then say so.

    .. versionadded:: 0.1
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
    seen_in_tuning: bool = False


@dataclass(frozen=True)
class Request:
    """The runner's request to a task: the dataset, the settings, the seed.

    Draw random numbers only from :meth:`generator`: its stream derives from (task, dataset, seed, purpose), so that another
    task or method never changes your numbers.

    Args:
        task: name of the task.
        dataset: name of the dataset.
        settings: an instance of the task's ``Settings``, or None.
        preset: ``quick``, ``default`` or ``paper``.
        seed: 0 or more.
        offline: whether the network must not be used.
        data_dirs: folders in which datasets are looked for.

    Example:
        >>> request = Request("rings", "garden", seed=1)
        >>> request.generator("noise").initial_seed() == request.generator("shuffle").initial_seed()
        False

    .. versionadded:: 0.1
    """

    task: str
    dataset: str
    settings: Any = None
    preset: str = "default"
    seed: int = 0
    offline: bool = False
    data_dirs: Sequence[Path] = field(default_factory=tuple)

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for one purpose; the same purpose gives the same stream again."""
        from ocd_bench.seeds import generator

        return generator(self.task, self.dataset, "", self.seed, purpose)

    def folder(self, name: str | None = None) -> Path:
        """The folder ``name`` (default: the name of the dataset) in the first data directory that has it.

        Raises:
            DataMissing: if there is none. The message lists the folders that were searched.
        """
        from ocd_bench.errors import DataMissing

        name = name or self.dataset
        for directory in self.data_dirs:
            if (directory / name).exists():
                return directory / name
        looked = ", ".join(str(directory / name) for directory in self.data_dirs) or "no data directory"
        raise DataMissing(
            f"dataset {name!r} of task {self.task!r} not found: looked in {looked}; give --data-dir, or set OCD_BENCH_DATA"
        )


class Task:
    """Base class of tasks. The four methods that raise are required; every other member has a default.

    A task has no state: what it needs later goes into ``Splits.extras`` or into the model that it returns. Every model must
    be sample-wise: in eval mode, row j of the output depends only on row j of the input.

    .. versionadded:: 0.1
    """

    name: ClassVar[str]
    """Name of the task and of its settings section: a-z, 0-9 and ``-``."""
    description: ClassVar[str] = ""
    """One line for ``ocd-bench list tasks``."""
    requires: ClassVar[Sequence[str]] = ()
    """Modules that must be importable. If one is missing, the task is ``unavailable: pip install ...``."""
    Settings: ClassVar[type | None] = None
    """A frozen dataclass of plain values: the section with the task's name, set by ``--set <task>.<key>=<value>``."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Per preset, values for settings of any section that suit this task: ``{"quick": {"base.epochs": 3}}``."""

    # -- required -----------------------------------------------------------------------------------------------------
    primary_metric: ClassVar[str | Sequence[str]]
    """The metric by which rows are compared. If datasets differ (regression, classes), several names: the first one that
    :meth:`metrics` reports."""

    def load_data(self, request: Request) -> Splits:
        """Splits of ``request.dataset``. The same request gives the same samples in the same order."""
        raise NotImplementedError

    def base_model(self, splits: Splits, request: Request) -> torch.nn.Module:
        """The untrained base model, with a layer that can be adapted (docs/plugins.md, *Layers that can be adapted*).

        Initial weights follow the global torch seed, which the runner sets.
        """
        raise NotImplementedError

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Per-sample losses ``(N,)`` of outputs ``(N, ...)`` and targets ``(N, ...)``, differentiable in ``output``."""
        raise NotImplementedError

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Per-sample scores, ``{name: (N,)}``. The number in the table is their reduction: the mean unless declared."""
        raise NotImplementedError

    # -- data ---------------------------------------------------------------------------------------------------------
    def datasets(self) -> Sequence[Dataset]:
        """Known datasets, the default first. Default: one embedded dataset named ``default``."""
        return (Dataset("default", embedded=True),)

    stores_samples: ClassVar[bool] = False
    """Whether ``run --keep-bases`` also stores the samples. It is for tasks that compute them (embeddings), which another CPU
    rounds differently."""

    def subsample(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A cheaper part of each sample, for training and overfitting: rays of a view, a crop of audio. Default: all of it."""
        return inputs, targets

    def excerpt(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A part of each sample cheap enough for a forward of the base at every training step. Layers are checked on such parts
        too. Default: ``subsample``."""
        return self.subsample(inputs, targets, generator)

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Random copies with the same meaning; a target is kept, or changed with its input. Default: unchanged."""
        return inputs, targets

    corruptions: ClassVar[Sequence[str]] = ()
    """Kinds that :meth:`corrupt` knows, for ``--corruption KIND:SEVERITY``."""
    corruption_sets: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Names of several kinds each, for ``--corruption SET:SEVERITY``; the table ends with the mean over each set. Default: one
    set, ``all``, of every kind."""
    renamed_corruptions: ClassVar[Mapping[str, str]] = {}
    """Old names of kinds or sets, which are refused, and their new names."""

    def augmented_corruptions(self, inputs: torch.Tensor) -> Sequence[str]:
        """Kinds of corruption that copies of such inputs ``(N, ...)`` by :meth:`augment` contain. Tables report them apart
        from the others. Default: none."""
        return ()

    def corrupt(self, inputs: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
        """Test inputs ``(N, ...)`` under a corruption of severity 1 to 5. It is never used in training.

        Raises:
            NotApplicable: where the kind means nothing for these inputs.
        """
        raise NotImplementedError

    def corrupt_targets(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The targets that belong to corrupted inputs, where a score needs the input itself (the improvement over a noisy
        mixture). Default: unchanged."""
        return targets

    def recorded_corruption(self, splits: Splits, kind: str, severity: int, request: Request) -> Samples | None:
        """The test samples of ``splits`` under a corruption, read from published files. Default: None, and :meth:`corrupt`
        computes them.

        Raises:
            UsageError: if the files are missing, damaged, or of another test set.
        """
        return None

    def views(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """A random view of each input ``(N, ...)``, the same in shape and meaning, for ``memo``. Default: None, and it takes
        :meth:`augment`."""
        return None

    # -- base ---------------------------------------------------------------------------------------------------------
    def train_base(
        self, model: torch.nn.Module, splits: Splits, request: Request, progress: Progress
    ) -> torch.nn.Module | None:
        """Train the base and return it. Default: None, and the runner trains it with :meth:`loss`.

        Args:
            model: what :meth:`base_model` returned, on the device.
            splits: the task's splits; ``splits.test`` is the validation split.
            request: dataset, settings, seed.
            progress: call it with (steps done, steps in total). A long training may also keep its state with it, see
                :class:`ocd_bench.Progress`, so that a run that was killed continues there; otherwise it begins again.
        """
        return None

    def longer(self, splits: Splits, request: Request, samples: float) -> Request | None:
        """The request under which :meth:`train_base` trains on about so many samples more (a sample counts each time), for
        ``base-longer``. Default: None, and ``base.epochs`` grows, by which the runner trains."""
        return None

    # -- test time ----------------------------------------------------------------------------------------------------
    def logits(self, output: torch.Tensor) -> torch.Tensor | None:
        """Class logits ``(N, K)`` of an output, K >= 2. Default: None; methods that need class probabilities are n/a."""
        return None

    def test_time_loss(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor | None:
        """An unsupervised loss ``(N,)`` for test-time adaptation, if there are no class logits. Default: None."""
        return None

    def ensemble(self, outputs: torch.Tensor) -> torch.Tensor:
        """One output from K outputs, ``(K, N, ...) -> (N, ...)``.

        Default: the log of the mean class probabilities if :meth:`logits` is defined, else the mean.
        """
        first = self.logits(outputs[0])
        if first is None:
            return outputs.mean(0)
        import torch

        logits = torch.stack([self.logits(output) for output in outputs])  # type: ignore[misc]
        return torch.logsumexp(logits.log_softmax(-1), 0) - torch.log(torch.tensor(float(len(outputs))))

    # -- OCD ----------------------------------------------------------------------------------------------------------
    def select_layer(self, model: torch.nn.Module, request: Request) -> str | None:
        """Dotted name of the layer to adapt. Default: None, and the entropy criterion decides (paper, section 3.3)."""
        return None

    def encode_input(self, splits: Splits, request: Request) -> torch.nn.Module | None:
        """An untrained small encoder ``inputs -> (N, D)``, a further condition of the hypernetwork. Default: None."""
        return None

    def encode_output(self, output: torch.Tensor) -> torch.Tensor:
        """Features ``(N, D)`` of an output, for the condition of the hypernetwork. Default: flattened."""
        return output.flatten(1)

    def positions(
        self, inputs: torch.Tensor, output: torch.Tensor
    ) -> tuple[torch.Tensor, int, Callable[[torch.Tensor], torch.Tensor]] | None:
        """The P positions of a large output (rays, frames of sound), for the control `capacity`, whose network corrects each.

        Returns:
            What is known at each position, ``(N, P, D)``; how many numbers C may change there; and a function that makes of
            changes ``(N, P, C)`` the change of the output ``(N, ...)``. Default: None.
        """
        return None

    def signature(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Features ``(N, D)`` of inputs for out-of-distribution detection (``ocd-gated``, ``ocd.gate``).

        They should depend on what a shift may change (level, spectrum), and not on the class or content of a sample.
        Default: None, and no sample counts as out-of-distribution.
        """
        return None

    def output_picture(self, output: torch.Tensor) -> torch.Tensor | None:
        """An output that is a picture or spectrogram as ``(N, C, H, W)``, C = 1 or 3, with values in [0, 1].

        The paper's method (``ocd-paper``) passes it through VGG11. Default: None.
        """
        return None

    # -- report -------------------------------------------------------------------------------------------------------
    metric_info: ClassVar[Mapping[str, Metric]] = {}
    """Metrics whose name is not in :data:`ocd_bench.metrics.KNOWN`."""
    average: ClassVar[Metric | None] = None
    """Unit and direction of the mean of the primary metric over datasets. Default: None, and there is no such mean."""

    def figures(self, splits: Splits, outputs: Mapping[str, torch.Tensor], request: Request, folder: Path) -> Sequence[Path]:
        """Write pictures or sounds of a few test samples into ``folder``, and return their paths. Default: none.

        Args:
            splits: the task's splits, with the test samples.
            outputs: method name to its outputs ``(n_test, ...)``.
            request: dataset, settings, seed.
            folder: an existing folder.
        """
        return ()
