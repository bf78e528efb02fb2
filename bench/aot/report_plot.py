"""Draws the static report."""

import json
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe and Ito's palette: colour-blind eyes tell these apart.
COLOURS = {"kernel": "#0072B2", "XLA": "#56B4E9", "formula": "#D55E00"}


def plot(shares: dict[str, dict[str, float]], forms: list[str], output: Path) -> None:
    """Writes a panel for each chip, with a bar for each of its forms; the same shares give the same bytes.

    The shares themselves are in the file as its description, so that a test can tell an old plot.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, len(shares), sharex=True, sharey=True)
    for axes, (chip, by_form) in zip(panels, shares.items(), strict=True):
        for place, form in enumerate(forms):
            if form in by_form:
                colour = next(c for kind, c in COLOURS.items() if form.startswith(kind))
                axes.barh(place, 100 * by_form[form], color=colour)
            text = f"{by_form[form]:.0%}" if form in by_form else "-"
            axes.text(100 * by_form.get(form, 0) + 3, place, text, va="center", fontsize=8)
        axes.set(title=chip, xlim=(0, 135), xticks=[0, 50, 100])
        axes.axvline(100, color="#999999", linewidth=0.8)
        axes.set_yticks(range(len(forms)), forms, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    figure.supxlabel(
        "bfloat16 to int8: % of memory speed that the count allows; a bound, not a measurement", fontsize=9
    )
    with mpl.rc_context({"svg.hashsalt": "static-report"}):
        figure.savefig(output, metadata={"Date": None, "Description": json.dumps(shares)})
