r"""Describe a network layer by layer: words, shapes in arithmetic, sizes, receptive fields.

Everything is read off the network's own forward pass (receptive_field.py), so it holds for any
variant.
"""

import itertools
import textwrap

from lib.explain.receptive_field import Layer, UnknownOperationError

HEADINGS = ["layer", "what it does", "input", "output", "arithmetic", "parameters", "multiply-adds"]
HEADINGS += ["receptive field", "step", "centre"]

BATCH_NORM_SOURCE = (
    "Ioffe & Szegedy, ICML 2015, section 3.2: after the weights, before the activation"
)


def words(layer: Layer) -> str:
    """Return what a layer does, in one plain sentence."""
    _only_known_layers(layer)
    d, inputs = layer.detail, layer.inputs[0]
    if layer.kind == "convolution":
        k = d["kernel_size"]
        if k == 1:
            return f"Mixes the {inputs[0]} channels of each pixel into {layer.output[0]}."
        return (
            f"Slides {layer.output[0]} filters of {k}×{k} pixels and {inputs[0]} channels over its "
            "input; each gives one channel."
        )
    if layer.kind == "transposed convolution":
        k = d["kernel_size"]
        return f"Spreads each pixel over {k}×{k} pixels with learned weights: twice the side."
    if layer.kind == "max-pooling":
        k = d["kernel_size"]
        return f"Keeps the largest value of each {k}×{k} pixels: half the side."
    if layer.kind == "interpolation":
        how = {"nearest": "copying each pixel", "bilinear": "weighing neighbouring pixels"}
        return f"Doubles the side by {how[d['mode']]}; nothing is learned."
    return {
        "batch normalization": "Centres and scales each channel over the batch (in training), then "
        "applies a learned scale and shift.",
        "ELU": "Keeps positive values; maps negative x to exp(x) − 1, never below −1.",
        "ReLU": "Keeps positive values, sets negative ones to 0.",
        "GELU": "Weighs each value by the normal distribution's probability of a smaller one.",
        "concatenation": "Puts the encoder's features of this level next to the upsampled ones.",
        "flatten": "Writes all channels and pixels into one list.",
        "linear": f"Weighs all {inputs[-1]} values into {layer.output[-1]} scores, one a class.",
    }[layer.kind]


def arithmetic(layer: Layer) -> str:
    """Return how the output's side or length follows from the input's."""
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
    """Refuse what the sentences and sums here would tell wrongly.

    Raises:
        UnknownOperationError: on strided convolutions, and on other ways to double or halve a side.
    """
    d, kind = layer.detail, layer.kind
    plain = {"convolution": d.get("stride") == 1}
    plain["max-pooling"] = d.get("kernel_size") == d.get("stride") == 2
    plain["transposed convolution"] = plain["max-pooling"] and d.get("padding") == 0
    plain["interpolation"] = d.get("factor") == 2
    if not plain.get(kind, True):
        raise UnknownOperationError(
            f"{layer.name}: there are no words for a {kind} with {d}; add them to {__name__}"
        )


def field(layer: Layer) -> str:
    """Return the receptive field in the middle, marked where the image's edge cuts it."""
    size, side = layer.field.size, layer.field.high.max() + 1
    note = " (the whole image)" if size == side else " (cut by the edge)" if layer.field.cut else ""
    return f"{size}×{size}{note}"


def names(layers: list[Layer]) -> list[str]:
    """Return a layer's place in the network with its kind, as "encoder.0.3 convolution"."""
    return [f"{layer.name} {layer.kind}".strip() for layer in layers]


def rows(layers: list[Layer]) -> list[list[str]]:
    """Return the table's rows under ``HEADINGS``."""
    table = []
    for layer, name in zip(layers, names(layers), strict=True):
        shapes = [" + ".join("×".join(map(str, shape)) for shape in layer.inputs)]
        shapes.append("×".join(map(str, layer.output)))
        whole = layer.kind in ("flatten", "linear")
        step = "" if whole else f"{float(layer.field.step):.4g}"
        centre = f"{layer.field.centre:g}"
        sizes = [f"{layer.parameters:,}", f"{layer.macs:,}"]
        row = [name, words(layer), *shapes, arithmetic(layer), *sizes, field(layer), step, centre]
        table.append(row)
    return table


def notes(layers: list[Layer]) -> list[str]:
    """Return sums, the sentence on the linear layer's inputs, and batch norms with neighbours."""
    parameters, macs = (sum(getattr(x, n) for x in layers) for n in ("parameters", "macs"))
    said = [f"In all {parameters:,} parameters and {macs:,} multiply-adds for one image."]
    for before, layer in itertools.pairwise(layers):
        if layer.kind == "linear" and before.kind == "flatten":
            channels, side, _ = before.inputs[0]
            said.append(
                f"The linear layer has {before.output[0]} inputs because the last max-pooling "
                f"leaves {channels} channels of {side}×{side} pixels, and {arithmetic(before)}."
            )
    around = zip(layers, layers[1:], layers[2:], strict=False)
    norms = [(a, b, c) for a, b, c in around if b.kind == "batch normalization"]
    for before, layer, after in norms:
        one, two, three = names([before, layer, after])
        said.append(f"{two} is after {one} and before {three}.")
    if norms:
        said.append(f"Their place is that of {BATCH_NORM_SOURCE}.")
    said.append(
        "Receptive field: the input pixels that an output in the middle depends on, by theory, "
        "through every path; step: input pixels from one output to the next; centre: the middle of "
        "the field, where 0 is the centre of the first pixel."
    )
    return said


def as_text(layers: list[Layer]) -> str:
    """Return the description for a terminal, a block a layer."""
    lines = []
    for name, does, before, after, sum_, parameters, macs, size, step, centre in rows(layers):
        lines.append(f"{name}: {before} -> {after}" + (f"   [{sum_}]" if sum_ else ""))
        lines.append(f"    {does}")
        place = f"receptive field {size}, centre {centre}" + (f", step {step}" if step else "")
        lines.append(f"    {parameters} parameters, {macs} multiply-adds; {place}")
    return "\n".join([*lines, "", *(textwrap.fill(note, 100) for note in notes(layers))])


def as_markdown(layers: list[Layer]) -> str:
    """Return the description as a Markdown table with notes."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *rows(layers)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes(layers))


def as_latex(layers: list[Layer]) -> str:
    """Return the description as two LaTeX tables that run over pages, words apart from numbers."""
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

    left = r">{\raggedright\arraybackslash}p"
    lines = [
        r"% needs \usepackage{booktabs,longtable,array}",
        r"{\scriptsize\setlength{\tabcolsep}{2pt}",
        *table([0, 1, 4], f"{left}{{25mm}}{left}{{52mm}}{left}{{32mm}}"),
        *table(
            [0, 2, 3, 5, 6, 7, 8, 9],
            f"{left}{{25mm}}{left}{{14mm}}{left}{{14mm}}rr{left}{{14mm}}rr",
        ),
        r"}",
    ]
    return "\n".join([*lines, *(escaped(note) + r"\par" for note in notes(layers))])


FORMATS = {"text": as_text, "markdown": as_markdown, "latex": as_latex}
