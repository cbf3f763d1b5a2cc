"""The pieces of the experiments at the paper's size: what each runs, on which data, and how long it may take on one GPU."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

LENET = "--set images.model=lenet5 --set images.checkpoint=reference_checkpoints/checkpoint_lenet5.pth"
GPU = "--set base.precision=bf16 --set ocd.precision=bf16 --set ocd_paper.precision=bf16 --set ocd_paper.compile=true"
GPU += " --set run.threads=8"  # augmented copies are made on the CPU


@dataclass(frozen=True)
class Piece:
    """One run of ``ocd-bench`` of at most ``minutes`` on an H100.

    Attributes:
        options: of ``ocd-bench run``.
        files: what it reads, relative to the folder of data.
        stretch: the setting, such as ``speech.base_steps``, that is raised until the piece fills its time; empty: none.
        probe: method whose fit is timed to find out how far to raise it.
        light: further options of the runs that time it.
        slice: further options that make it a proof of a minute or two on a CPU.
    """

    name: str
    shows: str
    minutes: float
    options: str
    files: tuple[str, ...]
    slice: str
    stretch: str = ""
    probe: str = ""
    light: str = ""

    def command(self, data: str, out: str, *, small: bool, device: str) -> list[str]:
        """The arguments of ``ocd-bench``."""
        extra = self.slice if small else GPU
        return ["run", "--data-dir", data, "--out", out, "--device", device, *shlex.split(self.options), *shlex.split(extra)]


PACKAGED = Path(__file__).parents[2] / "plugins/speech/ocd_bench_speech/bases/librispeech_8k-2.pt"
CIFAR = "--task images --dataset cifar10 --seeds 1 --set images.model=googlenet"
SGD = "--set base.batch_size=256 --set base.optimizer=sgd --set base.lr=0.2 --set base.weight_decay=5e-4"
SMALL_CIFAR = "--preset quick --set images.model=lenet5-bn --set base.epochs=1"
SMALL_CIFAR += " --set images.train_samples=256 --set images.test_samples=64"
PIECES = (
    Piece(
        "mnist",
        "the published U-Net on LeNet5's fc1, beside ocd on the same base: accuracy and cross entropy of one and five draws",
        8,
        f"--task images --dataset mnist --seeds 1 --methods base,ocd-paper,ocd-paper-x5,ocd,ocd-x5,oracle {LENET} "
        "--set images.test_samples=2000 --set ocd_paper.multipliers=1,1,2,2,4,4 --set ocd_paper.unet_dropout=0.4 "
        "--set ocd_paper.batch_size=16 --set ocd_paper.val_samples=1000 --set ocd_paper.evaluations=20 "
        "--set ocd_paper.steps=40000 --set ocd_paper.minutes=5",
        ("mnist", "reference_checkpoints"),
        "--preset quick --set images.test_samples=64 --set images.train_samples=512 --set ocd_paper.channels=8 "
        "--set ocd_paper.batch_size=8 --set ocd_paper.evaluations=2 --set ocd_paper.steps=40 --set ocd_paper.minutes=1",
    ),
    Piece(
        "cifar10",
        "GoogLeNet on CIFAR-10: a base of at least 92.9 %, OCD and its controls on the last layer, and the rows of Tent",
        8,
        f"{CIFAR} {SGD} --set base.epochs=30 "
        "--methods base,bn-adapt,tent,eata,sar,t3a,lame,ocd,ocd-x5,ocd-regress,capacity,temperature,oracle",
        ("cifar10",),
        SMALL_CIFAR,
    ),
    Piece(
        "cifar10-folds",
        "the same with targets from five bases that have not seen the sample, each trained for 12 epochs",
        8,
        f"{CIFAR} {SGD} --set base.epochs=12 --set ocd.folds=5 "
        "--methods base,ocd,ocd-x5,ocd-regress,capacity,temperature,oracle",
        ("cifar10",),
        f"{SMALL_CIFAR} --set ocd.folds=2",
    ),
    Piece(
        "speech",
        "the Gated-LSTM trained on from the packaged weights, with an hour of speech more, then OCD on its last projection",
        8,
        "--task speech --dataset librispeech_8k --seeds 1 --methods base,ocd,ocd-regress,capacity,finetune,oracle --keep-bases "
        f"--set speech.checkpoint={PACKAGED} --set speech.more_train=librispeech_mini_8k --set speech.base_batch=64 "
        "--set speech.base_lr=1e-3",
        ("librispeech_8k", "librispeech_mini_8k"),
        "--preset quick --set speech.checkpoint=none --set speech.base_batch=4",
        stretch="speech.base_steps",
        probe="base",
        light="--set speech.test_mixtures=20 --set speech.val_mixtures=20 --set speech.base_checks=1",
    ),
)
