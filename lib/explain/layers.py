"""Describe a network layer by layer: operation, shapes, parameters, cost, receptive field.

All values come from a trace of the forward pass (receptive_field.py), so they hold for any variant.
"""

import itertools
import textwrap

from lib.explain.receptive_field import Layer, UnknownOperationError

HEADINGS = [
    "layer",
    "operation",
    "input",
    "output",
    "size calculation",
    "parameters",
    "multiply-adds",
]
HEADINGS += ["receptive field", "stride (input pixels)", "center (input pixels)"]


def words(layer: Layer) -> str:
    """Return one sentence on what a layer does.

    Raises:
        UnknownOperationError: if this module has no description of the layer.
    """
    _only_known_layers(layer)
    d, inputs = layer.detail, layer.inputs[0]
    if layer.kind == "convolution":
        k = d["kernel_size"]
        if k == 1:
            return (
                f"Combines the {inputs[0]} channels of each pixel linearly into {layer.output[0]}."
            )
        return (
            f"Slides {layer.output[0]} filters of {k}×{k} pixels and {inputs[0]} channels over the "
            "input; each filter gives one output channel."
        )
    if layer.kind == "transposed convolution":
        k = d["kernel_size"]
        return f"Maps each pixel to {k}×{k} pixels with learned weights; doubles the side."
    if layer.kind == "max-pooling":
        k = d["kernel_size"]
        return f"Keeps the largest value of each {k}×{k} pixels; halves the side."
    if layer.kind == "interpolation":
        how = {"nearest": "repeating each pixel", "bilinear": "averaging neighboring pixels"}
        return f"Doubles the side by {how[d['mode']]}; no parameters."
    return {
        "batch normalization": "Normalizes each channel to mean 0 and variance 1 (in training over "
        "the batch), then applies a learned scale and shift.",
        "ELU": "Keeps positive values; maps negative x to exp(x) − 1, which is above −1.",
        "ReLU": "Keeps positive values, sets negative ones to 0.",
        "GELU": "Multiplies each value by the standard normal distribution function of it.",
        "concatenation": "Concatenates the encoder's features of this level with the upsampled "
        "ones.",
        "flatten": "Flattens channels and pixels into one vector.",
        "linear": f"Computes {layer.output[-1]} scores, one per class, from {inputs[-1]} features.",
    }[layer.kind]


def arithmetic(layer: Layer) -> str:
    """Return the calculation of a layer's output size from its input size, as text.

    Of a concatenation it is that of the channels, of a linear layer that of the parameters.

    Raises:
        UnknownOperationError: see ``words``.
    """
    _only_known_layers(layer)
    d, inputs, output = layer.detail, layer.inputs, layer.output
    side, after = inputs[0][-1], output[-1]
    if layer.kind == "convolution":
        padding = f" + 2 · {d['padding']}" if d["padding"] else ""
        return f"{side}{padding} − {d['kernel_size']} + 1 = {after}"
    if layer.kind == "transposed convolution":
        return f"({side} − 1) · {d['stride']} + {d['kernel_size']} = {after}"
    if layer.kind == "max-pooling":
        return f"{side} / {d['stride']} = {after}"
    if layer.kind == "interpolation":
        return f"{side} · {d['factor']} = {after}"
    if layer.kind == "concatenation":
        return f"{' + '.join(str(shape[0]) for shape in inputs)} = {output[0]} channels"
    if layer.kind == "flatten":
        return f"{' · '.join(map(str, inputs[0]))} = {after}"
    if layer.kind == "linear":
        return f"{side} · {after} + {after} = {layer.parameters:,} parameters"
    return ""


def _only_known_layers(layer: Layer) -> None:
    """Raise an UnknownOperationError for layers that ``words`` and ``arithmetic`` do not cover.

    These are strided convolutions, and resampling other than by a factor of 2 with 2×2 kernels.
    """
    d, kind = layer.detail, layer.kind
    covered = {"convolution": d.get("stride") == 1}
    covered["max-pooling"] = d.get("kernel_size") == d.get("stride") == 2
    covered["transposed convolution"] = covered["max-pooling"] and d.get("padding") == 0
    covered["interpolation"] = d.get("factor") == 2
    if not covered.get(kind, True):
        raise UnknownOperationError(
            f"{layer.name}: no description of a {kind} with {d}; add one to {__name__}"
        )


def field(layer: Layer) -> str:
    """Return the receptive field of the middle output; note if it reaches the image's border."""
    size, side = layer.field.size, layer.field.high.max() + 1
    note = " (whole image)" if size == side else " (reaches the border)" if layer.field.cut else ""
    return f"{size}×{size}{note}"


def names(layers: list[Layer]) -> list[str]:
    """Return each layer's module name and kind, such as "encoder.0.3 convolution"."""
    return [f"{layer.name} {layer.kind}".strip() for layer in layers]


def rows(layers: list[Layer]) -> list[list[str]]:
    """Return the table's rows under ``HEADINGS``."""
    table = []
    for layer, name in zip(layers, names(layers), strict=True):
        shapes = [" + ".join("×".join(map(str, shape)) for shape in layer.inputs)]
        shapes.append("×".join(map(str, layer.output)))
        has_one_output = layer.kind in ("flatten", "linear")
        stride = "" if has_one_output else f"{float(layer.field.step):.4g}"
        center = f"{layer.field.center:g}"
        sizes = [f"{layer.parameters:,}", f"{layer.macs:,}"]
        row = [name, words(layer), *shapes, arithmetic(layer), *sizes, field(layer), stride, center]
        table.append(row)
    return table


def notes(layers: list[Layer]) -> list[str]:
    """Return sentences on totals, the linear layer's inputs, batch normalization and fields."""
    parameters, macs = (sum(getattr(x, n) for x in layers) for n in ("parameters", "macs"))
    sentences = [f"Total: {parameters:,} parameters and {macs:,} multiply-adds per image."]
    for before, layer in itertools.pairwise(layers):
        if layer.kind == "linear" and before.kind == "flatten":
            channels, side, _ = before.inputs[0]
            sentences.append(
                f"The linear layer has {before.output[0]} inputs, because the output of the last "
                f"max-pooling has {channels} channels of {side}×{side} pixels: "
                f"{arithmetic(before)}."
            )
    triples = zip(layers, layers[1:], layers[2:], strict=False)
    norms = [(a, b, c) for a, b, c in triples if b.kind == "batch normalization"]
    for triple in norms:
        before, norm, after = names(list(triple))
        sentences.append(f"{norm} is after {before} and before {after}.")
    if norms:
        sentences.append(
            "This is the position that Ioffe & Szegedy propose (ICML 2015, section 3.2): after the "
            "weights, before the activation."
        )
    sentences.append(
        "Receptive field: the input pixels that the output in the middle can depend on through any "
        "path of the network (theoretical). Stride: the distance in input pixels between "
        "neighboring outputs. Center: the middle of the receptive field; 0 is the center of the "
        "first pixel."
    )
    return sentences


def as_text(layers: list[Layer]) -> str:
    """Return the description as plain text for a terminal, three lines per layer."""
    lines = []
    for name, does, before, after, sum_, parameters, macs, size, stride, center in rows(layers):
        lines.append(f"{name}: {before} -> {after}" + (f"   [{sum_}]" if sum_ else ""))
        lines.append(f"    {does}")
        place = f"receptive field {size}, center {center}"
        place += f", stride {stride}" if stride else ""
        lines.append(f"    {parameters} parameters, {macs} multiply-adds; {place}")
    return "\n".join([*lines, "", *(textwrap.fill(note, 100) for note in notes(layers))])


def as_markdown(layers: list[Layer]) -> str:
    """Return the description as a Markdown table with notes."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *rows(layers)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes(layers))


def as_latex(layers: list[Layer]) -> str:
    """Return the description as two longtables, one with sentences and one with numbers."""
    marks = {"×": r"$\times$", "·": r"$\cdot$", "−": "$-$", "&": r"\&", "%": r"\%", "_": r"\_"}
    marks["."] = r".\allowbreak{}"

    def escaped(text: str) -> str:
        return "".join(marks.get(character, character) for character in text)

    def table(columns: list[int], widths: str) -> list[str]:
        def line(cells: list[str]) -> str:
            return " & ".join(escaped(cells[k]) for k in columns) + r" \\"

        head = [line(HEADINGS), r"\midrule", r"\endhead"]
        body = [line(cells) for cells in rows(layers)]
        start = [rf"\begin{{longtable}}{{{widths}}}", r"\toprule"]
        return [*start, *head, *body, r"\bottomrule", r"\end{longtable}"]

    left, right = r">{\raggedright\arraybackslash}p", r">{\raggedleft\arraybackslash}p"
    lines = [
        r"% needs \usepackage{booktabs,longtable,array}",
        r"{\scriptsize\setlength{\tabcolsep}{2pt}",
        *table([0, 1, 4], f"{left}{{25mm}}{left}{{52mm}}{left}{{32mm}}"),
        *table(
            [0, 2, 3, 5, 6, 7, 8, 9],
            f"{left}{{22mm}}{left}{{14mm}}{left}{{14mm}}rr{left}{{14mm}}"
            f"{right}{{10mm}}{right}{{10mm}}",
        ),
        r"}",
    ]
    return "\n".join([*lines, *(escaped(note) + r"\par" for note in notes(layers))])


FORMATS = {"text": as_text, "markdown": as_markdown, "latex": as_latex}
