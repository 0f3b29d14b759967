"""The readme of a distribution has no link that leads nowhere."""

from __future__ import annotations

import re

import pytest

from hatch_build import absolute_links
from tests.processes import ROOT

SOURCE = "https://example.com/dask-hpsearch"


@pytest.mark.parametrize(
    ("text", "with_source", "without"),
    [
        ("[a](docs/a.md#b)", f"[a]({SOURCE}/blob/main/docs/a.md#b)", "a"),
        ("![a](docs/a.png)", f"![a]({SOURCE}/raw/main/docs/a.png)", ""),
        ("[a](https://a.example)", "[a](https://a.example)", None),
        ("[a](#b)", "[a](#b)", None),
        (
            "[![a](a.svg)](b.md)",
            f"[![a]({SOURCE}/raw/main/a.svg)]({SOURCE}/blob/main/b.md)",
            "",
        ),
        ("```python\nx[a](b)\n```\n", "```python\nx[a](b)\n```\n", None),
    ],
)
def test_links_become_absolute_or_text(
    text: str, with_source: str, without: str | None
) -> None:
    """With an address of the repository, and without one."""
    assert absolute_links(text, SOURCE) == with_source
    assert absolute_links(text, None) == (text if without is None else without)


@pytest.mark.parametrize("source", [SOURCE, None])
def test_no_relative_link_is_left_in_the_readme(source: str | None) -> None:
    """In README.md as it is."""
    text = absolute_links((ROOT / "README.md").read_text(encoding="utf-8"), source)

    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^()\s]+)\)", prose)
    assert [
        one for one in targets if not one.startswith("#") and "://" not in one
    ] == []
