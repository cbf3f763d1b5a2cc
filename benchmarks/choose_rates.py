"""Rates of EATA and SAR, chosen on corruptions that no table reports: the four extra kinds of CIFAR-10-C.

The pictures are validation pictures. Prints the mean accuracy over the kinds for each rate, and the best rate.

    python benchmarks/choose_rates.py --dataset cifar10 --data-dir ../shared/data --set images.model=resnet20
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict

from runs import add_options, run

RATES = (2.5e-4, 1e-3, 5e-3, 1e-2)
CORRUPTIONS = "cifar10-c-extra:5"


def main() -> None:
    """A line for each method and rate, then the choice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser)
    parser.set_defaults(preset="default", seeds=1)
    args = parser.parse_args()
    means: dict[str, dict[float, float]] = defaultdict(dict)
    for rate in RATES:
        settings = [f"eata.lr={rate}", f"sar.lr={rate}", "images.report_on=validation"]
        cells = json.loads(run(args, "bn-adapt,eata,sar", settings, ["--corruption", CORRUPTIONS])[0])["cells"]
        values: dict[str, list[float]] = defaultdict(list)
        for cell in cells:
            values[cell["method"]].append(100 * cell["metrics"]["accuracy"]["value"])
        for method, accuracies in values.items():
            means[method][rate] = sum(accuracies) / len(accuracies)
            if method != "bn-adapt" or rate == RATES[0]:
                print(f"{method:9} lr {rate:<8g} {means[method][rate]:.2f} % (mean of {len(accuracies)} cells)", flush=True)
    for method in ("eata", "sar"):
        best = max(RATES, key=lambda rate: (means[method][rate], -rate))
        print(f"{method}: lr {best:g}")


if __name__ == "__main__":
    main()
