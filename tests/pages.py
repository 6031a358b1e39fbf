"""A page as a test reads it."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def loads(self) -> list[str]:
        """Every address that a browser would go to or load, but for places and pictures of the page itself."""
        names = ("src", "href", "xlink:href", "srcset", "action", "poster", "data")
        found = [attributes[name] or "" for _, attributes in self.tags for name in names if name in attributes]
        return [address for address in found if not address.startswith(("#", "data:image/png;base64,"))]


def text_of(page: str) -> str:
    """The text outside tags, with single spaces."""
    return re.sub(r"\s+", " ", Page(page).text)
