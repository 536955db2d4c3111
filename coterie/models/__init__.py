"""Build models by name, the papers' small networks among them, and turn any `nn.Module` into pure functions.

The names can be read without PyTorch; each function is imported when it is asked for.

>>> from coterie.models import build
>>> build("logistic", [4], 3, rng_seed=0)
Sequential(
  (0): Flatten(start_dim=1, end_dim=-1)
  (1): Linear(in_features=4, out_features=3, bias=True)
)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coterie.models.registry import MODELS, ModelFunction, build

if TYPE_CHECKING:
    from coterie.models.causal_transformer import transformer
    from coterie.models.convolutional import cifar_cnn, cnn
    from coterie.models.dense import logistic, mlp, two_nn
    from coterie.models.imagenet_residual import resnet18
    from coterie.models.lora import add_adapters, merge_adapters
    from coterie.models.recurrent import char_lstm, word_lstm
    from coterie.models.residual import resnet20
    from coterie.models.vision_transformer import vit

__all__ = [
    "MODELS",
    "ModelFunction",
    "add_adapters",
    "build",
    "char_lstm",
    "cifar_cnn",
    "cnn",
    "logistic",
    "merge_adapters",
    "mlp",
    "resnet18",
    "resnet20",
    "transformer",
    "two_nn",
    "vit",
    "word_lstm",
]

_MODULES = {
    "convolutional": ("cifar_cnn", "cnn"),
    "dense": ("logistic", "mlp", "two_nn"),
    "lora": ("add_adapters", "merge_adapters"),
    "recurrent": ("char_lstm", "word_lstm"),
    "residual": ("resnet20",),
    "imagenet_residual": ("resnet18",),
    "causal_transformer": ("transformer",),
    "vision_transformer": ("vit",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
