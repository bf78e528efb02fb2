"""What a page of Markdown says in numbers, whatever the sentences around them: by section and paragraph."""

import re

# A number as digits or as a word. One within a word ("int8", "v5e", "2^24") is a name, and a version is not a number.
NUMBER = re.compile(r"(?<![\w^.,-])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:(?=[x%])|(?![\w^]|[.,]\d|-\d))")
WORDS = {"half": 0.5, "two": 2, "twice": 2, "three": 3, "four": 4, "five": 5, "ten": 10}


def numbers(text: str) -> set[float]:
    """The numbers in a text."""
    digits = {float(found.replace(",", "")) for found in NUMBER.findall(text)}
    return digits | {float(WORDS[word]) for word in re.findall(r"[a-z]+", text.lower()) if word in WORDS}


def section(page: str, title: str) -> str:
    """The text below a heading of the second level, up to the next."""
    [found] = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    return found


def python_blocks(text: str) -> list[str]:
    """The Python code in a text, a string for each block."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def paragraphs(text: str) -> list[str]:
    """Paragraphs and items of lists, a line each; neither code nor tables."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = re.split(r"\n\s*\n|\n(?=- )", text)
    return [" ".join(one.split()) for one in found if one.strip() and not one.lstrip().startswith("|")]


def says(page: str, title: str, *wanted: float | str) -> bool:
    """Whether one paragraph of a section has all of these numbers and names, in whatever words."""
    return any(all(_is_in(one, value) for value in wanted) for one in paragraphs(section(page, title)))


def _is_in(paragraph: str, value: float | str) -> bool:
    if isinstance(value, str):
        return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", paragraph) is not None
    return float(value) in numbers(paragraph)
