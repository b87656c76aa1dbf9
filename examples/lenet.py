"""Trains LeNet-5 on 9,000 handwritten digits and tests it on 1,000 that it has never seen.

Needs no network: the digits come with Pyrite. Takes well under a minute on two cores.

    python examples/lenet.py --out demo.png
"""

import argparse
import math
import sys
import time
from pathlib import Path

import pyrite as torch
import pyrite.nn.functional as F
from pyrite import nn, optim
from pyrite.datasets import MNIST
from pyrite.utils.data import DataLoader


class LeNet5(nn.Module):
    """LeCun's network of 1998, with ReLU and max pooling: 61,706 parameters."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class Progress:
    """One line that redraws itself on a terminal; elsewhere only the lines a log wants."""

    def __init__(self, total, width=30):
        self.total, self.width = total, width
        self.tty = sys.stdout.isatty()
        self.start = time.perf_counter()

    def show(self, step, text):
        if self.tty:
            full = self.width * step // self.total
            elapsed = time.perf_counter() - self.start
            left = elapsed / max(step, 1) * (self.total - step)
            bar = "█" * full + "░" * (self.width - full)
            print(f"\r{bar} {100 * step // self.total:3d} %  {text}  {left:3.0f} s left \033[K", end="", flush=True)

    def line(self, text):
        print(f"\r{text}\033[K" if self.tty else text, flush=True)


def seconds(t):
    return f"{t:.1f} s"


def shifted(images, reach=2):
    """The same digits, each batch moved by up to `reach` pixels: cheap, and worth half a percent of accuracy."""
    dy, dx = torch.randint(-reach, reach + 1, (2,)).tolist()
    padded = F.pad(images, (reach, reach, reach, reach))
    return padded[:, :, reach + dy : reach + dy + 28, reach + dx : reach + dx + 28]


def train(model, loader, epochs, peak_lr):
    """One cycle: the learning rate rises for the first fifth, then falls along a cosine. Returns every step's loss."""
    optimizer = optim.Adam(model.parameters(), lr=peak_lr)
    total = epochs * len(loader)
    warm = max(1, total // 5)
    losses, step, progress = [], 0, Progress(total)
    model.train()
    for epoch in range(1, epochs + 1):
        for images, labels in loader:
            up = (step + 1) / warm
            down = 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
            optimizer.param_groups[0]["lr"] = peak_lr * (up if step < warm else down)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(shifted(images)), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            progress.show(step, f"epoch {epoch}/{epochs}  loss {losses[-1]:.4f}")
        mean = sum(losses[-len(loader) :]) / len(loader)
        progress.line(
            f"epoch {epoch:2d}/{epochs}  mean loss {mean:.4f}  {seconds(time.perf_counter() - progress.start)}"
        )
    return losses


def predict(model, loader):
    """Predicted and true classes of every digit, in the loader's order."""
    model.eval()
    predicted, truth = [], []
    with torch.no_grad():
        for images, labels in loader:
            predicted += model(images).argmax(1).tolist()
            truth += labels.tolist()
    return predicted, truth


def draw(path, losses, images, predicted, truth, accuracy):
    """The loss curve beside a grid of test digits; the first digits of the grid are the ones it got wrong."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(13, 5.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.1])

    axes = left.subplots()
    window = max(1, len(losses) // 100)
    smooth = [sum(losses[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(losses))]
    axes.semilogy(losses, color="#f0b27a", linewidth=0.6, label="each step")
    axes.semilogy(smooth, color="#c0392b", linewidth=2, label=f"mean of {window}")
    axes.set(title="Training loss", xlabel="step", ylabel="cross-entropy")
    axes.grid(alpha=0.3)
    axes.legend()

    right.suptitle(f"{100 * accuracy:.1f} % of {len(truth):,} held-out digits are right (red: wrong)")
    wrong = [i for i, (p, t) in enumerate(zip(predicted, truth, strict=True)) if p != t][:10]
    chosen = wrong + [i for i in range(len(truth)) if i not in wrong][: 50 - len(wrong)]
    for cell, i in zip(right.subplots(5, 10).flat, chosen, strict=True):
        cell.imshow(images[i], cmap="gray_r")
        cell.set_axis_off()
        right_answer = predicted[i] == truth[i]
        text = str(predicted[i]) if right_answer else f"{predicted[i]} ({truth[i]})"
        cell.set_title(text, fontsize=10, color="black" if right_answer else "#c0392b")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3, help="the highest learning rate of the cycle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("demo.png"), help="where to write the picture ('' for none)")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    digits, held_out = MNIST(train=True), MNIST(train=False)
    loader = DataLoader(digits, batch_size=arguments.batch_size, shuffle=True, drop_last=True)
    test_loader = DataLoader(held_out, batch_size=500)
    model = LeNet5()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"LeNet-5, {parameters:,} parameters, {len(digits):,} digits, {torch.get_num_threads()} threads")

    start = time.perf_counter()
    losses = train(model, loader, arguments.epochs, arguments.lr)
    duration = time.perf_counter() - start

    predicted, truth = predict(model, test_loader)
    right = sum(p == t for p, t in zip(predicted, truth, strict=True))
    accuracy = right / len(truth)
    print(f"trained in {seconds(duration)}; {right} of {len(truth)} held-out digits right: {100 * accuracy:.2f} %")
    if str(arguments.out) not in ("", "."):
        pictures = [held_out[i][0][0].tolist() for i in range(len(held_out))]
        draw(arguments.out, losses, pictures, predicted, truth, accuracy)
        print(f"picture: {arguments.out}")


if __name__ == "__main__":
    main()
