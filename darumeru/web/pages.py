"""Pages that work from disk and without any network: templates, data as scripts, style.

A page that is opened from disk may not `fetch`, so all data are scripts that call `daru(name, value)`. No page builds HTML from
strings, and the policy allows no inline script or style.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.web.text import escape_markdown

if TYPE_CHECKING:
    import jinja2

SHARED = Path(__file__).parent / "shared"


@cache
def _templates(folder: Path) -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, SHARED]),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda v: "—" if v is None else f"{v:.3f}"
    environment.filters["thousands"] = lambda v: "—" if v is None else f"{v:,}".replace(",", "\u202f")
    environment.filters["md"] = lambda v: escape_markdown(str(v))
    environment.filters["quote"] = lambda text: "\n".join(f"    {line}" for line in str(text).splitlines())
    return environment


def render_page(folder: Path, name: str, **values: Any) -> str:
    """Return a page from its template; in HTML everything put in is escaped.

    Args:
        folder: of the template and those that it includes; `base.html.j2` is shared.
        name: of the template.
        values: what it names.
    """
    return str(_templates(folder).get_template(name).render(**values))


def write_assets(folder: Path, *further: Path) -> None:
    """Write the style and script that every page needs, and `further` files."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*sorted(SHARED.iterdir()), *further):
        if file.suffix != ".j2":
            shutil.copyfile(file, folder / file.name)


def write_page(path: Path, text: str) -> None:
    """Write a file of a site that is put in its place as a whole, when it is done."""
    # A lone surrogate, which JSON can carry and UTF-8 cannot, becomes a question mark.
    path.write_bytes(text.encode("utf-8", "replace"))


# One encoder for all: json.dumps would make a new one for each of thousands of files.
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode


def script(name: str, value: Any) -> str:
    """Return a script file that hands a value to the page.

    It stays text in whatever HTML it may be put: `<`, `>`, `&` and the two line ends that only JavaScript knows are escaped.
    """
    text = _dumps(value)
    for character in "<>&\u2028\u2029":
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return f"daru({json.dumps(name)},{text});\n"
