"""Random mixtures of speakers. A plan has the segment and level of each source. The same generator gives the same mixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_bench import UsageError
from ocd_bench_speech.audio import is_silent

BLOCK = 80
TRIES = 8
AUDIBLE = 0.2
"""A segment must have this fraction of its speaker's mean power, so that no source is silent."""
HARDLY = 1e-3
"""If no drawn segment has it, the loudest is taken. If that has less than this fraction, another segment is searched for."""


@dataclass(frozen=True)
class Plan:
    """N mixtures of C sources: start of each segment in the pool's audio, its level in dB, and the number of its speaker among
    :attr:`Pool.speakers`, ``(N, C)`` each."""

    starts: Tensor
    levels: Tensor
    speakers: Tensor


class Pool:
    """Speech of S speakers to draw segments of ``length`` samples from.

    Each speaker's utterances are concatenated in the given order to a stream. The stream is a loop, so that a segment may begin
    anywhere, and may span several short utterances.

    Args:
        speech: utterances ``(T,)`` of each speaker.
        length: T of the segments.
        groups: speakers of a mixture are of different groups; default: each is one of its own.
        speeds: each speaker's speech is also used at these speeds (1.1: ten per cent faster), which changes pitch and formants.
        portable: whether :meth:`render` gives the same bits on every machine, for generated speech: it computes in double
            precision and rounds to multiples of 2^-15, because each CPU adds up in an order of its own.

    Raises:
        UsageError: if a speaker has no sound at all.
    """

    def __init__(
        self,
        speech: Mapping[str, Sequence[Tensor]],
        length: int,
        speeds: Sequence[float] = (1.0,),
        groups: Mapping[str, int] | None = None,
        portable: bool = False,
    ) -> None:
        self.length, self.speakers, self.variants, self.portable = length, list(speech), len(speeds), portable
        pieces, starts, lengths = [], [], []
        position = 0
        for speaker, utterances in speech.items():
            joined = torch.cat(list(utterances))
            if not len(joined) or is_silent(joined):
                raise UsageError(f"speaker {speaker!r} has no sound in any file")
            for speed in speeds:
                stream = on_grid(at_speed(joined.double(), speed)) if portable else at_speed(joined, speed)
                loop = stream.repeat(-(-length // len(stream)))[:length]
                pieces += [stream, loop]
                starts.append(position)
                lengths.append(len(stream))
                position += len(stream) + length
        self.audio = torch.cat(pieces)
        names = [speaker if groups is None else groups[speaker] for speaker in self.speakers]
        self._groups = torch.tensor([sorted(set(names), key=names.index).index(name) for name in names])
        self._starts, self._lengths = torch.tensor(starts), torch.tensor(lengths)
        blocks = torch.nn.functional.pad(self.audio, (0, -len(self.audio) % BLOCK)).view(-1, BLOCK).square().sum(1)
        self._energy = torch.cat([torch.zeros(1, dtype=torch.float64), blocks.double().cumsum(0)])

    @property
    def seconds_of_speech(self) -> float:
        """Length of the streams as recorded, in samples of 8 kHz over 8000."""
        return float(self._lengths.sum()) / self.variants / 8000

    def _power(self, starts: Tensor, ends: Tensor) -> Tensor:
        """Mean square of the audio from ``starts`` to ``ends``, to the nearest block."""
        return (self._energy[ends // BLOCK] - self._energy[starts // BLOCK]) / (ends - starts)

    def plan(self, count: int, speakers: int, level_db: float, generator: torch.Generator) -> Plan:
        """``count`` mixtures of different speakers, levels uniform in ± ``level_db``.

        Raises:
            UsageError: if the pool has fewer speakers than a mixture needs.
        """
        kinds = int(self._groups.max()) + 1
        if kinds < speakers:
            raise UsageError(f"mixtures of {speakers} need as many different speakers; there are {kinds}")
        groups = torch.rand(count, kinds, generator=generator).argsort(1)[:, :speakers]
        lots = torch.rand(count, 1, len(self.speakers), generator=generator)
        chosen = torch.where(self._groups == groups[..., None], lots, 2.0).argmin(-1)
        streams = chosen * self.variants + torch.randint(self.variants, chosen.shape, generator=generator)
        places = torch.rand(*streams.shape, TRIES, generator=generator, dtype=torch.float64)
        starts = self._starts[streams][..., None] + (places * self._lengths[streams][..., None]).long()
        power = self._power(starts, starts + self.length)
        mean_power = self._power(self._starts, self._starts + self._lengths)
        enough = power >= AUDIBLE * mean_power[streams][..., None]
        pick = torch.where(enough.any(-1), enough.int().argmax(-1), power.argmax(-1))  # else the loudest
        starts = starts.gather(-1, pick[..., None])[..., 0]
        silent = power.amax(-1) < HARDLY * mean_power[streams]
        for place in silent.nonzero().tolist():
            row, source = place
            starts[row, source] = self._audible(int(streams[row, source]), float(places[row, source, 0]))
        levels = (torch.rand(starts.shape, generator=generator) * 2 - 1) * level_db
        return Plan(starts, levels, chosen)

    def _audible(self, stream: int, share: float) -> int:
        """A segment's start in a stream of long silences: that which lies ``share`` of the way through all that can be
        heard."""
        first, length = int(self._starts[stream]), int(self._lengths[stream])
        starts = first + torch.arange(0, length, BLOCK)
        power = self._power(starts, starts + self.length)
        mean_power = self._power(self._starts[stream], self._starts[stream] + self._lengths[stream])
        heard = starts[power >= torch.minimum(AUDIBLE * mean_power, power.max())]
        return int(heard[int(share * len(heard))])

    def render(self, plan: Plan) -> Tensor:
        """Sources ``(N, C, T)`` of a plan; their sum, the mixture, has root mean square 1."""
        segments = torch.stack([self.audio[start : start + self.length] for start in plan.starts.flatten().tolist()])
        if self.portable:
            segments = segments.double()
        segments = segments - segments.mean(-1, keepdim=True)
        segments = segments / segments.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8)
        levels = plan.levels[..., None].to(segments.dtype)
        sources = normalised(segments.view(*plan.starts.shape, self.length) * 10 ** (levels / 20))
        return on_grid(sources) if self.portable else sources

    def draw(self, count: int, speakers: int, level_db: float, generator: torch.Generator) -> Tensor:
        """Sources ``(count, C, T)`` of new mixtures."""
        return self.render(self.plan(count, speakers, level_db, generator))


def normalised(sources: Tensor) -> Tensor:
    """Sources ``(N, C, T)``, scaled by one factor per mixture so that their sum has root mean square 1."""
    level = sources.sum(1, keepdim=True).square().mean(-1, keepdim=True).sqrt()
    return sources / level.clamp_min(1e-8)


def on_grid(wave: Tensor) -> Tensor:
    """``wave`` in float32, rounded to multiples of 2^-15. A difference in the last bits of double precision is gone."""
    return ((wave * 2**15).round() / 2**15).float()


def at_speed(wave: Tensor, speed: float) -> Tensor:
    """``wave (T,)`` at ``speed`` times the speed, ``(T / speed,)``, band-limited."""
    if speed == 1.0:
        return wave
    import torchaudio.functional

    return torchaudio.functional.resample(wave, round(100 * speed), 100)
