"""What tests of several nouns ask for: a page opened from disk, and a small language model of random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

OPEN = "document.querySelectorAll('details').forEach(one => one.open = true)"


@pytest.fixture
def look(chromium: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page from disk, on a screen of some width, in a scheme of colours."""
    opened = []

    def open_page(width: int = 1280, scheme: str = "light") -> Any:
        seen = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        opened.append(seen)
        seen.asked = []
        seen.on("request", lambda request: seen.asked.append(request.url))
        seen.goto(file.as_uri())
        seen.evaluate(OPEN)
        return seen

    yield open_page
    for seen in opened:
        seen.close()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never written to."""
    from rmpipe import world

    folder = tmp_path_factory.mktemp("base")
    world.new_model(3, hidden=32, layers=1, heads=2).save_pretrained(folder)
    world.tokenizer().save_pretrained(folder)
    return folder
