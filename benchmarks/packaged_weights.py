"""The packaged CIFAR ResNets on all 10,000 test pictures: their published accuracies, to the digit.

A table never shows these numbers: the files were chosen on this very test set, so tables set 2,000 of its pictures aside for
validation and report on the other 8,000.

    python benchmarks/packaged_weights.py --data-dir ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ocd_bench import Request
from ocd_bench_images.models import build
from ocd_bench_images.models.weights import find_weights
from ocd_bench_images.task import Images, ImagesSettings

PUBLISHED = {"resnet20": 91.73, "resnet32": 92.63, "resnet44": 93.10, "resnet56": 93.39}


def accuracy(name: str, data: Path) -> tuple[float, float]:
    """Accuracy in percent and mean cross entropy in nats on validation and test part together."""
    settings = ImagesSettings(model=name)
    request = Request("images", "cifar10", settings, data_dirs=(data,))
    splits = Images().load_data(request)
    model = build(splits, request, settings).eval()
    right, loss, count = 0, 0.0, 0
    with torch.no_grad():
        for part in (splits.val, splits.test):
            for inputs, targets in zip(part.inputs.split(500), part.targets.split(500), strict=True):
                output = model(inputs)
                right += int((output.argmax(1) == targets).sum())
                loss += float(torch.nn.functional.cross_entropy(output, targets, reduction="sum"))
                count += len(targets)
    return 100 * right / count, loss / count


def main() -> None:
    """Print a line for each file that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--models", default=",".join(PUBLISHED))
    arguments = parser.parse_args()
    for name in arguments.models.split(","):
        request = Request("images", "cifar10", None, data_dirs=(arguments.data_dir,))
        weights = find_weights(request, ImagesSettings(model=name))
        if weights is None:
            print(f"{name}: no file")
            continue
        percent, nats = accuracy(name, arguments.data_dir)
        print(f"{name}: {percent:.2f} %, published {PUBLISHED[name]:.2f} %, cross entropy {nats:.3f}, sha256 {weights.sha256}")


if __name__ == "__main__":
    main()
