"""Few-shot text: where a base of 8 texts a class errs, learnt on other datasets and used on a new one without training.

    python benchmarks/few_shot_meta.py --data-dir DATA
    python benchmarks/few_shot_meta.py --slice

The base is the logistic regression of the task ``nlp`` on the packaged MiniLM, which stays frozen. Of a linear layer that sees
a unit vector a, ΔW = u aᵀ adds u to the logits. So a hypernetwork predicts one number per class, and a plain correction of the
logits (the control `capacity`) is the same network. Here it is a regression, without diffusion. It is told how a text scores in
each class: by the base, by the similarity to the class's texts, and by the same scores in the lower layers of MiniLM. It treats
all classes alike, so it can be trained on draws from sets with any number of them.

Each set is left out in turn. The network is trained on draws from the other sets and from the packaged `requests`. Its factor
(0: the base), and in the row "best of these" the network, are those that help most, on average, on each of the other sets when
that one is left out of training as well. The test labels of the set that is left out are used for scores only. Intervals are
Student's: over draws, of the mean over sets, and over sets. The rows "in-draw" learn from the draw's own texts. Each of them is
scored by what was fitted without it (and without one text of each other class). "Own draws" is the oracle of the conditions:
the same network, trained on labelled draws from the training texts of the very set. `oracle` overfits each test text, with its
label. ``--slice`` needs no data: its sets are classes of `requests`, so they share texts, and its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from few_shot.study import Study
from few_shot.texts import Sizes, read

from ocd_bench.errors import OCDBenchError

SMALL = Sizes(pool=100, test=100, train_draws=6, queries=16, test_draws=3, steps=30, own_steps=20)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="holds text/NAME for the four sets; needed without --slice")
    parser.add_argument("--slice", action="store_true", help="a small form, without --data-dir on the packaged requests")
    args = parser.parse_args(arguments)
    if args.data_dir is None and not args.slice:
        parser.error("--data-dir: needed without --slice")
    sizes = SMALL if args.slice else Sizes()
    try:
        for line in Study(read(args.data_dir, sizes), sizes).table():
            print(line, flush=True)
    except OCDBenchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
