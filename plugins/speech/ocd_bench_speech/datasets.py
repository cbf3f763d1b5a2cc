"""The datasets of this task, the addresses where their owners publish them, and the SHA-256 of each file."""

from __future__ import annotations

from ocd_bench import Dataset, Source


def _openslr(part: str, digest: str, size: int) -> Source:
    """A part of LibriSpeech; digests and sizes as torchaudio and TensorFlow Datasets record them."""
    return Source(f"https://www.openslr.org/resources/12/{part}.tar.gz", digest, size, f"{part}.tar.gz", unpack=True)


LIBRISPEECH = (
    _openslr("test-clean", "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23", 346663984),
    _openslr("dev-clean", "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3", 337926286),
    _openslr("train-clean-100", "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2", 6387309499),
)
FSDD = (
    # 3,000 recordings of 6 speakers. TensorFlow Datasets records the archive of 1.0.9 (5 speakers); the same command,
    # git archive and gzip of the tagged commit, gives exactly that file, and gave this digest for 1.0.10.
    Source(
        "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.tar.gz",
        "feb479fad3a37883c3d21ed7f982281c2dd1c18d5aefd7e8a5d50f58023392aa",
        15602882,
        "free-spoken-digit-dataset-1.0.10.tar.gz",
        unpack=True,
    ),
)
CITATION = "Panayotov, Chen, Povey and Khudanpur, Librispeech: an ASR corpus based on public domain audio books, ICASSP 2015"

DATASETS = (
    Dataset(
        "voices",
        "synthetic voices (formant synthesis)",
        embedded=True,
        licence="MIT",
        seen_in_tuning=True,
    ),
    Dataset(
        "librispeech",
        "read English, 331 speakers: train-clean-100, dev-clean, test-clean",
        sources=LIBRISPEECH,
        licence="CC BY 4.0",
        citation=CITATION,
        homepage="https://www.openslr.org/12",
    ),
    Dataset(
        "librispeech_8k",
        "read speech by speaker, any folder of LibriSpeech's layout or with a manifest.csv",
        licence="CC BY 4.0",
        citation=CITATION,
        homepage="https://www.openslr.org/12",
        seen_in_tuning=True,
    ),
    Dataset(
        "fsdd",
        "spoken digits of 6 speakers, 3,000 recordings",
        sources=FSDD,
        licence="CC BY-SA 4.0",
        citation="Jackson, Souza, Flaks, Pan, Nicolas and Thite, Free Spoken Digit Dataset 1.0.8, doi 10.5281/zenodo.1342401",
        homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
    ),
    Dataset(
        "librimix",
        "folder of LibriMix mixtures (Libri2Mix to Libri5Mix), made by its scripts from LibriSpeech",
        licence="scripts MIT, speech CC BY 4.0, noise CC BY-NC 4.0",
        citation="Cosentino, Pariente, Cornell, Deleforge and Vincent, LibriMix, arXiv 2005.11262",
        homepage="https://github.com/JorisCos/LibriMix",
    ),
)
"""The default first. Any other folder of utterances works under its own name."""
