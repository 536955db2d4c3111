"""Federated averaging in plain PyTorch, without the library: Algorithm 1 of McMahan et al. 2017, with its symbols.

K = 20 clients hold scikit-learn's digits, two of the ten each. In a round, a fraction C of the clients train for E
passes over their own examples in batches of B, and the server averages their weights.

    python examples/fedavg_by_hand.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

K, C, E, B, LR = 20, 0.5, 2, 10, 0.2
Weights = dict[str, torch.Tensor]

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images).float() / 16, torch.tensor(labels)
order = torch.randperm(len(x))
test, train = order[:360], order[360:]

# each digit is dealt in quarters to four clients: client k holds the digits k and k + 1, or k and k + 3
quarters = {digit: iter(train[y[train] == digit].chunk(4)) for digit in range(10)}
clients = [torch.cat([next(quarters[d % 10]) for d in (k, k + 1 + 2 * (k // 10))]) for k in range(K)]

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def client_update(k: int, w: Weights) -> Weights:
    """Train on client k from the server's weights: w <- w - lr grad l(w; b) for each batch b of each local epoch."""
    model.load_state_dict(w)  # copies the numbers, so that no client changes another's weights, or the server's
    for _ in range(E):
        for b in clients[k][torch.randperm(len(clients[k]))].split(B):
            grads = torch.autograd.grad(nn.functional.cross_entropy(model(x[b]), y[b]), list(model.parameters()))
            with torch.no_grad():
                for p, g in zip(model.parameters(), grads, strict=True):
                    p -= LR * g
    return {name: p.clone() for name, p in model.state_dict().items()}


def server(rounds: int) -> float:
    """Run `rounds` rounds, and return the test accuracy after the last."""
    w = {name: p.clone() for name, p in model.state_dict().items()}  # initialise w_0
    for t in range(1, rounds + 1):
        m = max(int(C * K), 1)
        chosen = torch.randperm(K)[:m].tolist()  # S_t, a random set of m clients
        received = {k: client_update(k, w) for k in chosen}  # real clients would do this in parallel
        m_t = sum(len(clients[k]) for k in chosen)
        w = {name: sum(len(clients[k]) / m_t * received[k][name] for k in chosen) for name in w}
        model.load_state_dict(w)
        accuracy = (model(x[test]).argmax(1) == y[test]).float().mean().item()
        print(f"round {t:2}: {len(chosen)} clients, test accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    server(rounds=50)
