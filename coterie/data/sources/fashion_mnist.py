"""The source fashion_mnist: pictures of clothes in the form of MNIST."""

from __future__ import annotations

from coterie.data.source import Source
from coterie.data.sources.idx import examples_from_pixels, read_pair

_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FILES = {
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}
_LABELS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def fashion_mnist() -> Source:
    """Load Fashion-MNIST with its official split, from the four official files in `$COTERIE_DATA/fashion_mnist/`.

    Raises:
        Mistake: a file is missing and cannot be fetched, or is damaged.

    Reference: Xiao, Rasul, Vollgraf 2017 (arXiv 1708.07747).
    """
    train, test = (
        examples_from_pixels(*read_pair("fashion_mnist", _URL, _FILES, part, 10)) for part in ("train", "t10k")
    )
    return Source("fashion_mnist", train, test, 10, label_names=_LABELS)
