"""Makes the tables of ``results/`` anew: one command, which continues where it was when it is run again.

    python benchmarks/tables.py --data-dir DATA                  every table, one after the other
    python benchmarks/tables.py --data-dir DATA cifar10-c usps   some of them
    python benchmarks/tables.py --list                           names, and the command of each

Each table is one ``ocd-bench run`` into a folder below ``--work``, with a log beside it. A run that ended well is copied to
``results/default``: cells, tables, and the scores of each sample. If all scores of a table take more than two megabytes, those
of the primary metric are kept, and on the plain test set those of every metric. ``results/README.md`` then lists what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ocd_bench import load
from ocd_bench.files import seal, sha256, write_atomic
from ocd_bench.merging import missing
from ocd_bench.results import json_bytes, read_run
from ocd_bench.runner.store import pack_scores

RESULTS = Path(__file__).parent.parent / "results"
SMALL = 2_000_000
"""Bytes of scores that a table may have before only those of the primary metric are kept."""

LENET = "--set images.checkpoint=reference_checkpoints/checkpoint_lenet5.pth"
NERF = "--set recon3d.checkpoint=reference_checkpoints/checkpoint_tinynerf.pt --set recon3d.base_steps=600"
PUBLISHED = "bn-adapt,tent,tent-episodic,eata,sar,t3a,lame"
OCD = "ocd,ocd-x5,ocd-regress"
CONTROLS = "capacity,finetune,temperature"
RESNET = "--task images --dataset cifar10 --set images.model=resnet20"
CHOSEN = (
    "--set tent.lr=0.005 --set eata.lr=0.02 --set sar.lr=0.1 --set eata.margin=0.4 --set eata.distance=0.4 --set eata.alpha=1"
)
"""What choose_rates.py has chosen for ResNet-20 on 2,000 validation pictures, under the four kinds that no table reports, one
after the other without a reset: a stream as long as a test stream."""
SHORT = (
    "--set tent.lr=0.02 --set eata.lr=0.02 --set sar.lr=0.1 --set eata.margin=0.8 --set eata.distance=0.6 --set eata.alpha=0"
)
"""What it had chosen with a reset between the kinds: on 10 batches, where a test stream has 40."""
CHOSEN_TINY = (
    "--set tent.dropout=false --set eata.dropout=false --set sar.dropout=false "
    "--set tent.lr=0.02 --set eata.lr=0.02 --set sar.lr=0.005 --set eata.margin=0.2 --set eata.distance=0.4 --set eata.alpha=1"
)
"""As CHOSEN, for EfficientNet-Lite0 on 200 validation pictures of Tiny ImageNet, at severity 5 (the table: 3): streams of
8 batches, where a test stream has 5. The network has dropout, which is off: it cost Tent 4.4 points under each of two kinds, on
500 validation pictures."""

OWN = (
    f"{RESNET} --set images.checkpoint=none --set images.train_samples=20000 --set images.test_samples=8000 --seeds 1 "
    "--set base.epochs=15 --set base.precision=bf16 --set run.batch_size=200 --set ocd.steps=1000"
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: the options of its run, and what it shows."""

    name: str
    shows: str
    options: str

    def command(self, data: str) -> list[str]:
        """The options with the folder of data."""
        return ["run", "--data-dir", data, *shlex.split(self.options)]


STREAMS = tuple(
    Table(
        f"cifar10-streams-{size}",
        f"ResNet-20 under four kinds of corruption in five orders of samples, 1,000 pictures, batches of {size}",
        f"{RESNET} --seeds 1 --methods base,bn-adapt,tent,eata,sar,t3a,lame,mixnorm,ttn,norm-rule,ocd-norms --corruption "
        "gaussian_noise:5,defocus_blur:5,fog:5,jpeg_compression:5 "
        f"--stream iid,sorted,dirichlet:0.1,mixed,continual --set images.test_samples=1000 --set run.batch_size={size} "
        f"{CHOSEN}",
    )
    for size in (1, 8, 64, 200)
)

TABLES = (
    Table(
        "cifar10-c",
        "ResNet-20 under the 15 kinds of CIFAR-10-C at severity 5, 8,000 pictures: rows that train nothing, one seed",
        f"{RESNET} --seeds 1 --methods base,{PUBLISHED},mixnorm,norm-rule,temperature "
        f"--corruption none,cifar10-c:5 --set run.batch_size=200 {CHOSEN}",
    ),
    Table(
        "cifar10-c-short",
        "the same, with Tent's, EATA's and SAR's settings chosen on streams of 10 batches",
        f"{RESNET} --seeds 1 --methods base,{PUBLISHED},mixnorm,norm-rule,temperature "
        f"--corruption none,cifar10-c:5 --set run.batch_size=200 {SHORT}",
    ),
    Table(
        "cifar10-c-tent",
        "the same 8,000 pictures: Tent at its published rate of 0.001, not at the one chosen on shorter streams",
        f"{RESNET} --seeds 1 --methods base,bn-adapt,tent --corruption none,cifar10-c:5 --set run.batch_size=200",
    ),
    Table(
        "cifar10-c-ocd",
        "the same 15 kinds on 2,000 pictures: rows that are trained, one seed",
        f"{RESNET} --seeds 1 --methods base,bn-adapt,tent,norm-rule,ttn,ocd-norms,{OCD},{CONTROLS},oracle "
        f"--corruption none,cifar10-c:5 --set run.batch_size=200 --set images.test_samples=2000 {SHORT}",
    ),
    Table(
        "cifar10-c-pairs",
        "the same 15 kinds on 2,000 pictures: OCD and its control on the model that another method adapts, one seed",
        f"{RESNET} --seeds 1 --methods base,bn-adapt,tent,ocd,bn-adapt+ocd,tent+ocd,bn-adapt+capacity "
        "--corruption none,cifar10-c:5 --set run.batch_size=200 --set images.test_samples=2000 --set ocd.passes=1 "
        f"--set ocd.task_batch=16 --set ocd.steps=800 {CHOSEN}",
    ),
    Table(
        "cifar10-c-1000",
        "the same 15 kinds: rows that take seconds, on 1,000 pictures",
        f"{RESNET} --seeds 1 --methods base,bn-adapt,tent,eata,t3a,lame,norm-rule,temperature "
        f"--corruption none,cifar10-c:5 --set run.batch_size=200 --set images.test_samples=1000 {SHORT}",
    ),
    Table(
        "cifar10-c-memo",
        "the rows with many copies of each picture, MEMO and SITA, with others on the same 1,000 pictures",
        f"{RESNET} --seeds 1 --methods base,bn-adapt,tent,memo,mixnorm,sita,norm-rule,ocd-norms "
        f"--corruption none,cifar10-c:5 --set run.batch_size=200 --set images.test_samples=1000 {CHOSEN}",
    ),
    Table(
        "cifar10-c-resnet56",
        "ResNet-56 under the 15 kinds, 2,000 pictures: six rows, one seed; Tent at its published rate",
        "--task images --dataset cifar10 --set images.model=resnet56 --seeds 1 "
        "--methods base,bn-adapt,tent,norm-rule,ocd-norms,ocd "
        "--corruption none,cifar10-c:5 --set run.batch_size=200 --set images.test_samples=2000",
    ),
    Table(
        "cifar10-own",
        "a ResNet-20 trained here on 20,000 pictures, which errs on these pictures too; clean, 8,000 test pictures",
        f"{OWN} --methods base,ocd,ocd-x5,capacity,temperature,oracle",
    ),
    Table(
        "cifar10-crossfit",
        "the same base; OCD's targets are those of bases that have not seen the picture (three folds)",
        f"{OWN} --methods base,ocd,ocd-x5,temperature --set ocd.folds=3",
    ),
    *STREAMS,
    Table(
        "tiny-imagenet",
        "EfficientNet-Lite0 on Tiny ImageNet, 50 classes, clean and under the 15 kinds at severity 3, 500 pictures",
        "--task images --dataset tiny_imagenet_50 --set images.model=efficientnet-lite0 --seeds 1 "
        f"--methods base,{PUBLISHED},mixnorm,ttn,norm-rule,ocd-norms,ocd,ocd-x5,capacity,temperature,oracle "
        f"--corruption none,cifar10-c:3 --set images.test_samples=500 --set run.batch_size=100 "
        f"--set ocd.passes=1 --set ocd.steps=800 {CHOSEN_TINY}",
    ),
    Table(
        "usps",
        "MNIST to USPS, the authors' LeNet5: a shift that nobody simulated",
        f"--task images --dataset mnist-usps {LENET} --seeds 3 "
        f"--methods base,{OCD},{CONTROLS},base-longer,t3a,lame,tent-layer,oracle",
    ),
    Table(
        "drift",
        "gas sensors and rented bikes: rows of later months and of the next year; bases of 100 epochs, on gas 300 steps",
        "--task tabular --dataset gas_sensor_drift,bike_sharing --seeds 3 --set base.least_steps=0 --set base.epochs=100 "
        f"--methods base,{PUBLISHED},{OCD},{CONTROLS},base-longer,xgboost,oracle",
    ),
    Table(
        "mnist",
        "the authors' LeNet5 on MNIST, clean and under our own 21 kinds at severity 3",
        f"--task images --dataset mnist {LENET} --seeds 3 "
        f"--methods base,ocd,ocd-regress,{CONTROLS},base-longer,tent-layer,t3a,lame,oracle --corruption none,own:3",
    ),
    Table(
        "tabular",
        "California housing and MQ2008, clean and under shift",
        "--task tabular --dataset california_housing,letor_mq2008 --seeds 3 "
        f"--methods base,{OCD},capacity,finetune,base-longer,xgboost,oracle --corruption none,all:3",
    ),
    Table(
        "tabular-short",
        "the same, with bases of 100 epochs: not at their plateau on California housing",
        "--task tabular --dataset california_housing,letor_mq2008 --seeds 3 --set base.epochs=100 "
        f"--methods base,{OCD},capacity,finetune,base-longer,xgboost,oracle --corruption none,all:3",
    ),
    Table(
        "tabular-plain",
        "the same, with a base of 100 epochs on unchanged rows, and the gain of least validation loss",
        "--task tabular --dataset california_housing,letor_mq2008 --seeds 3 --methods base,ocd,capacity "
        "--corruption none,all:3 --set base.augment=false --set base.epochs=100 --set ocd.gain_share=1",
    ),
    Table(
        "lego",
        "the authors' TinyNeRF on Lego",
        f"--task recon3d --dataset lego {NERF} --seeds 3 --methods base,ocd,ocd-x5,capacity,finetune,base-longer,oracle",
    ),
    Table(
        "nlp",
        "few-shot text: four sets, 8 texts a class",
        "--task nlp --dataset sst5,emotion,ag_news,amazon_counterfactual_en --seeds 3,4,5 "
        f"--methods base,{OCD},{CONTROLS},base-longer,oracle",
    ),
    Table(
        "speech-2",
        "two speakers, clean and under noise; without finetune, which takes longer than all other rows together",
        "--task speech --dataset librispeech_8k --seeds 3 "
        "--methods base,ocd,ocd-regress,capacity,tent-layer,oracle --corruption none,gaussian_noise:3",
    ),
    Table(
        "speech-2-finetune",
        "two speakers: the base trained further on the mixtures of the hypernetwork, one seed",
        "--task speech --dataset librispeech_8k --seeds 1 --methods base,finetune",
    ),
    Table(
        "speech-3",
        "three speakers",
        "--task speech --dataset librispeech_8k --set speech.speakers=3 --seeds 3 "
        "--methods base,ocd,ocd-regress,capacity,tent-layer,oracle",
    ),
)


def run(table: Table, data: str, work: Path, extra: Sequence[str] = ()) -> int:
    """Run or continue a table. Returns the exit code; the output is in ``NAME.log``."""
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ocd_bench", *table.command(data), "--out", str(work / table.name), *extra]
    with open(work / f"{table.name}.log", "ab") as log:
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def publish(run_folder: Path, target: Path) -> None:
    """Copy a run without figures, traces and scores that are too large; each copied cell is sealed with its own scores."""
    if target.exists():
        shutil.rmtree(target)
    (target / "cells").mkdir(parents=True)
    run = load(run_folder)
    run.stored.info = measured(run.stored.info, run_folder)
    write_atomic(target / "run.json", json_bytes(seal(run.stored.info)))
    (target / "table.md").write_text(run.table("markdown"), encoding="utf-8")
    scores = sorted((run_folder / "scores").glob("*.npz"))
    if sum(path.stat().st_size for path in scores) <= SMALL:
        shutil.copytree(run_folder / "scores", target / "scores")
        shutil.copytree(run_folder / "cells", target / "cells", dirs_exist_ok=True)
        return
    (target / "scores").mkdir()
    for path in sorted((run_folder / "cells").glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        if cell["status"] == "ok":
            small = pack_scores(_kept(run_folder / "scores" / f"{path.stem}.npz", cell))
            write_atomic(target / "scores" / f"{path.stem}.npz", small)
            cell = seal({**{key: value for key, value in cell.items() if key != "sha256"}, "scores_sha256": sha256(small)})
        write_atomic(target / "cells" / path.name, json_bytes(cell))


def measured(info: dict, run_folder: Path) -> dict:
    """A run.json that names the methods and seeds of the folder's cells alone: a run may have been asked for more."""
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in (run_folder / "cells").glob("*.json")]
    there = {(cell["task"], cell["method"]) for cell in cells}

    def of(task: str, entry: dict) -> dict:
        names = entry.get("methods")
        return entry if names is None else {**entry, "methods": [name for name in names if (task, name) in there]}

    tasks = {task: of(task, entry) for task, entry in info["tasks"].items()}
    methods = [name for name in info["methods"] if any(name == method for _, method in there)]
    seeds = sorted({cell["seed"] for cell in cells})
    return {
        **{key: value for key, value in info.items() if key != "sha256"},
        "tasks": tasks,
        "methods": methods,
        "seeds": seeds,
    }


def _kept(path: Path, cell: dict) -> dict[str, np.ndarray]:
    primary = next(name for name, metric in cell["metrics"].items() if metric["primary"])
    everything = "+" not in cell["dataset"]
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if everything or name in (primary, "groups")}


def is_of(folder: Path, table: Table) -> bool:
    """Whether a folder holds all of this table, and not an older one of its name with other rows."""
    if not (folder / "run.json").exists() or missing([read_run(folder)])[1]:
        return False
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "cells").glob("*.json")]
    words = table.command("")
    return {cell["method"] for cell in cells} == set(words[words.index("--methods") + 1].split(","))


def write_list(path: Path, out: Path) -> None:
    """Write the list of the tables that are there, with their commands, between the two marks of the page."""
    rows = ["| folder | what it shows | command |", "| --- | --- | --- |"]
    rows += [
        f"| `{table.name}` | {table.shows} | `ocd-bench {shlex.join(table.command('DATA'))}` |"
        for table in TABLES
        if is_of(out / table.name, table)
    ]
    marks = "<!-- tables -->\n", "<!-- end of tables -->"
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{marks[0]}.*?{marks[1]}", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"{path}: has no line {marks[0].strip()!r}")
    path.write_text(pattern.sub(lambda _: marks[0] + "\n".join(rows) + "\n" + marks[1], text), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tables that are named. Returns 1 if one of them has failed or has failed cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="tables to make (default: all)")
    parser.add_argument("--data-dir", default="DATA")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tables"), help="where the runs are kept, so that they can go on"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "default")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    args, extra = parser.parse_known_args(arguments)
    if unknown := set(args.names) - {table.name for table in TABLES}:
        parser.error(f"no such table: {', '.join(sorted(unknown))}; known: {', '.join(table.name for table in TABLES)}")
    failed = 0
    for table in TABLES:
        if args.names and table.name not in args.names:
            continue
        if args.list:
            print(f"{table.name}: ocd-bench {shlex.join(table.command(args.data_dir))}")
            continue
        code = run(table, args.data_dir, args.work, extra)
        failed |= code != 0
        print(f"{table.name}: exit code {code}, log {args.work / table.name}.log", flush=True)
        if code in (0, 3):
            publish(args.work / table.name, args.out / table.name)
    if not args.list and args.out == RESULTS / "default":
        write_list(RESULTS / "README.md", args.out)
    return failed


if __name__ == "__main__":
    sys.exit(main())
