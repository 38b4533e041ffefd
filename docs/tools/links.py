"""Writes what needs the public address: badges, Colab links, where to report a weakness.

The address is one line of pyproject.toml, so that a fork changes that line and runs `make links`:

    [project.urls]
    Repository = "https://github.com/<owner>/<name>"

Without it there are no such links, since they would be dead. Everything else stays as it is.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
COLAB = "https://colab.research.google.com"
README_MARKS = ("<!-- badges -->", "<!-- end of badges -->")


def repository(root: Path = ROOT) -> str:
    """The public address, without a slash at its end; empty where none is set."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project.get("urls", {}).get("Repository", "")).rstrip("/")


def colab_badge(url: str, notebook: str) -> str:
    """The badge that opens a notebook in Colab; empty without an address on GitHub."""
    name = url.removeprefix("https://github.com/")
    if name == url:
        return ""
    address = f"{COLAB}/github/{name}/blob/main/notebooks/{notebook}.ipynb"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({address})"


def readme(text: str, url: str) -> str:
    """The README with the badges of its workflows between the two marks."""
    badges = ""
    for name in ("ci", "docs") if url else ():
        workflow = f"{url}/actions/workflows/{name}.yml"
        badges += f"[![{name}]({workflow}/badge.svg)]({workflow})\n"
    start, end = (re.escape(mark) for mark in README_MARKS)
    return re.sub(rf"({start}\n).*?({end})", rf"\g<1>{badges}\g<2>", text, flags=re.DOTALL)


def notebook_source(text: str, url: str, notebook: str) -> str:
    """A notebook with the badge below its title, and the address that its first cell clones."""
    text = re.sub(r"^# \[!\[Open in Colab\].*\n#\n", "", text, flags=re.MULTILINE)
    badge = colab_badge(url, notebook)
    if badge:
        text = re.sub(r"^(# # .*\n#\n)", rf"\g<1># {badge}\n#\n", text, count=1, flags=re.MULTILINE)
    return re.sub(
        r'^REPOSITORY = ".*?"', f'REPOSITORY = "{url}"', text, count=1, flags=re.MULTILINE
    )


def notebooks_readme(text: str, url: str) -> str:
    """The notebooks' README with a badge beside each name of its table."""
    text = re.sub(r" \[!\[Open in Colab\][^|]*(?= \|)", "", text)

    def with_badge(match: re.Match[str]) -> str:
        badge = colab_badge(url, match[1])
        return f"{match[0]} {badge}" if badge else match[0]

    return re.sub(r"^\| \[(\w+)\]\(\w+\.ipynb\)", with_badge, text, flags=re.MULTILINE)


def citation(text: str, url: str) -> str:
    """CITATION.cff with the address, if there is one."""
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.MULTILINE)
    return text + (f'repository-code: "{url}"\n' if url else "")


def issue_config(url: str) -> str:
    """The issue templates' config.yml: a weakness is reported in private."""
    text = "blank_issues_enabled: true\n"
    if url:
        text += (
            "contact_links:\n"
            "  - name: A weakness of security\n"
            f"    url: {url}/security/advisories/new\n"
            "    about: Please report it in private; SECURITY.md says what to expect.\n"
        )
    return text


def linked(root: Path = ROOT) -> dict[Path, str]:
    """The text of every file that holds such a link, as it is to be."""
    url = repository(root)

    def read(path: Path) -> str:
        return path.read_text(encoding="utf-8")

    texts = {
        root / "README.md": readme(read(root / "README.md"), url),
        root / "CITATION.cff": citation(read(root / "CITATION.cff"), url),
        root / ".github" / "ISSUE_TEMPLATE" / "config.yml": issue_config(url),
    }
    index = root / "notebooks" / "README.md"
    texts[index] = notebooks_readme(read(index), url)
    for path in sorted((root / "notebooks").glob("*.py")):
        texts[path] = notebook_source(read(path), url, path.stem)
    return texts


def main() -> None:
    """Writes them, and names those that have changed."""
    for path, text in linked().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
