"""The source mnist: handwritten digits, 60,000 to train on and 10,000 to test on, 28 x 28."""

from __future__ import annotations

from coterie.data.source import Source
from coterie.data.sources.idx import Pixels, examples_from_pixels, read_pair

_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FILES = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}


def read_mnist(part: str) -> tuple[Pixels, Pixels]:
    """Read pixels [N, 28, 28] and labels [N], uint8, of "train" or "t10k"."""
    return read_pair("mnist", _URL, _FILES, part, 10)


def mnist() -> Source:
    """Load MNIST with its official split, from the four official files in `$COTERIE_DATA/mnist/`.

    Raises:
        Mistake: a file is missing and cannot be fetched, or is damaged.

    Reference: LeCun, Bottou, Bengio, Haffner 1998.
    """
    train, test = (examples_from_pixels(*read_mnist(part)) for part in ("train", "t10k"))
    return Source("mnist", train, test, 10, label_names=[str(d) for d in range(10)])
