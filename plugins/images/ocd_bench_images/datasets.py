"""The datasets of this task, the addresses where their owners publish them, and the SHA-256 of each file."""

from __future__ import annotations

from ocd_bench import Dataset
from ocd_bench.task import Source

_IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


def _idx(url: str, sizes: tuple[int, ...], digests: tuple[str, ...]) -> tuple[Source, ...]:
    return tuple(Source(url + name, digest, size, name) for name, size, digest in zip(_IDX, sizes, digests, strict=True))


MNIST = _idx(
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    (9912422, 28881, 1648877, 4542),
    (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
FASHION_MNIST = _idx(
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (26421880, 29515, 4422102, 5148),
    (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
CIFAR10 = (
    Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        170052171,
        "cifar-10-binary.tar.gz",
    ),
)
TINY_IMAGENET = (
    Source(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
        248100043,
        "tiny-imagenet-200.zip",
    ),
)

DATASETS = (
    Dataset(
        "digits",
        "8 x 8 grey digits: 1,438 training, 359 test; measured clean and at contrast:4",
        embedded=True,
        corruption="none,contrast:4",
        licence="CC BY 4.0",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998; as in scikit-learn",
        homepage="https://archive.ics.uci.edu/dataset/80",
        seen_in_tuning=True,
    ),
    Dataset(
        "mnist",
        "28 x 28 grey digits: 60,000 training, 10,000 test",
        sources=MNIST,
        licence="CC BY-SA 3.0, as commonly listed",
        citation="LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998",
        homepage="http://yann.lecun.com/exdb/mnist/",
        seen_in_tuning=True,
    ),
    Dataset(
        "usps",
        "16 x 16 grey digits of envelopes, set as 20 x 20 into 28 x 28: 7,291 training, 2,007 test",
        licence="none stated; freely distributed",
        citation="Hull, A database for handwritten text recognition research, IEEE TPAMI 16(5), 1994",
        homepage="https://hastie.su.domains/ElemStatLearn/",
    ),
    Dataset(
        "mnist-usps",
        "training on MNIST, test on the 2,007 test digits of USPS: a shift of writers and scanners",
        folder="usps",
        licence="as mnist and usps",
        citation="LeCun and others, 1998, and Hull, IEEE TPAMI 16(5), 1994, as mnist and usps",
        homepage="https://hastie.su.domains/ElemStatLearn/",
    ),
    Dataset(
        "fashion-mnist",
        "28 x 28 grey clothes, 10 classes: 60,000 training, 10,000 test",
        sources=FASHION_MNIST,
        licence="MIT",
        citation="Xiao, Rasul and Vollgraf, arXiv 1708.07747",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
    ),
    Dataset(
        "cifar10",
        "32 x 32 colour, 10 classes: 50,000 training, 10,000 test",
        sources=CIFAR10,
        licence="none stated; to be cited",
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    Dataset(
        "cifar10.1",
        "CIFAR-10.1 v6, 2,000 new test pictures for CIFAR-10, whose training part it needs: a natural shift",
        licence="none stated; to be cited",
        citation="Recht, Roelofs, Schmidt and Shankar, Do ImageNet classifiers generalize to ImageNet?, ICML 2019",
        homepage="https://github.com/modestyachts/CIFAR-10.1",
    ),
    Dataset(
        "tiny-imagenet",
        "64 x 64 colour, 200 classes: 100,000 training, 10,000 test (its validation set)",
        sources=TINY_IMAGENET,
        licence="research, as ImageNet",
        citation="Le and Yang, Tiny ImageNet Visual Recognition Challenge, 2015",
        homepage="http://cs231n.stanford.edu/",
    ),
)
"""The default first. Any other folder or zip of the same formats works under its own name."""
