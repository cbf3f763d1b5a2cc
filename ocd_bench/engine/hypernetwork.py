"""g(I(x)) = rho(I(x)) g_u(I(x)): the scale network, and the network that gives a direction (paper section 3.2).

A code c of an overfitted ΔW is split into its length ‖c‖, which the scale network learns, and its direction c √K / ‖c‖, which
the diffusion model learns: the paper's division by the norm, times a constant that gives each of the K numbers unit variance,
as the noise has. For orthonormal forms (full, basis) the length is the norm of ΔW; for rank one it is that of ΔW a, the change
of the layer's response.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocd_bench.engine.condition import AuxiliaryHead, Condition, Features
from ocd_bench.engine.forms import Form
from ocd_bench.engine.sampler import ddim
from ocd_bench.engine.scale import ScaleNetwork, scale_loss_db, scale_loss_log
from ocd_bench.engine.schedule import NoiseSchedule
from ocd_bench.engine.targets import Targets
from ocd_bench.engine.through import Through


class HyperNetwork(nn.Module):
    """From features of samples to codes ``(N, K)``.

    Args:
        condition: features to condition vectors ``(N, width)``.
        network: with ``schedule``, a denoiser ``(code, t, condition) -> (N, K)``; without, a regressor ``condition -> (N, K)``.
        form: what codes of K numbers mean; a learned one is trained with the rest.
        schedule: of the diffusion; None for plain regression of the direction.
        scale: None leaves out the scale network: directions then keep their lengths, divided by one constant for all samples.
        prediction, sampling_steps: of the diffusion.
        guidance, unconditional: of the diffusion, see ``OCDSettings``; a condition of its own stands for none.
        scale_loss: ``"log"`` or ``"db"``.
        noise_draws: noise levels per sample in :meth:`loss`.
        task_draws: how many of these are run through the base.
        outputs: length D of the auxiliary head's output; 0: there is no such head.
        auxiliary: its weight beside the task's loss.
    """

    length: Tensor

    def __init__(
        self,
        condition: Condition,
        network: nn.Module,
        form: Form,
        *,
        schedule: NoiseSchedule | None,
        scale: ScaleNetwork | None,
        prediction: str = "v",
        sampling_steps: int = 10,
        guidance: float = 1.0,
        unconditional: float = 0.0,
        scale_loss: str = "log",
        noise_draws: int = 1,
        task_draws: int = 1,
        outputs: int = 0,
        auxiliary: float = 1.0,
    ) -> None:
        super().__init__()
        self.condition, self.network, self.schedule, self.scale = condition, network, schedule, scale
        self.form = form
        self.size, self.prediction, self.scale_loss, self.noise_draws = form.size, prediction, scale_loss, noise_draws
        self.task_draws = task_draws
        self.head = AuxiliaryHead(condition.width, outputs) if outputs else None
        self.auxiliary = auxiliary
        self.guidance, self.unconditional = guidance, unconditional
        self.nothing = nn.Parameter(torch.zeros(condition.width)) if schedule is not None and guidance != 1 else None
        self.sampling_steps = sampling_steps if schedule is None else min(sampling_steps, len(schedule))
        self.register_buffer("length", torch.ones(()))  # root mean square length of training codes

    def calibrate(self, targets: Targets) -> None:
        """Take the statistics of training targets: of the features, and of the lengths of codes.

        Raises:
            ValueError: if all codes are zero: there is nothing to learn.
        """
        lengths = targets.code.norm(dim=1)
        if not lengths.any():
            raise ValueError("overfitting changes no weight of any training sample")
        self.length.copy_(lengths.square().mean().sqrt())
        self.condition.calibrate(targets.features, targets.inputs)
        if self.scale is not None:
            self.scale.calibrate(self._lengths(targets.code))

    def _lengths(self, code: Tensor) -> Tensor:
        """Lengths ``(N,)``, from a thousandth of the typical one up: below that a change is none, however much smaller."""
        return code.norm(dim=1).clamp(min=1e-3 * float(self.length))

    @torch.no_grad()
    def scales(self, targets: Targets) -> Tensor:
        """rho_s of the targets beside the predicted rho, ``(N, 2)``; without a scale network there is none to compare."""
        if self.scale is None:
            return torch.empty(0, 2)
        return torch.stack([self._lengths(targets.code), self.scale(self.condition(targets.features, targets.inputs))], 1)

    def directions(self, code: Tensor) -> Tensor:
        """Codes with their lengths taken out, see above; the zero code stays zero."""
        if self.scale is None:
            return code * self.size**0.5 / self.length
        lengths = code.norm(dim=1, keepdim=True)
        return code * self.size**0.5 / lengths.clamp(min=1e-8 * float(self.length))

    def loss(self, targets: Targets, generator: torch.Generator, through: Through | None = None) -> dict[str, Tensor]:
        """Training losses of a batch, scalars to be summed: ``diffusion`` (or ``regression``: squared error of the direction),
        ``scale``, and, beyond the paper, ``task`` and ``auxiliary``.

        Args:
            generator: CPU generator of the noise and the noise levels.
            through: the task's loss. It is given what the network makes of ``task_draws`` codes per sample at the last time,
                where sampling begins and nothing but the condition tells where to go: the directions without noise that it
                implies, times the predicted length.
        """
        e = self.condition(targets.features, targets.inputs)
        direction = self.directions(targets.code)
        if self.schedule is None:
            implied = self.network(e)
            found = {"regression": F.mse_loss(implied, direction)}
        else:
            many, x0 = e.repeat(self.noise_draws, 1), direction.repeat(self.noise_draws, 1)
            noise = torch.randn(x0.shape, generator=generator).to(x0)
            t = torch.randint(len(self.schedule), (len(x0),), generator=generator).to(x0.device)
            if through is not None:
                t[: self.task_draws * len(e)] = len(self.schedule) - 1
            if self.nothing is not None:
                withheld = torch.rand(len(many), generator=generator).to(many) < self.unconditional
                if through is not None:  # what the task's loss is taken of is told everything
                    withheld[: self.task_draws * len(e)] = False
                many = torch.where(withheld[:, None], self.nothing, many)
            x_t = self.schedule.add_noise(x0, t, noise)
            output = self._denoise(x_t, t, many)
            found = {"diffusion": F.mse_loss(output, self.schedule.target(x0, t, noise, self.prediction))}
            implied = self.schedule.split(output, x_t, t, self.prediction)[0]
        if self.scale is not None:
            lengths = self._lengths(targets.code)
            if self.scale_loss == "db":
                # Its gradient grows without bound near the answer and would drown the direction's in what they share.
                found["scale"] = scale_loss_db(self.scale(e.detach()), lengths).mean()
            else:
                # In units of the lengths' own spread, so that it weighs the same whatever the task.
                found["scale"] = scale_loss_log(self.scale(e), lengths).mean() / self.scale.std**2
        if through is not None:
            draws = implied.reshape(-1, *direction.shape)[: self.task_draws]
            found["task"] = through.of_codes(self.codes(e, draws), self.form)
            if self.head is not None:
                found["auxiliary"] = self.auxiliary * through.of_outputs(self.head(e))
        return found

    def codes(self, e: Tensor, directions: Tensor) -> Tensor:
        """Codes ``(D, N, K)`` of directions ``(D, N, K)`` under condition vectors ``(N, width)``: lengths put back in."""
        length = self.length if self.scale is None else self.scale(e).unsqueeze(1)
        return directions * length / self.size**0.5

    def _denoise(self, x: Tensor, t: Tensor, e: Tensor) -> Tensor:
        assert self.schedule is not None
        return self.network(x, t * (1000 / len(self.schedule)), e)

    @torch.no_grad()
    def generate(self, features: Features, inputs: Tensor | None, noise: Tensor, random: bool = False) -> Tensor:
        """Codes ``(D, N, K)`` for D draws of the same N samples; the condition is computed once.

        Args:
            noise: ``(D, N, K)`` standard normal; a regressor does not use it, so its draws are equal.
            random: take the noise itself as the direction (the control of the direction's worth).
        """
        e = self.condition(features, inputs)
        return self.codes(e, torch.stack([self._direction(e, draw, random) for draw in noise]))

    def _direction(self, e: Tensor, noise: Tensor, random: bool) -> Tensor:
        if random:
            return noise
        if self.schedule is None:
            return self.network(e)
        steps, prediction = self.sampling_steps, self.prediction
        return ddim(lambda x, t: self._guided(x, t, e), self.schedule, noise, steps, prediction=prediction)

    def _guided(self, x: Tensor, t: Tensor, e: Tensor) -> Tensor:
        """What the denoiser says of ``e``, guided away from what it says of nothing known."""
        told = self._denoise(x, t, e)
        if self.nothing is None:
            return told
        untold = self._denoise(x, t, self.nothing.expand_as(e))
        return untold + self.guidance * (told - untold)
