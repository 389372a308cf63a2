"""Train the transformer of this folder on handwritten digits, a row of pixels a token, and export it: python make.py.

Needs `pip install torch onnx scikit-learn`; a minute on two cores. Writes model.onnx and testset.npz.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from fake_quantizers import Linear, Product, export  # noqa: E402

WIDTH, HEADS, BLOCKS, TOKENS = 32, 4, 2, 8
EPOCHS, BATCH, TEST = 60, 64, 360


class Attention(nn.Module):
    """Self-attention whose two products are quantized as well."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.values, self.out = (Linear(WIDTH, WIDTH) for _ in range(4))
        self.scores, self.mixed = Product(), Product()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self._heads(f(x)) for f in (self.queries, self.keys, self.values))
        share = torch.softmax(self.scores(q, k.transpose(2, 3)) * (WIDTH // HEADS) ** -0.5, dim=-1)
        return self.out(self.mixed(share, v).transpose(1, 2).reshape(-1, TOKENS, WIDTH))

    @staticmethod
    def _heads(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)


class Block(nn.Module):
    """Attention and a layer of its own for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.wide, self.narrow = Attention(), Linear(WIDTH, 2 * WIDTH), Linear(2 * WIDTH, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.first(x))
        return x + self.narrow(nn.functional.gelu(self.wide(self.second(x))))


class Digits(nn.Module):
    """[N, 8, 8] -> scores [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = Linear(TOKENS, WIDTH), Linear(WIDTH, 10)
        self.places = nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.1)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.embed(x) + self.places).mean(dim=1))


def main() -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images.reshape(-1, TOKENS, TOKENS) / 16, dtype=torch.float32), torch.tensor(labels)
    order = torch.randperm(len(x))
    x, y = x[order], y[order]
    model = Digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(x) - TEST).split(BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
        schedule.step()
    model.eval()
    right = (model(x[-TEST:]).argmax(dim=1) == y[-TEST:]).float().mean().item()
    print(f"loss {loss.item():.3f}, {right:.1%} of {TEST} test images are right")
    export(model, x[:1], str(HERE / "model.onnx"), "image", "scores")
    np.savez_compressed(HERE / "testset.npz", image=x[-TEST:].numpy(), labels=y[-TEST:].numpy())


if __name__ == "__main__":
    main()
