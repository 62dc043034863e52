"""What a page of HTML holds."""

import html
import html.parser
import re
from pathlib import Path

VOID = {"meta", "img", "br"}


class Seen(html.parser.HTMLParser):
    """All tags with attributes, all text, and the tags left open; fails on unbalanced tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] * (tag not in VOID)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def seen(folder: Path) -> Seen:
    return Seen((folder / "index.html").read_text())


def tables(folder: Path) -> list[list[list[str]]]:
    """The text of every table: a list of lines of cells, the heading first."""
    text = (folder / "index.html").read_text()
    found = []
    for table in re.findall("<table>(.*?)</table>", text, re.DOTALL):
        lines = re.findall("<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
        cells = [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in lines]
        found.append([[html.unescape(re.sub("<[^>]+>", " ", cell)).strip() for cell in line] for line in cells])
    return [[[re.sub(r"\s+", " ", cell) for cell in line] for line in table] for table in found]
