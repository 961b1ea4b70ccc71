"""What the site has beyond Sphinx: figures from the committed results, public names, methods and notebooks."""

import importlib
import inspect
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.common.results_page import headline  # noqa: E402


def package_version() -> str:
    """That of the package, read and not imported."""
    text = (ROOT / "vislens_interp" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


@cache
def benchmarks() -> dict[str, dict[str, Any]]:
    """What was measured and what not, by the name of the benchmark."""
    text = (ROOT / "benchmarks" / "results" / "results.json").read_text(encoding="utf-8")
    return {one["name"]: one for one in json.loads(text)["benchmarks"]}


class Measured(SphinxDirective):
    """A table of a benchmark's figures: its name as the argument, a pattern of the figures' names on each line.

    Every pattern has to find something, so that no page goes on showing what is no longer measured.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        one = self.benchmark()
        chosen = []
        for pattern in self.content:
            found = [row for row in one["measures"] if re.search(pattern, row["what"])]
            if not found:
                raise self.error(f"no figure of {one['name']} is named like {pattern!r}.")
            chosen += [row for row in found if row not in chosen]
        lines = headline({"benchmarks": [{**one, "page": f"/{one['page']}", "measures": chosen}]})
        return self.parse_text_to_nodes("\n".join(lines))

    def benchmark(self) -> dict[str, Any]:
        """The entry of the results."""
        one = benchmarks().get(self.arguments[0])
        if one is None or one["state"] != "measured":
            raise self.error(f"{self.arguments[0]!r} has no results; expected one of {', '.join(benchmarks())}.")
        return one


class NotReached(Measured):
    """The aims of a benchmark that were not reached, in its own words; on the lines, patterns of those to show."""

    def run(self) -> list[nodes.Node]:
        failed = [aim["what"] for aim in self.benchmark()["aims"] if aim["met"] is False]
        shown = [f"- {what}" for what in failed if not self.content or re.search("|".join(self.content), what)]
        return self.parse_text_to_nodes("\n".join(shown or ["- None."]))


class FromSource(SphinxDirective):
    """What autodoc makes of names that the package itself lists."""

    def described(self, lines: list[str]) -> list[nodes.Node]:
        """The nodes of reStructuredText."""
        return self.parse_text_to_nodes("\n".join(["```{eval-rst}", *lines, "```"]))


class PublicNames(FromSource):
    """Every name of a module's ``__all__``, by the path by which users import it.

    A name that ``vislens_interp`` has too is described there, and linked here.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        import vislens_interp

        module = importlib.import_module(self.arguments[0])
        first, lines = set(vislens_interp.__all__), []
        for name in module.__all__:
            value = getattr(module, name)
            if module is not vislens_interp and name in first and getattr(vislens_interp, name) is value:
                lines += [f"- :py:obj:`vislens_interp.{name}`", ""]
            elif inspect.ismodule(value):
                lines += [f"- :doc:`{name} </docs/api/{name}>`, a module", ""]
            else:
                kind = "class" if inspect.isclass(value) else "function" if inspect.isroutine(value) else "data"
                place = module.__name__
                if kind == "data" and module is vislens_interp:  # its docstring stands where it is assigned
                    place += f".{vislens_interp._MODULES[name]}"
                lines += [f".. auto{kind}:: {place}.{name}", "   :no-value:" if kind == "data" else "", ""]
        return self.described(lines)


class MethodClasses(FromSource):
    """Every method's name and class, from the registry."""

    def run(self) -> list[nodes.Node]:
        from vislens_interp.methods import METHODS

        names: dict[tuple[str, str], list[str]] = {}
        for name, entry in METHODS.items():
            names.setdefault((entry.module, entry.attribute), []).append(f'``"{name}"``')
        lines = []
        for (module, attribute), known in names.items():
            kind = "class" if attribute[0].isupper() else "function"
            lines += [f"{', '.join(known)}:", "", f".. auto{kind}:: vislens_interp.{module}.{attribute}", ""]
        return self.described(lines)


def escape(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Docstrings are prose: ``fit_``, ``|x|`` and ``**given`` in them are no markup."""
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if example or line.lstrip().startswith(".. "):
            continue
        parts = re.split(r"(``.*?``|`.*?`)", line)
        for place in range(0, len(parts), 2):
            text = re.sub(r"(?<=\w)_(?!\w)", r"\_", parts[place]).replace("|", r"\|")
            odd = text.count("*") % 2 == 1 or re.search(r"(?<![\\*\w])\*\*(?=\w+[:,])", text)
            parts[place] = re.sub(r"(?<!\\)\*", r"\*", text) if odd else text
        lines[number] = "".join(parts)


def notebook(text: str) -> Any:
    """A tutorial as the notebook that jupytext sees in it, for Python's kernel."""
    import jupytext

    made = jupytext.reads(text, fmt="py:percent")
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return made


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("measured", Measured)
    app.add_directive("not-reached", NotReached)
    app.add_directive("public-names", PublicNames)
    app.add_directive("method-classes", MethodClasses)
    app.connect("autodoc-process-docstring", escape, priority=900)  # after napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
