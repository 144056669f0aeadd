"""Text is told from what it stands on by those who see less well: 4.5 to 1, as WCAG 2.2 asks of text (1.4.3)."""

from __future__ import annotations

import re

import pytest

from tidemill_serving.dashboard.look import head

THEMES = {
    name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", body))
    for name, body in re.findall(r"(:root|\[data-theme='dark'\]) \{(.*?)\}", str(head()), re.DOTALL)
}
PAIRS = (
    *(("ink", "paper"), ("ink", "surface"), ("soft", "paper"), ("soft", "surface"), ("soft", "faint")),
    *(("accent", "surface"), ("accent", "faint"), ("paper", "accent")),
    *((tone, f"{tone}-bg") for tone in ("good", "watch", "bad", "plain")),
)


@pytest.mark.parametrize("theme", [":root", "[data-theme='dark']"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out_from_its_ground(theme: str, text: str, ground: str) -> None:
    light, dark = sorted((luminance(THEMES[theme][text]), luminance(THEMES[theme][ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour such as #0b6b74."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
