"""Train the detector of this folder on drawn squares, discs and crosses, and export it: python make.py.

Needs `pip install torch onnx`; some minutes on two cores. Writes model.onnx, testset.npz and labels.npy. The output is
that of the YOLO family without its NMS: [N, 4 + classes, boxes], centre, size in pixels, a score for each class.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from fake_quantizers import Conv, export  # noqa: E402

SIZE, STRIDE, CLASSES, MOST = 64, 8, 3, 4
CELLS = SIZE // STRIDE
STEPS, BATCH, TEST = 1500, 32, 200


def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image [3, SIZE, SIZE] in 0 to 1 and its boxes [MOST, 5]: class (-1: none), left, top, width, height."""
    image = np.broadcast_to(random.uniform(0, 0.4, (3, 1, 1)), (3, SIZE, SIZE)).copy()
    boxes = np.full((MOST, 5), -1.0)
    taken = np.zeros((SIZE, SIZE), bool)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for box in boxes[: random.integers(1, MOST + 1)]:
        side = random.integers(10, 25)
        left, top = random.integers(0, SIZE - side, 2)
        if taken[top : top + side, left : left + side].any():
            continue
        taken[top : top + side, left : left + side] = True
        kind, half = random.integers(CLASSES), side / 2
        across, down = columns - left - half + 0.5, rows - top - half + 0.5
        inside = np.maximum(abs(across), abs(down)) <= half
        if kind == 1:
            inside &= across**2 + down**2 <= half**2
        elif kind == 2:
            inside &= np.minimum(abs(across), abs(down)) <= side / 6
        image[:, inside] = random.uniform(0.5, 1, (3, 1))
        box[:] = kind, left, top, side, side
    return (np.rint(image * 255) / 255).astype(np.float32), boxes


class Detector(nn.Module):
    """[N, 3, SIZE, SIZE] -> [N, 4 + CLASSES, CELLS * CELLS]: each cell tells of the shape whose centre lies in it."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1), (64, 64, 1))
        layers = ((Conv(a, b, 3, stride=s, padding=1), nn.ReLU()) for a, b, s in sizes)
        self.features = nn.Sequential(*(m for pair in layers for m in pair))
        self.head = Conv(64, 4 + CLASSES, 1)
        grid = (torch.arange(CELLS) + 0.5) * STRIDE
        self.register_buffer("centres", torch.stack(torch.meshgrid(grid, grid, indexing="xy")).reshape(1, 2, -1))

    def raw(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x)).flatten(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raw = self.raw(x)
        middle, size = self.centres + raw[:, :2] * STRIDE, torch.exp(raw[:, 2:4]) * STRIDE
        return torch.cat([middle, size, torch.sigmoid(raw[:, 4:])], dim=1)


def loss_of(model: Detector, images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Scores of all cells, and the boxes of those that hold a centre."""
    raw = model.raw(images)
    wanted = torch.zeros_like(raw[:, 4:])
    image, box = torch.nonzero(boxes[..., 0] >= 0, as_tuple=True)
    kind, left, top, width, height = boxes[image, box].T
    x, y = (left + width / 2) / STRIDE, (top + height / 2) / STRIDE
    cell = (y.long() * CELLS + x.long()).clamp(max=CELLS * CELLS - 1)
    wanted[image, kind.long(), cell] = 1
    found = raw[image, :4, cell]
    true = torch.stack([x - x.floor() - 0.5, y - y.floor() - 0.5, (width / STRIDE).log(), (height / STRIDE).log()], 1)
    scores = nn.functional.binary_cross_entropy_with_logits(raw[:, 4:], wanted, reduction="sum") / len(images)
    return scores + 5 * nn.functional.smooth_l1_loss(found, true, beta=0.1)


def main() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = Detector()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
    for step in range(STEPS):
        images, boxes = map(np.stack, zip(*(draw(random) for _ in range(BATCH)), strict=True))
        optimizer.zero_grad()
        loss = loss_of(model, torch.from_numpy(images), torch.from_numpy(boxes).float())
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    images, boxes = map(np.stack, zip(*(draw(random) for _ in range(TEST)), strict=True))
    export(model, torch.from_numpy(images[:1]), str(HERE / "model.onnx"), "image", "boxes")
    np.savez_compressed(HERE / "testset.npz", image=images)
    np.save(HERE / "labels.npy", boxes.astype(np.float32))


if __name__ == "__main__":
    main()
