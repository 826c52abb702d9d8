"""What must hold of every page: it parses, its elements are closed, it fetches nothing."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page as it is read: its text, and what is wrong with it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.wrong, self.said = [], [], []
        self.ids, self.links = [], set()
        self.feed(page)
        self.close()
        self.wrong += [f"{tag} is not closed" for tag in self.open]
        self.wrong += [f"two elements are {name}" for name in {*self.ids} if self.ids.count(name) > 1]
        self.wrong += [f"nothing is {name}" for name in self.links - {*self.ids}]

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "iframe", "object"):
            self.wrong.append(tag)
        for name, value in attrs:
            fetches = name in ("src", "href", "xlink:href", "srcset") and not (value or "").startswith(
                ("data:image/png;base64,", "#")  # the picture itself, and a shape of the same page
            )
            self.ids += [value] if name == "id" else []
            self.links |= {*re.findall(r"(?:^|url\()#(\w+)", value or "")} if name in ("href", "clip-path") else set()
            if fetches or name.startswith("on"):
                self.wrong.append(f"{tag} {name}={value}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"{tag} is closed, but not open")

    def handle_data(self, data):
        self.said.append(data)
        if self.open and self.open[-1] == "style" and ("url(" in data or "@import" in data):
            self.wrong.append("the style fetches something")


def text_of(page: str) -> str:
    """The text of a page, which must be whole and fetch nothing."""
    read = Page(page)
    assert read.wrong == []
    return " ".join(" ".join(read.said).split())
