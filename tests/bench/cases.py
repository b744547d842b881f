"""One measurement of training in a process of its own; `tests.bench.training` calls these.

    python -m tests.bench.cases template data/GTSRB --workers 2

Prints one line of JSON. `template` is the assignment's template as it is usually written; the other
cases call the scripts' own functions.
"""

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

import train_gtsrb
import train_unet
from lib.data import gtsrb, jsrt
from lib.data.augment import FLIP_SAFE, augment
from lib.models.gtsrb_cnn import CNN
from lib.spec.machine import cores
from lib.training import checkpoint, hardware, seeding

BATCH = 128  # images
WARM_UP = 5  # steps before the clock
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


ON_GPU = DEVICE.type == "cuda"


class Signs(Dataset):
    """The training images with the template's transforms, decoded at each access."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "Final_Training" / "Images"
        tables = [pd.read_csv(path, sep=";") for path in sorted(self.folder.glob("*/GT-*.csv"))]
        rows = pd.concat(tables)
        self.names = [
            f"{c:05d}/{n}" for c, n in zip(rows["ClassId"], rows["Filename"], strict=True)
        ]
        self.labels = rows["ClassId"].tolist()
        jitter = transforms.ColorJitter(brightness=0.8, contrast=0.4)
        size, affine, crop = (32, 32), transforms.RandomAffine(5), transforms.RandomCrop(28)
        self.vary = transforms.Compose([transforms.Resize(size), affine, crop, jitter])
        self.flip, self.tensor = transforms.RandomHorizontalFlip(), transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.folder / self.names[index]) as file:
            image = self.vary(file.convert("RGB"))
        label = self.labels[index]
        return self.tensor(self.flip(image) if label in FLIP_SAFE else image), label


def wait() -> None:
    """Let the GPU finish what it was given."""
    if ON_GPU:
        torch.cuda.synchronize()


def seconds_per_call(call: Callable[[int], object], calls: int, turns: int = 3) -> float:
    """Return the median over ``turns`` of the seconds that ``call(i)`` takes, after a warm-up."""
    for i in range(WARM_UP):
        call(i)
    found = []
    for _ in range(turns):
        wait()
        start = time.perf_counter()
        for i in range(calls):
            call(i)
        wait()
        found.append((time.perf_counter() - start) / calls)
    return statistics.median(found)


def template(root: Path, workers: int) -> dict[str, float]:
    """Train as the template does; ``data_share``: of the time that the loop waits for data."""
    options = {"num_workers": workers, "pin_memory": ON_GPU, "shuffle": True, "drop_last": True}
    loader = DataLoader(Signs(root), BATCH, **options)

    def endless() -> Iterator[list[torch.Tensor]]:
        while True:
            yield from loader

    model = CNN(False, "elu").to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, eps=0.1)
    batches, steps, waited, start = endless(), 200 if ON_GPU else 25, 0.0, 0.0
    for i in range(WARM_UP + steps):
        if i == WARM_UP:
            wait()
            waited, start = 0.0, time.perf_counter()
        before = time.perf_counter()
        images, labels = next(batches)
        waited += time.perf_counter() - before
        images, labels = images.to(DEVICE), labels.to(DEVICE)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    wait()
    seconds = time.perf_counter() - start
    return {"images_per_second": steps * BATCH / seconds, "data_share": waited / seconds}


def peak(precision: hardware.Precision) -> float:
    """Return the operations per second of what is fastest here; float32 on a GPU: TF32.

    That is a product of square matrices, or a convolution with many channels: on some processors
    the libraries compute convolutions with wider vectors than products.
    """
    torch.backends.cuda.matmul.allow_tf32 = True  # as in its convolutions
    kind = getattr(torch, precision)
    side, calls = (8192, 50) if ON_GPU else (2048, 5)
    a, b = (torch.randn(side, side, device=DEVICE).to(kind) for _ in "ab")
    product = 2 * side**3 / seconds_per_call(lambda _: a @ b, calls)
    batch, channels, image = (512, 256, 28) if ON_GPU else (32, 128, 28)
    shapes = (batch, channels, image, image), (channels, channels, 3, 3)
    x, w = (
        torch.randn(shape, device=DEVICE).to(kind, memory_format=torch.channels_last)
        for shape in shapes
    )
    operations = 2 * batch * image**2 * channels**2 * 9
    convolution = operations / seconds_per_call(lambda _: F.conv2d(x, w, padding=1), calls)
    return max(product, convolution)


def ours(root: Path, precision: hardware.Precision, start_at: float) -> dict[str, float]:
    """Train as train_gtsrb.py does; how long the data take, and the step on ready images.

    ``start_at``: time.time() before which the clock does not start; 0: at once, with the share.
    """
    cfg = train_gtsrb.Config(precision=precision, schedule="cosine")
    part, steps = gtsrb.load(root).train.to(DEVICE), 3000 if ON_GPU else 25
    model, optimizer, scheduler = train_gtsrb.build(cfg, 10 * steps, DEVICE)
    generator = seeding.torch_generator(0, "augmentation", DEVICE)
    sums = torch.zeros(2, device=DEVICE)
    batches = torch.randint(len(part.labels), (64, BATCH)).to(DEVICE)
    plain = functools.partial(train_gtsrb.train_step, model, optimizer, part, generator, cfg, sums)
    with FlopCounterMode(display=False) as counter:
        plain(batches[0])

    def train(step: Callable[[torch.Tensor], None], i: int) -> None:
        step(batches[i % len(batches)])
        scheduler.step()

    known = (model, optimizer, generator, sums)
    step = hardware.maybe_cuda_graph(plain, BATCH, steps, *known)
    for i in range(WARM_UP):
        train(step, i)
    if start_at:
        if time.time() > start_at:
            raise RuntimeError("loading took too long: the runs would not train side by side")
        time.sleep(start_at - time.time())
    whole = seconds_per_call(lambda i: train(step, i), steps)
    if start_at:
        return {"images_per_second": BATCH / whole}
    names = ("rotation", "brightness", "contrast", "flip")
    strengths = {name: getattr(cfg, name) for name in names}

    def draw(batch: torch.Tensor) -> torch.Tensor:
        return augment(part.images[batch], part.labels[batch], generator, **strengths)

    data = hardware.maybe_cuda_graph(draw, BATCH, steps, *known)
    drawn = seconds_per_call(lambda i: data(batches[i % len(batches)]), steps)
    ready = draw(batches[0])
    train_gtsrb.augment = lambda *_, **__: ready
    step = hardware.maybe_cuda_graph(plain, BATCH, steps, *known)
    compute = seconds_per_call(lambda i: train(step, i), steps)
    rate, most = counter.get_total_flops() / compute, peak(precision)
    found = {"images_per_second": BATCH / whole, "data_share": drawn / whole}
    return found | {"gflops": rate / 1e9, "peak_gflops": most / 1e9, "share_of_peak": rate / most}


def rest(root: Path) -> dict[str, float]:
    """Evaluation, the U-Net's training (noise: 128 pixels, 16 features), a checkpoint."""
    part, found = gtsrb.load(root).test.to(DEVICE), {}
    some = torch.arange(2048, device=DEVICE) % len(part.labels)
    noise = torch.randn(32, 1, 128, 128)
    chests = jsrt.Radiographs(noise, noise > 1, [""] * 32, [""] * 32, "").to(DEVICE)
    for precision in ("float32", "bfloat16"):
        cfg = train_gtsrb.Config(precision=precision)
        model, *_ = train_gtsrb.build(cfg, 1, DEVICE)
        taken = seconds_per_call(
            lambda _, m=model, c=cfg: train_gtsrb.evaluate(m, part, some, c), 2
        )
        found[f"evaluation_{precision}"] = len(some) / taken
        found[f"unet_{precision}"] = unet(chests, precision)
    cfg = train_gtsrb.Config()
    model, optimizer, scheduler = train_gtsrb.build(cfg, 1, DEVICE)
    generator = seeding.torch_generator(0, "augmentation", DEVICE)
    sums = torch.zeros(2, device=DEVICE)
    train_gtsrb.train_step(model, optimizer, part, generator, cfg, sums, some[:BATCH])
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state["augmentation"] = generator
    best = {name: value.clone() for name, value in model.state_dict().items()}
    progress = {"best_weights": best}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        taken = seconds_per_call(lambda i: checkpoint.save(folder, i, {}, progress, state), 5)
        size = next(folder.glob("*.pt")).stat().st_size
    return found | {"checkpoint_seconds": taken, "checkpoint_mib": size / 2**20}


def unet(part: jsrt.Radiographs, precision: hardware.Precision) -> float:
    """Return the images per second that train_unet.py's step trains on."""
    cfg = train_unet.Config(width=16, image_size=part.images.shape[-1], precision=precision)
    model, optimizer, _ = train_unet.build(cfg, 1, DEVICE)
    generator = seeding.torch_generator(0, "augmentation", DEVICE)
    loss = torch.zeros((), device=DEVICE)
    step = functools.partial(train_unet.train_step, model, optimizer, part, generator, cfg, loss)
    known = (model, optimizer, generator, loss)
    step = hardware.maybe_cuda_graph(step, cfg.batch_size, hardware.GRAPH_FROM, *known)
    batches = torch.arange(len(part.names), device=DEVICE).split(cfg.batch_size)
    calls = 400 if ON_GPU else 4
    return cfg.batch_size / seconds_per_call(lambda i: step(batches[i % len(batches)]), calls)


def main() -> None:
    """Measure one case and print it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("case", choices=["machine", "template", "ours", "rest"])
    parser.add_argument("root", type=Path, help="folder with the signs")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--start-at", type=float, default=0.0)
    arguments = parser.parse_args()
    if arguments.case != "template":  # it has torch's own settings
        hardware.prepare()
    match arguments.case:
        case "machine":
            name = torch.cuda.get_device_name() if ON_GPU else "cpu"
            found = {"device": name, "torch": torch.__version__, "cores": cores()}
        case "template":
            found = template(arguments.root, arguments.workers)
        case "ours":
            found = ours(arguments.root, arguments.precision, arguments.start_at)
        case "rest":
            found = rest(arguments.root)
    if ON_GPU:
        found["gpu_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps(found))


if __name__ == "__main__":
    main()
