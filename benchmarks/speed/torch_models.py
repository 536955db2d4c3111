"""The comparison's models in plain PyTorch, and its work: random examples of the right shapes. Needs only torch."""

import torch
from torch import nn
from torch.nn import functional as F

CLIENTS = 10
EXAMPLES = {"2nn": 600, "cnn": 600, "resnet20": 100, "lstm": 60}
"""Of each client. The deep and the recurrent model get fewer, so that a round takes seconds."""
BATCH = 10
LR = 0.05
CHARACTERS, UNROLL = 90, 80


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
    return resnet20() if name == "resnet20" else Characters()


def examples(name, client):
    """x and y of one client."""
    g, n = torch.Generator().manual_seed(client), EXAMPLES[name]
    if name == "lstm":
        text = torch.randint(CHARACTERS, (n, UNROLL + 1), generator=g)
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()
    shape = (3, 32, 32) if name == "resnet20" else (1, 28, 28)
    return torch.rand(n, *shape, generator=g), torch.randint(10, (n,), generator=g)


def loss(outputs, y):
    """Cross-entropy, over the places of a text too."""
    return F.cross_entropy(outputs.flatten(0, -2), y.flatten())
