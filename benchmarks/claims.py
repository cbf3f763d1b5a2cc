"""The claims of docs/findings.md with the intervals of the present tables, as a Markdown page.

    python benchmarks/claims.py [--out docs/claims.md]

A claim rests on an interval over new seeds and new test samples that excludes zero, and on enough test samples and groups for
that interval to cover what it says.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocd_bench.report import build_table
from ocd_bench.report.numbers import Style
from ocd_bench.results import Run, read_run
from ocd_bench.stats import Estimate

RESULTS = Path(__file__).parent.parent / "results" / "default"
HEAD = """# Claims under the intervals of today

This page is written by `python benchmarks/claims.py --out docs/claims.md` from `results/default`. It lists
what [the findings](findings.md) first stated, under the intervals of that time (*as stated*), and what is left of it under
intervals that count speakers, and new seeds beside new test samples ([how](reading-the-table.md#what-an-interval-covers)).
All of these tables have been made anew since. That of MNIST has a mean over the 17 kinds of corruption that training's copies
lack, where the former one had a mean over all 21, some of them of other strengths; that of two speakers has a better base.
"""


@dataclass(frozen=True)
class Claim:
    """A difference from base that the findings state.

    Attributes:
        text: what is claimed.
        folder: of ``results/default``.
        dataset: as the table names it.
        before: the difference and its interval as stated there.
    """

    text: str
    folder: str
    dataset: str
    method: str
    before: str


OTHERS = "mnist: own, 21 corruptions, severity 3: 17 other kinds"
"""The mean over the kinds that training's copies do not contain. The findings first stated a mean over all 21."""

CLAIMS = (
    Claim("MNIST, accuracy: ocd ahead of its base", "mnist", "mnist", "ocd", "+0.66 [+0.50, +0.83]"),
    Claim("MNIST, 17 kinds: ocd ahead of its base", "mnist", OTHERS, "ocd", "+2.72 [+2.60, +2.86], 21 kinds"),
    Claim("MNIST, 17 kinds: capacity ahead of the base", "mnist", OTHERS, "capacity", "+2.80 [+2.68, +2.94], 21 kinds"),
    Claim("MNIST, 17 kinds: tent-layer loses", "mnist", OTHERS, "tent-layer", "-0.12 [-0.23, -0.02], 21 kinds"),
    Claim("California housing: ocd, aim reached", "tabular", "california_housing", "ocd", "-0.0299 [-0.0343, -0.0256]"),
    Claim("MQ2008: ocd, 'significant: reached'", "tabular", "letor_mq2008", "ocd", "-0.0032 [-0.0046, -0.0018]"),
    Claim("MQ2008: ocd-regress", "tabular", "letor_mq2008", "ocd-regress", "-0.0039 [-0.0057, -0.0022]"),
    Claim("MQ2008: capacity", "tabular", "letor_mq2008", "capacity", "-0.0023 [-0.0036, -0.0009]"),
    Claim("MQ2008, noise: ocd", "tabular", "letor_mq2008+gaussian_noise-3", "ocd", "-0.0012 [-0.0025, 0.0000]"),
    Claim("MQ2008, missing cells: ocd", "tabular", "letor_mq2008+missing-3", "ocd", "-0.0024 [-0.0036, -0.0012]"),
    Claim("MQ2008, drift: ocd", "tabular", "letor_mq2008+scale_shift-3", "ocd", "-0.0036 [-0.0052, -0.0022]"),
    Claim("Lego: ocd, -36 %, reached", "lego", "lego", "ocd", "-36 % (six views, no interval)"),
    Claim("speech, 2 speakers: ocd", "speech-2", "librispeech_8k", "ocd", "+0.21 [+0.10, +0.32]"),
    Claim("speech, 2 speakers: ocd-regress", "speech-2", "librispeech_8k", "ocd-regress", "+0.19 [+0.08, +0.30]"),
    Claim("speech, 2 speakers: tent-layer loses", "speech-2", "librispeech_8k", "tent-layer", "-0.23 [-0.27, -0.20]"),
    Claim("speech, noise: ocd", "speech-2", "librispeech_8k+gaussian_noise-3", "ocd", "+0.13 [+0.08, +0.18]"),
    Claim("speech, noise: tent-layer", "speech-2", "librispeech_8k+gaussian_noise-3", "tent-layer", "-0.17 [-0.20, -0.14]"),
    Claim("speech, 3 speakers: ocd", "speech-3", "librispeech_8k", "ocd", "+0.12 [+0.08, +0.17]"),
    Claim("speech, 3 speakers: tent-layer loses", "speech-3", "librispeech_8k", "tent-layer", "-0.26 [-0.30, -0.23]"),
    Claim("text, mean of four: ocd does no harm", "nlp", "average of 4 datasets", "ocd", "-0.11 [-0.42, +0.13]"),
    Claim("text, mean of four: ocd-regress loses", "nlp", "average of 4 datasets", "ocd-regress", "-0.30 [-0.45, -0.18]"),
    Claim("text, mean of four: capacity loses", "nlp", "average of 4 datasets", "capacity", "-0.15 [-0.27, -0.05]"),
)


def found(claim: Claim, run: Run) -> tuple[Estimate, Style] | None:
    """The difference with today's intervals; None where the table has none."""
    for group in build_table(run).groups:
        row = next((row for row in group.rows if row.method == claim.method), None)
        if group.dataset != claim.dataset or row is None or row.delta is None or group.primary is None:
            continue
        if row.delta.low is not None or row.delta.doubt:
            return row.delta, group.primary.style
    return None


def line(claim: Claim, run: Run) -> list[str]:
    """A row of the page."""
    answer = found(claim, run)
    if answer is None:
        return [claim.text, claim.before, "–", "–", "not in the folder"]
    estimate, style = answer
    samples = style.difference(estimate)
    wide = style.interval(estimate.wide) if estimate.wide else "–"
    clear = estimate.wide is not None and (estimate.wide[0] > 0 or estimate.wide[1] < 0)
    if estimate.wide is None:
        verdict = f"no interval: {estimate.doubt}"
    elif clear and estimate.doubt:
        verdict = f"zero is outside, but it is no claim: {estimate.doubt}"
    else:
        verdict = "holds" if clear else "not significant"
    return [claim.text, claim.before, samples, wide, verdict]


def page() -> str:
    """The whole page."""
    runs = {folder: read_run(RESULTS / folder) for folder in dict.fromkeys(claim.folder for claim in CLAIMS)}
    rows = [line(claim, runs[claim.folder]) for claim in CLAIMS]
    head = ["claim", "as stated", "Δ base, new samples", "new seeds and samples", "now"]
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(
        f"| {' | '.join(text.replace('[', chr(92) + '[').replace(']', chr(92) + ']') for text in row)} |" for row in lines
    )
    return f"{HEAD}\n{table}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file to write; default: print")
    options = parser.parse_args(arguments)
    text = page()
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
