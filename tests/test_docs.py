"""The documentation: what it shows runs, what it lists is all there is."""

import re

from lib.spec.declaration import DECLARING
from tests.conftest import ROOT


def test_the_functions_in_methods_run() -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})


def test_methods_name_every_key_that_decides() -> None:
    text = " ".join((ROOT / "docs" / "methods.md").read_text().split())
    assert f"{', '.join(DECLARING)}. The report says" in text


def test_relative_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
