"""How the targets of many samples are made: anew for every batch, or beforehand, as a bank; and those of validation samples.

A bank is kept for the next fit on the same base, and a process that was killed while it made one continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.forms import FORMS, Form, FullForm
from ocd_bench.engine.learn import RandomSource
from ocd_bench.engine.problem import CPU
from ocd_bench.engine.shuffled import Shuffled
from ocd_bench.engine.stream import Pieces, TargetStream
from ocd_bench.engine.targets import Targets, join, validation_samples
from ocd_bench.progress import Progress
from ocd_bench.seeds import seeded

BANK_LIMIT = 2**28
"""Numbers that targets made beforehand may take, where the settings do not ask for them."""


def bank(stream: TargetStream, form: Form) -> Targets:
    """Targets of all training samples, ``passes`` times over (at least once), in their order, on the CPU."""
    generator, passes = seeded(stream.problem.seed, "targets"), max(1, stream.how.passes)
    order = stream.grouped(torch.arange(len(stream.fold)))
    pieces = (piece for _ in range(passes) for part in stream.parts(order) for piece in _split(*part))

    def made(layer: TargetLayer, x: Tensor, y: Tensor) -> Targets:
        return stream.encoded(layer, form, *stream.copy(x, y, generator), generator).to(CPU)

    loop = stream.problem.stage("overfit", ("bank", stream.how, type(form), form.size))
    found = gathered(pieces, made, generator, loop, passes * len(order))
    if len(stream.layers) == 1:
        return found
    places = order.argsort() + len(order) * torch.arange(passes)[:, None]
    return found.take(places.flatten())


def whole_bank(stream: TargetStream) -> Targets | None:
    """Targets made beforehand with ΔW itself as the code, which a basis is fitted to.

    None where ``how.form`` is no such form, or they are too many.
    """
    outputs, columns = stream.problem.layer.shape
    count = stream.how.passes * len(stream.fold)
    fitted = stream.how.form in FORMS and FORMS[stream.how.form].fitted
    if not fitted or not 0 < count * outputs * columns <= BANK_LIMIT:
        return None
    return stream.problem.remember(("whole", stream.how), lambda: bank(stream, FullForm((outputs, columns))))


def beforehand(stream: TargetStream, form: Form) -> bool:
    """Whether targets are made beforehand: asked for, or one pass is cheaper than new targets for every batch.

    It is cheaper where nothing is random, or not even a batch fits into memory.
    """
    how, (inputs, _) = stream.how, stream.problem.train
    if how.passes:
        return True
    if how.steps * how.batch_size < len(inputs):
        return False
    if stream.random and stream.problem.layer.rows(inputs) >= min(how.batch_size, len(inputs)):
        return False
    x, y = stream.problem.train[0][:1], stream.problem.train[1][:1]
    pilot = seeded(stream.problem.seed, "pilot")
    example = stream.encoded(stream.problem.layer, form, *stream.copy(x, y, pilot), pilot)
    return len(inputs) * example.numbers() <= BANK_LIMIT


def batches(stream: TargetStream, form: Form) -> tuple[Callable[[], tuple[Targets, Pieces]], Targets, Sequence[RandomSource]]:
    """A function that gives the next training batch on the device; targets to take statistics from, on the CPU; and the
    sources of random numbers behind the batches."""
    seed, how = stream.problem.seed, stream.how
    indices = Shuffled(len(stream.fold) * max(1, how.passes), how.batch_size, seeded(seed, "order"))
    changes = seeded(seed, "augment")
    if beforehand(stream, form):
        made = _known_bank(stream, form)

        def known() -> tuple[Targets, Pieces]:
            chosen = stream.grouped(next(indices))
            found = made.take(chosen).to(stream.problem.device)
            return found, stream.traced_from_bank(found, chosen, changes) if how.answers else ()

        return known, made, (indices, changes)

    def fresh() -> tuple[Targets, Pieces]:
        return stream.make(form, stream.grouped(next(indices)), changes)

    pilot = seeded(seed, "pilot")
    some = torch.randperm(len(stream.fold), generator=pilot)[:512]
    pilot = seeded(seed, "pilot")
    some_targets = join([stream.make(form, stream.grouped(few), pilot)[0].to(CPU) for few in some.split(256)])
    return fresh, some_targets, (indices, changes)


def _known_bank(stream: TargetStream, form: Form) -> Targets:
    whole = whole_bank(stream)
    if whole is None:
        return stream.problem.remember(("targets", stream.how), lambda: bank(stream, form))
    return replace(whole, code=form.project(whole.code))


def validation(stream: TargetStream, form: Form, limit: int) -> Targets:
    """Targets of at most ``limit`` validation samples, not augmented, on the CPU."""

    def build() -> Targets:
        inputs, targets = validation_samples(stream.problem, limit)
        generator = seeded(stream.problem.seed, "validation")

        def made(layer: TargetLayer, x: Tensor, y: Tensor) -> Targets:
            return stream.encoded(layer, form, x, y, generator).to(CPU)

        loop = stream.problem.stage("overfit", ("validation", stream.how, limit, type(form), form.size))
        return gathered(_split(stream.problem.layer, inputs, targets), made, generator, loop, len(inputs))

    return stream.problem.remember(("validation", stream.how, limit), build)


def _split(layer: TargetLayer, inputs: Tensor, targets: Tensor) -> Iterator[tuple[TargetLayer, Tensor, Tensor]]:
    """The samples 256 at a time."""
    for x, y in zip(inputs.split(256), targets.split(256), strict=True):
        yield layer, x, y


def gathered(
    pieces: Iterable[tuple[TargetLayer, Tensor, Tensor]],
    made: Callable[[TargetLayer, Tensor, Tensor], Targets],
    generator: torch.Generator,
    loop: Progress,
    total: int,
) -> Targets:
    """What ``made`` makes of all pieces, as one. Begins where a process that was killed has kept the loop's state.

    Args:
        generator: the only source of random numbers of ``made``.
        total: samples in all pieces.
    """
    done, count, found = 0, 0, list[Targets]()
    if state := loop.resume():
        done, count, found = state["pieces"], state["count"], [Targets(**state["targets"])]
        generator.set_state(state["generator"])

    def now() -> dict[str, Any]:
        targets = {field.name: getattr(join(found), field.name) for field in fields(Targets)}
        return {"pieces": done, "count": count, "targets": targets, "generator": generator.get_state()}

    for layer, x, y in islice(pieces, done, None):
        found.append(made(layer, x, y))
        done, count = done + 1, count + len(x)
        loop(count, total)
        loop.save(now, finished=count == total)
    return join(found)
