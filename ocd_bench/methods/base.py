"""``base``: the trained base model, unchanged. Every other row is compared with it. ``base-anew``: the base trained here."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ocd_bench.method import Context, Method, Predictor


class Base(Method):
    """The base model in eval mode."""

    name = "base"
    description = "the trained base model, unchanged"
    follows = True

    def fit(self, context: Context) -> Callable[[torch.Tensor], torch.Tensor]:
        model = context.base

        def predict(inputs: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return model(inputs)

        return predict


class BaseAnew(Method):
    """The base as training here and now gives it. It equals ``base``, unless the run was given stored bases."""

    name = "base-anew"
    description = "the base trained here, beside a stored one (run --bases)"
    default = False

    def fit(self, context: Context) -> Predictor:
        return _Anew(*context.base_anew())


class _Anew(Predictor):
    def __init__(self, model: torch.nn.Module, base_sha256: str) -> None:
        self.model, self.base_sha256 = model, base_sha256

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model(inputs)


METHODS = [Base(), BaseAnew()]
