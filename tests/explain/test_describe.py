"""The description of a network against torch, for every variant: shapes, sizes, fields."""

import itertools
import re
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import resolve_name

import train_gtsrb
import train_unet
from lib import describe as describe_command
from lib.explain import layers as describe
from lib.explain import trained
from lib.explain.receptive_field import Layer, UnknownOperationError, trace
from lib.models.gtsrb_cnn import CNN
from lib.models.unet import UNet
from lib.training import metrics
from tests.conftest import call, has_booktabs

CNNS = list(itertools.product([False, True], ["elu", "relu", "gelu"]))
UNETS = list(
    itertools.product(["transposed", "nearest", "bilinear"], ["relu", "elu"], [False, True])
)
VARIANTS = [
    *((f"cnn {norm} {act}", lambda n=norm, a=act: CNN(n, a), (3, 28, 28)) for norm, act in CNNS),
    *(
        (f"unet {up} {act} {norm}", lambda u=up, a=act, n=norm: UNet(3, 2, u, a, n), (1, 48, 48))
        for up, act, norm in UNETS
    ),
]
EACH = pytest.mark.parametrize(
    ("build", "shape"), [v[1:] for v in VARIANTS], ids=[v[0] for v in VARIANTS]
)


class Smooth(trained.Watch):
    """Take means for maxima, so that each input has a gradient."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if (resolve_name(func) or "").endswith("max_pool2d"):
            self.outputs.append(nn.functional.avg_pool2d(args[0], 2))
            return self.outputs[-1]
        return super().__torch_function__(func, types, args, kwargs)


@EACH
def test_sizes_agree_with_torchs_own_counters(build: Callable, shape: tuple) -> None:
    model = build()
    layers = trace(build(), shape)
    assert sum(layer.parameters for layer in layers) == metrics.count_parameters(model)
    assert sum(layer.macs for layer in layers) == metrics.count_macs(model, shape)


@EACH
def test_shapes_agree_with_a_real_pass(build: Callable, shape: tuple) -> None:
    model, found = build().eval(), {}
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _m, i, o, name=name: found.update({name: (i[0].shape[1:], o.shape[1:])})
            )
    model(torch.zeros(2, *shape))
    described = {layer.name: layer for layer in trace(build(), shape) if layer.name in found}
    assert set(described) == set(found)
    for name, (before, after) in found.items():
        assert (described[name].inputs[0], described[name].output) == (before, after)


@EACH
def test_receptive_fields_are_where_gradients_are_not_zero(build: Callable, shape: tuple) -> None:
    generator = torch.Generator().manual_seed(0)
    model = build().double().eval()
    for parameter in model.parameters():
        parameter.data.uniform_(0.5, 1.0, generator=generator)
    image = torch.rand(1, *shape, generator=generator, dtype=torch.float64).requires_grad_()
    with Smooth() as watch:
        model(image)
    layers = trace(build(), shape)
    assert len(layers) == len(watch.outputs)
    for layer, output in zip(layers, watch.outputs, strict=True):
        field = layer.field
        places = range(len(field.low)) if len(field.low) < 9 else [0, 1, field.middle, -2, -1]
        for k in places:
            one = output[0, :, k, k] if output.dim() == 4 else output[0]
            (gradient,) = torch.autograd.grad(one.sum(), image, retain_graph=True)
            seen = gradient[0].sum(0) > 1e-12 * gradient.max()
            expected = np.zeros(shape[1:], dtype=bool)
            inside = slice(field.low[k], field.high[k] + 1)
            expected[inside, inside] = True
            np.testing.assert_array_equal(seen.numpy(), expected, f"{layer.name} {layer.kind} {k}")


def of_script(script: ModuleType, **settings: Any) -> list[Layer]:
    """Return the layers of a script's network."""
    cfg = script.Config(**settings)
    return trace(script.network(cfg), script.input_shape(cfg))


def test_known_fields_and_the_512() -> None:
    layers = of_script(train_gtsrb, batch_norm=True)
    sizes = [layer.field.size for layer in layers if "conv" in layer.kind or "max" in layer.kind]
    assert sizes == [5, 9, 10, 14, 16]
    notes = " ".join(describe.notes(layers))
    assert "512 inputs, because the output of the last max-pooling has 32 channels of 4×4" in notes
    assert "32 · 4 · 4 = 512" in notes
    assert "87,659 parameters" in notes
    assert notes.count("batch normalization is after features") == 3
    bottleneck = next(x for x in of_script(train_unet) if x.name == "encoder.4.3")
    assert bottleneck.field.size == 140  # 5 levels of two 3×3: 5, 14, 32, 68, 140


def test_every_format_says_the_same() -> None:
    layers = of_script(train_unet, image_size=32, depth=3, width=4, upsampling="bilinear")
    text, markdown, latex = (describe.FORMATS[f](layers) for f in ("text", "markdown", "latex"))
    for layer in layers:
        for page in (text, markdown):
            assert describe.words(layer) in page
            assert describe.arithmetic(layer) in page
        assert f"{layer.macs:,}" in latex
    assert latex.count(r" \\") == 2 * (len(layers) + 1)
    assert {row.count("|") for row in markdown.splitlines() if row.startswith("|")} == {11}


def test_the_command() -> None:
    done = call("-m", "lib.describe", "gtsrb", "--batch-norm", "True", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    assert "24 − 5 + 1 = 20" in done.stdout
    bad = call("-m", "lib.describe", "unet", "--image-size", "100")
    assert bad.returncode == 1
    assert "Use a multiple of 16, such as 96 or 112" in bad.stderr
    assert "Traceback" not in bad.stderr


@pytest.mark.parametrize("flags", [("gtsrb", "--batch-norm", "True"), ("unet",)])
@pytest.mark.skipif(not has_booktabs(), reason="LaTeX with booktabs is not installed")
def test_the_latex_tables_fit_a_page(flags: tuple[str, ...], tmp_path: Path) -> None:
    done = call("-m", "lib.describe", *flags, "--format", "latex")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,longtable,array}\\begin{document}\n"
        f"{done.stdout}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:]
    wide = [float(points) for points in re.findall(r"Overfull .*?\(([\d.]+)pt too", made.stdout)]
    assert max(wide, default=0) < 15, "points; the margin is 125"


@pytest.mark.parametrize("flag", ["--depth", "--width", "--image-size"])
def test_numbers_below_one_are_refused(flag: str) -> None:
    name = flag[2:].replace("-", "_")
    with pytest.raises(SystemExit, match=f"{name} = 0: should be greater than 0"):
        describe_command.main(["unet", flag, "0"])


def test_steps_are_input_pixels_between_outputs() -> None:
    layers = of_script(train_unet, image_size=64, depth=3, width=2, upsampling="bilinear")
    steps = [layer.field.step for layer in layers if layer.kind in ("max-pooling", "interpolation")]
    assert steps == [2, 4, Fraction(4 * 15, 31), Fraction(62, 63)]  # a skip counts 2


def test_what_has_no_words_is_refused() -> None:
    (layer,) = trace(nn.Conv2d(1, 1, 3, stride=2), (1, 9, 9))
    with pytest.raises(UnknownOperationError, match="no description of a convolution"):
        describe.arithmetic(layer)


def test_what_cannot_be_followed_is_refused() -> None:
    with pytest.raises(UnknownOperationError, match="tanh"):
        trace(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Tanh()), (1, 8, 8))
    with pytest.raises(ValueError, match="images must be square"):
        trace(nn.Conv2d(1, 1, 3), (1, 8, 9))
