#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the corpus of tiny-llama from Debian documentation packages that were unpacked below ROOT (README.md):

    python3 make_corpus.py ROOT OUT

OUT gets train.txt and eval.txt; eval.txt is chapters of The Debian Administrator's Handbook whose paragraphs
train.txt does not hold. The same packages give the same bytes. Prints sizes and SHA-256. Standard library only."""
import argparse
import gzip
import hashlib
import html.parser
import pathlib
import re
import sys
import unicodedata

HANDBOOK = "usr/share/doc/debian-handbook/html/en-US"
# Chapters: a page and those that name it as "up".
HELD_OUT = ("network-services", "advanced-administration", "workstation")
INDEXES = {"bookindex", "genindex", "search", "doc_keyword_crossref", "doc_backlink_crossref", "requirements"}

# What of each package is English prose, as patterns below its folder (or below ROOT itself).
SOURCES = {
    "debian-handbook": [HANDBOOK + "/*.html"],
    "apt-doc": ["usr/share/doc/apt-doc/guide.html/*.html", "usr/share/doc/apt-doc/offline.html/*.html"],
    "aptitude-doc-en": ["usr/share/doc/aptitude/html/en/*.html"],
    "blends-doc": ["usr/share/doc/blends-doc/html/*.html"],
    "debian-edu-doc-en": ["usr/share/doc/debian-edu-doc-en/*bookworm*.html"],
    "debian-faq": ["usr/share/doc/debian/FAQ/*.en.html"],
    "debian-policy": ["usr/share/doc/debian-policy/policy.html/*.html",
                      "usr/share/doc/debian-policy/perl-policy.html/*.html",
                      "usr/share/doc/debian-policy/*-1.*.html", "usr/share/doc/debian-policy/autopkgtest.html",
                      "usr/share/doc/debian-policy/debconf_specification.html"],
    "debian-reference-en": ["usr/share/debian-reference/*.en.html"],
    "debmake-doc": ["usr/share/doc/debmake-doc/html/*.en.html"],
    "developers-reference": ["usr/share/developers-reference/*.html"],
    "dict-devil": ["usr/share/dictd/devil.dict.dz"],
    "exim4-doc-html": ["usr/share/doc/exim4-doc-html/spec_html/*.html"],
    "git-doc": ["usr/share/doc/git-doc/*.html", "usr/share/doc/git-doc/howto/*.html",
                "usr/share/doc/git-doc/technical/*.html"],
    "hamradio-maintguide": ["usr/share/doc/hamradio-maintguide/html/*.html"],
    "harden-doc": ["usr/share/doc/harden-doc/html/en-US/*.html"],
    "installation-guide-amd64": ["usr/share/doc/installation-guide-amd64/en/*.html"],
    "jargon-text": ["usr/share/doc/jargon-text/jargon.txt.gz"],
    "live-manual-html": ["usr/share/doc/live-manual/html/live-manual/*.en.html"],
    "maint-guide": ["usr/share/doc/maint-guide/html/*.en.html"],
    "postgresql-doc-15": ["usr/share/doc/postgresql-doc-15/html/*.html"],
    "shorewall-doc": ["usr/share/doc/shorewall-doc/html/*.html"],
    "sqlite3-doc": ["usr/share/doc/sqlite3/*.html"],
}

BLOCKS = set("address article aside blockquote body br caption center dd div dl dt fieldset figure footer form h1 h2 "
             "h3 h4 h5 h6 header hr html li main ol p pre section table tbody td th thead title tr ul".split())
PARAGRAPHS = {"p", "div", "pre", "table", "header", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "html"}
HIDDEN = {"head", "script", "style", "nav", "template"}
PLAIN = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u2032": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"',
    "\u2033": '"', "\u00ab": '"', "\u00bb": '"', "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-",
    "\u2014": " - ", "\u2015": " - ", "\u2022": "*", "\u00b7": "*", "\u2026": "...", "\u2192": "->", "\u21d2": "=>",
    "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u00ad": "", "\u200b": "", "\ufeff": "", "\u00a9": "(C)",
})


class Text(html.parser.HTMLParser):
    """The visible text of a page: one line per block, the lines of preformatted text as they stand."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts, self.hidden, self.pre = [], 0, 0

    def handle_starttag(self, tag, attributes):
        self.hidden += tag in HIDDEN
        self.pre += tag == "pre"
        if tag in BLOCKS:
            self.parts.append("\n\n" if tag in PARAGRAPHS or tag in ("ul", "ol", "dl") else "\n")

    def handle_endtag(self, tag):
        self.hidden = max(0, self.hidden - (tag in HIDDEN))
        self.pre = max(0, self.pre - (tag == "pre"))
        if tag in BLOCKS:
            self.parts.append("\n\n" if tag in PARAGRAPHS else "\n")

    def handle_startendtag(self, tag, attributes):
        if tag in BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data if self.pre else re.sub(r"\s+", " ", data))


def decode(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def text_of(path):
    data = path.read_bytes()
    if path.suffix in (".gz", ".dz"):
        data = gzip.decompress(data)
    text = decode(data)
    if path.suffix == ".html":
        parser = Text()
        parser.feed(text)
        parser.close()
        text = "".join(parser.parts)
    text = unicodedata.normalize("NFC", text).translate(PLAIN).replace("\r", "").expandtabs(4)
    text = "".join(c for c in text if c == "\n" or c.isprintable())
    return re.sub(r"[ \t]+\n", "\n", text)


def paragraphs(text):
    """Paragraphs with plain spaces; those of other scripts and mere ornaments are left out."""
    for paragraph in re.split(r"\n{2,}", text):
        lines = [re.sub(r" {2,}", " ", line).rstrip() for line in paragraph.split("\n")]
        paragraph = "\n".join(line for line in lines if line.strip()).strip()
        letters = sum(c.isascii() and c.isalpha() for c in paragraph)
        if letters >= 2 and sum(not c.isascii() for c in paragraph) * 20 <= len(paragraph):
            yield paragraph


def is_short(paragraph):
    return len(paragraph) < 60 and "\n" not in paragraph


def key_of(paragraph):
    return re.sub(r"\W+", " ", paragraph).strip().lower()


def take(paths, seen, longest=60):
    """The pages' text, without paragraphs that were there before (short ones may come again)."""
    pages = []
    for path in paths:
        kept = []
        for paragraph in paragraphs(text_of(path)):
            key = key_of(paragraph)
            if key in seen:
                continue
            if len(key) >= longest:
                seen.add(key)
            # Of lines like headings only the last before a text is one: the others are menus and tables of contents.
            if kept and is_short(kept[-1]) and is_short(paragraph):
                kept.pop()
            kept.append(paragraph)
        if kept and is_short(kept[-1]):
            kept.pop()
        if sum(map(len, kept)) >= 200:
            pages.append("\n\n".join(kept) + "\n\n")
    return "".join(pages)


def chapter_of(path):
    up = re.search(r'<link rel="up" href="([^"]*)\.html"', path.read_text(encoding="utf-8", errors="replace"))
    return up.group(1) if up else ""


def pages_of(root, package):
    base = root / package if (root / package).is_dir() else root
    pages = [path for pattern in SOURCES[package] for path in sorted(base.glob(pattern))
             if path.stem not in INDEXES]
    if not pages:
        sys.exit(f"{package}: no page below {root}")
    return pages


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("root", type=pathlib.Path, help="the packages, unpacked: a folder each, or all in one tree")
    arguments.add_argument("out", type=pathlib.Path, help="folder for train.txt and eval.txt")
    given = arguments.parse_args()

    handbook = pages_of(given.root, "debian-handbook")
    held_out = [path for path in handbook if path.stem in HELD_OUT or chapter_of(path) in HELD_OUT]
    held_out.sort(key=lambda path: (HELD_OUT.index(path.stem if path.stem in HELD_OUT else chapter_of(path)),
                                    path.stem not in HELD_OUT, path.name))
    seen = set()
    evaluation = take(held_out, seen)
    train = []
    for package in SOURCES:
        pages = [path for path in pages_of(given.root, package) if path not in held_out]
        text = take(pages, seen)
        train.append(text)
        print(f"{package:26} {len(pages):5} pages {len(text.encode()):9} bytes")

    given.out.mkdir(parents=True, exist_ok=True)
    for name, text in (("train.txt", "".join(train)), ("eval.txt", evaluation)):
        data = text.encode()
        (given.out / name).write_bytes(data)
        print(f"{hashlib.sha256(data).hexdigest()}  {name}  {len(data)} bytes")


if __name__ == "__main__":
    main()
