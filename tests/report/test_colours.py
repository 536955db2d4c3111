"""The colours of charts: seen on their ground by everybody, and told apart by readers who lack one kind of cones."""

import itertools
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from coterie.report.asset_files import read_asset

BLINDNESS = {
    "none": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "protanopia": [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
    "deuteranopia": [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881],
    "tritanopia": [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900],
}
"""Machado, Oliveira, Fernandes 2009, a matrix [3, 3] for linear RGB, at full severity."""
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
THEMES = {"light": 0, "dark": 1}


def colours(theme: str) -> dict[str, NDArray[np.float64]]:
    """Return the variables of a theme as linear RGB in [0, 1]."""
    block = re.findall(r"--ground:[^}]*", read_asset("page.css"))[THEMES[theme]]
    found = re.findall(r"--([\w-]+): #([0-9a-f]{6})", block)
    return {name: linear(np.array([int(text[k : k + 2], 16) / 255 for k in (0, 2, 4)])) for name, text in found}


def linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the ratio of luminances, as WCAG 2 has it."""
    low, high = sorted(float(TO_XYZ[1] @ each) + 0.05 for each in (a, b))
    return high / low


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = np.cbrt(np.clip(TO_XYZ @ np.clip(rgb, 0, 1) / WHITE, 1e-6, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", THEMES)
def test_text_and_lines_stand_out_from_their_ground(theme: str) -> None:
    """WCAG 2: 4.5 for text, 3 for what a chart draws."""
    found = colours(theme)
    for ground in ("ground", "card"):
        assert min(contrast(found[name], found[ground]) for name in ("ink", "soft", "link")) >= 4.5
        assert min(contrast(found[f"series-{k}"], found[ground]) for k in range(1, 9)) >= 3


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_colours_of_series_are_told_apart_by_everybody(theme: str, kind: str) -> None:
    """A difference of 10 in Lab is seen at a glance. The dashes differ too."""
    found = colours(theme)
    seen = [lab(np.reshape(BLINDNESS[kind], (3, 3)) @ found[f"series-{k}"]) for k in range(1, 9)]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) >= 10
