"""The comparison's models in plain PyTorch, and its work: random examples of the right shapes. Needs only torch."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

CLIENTS = 10
EXAMPLES = {"2nn": 600, "cnn": 600, "resnet20": 100, "lstm": 60}
"""Of each client. The deep and the recurrent model get fewer, so that a round takes seconds."""
BATCH = 10
LR = 0.05
CHARACTERS, UNROLL = 90, 80


class Work(NamedTuple):
    """What a round does: `cohort` of `clients` clients train `model`, each on `examples` examples."""

    model: str
    clients: int
    cohort: int
    examples: int


WORKS = {name: Work(name, CLIENTS, CLIENTS, n) for name, n in EXAMPLES.items()} | {
    "gpu-cnn": Work("cifar_cnn", 1000, 50, 50),  # the size of pfl-research's CIFAR-10 benchmark
    "gpu-resnet20": Work("resnet20", 200, 50, 50),
    "gpu-transformer": Work("transformer", 200, 50, 50),
}
"""By name; "gpu-..." are those of `gpu.py`."""


class Block(nn.Module):
    """Two convolutions with BatchNorm beside a shortcut without parameters."""

    def __init__(self, into, out, stride):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.second, self.norm2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.stride, self.more = stride, out - into

    def forward(self, x):
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(short + self.norm2(self.second(F.relu(self.norm1(self.first(x))))))


class Characters(nn.Module):
    """Embedding of 8, two LSTM layers of 256, a prediction at each of the 80 places."""

    def __init__(self):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(CHARACTERS, 8), nn.LSTM(8, 256, 2, batch_first=True)
        self.out = nn.Linear(256, CHARACTERS)

    def forward(self, x):
        return self.out(self.lstm(self.embed(x))[0])


class Attention(nn.Module):
    """A transformer's layer: causal attention of four heads, then a network twice as wide, each after a LayerNorm."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.more = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)  # [3, B, heads, T, width / 4]
        found = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return x + self.more(x)


class Transformer(nn.Module):
    """Four layers of width 128, a prediction at each of the 80 places."""

    def __init__(self, width=128, layers=4):
        super().__init__()
        self.embed, self.place = nn.Embedding(CHARACTERS, width), nn.Parameter(torch.randn(UNROLL, width) / 50)
        self.layers = nn.Sequential(*(Attention(width) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CHARACTERS))

    def forward(self, x):
        return self.head(self.layers(self.embed(x) + self.place[: x.shape[1]]))


def cifar_cnn():
    """Two convolutions of 3 x 3 with 32 and 64 channels, pooling, 128 hidden units."""
    convolutions = (nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(12544, 128), nn.ReLU(), nn.Linear(128, 10))


def resnet20():
    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    into = 16
    for out in (16, 32, 64):
        for k in range(3):
            layers.append(Block(into, out, 2 if out > 16 and k == 0 else 1))
            into = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def make(name):
    """A new model."""
    if name == "2nn":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
        )
    if name == "cnn":
        convolutions = (nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        more = (nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        return nn.Sequential(*convolutions, *more, nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10))
    return {"cifar_cnn": cifar_cnn, "resnet20": resnet20, "transformer": Transformer, "lstm": Characters}[name]()


def examples(name, client, number=None):
    """x and y of one client; `number` of them, or as many as the work has."""
    g, (model, _, _, n) = torch.Generator().manual_seed(client), WORKS[name]
    n = n if number is None else number
    if model in ("lstm", "transformer"):
        text = torch.randint(CHARACTERS, (n, UNROLL + 1), generator=g)
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()
    shape = (3, 32, 32) if model in ("resnet20", "cifar_cnn") else (1, 28, 28)
    return torch.rand(n, *shape, generator=g), torch.randint(10, (n,), generator=g)


def loss(outputs, y):
    """Cross-entropy, over the places of a text too."""
    return F.cross_entropy(outputs.flatten(0, -2), y.flatten())
